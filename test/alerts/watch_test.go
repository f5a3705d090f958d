package alerts

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// seen is an alert that fired.
type seen struct {
	alert
	fired    time.Duration // after the failure was provoked
	resolved time.Duration // 0: not yet
}

// watch is what was seen of a scenario.
type watch struct {
	mu       sync.Mutex
	provoked time.Time
	alerts   map[string]*seen
	first    *seen
	status   string // at the first alert
	ready    string
	ended    bool          // its then was done
	thenAt   time.Duration // when
}

// progress says on standard output what happens, at once.
func progress(format string, args ...any) {
	fmt.Printf("%s  %s\n", time.Now().UTC().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// observe takes what Prometheus says of a site.
func (s *site) observe(t *testing.T, now time.Time, alerts []alert) {
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	since := now.Sub(w.provoked)
	firing := map[string]bool{}
	for _, a := range alerts {
		if !a.firing() {
			continue
		}
		firing[a.key()] = true
		if w.alerts[a.key()] != nil {
			continue
		}
		found := &seen{alert: a, fired: since}
		w.alerts[a.key()] = found
		progress("%s: %s (%s) fires after %s: %s", s.name, a.name(), a.severity(), round(since), a.Annotations["summary"])
		if w.first == nil {
			w.first = found
			s.look()
		}
		if a.name() == s.thenAt && !w.ended && s.then != nil {
			s.then(t, s)
			w.ended, w.thenAt = true, since
			progress("%s: done after %s: what follows %s", s.name, round(since), s.thenAt)
		}
	}
	for key, a := range w.alerts {
		if !firing[key] && a.resolved == 0 {
			a.resolved = since
			progress("%s: %s resolves after %s", s.name, a.name(), round(since))
		}
	}
}

// look keeps what an operator sees at this moment.
func (s *site) look() {
	s.watch.status = firstLines(s.rotatord("status"), 14)
	code, body := get("http://" + s.listen + "/readyz?verbose")
	s.watch.ready = fmt.Sprintf("%d\n%s", code, firstLines(body, 20))
}

// finished reports whether nothing more can happen: the first alert, and what follows
// it, is as long ago as linger.
func (s *site) finished(now time.Time, linger time.Duration) bool {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	if s.watch.first == nil || s.then != nil && !s.watch.ended {
		return false
	}
	return now.Sub(s.watch.provoked) >= max(s.watch.first.fired, s.watch.thenAt)+linger
}

func firstLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[:min(n, len(lines))], "\n")
}

func round(d time.Duration) time.Duration { return d.Round(time.Second) }

// inOrder returns what fired, the earliest first.
func (w *watch) inOrder() []*seen {
	var all []*seen
	for _, a := range w.alerts {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *seen) int {
		return cmp.Or(cmp.Compare(a.fired, b.fired), cmp.Compare(a.key(), b.key()))
	})
	return all
}

// firstOf is the first alert of a severity, or nil.
func (w *watch) firstOf(severity string) *seen {
	for _, a := range w.inOrder() {
		if a.severity() == severity {
			return a
		}
	}
	return nil
}

// report is the table, and what was seen of each scenario, in Markdown.
func report(sites []*site, now time.Time) string {
	var b strings.Builder
	b.WriteString("| failure | first alert after | alert | severity | first critical after | others | resolved |\n")
	b.WriteString("|---|---|---|---|---|---|---|\n")
	for _, s := range sites {
		s.watch.row(&b, s, now)
	}
	for _, s := range sites {
		s.watch.mu.Lock()
		fmt.Fprintf(&b, "\n## %s: %s\n\n", s.name, s.what)
		for _, a := range s.watch.inOrder() {
			fmt.Fprintf(&b, "- %s after %s (%s): %s\n  %s\n", a.name(), round(a.fired), a.severity(), a.Annotations["summary"], a.key())
		}
		if s.watch.ended {
			fmt.Fprintf(&b, "- what follows %s was done after %s\n", s.thenAt, round(s.watch.thenAt))
		}
		fmt.Fprintf(&b, "\n```\n$ rotatord status\n%s\n$ curl /readyz?verbose\n%s\n```\n", s.watch.status, s.watch.ready)
		s.watch.mu.Unlock()
	}
	return b.String()
}

func (w *watch) row(b *strings.Builder, s *site, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first == nil {
		fmt.Fprintf(b, "| %s | none in %s | | | | | |\n", s.what, round(now.Sub(w.provoked)))
		return
	}
	critical := "none"
	if c := w.firstOf("critical"); c != nil {
		critical = fmt.Sprintf("%s (%s)", round(c.fired), c.name())
	}
	var others, resolved []string
	for _, a := range w.inOrder() {
		if a != w.first {
			others = append(others, fmt.Sprintf("%s %s", a.name(), round(a.fired)))
		}
		if a.resolved > 0 {
			resolved = append(resolved, fmt.Sprintf("%s %s", a.name(), round(a.resolved)))
		}
	}
	fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s |\n", s.what, round(w.first.fired), w.first.name(), w.first.severity(), critical,
		strings.Join(others, ", "), strings.Join(resolved, ", "))
}
