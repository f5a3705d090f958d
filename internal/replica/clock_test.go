package replica

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/kvstore/kvtest"
)

// TestClock: whatever the requests take and however the crystals differ, the clock never says that Vault's shows more
// than it does, and takes nothing for a jump that is not one. Each jump that is larger than what requests hide is found, and voids what was
// measured before if it is larger than the tolerance.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(5, 6))
		for range 50 {
			var c Clock
			began, skew := time.Now(), 1+(random.Float64()-0.5)/drift
			offset := time.Duration(random.Int64N(int64(48*time.Hour))) - 24*time.Hour
			vault := func() time.Time {
				return began.Add(offset + time.Duration(float64(time.Since(began))*skew))
			}
			steady := time.Time{}
			for i := range 300 {
				time.Sleep(time.Duration(random.Int64N(int64(20 * time.Second))))
				if r, ok := c.Read(); ok && (r.Now.After(vault()) || vault().Sub(r.Now) > 10*time.Second || !r.Since.Equal(steady)) {
					t.Fatalf("Vault's clock shows %s, and %+v is known of it", vault(), r)
				}
				jumped := time.Duration(0)
				if i%50 == 49 {
					if jumped = time.Duration(random.Int64N(int64(time.Hour))) + 3*time.Second; random.IntN(2) == 0 {
						jumped = -jumped
					}
					offset += jumped
				}
				sent := time.Now()
				time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
				stamp := vault()
				time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
				jump := c.observe(sent, time.Now(), stamp)
				if i == 0 || jumped != 0 {
					steady = stamp
				}
				if (jump-jumped).Abs() > 3*time.Second || jumped == 0 && jump != 0 {
					t.Fatalf("a jump of %s was taken for one of %s", jumped, jump)
				}
			}
		}
	})
}

// TestClockCreeps: many small jumps together void what was measured before.
func TestClockCreeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Clock
		c.observe(time.Now(), time.Now(), time.Now())
		first, _ := c.Read()
		off := time.Duration(0)
		for i := range 4 {
			time.Sleep(time.Second)
			off += tolerance/3 + 10*time.Millisecond
			if jump := c.observe(time.Now(), time.Now(), time.Now().Add(off)); jump <= 0 {
				t.Errorf("jump %d was not seen", i)
			}
			if r, _ := c.Read(); r.Since.Equal(first.Since) != (i < 2) {
				t.Errorf("after %d jumps: steady since %s", i+1, r.Since)
			}
		}
	})
}

// TestVaultClockJumps: a jump of Vault's clock is told once by each replica, and no replica stands aside because of it, nor counts as
// dead or as alive.
func TestVaultClockJumps(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -time.Hour, 45 * time.Second, -45 * time.Second, 2 * time.Second, 300 * time.Millisecond} {
		each(t, func(t *testing.T, w *world) {
			all := w.startAll(3)
			w.setClock(by)
			for range 120 {
				pass(time.Second)
				for _, m := range all {
					m.expect(3)
				}
			}
			for _, m := range all {
				told := m.tellings()
				if by.Abs() < jumpToldFrom && told != nil || by.Abs() >= jumpToldFrom && (len(told) != 1 || !strings.HasPrefix(told[0], "event.VaultClockJump{")) {
					t.Errorf("a jump by %s: told %q", by, told)
				}
				r, _ := m.Clock().Read()
				if vault := time.Now().Add(by); r.Now.After(vault) || vault.Sub(r.Now) > time.Second {
					t.Errorf("Vault's clock shows %s, known %s", vault, r.Now)
				}
				if steady := time.Now().Add(by).Sub(r.Since); steady > 121*time.Second {
					t.Errorf("steady for %s, and it has jumped by %s", steady, by)
				}
				if m.living > 0 {
					t.Errorf("%d changes of who lives", m.living)
				}
			}
		})
	}
}

// TestWrongClock: a replica whose wall clock is wrong stands aside until it is right again, and comes first for nothing.
// The others go on.
func TestWrongClock(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -40 * time.Second, 25 * 365 * 24 * time.Hour} {
		each(t, func(t *testing.T, w *world) {
			all := w.startAll(3)
			wrong := all[1]
			wrong.ahead.Store(int64(by))
			pass(2*Beat(w.claim) + 2*look(w.claim))
			for range 60 {
				pass(time.Second)
				if err := wrong.MayBegin(); err == nil || !strings.Contains(err.Error(), "the clock of this machine is") {
					t.Fatalf("%v", err)
				}
				all[0].expect(3)
				all[2].expect(3)
				w.first("ci", all[0], all[2])
			}
			if told := wrong.tellings(); len(told) != 1 || !strings.HasPrefix(told[0], "event.StandAside{Why:the clock") {
				t.Errorf("told: %q", told)
			}
			if view := all[0].View(); view.Replicas[1].StandsAside == "" || !view.Replicas[1].Living {
				t.Errorf("the others show %+v", view.Replicas[1])
			}
			wrong.ahead.Store(0)
			pass(2*Beat(w.claim) + 2*look(w.claim))
			for _, m := range all {
				m.expect(3)
			}
			if told := wrong.tellings(); len(told) != 1 || told[0] != "event.StandAside{Why:}" {
				t.Errorf("told: %q", told)
			}
			if told := append(all[0].tellings(), all[2].tellings()...); told != nil {
				t.Errorf("the others were told: %q", told)
			}
		})
	}
}

// TestClockOfVaultIsWrong: the replicas agree, so none stands aside. Two camps of the same size: none, because it is not
// known who is right. One replica alone: never.
func TestClockOfVaultIsWrong(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.setClock(-time.Hour)
		all := w.startAll(2)
		pass(time.Hour)
		for _, m := range all {
			m.expect(2)
		}
		third, fourth := w.start("third", "p", "h3", clock(-time.Hour)), w.start("fourth", "p", "h4", clock(-time.Hour)) // as Vault's
		pass(5 * time.Minute)
		for i, m := range append(all, third, fourth) {
			if (m.MayBegin() == nil) != (i >= 2) { // three clocks of five agree
				t.Errorf("%s: %v", m.o.Self.Name, m.MayBegin())
			}
		}
	})
	each(t, func(t *testing.T, w *world) {
		a := w.start("a", "p", "h", clock(time.Hour))
		pass(time.Hour)
		a.expect(1)
		var rest []*member
		for i, ahead := range []time.Duration{time.Hour, 0} {
			rest = append(rest, w.start(string(rune('b'+i)), "p", "h", clock(ahead)))
		}
		pass(5 * time.Minute)
		a.expect(3) // two say this, and one and Vault say that
		for _, m := range rest {
			m.expect(3)
		}
	})
}

// TestSlowStore: a store that takes seconds for each request makes no clock look wrong.
func TestSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2*time.Minute)
		all := w.startAll(3)
		for _, m := range all {
			m.client.Break(func(string, string) kvtest.Fault { return kvtest.Fault{Delay: 3 * time.Second, Late: 3 * time.Second} })
		}
		for range 300 {
			pass(time.Second)
			for _, m := range all {
				m.expect(3)
			}
		}
		for _, m := range all {
			if told := m.tellings(); told != nil {
				t.Errorf("told: %q", told)
			}
		}
	})
}
