package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// enroll makes tokens known to the ledger and queues them.
func (e *engine) enroll(ctx context.Context, tokens []rotation.Token) error {
	return e.rotator.EnrollEach(ctx, tokens, func(rotation.Record) {}, func(i int, record rotation.Record) { e.add(tokens[i], record) })
}

// openTestState opens an empty state directory until the end of the test.
func openTestState(t *testing.T) *state {
	t.Helper()
	s, err := openState(config.State{Dir: t.TempDir() + "/state"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return s
}

// TestPlanKeepsAListing: a listing comes between the end of an attempt and the next plan. The older record of
// the attempt must not replace what the listing recorded.
func TestPlanKeepsAListing(t *testing.T) {
	j := openTestState(t)
	schedule := parsed("@every 1h", "UTC")
	token := rotation.Token{Name: "ci", ID: "5eed0000-0000-4000-8000-000000000001", Timetable: scheduler.Timetable{Schedule: schedule}}
	e := newEngine(time.Now, slog.New(slog.DiscardHandler), nil)
	e.rotator = rotation.New(rotation.Options{Ledger: j.ledger, Pending: j.pending, Started: time.Now()})
	if err := e.enroll(t.Context(), []rotation.Token{token}); err != nil {
		t.Fatal(err)
	}
	older, _ := e.view("ci")
	e.recordListing(t.Context(), "ci", rotation.TokenFacts{ID: token.ID, Enabled: true}, time.Now())
	e.plan("ci", older.record, 0)
	again, _ := e.view("ci")
	if record := again.record; !record.Facts.Enabled || record.Revision != older.record.Revision+1 {
		t.Errorf("the view has revision %d and facts %+v", record.Revision, record.Facts)
	}
	if !again.due.At.Equal(older.due.At) || e.queue.Len() != 1 {
		t.Errorf("due at %s, want %s; %d entries in the queue, want 1", again.due.At, older.due.At, e.queue.Len())
	}
}

// TestRenamedInTheMiddle: a token with an unfinished rotation must not go on under another name, where
// finishing it would overwrite what comes after it.
func TestRenamedInTheMiddle(t *testing.T) {
	const id = "5eed0000-0000-4000-8000-000000000001"
	j := openTestState(t)
	record, err := j.ledger.Save(t.Context(), rotation.Record{Token: "before", TokenID: id, Step: rotation.StepSealed, Work: &rotation.Work{RotationID: "R", TokenID: id}})
	if err != nil {
		t.Fatal(err)
	}
	with := func(name, id string) error {
		return (&App{state: j, log: slog.New(slog.DiscardHandler)}).checkUnfinished(&config.Config{Tokens: []config.Token{{Name: name, ID: id}}})
	}
	if err := with("after", id); err == nil || !strings.Contains(err.Error(), "name it before again") {
		t.Errorf("renamed: %v", err)
	}
	if err := errors.Join(with("before", id), with("another", "5eed0000-0000-4000-8000-000000000002")); err != nil {
		t.Errorf("not renamed: %v", err)
	}
	record.Step, record.Work = rotation.StepIdle, nil
	if _, err := j.ledger.Save(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if err := with("after", id); err != nil {
		t.Errorf("renamed after it was done: %v", err)
	}
}

// TestUnrecordedFailuresAreSeen: if the ledger is what fails, it cannot count failures.
func TestUnrecordedFailuresAreSeen(t *testing.T) {
	e := newEngine(time.Now, slog.New(slog.DiscardHandler), nil)
	e.rotator = rotation.New(rotation.Options{})
	schedule := parsed("@daily", "UTC")
	token := config.Token{Name: "ci", Schedule: schedule}
	a := &App{engine: e, config: &config.Config{Tokens: []config.Token{token}}}
	e.add(rotation.Token{Name: "ci", Timetable: token.Timetable()}, rotation.Record{})
	for range 3 {
		e.countUnrecorded("ci", fmt.Errorf("%w: no space", rotation.ErrLedger))
	}
	shown := a.token("ci")
	if shown.Failures != 3 || !strings.Contains(shown.LastError, "no space") || shown.LastCause != "ledger" || !slices.Equal(shown.Troubles, []string{"failing"}) {
		t.Errorf("shown: %d failures, %q, %q, %q", shown.Failures, shown.LastError, shown.LastCause, shown.Troubles)
	}
	e.countUnrecorded("ci", errors.New("counted by the ledger"))
	if shown := a.token("ci"); shown.Failures != 0 || shown.LastError != "" || shown.Troubles != nil {
		t.Errorf("shown: %d failures, %q, %q", shown.Failures, shown.LastError, shown.Troubles)
	}
}

// TestRenamedDuringCreation: the same for a service token that is being created, which the configuration
// knows by its name.
func TestRenamedDuringCreation(t *testing.T) {
	const id = "5eed0000-0000-4000-8000-000000000001"
	made := config.Token{Name: "after", Account: "prod", Create: &config.Create{Name: "ci", Adopt: true}}
	other := made
	other.Account = "other"
	for _, test := range []struct {
		record  rotation.Record
		token   config.Token
		refused bool
	}{
		{rotation.Record{Origin: "made as ci", Account: "prod"}, made, true},
		{rotation.Record{Origin: "made as ci", Account: "prod"}, other, false},
		{rotation.Record{Origin: id, TokenID: "another", Account: "prod"}, config.Token{Name: "after", ID: id, Replace: true}, true},
	} {
		j := openTestState(t)
		test.record.Token, test.record.Step, test.record.Work = "before", rotation.StepSealed, &rotation.Work{RotationID: "R", CreateName: "ci"}
		if _, err := j.ledger.Save(t.Context(), test.record); err != nil {
			t.Fatal(err)
		}
		err := (&App{state: j, log: slog.New(slog.DiscardHandler)}).checkUnfinished(&config.Config{Tokens: []config.Token{test.token}})
		if refused := err != nil && strings.Contains(err.Error(), "name it before again"); refused != test.refused {
			t.Errorf("%+v: %v", test.token, err)
		}
	}
}

// TestListedBeforeItWasCreated: a listing that began before the service token was created says nothing about
// it, and what it says about the service token before does not apply to this one.
func TestListedBeforeItWasCreated(t *testing.T) {
	j := openTestState(t)
	schedule := parsed("@every 1h", "UTC")
	begun := time.Now()
	token := rotation.Token{Name: "ci", Account: "prod", ID: "a", Replace: true, Issuer: goneIssuer{}, Timetable: scheduler.Timetable{Schedule: schedule}}
	entry := config.Token{Name: "ci", Account: "prod", ID: "a", Replace: true, Schedule: schedule}
	var log strings.Builder
	a := &App{state: j, log: slog.New(slog.NewTextHandler(&log, nil)), options: Options{Now: time.Now}, config: &config.Config{Tokens: []config.Token{entry}}}
	a.events = event.NewStream(time.Now, nil, event.NewLog(a.log))
	a.engine = newEngine(time.Now, a.log, a.events)
	a.engine.rotator = rotation.New(rotation.Options{Ledger: j.ledger, Pending: j.pending, Started: begun})
	if err := a.engine.enroll(t.Context(), []rotation.Token{token}); err != nil {
		t.Fatal(err)
	}
	gone := func() bool { s, _ := a.engine.view("ci"); return s.gone }
	a.recordToken(t.Context(), entry, nil, listing{whole: true, began: begun}, nil)
	if !gone() {
		t.Fatal("one that is gone is not noticed")
	}
	seen, _ := a.engine.view("ci")
	record := seen.record
	record.TokenID, record.Last = "b", &rotation.Done{At: begun.Add(time.Second)}
	record, err := j.ledger.Save(t.Context(), record)
	if err != nil {
		t.Fatal(err)
	}
	a.engine.show(record)
	if gone() {
		t.Error("the one in its place is shown as gone")
	}
	log.Reset()
	a.recordToken(t.Context(), entry, nil, listing{whole: true, began: begun}, nil)
	if gone() || log.Len() > 0 {
		t.Error("a listing from before it was made has it gone:", log.String())
	}
	a.recordToken(t.Context(), entry, nil, listing{whole: true, began: begun.Add(time.Minute)}, nil)
	if !gone() {
		t.Error("that it is gone later is not noticed")
	}
}

// goneIssuer has no service tokens.
type goneIssuer struct{ rotation.Issuer }

func (goneIssuer) Inspect(context.Context, string) (rotation.TokenFacts, error) {
	return rotation.TokenFacts{}, rotation.ErrGone
}

// TestWhatIsDueAtOnceIsNotPutOff: a sealed secret or an owed rotation without a back-off is worked on at once,
// also if the service token is to be renewed in the far future.
func TestWhatIsDueAtOnceIsNotPutOff(t *testing.T) {
	const id = "5eed0000-0000-4000-8000-000000000001"
	now := time.Now().UTC()
	for name, change := range map[string]func(*rotation.Record){
		"sealed": func(r *rotation.Record) {
			r.Step = rotation.StepSealed
			r.Work = &rotation.Work{RotationID: "R", TokenID: id, IntentAt: now, Grace: rotation.Grace(time.Hour), GraceEndsAt: now.Add(time.Hour)}
		},
		"owed": func(r *rotation.Record) { r.NextTrigger = rotation.TriggerManual },
	} {
		t.Run(name, func(t *testing.T) {
			state := openTestState(t)
			record := rotation.Record{
				Token: "ci", TokenID: id, Account: "a", Anchor: now,
				Facts: rotation.TokenFacts{ID: id, ClientID: "c", Enabled: true, UpdatedAt: now.Add(-time.Hour), ExpiresAt: now.Add(300 * 24 * time.Hour)},
			}
			change(&record)
			if _, err := state.ledger.Save(t.Context(), record); err != nil {
				t.Fatal(err)
			}
			e := newEngine(time.Now, slog.New(slog.DiscardHandler), nil)
			e.rotator = rotation.New(rotation.Options{Ledger: state.ledger, Pending: state.pending, Started: time.Now()})
			if err := e.enroll(t.Context(), []rotation.Token{{
				Name: "ci", ID: id, Account: "a", Grace: time.Hour, Timetable: scheduler.Timetable{Schedule: parsed("@every 720h", "UTC")},
				RenewBefore: 30 * 24 * time.Hour,
			}}); err != nil {
				t.Fatal(err)
			}
			fired := make(chan struct{})
			go e.queue.Run(t.Context(), func(string, time.Time) { close(fired) }, func() {})
			select {
			case <-fired:
			case <-time.After(30 * time.Second):
				s, _ := e.view("ci")
				t.Errorf("it is due at %s, and waits for the renewal at %s", s.due.At, s.chore)
			}
		})
	}
}
