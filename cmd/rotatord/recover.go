package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/pending"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

func newRecover() *cobra.Command {
	var o recoverOptions
	cmd := &cobra.Command{
		Use:   "recover --state-dir DIR | --config FILE",
		Short: "Look into the state directory of a daemon that is gone, or at the copies of replicas",
		Long: `List the secrets that are sealed in a state directory, or in a copy of one, and what to do with each.
This works with a damaged or missing ledger too. Only --drop and --new-ledger change something. A
directory that a daemon has open is refused.

With --config, whose file has state.shared, and without --state-dir: the same for the copies of sealed
secrets that replicas keep in Vault. They can be listed and read beside living replicas, which deliver
them by themselves. With both: the secrets in the directory of a replica, and what the shared ledger
knows of them.

  --reveal NAME   Decrypt one secret and print it to standard output. NAME is the name of a token or a
                  rotation ID.
  --drop ID       Delete a secret that no unfinished rotation needs. It cannot be brought back. With
                  --unfinished also one that a rotation needs; its token is then in doubt
                  (sealed_lost).
  --new-ledger    Start a new ledger, if journal.db is lost or damaged and there is no backup. It does
                  not know which rotations are in doubt and which graces were promised, so read
                  "The ledger is lost" in docs/runbook.md first. What is left of the old ledger and
                  the sealed secrets are moved to another directory, not deleted.

Secrets are decrypted with identity.age of the directory, or with state.identity of the configuration.
--identity names another age identity: a break-glass key of state.recipients, that of another replica,
or a copy of the file.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return besideDaemon(recoverSealed(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), o))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.dir, "state-dir", "", "state `directory`, or a copy of it")
	flags.StringVarP(&o.config, "config", "c", "", "configuration `file` with state.shared, for the copies in Vault")
	flags.StringVar(&o.identity, "identity", "", "age identity `file` (default identity.age in the state directory, or state.identity)")
	flags.StringVar(&o.reveal, "reveal", "", "print the secret of this `token` or rotation")
	flags.StringVar(&o.drop, "drop", "", "delete the secret of this `rotation`; it cannot be brought back")
	flags.BoolVar(&o.unfinished, "unfinished", false, "with --drop: also a secret that an unfinished rotation needs")
	flags.BoolVar(&o.newLedger, "new-ledger", false, "start a new ledger in place of one that is lost")
	_ = cmd.MarkFlagDirname("state-dir")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagFilename("identity")
	o.login.flags(cmd)
	outputFlag(cmd, &o.format)
	return cmd
}

// check refuses flags that do not go together.
func (o *recoverOptions) check() error {
	switch {
	case o.dir == "" && o.config == "":
		return usagef("--state-dir is missing: give the directory that state.dir of the configuration names, or a copy of it; for the copies of replicas in Vault give --config")
	case o.reveal != "" && o.drop != "":
		return usagef("give either --reveal or --drop: a dropped secret is gone")
	case o.identity != "" && o.reveal == "":
		return usagef("--identity needs --reveal")
	case o.unfinished && o.drop == "":
		return usagef("--unfinished needs --drop")
	case o.newLedger && (o.dir == "" || o.reveal != "" || o.drop != "" || o.identity != "" || o.config != "" || o.format != "text"):
		return usagef("--new-ledger takes no other flag than --state-dir, and needs that")
	case o.config == "" && o.login != login{}:
		return usagef("--login, --vault-token-file and --credentials need --config")
	case o.drop != "" && o.format != "text":
		return usagef("--drop prints nothing: leave out --output")
	}
	return nil
}

func recoverSealed(ctx context.Context, stdout, stderr io.Writer, o recoverOptions) error {
	switch {
	case o.newLedger:
		return beginAgain(stderr, o.dir)
	case o.config != "":
		return recoverShared(ctx, stdout, stderr, o)
	case o.drop != "":
		return dropSealed(stderr, o, statedir.Drop)
	}
	in, err := statedir.Inspect(o.dir)
	if err != nil {
		return err
	}
	if statedir.IsShared(o.dir) && in.LedgerErr != nil {
		in.LedgerErr = errors.New("the directory belongs to a replica, and its ledger is shared: with --config it is asked what is needed")
	}
	return show(stdout, stderr, o, in, describe(in, onDisk))
}

// show reveals one secret, or lists all.
func show(stdout, stderr io.Writer, o recoverOptions, in *statedir.Inspection, all []found) error {
	if o.reveal != "" {
		return reveal(stdout, o, in, all)
	}
	return listFound(stdout, stderr, o, in, all)
}

// besideDaemon returns the error, with what to do if a daemon has the state directory open.
func besideDaemon(err error) error {
	if !errors.Is(err, statedir.ErrInUse) {
		return err
	}
	return fmt.Errorf("%w: ask the daemon with rotatord status; recover is for a daemon that is gone", err)
}

type recoverOptions struct {
	dir, config, identity, reveal, drop string
	newLedger                           bool
	format                              outputFormat
	unfinished                          bool
	login                               login
	// defaultIdentity is the file without --identity.
	defaultIdentity string
}

// found is a sealed secret with what is known about it.
type found struct {
	Token      string    `json:"token,omitempty"`
	RotationID string    `json:"rotation_id"`
	SealedAt   time.Time `json:"sealed_at"`
	TokenID    string    `json:"token_id,omitempty"`
	// State is waiting, overtaken, in_doubt, unneeded, unknown or damaged.
	State  string `json:"state"`
	Detail string `json:"detail"`
	Do     string `json:"do"`
}

// sealedAt says who goes on with a sealed secret in a place.
type sealedAt struct{ start, decide, later string }

var (
	// onDisk is a state directory with its own ledger, onReplica that of a replica, and inVault a copy.
	onDisk    = sealedAt{"start a daemon on this directory", "start a daemon on this directory and decide", "its answer failed validation, or a later secret replaced it"}
	onReplica = sealedAt{"start the replica on this directory", "start a replica and decide", "its answer failed validation, came late, or a later secret replaced it"}
	inVault   = sealedAt{"start a replica, if none lives", "start a replica, if none lives, and decide", "a copy of an answer that was delivered, or that a later secret replaced, and that was not erased"}
)

// describe returns what is known about each sealed secret and what to do with it, the oldest first.
func describe(in *statedir.Inspection, at sealedAt) []found {
	all := make([]found, 0, len(in.Sealed))
	for _, s := range in.Sealed {
		r, needed := in.InHand[s.RotationID]
		f := found{Token: s.Token, RotationID: s.RotationID, SealedAt: s.At.UTC().Truncate(time.Second), TokenID: s.TokenID}
		if needed {
			f.Token, f.TokenID = r.Token, r.Work.TokenID
		}
		switch {
		case s.Damage != nil:
			f.State, f.Detail = "damaged", s.Damage.Error()
			f.Do = "restore the file from a backup; if there is none, drop it"
		case in.LedgerErr != nil:
			f.State, f.Detail = "unknown", "without the ledger it is not known whether it was delivered, or replaced later"
			f.Do = "reveal it and compare it with what its sinks hold; drop it when it is not needed"
		case needed && r.Step == rotation.StepInDoubt:
			f.State, f.Detail = "in_doubt", cmp.Or(r.Doubt.Reason, "unknown")+": "+r.Doubt.Detail
			f.Do = at.start + ", which resolves the doubt; or reveal the secret and try it"
		case needed && r.Work.Overtaken != nil:
			f.State, f.Detail = "overtaken", "it was not delivered, because a sink has a later secret: another rotation replaced it, or the service token is gone"
			f.Do = fmt.Sprintf("%s: rotatord resolve %s --drop, --deliver or --rotate-now; without a daemon, compare it with what its sinks hold", at.decide, r.Token)
		case needed:
			f.State, f.Detail = "waiting", "it is not delivered yet; the ledger says "+string(r.Step)
			f.Do = at.start + ", which delivers it; or reveal it and write it to its sinks"
		case in.Abandoned[s.RotationID] != "":
			f.Token = in.Abandoned[s.RotationID]
			f.State, f.Detail = "unneeded", "another secret took its place; it is erased when the next rotation of "+f.Token+" is done"
			f.Do = "nothing; or drop it, when you are certain that no consumer uses it"
		default:
			f.State, f.Detail = "unneeded", "it belongs to no unfinished rotation: "+at.later
			f.Do = "drop it, when you are certain that no consumer uses it"
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(a.SealedAt.Compare(b.SealedAt), cmp.Compare(a.RotationID, b.RotationID))
	})
	return all
}

func listFound(stdout, stderr io.Writer, o recoverOptions, in *statedir.Inspection, all []found) error {
	if in.LedgerErr != nil {
		fmt.Fprintln(stderr, "note:", in.LedgerErr)
	}
	if o.format == "json" {
		return printJSON(stdout, all)
	}
	if len(all) == 0 {
		fmt.Fprintln(stdout, "There are no sealed secrets here.")
		return nil
	}
	if err := printFound(stdout, all); err != nil {
		return err
	}
	for _, f := range all {
		fmt.Fprintf(stdout, "\n%s\n  %s.\n  To do: %s.\n", f.RotationID, f.Detail, f.Do)
	}
	return nil
}

func printFound(w io.Writer, all []found) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TOKEN\tROTATION\tSEALED AT\tSERVICE TOKEN\tSTATE")
	for _, f := range all {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", cell(cmp.Or(f.Token, "?")), cell(f.RotationID), f.SealedAt.Format(time.RFC3339),
			cell(cmp.Or(f.TokenID, "?")), strings.ReplaceAll(f.State, "_", " "))
	}
	return table.Flush()
}

// credential is a revealed secret. It is printed to standard output only.
type credential struct {
	Token        string `json:"token,omitempty"`
	RotationID   string `json:"rotation_id"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	// Others are further secrets in the same answer.
	Others []otherCredential `json:"others,omitempty"`
}

type otherCredential struct {
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret"`
}

func reveal(stdout io.Writer, o recoverOptions, in *statedir.Inspection, all []found) error {
	matches := slices.DeleteFunc(slices.Clone(all), func(f found) bool { return f.Token != o.reveal && f.RotationID != o.reveal })
	switch {
	case len(matches) == 0 && in.LedgerErr != nil:
		return fmt.Errorf("no sealed secret of %s was found, but the ledger cannot be read: %w", o.reveal, in.LedgerErr)
	case len(matches) == 0:
		return fmt.Errorf("there is no sealed secret of %s here: without --reveal this command lists all", o.reveal)
	case len(matches) > 1:
		var list strings.Builder
		if err := printFound(&list, matches); err != nil {
			return err
		}
		return fmt.Errorf("there are %d sealed secrets of %s: name one by its rotation ID\n%s", len(matches), o.reveal, strings.TrimSuffix(list.String(), "\n"))
	}
	identities, err := pending.ReadIdentities(cmp.Or(o.identity, o.defaultIdentity, statedir.IdentityFile(o.dir)), o.dir)
	if err != nil {
		return err
	}
	issued, err := in.Open(matches[0].RotationID, identities)
	if err != nil {
		return err
	}
	c := credential{matches[0].Token, matches[0].RotationID, issued.ClientID, issued.ClientSecret.Reveal(), nil}
	for _, other := range issued.Others {
		c.Others = append(c.Others, otherCredential{other.ClientID, other.ClientSecret.Reveal()})
	}
	if o.format == "json" {
		return printJSON(stdout, c)
	}
	return printCredential(printable.Unescaped(stdout), c)
}

// printCredential prints a credential as variables. It does not change a secret, so stdout must not
// escape anything. A secret with control characters is not printed to a terminal.
func printCredential(stdout io.Writer, c credential) error {
	secrets := []string{c.ClientSecret}
	for _, other := range c.Others {
		secrets = append(secrets, other.ClientSecret)
	}
	for _, s := range secrets {
		if isTerminal(stdout) && (!printable.IsPlain(s) || strings.ContainsAny(s, "\n\t")) {
			return errors.New("the secret has control characters, which could change your terminal: send the output to a file, or use --output json, which escapes them")
		}
	}
	_, err := fmt.Fprintf(stdout, "CF_ACCESS_CLIENT_ID=%s\nCF_ACCESS_CLIENT_SECRET=%s\n", cell(c.ClientID), c.ClientSecret)
	for i, other := range c.Others {
		_, otherErr := fmt.Fprintf(stdout, "# The answer had another secret too. Client ID: %s\nCF_ACCESS_CLIENT_SECRET_%d=%s\n",
			cell(cmp.Or(other.ClientID, "not given")), i+2, other.ClientSecret)
		err = errors.Join(err, otherErr)
	}
	return err
}

func dropSealed(stderr io.Writer, o recoverOptions, drop func(dir, rotationID string) error) error {
	if o.unfinished {
		drop = statedir.DropUnfinished
	}
	if err := drop(o.dir, o.drop); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "the sealed secret of rotation %s is deleted\n", o.drop)
	return nil
}

// beginAgain starts a new ledger, and prints the consequences.
func beginAgain(stderr io.Writer, dir string) error {
	begun, err := statedir.BeginAgain(dir)
	if begun.Aside != "" {
		fmt.Fprintf(stderr, "the old files were moved to %s\n", begun.Aside)
	}
	if err != nil {
		return err
	}
	if begun.Sealed > 0 {
		fmt.Fprintf(stderr, "%d sealed secret(s) are there, and no daemon delivers them: list them with\n  rotatord recover --state-dir %s\n"+
			"and reveal one with --reveal ROTATION --identity %s\n", begun.Sealed, begun.Aside, statedir.IdentityFile(dir))
	}
	fmt.Fprintf(stderr, "%s has a new ledger, which the next daemon uses. It does not know earlier doubts, graces and pauses.\n", dir)
	return nil
}
