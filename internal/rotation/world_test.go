package rotation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
)

const (
	tokenID   = "f174e90a-fafe-4643-bbbc-4a0ed4fc8415"
	clientID  = "88bf3b6d86161464f6509f7219099e57.access.example.com"
	partnerID = "0aa5bb5c-1f5e-4f0b-9d6c-6f3a2f1f9b11"
)

// cfToken is a service token at Cloudflare.
type cfToken struct {
	id, clientID      string
	name, duration    string
	createdAt         time.Time
	expiresAt         time.Time
	current, previous string
	previousUntil     time.Time
	previousSince     time.Time
	previousGrace     time.Duration // the grace that was promised
	updatedAt         time.Time
}

func (c *cfToken) facts() rotation.TokenFacts {
	return rotation.TokenFacts{
		ID: c.id, ClientID: c.clientID, Name: c.name, Duration: c.duration, Enabled: true, UpdatedAt: c.updatedAt,
		CreatedAt: c.createdAt, ExpiresAt: c.expiresAt,
	}
}

// accepted reports whether Access accepts the secret s now.
func (c *cfToken) accepted(s string) bool {
	return s == c.current || s == c.previous && time.Now().Before(c.previousUntil)
}

// replace gives the service token a new secret. The secret before it still works for the grace.
func (c *cfToken) replace(by string, grace time.Duration) {
	now := time.Now()
	c.previous, c.previousUntil, c.previousSince, c.previousGrace = c.current, now.Add(grace), now, grace
	c.current = by
}

// tooEarly reports whether a rotation now would cut off the previous secret too early. It is too early if
// more than half of the grace is left of what the caller believes, and three graces are not over yet.
func (c *cfToken) tooEarly(believed time.Time) bool {
	// The daemon counts the three graces from the intent. A late request is carried out up to a minute after that.
	return time.Until(believed) > c.previousGrace/2 && time.Since(c.previousSince) < 3*c.previousGrace-time.Minute
}

// reporter is the part of testing.T that a world uses.
type reporter interface {
	Helper()
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Context() context.Context
}

// world is everything outside the rotator: the true state at Cloudflare, a ledger, a journal and a
// sink. All are in memory, and any call can be made to fail. It runs on the time of its bubble.
type world struct {
	t  reporter
	mu sync.Mutex

	// Cloudflare.
	cfToken
	partner         cfToken
	issued          []string
	rotates         int
	frozenUpdatedAt bool
	wrongClientID   bool
	secretOf        func(n int) string
	// mayCutOff is set if a rotation may cut off the old secret, because an operator asked for it.
	mayCutOff bool
	// misled is set if the daemon cannot know which secret works at Cloudflare.
	misled bool
	// created are the service tokens that were created, in order; gone are those that were deleted.
	created       []*cfToken
	gone          map[string]bool
	namedByPolicy map[string]bool // these cannot be deleted
	creates       int

	records map[string][]byte
	decoded map[string]rotation.Record // of records
	oracle  rotation.Oracle
	pending map[string]rotation.Issued
	// unreadable is set if no sealed answer can be decrypted.
	unreadable bool
	// openErr is the error of each read of the sealed answers; nil if they can be read.
	openErr  error
	reserved map[string]bool
	sink     rotation.Credential
	version  int

	paused map[string]rotation.Pause
	// offset is how far the daemon's wall clock is ahead of the true time.
	offset    time.Duration
	knownLate time.Duration // by how much the known end of an old secret is later than its real one

	calls []string
	// fault returns the fault of the n-th call, counted from 0. If it is nil, no call fails.
	fault func(n int, call string) fault

	// mayLeave are the requests that were recorded and have not left, and rooms counts the room that is kept, by token.
	mayLeave map[string]bool
	rooms    map[string]int

	events []event.Event
	steps  []rotation.Record // every record that was saved with a step

	hooks    *hooksModel // nil if the token has no hooks, or if a test checks them itself
	sabotage sabotage    // empty for none
}

// fault says how a call fails. The zero value is a call that succeeds.
type fault struct {
	before error // the call fails and does nothing
	after  error // the call is carried out and its answer is lost
	crash  bool  // the process dies, before or after as set above
	// late makes the call fail as before says, but still carries it out after this time: the
	// request was still under way when the daemon stopped waiting for its answer.
	late time.Duration
}

// once does something just before the first call of that name is carried out.
func (w *world) once(name string, do func()) {
	done := false
	w.fault = func(_ int, call string) fault {
		if !done && call == name {
			done = true
			do()
		}
		return fault{}
	}
}

// failOnce makes the first call of that name fail.
func (w *world) failOnce(name string, f fault) {
	failed := false
	w.fault = func(_ int, call string) fault {
		if failed || call != name {
			return fault{}
		}
		failed = true
		return f
	}
}

// failAll makes every call of that name fail from now on.
func (w *world) failAll(call string, f fault) {
	w.fault = func(_ int, now string) fault {
		if now == call {
			return f
		}
		return fault{}
	}
}

type crashed struct{}

func newWorld(t reporter) *world {
	w := &world{
		t: t, cfToken: cfToken{id: tokenID, clientID: clientID, updatedAt: time.Now().Add(-time.Hour).UTC()},
		records: map[string][]byte{}, decoded: map[string]rotation.Record{}, pending: map[string]rotation.Issued{}, reserved: map[string]bool{},
		secretOf: func(n int) string { return fmt.Sprintf("cfast_%048d", n) },
	}
	w.partner = cfToken{id: partnerID, clientID: "partner.access", updatedAt: w.updatedAt, current: w.secretOf(1_000_000)}
	w.current = w.secretOf(0)
	w.issued = []string{w.current}
	w.sink = rotation.Credential{ClientID: clientID, ClientSecret: secret.New(w.current)}
	w.version = 1
	return w
}

// do counts one call from the rotator to the world, and carries it out unless a fault prevents it.
func (w *world) do(call string, carryOut func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var f fault
	if w.fault != nil {
		f = w.fault(len(w.calls), call)
	}
	w.calls = append(w.calls, call)
	if f.late > 0 {
		time.AfterFunc(f.late, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			_ = carryOut()
		})
	}
	if f.before != nil {
		if f.crash {
			panic(crashed{})
		}
		return f.before
	}
	if err := carryOut(); err != nil {
		return err
	}
	if f.after != nil && f.crash {
		panic(crashed{})
	}
	return f.after
}

func (w *world) Load(_ context.Context, token string) (rotation.Record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.decoded[token]
	if r.Work != nil {
		r.Work = new(*r.Work)
	}
	if r.Doubt != nil {
		r.Doubt = new(*r.Doubt)
	}
	return r, nil
}

func (w *world) Save(_ context.Context, r rotation.Record) (rotation.Record, error) {
	w.oracle.Unsure(r) // the call may fail, or crash
	err := w.do("save "+string(r.Step), func() error {
		if w.decoded[r.Token].Revision != r.Revision {
			return rotation.ErrConflict
		}
		r.Revision++
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		var decoded rotation.Record // later loads return what was written
		if err := json.Unmarshal(b, &decoded); err != nil {
			return err
		}
		before := w.decoded[r.Token]
		if w.sabotage == forgotten && decoded.Last != nil && (before.Last == nil || before.Last.RotationID != decoded.Last.RotationID) {
			decoded.After = before.After
		}
		w.hooks.saved(before, decoded)
		w.records[r.Token], w.decoded[r.Token] = b, decoded
		return nil
	})
	return r, err
}

// SaveAll saves the records one by one. The real journal does it in few transactions.
func (w *world) SaveAll(ctx context.Context, all []rotation.Record) ([]rotation.Record, error) {
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

func (w *world) All(ctx context.Context) ([]rotation.Record, error) {
	var all []rotation.Record
	for _, name := range slices.Sorted(maps.Keys(w.records)) {
		r, err := w.Load(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// OracleTrusted implements [rotation.OracleLedger].
func (w *world) OracleTrusted(ctx context.Context, account string) (bool, error) {
	return w.oracle.Trusted(ctx, account, w)
}

func (w *world) LoadPauses(context.Context) (map[string]rotation.Pause, error) {
	return maps.Clone(w.paused), nil
}

func (w *world) SetPause(_ context.Context, token string, p *rotation.Pause) (map[string]rotation.Pause, error) {
	err := w.do("save pauses", func() error { w.paused = rotation.WithPause(w.paused, token, p); return nil })
	return maps.Clone(w.paused), err
}

func (w *world) Reserve(_ context.Context, key rotation.PendingKey) error {
	return w.do("reserve", func() error { w.reserved[key.RotationID] = true; return nil })
}

func (w *world) Seal(_ context.Context, key rotation.PendingKey, issued rotation.Issued) error {
	return w.do("seal", func() error { w.pending[key.RotationID] = issued; return nil })
}

func (w *world) Open(_ context.Context, id string) (rotation.Issued, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	issued, ok := w.pending[id]
	if w.openErr != nil {
		return rotation.Issued{}, false, w.openErr
	}
	if ok && w.unreadable {
		return rotation.Issued{}, false, rotation.ErrUnreadable
	}
	return issued, ok, nil
}

func (w *world) Erase(_ context.Context, id string) error {
	return w.do("erase", func() error { delete(w.pending, id); delete(w.reserved, id); return nil })
}

func (w *world) Ready(context.Context) error { return w.do("ready", func() error { return nil }) }

// tokenByID returns the service token with that ID.
func (w *world) tokenByID(id string) *cfToken {
	if id == partnerID {
		return &w.partner
	}
	for _, c := range w.created {
		if c.id == id {
			return c
		}
	}
	return &w.cfToken
}

func (w *world) Inspect(_ context.Context, id string) (facts rotation.TokenFacts, err error) {
	err = w.do("inspect", func() error {
		if w.gone[id] {
			return notThere("get")
		}
		facts = w.tokenByID(id).facts()
		return nil
	})
	return facts, err
}

func (w *world) Rotate(_ context.Context, req rotation.RotateRequest) (issued rotation.Issued, err error) {
	w.leaves("rotate", req.TokenID)
	err = w.do("rotate", func() error {
		if w.gone[req.TokenID] {
			return notThere("rotate")
		}
		w.rotates++
		c, used := w.tokenByID(req.TokenID), w.sink.ClientSecret.Reveal()
		if used == c.previous && c.tooEarly(c.previousUntil) && !w.mayCutOff {
			w.t.Error("the daemon rotated again while the sink's secret, which is the previous one, still worked")
		}
		c.replace(w.secretOf(len(w.issued)), req.Grace)
		w.issued = append(w.issued, c.current)
		if !w.frozenUpdatedAt {
			c.updatedAt = time.Now().UTC()
		}
		issued = rotation.Issued{
			Credential: rotation.Credential{ClientID: c.clientID, ClientSecret: secret.New(c.current)},
			Facts:      c.facts(),
		}
		if req.Grace > 0 {
			issued.GraceEndsAt = c.previousUntil.Add(w.offset + w.knownLate)
		}
		if w.wrongClientID {
			issued.ClientID = "another"
		}
		return nil
	})
	if err != nil {
		return rotation.Issued{}, err
	}
	return issued, nil
}

// notThere returns Cloudflare's answer about a service token that was deleted.
func notThere(operation string) error {
	return &rotation.IssuerError{Class: rotation.Refused, Operation: operation, Status: 404, Err: rotation.ErrGone}
}

func (w *world) SetGrace(_ context.Context, id string, grace time.Duration) (facts rotation.TokenFacts, until time.Time, err error) {
	w.leavesSetGrace(id, grace)
	err = w.do("extend", func() error {
		if w.gone[id] {
			return notThere("update")
		}
		c := w.tokenByID(id)
		c.updatedAt = time.Now().UTC()
		if time.Now().Before(c.previousUntil) { // a secret whose grace is over cannot be extended
			c.previousUntil = time.Now().Add(grace)
		}
		facts, until = c.facts(), time.Now().Add(grace+w.knownLate)
		return nil
	})
	return facts, until, err
}

type memorySink struct{ *world }

func (s memorySink) Name() string { return "memory:sink" }

func (s memorySink) stored() rotation.Stored {
	return rotation.Stored{Exists: true, Version: s.version, ClientID: s.sink.ClientID, Digest: s.sink.ClientSecret.Digest()}
}

func (s memorySink) Preflight(context.Context) (st rotation.Stored, err error) {
	err = s.do("sink preflight", func() error { st = s.stored(); return nil })
	return st, err
}

func (s memorySink) Store(_ context.Context, d rotation.Delivery) (st rotation.Stored, err error) {
	err = s.do("sink store", func() error {
		if err := d.MayReplace(s.stored()); err != nil {
			return err
		}
		s.checkReplaced(d)
		if !s.sink.ClientSecret.Equal(d.ClientSecret) {
			s.world.sink = d.Credential
			s.world.version++
		}
		st = s.stored()
		return nil
	})
	return st, err
}

// checkReplaced checks what a delivery says about the secret that the rotation has replaced: a sink may tell
// consumers that it works until then.
func (w *world) checkReplaced(d rotation.Delivery) {
	if d.RotationID == "" || d.At.IsZero() || d.By == "" {
		w.t.Errorf("a delivery does not say which rotation it is from: %q, %s, %q", d.RotationID, d.At, d.By)
	}
	if d.Replaces == "" || w.misled {
		return
	}
	for _, c := range append([]*cfToken{&w.cfToken, &w.partner}, w.created...) {
		switch is := func(s string) bool { return s != "" && secret.New(s).Digest() == d.Replaces }; {
		case is(c.current) && !w.gone[c.id]:
			return
		case is(c.previous) && w.offset == 0 && !d.GraceEndsAt.After(c.previousUntil.Add(time.Second+w.knownLate)):
			return
		case is(c.previous) && w.offset != 0: // the daemon does not know better
			return
		case is(c.previous):
			w.t.Errorf("a delivery says that the replaced secret works until %s, and it ends at %s", d.GraceEndsAt, c.previousUntil)
			return
		}
	}
	w.t.Error("a delivery says that a secret was replaced and still works, and it does not work any more")
}

// ReadBack implements [rotation.SinkReader].
func (s memorySink) ReadBack(context.Context) (c rotation.Credential, err error) {
	err = s.do("sink read back", func() error { c = s.sink; return nil })
	return c, err
}

// Publish implements [event.Events].
func (w *world) Publish(e event.Event) { w.events = append(w.events, e) }

// saved records each durable step.
func (w *world) saved(r rotation.Record) { w.steps = append(w.steps, r) }

// attempts returns the results of all attempts so far, as "trigger/result/reason".
func (w *world) attempts() (all []string) {
	for _, e := range w.events {
		if a, ok := e.Detail.(event.RotationEnded); ok {
			all = append(all, fmt.Sprintf("%s/%s/%s", a.Trigger, a.Result, a.Reason))
		}
	}
	return all
}

// token returns a token that is due every hour.
func (w *world) token(grace time.Duration) rotation.Token {
	schedule, err := scheduler.Parse("@every 1h", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return rotation.Token{
		Name: "ci", Account: "prod", ID: tokenID, Grace: grace, Issuer: w,
		Timetable: scheduler.Timetable{Schedule: schedule, Key: "ci"}, Sinks: []rotation.Sink{memorySink{w}},
	}
}

// start returns the rotator of a new process in the same world.
func (w *world) start() *rotation.Rotator {
	r := rotation.New(rotation.Options{
		Ledger: w, Pending: w, Pauses: w, Events: w, Record: w.newRecord(), Saved: w.saved, Owner: fmt.Sprint(time.Now().UnixNano()), Started: w.now(), Now: w.now,
	})
	if err := r.LoadPauses(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// now returns the time that the daemon's wall clock shows.
func (w *world) now() time.Time { return time.Now().Add(w.offset) }

// sync orders what this goroutine has done and the late requests. A late request is carried out in a goroutine of its own,
// under the lock.
func (w *world) sync() {
	w.mu.Lock()
	defer w.mu.Unlock()
}

// sleep lets time pass, in which late requests may be carried out.
func (w *world) sleep(d time.Duration) {
	w.sync()
	time.Sleep(d)
	w.sync()
}

// advance waits until the token is due, and advances it once. died reports that the process crashed.
func (w *world) advance(r *rotation.Rotator, token rotation.Token) (err error, died bool) {
	record, loadErr := w.Load(w.t.Context(), token.Name)
	if loadErr != nil {
		w.t.Fatal(loadErr)
	}
	if wait := time.Until(rotation.NextDue(token, record, rotation.Pause{}).At); wait > 0 {
		w.sleep(wait)
	}
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(crashed); !ok {
				panic(p)
			}
			err, died = errors.New("crashed"), true
		}
	}()
	_, err = r.Advance(w.t.Context(), token)
	return err, false
}

// check checks the invariants that hold whenever no attempt runs: the sink's secret works, or the one that
// works is sealed.
func (w *world) check(when string) {
	w.t.Helper()
	used := w.sink.ClientSecret.Reveal()
	if w.sink.ClientID == w.clientID && w.accepted(used) || w.sink.ClientID == w.partner.clientID && w.partner.accepted(used) {
		return
	}
	for _, p := range w.pending {
		if p.ClientSecret.Reveal() == w.current {
			return // it is sealed, and will be delivered
		}
	}
	w.t.Errorf("%s: the sink's secret is not accepted, and the accepted secret is not sealed either", when)
}

// inBubble runs test in a new world, with a token that is enrolled and was listed once.
func inBubble(t *testing.T, grace time.Duration, test func(w *world, token rotation.Token, r *rotation.Rotator)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		token := w.token(grace)
		r := w.start()
		if _, err := r.Enroll(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if _, err := r.RecordListing(w.t.Context(), token, w.facts()); err != nil {
			t.Fatal(err)
		}
		w.calls = nil
		test(w, token, r)
	})
}

func (w *world) record() rotation.Record {
	r, err := w.Load(w.t.Context(), "ci")
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}
