package audit_test

import (
	"path/filepath"
	"testing"

	"rotatord/internal/audit"
	"rotatord/internal/event"
	"rotatord/internal/status"
)

// TestHistoryReadsNoMore: a query that bounds what is read finds only what is near the end, and says that there may be more.
func TestHistoryReadsNoMore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit", "audit.jsonl")
	r := open(t, audit.Options{File: path})
	s := r.Subscriber()
	tell := func(token string) {
		s.Handle(event.New(now, token, event.Actor{Cause: event.BySchedule}, event.RotationEnded{RotationID: "R", Trigger: "schedule", Result: event.ResultSuccess, Slot: now}))
	}
	tell("first")
	for range 3000 { // about a megabyte
		tell("other")
	}
	tell("last")
	if err := r.Sync(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		token   string
		maxRead int64
		found   int
		more    bool
	}{{"first", 0, 1, false}, {"first", 300 << 10, 0, true}, {"last", 300 << 10, 1, true}, {"nosuch", 0, 0, false}, {"nosuch", 1, 0, true}, {"first", 1 << 40, 1, false}} {
		h, err := audit.ReadHistory(t.Context(), path, status.HistoryQuery{Token: test.token, MaxRead: test.maxRead})
		if err != nil || len(h.Entries) != test.found || h.More != test.more {
			t.Errorf("%+v: %d lines, more %t: %v", test, len(h.Entries), h.More, err)
		}
	}
}
