package app

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
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

// TestRenamedInTheMiddle: a token whose rotation is unfinished must not go on under another
// name, where the unfinished one would overwrite what comes after it.
func TestRenamedInTheMiddle(t *testing.T) {
	const id = "5eed0000-0000-4000-8000-000000000001"
	j, err := journal.Open(journal.Options{Dir: t.TempDir() + "/state"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	record, err := j.Save(t.Context(), rotation.Record{Token: "before", TokenID: id, Step: rotation.StepSealed, Work: &rotation.Work{RotationID: "R", TokenID: id}})
	if err != nil {
		t.Fatal(err)
	}
	with := func(name, id string) error {
		log := slog.New(slog.DiscardHandler)
		return (&App{journal: j, log: log, engine: newEngine([]rotation.Token{{Name: name, ID: id}}, log)}).checkForgotten()
	}
	if err := with("after", id); err == nil || !strings.Contains(err.Error(), "name it before again") {
		t.Errorf("renamed: %v", err)
	}
	if err := errors.Join(with("before", id), with("another", "5eed0000-0000-4000-8000-000000000002")); err != nil {
		t.Errorf("not renamed: %v", err)
	}
	record.Step, record.Work = rotation.StepIdle, nil
	if _, err := j.Save(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if err := with("after", id); err != nil {
		t.Errorf("renamed after it was done: %v", err)
	}
}

// TestUnrecordedFailuresAreSeen: when the ledger is what fails, it cannot count.
func TestUnrecordedFailuresAreSeen(t *testing.T) {
	e := newEngine([]rotation.Token{{Name: "ci"}}, slog.New(slog.DiscardHandler))
	for range 3 {
		e.countUnrecorded("ci", fmt.Errorf("%w: no space", rotation.ErrLedger))
	}
	if record, _ := e.view("ci"); record.Failures != 3 {
		t.Errorf("%d failures are shown", record.Failures)
	}
	e.countUnrecorded("ci", errors.New("counted by the ledger"))
	if record, _ := e.view("ci"); record.Failures != 0 {
		t.Errorf("%d failures are shown", record.Failures)
	}
}
