package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/admission"
	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/ledger/shared"
	"rotatord/internal/pending"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
)

// This file has replicas in simulated time: the real engine, rotator, ledger and room, over a store, an issuer and
// sinks in memory.

// cloud is an issuer and the sinks of all tokens.
type cloud struct {
	mu     sync.Mutex
	issued map[string][]issuing // by service token
	stored map[string]rotation.Credential
	wrong  []string
}

// issuing is one secret that was issued.
type issuing struct {
	at time.Time
	by string // which replica has asked for it
}

// cloudToken is a service token and its sink, as one replica reaches them.
type cloudToken struct {
	*cloud
	id      string
	replica *simulated
}

func (c cloudToken) facts() rotation.TokenFacts {
	facts := rotation.TokenFacts{ID: c.id, ClientID: c.id + ".access", Enabled: true}
	if all := c.issued[c.id]; len(all) > 0 {
		facts.UpdatedAt = all[len(all)-1].at.UTC()
	}
	return facts
}

func (c cloudToken) secretOf(n int) rotation.Credential {
	return rotation.Credential{ClientID: c.id + ".access", ClientSecret: livingSecret(n)}
}

// away returns an error if the replica is cut off.
func (c cloudToken) away() error {
	if c.replica.cut.Load() {
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "get"}
	}
	return nil
}

func (c cloudToken) Ready(context.Context) error { return c.away() }

func (c cloudToken) Inspect(context.Context, string) (rotation.TokenFacts, error) {
	if err := c.away(); err != nil {
		return rotation.TokenFacts{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.facts(), nil
}

func (c cloudToken) Rotate(ctx context.Context, req rotation.RotateRequest) (rotation.Issued, error) {
	if err := c.away(); err != nil {
		return rotation.Issued{}, err
	}
	if err := rotation.MaySend(ctx); err != nil {
		return rotation.Issued{}, &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "rotate", Err: err}
	}
	time.Sleep(c.replica.world.slow)
	defer c.replica.delay() // after the request was carried out
	c.mu.Lock()
	defer c.mu.Unlock()
	c.issued[c.id] = append(c.issued[c.id], issuing{time.Now(), c.replica.name})
	if c.replica.cut.Load() { // the answer is lost with the process
		return rotation.Issued{}, &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}
	}
	return rotation.Issued{Credential: c.secretOf(len(c.issued[c.id])), Facts: c.facts(), GraceEndsAt: time.Now().Add(req.Grace)}, nil
}

func (c cloudToken) SetGrace(_ context.Context, _ string, grace time.Duration) (rotation.TokenFacts, time.Time, error) {
	if err := c.away(); err != nil {
		return rotation.TokenFacts{}, time.Time{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.facts(), time.Now().Add(grace), nil
}

func (c cloudToken) Name() string { return "memory:" + c.id }

func (c cloudToken) state() rotation.Stored {
	at := c.stored[c.id]
	return rotation.Stored{Exists: !at.ClientSecret.IsZero(), Version: 1, ClientID: at.ClientID, Digest: at.ClientSecret.Digest()}
}

func (c cloudToken) Preflight(context.Context) (rotation.Stored, error) {
	if err := c.away(); err != nil {
		return rotation.Stored{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state(), nil
}

func (c cloudToken) Store(ctx context.Context, d rotation.Delivery) (rotation.Stored, error) {
	if err := errors.Join(c.away(), rotation.MaySend(ctx)); err != nil {
		return rotation.Stored{}, err
	}
	if c.replica.sinksAway.Load() {
		return rotation.Stored{}, errors.New("vault is sealed")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !d.ClientSecret.Equal(livingSecret(len(c.issued[c.id]))) {
		c.wrong = append(c.wrong, fmt.Sprintf("%s: %s has delivered a secret that is not the latest one", c.id, c.replica.name))
	}
	c.stored[c.id] = d.Credential
	return c.state(), nil
}

// memoryDisk is the state directory of a replica.
type memoryDisk struct {
	mu  sync.Mutex
	all map[string]memorySealed
}

type memorySealed struct {
	pending.Sealed
	issued rotation.Issued
}

func (*memoryDisk) Reserve(context.Context, rotation.PendingKey) error { return nil }

func (d *memoryDisk) Seal(_ context.Context, key rotation.PendingKey, issued rotation.Issued) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all[key.RotationID] = memorySealed{pending.Sealed{PendingKey: key, At: time.Now()}, issued}
	return nil
}

func (d *memoryDisk) Open(_ context.Context, id string) (rotation.Issued, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.all[id]
	return s.issued, ok, nil
}

func (d *memoryDisk) Erase(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.all, id)
	return nil
}

func (d *memoryDisk) Sealed() (all []pending.Sealed, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.all {
		all = append(all, s.Sealed)
	}
	return all, nil
}

func (d *memoryDisk) Noted() []pending.Sealed {
	all, _ := d.Sealed()
	return all
}

// SealCopy and OpenCopy implement [shared.Sealer].
func (d *memoryDisk) SealCopy(_ context.Context, id string) ([]byte, time.Time, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.all[id]
	return []byte(s.issued.ClientID + "\n" + s.issued.ClientSecret.Reveal()), s.At, ok, nil
}

func (*memoryDisk) OpenCopy(id string, b []byte) (rotation.Issued, error) {
	clientID, text, _ := strings.Cut(string(b), "\n")
	facts := rotation.TokenFacts{ID: strings.TrimSuffix(clientID, ".access"), ClientID: clientID}
	return rotation.Issued{Credential: rotation.Credential{ClientID: clientID, ClientSecret: secret.New(text)}, Facts: facts}, nil
}

func (*memoryDisk) Present() error                { return nil }
func (*memoryDisk) Prove(context.Context) error   { return nil }
func (*memoryDisk) LastWrite() (time.Time, error) { return time.Now(), nil }
func (*memoryDisk) PublicKey() string             { return "age1..." }
func (*memoryDisk) Recipients() []string          { return nil }

// simulation is a world of replicas.
type simulation struct {
	t      *testing.T
	store  kvtest.Server
	cloud  cloud
	tokens int
	every  time.Duration
	grace  time.Duration
	claim  time.Duration
	slow   time.Duration          // how long an answer takes
	disks  map[string]*memoryDisk // by state directory
	starts int
	all    []*simulated
}

func newSimulation(t *testing.T) *simulation {
	return &simulation{
		t: t, tokens: 20, every: 10 * time.Minute, grace: time.Minute, claim: 30 * time.Second, slow: time.Second, disks: make(map[string]*memoryDisk),
		cloud: cloud{issued: make(map[string][]issuing), stored: make(map[string]rotation.Credential)},
	}
}

// simulated is one process of a replica.
type simulated struct {
	*App
	world  *simulation
	name   string
	disk   *memoryDisk
	client *kvtest.Client
	wall   atomic.Int64 // how far the wall clock is ahead, in nanoseconds
	cut    atomic.Bool  // it reaches nothing
	slow   atomic.Int64 // how long an answer takes beside slow of the world, in nanoseconds
	// sinksAway is set while it can write to no sink.
	sinksAway atomic.Bool
	ended     bool
	tooks     atomic.Int64 // how many tokens it took over
	late      atomic.Int64 // how many late answers it has found
}

// Publish implements [rotation.Events].
func (r *simulated) Publish(e event.Event) {
	switch e.Detail.(type) {
	case event.ClaimTakenOver:
		r.tooks.Add(1)
	case event.LateAnswer:
		r.late.Add(1)
	}
}

// up starts a replica, on the state directory that it had if it has run before.
func (w *simulation) up(name string, client *kvtest.Client) *simulated {
	return w.upIn(name, "the state directory of "+name, client)
}

// upIn starts a replica on a state directory.
func (w *simulation) upIn(name, home string, client *kvtest.Client) *simulated {
	if w.disks[home] == nil {
		w.disks[home] = &memoryDisk{all: make(map[string]memorySealed)}
	}
	if client == nil {
		client = w.store.Client(nil)
	}
	w.starts++
	r := &simulated{world: w, name: name, disk: w.disks[home], client: client}
	log := slog.New(slog.DiscardHandler)
	a := &App{
		log: log, now: func() time.Time { return time.Now().Add(time.Duration(r.wall.Load())) }, metrics: httpapi.NewMetrics(httpapi.Build{}),
		config: &config.Config{}, accounts: make(map[string]*account), budgets: admission.NewBudgets(), started: time.Now(),
		state: &state{pending: r.disk, disk: r.disk, adopt: func(func(string) bool) error { return nil }, home: home,
			dropReservations: func(time.Time, func(rotation.PendingKey) bool) error { return nil }},
	}
	r.App = a
	a.outages = newOutages(a.now, func() { a.engine.retryPending() })
	a.engine = newEngine(a.now, log, nil)
	a.sharing = newSharing(a, rotation.Replica{Name: name, Process: fmt.Sprint(name, " ", w.starts), Home: a.state.home, Claim: w.claim})
	a.sharing.connect(client, r.disk, "127.0.0.1:9321")
	a.sharing.copies = shared.NewCopies(client, r.disk, name)
	a.engine.peers, a.engine.within = roomPeers{a.sharing.room, a.engine}, w.claim/4
	a.engine.rotator = rotation.New(rotation.Options{
		Ledger: a.state.ledger, Pending: r.disk, Pauses: a.state.ledger, Owner: name, Started: a.started, Now: a.now, Events: r, Replica: a.sharing.asReplica(),
		Copies: a.sharing.sealedCopies(), Saved: a.engine.show,
	})
	var tokens []rotation.Token
	for i := range w.tokens {
		id := fmt.Sprint("ci-", i)
		at := cloudToken{&w.cloud, id, r}
		tokens = append(tokens, rotation.Token{
			Name: id, Account: "prod", ID: id, Grace: w.grace, Issuer: at, Sinks: []rotation.Sink{at},
			Timetable: life{Expression: fmt.Sprintf("*/%d * * * *", w.every/time.Minute), Zone: "UTC", Jitter: w.every / 10}.timetableOf(id),
		})
	}
	a.engine.await(tokens)
	a.startSharing()
	a.startEngine()
	a.onStop("beginning rotations", a.stopBeginning)
	a.onStop("leaving", a.sharing.leave)
	w.all = append(w.all, r)
	return r
}

// timetableOf returns the timetable of the token with a name.
func (l life) timetableOf(name string) scheduler.Timetable {
	t := l.timetable()
	t.Key = name
	return t
}

// down stops a replica in an orderly way.
func (r *simulated) down() {
	if !r.ended {
		r.ended = true
		_ = r.Stop(context.Background())
	}
}

// kill ends a replica as a crash does: nobody is told of anything.
func (r *simulated) kill() {
	r.sever()
	if !r.ended {
		r.ended = true
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Stop(ctx)
	}
}

// sever cuts a replica off from everything.
func (r *simulated) sever() {
	r.cut.Store(true)
	r.client.Break(func(string, string) kvtest.Fault { return kvtest.Fault{Before: kvtest.ErrLost} })
}

// mend ends that.
func (r *simulated) mend() {
	r.cut.Store(false)
	r.client.Break(nil)
}

// end stops all replicas, and checks what must be true in every world.
func (w *simulation) end() {
	w.t.Helper()
	for _, r := range w.all {
		r.down()
	}
	synctest.Wait()
	w.cloud.mu.Lock()
	defer w.cloud.mu.Unlock()
	for _, wrong := range w.cloud.wrong {
		w.t.Error(wrong)
	}
	for id, all := range w.cloud.issued {
		if got := w.cloud.stored[id]; !got.ClientSecret.Equal(livingSecret(len(all))) {
			w.t.Errorf("%s: the sink does not have the latest of %d secrets", id, len(all))
		}
	}
}

// served checks that each token was rotated so many times since a moment, and returns how late at most, after the
// latest begin that the jitter allows.
func (w *simulation) served(since time.Time, n int) (latest time.Duration) {
	w.t.Helper()
	w.cloud.mu.Lock()
	defer w.cloud.mu.Unlock()
	for i := range w.tokens {
		id := fmt.Sprint("ci-", i)
		var some []issuing
		for _, issued := range w.cloud.issued[id] {
			if !issued.at.Before(since) {
				some = append(some, issued)
			}
		}
		slots := map[time.Time]bool{}
		for _, issued := range some {
			slot := issued.at.Truncate(w.every)
			if slots[slot] {
				w.t.Errorf("%s: the slot %s was served twice: %v", id, slot.Format(time.TimeOnly), some)
			}
			slots[slot] = true
			latest = max(latest, issued.at.Sub(slot)-w.every/10)
		}
		if len(some) != n {
			w.t.Errorf("%s was rotated %d times, want %d: %v", id, len(some), n, some)
		}
	}
	return latest
}

// token returns a token as a replica has it.
func (w *simulation) token(r *simulated, name string) rotation.Token {
	seen, ok := r.engine.view(name)
	if !ok {
		w.t.Fatalf("%s does not know %s", r.name, name)
	}
	return seen.token
}

// by returns how many rotations a replica has made since a moment.
func (w *simulation) by(name string, since time.Time) int {
	w.cloud.mu.Lock()
	defer w.cloud.mu.Unlock()
	n := 0
	for _, all := range w.cloud.issued {
		n += len(all) - len(slices.DeleteFunc(slices.Clone(all), func(i issuing) bool { return i.by == name && !i.at.Before(since) }))
	}
	return n
}

// simulate runs a test in simulated time, which begins at a full hour.
func simulate(t *testing.T, test func(*testing.T, *simulation)) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimulation(t)
		test(t, w)
		w.end()
	})
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// delay delays an answer.
func (r *simulated) delay() { time.Sleep(time.Duration(r.slow.Load())) }
