package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/moment"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// rotateFlags are the flags of rotate.
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
		Long: `Rotate a token now, outside of its schedule, and wait until its new secret is delivered. The
daemon tries once: if the attempt fails before a request was sent, it does not try again later.
The rotation also serves the slots that are due. Later slots do not change, except with @every,
which is counted from this rotation.

The daemon refuses, and changes nothing, in these cases. An override rotates anyway:

  a freeze lasts                               --override-freeze
  the token is paused                          --override-pause
  the previous secret is still in its grace    --override-grace, which CUTS OFF consumers that
                                               have not read the present secret yet

If a secret may have leaked:

  --revoke-now   Rotate and revoke the previous secret at once; this includes the overrides.
                 Consumers fail until they have read the new secret. Of a pair both service tokens
                 are rotated. The daemon tries until it is done, also after failures and restarts.
                 The order also ends a doubt, and a new secret that is refused or was overtaken.
                 A new secret that can still be delivered is delivered first.
  --cancel       Cancel the order.

If a Vault may have leaked, rotate all tokens of an account. Each of these also takes the overrides
above or --revoke-now:

  --all --account ACCOUNT            Order the rotation of each token, and show the progress. The
                                     tokens with the shortest grace come first, within the request
                                     budget. The orders are in the daemon's ledger, so this command
                                     may be interrupted; give it again to continue.
  --all --account ACCOUNT --watch    Only show the progress of the orders.
  --all --account ACCOUNT --detach   Give the orders and do not wait. With --watch: list the orders
                                     that are pending.
  --all --account ACCOUNT --cancel   Cancel the orders that are pending.

The daemon logs each use with the user who gave the command.`,
		Args: atMostOneName,
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
	flags.BoolVar(&f.overrides.Freeze, "override-freeze", false, "rotate during a freeze")
	flags.BoolVar(&f.overrides.Pause, "override-pause", false, "rotate during a pause")
	flags.BoolVar(&f.overrides.Grace, "override-grace", false, "rotate during the previous secret's grace, which cuts that secret off")
	flags.BoolVar(&f.overrides.RevokeNow, "revoke-now", false, "revoke the previous secret at once; includes the overrides")
	flags.BoolVar(&f.all, "all", false, "all tokens of --account")
	flags.StringVar(&f.account, "account", "", "with --all: the `account`, by its name in the configuration")
	_ = cmd.RegisterFlagCompletionFunc("account", f.at.completeAccount)
	flags.BoolVar(&f.cancel, "cancel", false, "cancel the pending order, or with --all the pending orders of the account")
	flags.BoolVar(&f.detach, "detach", false, "with --all: do not wait for the rotations")
	flags.BoolVar(&f.watch, "watch", false, "with --all: give no orders, only show the progress")
	return cmd
}

// check refuses flags that exclude each other.
func (f *rotateFlags) check(args []string) error {
	switch {
	case f.all && len(args) > 0:
		return usagef("give either --all or the name of a token")
	case f.all && f.account == "":
		return usagef("--all needs --account: give the name of the account whose tokens are to be rotated")
	case f.all && f.cancel && f.overrides != rotation.Overrides{}:
		return usagef("--cancel cancels orders: it takes no override")
	case f.all && f.watch && (f.cancel || f.overrides != rotation.Overrides{}):
		return usagef("--watch gives no orders: it takes neither --cancel nor an override")
	case f.all:
		return nil
	case f.account != "" || f.detach || f.watch:
		return usagef("--account, --detach and --watch need --all")
	case f.cancel && f.overrides != rotation.Overrides{}:
		return usagef("--cancel cancels an order: it takes no override")
	case len(args) == 0:
		return usagef("give the name of a token, or --all --account ACCOUNT")
	}
	return nil
}

// cancelOne cancels the order of one token.
func (f *rotateFlags) cancelOne(ctx context.Context, client *admin.Client, w io.Writer, name string) error {
	o, err := client.Cancel(ctx, name)
	if err != nil {
		return err
	}
	if f.format == "json" {
		return printJSON(w, o)
	}
	p := &page{now: time.Now()}
	p.title("the order for %s was cancelled; a rotation in progress will still finish", name)
	p.line("next", "%s", nextOf(p, o.Token.Next, o.Token.State, o.Token.Reason))
	return p.print(w)
}

// progressPause is the time between two questions to the daemon about the progress.
const progressPause = time.Second

// rotateAll orders the rotation of all tokens of an account, and shows the progress until it is done.
func (f *rotateFlags) rotateAll(ctx context.Context, client *admin.Client, w io.Writer) error {
	if f.cancel {
		p, err := client.CancelAll(ctx, f.account)
		if err != nil {
			return err
		}
		if f.format == "json" {
			return printJSON(w, p)
		}
		fmt.Fprintf(w, "%d order(s) cancelled; rotations in progress will still finish\n", p.Cancelled)
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
		if err := moment.Sleep(ctx, progressPause); err != nil {
			fmt.Fprintf(w, "%d of %d are still to be rotated; the daemon continues. Watch it: rotatord rotate --all --account %s --watch\n", len(p.Left), first, f.account)
			return errReported
		}
		if p, err = client.Progress(ctx, f.account); err != nil {
			return fmt.Errorf("%w. The orders are in the daemon's ledger: see the progress with rotatord rotate --all --account %s --watch", err, f.account)
		}
	}
	p.Problems = problems
	if f.format == "json" {
		err = printJSON(w, p)
	} else {
		err = printProgress(w, p, first, f.watch, time.Now())
	}
	if err == nil && len(problems) > 0 {
		err = fmt.Errorf("the rotation of %d token(s) could not be ordered: give the same command again", len(problems))
	}
	return err
}

// progressLine returns the progress of the orders, on one line.
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

// printProgress prints the result of the orders, or the orders that are pending.
func printProgress(w io.Writer, p admin.Progress, first int, watched bool, now time.Time) error {
	out := &page{now: now}
	switch {
	case len(p.Left) == 0 && first == 0 && watched:
		out.title("no rotation orders are pending for %s", p.Account)
	case len(p.Left) == 0 && first == 0:
		out.title("no token of %s had to be rotated", p.Account)
	case len(p.Left) == 0:
		out.title("all are rotated: %d token(s) of %s", first, p.Account)
	default:
		out.title("%d of %d token(s) of %s are still to be rotated", len(p.Left), p.Tokens, p.Account)
	}
	for _, l := range p.Left {
		out.line(l.Token, "%s", nextOf(out, l.Next, l.State, l.Reason)+ifSet(", the last error: %s", l.LastError))
	}
	for _, problem := range p.Problems {
		out.text("not ordered: %s", problem)
	}
	return out.print(w)
}

func printRotated(w io.Writer, r admin.Rotated, now time.Time) error {
	p := &page{now: now}
	p.title("%s was rotated", r.Token.Name)
	p.line("new secret", "%s, confirmed by every sink", r.Digest)
	switch {
	case r.Verifying:
		p.line("verification", "not accepted yet at verify.url, which may take a moment: see rotatord status %s", r.Token.Name)
	case r.Unverified != "":
		p.line("verification", "not proven to work: %s", r.Unverified)
	case r.Token.Verifies:
		p.line("verification", "accepted at verify.url")
	}
	if r.GraceEndsAt.IsZero() {
		p.line("previous secret", "revoked")
	} else {
		p.line("previous secret", "works until %s", p.when(r.GraceEndsAt))
	}
	if r.Ordered {
		p.line("order", "still pending: another rotation follows")
	}
	p.line("next", "%s", nextOf(p, r.Token.Next, r.Token.State, r.Token.Reason))
	return p.print(w)
}

// nextOf returns when a token rotates next, and why then.
func nextOf(p *page, next time.Time, state, reason string) string {
	if next.IsZero() {
		return status.WithoutTime(state, reason)
	}
	return fmt.Sprintf("%s: %s", p.when(next), reason)
}
