package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/doctor"
	"rotatord/internal/journal"
	"rotatord/internal/status"
)

func newDoctor() *cobra.Command {
	var configPath string
	var logIn bool
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at all that rotations depend on, online",
		Long: `Look at all that rotations depend on: whether each Cloudflare credential is active, until when,
and may list; whether the configured service tokens are there; this machine's clock and the rate limit;
whether the login at Vault works, and its policy allows what is needed and no more; and the state
directory. Nothing is changed anywhere, so that a credential may write is not proven. With AppRole,
Vault is looked at through the running daemon (admin_socket): a login would use up one use of the
secret_id, so doctor does that only with --login. Run it as the
user that the daemon runs as: it reads the same credentials. It ends with exit code 1 if anything is
bad; warnings do not fail it. docs/doctor.md explains each code.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(configPath, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			records, ledgerErr := ledgerOf(cmd.Context(), c)
			if errors.Is(ledgerErr, fs.ErrNotExist) {
				ledgerErr = nil // nothing was ever rotated here
			}
			o := doctor.Options{Config: c, Records: records, LedgerErr: ledgerErr, StateErr: journal.Refusal(c.State.Dir), LogIn: logIn}
			if c.AdminSocket != "" {
				client := admin.NewClient(c.AdminSocket)
				o.AskDaemon = askDaemon(client)
				o.AskTroubles = func(ctx context.Context) ([]status.Trouble, error) {
					all, err := client.Tokens(ctx)
					return troubles(all, time.Now()), err
				}
			}
			findings := doctor.Examine(cmd.Context(), o)
			if format == "json" {
				err = doctorJSON(cmd.OutOrStdout(), configPath, findings)
			} else {
				doctorText(cmd.OutOrStdout(), findings)
			}
			if err == nil && doctor.Worst(findings) == doctor.Bad {
				return errReported
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&logIn, "login", false, "log in to Vault by AppRole, which uses up one use of the secret_id, and revoke that session afterwards")
	configFlag(cmd, &configPath)
	outputFlag(cmd, &format)
	return cmd
}

// askDaemon has a running daemon look at Vault.
func askDaemon(client *admin.Client) func(context.Context) ([]doctor.Finding, error) {
	return func(ctx context.Context) ([]doctor.Finding, error) {
		answer, err := client.LookAtVault(ctx)
		var all []doctor.Finding
		for _, f := range answer.Findings {
			all = append(all, doctor.Finding{Level: doctor.Level(f.Level), Code: doctor.Code(f.Code), Subject: f.Subject, Message: f.Message, Advice: f.Advice})
		}
		return all, err
	}
}

func doctorJSON(w io.Writer, path string, findings []doctor.Finding) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		File     string           `json:"file"`
		Good     bool             `json:"good"`
		Findings []doctor.Finding `json:"findings"`
	}{path, doctor.Worst(findings) != doctor.Bad, findings})
}

// doctorText prints one line for each finding, and what to do below it.
func doctorText(w io.Writer, findings []doctor.Finding) {
	subjects := 0
	count := map[doctor.Level]int{}
	for _, f := range findings {
		subjects = max(subjects, len(f.Subject))
		count[f.Level]++
	}
	for _, f := range findings {
		below := "\n" + strings.Repeat(" ", 7+2+subjects+2) // where the lines of a message stand
		fmt.Fprintf(w, "%-7s  %-*s  %s\n", f.Level, subjects, f.Subject, strings.ReplaceAll(f.Message, "\n", below))
		if f.Advice != "" {
			fmt.Fprintf(w, "%-7s  %-*s  → %s\n", "", subjects, "", strings.ReplaceAll(f.Advice, "\n", below))
		}
	}
	fmt.Fprintf(w, "%d bad, %d warning(s), %d good\n", count[doctor.Bad], count[doctor.Warning], count[doctor.Good])
}
