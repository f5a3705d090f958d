package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
)

// This file has the world of one life: a wall clock that is set, an issuer, a sink, and a ledger in memory,
// with troubles that end. What must be true is in life_oracle_test.go.

const livingID = "5eed0000-0000-4000-8000-000000000001"

// living is a life while it runs, in the daemon's engine. Its methods are the ports of the rotator.
type living struct {
	life   life
	token  rotation.Token
	offset atomic.Int64  // of the wall clock from the bubble's clock, which is the issuer's
	right  time.Duration // its value when the clock is right

	engine *engine
	stop   func() // ends the process

	record rotation.Record

	mu     sync.Mutex // where there are many tokens
	sealed map[string]rotation.Issued
	stored rotation.Credential
	pauses map[string]rotation.Pause
	issued int
	copied rotation.Credential // in a second sink, which no other writer knows
	mended bool                // the first sink was written since another writer changed it
	moved  time.Time           // updated_at

	troubleMu    sync.Mutex
	trouble      string // what is wrong, until troubleUntil on the bubble's clock; both under troubleMu
	troubleUntil time.Time
	looks        int // since lookedAt
	lookedAt     time.Time

	oracle
}

func newLiving(l life) *living {
	w := &living{life: l, sealed: make(map[string]rotation.Issued), pauses: make(map[string]rotation.Pause)}
	w.right = time.Until(l.start())
	w.set(w.right)
	w.token = rotation.Token{
		Name: "ci", Account: "prod", ID: livingID, Grace: l.Grace, Timetable: l.timetable(), Issuer: w, Sinks: []rotation.Sink{livingSink{w}, livingCopy{w}},
		Restore: true,
	}
	return w
}

// wall returns the time on the wall clock.
func (w *living) wall() time.Time {
	return time.Now().Round(0).Add(time.Duration(w.offset.Load())).UTC()
}

// set sets the wall clock.
func (w *living) set(offset time.Duration) { w.offset.Store(int64(offset)) }

// wrongBy returns how far the wall clock is from the right time.
func (w *living) wrongBy() time.Duration { return time.Duration(w.offset.Load()) - w.right }

// pass lets time pass, and lets the daemon do everything that is due until then.
func (w *living) pass(d time.Duration) {
	w.offset.Add(0) // shows the race detector the order that a bubble guarantees anyway
	time.Sleep(d)
	synctest.Wait()
}

// up starts a process with the state that the one before left.
func (w *living) up() {
	if trouble, _ := w.troubled(); trouble == "ledger" || trouble == "disk" { // or it does not start
		w.setTrouble(trouble, time.Time{})
	}
	log := slog.New(slog.DiscardHandler)
	w.engine = newEngine(w.wall, log, nil)
	w.engine.rotator = rotation.New(rotation.Options{
		Ledger: w, Pending: w, Pauses: w, Events: w, Saved: w.engine.show, Now: w.wall, Started: w.wall(), Owner: "life",
	})
	must(w.engine.rotator.LoadPauses(context.Background()))
	must(w.engine.enroll(context.Background(), []rotation.Token{w.token}))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); w.engine.run(ctx) }()
	w.stop = func() { cancel(); <-ran; w.engine.workers.Wait() }
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// is reports whether a trouble is on.
func (w *living) is(trouble string) bool {
	what, until := w.troubled()
	return what == trouble && time.Now().Before(until)
}

// troubled returns the last trouble, and when it ends.
func (w *living) troubled() (what string, until time.Time) {
	w.troubleMu.Lock()
	defer w.troubleMu.Unlock()
	return w.trouble, w.troubleUntil
}

func (w *living) setTrouble(what string, until time.Time) {
	w.troubleMu.Lock()
	defer w.troubleMu.Unlock()
	w.trouble, w.troubleUntil = what, until
}

func (w *living) Load(context.Context, string) (rotation.Record, error) {
	if now := time.Now(); !now.Equal(w.lookedAt) {
		w.lookedAt, w.looks = now, 0
	}
	if w.looks++; w.looks > 200 { // otherwise it would never end: no time passes
		w.wrong("the daemon looks at the token again and again, and does nothing")
	}
	if w.looks > 200 || w.is("ledger") {
		return rotation.Record{}, errors.New("input/output error")
	}
	return unshared(w.record), nil
}

// unshared returns a copy of a record that shares nothing that is changed in place.
func unshared(r rotation.Record) rotation.Record {
	if r.Work != nil {
		r.Work = new(*r.Work)
	}
	if r.Doubt != nil {
		r.Doubt = new(*r.Doubt)
	}
	if r.Last != nil {
		r.Last = new(*r.Last)
	}
	return r
}

func (w *living) Save(_ context.Context, r rotation.Record) (rotation.Record, error) {
	switch {
	case w.is("ledger"), w.is("disk"):
		return r, errors.New("input/output error")
	case w.record.Revision != r.Revision:
		return r, rotation.ErrConflict
	}
	r.Revision++
	before := w.record
	w.record = unshared(r)
	w.saved(before, w.record)
	return r, nil
}

func (w *living) SaveAll(ctx context.Context, all []rotation.Record) ([]rotation.Record, error) {
	saved := make([]rotation.Record, len(all))
	for i, r := range all {
		one, err := w.Save(ctx, r)
		if err != nil {
			return saved, err
		}
		saved[i] = one
	}
	return saved, nil
}

func (w *living) All(context.Context) ([]rotation.Record, error) {
	if w.record.Revision == 0 {
		return nil, nil
	}
	return []rotation.Record{unshared(w.record)}, nil
}

func (w *living) LoadPauses(context.Context) (map[string]rotation.Pause, error) { return w.pauses, nil }

func (w *living) SetPause(_ context.Context, token string, p *rotation.Pause) (map[string]rotation.Pause, error) {
	w.pauses = rotation.WithPause(w.pauses, token, p)
	return w.pauses, nil
}

func (w *living) Reserve(context.Context, rotation.PendingKey) error { return nil }

func (w *living) Seal(_ context.Context, key rotation.PendingKey, issued rotation.Issued) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sealed[key.RotationID] = issued
	return nil
}

func (w *living) Open(_ context.Context, id string) (rotation.Issued, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	issued, ok := w.sealed[id]
	return issued, ok, nil
}

func (w *living) Erase(_ context.Context, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.sealed, id)
	return nil
}

// maxApart is how far the wall clock may be from the issuer's for the issuer to work, if it checks.
const maxApart = 15 * time.Minute

func (w *living) skewed() bool { return w.wrongBy().Abs() > maxApart }

func (w *living) Ready(context.Context) error {
	if w.life.Guard && w.skewed() {
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "rotate", Err: rotation.ErrClock}
	}
	return nil
}

// livingSecret returns the n-th secret that the issuer has issued.
func livingSecret(n int) secret.Value { return secret.New(fmt.Sprintf("cfast_%048d", n)) }

func (w *living) facts() rotation.TokenFacts {
	return rotation.TokenFacts{ID: livingID, ClientID: "life.access", Enabled: true, UpdatedAt: w.moved}
}

func (w *living) Inspect(context.Context, string) (rotation.TokenFacts, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.facts(), nil
}

func (w *living) Rotate(_ context.Context, req rotation.RotateRequest) (rotation.Issued, error) {
	time.Sleep(w.life.Slow)
	for trouble, class := range map[string]rotation.Class{
		"refused": rotation.Refused, "not sent": rotation.NotCarriedOut, "throttled": rotation.Throttled,
	} {
		if w.is(trouble) {
			return rotation.Issued{}, &rotation.IssuerError{Class: class, Operation: "rotate", RetryAfter: 5 * time.Minute}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requested()
	w.issued++
	w.moved = time.Now().Add(w.right).UTC() // on the issuer's clock
	issued := rotation.Issued{Credential: rotation.Credential{ClientID: "life.access", ClientSecret: livingSecret(w.issued)}, Facts: w.facts()}
	if req.Grace > 0 {
		issued.GraceEndsAt = w.wall().Add(req.Grace)
	}
	return issued, nil
}

func (w *living) SetGrace(_ context.Context, _ string, grace time.Duration) (rotation.TokenFacts, time.Time, error) {
	return w.facts(), w.wall().Add(grace), nil
}

type livingSink struct{ *living }

func (s livingSink) Name() string { return "memory:sink" }

func (s livingSink) state() rotation.Stored {
	return rotation.Stored{Exists: !s.stored.ClientSecret.IsZero(), Version: 1, ClientID: s.stored.ClientID, Digest: s.stored.ClientSecret.Digest()}
}

func (s livingSink) Preflight(context.Context) (rotation.Stored, error) {
	time.Sleep(s.life.Slow)
	if s.is("sink") {
		return rotation.Stored{}, errors.New("vault is sealed")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state(), nil
}

func (s livingSink) Store(_ context.Context, d rotation.Delivery) (rotation.Stored, error) {
	if s.is("sink") || s.is("store") {
		return rotation.Stored{}, errors.New("vault is sealed")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored, s.mended = d.Credential, true
	if !d.ClientSecret.Equal(livingSecret(s.issued)) {
		s.wrong("a secret was written that is not the current one")
	}
	return s.state(), nil
}

// livingCopy is a second sink, which no other writer knows.
type livingCopy struct{ *living }

func (livingCopy) Name() string { return "memory:copy" }

func (s livingCopy) state() rotation.Stored {
	return rotation.Stored{Exists: !s.copied.ClientSecret.IsZero(), Version: 1, ClientID: s.copied.ClientID, Digest: s.copied.ClientSecret.Digest()}
}

func (s livingCopy) Preflight(context.Context) (rotation.Stored, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state(), nil
}

func (s livingCopy) Store(_ context.Context, d rotation.Delivery) (rotation.Stored, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copied = d.Credential
	return s.state(), nil
}

// ReadBack implements [rotation.SinkReader].
func (s livingCopy) ReadBack(context.Context) (rotation.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copied, nil
}

// timetable returns the configured timetable.
func (l life) timetable() scheduler.Timetable {
	t := scheduler.Timetable{Schedule: parsed(l.Expression, l.Zone), Jitter: l.Jitter, Window: l.Window, SkipMissed: l.Skip, Key: "ci"}
	for i, f := range l.Freezes {
		freeze := scheduler.Freeze{Name: fmt.Sprint("freeze ", i), Skip: f.Skip}
		if f.Expression == "" {
			freeze.From = l.start().Add(f.From)
			freeze.To = freeze.From.Add(f.Length)
		} else {
			freeze.Schedule, freeze.Duration = parsed(f.Expression, f.Zone), f.Length
		}
		t.Freezes = append(t.Freezes, freeze)
	}
	return t
}

func parsed(expression, zone string) *scheduler.Schedule {
	location, err := time.LoadLocation(zone)
	must(err)
	s, err := scheduler.Parse(expression, location)
	must(err)
	return s
}

func (l life) start() time.Time {
	at, err := time.Parse(time.RFC3339, l.Start)
	must(err)
	return at
}
