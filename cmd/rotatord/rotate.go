package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/rotation"
)

func newRotate() *cobra.Command {
	var at socketFlags
	var format outputFormat
	var o rotation.Overrides
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Rotate a token now, outside of its schedule",
		Long: `Have the running daemon rotate a token now, and wait until its new secret is delivered. It
is tried once: what fails before anything was sent is not tried again later. Slots that were
due are served by it, and those to come stay, except that @every is counted from now.

It is refused, and nothing is changed, if

  a freeze lasts            --override-freeze  rotates all the same
  the token is paused       --override-pause   rotates all the same
  the previous secret is    --override-grace   rotates all the same, and CUTS OFF consumers
  still in its grace                           that have not read the present secret yet

Each use is in the daemon's log with the user who gave it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := at.client(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			r, err := client.Rotate(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), r)
			}
			return printRotated(cmd.OutOrStdout(), r, time.Now())
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	flags := cmd.Flags()
	flags.BoolVar(&o.Freeze, "override-freeze", false, "rotate although a freeze lasts")
	flags.BoolVar(&o.Pause, "override-pause", false, "rotate although the token is paused")
	flags.BoolVar(&o.Grace, "override-grace", false, "rotate although that cuts the previous secret off")
	return cmd
}

func printRotated(w io.Writer, r admin.Rotated, now time.Time) error {
	p := &page{now: now}
	p.title("%s was rotated", r.Token.Name)
	p.line("new secret", "%s, confirmed by every sink", r.Digest)
	if r.GraceEndsAt.IsZero() {
		p.line("previous secret", "revoked")
	} else {
		p.line("previous secret", "works until %s", p.when(r.GraceEndsAt))
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
