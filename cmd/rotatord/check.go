package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/app"
	"rotatord/internal/config"
	"rotatord/internal/doctor"
	"rotatord/internal/hook"
	receivers "rotatord/internal/notify"
	"rotatord/internal/rotation"
	"rotatord/internal/vault"
)

func newCheck() *cobra.Command {
	var configPath, credentials, daemonUser string
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration",
		Long: `Check the configuration. Nothing is changed, and no network is used. If there is a ledger and no
daemon has it open, check reads from it when service tokens expire.

All faults are reported at once, with file, line and column. Warnings do not fail the check.
Secrets that cannot be read here are warnings too, because a check may run on another machine
than the daemon. So are a ca_file of a receiver of notifications that cannot be used, programs of
hooks that the user of the daemon cannot run here, a JWT and a client certificate for Vault that have
ended or are about to, and credentials that every user of the machine can read. The user of the
daemon is the owner of the state directory, or that of --user.

As root, check reads the credentials that systemd gives to a unit where the unit takes them from:
/etc/rotatord/credentials, or the directory of --credentials.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			defer collectEarly()()
			user, err := findUser(daemonUser)
			if err != nil {
				return err
			}
			if format == "json" {
				return checkJSON(cmd.Context(), configPath, credentials, user, cmd.OutOrStdout())
			}
			c, err := loadConfig(configPath, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			relocations, err := systemPlaces().relocate(c, credentials)
			if err != nil {
				return err
			}
			for _, r := range relocations {
				fmt.Fprintln(cmd.ErrOrStderr(), "note:", r)
			}
			for _, w := range warnings(c, user) {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			if faults := expiryFaults(cmd.Context(), c, time.Now()); len(faults) > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), faults.Error())
				fmt.Fprintf(cmd.ErrOrStderr(), "rotatord: %d fault(s) in %s and the ledger\n", len(faults), configPath)
				return errReported
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: good: %d token(s), %d account(s)\n", configPath, len(c.Tokens), len(c.Accounts))
			return nil
		},
	}
	configFlag(cmd, &configPath)
	credentialsFlag(cmd, &credentials)
	cmd.Flags().StringVar(&daemonUser, "user", "", "`user` that the daemon runs as, for the programs of hooks (default: the owner of the state directory, or this user)")
	outputFlag(cmd, &format)
	return cmd
}

// checkJSON prints the result as one JSON object. It returns errReported if there are faults.
func checkJSON(ctx context.Context, path, credentials string, user *doctor.ServiceUser, stdout io.Writer) error {
	result := struct {
		File     string   `json:"file"`
		Good     bool     `json:"good"`
		Faults   []string `json:"faults"`
		Warnings []string `json:"warnings"`
	}{File: path, Faults: []string{}, Warnings: []string{}}
	c, err := config.Load(path)
	faults, ok := config.AsFaults(err)
	if err != nil && !ok {
		return err
	}
	if err == nil {
		if _, err := systemPlaces().relocate(c, credentials); err != nil {
			return err
		}
		result.Warnings = append(result.Warnings, warnings(c, user)...)
		faults = expiryFaults(ctx, c, time.Now())
	}
	for _, f := range faults {
		result.Faults = append(result.Faults, f.String())
	}
	result.Good = len(faults) == 0
	encoder := json.NewEncoder(stdout)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(result); err != nil {
		return err
	}
	if !result.Good {
		return errReported
	}
	return nil
}

// expiryFaults returns a fault for each token that expires before its next rotation. It returns none
// if the ledger cannot be read, because there is none, a daemon has it open, or it is shared.
func expiryFaults(ctx context.Context, c *config.Config, now time.Time) config.Faults {
	if c.State.Shared != nil {
		return nil // it is not on this machine, and check uses no network
	}
	records, _, _ := ledgerOf(ctx, c, login{})
	var faults config.Faults
	for _, t := range c.Tokens {
		token := app.PlannedToken(t)
		record, known := records[t.Name]
		if !known || !token.MatchesRecord(record) {
			continue
		}
		next := rotation.NextDue(token, record, rotation.Pause{}).At
		if next.Before(now) && (!next.IsZero() || record.Step != rotation.StepIdle) { // it starts as soon as a daemon runs
			next = now
		}
		for _, facts := range record.ServiceTokens() {
			if fault, late := c.ExpiryFault(t.Name, facts.ID, now, next, facts.ExpiresAt); late {
				faults = append(faults, fault)
			}
		}
	}
	slices.SortStableFunc(faults, func(a, b config.Fault) int { return cmp.Compare(a.Line, b.Line) })
	return faults
}

// warnings returns the loader's warnings, those that depend on the present time, and one for each program that user cannot
// run, and for each secret that cannot be read.
func warnings(c *config.Config, user *doctor.ServiceUser) []string {
	var all []string
	for _, w := range slices.Concat(c.Warnings, c.Lint(time.Now()), c.ProgramWarnings(programs(c, user))) {
		all = append(all, w.String())
	}
	unseen, outOfSight := systemPlaces().outOfSight(c)
	all = append(all, unseen...)
	for _, secret := range c.Secrets() {
		if outOfSight[secret.Source.File] {
			continue
		}
		if _, err := secret.Source.ReadAs(context.Background(), secret.Kind); err != nil {
			all = append(all, fmt.Sprintf("%s: %s: %v", c.File, secret.Field, err))
		}
	}
	for i, r := range c.Notify {
		if err := receivers.CAProblem(context.Background(), r); err != nil && !outOfSight[r.CAFile().Path] {
			all = append(all, fmt.Sprintf("%s: notify[%d].%v", c.File, i, err))
		}
	}
	return append(all, loginWarnings(c, outOfSight)...)
}

// programs returns a function that says why the user of the daemon cannot run a program. Without a user it is the owner of
// the state directory, and where there is none yet, the user of this process.
func programs(c *config.Config, user *doctor.ServiceUser) func(program string) error {
	if user == nil {
		if user, _ = doctor.OwnerOf(c.State.Dir); user != nil {
			if known, err := findUser(strconv.Itoa(user.UID)); err == nil { // with its groups
				user = known
			}
		}
	}
	var as *hook.User
	if user != nil && user.UID != os.Geteuid() {
		as = &hook.User{UID: user.UID, GID: user.GID, Groups: user.Groups}
	}
	return func(program string) error {
		_, err := hook.LookUp(program, as)
		return err
	}
}

// loginWarnings returns what the files of vault.tls and vault.auth say about the next login, unless all is well. Files
// that this user cannot see say nothing about the daemon.
func loginWarnings(c *config.Config, outOfSight map[string]bool) (all []string) {
	if c.Vault == nil {
		return nil
	}
	unseen := outOfSight[c.Vault.TLS.CAFile] || outOfSight[c.Vault.TLS.CertFile] || outOfSight[c.Vault.TLS.KeyFile]
	for _, r := range vault.Inspect(context.Background(), *c.Vault, time.Now()) {
		if r.Advice != "" && !(r.Unusable && unseen) {
			all = append(all, fmt.Sprintf("%s: %s: %s: %s", c.File, r.Field, r.Text, r.Advice))
		}
	}
	return all
}
