package replica

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/rotation"
)

// world is a store with replicas, in simulated time.
type world struct {
	t      *testing.T
	claim  time.Duration
	server kvtest.Server
	ahead  atomic.Int64 // by how much the server's clock is ahead
	slow   time.Duration
}

func newWorld(t *testing.T, claim time.Duration) *world {
	w := &world{t: t, claim: claim}
	w.server.Now = func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
	return w
}

// setClock sets the server's clock ahead.
func (w *world) setClock(ahead time.Duration) { w.ahead.Store(int64(ahead)) }

// member is a replica in a world.
type member struct {
	*Room
	w      *world
	client *kvtest.Client
	kill   func()
	ahead  atomic.Int64 // by how much its wall clock is ahead

	mu        sync.Mutex
	changed   []string
	learned   map[string]time.Time // when a name was told last
	told      []event.Detail
	living    int // calls of Living
	throttled map[string]time.Duration
	throttle  map[string]time.Duration
	usable    error
	asked     int // calls of Usable
	joined    bool
}

// start starts a replica. home is its state directory.
func (w *world) start(name, process, home string, prepare ...func(*member)) *member {
	m := &member{w: w, client: w.server.Client(nil), learned: map[string]time.Time{}, throttle: map[string]time.Duration{}, joined: true}
	m.heal()
	m.Room = New(Options{
		KV: m.client, Self: rotation.Replica{Name: name, Process: process, Home: home, Claim: w.claim}, Version: "v1", Listen: "127.0.0.1:9321",
		Now:    func() time.Time { return time.Now().Add(time.Duration(m.ahead.Load())) },
		Usable: func(context.Context) error { return get(m, func() error { m.asked++; return m.usable }) },
		Joined: func() bool { return get(m, func() bool { return m.joined }) },
		Living: func() { set(m, func() { m.living++ }) },
		Tell:   func(d event.Detail) { set(m, func() { m.told = append(m.told, d) }) },
		Changed: func(names []string) {
			set(m, func() {
				m.changed = append(m.changed, names...)
				for _, n := range names {
					m.learned[n] = time.Now()
				}
			})
		},
		Throttled: func() map[string]time.Duration {
			return get(m, func() map[string]time.Duration { return m.throttled })
		},
		Throttle: func(account string, d time.Duration) { set(m, func() { m.throttle[account] = d }) },
	})
	for _, f := range prepare { // before it runs
		f(m)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); m.Run(ctx) }()
	m.kill = sync.OnceFunc(func() { cancel(); <-ended })
	w.t.Cleanup(m.kill)
	return m
}

// startAll starts replicas, and returns them when all know each other.
func (w *world) startAll(n int) (all []*member) {
	for i := range n {
		name := fmt.Sprintf("rotatord-%d", i)
		all = append(all, w.start(name, "process of "+name, "disk of "+name))
	}
	pass(15 * time.Second)
	for _, m := range all {
		m.expect(n)
		m.forget()
	}
	return all
}

func set(m *member, f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func get[T any](m *member, f func() T) T {
	m.mu.Lock()
	defer m.mu.Unlock()
	return f()
}

// expect checks that a replica may begin and knows so many living ones.
func (m *member) expect(living int) {
	m.w.t.Helper()
	if err := m.MayBegin(); err != nil || m.Share() != living {
		m.w.t.Errorf("%s: %d living, want %d; may begin: %v", m.o.Self.Name, m.Share(), living, err)
	}
}

// took returns what a replica was told to have changed, and forgets it.
func (m *member) took() (changed []string) {
	set(m, func() { changed, m.changed = m.changed, nil })
	return changed
}

func (m *member) forget() { set(m, func() { m.changed, m.told, m.living = nil, nil, 0 }) }

// tellings returns what an operator was told, as kinds of details.
func (m *member) tellings() (all []string) {
	set(m, func() {
		for _, d := range m.told {
			all = append(all, fmt.Sprintf("%T%+v", d, d))
		}
		m.told = nil
	})
	return all
}

// cut loses all requests of a replica.
func (m *member) cut() {
	m.client.Break(func(string, string) kvtest.Fault { return kvtest.Fault{Before: kvtest.ErrLost} })
}

// clock has a replica start with a wall clock that is ahead.
func clock(ahead time.Duration) func(*member) {
	return func(m *member) { m.ahead.Store(int64(ahead)) }
}

// heal lets its requests through.
func (m *member) heal() {
	m.client.Break(func(string, string) kvtest.Fault { return kvtest.Fault{Delay: m.w.slow / 2, Late: m.w.slow / 2} })
}

// pass lets time pass.
func pass(d time.Duration) { time.Sleep(d); synctest.Wait() }

// entryOf returns what a replica has written.
func (w *world) entryOf(name string) (e entry) {
	stored, err := w.server.Client(nil).Get(w.t.Context(), pathOf(name))
	if err == nil && stored.Version > 0 {
		err = json.Unmarshal(stored.Data, &e)
	}
	if err != nil {
		w.t.Error(err)
	}
	return e
}

// firsts returns the replicas that come first for a name.
func firsts(name string, r rotation.Record, all ...*member) (names []string) {
	for _, m := range all {
		if m.Wait(name, r) == 0 {
			names = append(names, m.o.Self.Name)
		}
	}
	return names
}

// first returns the only one of some replicas that comes first for a name.
func (w *world) first(name string, all ...*member) *member {
	w.t.Helper()
	names := firsts(name, rotation.Record{}, all...)
	if len(names) != 1 {
		w.t.Fatalf("%s: these come first: %q", name, names)
	}
	return all[slices.IndexFunc(all, func(m *member) bool { return m.o.Self.Name == names[0] })]
}

// each runs a test in simulated time with the default claim and with the shortest one.
func each(t *testing.T, test func(*testing.T, *world)) {
	for _, claim := range []time.Duration{2 * time.Minute, 5 * time.Second} {
		t.Run(claim.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, claim)) })
		})
	}
}
