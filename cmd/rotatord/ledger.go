package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/ledger"
	"rotatord/internal/ledger/transfer"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// exportName is the file of an export where --out names none.
const exportName = "rotatord-ledger.jsonl"

func newLedger() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ledger",
		Short: "Move the ledger: from one daemon to several replicas, and back",
		Long: `Move what the ledger holds to another ledger: from the local ledger of one daemon to the ledger in
Vault that several replicas share (state.shared), and back. See docs/operating.md.`,
		Args: onlyCommands("export or import"),
		RunE: showHelp,
	}
	cmd.AddCommand(newLedgerExport(), newLedgerImport())
	return cmd
}

func newLedgerExport() *cobra.Command {
	var o ledgerOptions
	var out string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the ledger to a file, and take it out of use",
		Long: `Write the records of all tokens, and what is paused, to a new file. Then take the ledger out of use, so
that no daemon goes on with it while another ledger is in use for the same tokens. Nothing is deleted:

  - a local ledger: journal.db is renamed to journal.db.exported-TIME
  - the shared ledger: an entry below its prefix says so, and no replica starts before an import

rotatord ledger import puts the file into use, in the same ledger or in another one.

Stop the daemon first, or all replicas. An export is refused while one lives, and while a rotation is in
progress: the message says for each token what to type. The file has no secret, and only its owner can
read it. Sealed secrets are not moved: they stay in the state directory that they came to.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			place, err := o.place(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer place.close()
			return exportLedger(cmd.Context(), cmd.ErrOrStderr(), place, out)
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&out, "out", exportName, "new `file` to write to")
	_ = cmd.MarkFlagFilename("out", "jsonl")
	return cmd
}

func newLedgerImport() *cobra.Command {
	var o ledgerOptions
	var older bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Put an exported ledger into use",
		Long: `Write what rotatord ledger export has written to FILE to the ledger that the configuration names: the local
one in state.dir, or the shared one of state.shared. That ledger is in use afterwards.

An import is refused while a daemon or a replica lives, while a rotation is in progress in the ledger, and
if the ledger holds another record of a token: then nothing is written. Equal records are left as they are,
so an import that was interrupted is continued by repeating it; no replica starts before it is complete.

A ledger that was exported gets what FILE has, whatever it held. If FILE is older than that export it is
refused, because it was probably taken by mistake; --older takes it.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("give the file that rotatord ledger export has written, such as: %s %s", cmd.CommandPath(), exportName)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := transfer.Read(cmd.Context(), args[0])
			if err == nil {
				err = transfer.InProgress(args[0], c.Records)
			}
			if err != nil {
				return err
			}
			place, err := o.place(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer place.close()
			return importLedger(cmd.Context(), cmd.ErrOrStderr(), place, incoming{c, args[0], older})
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"jsonl"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&older, "older", false, "also a file that is older than the last export of this ledger")
	return cmd
}

// ledgerOptions say which ledger a command is about.
type ledgerOptions struct {
	config, dir string
	login       login
}

func (o *ledgerOptions) flags(cmd *cobra.Command) {
	configFlag(cmd, &o.config)
	cmd.Flags().StringVar(&o.dir, "state-dir", "", "the local ledger in this `directory`, in place of the one that the configuration names")
	_ = cmd.MarkFlagDirname("state-dir")
	o.login.flags(cmd)
}

// ledgerPlace is where a ledger is.
type ledgerPlace interface {
	name() string
	// takeOut calls save with what the ledger holds, and takes it out of use. It returns what to tell.
	takeOut(ctx context.Context, at time.Time, save saveLedger) (string, error)
	// exportedAt returns when the ledger was taken out of use; zero if it is in use, or if there is none.
	exportedAt(ctx context.Context) (time.Time, error)
	// bringIn calls write with the ledger, which is in use afterwards. write completes what it is given.
	bringIn(ctx context.Context, in incoming, write func(transfer.Ends) (began bool, err error)) error
	// sealed returns the rotations of which an answer is sealed where the daemon of that ledger finds it.
	sealed(ctx context.Context) ([]string, error)
	close()
}

type saveLedger = func([]rotation.Record, map[string]rotation.Pause) error

// incoming is a file that is imported.
type incoming struct {
	transfer.Content
	file  string
	older bool // it may be older than the ledger's last export
}

// place returns the ledger that the command is about.
func (o *ledgerOptions) place(ctx context.Context, stderr io.Writer) (ledgerPlace, error) {
	if o.dir != "" {
		return localPlace{o.dir}, nil
	}
	c, err := loadConfig(o.config, stderr)
	if err != nil {
		return nil, err
	}
	if c.State.Shared == nil {
		return localPlace{c.State.Dir}, nil
	}
	opened, err := openShared(ctx, c, o.login)
	if err != nil {
		return nil, err
	}
	return newSharedPlace(opened, stderr), nil
}

func exportLedger(ctx context.Context, stderr io.Writer, place ledgerPlace, out string) error {
	if done, err := exportedTo(ctx, place, out); done || err != nil {
		if done {
			fmt.Fprintf(stderr, "%s was exported to %s already\n", place.name(), out)
		}
		return err
	}
	var c transfer.Content
	at := time.Now()
	how, err := place.takeOut(ctx, at, func(records []rotation.Record, pauses map[string]rotation.Pause) error {
		if err := transfer.InProgress(place.name(), records); err != nil {
			return err
		}
		c = transfer.Of(place.name(), build().Version, at, records, pauses)
		return c.Save(out)
	})
	if err != nil {
		return besideRunning(err)
	}
	fmt.Fprintf(stderr, "%s has the records of %d token(s) and %d pause(s) of %s\n%s\n", out, len(c.Records), len(c.Pauses), place.name(), how)
	if sealed := c.Sealed(); len(sealed) > 0 {
		fmt.Fprintf(stderr, "%d secret(s) of rotations that were given up stay sealed where they are: keep that state directory for the daemon that goes on\n", len(sealed))
	}
	tellSealed(ctx, stderr, place, c)
	fmt.Fprintf(stderr, "To put it into use: rotatord ledger import %s --config FILE, with the configuration of the daemon that goes on\n", out)
	return nil
}

// exportedTo reports whether the file is that of the last export of the ledger, so that a job that is run twice does
// the same as one that is run once.
func exportedTo(ctx context.Context, place ledgerPlace, file string) (bool, error) {
	at, err := place.exportedAt(ctx)
	if err != nil || at.IsZero() {
		return false, err
	}
	c, err := transfer.Read(ctx, file)
	return err == nil && c.From == place.name() && c.At.Equal(at.Truncate(time.Millisecond)), nil
}

func importLedger(ctx context.Context, stderr io.Writer, place ledgerPlace, in incoming) error {
	if exported, err := place.exportedAt(ctx); err != nil {
		return err
	} else if in.At.Before(exported.Truncate(time.Millisecond)) && !in.older {
		return fmt.Errorf("%s was exported at %s, and %s was exported later, at %s: import the later file, or this one with --older, "+
			"if the rotations since then are to be forgotten", in.file, in.At.Format(time.RFC3339), place.name(), exported.Format(time.RFC3339))
	}
	wrote, began := 0, false
	var plan *transfer.Plan
	err := place.bringIn(ctx, in, func(ends transfer.Ends) (_ bool, err error) {
		ends.File, ends.Where = in.file, place.name()
		if plan, err = transfer.Compare(ctx, in.Content, ends); err != nil {
			return false, err
		}
		began = !ends.AtOnce
		told := 0
		wrote, err = plan.Write(ctx, func(done, all int) {
			if done < all && done-told >= max(tellProgress, all/10) {
				told = done
				fmt.Fprintf(stderr, "%d of %d written\n", done, all)
			}
		})
		return true, err
	})
	switch {
	case err != nil && began:
		return fmt.Errorf("the import is not complete: %s has %d of %d record(s), and no daemon starts on it: repeat the import, which goes on from there: %w",
			place.name(), plan.Same+wrote, len(in.Records), err)
	case err != nil:
		return besideRunning(err)
	}
	fmt.Fprintf(stderr, "%s has the records of %d token(s) and %d pause(s) of %s, exported from %s at %s: %d written, %d were there\n",
		place.name(), len(in.Records), len(in.Pauses), in.file, in.From, in.At.Format(time.RFC3339), wrote, plan.Same)
	if len(plan.Begun) > 0 {
		fmt.Fprintf(stderr, "replaced, because a daemon had only enrolled them: %s\n", names(plan.Begun))
	}
	if len(plan.Beside) > 0 {
		fmt.Fprintf(stderr, "left as they are, because the file does not have them: %s\n", names(plan.Beside))
	}
	tellSealed(ctx, stderr, place, in.Content)
	return nil
}

// tellProgress is after how many records at least an import tells how far it is.
const tellProgress = 500

// tellSealed says which sealed secrets the records name and that are not where they can be seen from here, and which
// are here and no record names.
func tellSealed(ctx context.Context, stderr io.Writer, place ledgerPlace, c transfer.Content) {
	here, err := place.sealed(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "the sealed secrets cannot be listed: %v\n", err)
		return
	}
	named, unnamed := c.Sealed(), 0
	for _, id := range here {
		if named[id] == "" {
			unnamed++
		}
		delete(named, id)
	}
	if unnamed > 0 {
		fmt.Fprintf(stderr, "%d sealed secret(s) here belong to no rotation that the ledger knows, such as an answer that came late: rotatord recover lists them, and says what to do\n", unnamed)
	}
	if len(named) > 0 {
		fmt.Fprintf(stderr, "%d secret(s) of rotations that were given up are sealed elsewhere, of: %s. Only if one of them may be needed, "+
			"keep the state directory in which they are; rotatord recover lists them\n", len(named), names(slicesOf(named)))
	}
}

// names returns names in one text, but not more than a person reads.
func names(all []string) string {
	const shown = 20
	if len(all) <= shown {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:shown], ", "), len(all)-shown)
}

// slicesOf returns the different values of a map, sorted.
func slicesOf(m map[string]string) []string {
	values := make(map[string]bool, len(m))
	for _, v := range m {
		values[v] = true
	}
	return sortedKeys(values)
}

// besideRunning returns the error, with what to do if a daemon has the ledger open.
func besideRunning(err error) error {
	if !errors.Is(err, ledger.ErrInUse) {
		return err
	}
	return fmt.Errorf("%w: stop the daemon first, such as with systemctl stop rotatord", err)
}

// localPlace is the ledger in a state directory.
type localPlace struct{ dir string }

func (p localPlace) name() string { return "the ledger in " + p.dir }

func (p localPlace) takeOut(_ context.Context, at time.Time, save saveLedger) (string, error) {
	aside, err := statedir.TakeOut(p.dir, at, save)
	return "no daemon uses that ledger any more; its file is " + aside + " now", err
}

func (p localPlace) exportedAt(context.Context) (time.Time, error) {
	return statedir.ExportedAt(p.dir), nil
}

func (p localPlace) bringIn(_ context.Context, _ incoming, write func(transfer.Ends) (began bool, err error)) error {
	return statedir.BringIn(p.dir, func(l *ledger.Local) error {
		_, err := write(transfer.Ends{Target: l, AtOnce: true})
		return err
	})
}

func (p localPlace) sealed(context.Context) ([]string, error) { return statedir.Sealed(p.dir) }

func (p localPlace) close() {}
