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

// tokenOrAll is the argument of a command that is about one token or about all.
type tokenOrAll struct{ all bool }

func (t *tokenOrAll) add(cmd *cobra.Command, all string) {
	cmd.Flags().BoolVar(&t.all, "all", false, all)
}

// name returns the name of the token, or rotation.AllTokens.
func (t *tokenOrAll) name(args []string) (string, error) {
	switch {
	case t.all && len(args) > 0:
		return "", usagef("give either --all or the name of a token")
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
		Short: "Pause the rotations of a token, or of all tokens",
		Long: `Pause a token, or with --all every token: the running daemon starts no rotation until the pause
ends or is lifted with rotatord resume. A pause survives restarts; status and the metrics show it.

A rotation in progress is finished, and a doubt is still resolved, so that a pause cannot strand
consumers. When the pause ends, the token's catch_up decides about the slots that passed.

A pause of all tokens and a pause of one token are separate: lifting one does not lift the other.`,
		Args: atMostOneName,
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
	which.add(cmd, "all tokens, including those that are configured later")
	flags := cmd.Flags()
	flags.StringVar(&reason, "reason", "", "why, for everyone who sees the pause")
	durationVar(cmd, &length, "for", "how long, such as 48h (default: until resumed)")
	flags.StringVar(&until, "until", "", "until this time, such as 2027-01-04T06:00:00Z; in place of --for")
	return cmd
}

// pauseEnd returns when a pause ends by itself; zero if it lasts until it is lifted.
func pauseEnd(until string, length time.Duration, now time.Time) (time.Time, error) {
	switch {
	case until != "" && length != 0:
		return time.Time{}, usagef("--for and --until both say when the pause ends: give one of them")
	case length < 0:
		return time.Time{}, usagef("--for must be more than 0, not %s", length)
	case length > 0:
		return now.Add(length).UTC().Truncate(time.Second), nil
	case until == "":
		return time.Time{}, nil
	}
	end, err := time.Parse(time.RFC3339, until)
	if err != nil {
		return time.Time{}, usagef("--until %q is not a time: write one such as 2027-01-04T06:00:00Z or 2027-01-04T07:00:00+01:00", until)
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
		Long: `Lift the pause of a token, or with --all the pause of all tokens. One does not lift the other.

The token's catch_up decides about the slots that passed during the pause. With catch_up: once, one
rotation within the next minutes makes up for all of them.`,
		Args: atMostOneName,
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
	which.add(cmd, "lift the pause of all tokens; tokens that were paused by name stay paused")
	return cmd
}

func printPaused(w io.Writer, o admin.Paused, now time.Time) error {
	p := &page{now: now}
	p.title("%s paused", subject(o.Token))
	p.line("until", "%s", pauseUntil(p, o.Pause))
	if len(o.InProgress) > 0 {
		p.line("in progress", "%s: will still finish", strings.Join(o.InProgress, ", "))
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
		p.title("there was no pause of all tokens")
	case o.Lifted == nil:
		p.title("%s not paused", subject(o.Token))
	default:
		p.title("%s resumed", subject(o.Token))
		p.line("was paused", "%s", p.pause(*o.Lifted))
	}
	switch {
	case o.Pause != nil:
		p.text("It is still paused, because all tokens are: rotatord resume --all lifts that pause.")
	case o.Token != rotation.AllTokens:
		if o.Next.IsZero() {
			p.line("next", "see rotatord status %s", o.Token)
		} else {
			p.line("next", "%s: see rotatord status %s", p.when(o.Next), o.Token)
		}
	case len(o.ByName) > 0:
		p.text("These tokens were paused by name and stay paused: %s", strings.Join(o.ByName, ", "))
	}
	return p.print(w)
}

// subject returns the beginning of a sentence about one token or about all.
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

// pause returns who paused a token, when, why, and until when.
func (p *page) pause(pause status.Pause) string {
	return fmt.Sprintf("since %s%s, until %s%s", p.when(pause.Since), ifSet(" by %s", pause.By), pauseUntil(p, &pause), ifSet(": %s", pause.Reason))
}
