package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

func newStatus() *cobra.Command {
	var at socketFlags
	var format outputFormat
	var view statusView
	cmd := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show what is wrong, and the tokens of a running daemon",
		Long: `Show what the running daemon knows. First what is wrong, with the names of the tokens, what to do
and the section of the runbook; then all other tokens in one line, or with --all each on its own. With
NAME show everything about one token, and what to type about it.
Nothing is changed. The command uses the daemon's admin socket, so run it as root, as the daemon's
user, or as a member of its group. Colours are used on a terminal only, and not if NO_COLOR is set.`,
		Args: func(cmd *cobra.Command, args []string) error { return view.check(cmd, args, format) },
		RunE: func(cmd *cobra.Command, args []string) error {
			out := newDisplay(cmd.OutOrStdout())
			if view.every > 0 && !out.terminal {
				return usagef("--watch needs a terminal: without one, ask as often as you need it")
			}
			client, err := at.client(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			ask := func(ctx context.Context) (status.Overview, error) { return client.Tokens(ctx) }
			if len(args) == 1 {
				ask = func(ctx context.Context) (status.Overview, error) { return client.Token(ctx, args[0]) }
			}
			shown := func(o status.Overview, now time.Time) string {
				if len(args) == 1 && len(o.Tokens) == 1 {
					return tokenText(o.Tokens[0], o, now)
				}
				return overviewText(o, view.all, now)
			}
			if view.every > 0 {
				return watch(cmd.Context(), out, view.every, "rotatord "+strings.Join(append([]string{cmd.Name()}, args...), " "), ask, shown)
			}
			o, err := ask(cmd.Context())
			switch {
			case err != nil:
				return err
			case format == "json":
				return status.WriteJSON(cmd.OutOrStdout(), o)
			default:
				return out.print(shown(o, time.Now()))
			}
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	cmd.Flags().BoolVar(&view.all, "all", false, "show each token on a line of its own, and all names in what is wrong")
	durationVar(cmd, &view.every, "watch", "on a terminal: show it again and again, every `interval`, until Ctrl-C (without an interval: every "+watchDefault.String()+")")
	cmd.Flags().Lookup("watch").NoOptDefVal = watchDefault.String()
	return cmd
}

// statusView says how status is shown.
type statusView struct {
	all   bool
	every time.Duration // 0: once
}

// check refuses flags and arguments that do not fit together.
func (v *statusView) check(cmd *cobra.Command, args []string, format outputFormat) error {
	watches := cmd.Flags().Changed("watch")
	if len(args) > 0 && watches {
		if _, err := time.ParseDuration(args[len(args)-1]); err == nil {
			return usagef("write the interval with an equals sign: --watch=%s", args[len(args)-1])
		}
	}
	switch err := atMostOneName(cmd, args); {
	case err != nil:
		return err
	case len(args) == 1 && v.all:
		return usagef("--all shows all tokens, and %q names one: give one of them", args[0])
	case !watches:
		return nil
	case format == "json":
		return usagef("--watch is for people: ask for -o json as often as you need it")
	case v.every < watchMin:
		return usagef("--watch=%s is too often for the daemon: at least %s", v.every, watchMin)
	}
	return nil
}

func printJSON(w io.Writer, v any) error { return status.WriteJSON(w, v) }

// overviewText returns the troubles, and then all other tokens in one line, or with all each token in its own.
func overviewText(o status.Overview, all bool, now time.Time) string {
	var b strings.Builder
	writeTroubles(&b, troubles(o, now), all, now)
	if all {
		writeReplicas(&b, o.Replicas, now)
		writeTable(&b, o.Tokens, now)
	} else {
		b.WriteString(restLine(o, now) + "\n")
	}
	ordered := 0
	for _, t := range o.Tokens {
		if t.Order != nil {
			ordered++
		}
	}
	if ordered > 0 {
		fmt.Fprintf(&b, "\n%d pending rotation order(s): rotatord status NAME says why they are not done yet.\n", ordered)
	}
	writeWaits(&b, o.Tokens, now)
	if o.PendingSecrets > 0 {
		fmt.Fprintf(&b, "\n%s\n", pendingSummary(o, now))
	}
	return b.String()
}

// restLine says in one line what is known of the tokens, and the replicas, that are in no trouble.
func restLine(o status.Overview, now time.Time) string {
	var paused, busy []string
	var next status.Token
	fine, frozen := 0, 0
	for _, t := range o.Tokens {
		if len(troubleKinds(t, now)) > 0 {
			continue
		}
		fine++
		switch {
		case t.Pause != nil:
			paused = append(paused, t.Name)
		case t.Freeze != "":
			frozen++
		case t.State != "idle" && t.State != "":
			busy = append(busy, t.Name)
		}
		if t.Pause == nil && !t.Next.IsZero() && (next.Next.IsZero() || t.Next.Before(next.Next)) {
			next = t
		}
	}
	var b strings.Builder
	switch ill := len(o.Tokens) - fine; {
	case len(o.Tokens) == 0:
		return "no tokens are configured"
	case fine == 0:
		return "no other tokens are configured"
	case ill == 0 && len(troubles(o, now)) == 0:
		fmt.Fprintf(&b, "nothing is wrong with %s", countOf(fine, "token"))
	case ill == 0:
		fmt.Fprintf(&b, "nothing else is wrong with %s", countOf(fine, "token"))
	default:
		fmt.Fprintf(&b, "nothing is wrong with the other %s", countOf(fine, "token"))
	}
	fmt.Fprintf(&b, "%s%s", ifSet("; in progress: %s", worksOn(busy)), ifSet("; paused: %s", worksOn(paused)))
	if frozen > 0 {
		fmt.Fprintf(&b, "; %d wait for the end of a freeze", frozen)
	}
	if next.Name != "" {
		fmt.Fprintf(&b, "; next: %s %s", next.Name, status.Distance(next.Next, now))
	}
	if o.Replicas != nil {
		fmt.Fprintf(&b, "; %d of %s living, this is %s", o.Replicas.Living(), countOf(len(o.Replicas.Replicas), "replica"), o.Replicas.Name)
	}
	return printable.Line(b.String(), 1000) + " (--all shows each)"
}

// countOf returns a number with its noun.
func countOf(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// writeTable writes a line for each token.
func writeTable(w io.Writer, tokens []status.Token, now time.Time) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "TOKEN\tSTATE\tNEXT\tLAST SUCCESS\tGRACE ENDS\tFAILURES\tREASON")
	for _, t := range tokens {
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
		if t.Sharing != nil && t.Sharing.Hold != nil {
			reason += ", " + t.Sharing.Hold.Replica + " works on it"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", cell(t.Name), cell(shownState(t, now)), status.Distance(t.Next, now),
			status.Distance(t.LastSuccess, now), graceEnd(t, now), t.Failures, cell(reason))
	}
	_ = table.Flush() // a strings.Builder does not fail
}

// writeTroubles writes what is wrong and what to do about it, the worst first. With all, each names all its tokens.
func writeTroubles(w io.Writer, troubles []status.Trouble, all bool, now time.Time) {
	if len(troubles) == 0 {
		return
	}
	for _, t := range troubles {
		fmt.Fprintf(w, "%-8s  %s\n%-8s  to do: %s\n", cell(strings.ToUpper(string(t.Severity))), printable.Line(t.Line(now), 2000), "", printable.Line(t.ToDo, 500))
		if all && len(t.Tokens) > status.MaxNames {
			writeNames(w, t.Tokens)
		}
		for _, step := range t.Steps {
			if step.Command != "" {
				fmt.Fprintf(w, "%s%s\n%s%s\n", commandLine, printable.Line(step.Command, 500), doesLine, printable.Line(step.Does, 500))
			} else {
				fmt.Fprintf(w, "%-8s  %s\n", "", printable.Line(step.Does, 500))
			}
		}
		if t.Runbook != "" {
			fmt.Fprintf(w, "%-8s  see: %s\n", "", cell(docsCommand(t.Runbook)))
		}
	}
	fmt.Fprintln(w)
}

// writeNames writes all names of tokens below a trouble, in lines of a bounded width.
func writeNames(w io.Writer, names []string) {
	p := page{}
	p.paragraph(strings.Repeat(" ", 10), "tokens: "+printable.Line(strings.Join(names, " "), 1<<20))
	_ = p.print(w) // a strings.Builder does not fail
}

// troubles returns what is wrong. The daemon says it, unless it is older than this command.
func troubles(o status.Overview, now time.Time) []status.Trouble {
	if o.Troubles == nil {
		return status.AllTroubles(o.Tokens, o.Checks, o.Replicas, now)
	}
	return o.Troubles
}

// shownState returns the state of a token, with its worst trouble.
func shownState(t status.Token, now time.Time) string {
	if t.Unread {
		return "not known"
	}
	kinds := troubleKinds(t, now)
	switch {
	case len(kinds) == 0 || kinds[0] == t.State:
		return t.State
	case t.State == "idle", t.State == "":
		return kinds[0]
	}
	return t.State + ", " + kinds[0]
}

// troubleKinds returns the kinds of trouble of a token. The daemon says them, unless it is older than this command.
func troubleKinds(t status.Token, now time.Time) []string {
	if t.Troubles == nil {
		return t.TroubleKinds(now)
	}
	return t.Troubles
}

// cell returns a text that fits in a table: on one line, and not too long.
func cell(text string) string {
	return printable.Line(text, 200)
}

// writeWaits writes how many tokens wait for what. Tokens that wait for the same thing are on one line,
// with the latest end that one of them has.
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
		fmt.Fprintf(w, "\n%d due, but waiting for %s%s.\n", counts[what], what, ifSet(", until %s", whenKnown(until[what], now)))
	}
}

// whenKnown returns a time as text; empty if it is zero.
func whenKnown(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return (&page{now: now}).when(t)
}

// graceEnd returns when the grace of a token ends, or a dash if it is over.
func graceEnd(t status.Token, now time.Time) string {
	if t.GraceEnd.Before(now) {
		return "–"
	}
	return status.Distance(t.GraceEnd, now)
}

func pendingSummary(o status.Overview, now time.Time) string {
	if o.PendingSecrets == 0 {
		return "none"
	}
	since := ""
	if !o.PendingSince.IsZero() {
		since = ", the oldest received " + status.Distance(o.PendingSince, now)
	}
	return fmt.Sprintf("%d new secret(s) not yet confirmed by every sink%s: do not delete the daemon's state directory.", o.PendingSecrets, since)
}

// tokenText returns everything about one token, and what to type about it.
func tokenText(t status.Token, o status.Overview, now time.Time) string {
	p := &page{now: now}
	writeTroubles(&p.b, troubles(o, now), false, now)
	fmt.Fprintf(&p.b, "%s\n", printable.Line(t.Name, 200))
	p.line("state", "%s", shownState(t, now))
	p.line("account", "%s", t.Account)
	if t.AccountError != "" {
		p.line("CREDENTIAL", "the credential of the account cannot be read, so the token cannot be rotated: %s", t.AccountError)
	}
	if t.TokenID == "" {
		p.line("service token", "not created yet")
	} else {
		p.line("service token", "%s%s", t.TokenID, ifSet(" (client ID %s)", t.ClientID))
	}
	if t.Spare != "" {
		p.line("pair with", "%s, which is not in use now", t.Spare)
	}
	p.line("schedule", "%s (%s)", t.Schedule, t.TimeZone)
	switch {
	case t.Next.IsZero():
		p.line("next", "%s", status.WithoutTime(t.State, t.Reason))
	case t.Freeze != "":
		p.line("next", "%s: %s %s", p.when(t.Next), t.Reason, t.Freeze)
	default:
		p.line("next", "%s: %s", p.when(t.Next), t.Reason)
	}
	p.sharing(t, o.Replicas)
	if t.WaitsFor != "" {
		p.line("waits for", "%s%s", t.WaitsFor, ifSet(", until %s", whenKnown(t.WaitsUntil, now)))
	}
	if t.Pause != nil {
		p.line("paused", "%s", p.pause(*t.Pause))
	}
	if t.Order != nil {
		p.line("ordered", "%s%s, %d rotation(s) to do%s", p.when(t.Order.Since), ifSet(" by %s", t.Order.By), t.Order.Left, revoking(t.Order.RevokeNow))
	}
	p.secrets(t)
	p.serviceToken(t)
	p.line("failures", "%d in a row", t.Failures)
	switch {
	case t.LastError == "":
	case t.Failures == 0:
		p.line("last error", "%s (of an earlier try)", t.LastError)
	default:
		p.line("last error", "%s", t.LastError)
	}
	p.line("pending secrets", "of all tokens: %s", pendingSummary(o, now))
	switch {
	case t.Doubt != nil:
		p.doubt(*t.Doubt)
		p.choices(t.Name, *t.Doubt)
		p.toDo(besideDoubt(t))
	default:
		p.toDo(t.WhatToType(now))
	}
	return p.b.String()
}

// secrets adds what is known about the secrets of a token, and about the service tokens that were replaced.
func (p *page) secrets(t status.Token) {
	p.danger(t)
	p.line("last success", "%s%s%s", p.when(t.LastSuccess), ifSet(" by the replica %s", t.LastReplica), ifSet("; not proven to work: %s", t.Unverified))
	p.verification(t)
	p.overtaken(t)
	if !t.Outside.IsZero() {
		p.line("rotated outside", "%s, not by rotatord: rotatord rotate %s writes a working secret to the sinks", p.when(t.Outside), t.Name)
	}
	if t.Gone {
		p.line("GONE", "the account has no service token with this ID: correct the configuration")
	}
	if t.Replaced > 0 {
		p.line("to be deleted", "%d replaced service token(s)%s", t.Replaced, ifSet(", the last error: %s", t.ReplacedError))
	}
	if !t.GraceEnd.IsZero() {
		p.line("grace ends", "%s", p.when(t.GraceEnd))
	}
	p.watch(t)
	p.hooks(t)
	for _, d := range t.Deletions {
		p.line("DELETES ITSELF", "%s: Vault will delete the version in %s (delete_version_after): see docs/vault.md", p.when(d.At), d.Sink)
	}
}

// watch adds what the watch has found in the sinks and about the secret in use.
func (p *page) watch(t status.Token) {
	for _, f := range t.Findings {
		p.line("SINK", "%s: %s, found %s%s%s%s", f.Sink, f.What, p.when(f.Since), held(f, p), ifSet(": %s", f.Error), ifSet(". If no person has rotated it, this puts it back: %s", f.PutBack))
	}
	if t.NotRestored != "" {
		p.line("not restored", "%s", t.NotRestored)
	}
	if !t.RestoredAt.IsZero() {
		p.line("restored", "%s: the secret was written back to a sink, or a rotation was ordered for that", p.when(t.RestoredAt))
	}
	if t.RefusedInUse != nil {
		p.line("REFUSED", "the secret in use is refused where it is tried, since %s: %s", p.when(t.RefusedInUse.Since), t.RefusedInUse.Error)
	}
}

// hooks adds the hooks that follow the last rotation.
func (p *page) hooks(t status.Token) {
	for _, h := range t.Hooks {
		switch h.State {
		case "done":
			p.line("hook", "%s: done %s", h.Name, p.when(h.DoneAt))
		case "running":
			p.line("hook", "%s: running, attempt %d", h.Name, h.Attempts)
		case "failing":
			p.line("HOOK FAILS", "%s: failed %d time(s) in a row, consumers wait since %s, next try %s: %s. When that is mended: rotatord hook run %s; to give it up: rotatord hook drop %s",
				h.Name, h.Failures, p.when(h.Since), p.when(h.Next), h.LastError, t.Name, t.Name)
		default:
			p.line("hook", "%s: runs %s", h.Name, p.when(h.Next))
		}
	}
}

// held says what a sink holds in place of what was written.
func held(f status.Finding, p *page) string {
	text := ""
	if f.Version > 0 {
		text += fmt.Sprintf(", version %d", f.Version)
		if f.WantVersion > 0 && f.WantVersion != f.Version {
			text += fmt.Sprintf(" in place of %d", f.WantVersion)
		}
	}
	if !f.WrittenAt.IsZero() {
		text += ", written " + p.when(f.WrittenAt)
	}
	if f.Digest != "" {
		text += ", digest " + f.Digest
	}
	return text
}

// serviceToken adds what is known about the service token at Cloudflare.
func (p *page) serviceToken(t status.Token) {
	if !t.Known {
		return
	}
	p.line("token expires", "%s", p.when(t.Expiry))
	if !t.Renews.IsZero() {
		p.line("token renews", "%s%s", p.when(t.Renews), ifSet(", the last error: %s", t.RenewalError))
	}
	p.line("last used", "%s", p.when(t.LastSeen))
	if !t.Enabled {
		p.line("disabled", "at Cloudflare, so both the present and the previous secret are refused")
	}
}

// danger adds since when consumers have no secret that works, or, while a reissue is owed, until when they
// have one.
func (p *page) danger(t status.Token) {
	if !t.ReissueOwed.IsZero() {
		p.line("reissue owed", "since %s: a secret was lost, and another rotation must replace it", p.when(t.ReissueOwed))
	}
	switch {
	case t.CutOffAt.IsZero() || t.ReissueOwed.IsZero() && !t.Endangered():
	case !t.CutOffAt.After(p.now):
		p.line("CUT OFF", "consumers have had no working secret since %s", p.when(t.CutOffAt))
	default:
		p.line("consumers", "have a secret that works until %s, unless its grace is extended", p.when(t.CutOffAt))
	}
}

// besideDoubt returns what an operator can do about a token in doubt, without what page.choices shows.
func besideDoubt(t status.Token) []status.ToDo {
	return slices.DeleteFunc(slices.Clone(t.ToDo), func(do status.ToDo) bool {
		return strings.HasPrefix(do.Command, "rotatord resolve "+t.Name) && !strings.HasSuffix(do.Command, "--drop")
	})
}

func revoking(now bool) string {
	if now {
		return ", and the previous secret is revoked"
	}
	return ""
}

// ifSet returns a format with text in it, or nothing if text is empty.
func ifSet(format, text string) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf(format, text)
}
