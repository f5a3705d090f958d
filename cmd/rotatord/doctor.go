package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/config"
	"rotatord/internal/doctor"
	"rotatord/internal/statedir"
	"rotatord/internal/status"
)

func newDoctor() *cobra.Command {
	var configPath, credentials, serviceUser string
	var logIn bool
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check online what rotations depend on",
		Long: `Check what rotations depend on:

  - Cloudflare: is each credential active, until when, and may it list? Do the configured service
    tokens exist? What are this machine's clock and the rate limit?
  - Vault: does the login work? Does the policy allow what is needed, and no more?
  - other sinks: can each file be written?
  - the state directory

Nothing is changed, so doctor cannot prove that a credential may write. With AppRole, doctor asks the
running daemon about Vault (admin_socket), because a login spends one use of the secret_id. It logs
in by itself only with --login.

Run it as root, or as the user that the daemon runs as, because it reads the same credentials. Before
the first start of a systemd unit there is no /run/credentials/UNIT. As root, doctor then reads the
credentials where the shipped unit takes them from, /etc/rotatord/credentials, or in the directory of
--credentials. As root it also finds files that root can read and the service cannot.

The exit code is 1 if something is bad; warnings do not change it. docs/doctor.md explains each code.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(configPath, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			relocations, err := systemPlaces().relocate(c, credentials)
			if err != nil {
				return err
			}
			user, err := lookUpUser(serviceUser)
			if err != nil {
				return err
			}
			records, _, ledgerErr := ledgerOf(cmd.Context(), c, login{}) // a second login would spend a second use
			if records != nil {
				ledgerErr = nil // pauses do not matter here
			}
			if errors.Is(ledgerErr, fs.ErrNotExist) {
				ledgerErr = nil // nothing was rotated here yet
			}
			if errors.Is(ledgerErr, errLoginCosts) { // --login is for the session that is examined
				ledgerErr = errors.New("it is in Vault, and doctor logs in only once, to examine the session: rotatord status asks the running daemon")
			}
			o := doctor.Options{Config: c, Records: records, LedgerErr: ledgerErr, StateErr: stateRefusal(c), LogIn: logIn,
				IdentityFile: statedir.IdentityFile(c.State.Dir),
				Running:      func() bool { return statedir.Running(c.State.Dir) },
				Relocations:  relocations, User: user}
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
	cmd.Flags().BoolVar(&logIn, "login", false, "log in to Vault by AppRole, which spends one use of the secret_id, and revoke that session afterwards")
	cmd.Flags().StringVar(&serviceUser, "user", "", "`user` that the daemon runs as, to find files that it cannot read (default: the owner of the state directory)")
	configFlag(cmd, &configPath)
	credentialsFlag(cmd, &credentials)
	outputFlag(cmd, &format)
	return cmd
}

// stateRefusal returns why a daemon with this configuration would not start on its state directory.
func stateRefusal(c *config.Config) error {
	if c.State.Shared != nil {
		return statedir.SharedRefusal(c.State.Dir)
	}
	return statedir.Refusal(c.State.Dir)
}

// lookUpUser returns a user whose rights doctor tries; nil if name is empty.
func lookUpUser(name string) (*doctor.ServiceUser, error) {
	if name != "" && os.Geteuid() != 0 {
		return nil, usagef("--user needs root: only root can try what another user can read")
	}
	return findUser(name)
}

// findUser returns a user, by name or number, with its groups; nil if name is empty.
func findUser(name string) (*doctor.ServiceUser, error) {
	if name == "" {
		return nil, nil
	}
	found, err := user.Lookup(name)
	if err != nil {
		if found, err = user.LookupId(name); err != nil {
			return nil, usagef("--user %s: this machine has no such user. A dynamic user exists only while its unit runs: leave --user out", name)
		}
	}
	u := &doctor.ServiceUser{}
	ids, err := found.GroupIds()
	if err != nil {
		return nil, err
	}
	for _, n := range []struct {
		to   *int
		text string
	}{{&u.UID, found.Uid}, {&u.GID, found.Gid}} {
		if *n.to, err = strconv.Atoi(n.text); err != nil {
			return nil, err
		}
	}
	for _, id := range ids {
		group, err := strconv.Atoi(id)
		if err != nil {
			return nil, err
		}
		u.Groups = append(u.Groups, group)
	}
	return u, nil
}

// askDaemon returns a function that has the running daemon check Vault.
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

// doctorText prints one line for each finding, and below it what to do.
func doctorText(w io.Writer, findings []doctor.Finding) {
	subjects := 0
	count := map[doctor.Level]int{}
	for _, f := range findings {
		subjects = max(subjects, len(f.Subject))
		count[f.Level]++
	}
	for _, f := range findings {
		below := "\n" + strings.Repeat(" ", 7+2+subjects+2) // the column of the message
		fmt.Fprintf(w, "%-7s  %-*s  %s\n", f.Level, subjects, f.Subject, strings.ReplaceAll(f.Message, "\n", below))
		if f.Advice != "" {
			fmt.Fprintf(w, "%-7s  %-*s  → %s\n", "", subjects, "", strings.ReplaceAll(f.Advice, "\n", below))
		}
	}
	fmt.Fprintf(w, "%d bad, %d warning(s), %d good\n", count[doctor.Bad], count[doctor.Warning], count[doctor.Good])
}
