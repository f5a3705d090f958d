package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
)

func newRevokePrevious() *cobra.Command {
	var at socketFlags
	var format outputFormat
	var inUse bool
	cmd := &cobra.Command{
		Use:   "revoke-previous NAME",
		Short: "Revoke a token's previous secret before its grace is over",
		Long: `Revoke the previous secret of a token now, although its grace is not over. Consumers that have not
read the present secret yet are refused from then on. With strategy: replace, the service token that
was replaced is deleted.

The daemon refuses during a rotation in progress or a doubt, because consumers may still need the old
secret.

  --override-in-use   Revoke it anyway, if it is known to be the previous secret at Cloudflare.
                      CONSUMERS FAIL until they can read the new secret. Use this for a secret that
                      leaked while the new one cannot be delivered.

You can give the command again: to revoke a secret that no longer works changes nothing. If no
previous secret is known, the exit code is 1.`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := at.client(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			revoke := client.RevokePrevious
			if inUse {
				revoke = client.RevokeInUse
			}
			g, err := revoke(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printGrace(cmd.OutOrStdout(), format, g, "the previous secret of %s was revoked", time.Now())
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	cmd.Flags().BoolVar(&inUse, "override-in-use", false, "revoke it although consumers may not have another secret yet")
	return cmd
}

func newExtendGrace() *cobra.Command {
	var at socketFlags
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "extend-grace NAME DURATION",
		Short: "Keep a token's previous secret working for longer",
		Long: `Extend the grace of a token's previous secret, so that it works for DURATION from now, such as 12h,
and at most 720h. This never shortens a grace, and cannot bring back a secret that no longer works.
The next rotation waits for the new end.

While a new secret cannot be delivered, this extends the grace of the old one, which consumers still
use.`,
		Args: nameAndDuration,
		RunE: func(cmd *cobra.Command, args []string) error {
			grace, err := time.ParseDuration(args[1])
			if err != nil || grace < time.Second {
				return usagef("%q is not a duration of at least one second: write one such as 12h (a day is 24h)", args[1])
			}
			client, err := at.client(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			g, err := client.ExtendGrace(cmd.Context(), args[0], grace)
			if err != nil {
				return err
			}
			return printGrace(cmd.OutOrStdout(), format, g, "the grace of the previous secret of %s is extended", time.Now())
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	return cmd
}

func printGrace(w io.Writer, format outputFormat, g admin.Grace, title string, now time.Time) error {
	if format == "json" {
		return printJSON(w, g)
	}
	p := &page{now: now}
	p.title(title, g.Token.Name)
	if g.EndsAt.After(now) {
		p.line("works until", "%s", p.when(g.EndsAt))
	}
	p.line("next", "%s", nextOf(p, g.Token.Next, g.Token.State, g.Token.Reason))
	if g.Token.ReplacedError != "" {
		return fmt.Errorf("a replaced service token could not be deleted: %s", g.Token.ReplacedError)
	}
	return p.print(w)
}
