package app

import (
	"log/slog"
	"testing"
	"time"

	"rotatord/internal/journal"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// TestPlanKeepsWhatWasLearned has an inventory come between the end of an attempt and the
// planning of the next: the attempt's older record must not take its place.
func TestPlanKeepsWhatWasLearned(t *testing.T) {
	j, err := journal.Open(journal.Options{Dir: t.TempDir() + "/state"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	schedule, err := scheduler.Parse("@every 1h", nil)
	if err != nil {
		t.Fatal(err)
	}
	token := rotation.Token{Name: "ci", ID: "5eed0000-0000-4000-8000-000000000001", Timetable: scheduler.Timetable{Schedule: schedule}}
	e := newEngine([]rotation.Token{token}, slog.New(slog.DiscardHandler))
	e.rotator = rotation.New(rotation.Options{Ledger: j, Pending: j, Started: time.Now()})
	if err := e.enroll(t.Context()); err != nil {
		t.Fatal(err)
	}
	older, due := e.view("ci")
	if err := e.learn(t.Context(), "ci", rotation.TokenFacts{ID: token.ID, Enabled: true}); err != nil {
		t.Fatal(err)
	}
	e.plan("ci", older, 0)
	record, again := e.view("ci")
	if !record.Facts.Enabled || record.Revision != older.Revision+1 {
		t.Errorf("the view has revision %d and facts %+v", record.Revision, record.Facts)
	}
	if !again.At.Equal(due.At) || e.queue.Len() != 1 {
		t.Errorf("due at %s, want %s; %d entries in the queue, want 1", again.At, due.At, e.queue.Len())
	}
}
