package main

import (
	"cmp"
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
		Use:   "recover --state-dir DIR",
		Short: "Look into the state directory of a daemon that is gone",
		Long: `List the secrets that Cloudflare issued and that are sealed in a state directory, or in
a copy of one, and what to do about each. A damaged or missing ledger does not stop it.
Nothing is changed, except by --drop and --new-ledger. It refuses a directory that a daemon has open.

  --reveal NAME   decrypt one secret and print it to standard output; NAME is that of a
                  token, or a rotation ID
  --drop ID       delete one that no unfinished rotation needs, for good; with --unfinished
                  also one that a rotation needs: its token will be in doubt (sealed_lost)
  --new-ledger    begin a new ledger where journal.db is lost or damaged and there is no backup. Then
                  nobody knows which rotations are in doubt and which graces were promised: read
                  "The ledger is lost" in docs/runbook.md first. What is left of the old ledger
                  and the sealed secrets are moved aside, and not deleted

The identity is identity.age in the directory. With --identity it can be another one: a
break-glass key that state.recipients named, or what state.identity was.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.dir == "":
				return usagef("--state-dir is missing: give the directory that state.dir of the configuration names, or a copy of it")
			case o.reveal != "" && o.drop != "":
				return usagef("--reveal and --drop exclude each other: what is dropped is gone")
			case o.identity != "" && o.reveal == "":
				return usagef("--identity goes with --reveal")
			case o.unfinished && o.drop == "":
				return usagef("--unfinished goes with --drop")
			case o.newLedger && (o.reveal != "" || o.drop != "" || o.identity != "" || o.format != "text"):
				return usagef("--new-ledger goes with --state-dir alone")
			case o.newLedger:
				return beginAgain(cmd.ErrOrStderr(), o.dir)
			case o.drop != "" && o.format != "text":
				return usagef("--drop prints nothing: leave out --output")
			case o.drop != "":
				return dropSealed(cmd.ErrOrStderr(), o)
			}
			in, err := statedir.Inspect(o.dir)
			if err != nil {
				return err
			}
			found := describe(in)
			if o.reveal != "" {
				return reveal(cmd.OutOrStdout(), o, in, found)
			}
			return listFound(cmd.OutOrStdout(), cmd.ErrOrStderr(), o, in, found)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.dir, "state-dir", "", "state `directory`, or a copy of it")
	flags.StringVar(&o.identity, "identity", "", "age identity `file` (default identity.age in the state directory)")
	flags.StringVar(&o.reveal, "reveal", "", "print the secret of this `token` or rotation")
	flags.StringVar(&o.drop, "drop", "", "delete the secret of this `rotation` for good")
	flags.BoolVar(&o.unfinished, "unfinished", false, "with --drop: also one that an unfinished rotation needs")
	flags.BoolVar(&o.newLedger, "new-ledger", false, "begin a new ledger in the place of one that is lost")
	_ = cmd.MarkFlagDirname("state-dir")
	_ = cmd.MarkFlagFilename("identity")
	outputFlag(cmd, &o.format)
	return cmd
}

type recoverOptions struct {
	dir, identity, reveal, drop string
	newLedger                   bool
	format                      outputFormat
	unfinished                  bool
}

// found is one sealed secret and what is known about it.
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

// describe says of each sealed secret what it is and what to do about it, the oldest first.
func describe(in *statedir.Inspection) []found {
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
			f.Do = "restore the file from a backup; without one, drop it"
		case in.LedgerErr != nil:
			f.State, f.Detail = "unknown", "without the ledger nobody can tell whether it was delivered, or replaced since"
			f.Do = "reveal it and compare it with what is in Vault; drop it when it is not needed"
		case needed && r.Step == rotation.StepInDoubt:
			f.State, f.Detail = "in_doubt", cmp.Or(r.Doubt.Reason, "unknown")+": "+r.Doubt.Detail
			f.Do = "start a daemon on this directory, which resolves it; or reveal it and try it"
		case needed && r.Work.Overtaken != nil:
			f.State, f.Detail = "overtaken", "it was not delivered, because a sink holds a later secret: the token was rotated by others, or is gone"
			f.Do = fmt.Sprintf("start a daemon on this directory and decide: rotatord resolve %s --drop, --deliver or --rotate-now; "+
				"without a daemon, compare it with what is in Vault", r.Token)
		case needed:
			f.State, f.Detail = "waiting", "it waits to be delivered; the ledger says "+string(r.Step)
			f.Do = "start a daemon on this directory, which delivers it; or reveal it and write it to Vault"
		case in.Abandoned[s.RotationID] != "":
			f.Token = in.Abandoned[s.RotationID]
			f.State, f.Detail = "unneeded", "it was given up for another secret, and is erased when the next rotation of "+f.Token+" is done"
			f.Do = "nothing; or drop it, once it is certain that nobody uses it"
		default:
			f.State, f.Detail = "unneeded", "it belongs to no unfinished rotation: its answer failed validation, or it was superseded"
			f.Do = "drop it, once it is certain that nobody uses it"
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
		fmt.Fprintln(stdout, "Nothing is sealed here.")
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

// credential is a revealed secret. It is printed to standard output and nowhere else.
type credential struct {
	Token        string `json:"token,omitempty"`
	RotationID   string `json:"rotation_id"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	// Others are more secrets that the same answer showed.
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
		return fmt.Errorf("nothing is sealed here for %s, as far as can be seen: %w", o.reveal, in.LedgerErr)
	case len(matches) == 0:
		return fmt.Errorf("nothing is sealed here for %s: without --reveal this command lists what is", o.reveal)
	case len(matches) > 1:
		var list strings.Builder
		if err := printFound(&list, matches); err != nil {
			return err
		}
		return fmt.Errorf("%d secrets are sealed for %s: name one by its rotation ID\n%s", len(matches), o.reveal, strings.TrimSuffix(list.String(), "\n"))
	}
	identities, err := pending.ReadIdentities(cmp.Or(o.identity, statedir.IdentityFile(o.dir)))
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

// printCredential prints a credential as variables. A secret is not altered: stdout must not escape it.
// One that would steer a terminal is not printed to one.
func printCredential(stdout io.Writer, c credential) error {
	secrets := []string{c.ClientSecret}
	for _, other := range c.Others {
		secrets = append(secrets, other.ClientSecret)
	}
	for _, s := range secrets {
		if isTerminal(stdout) && (!printable.IsPlain(s) || strings.ContainsAny(s, "\n\t")) {
			return errors.New("the secret has characters that would steer your terminal: send the output to a file, or use --output json, which escapes them")
		}
	}
	_, err := fmt.Fprintf(stdout, "CF_ACCESS_CLIENT_ID=%s\nCF_ACCESS_CLIENT_SECRET=%s\n", cell(c.ClientID), c.ClientSecret)
	for i, other := range c.Others {
		_, otherErr := fmt.Fprintf(stdout, "# The answer showed another secret too. Client ID: %s\nCF_ACCESS_CLIENT_SECRET_%d=%s\n",
			cell(cmp.Or(other.ClientID, "not said")), i+2, other.ClientSecret)
		err = errors.Join(err, otherErr)
	}
	return err
}

func dropSealed(stderr io.Writer, o recoverOptions) error {
	drop := statedir.Drop
	if o.unfinished {
		drop = statedir.DropUnfinished
	}
	if err := drop(o.dir, o.drop); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "the sealed secret of rotation %s is deleted\n", o.drop)
	return nil
}

// beginAgain makes a new ledger, and says what that means.
func beginAgain(stderr io.Writer, dir string) error {
	begun, err := statedir.BeginAgain(dir)
	if begun.Aside != "" {
		fmt.Fprintf(stderr, "what was left was moved to %s\n", begun.Aside)
	}
	if err != nil {
		return err
	}
	if begun.Sealed > 0 {
		fmt.Fprintf(stderr, "%d sealed secret(s) are there, and no daemon delivers them: look at them with\n  rotatord recover --state-dir %s\n"+
			"and reveal one with --reveal ROTATION --identity %s\n", begun.Sealed, begun.Aside, statedir.IdentityFile(dir))
	}
	fmt.Fprintf(stderr, "%s has a new ledger: the next daemon begins with it. It does not know of doubts, graces and pauses from before.\n", dir)
	return nil
}
