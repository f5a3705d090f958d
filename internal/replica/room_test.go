package replica

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/rotation"
)

// member is a room in a test.
type member struct {
	*Room
	client *kvtest.Client
	stop   func()

	mu      sync.Mutex
	changed []string
	told    []event.Detail
}

func (m *member) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := m.changed
	m.changed = nil
	return changed
}

// join starts a replica. wrong is how far its wall clock is off.
func join(t *testing.T, s *kvtest.Server, name, process string, wrong time.Duration) *member {
	m := &member{client: s.Client(nil)}
	m.Room = New(Options{
		KV: m.client, Self: rotation.Replica{Name: name, Process: process, Home: name + "'s disk", Claim: 30 * time.Second}, Version: "v1",
		Now: func() time.Time { return time.Now().Add(wrong) },
		Changed: func(names []string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.changed = append(m.changed, names...)
		},
		Tell: func(d event.Detail) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.told = append(m.told, d)
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); m.Run(ctx) }()
	m.stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(m.stop)
	return m
}

func pass(d time.Duration) { time.Sleep(d); synctest.Wait() }

// TestRoom: replicas find each other, learn what the others change, and take over the names of one that dies or leaves.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s kvtest.Server
		a, b, c := join(t, &s, "a", "pa", 0), join(t, &s, "b", "pb", time.Second), join(t, &s, "c", "pc", -time.Second)
		pass(15 * time.Second)
		all := []*member{a, b, c}
		for _, m := range all {
			if err := m.MayBegin(); err != nil || m.Share() != 3 {
				t.Fatalf("%v, %d living", err, m.Share())
			}
		}
		first := func(name string, living ...*member) *member {
			t.Helper()
			var firsts []*member
			for _, m := range living {
				if m.Wait(name, rotation.Record{}) == 0 {
					firsts = append(firsts, m)
				}
			}
			if len(firsts) != 1 {
				t.Fatalf("%d replicas come first for %s", len(firsts), name)
			}
			return firsts[0]
		}
		parts := map[*member]int{}
		for i := range 300 {
			parts[first(string(rune('a'+i%26))+string(rune('0'+i/26)), all...)]++
		}
		for m, n := range parts {
			if n < 60 || n > 140 {
				t.Errorf("%s comes first for %d of 300", m.o.Self.Name, n)
			}
		}
		for _, m := range all {
			m.take()
		}
		a.Notice("ci")
		a.Notice("cd")
		pass(10 * time.Second)
		if got := append(b.take(), c.take()...); !slices.Equal(got, []string{"ci", "cd", "ci", "cd"}) || a.take() != nil {
			t.Errorf("b and c learned %q", got)
		}
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		first("ci", a, c)
		if a.Share() != 2 || a.take() != nil {
			t.Errorf("after b has left: %d, %q", a.Share(), a.changed)
		}
		b.stop()
		c.stop()
		pass(30 * time.Second)
		if a.Share() != 1 || a.Wait("ci", rotation.Record{}) != 0 || !slices.Equal(a.take(), []string{Everything}) {
			t.Errorf("after c has died: %d", a.Share())
		}
		if view := a.View(); len(view.Replicas) != 3 || view.Living() != 1 || !view.Replicas[1].Leaving {
			t.Errorf("%+v", view)
		}
	})
}

// TestWrongClock: one whose clock is wrong stands aside until it is right; one that is alone does not.
func TestWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s kvtest.Server
		a := join(t, &s, "a", "pa", time.Hour)
		pass(15 * time.Second)
		if err := a.MayBegin(); err != nil {
			t.Errorf("alone: %v", err)
		}
		b := join(t, &s, "b", "pb", 0)
		pass(25 * time.Second)
		if a.MayBegin() == nil || b.MayBegin() != nil || b.Wait("ci", rotation.Record{}) != 0 {
			t.Errorf("%v, %v", a.MayBegin(), b.MayBegin())
		}
	})
}

// TestOneName: of two processes with one name, the later one begins nothing.
func TestOneName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s kvtest.Server
		a := join(t, &s, "a", "p1", 0)
		pass(15 * time.Second)
		twin := join(t, &s, "a", "p2", 0)
		twin.Room.o.Self.Home = "another disk"
		for range 60 {
			pass(time.Second)
			if twin.MayBegin() == nil || a.MayBegin() != nil {
				t.Fatalf("%v, %v", a.MayBegin(), twin.MayBegin())
			}
		}
		a.stop()
		pass(60 * time.Second)
		if err := twin.MayBegin(); err != nil {
			t.Errorf("after the other one has ended: %v", err)
		}
	})
}
