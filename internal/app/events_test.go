package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"rotatord/internal/audit"
	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/notify"
)

// TestSubscribersTakeEachKind: what a subscriber does not handle it ignores by name, so that a new kind is thought about.
func TestSubscribersTakeEachKind(t *testing.T) {
	a := &App{now: time.Now, log: slog.New(slog.DiscardHandler), metrics: httpapi.NewMetrics(httpapi.Build{}), outages: newOutages(time.Now, nil), notifier: notify.New(notify.Options{})}
	var err error
	if a.record, err = audit.Open(audit.Options{File: filepath.Join(t.TempDir(), "audit", "audit.jsonl")}); err != nil {
		t.Fatal(err)
	}
	defer a.record.Close()
	all := a.newStream().Subscribers()
	if len(all) != 6 {
		t.Errorf("%d subscribers", len(all))
	}
	for _, s := range all {
		if missing := s.Missing(); len(missing) > 0 {
			t.Errorf("%s neither handles nor ignores %v", s.Name(), missing)
		}
	}
}

// TestReasonsHaveWords holds the table of words against the reason codes of the core.
func TestReasonsHaveWords(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "rotation", "doubt.go"))
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, m := range regexp.MustCompile(`\tReason\w+ += "(\w+)"`).FindAllSubmatch(source, -1) {
		codes = append(codes, string(m[1]))
	}
	slices.Sort(codes)
	if words := slices.Sorted(slices.Values(event.Reasons())); len(codes) < 20 || !slices.Equal(codes, words) {
		t.Errorf("codes %q\nwords %q", codes, words)
	}
}
