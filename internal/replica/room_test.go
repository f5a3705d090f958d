package replica

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/kvstore"
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/racedetector"
)

// TestMembers: replicas find each other. One that leaves is known to have left within a few seconds, one that has died after
// three and a half beats. The others read everything again only after a death.
func TestMembers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(3)
		a, b, c := all[0], all[1], all[2]
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(look(w.claim))
		a.expect(2)
		c.expect(2)
		if b.MayBegin() == nil || a.took() != nil {
			t.Errorf("after a leave: %v, read again: %v", b.MayBegin(), a.changed)
		}
		b.kill()
		c.kill()
		pass(deadAfter(w.claim) - Beat(w.claim) - time.Second)
		a.expect(2)
		pass(Beat(w.claim) + 2*look(w.claim) + time.Second)
		a.expect(1)
		if got := a.took(); !slices.Equal(got, []string{Everything}) {
			t.Errorf("after a death: %q", got)
		}
		view := a.View()
		if len(view.Replicas) != 3 || view.Living() != 1 || !view.Replicas[1].Leaving || view.Replicas[2].Leaving {
			t.Errorf("%+v", view)
		}
		told := a.tellings()
		if len(told) != 2 || !strings.Contains(told[0], "rotatord-1 Living:false Leaving:true") || !strings.Contains(told[1], "rotatord-2 Living:false Leaving:false") {
			t.Errorf("told: %q", told)
		}
		again := w.start("rotatord-1", "another process", "another disk")
		pass(15 * time.Second)
		a.expect(2)
		again.expect(2)
		if got := a.took(); !slices.Equal(got, []string{Everything}) {
			t.Errorf("after a return: %q", got)
		}
	})
}

// TestStartTogether: replicas that start together know each other after two seconds.
func TestStartTogether(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var all []*member
		for i := range 5 {
			all = append(all, w.start(fmt.Sprint("rotatord-", i), "p", "h"))
			time.Sleep(300 * time.Millisecond)
		}
		pass(2 * time.Second)
		for _, m := range all {
			m.expect(5)
		}
	})
}

// TestDeadIsForgotten: the entry of a replica is removed a day after its last write, and an hour after that if it has said that it stops.
func TestDeadIsForgotten(t *testing.T) {
	if racedetector.On {
		t.Skip("it lasts days of simulated time, and runs without the race detector")
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2*time.Minute)
		all := w.startAll(4)
		left := []*member{all[0], all[2]}
		known := func(want int) {
			t.Helper()
			for _, m := range left {
				if n := len(m.View().Replicas); n != want {
					t.Errorf("%d replicas are known, want %d", n, want)
				}
			}
		}
		all[1].kill()
		if err := all[3].Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		all[3].kill()
		pass(forgetLeft - time.Minute)
		known(4)
		pass(2 * time.Minute)
		known(3)
		pass(forgetDead - forgetLeft - 2*time.Minute)
		known(3)
		pass(2 * time.Minute)
		known(2)
		for _, m := range left {
			m.expect(2)
		}
	})
}

// TestCutOff: a replica that cannot reach the store declares nobody dead, and begins nothing once it counts as dead
// itself. The others serve its tokens. When it is back, it learns what it has missed.
func TestCutOff(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(3)
		a, b, c := all[0], all[1], all[2]
		a.cut()
		pass(deadAfter(w.claim) + Beat(w.claim) + 2*look(w.claim))
		b.expect(2)
		c.expect(2)
		if a.MayBegin() == nil || a.Share() != 3 {
			t.Errorf("cut off: may begin: %v, %d living", a.MayBegin(), a.Share())
		}
		if view := a.View(); !strings.Contains(view.Self().StandsAside, "not written for") {
			t.Errorf("cut off: shown: %+v", view.Self())
		}
		w.first("ci", b, c)
		if told := a.tellings(); len(told) != 1 || !strings.HasPrefix(told[0], "event.LedgerAway{Err:no answer") {
			t.Errorf("told: %q", told)
		}
		b.Notice("ci")
		pass(10 * time.Second)
		a.heal()
		pass(10 * time.Second)
		for _, m := range all {
			m.expect(3)
		}
		if got := a.took(); !slices.Contains(got, "ci") && !slices.Contains(got, Everything) {
			t.Errorf("back: %q", got)
		}
		if told := a.tellings(); !slices.Equal(told, []string{"event.LedgerAway{Err:<nil>}"}) {
			t.Errorf("back: told: %q", told)
		}
	})
}

// TestStoreAway: while no replica reaches the store, none declares another dead, and when it is back all go on without
// a false alarm.
func TestStoreAway(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(3)
		for _, m := range all {
			m.cut()
		}
		pass(10 * time.Minute)
		for _, m := range all {
			if m.MayBegin() == nil || m.Share() != 3 {
				t.Errorf("%v, %d living", m.MayBegin(), m.Share())
			}
			if old := time.Since(m.View().SyncedAt); old < 10*time.Minute || old > 10*time.Minute+look(w.claim) {
				t.Errorf("it has read the others %s ago", old)
			}
			m.heal()
		}
		for range 60 {
			pass(time.Second)
			for _, m := range all {
				if m.Share() != 3 {
					t.Fatalf("%s: %d living", m.o.Self.Name, m.Share())
				}
			}
		}
		for _, m := range all {
			m.expect(3)
			if old := time.Since(m.View().SyncedAt); old > look(w.claim) {
				t.Errorf("it has read the others %s ago", old)
			}
			for _, told := range m.tellings() {
				if !strings.HasPrefix(told, "event.LedgerAway") {
					t.Errorf("told: %s", told)
				}
			}
		}
	})
}

// TestStartWithoutStore: a replica that starts while the store is away begins when it is there.
func TestStartWithoutStore(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.start("a", "p", "h", (*member).cut)
		pass(time.Hour)
		if a.MayBegin() == nil {
			t.Error("it may begin without the store")
		}
		if err := a.Leave(t.Context()); err != nil {
			t.Errorf("leaving without ever having been seen: %v", err)
		}
		b := w.start("b", "p", "h", (*member).cut)
		pass(time.Minute)
		b.heal()
		pass(3 * time.Second)
		b.expect(1)
	})
}

// TestLostAnswers: of every third write the answer is lost, and every fifth read. Nobody dies, nobody is taken for a namesake,
// and every notice arrives.
func TestLostAnswers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(3)
		for _, m := range all {
			var puts, gets int // guarded by the lock of the client
			m.client.Break(func(operation, _ string) (f kvtest.Fault) {
				switch operation {
				case "put":
					if puts++; puts%3 == 0 {
						f.After = kvtest.ErrLost
					}
				case "get":
					if gets++; gets%5 == 0 {
						f.Before = kvtest.ErrLost
					}
				}
				return f
			})
		}
		for i := range 50 {
			all[i%3].Notice(fmt.Sprint("token-", i))
			pass(7 * time.Second)
			for _, m := range all {
				m.expect(3)
			}
		}
		pass(3 * Beat(w.claim)) // a notice whose answers were lost comes with a later beat
		for _, m := range all {
			for _, told := range m.tellings() {
				if !strings.HasPrefix(told, "event.LedgerAway") {
					t.Errorf("told: %s", told)
				}
			}
			for i := range 50 {
				if got := m.learned[fmt.Sprint("token-", i)]; (all[i%3] == m) != got.IsZero() {
					t.Errorf("%s has learned of token-%d at %s", m.o.Self.Name, i, got)
				}
			}
		}
	})
}

// TestSuspended: after the machine of a replica was suspended, so that its monotonic clock stood still, the replica begins nothing before
// it has written its entry and asked whether the ledger may be used.
func TestSuspended(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.startAll(1)[0]
		asked := get(a, func() int { return a.asked })
		time.Sleep(Beat(w.claim) / 2)
		a.ahead.Store(int64(time.Hour))
		for a.MayBegin() != nil {
			time.Sleep(100 * time.Millisecond)
		}
		if get(a, func() int { return a.asked }) == asked {
			t.Error("it has not asked")
		}
		pass(time.Minute)
		a.expect(1)
	})
}

// TestOneEntryIsRefused: if Vault refuses to read the entry of one replica, the others are still found.
func TestOneEntryIsRefused(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(3)
		hidden := pathOf(all[2].o.Self.Name)
		late := w.start("late", "p", "h", func(m *member) {
			m.client.Break(func(operation, path string) (f kvtest.Fault) {
				if operation == "get" && path == hidden {
					f.Before = errors.New("permission denied")
				}
				return f
			})
		})
		pass(20 * time.Second)
		late.expect(3)
		all[0].expect(4)
		if !late.View().SyncedAt.IsZero() {
			t.Error("it says that it has read all")
		}
	})
}

// TestStaleReads: a standby of Vault may return an older version. It changes nothing.
func TestStaleReads(t *testing.T) {
	var o other
	now := time.Now()
	o.entry, o.version, o.created = entry{Process: "p", Seq: 7, Wall: now}, 5, now
	older := entry{Process: "p", Seq: 6, Wall: now.Add(-time.Second)}
	for _, c := range []struct {
		name  string
		found entry
		at    kvstore.Entry
		want  bool
	}{
		{"an older version", older, kvstore.Entry{Version: 4, CreatedAt: now.Add(-time.Second)}, true},
		{"a newer one", entry{Process: "p", Seq: 8, Wall: now}, kvstore.Entry{Version: 6, CreatedAt: now}, false},
		{"written again after a removal", entry{Process: "p", Seq: 7, Wall: now.Add(time.Second)}, kvstore.Entry{Version: 1, CreatedAt: now.Add(time.Second)}, false},
		{"the same, while Vault's clock has jumped", entry{Process: "p", Seq: 7, Wall: now.Add(time.Second)}, kvstore.Entry{Version: 1, CreatedAt: now.Add(-time.Hour)}, false},
		{"another process after a removal", entry{Process: "q"}, kvstore.Entry{Version: 1, CreatedAt: now.Add(-time.Hour)}, false},
	} {
		if got := o.isOlder(c.found, c.at); got != c.want {
			t.Errorf("%s: older: %t", c.name, got)
		}
	}
}

// TestLedgerOutOfUse: while the ledger is moved elsewhere, no replica begins, and each tells that once.
func TestLedgerOutOfUse(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(2)
		moved := errors.New("the shared ledger is out of use")
		for _, m := range all {
			set(m, func() { m.usable = moved })
		}
		pass(usableEvery + 2*listEvery)
		for _, m := range all {
			if err := m.MayBegin(); !errors.Is(err, moved) {
				t.Errorf("%v", err)
			}
			if told := m.tellings(); len(told) != 1 || !strings.Contains(told[0], "StandAside{Why:the shared ledger is out of use}") {
				t.Errorf("told: %q", told)
			}
		}
		// It is asked again at once by a replica that was cut off: the others may have moved it.
		for _, m := range all {
			set(m, func() { m.usable = nil })
		}
		pass(2*listEvery + look(w.claim))
		all[0].expect(2)
		all[0].cut()
		pass(deadAfter(w.claim) + Beat(w.claim))
		set(all[0], func() { all[0].usable = moved })
		all[0].heal()
		for range 20 {
			time.Sleep(100 * time.Millisecond)
			if all[0].MayBegin() == nil {
				t.Fatal("it may begin before it has asked")
			}
		}
	})
}

// TestNotJoined: a replica that does not know the ledger yet comes first for nothing, and for its part when it does.
func TestNotJoined(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(2)
		late := w.start("late", "p", "h", func(m *member) { m.joined = false })
		late.Nudge()
		pass(15 * time.Second)
		late.expect(3)
		for i := range 100 {
			w.first(fmt.Sprint("token-", i), all...)
		}
		set(late, func() { late.joined = true })
		late.Nudge()
		pass(10 * time.Second)
		part := 0
		for i := range 100 {
			if w.first(fmt.Sprint("token-", i), append(all, late)...) == late {
				part++
			}
		}
		if part < 15 || part > 55 {
			t.Errorf("it comes first for %d of 100", part)
		}
	})
}

// TestThrottled: a 429 that one replica got is known to the others within ten seconds, and not told on by them.
func TestThrottled(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(3)
		set(all[0], func() { all[0].throttled = map[string]time.Duration{"prod": 40 * time.Second, "other": 0} })
		all[0].Nudge()
		pass(10 * time.Second)
		for _, m := range all[1:] {
			if got := get(m, func() string { return fmt.Sprint(m.throttle) }); got != "map[prod:40s]" {
				t.Errorf("%s", got)
			}
			if e := w.entryOf(m.o.Self.Name); len(e.Throttled) != 0 {
				t.Errorf("%s tells it on: %v", m.o.Self.Name, e.Throttled)
			}
		}
		if len(all[0].throttle) != 0 {
			t.Errorf("its own 429 comes back: %v", all[0].throttle)
		}
	})
}

// TestNamesake: of two processes with one name, the later one begins nothing, tells it, and takes over when the other one has ended.
func TestNamesake(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(2)
		a := all[0]
		twin := w.start(a.o.Self.Name, "twin", "another disk")
		for range 120 {
			pass(time.Second)
			if twin.MayBegin() == nil {
				t.Fatal("the twin may begin")
			}
			a.expect(2)
		}
		if err := twin.MayBegin(); !errors.Is(err, errNamesake) || !strings.Contains(err.Error(), "state.shared.replica") {
			t.Errorf("%v", err)
		}
		if told := twin.tellings(); len(told) != 1 || !strings.Contains(told[0], "StandAside{Why:another process has the name") {
			t.Errorf("told: %q", told)
		}
		if told := a.tellings(); told != nil {
			t.Errorf("the first one was told: %q", told)
		}
		a.kill()
		pass(deadAfter(w.claim) + 2*Beat(w.claim) + time.Second)
		twin.expect(2)
		if told := twin.tellings(); !slices.Contains(told, "event.StandAside{Why:}") {
			t.Errorf("told: %q", told)
		}
	})
}

// TestNamesakesTogether: of two processes that start in the same moment with one name, exactly one may begin.
func TestNamesakesTogether(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.slow = 200 * time.Millisecond
		a, b := w.start("a", "p1", "h1"), w.start("a", "p2", "h2")
		pass(10 * time.Second)
		for range 100 {
			pass(time.Second)
			if (a.MayBegin() == nil) == (b.MayBegin() == nil) {
				t.Fatalf("%v, %v", a.MayBegin(), b.MayBegin())
			}
		}
	})
}

// TestReturningNamesake: a process that was cut off until another one has taken its name over begins nothing when it is back.
func TestReturningNamesake(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.startAll(1)[0]
		a.cut()
		next := w.start(a.o.Self.Name, "next", "another disk")
		pass(deadAfter(w.claim) + 3*Beat(w.claim))
		next.expect(1)
		a.heal()
		for range 100 {
			if a.MayBegin() == nil {
				t.Fatal("it may begin while another process has its name")
			}
			pass(time.Second)
			next.expect(1)
		}
	})
}

// TestRestart: a process that follows one with the same state directory, or one that has said that it stops, begins at once. Any other
// waits until the one before counts as dead.
func TestRestart(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		first := w.startAll(1)[0]
		first.kill()
		second := w.start(first.o.Self.Name, "second", first.o.Self.Home)
		pass(time.Second)
		second.expect(1)
		if err := second.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		second.kill()
		third := w.start(first.o.Self.Name, "third", "another disk")
		pass(time.Second)
		third.expect(1)
		third.kill()
		fourth := w.start(first.o.Self.Name, "fourth", "a third disk")
		pass(deadAfter(w.claim) - time.Second)
		if err := fourth.MayBegin(); err == nil || !strings.Contains(err.Error(), "is waited for, until") {
			t.Errorf("%v", err)
		}
		if told := fourth.tellings(); told != nil {
			t.Errorf("told: %q", told)
		}
		pass(2 * time.Second)
		fourth.expect(1)
	})
}

// TestCloneOfADisk: of two processes with one name and copies of one state directory, not both begin for long.
func TestCloneOfADisk(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.startAll(1)[0]
		clone := w.start(a.o.Self.Name, "clone", a.o.Self.Home)
		pass(2 * Beat(w.claim))
		for range 100 {
			pass(time.Second)
			if (a.MayBegin() == nil) == (clone.MayBegin() == nil) {
				t.Fatalf("%v, %v", a.MayBegin(), clone.MayBegin())
			}
		}
	})
}
