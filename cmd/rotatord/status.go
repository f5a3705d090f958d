package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

func newStatus() *cobra.Command {
	var at socketFlags
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show the tokens of a running daemon",
		Long: `Show what the running daemon knows: all tokens in a table, or with NAME everything about
one. It asks the daemon through its admin socket, which the daemon's user and group and
root may use, and changes nothing.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := at.client(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			var o admin.Overview
			if len(args) == 1 {
				o, err = client.Token(cmd.Context(), args[0])
			} else {
				o, err = client.Tokens(cmd.Context())
			}
			switch {
			case err != nil:
				return err
			case format == "json":
				return printJSON(cmd.OutOrStdout(), o)
			case len(args) == 1 && len(o.Tokens) == 1:
				return printToken(cmd.OutOrStdout(), o.Tokens[0], o, time.Now())
			default:
				return printTokens(cmd.OutOrStdout(), o, time.Now())
			}
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	return cmd
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// printTokens prints what is wrong, and then a line for each token.
func printTokens(w io.Writer, o admin.Overview, now time.Time) error {
	printTroubles(w, troubles(o, now), now)
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "TOKEN\tSTATE\tNEXT\tLAST SUCCESS\tGRACE ENDS\tFAILURES\tREASON")
	for _, t := range o.Tokens {
		reason := t.Reason
		switch {
		case t.Doubt != nil:
			reason = t.Doubt.Reason
		case t.Pause != nil:
			reason = string(rotation.DuePaused)
		case t.Freeze != "":
			reason += " " + t.Freeze
		case t.WaitsFor != "":
			reason += ", waits"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", cell(t.Name), cell(shownState(t, now)), status.Distance(t.Next, now),
			status.Distance(t.LastSuccess, now), graceEnd(t, now), t.Failures, cell(reason))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	var notes strings.Builder
	ordered := 0
	for _, t := range o.Tokens {
		if t.Order != nil {
			ordered++
		}
	}
	if ordered > 0 {
		fmt.Fprintf(&notes, "\n%d ordered to be rotated, and not done yet: rotatord status NAME says what holds it up.\n", ordered)
	}
	writeWaits(&notes, o.Tokens, now)
	if o.PendingSecrets > 0 {
		fmt.Fprintf(&notes, "\n%s\n", pendingSummary(o, now))
	}
	_, err := io.WriteString(w, notes.String())
	return err
}

// printTroubles prints what is wrong, the worst first, and what to do about it.
func printTroubles(w io.Writer, troubles []status.Trouble, now time.Time) {
	if len(troubles) == 0 {
		return
	}
	for _, t := range troubles {
		fmt.Fprintf(w, "%-8s  %s\n%-8s  to do: %s\n", cell(strings.ToUpper(string(t.Severity))), printable.Line(t.Line(now), 2000), "", printable.Line(t.ToDo, 500))
	}
	fmt.Fprintln(w)
}

// troubles is what is wrong, as the daemon says. One that is older than this command does not.
func troubles(o admin.Overview, now time.Time) []status.Trouble {
	if o.Troubles == nil {
		return status.Troubles(o.Tokens, o.Checks, now)
	}
	return o.Troubles
}

// shownState is the state of a token, or the trouble that it is in.
func shownState(t status.Token, now time.Time) string {
	kinds := t.Troubles
	if kinds == nil { // the daemon is older than this command
		kinds = t.TroubleKinds(now)
	}
	switch {
	case len(kinds) == 0 || kinds[0] == t.State:
		return t.State
	case t.State == "idle", t.State == "":
		return kinds[0]
	}
	return t.State + ", " + kinds[0]
}

// cell is a text as it may stand in a table: on one line, and in its column.
func cell(text string) string {
	return printable.Line(text, 200)
}

// writeWaits says how many tokens wait for what. All that wait for the same are one line, with the
// latest end that any of them is told.
func writeWaits(w io.Writer, tokens []status.Token, now time.Time) {
	counts, until := make(map[string]int), make(map[string]time.Time)
	for _, t := range tokens {
		if t.WaitsFor == "" {
			continue
		}
		counts[t.WaitsFor]++
		if t.WaitsUntil.After(until[t.WaitsFor]) {
			until[t.WaitsFor] = t.WaitsUntil
		}
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(w, "\n%d due and waiting for %s%s.\n", counts[what], what, ifSet(", until %s", whenKnown(until[what], now)))
	}
}

// whenKnown is a time as it is shown, or "" if it is zero.
func whenKnown(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return (&page{now: now}).when(t)
}

// graceEnd leaves out graces that are over.
func graceEnd(t status.Token, now time.Time) string {
	if t.GraceEnd.Before(now) {
		return "–"
	}
	return status.Distance(t.GraceEnd, now)
}

func pendingSummary(o admin.Overview, now time.Time) string {
	if o.PendingSecrets == 0 {
		return "none"
	}
	since := ""
	if !o.PendingSince.IsZero() {
		since = ", the oldest received " + status.Distance(o.PendingSince, now)
	}
	return fmt.Sprintf("%d new secret(s) not yet confirmed by every sink%s: keep the daemon's disk.", o.PendingSecrets, since)
}

// printToken prints everything about one token.
func printToken(w io.Writer, t status.Token, o admin.Overview, now time.Time) error {
	printTroubles(w, troubles(o, now), now)
	p := &page{now: now}
	p.title("%s", t.Name)
	p.line("state", "%s", shownState(t, now))
	p.line("account", "%s", t.Account)
	if t.AccountError != "" {
		p.line("CREDENTIAL", "the account's cannot be read, so nothing can be done for the token: %s", t.AccountError)
	}
	if t.TokenID == "" {
		p.line("service token", "not made yet")
	} else {
		p.line("service token", "%s%s", t.TokenID, ifSet(" (client ID %s)", t.ClientID))
	}
	if t.Spare != "" {
		p.line("pair with", "%s, which is not in use now", t.Spare)
	}
	p.line("schedule", "%s (%s)", t.Schedule, t.TimeZone)
	switch {
	case t.Next.IsZero():
		p.line("next", "not planned: %s", t.Reason)
	case t.Freeze != "":
		p.line("next", "%s: %s %s", p.when(t.Next), t.Reason, t.Freeze)
	default:
		p.line("next", "%s: %s", p.when(t.Next), t.Reason)
	}
	if t.WaitsFor != "" {
		p.line("waits for", "%s%s", t.WaitsFor, ifSet(", until %s", whenKnown(t.WaitsUntil, now)))
	}
	if t.Pause != nil {
		p.line("paused", "%s", p.pause(*t.Pause))
	}
	if t.Order != nil {
		p.line("ordered", "%s%s, to be rotated %d time(s)%s", p.when(t.Order.Since), ifSet(" by %s", t.Order.By), t.Order.Left, revoking(t.Order.RevokeNow))
	}
	p.danger(t)
	p.line("last success", "%s%s", p.when(t.LastSuccess), ifSet("; not proven to work: %s", t.Unverified))
	p.verification(t)
	p.overtaken(t)
	if !t.Outside.IsZero() {
		p.line("rotated outside", "%s by somebody else: rotatord rotate %s brings the sinks a secret that works", p.when(t.Outside), t.Name)
	}
	if t.Gone {
		p.line("GONE", "the account has no service token of this id: correct the configuration")
	}
	if t.Replaced > 0 {
		p.line("to be deleted", "%d service token(s) that were replaced%s", t.Replaced, ifSet(", the last error: %s", t.ReplacedError))
	}
	if !t.GraceEnd.IsZero() {
		p.line("grace ends", "%s", p.when(t.GraceEnd))
	}
	for _, d := range t.Deletions {
		p.line("DELETES ITSELF", "%s: the version in %s, by delete_version_after: see docs/vault.md", p.when(d.At), d.Sink)
	}
	if t.Known {
		p.line("token expires", "%s", p.when(t.Expiry))
		if !t.Renews.IsZero() {
			p.line("token renews", "%s%s", p.when(t.Renews), ifSet(", the last error: %s", t.RenewalError))
		}
		p.line("last used", "%s", p.when(t.LastSeen))
		if !t.Enabled {
			p.line("disabled", "at Cloudflare, which refuses the present secret and the previous one")
		}
	}
	p.line("failures", "%d in a row%s", t.Failures, ifSet(", the last: %s", t.LastError))
	p.line("pending secrets", "of all tokens: %s", pendingSummary(o, now))
	switch {
	case t.Doubt != nil:
		p.doubt(*t.Doubt)
		p.choices(t.Name, *t.Doubt)
		p.toDo(besideDoubt(t))
	default:
		p.toDo(t.ToDo)
	}
	return p.print(w)
}

// danger says since when consumers have no secret that works, or until when they have one while a lost
// secret is owed.
func (p *page) danger(t status.Token) {
	if !t.ReissueOwed.IsZero() {
		p.line("reissue owed", "since %s: a secret was lost, and another one is to take its place", p.when(t.ReissueOwed))
	}
	switch {
	case t.CutOffAt.IsZero() || t.ReissueOwed.IsZero() && !t.Endangered():
	case !t.CutOffAt.After(p.now):
		p.line("CUT OFF", "consumers have no secret that works since %s", p.when(t.CutOffAt))
	default:
		p.line("consumers", "have a secret that works until %s, unless it is extended", p.when(t.CutOffAt))
	}
}

// besideDoubt is what can be done about a token in doubt beside what page.choices shows.
func besideDoubt(t status.Token) []status.ToDo {
	return slices.DeleteFunc(slices.Clone(t.ToDo), func(do status.ToDo) bool {
		return strings.HasPrefix(do.Command, "rotatord resolve "+t.Name) && !strings.HasSuffix(do.Command, "--drop")
	})
}

func revoking(now bool) string {
	if now {
		return ", and the previous secret revoked"
	}
	return ""
}

// ifSet puts text into a format, unless it is empty.
func ifSet(format, text string) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf(format, text)
}
