package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/drill"
)

func newDrill() *cobra.Command {
	var configPath string
	var format outputFormat
	var o drill.Options
	var list, story bool
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Rehearse disasters with your configuration, and touch nothing real",
		Long: `Rehearse disasters with the tokens, graces, windows and sinks of your configuration, and report what
would happen: a lost answer, a Vault that is sealed between the rotation and the write, a daemon that
is killed, and so on.

Nothing real is touched. The addresses in your configuration are not used, and credentials are not
read. For each disaster the real daemon runs against a new Cloudflare simulator, an application behind
Access and, for sinks in Vault, a KV server in this process. Files of file sinks are in a temporary
directory. One consumer reads the secret from the first sink before each call of the application. Another consumer uses the old secret as long as it works. Hours pass in an
instant; the whole drill takes from ten seconds to a minute.

For each disaster the report says how often Cloudflare rotated, which secrets never arrived, how long
consumers were locked out, which alerts would fire, and what you have to do. The exit code is 1 if a
promise was broken: a secret was lost, a grace was cut short, a token was rotated more often than
needed, or consumers that read the sink were locked out.

  rotatord drill --config /etc/rotatord/config.yaml
  rotatord drill --only lost-answer,kill --story

docs/drill.md explains the report.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if list {
				return printDisasters(cmd.OutOrStdout(), format)
			}
			if o.Tokens < 1 || o.Tokens > drill.MaxTokens {
				return usagef("--tokens must be between 1 and %d, not %d", drill.MaxTokens, o.Tokens)
			}
			c, err := loadConfig(configPath, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if o.Program.Path, err = os.Executable(); err != nil {
				return err
			}
			o.Program.Name = os.Args[0]
			report, err := drill.Run(cmd.Context(), c, o)
			if errors.Is(err, drill.ErrUnknown) {
				return usagef("--only: %v: --list shows all disasters", err)
			}
			if err != nil {
				return err
			}
			if format == "json" {
				err = printJSON(cmd.OutOrStdout(), report)
			} else {
				err = printDrill(cmd.OutOrStdout(), report, story)
			}
			if err == nil && report.Violated() {
				err = errReported
			}
			return err
		},
	}
	configFlag(cmd, &configPath)
	outputFlag(cmd, &format)
	flags := cmd.Flags()
	flags.StringSliceVar(&o.Only, "only", nil, "rehearse only these `disasters`: names with commas between")
	flags.BoolVar(&list, "list", false, "list the disasters and rehearse none")
	flags.BoolVar(&story, "story", false, "show step by step what the daemon did")
	flags.IntVar(&o.Tokens, "tokens", 8, "how many tokens take part at most, of those that differ in more than their names")
	_ = cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions(disasterNames(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func disasterNames() (names []string) {
	for _, d := range drill.Names() {
		names = append(names, d[0])
	}
	return names
}

func printDisasters(w io.Writer, format outputFormat) error {
	if format == "json" {
		type disaster struct {
			Name string `json:"name"`
			What string `json:"what"`
		}
		var all []disaster
		for _, d := range drill.Names() {
			all = append(all, disaster{d[0], d[1]})
		}
		return printJSON(w, all)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, d := range drill.Names() {
		fmt.Fprintf(table, "%s\t%s\n", d[0], d[1])
	}
	return table.Flush()
}

func printDrill(w io.Writer, r drill.Report, story bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, of %d in the configuration: %s\n", counted(len(r.Sample), "token takes part", "tokens take part"), r.Tokens, strings.Join(r.Sample, ", "))
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "  %s\n", note)
	}
	broken, unplayed := 0, 0
	for _, d := range r.Disasters {
		printDisaster(&b, d, story)
		broken += d.Broken()
		if d.Error != "" {
			unplayed++
		}
	}
	fmt.Fprintf(&b, "\n%s, %s", counted(len(r.Disasters), "disaster", "disasters"), counted(len(r.Sample), "token", "tokens"))
	switch {
	case broken > 0:
		fmt.Fprintf(&b, ": %s\n", counted(broken, "PROMISE WAS BROKEN", "PROMISES WERE BROKEN"))
	case unplayed > 0:
		fmt.Fprintf(&b, ": %d could not be rehearsed to the end\n", unplayed)
	case len(r.Disasters) == 0:
		b.WriteString(": nothing was rehearsed\n")
	default:
		b.WriteString(": every promise was kept\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func printDisaster(b *strings.Builder, d drill.Outcome, story bool) {
	fmt.Fprintf(b, "\n%s: %s", d.Name, d.What)
	if d.Ends != "" {
		fmt.Fprintf(b, "; %s", d.Ends)
	}
	b.WriteString("\n")
	var alerts []string
	width := 0
	for _, t := range d.Tokens {
		width = max(width, len(t.Token))
	}
	for _, t := range d.Tokens {
		fmt.Fprintf(b, "  %-*s  %s\n", width, t.Token, becameOf(d, t))
		for _, v := range t.Violations {
			fmt.Fprintf(b, "    BROKEN: %s\n", v)
		}
		if story {
			table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
			for _, m := range t.Story {
				fmt.Fprintf(table, "    +%s\t%s\n", m.After, m.What)
			}
			_ = table.Flush() // into memory
		}
		alerts = append(alerts, t.Alerts...)
	}
	if d.Error != "" {
		fmt.Fprintf(b, "  NOT REHEARSED TO THE END: %s\n", d.Error)
	}
	slices.Sort(alerts)
	fmt.Fprintf(b, "  alerts: %s\n", cmp.Or(strings.Join(slices.Compact(alerts), ", "), "none"))
	if d.Operator != "" {
		fmt.Fprintf(b, "  to do: %s\n", d.Operator)
	}
}

// aMoment is too short to be reported in seconds.
const aMoment = drill.Duration(500 * time.Millisecond)

// becameOf returns the result for a token, on one line.
func becameOf(d drill.Outcome, t drill.TokenOutcome) string {
	done := "rotated"
	if t.Strategy == "replace" {
		done = "replaced"
	}
	if t.First {
		done = "created"
	}
	parts := []string{map[int]string{0: "not " + done, 1: done + " once", 2: done + " twice"}[t.Rotations]}
	switch {
	case t.Rotations > 2:
		parts[0] = fmt.Sprintf("%s %d times", done, t.Rotations)
	case t.First && t.Rotations == 2 && t.Created == 1:
		parts[0] = "created once, and rotated once"
	}
	if t.Left > 0 {
		parts = append(parts, counted(t.Left, "service token at the end", "service tokens at the end"))
	}
	if t.NeverSeen > 0 {
		parts = append(parts, counted(t.NeverSeen, "secret never arrived", "secrets never arrived"))
	}
	switch {
	case d.Fatal && !t.Works:
		parts = append(parts, "consumers are locked out until an operator repairs it")
	case t.Refused == 0:
		parts = append(parts, "consumers of "+readBy(t)+" never locked out")
	case t.Refused < aMoment:
		parts = append(parts, "consumers of "+readBy(t)+" locked out for a moment")
	default:
		parts = append(parts, fmt.Sprintf("consumers of %s locked out for %s", readBy(t), t.Refused))
	}
	switch {
	case d.Fatal && !t.Works, t.First:
	case t.OldDied == nil:
		parts = append(parts, "the old secret still works")
	case *t.OldDied < aMoment:
		parts = append(parts, "the old secret was revoked at once")
	default:
		parts = append(parts, fmt.Sprintf("the old secret worked for %s", *t.OldDied))
	}
	if t.State != "idle" && t.State != "" {
		parts = append(parts, "state "+t.State)
	}
	return strings.Join(parts, "; ")
}

// readBy returns what the consumers of a token read, for a sentence.
func readBy(t drill.TokenOutcome) string {
	if t.Sink == "vault" {
		return "Vault"
	}
	return "the " + t.Sink
}
