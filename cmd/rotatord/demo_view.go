package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"rotatord/internal/app"
	"rotatord/internal/event"
	"rotatord/internal/printable"
)

// demoView shows the demo: on a terminal as a table that is updated, elsewhere as one line for each event.
type demoView struct {
	out      io.Writer
	terminal bool
	demo     *demo
	address  string
	daemon   *app.App
	consumer *demoConsumer
	began    time.Time

	mu        sync.Mutex
	rotations map[string]int
	recent    []string
}

// recentLines is how many events the terminal shows.
const recentLines = 8

func newDemoView(out io.Writer, plain bool, d *demo) *demoView {
	v := &demoView{out: out, demo: d, rotations: map[string]int{}, began: time.Now()}
	if terminal := printable.Unescaped(out); !plain && isTerminal(terminal) {
		v.terminal, v.out = true, terminal // the screen has our own escape sequences
	}
	return v
}

func (v *demoView) begin(address string, daemon *app.App, consumer *demoConsumer) {
	v.address, v.daemon, v.consumer = address, daemon, consumer
	if v.terminal {
		fmt.Fprint(v.out, "\x1b[?25l\x1b[2J") // hide the cursor, clear
		return
	}
	fmt.Fprint(v.out, v.header())
}

func (v *demoView) header() string {
	return fmt.Sprintf("rotatord demo: the real daemon, %d tokens, schedules of seconds\n"+
		"  Cloudflare   a simulator\n"+
		"  Vault        %s\n"+
		"  status page  %s/\n"+
		"  metrics      %s/metrics\n"+
		"  daemon log   %s/rotatord.log\n\n", len(v.demo.tokens), v.demo.vaultName, v.address, v.address, v.demo.dir)
}

// run shows what happens until ctx ends. Then it closes the returned channel.
func (v *demoView) run(ctx context.Context) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(250 * time.Millisecond)
		defer ticker.Stop()
		for {
			if v.terminal {
				v.draw()
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}()
	return ended
}

// subscriber returns what takes the lines from the stream of events.
func (v *demoView) subscriber() *event.Subscriber {
	return event.NewSubscriber("demo",
		event.On(func(e event.Event, d event.RotationEnded) {
			if e.Kind != event.Rotated {
				v.show(e, e.Line())
				return
			}
			v.mu.Lock()
			v.rotations[e.Token]++
			v.mu.Unlock()
			v.show(e, fmt.Sprintf("%s in %s, new secret %s", e.Message(), d.Duration.Round(time.Millisecond), short(d.Digest)))
		}),
		event.On(func(e event.Event, _ event.Resolution) { v.show(e, e.Line()) }),
		// The ends of rotations are enough to see.
		event.Ignore(event.StepEnded, event.SinkWritten, event.SinkFailed, event.VersionDeletes, event.SealFailed, event.SecretAccepted, event.SecretRefused,
			event.SecretUntried, event.OvertakenEnded, event.DoubtJudged, event.DoubtUnchanged, event.GraceExtended, event.GraceExtensionFailed, event.SlotsMissed,
			event.ClockHealed, event.Stuck, event.StuckAsBefore, event.Adopted, event.Renewed, event.RenewalFailed, event.ReplacedDeleted, event.ReplacedNotDeleted, event.RotatedOutside,
			event.ChangedOutside, event.TokenGone, event.TokenDisabled, event.TokenUnreadable, event.TokenNotFound),
		event.Ignore(event.Watch...), event.Ignore(event.Hooks...), event.Ignore(event.Record...), event.Ignore(event.Replicas...), event.Ignore(event.Commands...), event.Ignore(event.DaemonLife...), event.Ignore(event.Surroundings...))
}

// show adds a line about an event.
func (v *demoView) show(e event.Event, what string) {
	line := fmt.Sprintf("%s  %-15s %s", e.At.Local().Format("15:04:05"), e.Token, what)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.recent = append(v.recent, line)
	v.recent = v.recent[max(len(v.recent)-recentLines, 0):]
	if !v.terminal {
		fmt.Fprintln(v.out, line)
	}
}

// draw writes the whole screen over the previous one.
func (v *demoView) draw() {
	var screen strings.Builder
	screen.WriteString(v.header())
	v.table(&screen)
	screen.WriteString("\n")
	v.mu.Lock()
	for _, line := range v.recent {
		screen.WriteString(line + "\n")
	}
	v.mu.Unlock()
	screen.WriteString("\nCtrl-C to stop\n")
	// Each line is cleared to its end, because the previous one may have been longer.
	fmt.Fprint(v.out, "\x1b[H"+strings.ReplaceAll(printable.Escaped(screen.String()), "\n", "\x1b[K\n")+"\x1b[J")
}

func (v *demoView) table(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "TOKEN\tSCHEDULE\tROTATIONS\tNEXT\tSECRET IN VAULT\tTHE APPLICATION SAYS")
	for _, t := range v.daemon.Tokens() {
		v.mu.Lock()
		n := v.rotations[t.Name]
		v.mu.Unlock()
		next := "now"
		if left := time.Until(t.Next); left > 0 {
			next = fmt.Sprintf("in %.0f s", left.Seconds())
		}
		seen := v.consumer.view(t.Name)
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\n", t.Name, t.Schedule, n, next, short(string(seen.Digest)), seen.verdict())
	}
	_ = table.Flush() // a strings.Builder does not fail
}

// end prints the summary.
func (v *demoView) end() {
	if v.terminal {
		fmt.Fprint(v.out, "\x1b[H\x1b[J\x1b[?25h") // clear, show the cursor
	}
	var total, accepted, refused int
	for _, t := range v.demo.tokens {
		total += v.rotations[t.Name]
		seen := v.consumer.view(t.Name)
		accepted, refused = accepted+seen.Accepted, refused+seen.Refused
	}
	requests := 0
	for _, n := range v.demo.simulator.Stats().Requests["rotate"] {
		requests += n
	}
	var summary strings.Builder
	summary.WriteString("\n")
	v.table(&summary)
	fmt.Fprintf(&summary, "\n%d rotations in %s with %d rotate requests to Cloudflare.\n"+
		"The consumers called the application %d times: %d accepted, %d refused.\n",
		total, time.Since(v.began).Round(time.Second), requests, accepted+refused, accepted, refused)
	fmt.Fprint(v.out, printable.Escaped(summary.String()))
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// short returns the beginning of a digest, enough to see that it changes.
func short(digest string) string {
	if len(digest) < 15 {
		return "–"
	}
	return digest[:15] + "…"
}
