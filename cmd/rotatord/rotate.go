package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// rotateFlags are what rotate is told.
type rotateFlags struct {
	at        socketFlags
	format    outputFormat
	overrides rotation.Overrides
	all       bool
	account   string
	cancel    bool
	detach    bool
	watch     bool
}

func newRotate() *cobra.Command {
	var f rotateFlags
	cmd := &cobra.Command{
		Use:   "rotate NAME | --all --account ACCOUNT",
		Short: "Rotate a token now, or all tokens of an account",
		Long: `Have the running daemon rotate a token now, outside of its schedule, and wait until its new
secret is delivered. It is tried once: what fails before anything was sent is not tried again
later. Slots that were due are served by it, and those to come stay, except that @every is
counted from now.

It is refused, and nothing is changed, if

  a freeze lasts            --override-freeze  rotates all the same
  the token is paused       --override-pause   rotates all the same
  the previous secret is    --override-grace   rotates all the same, and CUTS OFF consumers
  still in its grace                           that have not read the present secret yet

For a secret that somebody else may have:

  --revoke-now   revokes the previous secret with the rotation, whatever stands in the way:
                 consumers fail until they have read the new one. Of a pair both are rotated.
                 It is kept at, over failures and restarts of the daemon, until it is done.
                 A doubt, and a new secret that is refused or was overtaken, are settled by it.
                 A new secret that can still be delivered is delivered first.
  --cancel       takes the order back.

For a Vault that somebody else may have read, all tokens of an account, with the overrides above
or with --revoke-now:

  --all --account ACCOUNT            those with the least grace first, within the request budget.
                                     The orders are in the daemon's ledger: this command shows how
                                     far they are, and may be interrupted. Given again while some
                                     are left it goes on with them.
  --all --account ACCOUNT --watch    give no orders, and show how far the given ones are
  --all --account ACCOUNT --detach   give the orders and do not wait; with --watch list what is left
  --all --account ACCOUNT --cancel   take back those that are not carried out

Each use is in the daemon's log with the user who gave it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(args); err != nil {
				return err
			}
			client, err := f.at.client(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if f.cancel && !f.all {
				return f.cancelOne(cmd.Context(), client, cmd.OutOrStdout(), args[0])
			}
			if f.all {
				return f.rotateAll(cmd.Context(), client, cmd.OutOrStdout())
			}
			r, err := client.Rotate(cmd.Context(), args[0], f.overrides)
			if err != nil {
				return err
			}
			if f.format == "json" {
				return printJSON(cmd.OutOrStdout(), r)
			}
			return printRotated(cmd.OutOrStdout(), r, time.Now())
		},
	}
	f.at.add(cmd)
	outputFlag(cmd, &f.format)
	flags := cmd.Flags()
	flags.BoolVar(&f.overrides.Freeze, "override-freeze", false, "rotate although a freeze lasts")
	flags.BoolVar(&f.overrides.Pause, "override-pause", false, "rotate although the token is paused")
	flags.BoolVar(&f.overrides.Grace, "override-grace", false, "rotate although that cuts the previous secret off")
	flags.BoolVar(&f.overrides.RevokeNow, "revoke-now", false, "revoke the previous secret at once; includes the overrides")
	flags.BoolVar(&f.all, "all", false, "all tokens of --account")
	flags.StringVar(&f.account, "account", "", "the `account` of --all, by its name in the configuration")
	flags.BoolVar(&f.cancel, "cancel", false, "take back the order that is not carried out, or with --all those of the account")
	flags.BoolVar(&f.detach, "detach", false, "with --all: do not wait until all are carried out")
	flags.BoolVar(&f.watch, "watch", false, "with --all: give no orders, and show how far the given ones are")
	return cmd
}

// check refuses what does not go together.
func (f *rotateFlags) check(args []string) error {
	switch {
	case f.all && len(args) > 0:
		return usagef("--all and the name of a token exclude each other")
	case f.all && f.account == "":
		return usagef("--all needs --account: it is for a secret store that somebody has read, and an account has one credential")
	case f.all && f.cancel && f.overrides != rotation.Overrides{}:
		return usagef("--cancel takes orders back, so nothing is overridden")
	case f.all && f.watch && (f.cancel || f.overrides != rotation.Overrides{}):
		return usagef("--watch gives no orders, so it takes none back and overrides nothing")
	case f.all:
		return nil
	case f.account != "" || f.detach || f.watch:
		return usagef("--account, --detach and --watch go with --all")
	case f.cancel && f.overrides != rotation.Overrides{}:
		return usagef("--cancel takes an order back, so nothing is overridden")
	case len(args) == 0:
		return usagef("give the name of a token, or --all --account ACCOUNT")
	}
	return nil
}

// cancelOne takes the order of one token back.
func (f *rotateFlags) cancelOne(ctx context.Context, client *admin.Client, w io.Writer, name string) error {
	o, err := client.Cancel(ctx, name)
	if err != nil {
		return err
	}
	if f.format == "json" {
		return printJSON(w, o)
	}
	p := &page{now: time.Now()}
	p.title("the order for %s was taken back; a rotation in progress is finished", name)
	p.line("next", "%s", nextOf(p, o.Token.Next, o.Token.Reason))
	return p.print(w)
}

// progressPause is how often the daemon is asked how far the orders are.
const progressPause = time.Second

// rotateAll orders all tokens of an account, and shows how far that is.
func (f *rotateFlags) rotateAll(ctx context.Context, client *admin.Client, w io.Writer) error {
	if f.cancel {
		p, err := client.CancelAll(ctx, f.account)
		if err != nil {
			return err
		}
		if f.format == "json" {
			return printJSON(w, p)
		}
		fmt.Fprintf(w, "%d order(s) taken back; rotations in hand are finished\n", p.Cancelled)
		return nil
	}
	var p admin.Progress
	var err error
	if f.watch {
		p, err = client.Progress(ctx, f.account)
	} else {
		p, err = client.RotateAll(ctx, f.account, f.overrides)
	}
	if err != nil {
		return err
	}
	began, problems := time.Now(), p.Problems
	first := len(p.Left)
	for shown := -1; len(p.Left) > 0 && !f.detach; {
		if f.format == "text" && len(p.Left) != shown {
			shown = len(p.Left)
			fmt.Fprintln(w, progressLine(p, first, began, time.Now()))
		}
		if err := sleep(ctx, progressPause); err != nil {
			fmt.Fprintf(w, "%d of %d are left; the daemon goes on. Watch it: rotatord rotate --all --account %s --watch\n", len(p.Left), first, f.account)
			return errReported
		}
		if p, err = client.Progress(ctx, f.account); err != nil {
			return fmt.Errorf("%w. The orders stand in the daemon's ledger: see how far they are with rotatord rotate --all --account %s --watch", err, f.account)
		}
	}
	p.Problems = problems
	if f.format == "json" {
		err = printJSON(w, p)
	} else {
		err = printProgress(w, p, first, f.watch, time.Now())
	}
	if err == nil && len(problems) > 0 {
		err = fmt.Errorf("%d token(s) could not be ordered: give the same command again", len(problems))
	}
	return err
}

// progressLine says how far the orders are.
func progressLine(p admin.Progress, first int, began, now time.Time) string {
	done := first - len(p.Left)
	line := fmt.Sprintf("%s  %d of %d rotated", now.UTC().Format("15:04:05"), done, first)
	if done > 0 {
		left := now.Sub(began) / time.Duration(done) * time.Duration(len(p.Left))
		line += ", about " + strings.TrimPrefix(status.Distance(now.Add(left), now), "in ") + " to go"
	}
	if waiting := p.Left[0]; waiting.LastError != "" {
		line += fmt.Sprintf("; %s: %s", waiting.Token, waiting.LastError)
	} else if waiting.Next.Sub(now) > time.Minute {
		line += fmt.Sprintf("; %s waits until %s: %s", waiting.Token, waiting.Next.UTC().Format(time.RFC3339), waiting.Reason)
	}
	return line
}

// printProgress says what came of the orders, or what is left of them.
func printProgress(w io.Writer, p admin.Progress, first int, watched bool, now time.Time) error {
	out := &page{now: now}
	switch {
	case len(p.Left) == 0 && first == 0 && watched:
		out.title("no order is left of %s", p.Account)
	case len(p.Left) == 0 && first == 0:
		out.title("no token of %s is to be rotated", p.Account)
	case len(p.Left) == 0:
		out.title("all of them were rotated: %d token(s) of %s", first, p.Account)
	default:
		out.title("%d of %d token(s) of %s are to be rotated", len(p.Left), p.Tokens, p.Account)
	}
	for _, l := range p.Left {
		out.line(l.Token, "%s", nextOf(out, l.Next, l.Reason)+ifSet(", the last error: %s", l.LastError))
	}
	for _, problem := range p.Problems {
		out.text("not ordered: %s", problem)
	}
	return out.print(w)
}

// sleep waits, unless ctx ends before that.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func printRotated(w io.Writer, r admin.Rotated, now time.Time) error {
	p := &page{now: now}
	p.title("%s was rotated", r.Token.Name)
	p.line("new secret", "%s, confirmed by every sink", r.Digest)
	switch {
	case r.Verifying:
		p.line("verification", "not accepted yet where it is tried, which may take a moment: see rotatord status %s", r.Token.Name)
	case r.Unverified != "":
		p.line("verification", "not proven to work: %s", r.Unverified)
	case r.Token.Verifies:
		p.line("verification", "accepted where it was tried")
	}
	if r.GraceEndsAt.IsZero() {
		p.line("previous secret", "revoked")
	} else {
		p.line("previous secret", "works until %s", p.when(r.GraceEndsAt))
	}
	if r.Ordered {
		p.line("order", "stands: another rotation follows")
	}
	p.line("next", "%s", nextOf(p, r.Token.Next, r.Token.Reason))
	return p.print(w)
}

// nextOf says when a token rotates next, and why then.
func nextOf(p *page, next time.Time, reason string) string {
	if next.IsZero() {
		return "not planned: " + reason
	}
	return fmt.Sprintf("%s: %s", p.when(next), reason)
}
