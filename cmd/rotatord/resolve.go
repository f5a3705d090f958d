package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/rotation"
)

func newResolve() *cobra.Command {
	var at socketFlags
	var format outputFormat
	var rotateNow, notRotated, deliver, accept, drop bool
	cmd := &cobra.Command{
		Use:   "resolve NAME",
		Short: "Decide about a token in doubt, or whose new secret cannot be delivered",
		Long: `Have the running daemon look at a token in doubt again, now, and show what is known, what
it concludes, and what an operator can decide. A token is in doubt if a rotate request was
sent and nobody knows whether it was carried out.

With a flag the operator decides, and the daemon acts on it at once:

  --rotate-now          Take the rotation as carried out and its secret as lost: rotate
                        again. While the old secret still works, this CUTS IT OFF if the
                        rotation was carried out: consumers fail until they have read the
                        new secret. Without this flag it is done by itself three graces
                        after the request if Cloudflare shows that it was carried out,
                        and else when half of the grace is left.
  --assume-not-rotated  You know that the rotation was not carried out: the slot is due
                        again and served at once. If you are wrong, the old secret is cut
                        off as above.
  --deliver             Deliver the sealed answer, whose secret has an unfamiliar format, or
                        which is odd around a good secret, or which could not be opened
                        before.

A token whose new secret is in every sink, and is refused where verify tries it, is not in doubt;
what an operator can decide about it is --rotate-now, and

  --accept              Take the new secret as good: the application is at fault. The old one
                        is not kept alive any longer.

A token whose new secret was overtaken is not in doubt either: while the secret waited for a
sink, the token was rotated by others, and the sink holds their secret. Ours is kept sealed and is not
written over theirs. What an operator can decide about it:

  --drop        Theirs is the right one: end the rotation. It is refused unless every sink holds
                another whole secret of the token. Ours stays sealed until a later rotation is
                done. It also ends a rotation or a doubt whose service token is gone.
  --deliver     Ours is the right one: write it over what the sinks hold now.
  --rotate-now  Rotate again over both.

Without a flag, a new secret that waits for a sink is tried again now.

Each use is in the daemon's log with the user who gave it. The exit code is 1 if there is nothing
to decide, if the daemon refuses or cannot be reached, and if it could not look.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			how, err := resolution(rotateNow, notRotated, deliver, accept, drop)
			if err != nil {
				return err
			}
			client, err := at.client(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			o, err := client.Resolve(cmd.Context(), args[0], how)
			if err != nil {
				return err
			}
			if format == "json" {
				err = printJSON(cmd.OutOrStdout(), o)
			} else {
				err = printOutcome(cmd.OutOrStdout(), o, time.Now())
			}
			if err == nil && o.Problem != "" {
				err = fmt.Errorf("not all of it could be done: %s", o.Problem)
			}
			return err
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	flags := cmd.Flags()
	flags.BoolVar(&rotateNow, "rotate-now", false, "rotate again at once; cuts off an old secret that still works")
	flags.BoolVar(&notRotated, "assume-not-rotated", false, "the rotation was not carried out: rotate again as due")
	flags.BoolVar(&deliver, "deliver", false, "deliver the sealed answer although its secret looks unfamiliar, or the answer is odd")
	flags.BoolVar(&accept, "accept", false, "take a new secret as good that is refused where it is tried")
	flags.BoolVar(&drop, "drop", false, "give up a new secret that was overtaken, or whose service token is gone")
	return cmd
}

// resolution is what the flags mean.
func resolution(rotateNow, notRotated, deliver, accept, drop bool) (rotation.Resolution, error) {
	how, n := rotation.ResolveLook, 0
	for _, flag := range []struct {
		set bool
		how rotation.Resolution
	}{{rotateNow, rotation.ResolveRotateNow}, {notRotated, rotation.ResolveAssumeNotRotated}, {deliver, rotation.ResolveDeliver}, {accept, rotation.ResolveAccept}, {drop, rotation.ResolveDrop}} {
		if flag.set {
			how = flag.how
			n++
		}
	}
	if n > 1 {
		return "", usagef("--rotate-now, --assume-not-rotated, --deliver, --accept and --drop exclude each other")
	}
	return how, nil
}

// printOutcome says what came of a resolve.
func printOutcome(w io.Writer, o admin.Outcome, now time.Time) error {
	p := &page{now: now}
	name := o.Token.Name
	if o.Doubt.Reason == "" { // it was no doubt
		p.title("%s: %s", name, meaning(o.Reason))
		p.verification(o.Token)
		p.overtaken(o.Token)
		if !o.Resolved {
			p.toDo(o.Token.ToDo)
		} else {
			p.text("See how it goes: rotatord status %s", name)
		}
		return p.print(w)
	}
	if !o.Resolved {
		p.title("%s stays in doubt: %s", name, meaning(o.Reason))
		p.doubt(o.Doubt)
		p.next(o.Token, o.Doubt)
		p.choices(name, o.Doubt)
		p.toDo(besideDoubt(o.Token))
		return p.print(w)
	}
	p.title("%s is no longer in doubt: %s", name, meaning(o.Reason))
	p.doubt(o.Doubt)
	p.title("what comes next")
	switch {
	case o.Delivers:
		p.text("The sealed answer is delivered to the sinks now.")
	case o.Reason == rotation.ReasonOperatorDrop:
		p.text("The service token is gone, so nothing follows: give the entry another one.")
	case o.Reason == rotation.ReasonUpdatedAtUnchanged, o.Reason == rotation.ReasonOperatorNotRotated:
		p.text("The slot is due again and is served now.")
	default:
		p.text("The token is rotated again now.")
	}
	if byOperator := o.Reason == rotation.ReasonOperatorRotateNow || o.Reason == rotation.ReasonOperatorNotRotated; byOperator && o.Doubt.OldWorksUntil.After(now) {
		p.text("The old secret would have worked until %s. If the rotation in doubt was carried out, it stops working with "+
			"this one: consumers fail until they have read the new secret from the sinks, so have them read it.", p.when(o.Doubt.OldWorksUntil))
	}
	p.text("See how it goes: rotatord status %s", name)
	return p.print(w)
}
