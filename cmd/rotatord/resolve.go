package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

func newResolve() *cobra.Command {
	var at socketFlags
	var format outputFormat
	var rotateNow, notRotated, deliver, accept, drop bool
	cmd := &cobra.Command{
		Use:   "resolve NAME",
		Short: "Decide about a token in doubt, or whose new secret cannot be delivered",
		Long: `Have the running daemon look at a token in doubt again now, and show what is known, what it
concludes, and what you can decide. A token is in doubt if a rotate request was sent and it is not
known whether Cloudflare carried it out.

With a flag you decide, and the daemon acts at once:

  --rotate-now          The rotation was carried out and its secret is lost: rotate again. If you are
                        right and the old secret still works, this CUTS IT OFF: consumers fail until
                        they have read the new secret. Without this flag the daemon does the same
                        three graces after the request if Cloudflare shows that the rotation was
                        carried out, and otherwise when half of the grace is left.
  --assume-not-rotated  The rotation was not carried out: the slot is due again, and is served at
                        once. If you are wrong, the old secret is cut off as above.
  --deliver             Write the sealed answer to the sinks. Use it if its secret has an unfamiliar
                        format, if something else in the answer is odd, or if it could not be
                        decrypted before.

A new secret that is in every sink, but that the application at verify.url refuses, is not a doubt.
You can decide with --rotate-now, or with:

  --accept              The new secret is good and the application is at fault. The daemon stops
                        extending the grace of the old secret.

Nor is a sink that no longer holds what was written to it, or a token that others have rotated, a
doubt. Without a flag the daemon looks at the sinks again now. You can decide with:

  --accept              What the sinks hold is the right secret, for example because a person rotated
                        by hand and wrote it there. The daemon refuses unless every sink has the same
                        complete secret of the token.

A new secret that was overtaken is not a doubt either. While it waited for a sink, another rotation
replaced it, and the sink has that other secret. Ours stays sealed, and is not written over the other
one. You can decide:

  --drop                The other secret is right: end the rotation. The daemon refuses unless every
                        sink has another complete secret of the token. Ours stays sealed until a
                        later rotation is done. --drop also ends a rotation or a doubt whose
                        service token is gone.
  --deliver             Ours is right: write it over the other one.
  --rotate-now          Neither is right: rotate again.

Without a flag, a new secret that waits for a sink is tried again now.

The daemon logs each use with the user who gave the command. The exit code is 1 if there is nothing to
decide, if the daemon refuses or cannot be reached, and if it could not ask Cloudflare.`,
		Args: oneName,
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
				err = fmt.Errorf("this was not completed: %s", o.Problem)
			}
			return err
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	flags := cmd.Flags()
	flags.BoolVar(&rotateNow, "rotate-now", false, "rotate again at once, which cuts off an old secret that still works")
	flags.BoolVar(&notRotated, "assume-not-rotated", false, "the rotation was not carried out: serve the slot again")
	flags.BoolVar(&deliver, "deliver", false, "write the sealed answer to the sinks, although its secret is unfamiliar or the answer is odd")
	flags.BoolVar(&accept, "accept", false, "the new secret is good although the application at verify.url refuses it; or what the sinks hold is right")
	flags.BoolVar(&drop, "drop", false, "end a rotation whose new secret was overtaken, or whose service token is gone")
	return cmd
}

// resolution returns the decision that the flags make.
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

// printOutcome prints the result of resolve.
func printOutcome(w io.Writer, o admin.Outcome, now time.Time) error {
	p := &page{now: now}
	name := o.Token.Name
	if o.Doubt.Reason == "" { // the token was not in doubt
		p.title("%s: %s", name, meaning(o.Reason))
		p.verification(o.Token)
		p.overtaken(o.Token)
		p.watch(o.Token)
		if !o.Resolved {
			p.toDo(o.Token.ToDo)
		} else {
			p.text("Follow it with: rotatord status %s", name)
		}
		return p.print(w)
	}
	if !o.Resolved {
		p.title("%s is still in doubt: %s", name, meaning(o.Reason))
		p.doubt(o.Doubt)
		p.next(o.Token, o.Doubt)
		p.choices(name, o.Doubt)
		p.toDo(slices.DeleteFunc(besideDoubt(o.Token), func(do status.ToDo) bool { return do.Command == "" })) // what comes by itself is above
		return p.print(w)
	}
	p.title("%s is no longer in doubt: %s", name, meaning(o.Reason))
	p.doubt(o.Doubt)
	p.title("what comes next")
	switch {
	case o.Delivers:
		p.text("The sealed answer is written to the sinks now.")
	case o.Reason == rotation.ReasonOperatorDrop:
		p.text("The service token is gone, so nothing follows: configure another one.")
	case o.Reason == rotation.ReasonUpdatedAtUnchanged, o.Reason == rotation.ReasonOperatorNotRotated:
		p.text("The slot is due again and is served now.")
	default:
		p.text("The token is rotated again now.")
	}
	if byOperator := o.Reason == rotation.ReasonOperatorRotateNow || o.Reason == rotation.ReasonOperatorNotRotated; byOperator && o.Doubt.OldWorksUntil.After(now) {
		p.text("The old secret would have worked until %s. If the rotation in doubt was carried out, it stops working with "+
			"this rotation. Consumers fail until they have read the new secret from the sinks, so have them read it.", p.when(o.Doubt.OldWorksUntil))
	}
	p.text("Follow it with: rotatord status %s", name)
	return p.print(w)
}
