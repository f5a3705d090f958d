package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// tokenOrAll is the argument of commands that are about one token or all of them.
type tokenOrAll struct{ all bool }

func (t *tokenOrAll) add(cmd *cobra.Command, all string) {
	cmd.Flags().BoolVar(&t.all, "all", false, all)
}

// name is the token that is meant, or rotation.AllTokens.
func (t *tokenOrAll) name(args []string) (string, error) {
	switch {
	case t.all && len(args) > 0:
		return "", usagef("--all and the name of a token exclude each other")
	case t.all:
		return rotation.AllTokens, nil
	case len(args) == 0 || args[0] == rotation.AllTokens:
		return "", usagef("give the name of a token, or --all")
	}
	return args[0], nil
}

func newPause() *cobra.Command {
	var at socketFlags
	var format outputFormat
	var which tokenOrAll
	var reason, until string
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "pause NAME | --all",
		Short: "Have no rotation of a token begin, or of any",
		Long: `Have the running daemon begin no rotation of a token, or with --all of any, until it is
resumed or the time is over. A pause outlives restarts, and is in status and metrics. What
is in hand is finished, and a token in doubt is looked after as always: a pause must not
strand consumers. Slots that pass meanwhile are treated by catch_up when it is resumed.

A pause of all tokens and that of one are kept apart: one does not lift the other.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := which.name(args)
			if err != nil {
				return err
			}
			end, err := pauseEnd(until, length, time.Now())
			if err != nil {
				return err
			}
			client, err := at.client(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			o, err := client.Pause(cmd.Context(), name, end, reason)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), o)
			}
			return printPaused(cmd.OutOrStdout(), o, time.Now())
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	which.add(cmd, "all tokens, also those that are configured later")
	flags := cmd.Flags()
	flags.StringVar(&reason, "reason", "", "why, for those who see it paused")
	flags.DurationVar(&length, "for", 0, "how long, such as 48h; by default until it is resumed")
	flags.StringVar(&until, "until", "", "until when, such as 2027-01-04T06:00:00Z, in place of --for")
	return cmd
}

// pauseEnd is when a pause ends by itself; zero if it does not.
func pauseEnd(until string, length time.Duration, now time.Time) (time.Time, error) {
	switch {
	case until != "" && length != 0:
		return time.Time{}, usagef("--for and --until both say when it ends: give one of them")
	case length < 0:
		return time.Time{}, usagef("--for must be more than 0, not %s", length)
	case length > 0:
		return now.Add(length).UTC().Truncate(time.Second), nil
	case until == "":
		return time.Time{}, nil
	}
	end, err := time.Parse(time.RFC3339, until)
	if err != nil {
		return time.Time{}, usagef("--until %q is no time: write one such as 2027-01-04T06:00:00Z or 2027-01-04T07:00:00+01:00", until)
	}
	return end, nil
}

func newResume() *cobra.Command {
	var at socketFlags
	var format outputFormat
	var which tokenOrAll
	cmd := &cobra.Command{
		Use:   "resume NAME | --all",
		Short: "Lift a pause",
		Long: `Have the running daemon lift the pause of a token, or with --all that of all tokens. One does
not lift the other. Slots that passed meanwhile are treated by the token's catch_up: with once,
one rotation makes up for all of them, at a time of its own within the next minutes.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := which.name(args)
			if err != nil {
				return err
			}
			client, err := at.client(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			o, err := client.Resume(cmd.Context(), name)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), o)
			}
			return printResumed(cmd.OutOrStdout(), o, time.Now())
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	which.add(cmd, "lift the pause of all tokens; those that were paused by name stay so")
	return cmd
}

func printPaused(w io.Writer, o admin.Paused, now time.Time) error {
	p := &page{now: now}
	p.title("%s paused", subject(o.Token))
	p.line("until", "%s", pauseUntil(p, o.Pause))
	if len(o.InHand) > 0 {
		p.line("in hand", "%s: finished all the same", strings.Join(o.InHand, ", "))
	}
	lift := "rotatord resume " + o.Token
	if o.Token == rotation.AllTokens {
		lift = "rotatord resume --all"
	}
	p.text("Resume with: %s", lift)
	return p.print(w)
}

func printResumed(w io.Writer, o admin.Paused, now time.Time) error {
	p := &page{now: now}
	switch {
	case o.Lifted == nil && o.Token == rotation.AllTokens:
		p.title("no pause of all tokens was in force")
	case o.Lifted == nil:
		p.title("%s not paused", subject(o.Token))
	default:
		p.title("%s resumed", subject(o.Token))
		p.line("was paused", "%s", p.pause(*o.Lifted))
	}
	switch {
	case o.Pause != nil:
		p.text("It stays paused with all tokens: rotatord resume --all lifts that.")
	case o.Token != rotation.AllTokens:
		p.line("next", "%s", nextOf(p, o.Next, "see rotatord status "+o.Token))
	case len(o.ByName) > 0:
		p.text("These are paused by their own names and stay so: %s", strings.Join(o.ByName, ", "))
	}
	return p.print(w)
}

// subject is what a sentence about a token or all of them begins with.
func subject(token string) string {
	if token == rotation.AllTokens {
		return "all tokens are"
	}
	return token + " is"
}

func pauseUntil(p *page, pause *status.Pause) string {
	if pause == nil || pause.Until.IsZero() {
		return "it is resumed"
	}
	return p.when(pause.Until)
}

// pause says who has paused a token, when, why, and until when.
func (p *page) pause(pause status.Pause) string {
	return fmt.Sprintf("since %s%s, until %s%s", p.when(pause.Since), ifSet(" by %s", pause.By), pauseUntil(p, &pause), ifSet(": %s", pause.Reason))
}
