package shared_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/kvstore"
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/ledger"
	"rotatord/internal/ledger/ledgertest"
	"rotatord/internal/ledger/shared"
	"rotatord/internal/rotation"
)

func TestSuite(t *testing.T) {
	ledgertest.Run(t, ledgertest.Kind{Shared: true, New: func(*testing.T) func() ledger.Ledger {
		var server kvtest.Server
		opened := 0
		return func() ledger.Ledger {
			opened++
			return shared.Open(shared.Options{KV: server.Client(nil), Replica: "a", Process: fmt.Sprint(opened)})
		}
	}})
}

// place is a store with ledgers of several replicas.
type place struct {
	t      *testing.T
	server kvtest.Server
}

// open opens the ledger of a replica, with its way to the store.
func (p *place) open(replica string, more ...func(*shared.Options)) (*shared.Ledger, *kvtest.Client) {
	client := p.server.Client(nil)
	o := shared.Options{KV: client, Replica: replica, Process: replica + "-1"}
	for _, f := range more {
		f(&o)
	}
	return shared.Open(o), client
}

func record(token string) rotation.Record {
	return rotation.Record{Format: rotation.RecordFormat, Token: token, TokenID: "uuid-of-" + token, Account: "prod"}
}

func held(r rotation.Record, replica string, d time.Duration) rotation.Record {
	r.Step, r.Hold = rotation.StepClaimed, &rotation.Hold{Replica: replica, Process: replica + "-1", For: rotation.Grace(d)}
	return r
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestRequests counts what each operation costs.
func TestRequests(t *testing.T) {
	p := &place{t: t}
	l, _ := p.open("a")
	before := map[string]int{}
	spent := func() string {
		var all []string
		for _, operation := range []string{"get", "put", "list", "limit", "remove"} {
			if n := p.server.Count(operation) - before[operation]; n > 0 {
				all = append(all, fmt.Sprintf("%d %s", n, operation))
			}
			before[operation] = p.server.Count(operation)
		}
		return strings.Join(all, ", ")
	}
	var r rotation.Record
	since := rotation.Pause{Since: time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)}
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"a token's first save", func() (err error) { r, err = l.Save(t.Context(), record("ci")); return err }, "1 put, 1 limit"},
		{"a save", func() (err error) { r, err = l.Save(t.Context(), r); return err }, "1 put"},
		{"a conflict", func() error {
			old := r
			old.Revision, old.Failures = 1, 9
			if _, err := l.Save(t.Context(), old); !errors.Is(err, rotation.ErrConflict) {
				return fmt.Errorf("no conflict: %w", err)
			}
			return nil
		}, "1 get, 1 put"},
		{"a load", func() error { _, err := l.Load(t.Context(), "ci"); return err }, "1 get"},
		{"all, the first time", func() error { _, err := l.All(t.Context()); return err }, "1 get, 1 list"},
		{"all", func() error { _, err := l.All(t.Context()); return err }, ""},
		{"refresh", func() error { _, err := l.Refresh(t.Context(), []string{"ci", "cd"}); return err }, "2 get"},
		{"prove", func() error { return l.Prove(t.Context()) }, "1 put"},
		{"the first pause", func() error { _, err := l.SetPause(t.Context(), "ci", &since); return err }, "1 get, 1 put, 1 limit"},
		{"a pause", func() error { _, err := l.SetPause(t.Context(), "cd", &since); return err }, "1 get, 1 put"},
		{"load pauses", func() error { _, err := l.LoadPauses(t.Context()); return err }, "1 get"},
		{"hold left", func() error { l.HoldLeft(r); return nil }, ""},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		if got := spent(); got != step.want {
			t.Errorf("%s: %s; want %s", step.name, got, step.want)
		}
	}
}

// TestLostSave: a save whose answer is lost counts once, or is known not to have happened.
func TestLostSave(t *testing.T) {
	p := &place{t: t}
	l, client := p.open("a")
	r := must[rotation.Record](t)(l.Save(t.Context(), record("ci")))
	once := func(f kvtest.Fault) {
		var mu sync.Mutex
		left := 1
		client.Break(func(operation, _ string) kvtest.Fault {
			mu.Lock()
			defer mu.Unlock()
			if operation != "put" || left == 0 {
				return kvtest.Fault{}
			}
			left--
			return f
		})
	}
	r.Failures = 1
	once(kvtest.Fault{After: kvtest.ErrLost})
	r = must[rotation.Record](t)(l.Save(t.Context(), r))
	if r.Revision != 2 {
		t.Errorf("carried out: revision %d", r.Revision)
	}
	r.Failures = 2
	once(kvtest.Fault{Before: kvtest.ErrLost})
	if _, err := l.Save(t.Context(), r); err == nil || errors.Is(err, rotation.ErrConflict) {
		t.Errorf("not carried out: %v", err)
	}
	if _, err := l.LastWrite(); err == nil {
		t.Error("the failed write is not noted")
	}
	client.Break(nil)
	if now := must[rotation.Record](t)(l.Load(t.Context(), "ci")); now.Failures != 1 || now.Revision != 2 {
		t.Errorf("after both: %+v", now)
	}
	r = must[rotation.Record](t)(l.Save(t.Context(), r)) // and it can be tried again
	// Nobody knows: the answer is lost, and Vault cannot be asked.
	r.Failures = 3
	client.Break(func(operation, _ string) kvtest.Fault { return kvtest.Fault{After: kvtest.ErrLost} })
	if _, err := l.Save(t.Context(), r); err == nil || errors.Is(err, rotation.ErrConflict) {
		t.Errorf("not known: %v", err)
	}
	client.Break(nil)
	if now := must[rotation.Record](t)(l.Load(t.Context(), "ci")); now.Failures != 3 || now.Revision != 4 {
		t.Errorf("it was carried out: %+v", now)
	}
	if again := must[rotation.Record](t)(l.Save(t.Context(), r)); again.Revision != 4 {
		t.Errorf("the same save again counts once: %+v", again)
	}
	r.Failures = 4
	if _, err := l.Save(t.Context(), r); !errors.Is(err, rotation.ErrConflict) {
		t.Errorf("another save against the old revision: %v", err)
	}
}

// TestSameRecord: of two replicas that save the same record at once, one gets a conflict.
func TestSameRecord(t *testing.T) {
	p := &place{t: t}
	a, _ := p.open("a")
	b, _ := p.open("b")
	must[rotation.Record](t)(a.Save(t.Context(), record("ci")))
	if _, err := b.Save(t.Context(), record("ci")); !errors.Is(err, rotation.ErrConflict) {
		t.Error(err)
	}
}

// clock is a VaultClock.
type clock struct {
	reading shared.ClockReading
	ok      bool
}

func (c *clock) VaultNow() (shared.ClockReading, bool) { return c.reading, c.ok }

// TestHoldLeft: the holder stops before another may take over.
func TestHoldLeft(t *testing.T) {
	const claim = time.Minute
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		a, clientA := p.open("a")
		b, _ := p.open("b")
		clientA.Break(func(operation, _ string) kvtest.Fault {
			if operation == "put" {
				return kvtest.Fault{Delay: 3 * time.Second, Late: 2 * time.Second}
			}
			return kvtest.Fault{}
		})
		r := must[rotation.Record](t)(a.Save(t.Context(), held(record("ci"), "a", claim)))
		time.Sleep(4 * time.Second)
		seen := must[rotation.Record](t)(b.Load(t.Context(), "ci"))
		// 9 s since before the write, 6 s since it was carried out.
		for range 3 {
			if own := a.HoldLeft(r); own > 51*time.Second || own < 50*time.Second {
				t.Errorf("its holder has %s", own)
			}
			if other := b.HoldLeft(seen); other != claim {
				t.Errorf("another waits %s", other)
			}
			seen = must[rotation.Record](t)(b.Load(t.Context(), "ci")) // seeing it again changes nothing
			if all := must[[]rotation.Record](t)(b.All(t.Context())); b.HoldLeft(all[0]) != claim {
				t.Errorf("of All: %s", b.HoldLeft(all[0]))
			}
		}
		time.Sleep(30 * time.Second)
		seen = must[rotation.Record](t)(b.Load(t.Context(), "ci"))
		if other := b.HoldLeft(seen); other != 30*time.Second {
			t.Errorf("another waits %s", other)
		}
		time.Sleep(30 * time.Second)
		if own, other := a.HoldLeft(r), b.HoldLeft(seen); own > 0 || other > 0 {
			t.Errorf("at the end: %s, %s", own, other)
		}
		clientA.Break(nil)
		if taken := must[rotation.Record](t)(b.Save(t.Context(), held(seen, "b", claim))); b.HoldLeft(taken) != claim {
			t.Errorf("taken over: %s", b.HoldLeft(taken))
		}
		now := must[rotation.Record](t)(a.Load(t.Context(), "ci"))
		if old, other := a.HoldLeft(r), a.HoldLeft(now); old > 0 || other != claim {
			t.Errorf("after a takeover: %s and %s", old, other)
		}
		if _, err := a.Save(t.Context(), r); !errors.Is(err, rotation.ErrConflict) {
			t.Errorf("the old holder saves: %v", err)
		}
		if free := a.HoldLeft(record("ci")); free != 0 {
			t.Errorf("without a hold: %s", free)
		}
	})
}

// TestHoldOfALostSave: a save that was carried out without an answer holds from before it was sent first.
func TestHoldOfALostSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		a, client := p.open("a")
		client.Break(func(operation, _ string) kvtest.Fault { return kvtest.Fault{After: kvtest.ErrLost} })
		if _, err := a.Save(t.Context(), held(record("ci"), "a", time.Minute)); err == nil {
			t.Fatal("no error")
		}
		client.Break(nil)
		time.Sleep(10 * time.Second)
		if r := must[rotation.Record](t)(a.Load(t.Context(), "ci")); a.HoldLeft(r) != 50*time.Second {
			t.Errorf("%s", a.HoldLeft(r))
		}
		// A process that has not written it knows nothing of when it was, and takes its own name for another's.
		again, _ := p.open("a", func(o *shared.Options) { o.Process = "a-2" })
		if r := must[rotation.Record](t)(again.Load(t.Context(), "ci")); again.HoldLeft(r) != time.Minute {
			t.Errorf("after a restart: %s", again.HoldLeft(r))
		}
	})
}

// TestVaultsClock: a replica that came late knows from Vault's clock that a hold has ended, unless that clock may have
// jumped.
func TestVaultsClock(t *testing.T) {
	const claim = time.Minute
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		ahead := 3 * time.Hour // of Vault's clock
		p.server.Now = func() time.Time { return time.Now().Add(ahead) }
		a, _ := p.open("a")
		must[rotation.Record](t)(a.Save(t.Context(), held(record("ci"), "a", claim)))
		time.Sleep(40 * time.Second)
		for name, test := range map[string]struct {
			since, at time.Duration // before now
			jumped    bool
			want      time.Duration
		}{
			"measured":                   {since: time.Minute, at: -time.Second, want: 20 * time.Second},
			"a jump since":               {since: 30 * time.Second, at: -time.Second, want: claim},
			"not since it was seen":      {since: time.Minute, at: time.Second, want: claim},
			"no reading":                 {jumped: true, want: claim},
			"long before the first look": {since: time.Hour, at: -time.Second, want: 20 * time.Second},
		} {
			vault := p.server.Now()
			c := &clock{shared.ClockReading{Now: vault, Since: vault.Add(-test.since), At: time.Now().Add(-test.at)}, !test.jumped}
			b, _ := p.open("b", func(o *shared.Options) { o.Clock = c })
			r := must[rotation.Record](t)(b.Load(t.Context(), "ci"))
			if left := b.HoldLeft(r); left != test.want {
				t.Errorf("%s: %s, want %s", name, left, test.want)
			}
		}
	})
}

// TestRunLeft: the run of a hook is counted from the first version that was seen with it, whatever is saved meanwhile and
// whatever the record says of the time; and by Vault's clock where that is known.
func TestRunLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		ahead := 3 * time.Hour // of Vault's clock
		p.server.Now = func() time.Time { return time.Now().Add(ahead) }
		a, _ := p.open("a")
		b, _ := p.open("b")
		running := func(revision uint64, attempt int) rotation.Record {
			r := record("ci")
			r.Revision = revision
			r.After = &rotation.After{RotationID: "R", Hooks: []rotation.OwedHook{{
				Name: "exec:reload", Attempts: attempt, Began: time.Now().Add(-24 * time.Hour), // its clock is a day behind
				Runner: &rotation.Hold{Replica: "a", Process: "a-1", For: rotation.Grace(90 * time.Second)},
			}}}
			return r
		}
		left := func(l *shared.Ledger, r rotation.Record) time.Duration { return l.RunLeft("ci", r.After.Hooks[0]) }
		r := must[rotation.Record](t)(a.Save(t.Context(), running(0, 1)))
		time.Sleep(20 * time.Second)
		seen := must[rotation.Record](t)(b.Load(t.Context(), "ci"))
		if got := left(b, seen); got != 90*time.Second {
			t.Errorf("seen first: %s", got)
		}
		r.Failures++ // other work on the token
		must[rotation.Record](t)(a.Save(t.Context(), r))
		time.Sleep(20 * time.Second)
		seen = must[rotation.Record](t)(b.Load(t.Context(), "ci"))
		if got := left(b, seen); got != 70*time.Second {
			t.Errorf("after other work: %s", got)
		}
		c := &clock{shared.ClockReading{Now: p.server.Now(), Since: p.server.Now().Add(-time.Hour), At: time.Now().Add(time.Second)}, true}
		late, _ := p.open("c", func(o *shared.Options) { o.Clock = c })
		if got := left(late, must[rotation.Record](t)(late.Load(t.Context(), "ci"))); got != 70*time.Second { // 20 s since that version was written
			t.Errorf("by Vault's clock: %s", got)
		}
		again := must[rotation.Record](t)(b.Save(t.Context(), running(seen.Revision, 2)))
		if got := left(b, again); got != 90*time.Second {
			t.Errorf("another run: %s", got)
		}
		if old := left(b, seen); old != 90*time.Second {
			t.Errorf("a run of which nothing is known: %s", old)
		}
		endless := running(again.Revision, 3)
		endless.After.Hooks[0].Runner.For = 1<<63 - 1
		if got := left(b, must[rotation.Record](t)(b.Save(t.Context(), endless))); got > shared.MaxHold {
			t.Errorf("it is not bounded: %s", got)
		}
	})
}

// TestHoldsAreBounded: no record makes others wait for ever.
func TestHoldsAreBounded(t *testing.T) {
	p := &place{t: t}
	a, _ := p.open("a")
	b, _ := p.open("b")
	for _, d := range []time.Duration{100000 * time.Hour, 1<<63 - 1, -time.Hour} {
		must[rotation.Record](t)(a.Save(t.Context(), held(record(fmt.Sprint("t", d)[:4]), "a", d)))
	}
	for _, r := range must[[]rotation.Record](t)(b.All(t.Context())) {
		if left := b.HoldLeft(r); left > shared.MaxHold {
			t.Errorf("%v: %s", r.Hold, left)
		}
	}
}

// TestUnusable: an entry that cannot be used is named, with what to do; other tokens go on, and nothing overwrites it.
func TestUnusable(t *testing.T) {
	good := func(revision, format int) string {
		return fmt.Sprintf(`{"format":1,"record":{"format":%d,"revision":%d,"token":"ci","token_id":"x","account":"prod","anchor":"2026-11-29T00:00:00Z"}}`, format, revision)
	}
	for name, test := range map[string]struct {
		do   func(*kvtest.Server)
		want string
	}{
		"not JSON of ours":          {func(s *kvtest.Server) { s.Set("tokens/ci", `{"password":"x"}`) }, "vault kv rollback -version=1 -mount=secret rotatord/tokens/ci && vault kv patch -cas=3 -mount=secret rotatord/tokens/ci accept=1"},
		"another type":              {func(s *kvtest.Server) { s.Set("tokens/ci", `{"format":"x","record":[]}`) }, "no format version"},
		"a newer entry":             {func(s *kvtest.Server) { s.Set("tokens/ci", `{"format":2}`) }, "Update this replica"},
		"a newer record":            {func(s *kvtest.Server) { s.Set("tokens/ci", good(2, rotation.RecordFormat+1)) }, "Update this replica"},
		"a newer record, new types": {func(s *kvtest.Server) { s.Set("tokens/ci", `{"format":1,"record":{"format":99,"step":{"a":1}}}`) }, "Update this replica"},
		"no record":                 {func(s *kvtest.Server) { s.Set("tokens/ci", `{"format":1}`) }, "it has no record"},
		"a null record":             {func(s *kvtest.Server) { s.Set("tokens/ci", `{"format":1,"record":null}`) }, "no format version"},
		"another token's":           {func(s *kvtest.Server) { s.Set("tokens/ci", strings.Replace(good(2, 3), `"ci"`, `"cd"`, 1)) }, `the record of "cd"`},
		"rolled back":               {func(s *kvtest.Server) { s.Set("tokens/ci", good(1, 3)) }, "vault kv patch -cas=2 -mount=secret rotatord/tokens/ci accept=1"},
		"deleted":                   {func(s *kvtest.Server) { s.Delete("tokens/ci") }, "version 1 was deleted"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &place{t: t}
			first, _ := p.open("a")
			saved := must[[]rotation.Record](t)(first.SaveAll(t.Context(), []rotation.Record{record("ci"), record("other")}))
			test.do(&p.server)
			puts := p.server.Count("put")
			l, _ := p.open("b")
			_, err := l.Load(t.Context(), "ci")
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, rotation.ErrConflict) {
				t.Errorf("load: %v", err)
			}
			all, err := l.All(t.Context())
			if err != nil || len(all) != 1 || all[0].Token != "other" || l.Unreadable()["ci"] == nil {
				t.Errorf("all: %v, %v; %v", all, err, l.Unreadable())
			}
			if some, err := l.Refresh(t.Context(), []string{"ci", "other"}); len(some) != 1 || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("refresh: %v, %v", some, err)
			}
			if some, err := l.RefreshAll(t.Context()); len(some) != 1 || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("refresh of all: %v, %v", some, err)
			}
			if _, err := l.Save(t.Context(), record("ci")); !errors.Is(err, rotation.ErrConflict) {
				t.Errorf("enrolled over it: %v", err)
			}
			if err := l.Prove(t.Context()); err != nil {
				t.Error(err)
			}
			// A replica that knows the token goes on to show what it knew.
			if all, _ := first.All(t.Context()); len(all) != 2 {
				t.Errorf("the other replica shows %v", all)
			}
			if name != "deleted" { // there the version is the same, and nobody has written
				if _, err := first.Save(t.Context(), saved[0]); !errors.Is(err, rotation.ErrConflict) {
					t.Errorf("saved over it: %v", err)
				}
			}
			if got := p.server.Count("put") - puts; got > 3 {
				t.Errorf("%d writes", got)
			}
		})
	}
}

// TestAccept: a person may say that an older version is the latest state.
func TestAccept(t *testing.T) {
	p := &place{t: t}
	l, _ := p.open("a")
	r := must[rotation.Record](t)(l.Save(t.Context(), record("ci")))
	must[rotation.Record](t)(l.Save(t.Context(), r))
	p.server.Set("tokens/ci", `{"accept":"1","format":1,"record":{"format":3,"revision":1,"token":"ci","failures":5}}`)
	got := must[rotation.Record](t)(l.Load(t.Context(), "ci"))
	if got.Revision != 3 || got.Failures != 5 {
		t.Errorf("%+v", got)
	}
	must[rotation.Record](t)(l.Save(t.Context(), got))
	if again := must[rotation.Record](t)(l.Load(t.Context(), "ci")); again.Revision != 4 {
		t.Errorf("%+v", again)
	}
}

// TestOlderState: what Vault shows after a restore from a snapshot, or on a node that is behind, is not taken.
func TestOlderState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, restored := &place{t: t}, &place{t: t}
		l, _ := p.open("a")
		r := must[rotation.Record](t)(l.Save(t.Context(), record("ci")))
		old, _ := restored.open("a")
		must[rotation.Record](t)(old.Save(t.Context(), record("ci")))
		time.Sleep(time.Second)
		must[rotation.Record](t)(l.Save(t.Context(), r))
		since := rotation.Pause{Since: time.Now()}
		must[map[string]rotation.Pause](t)(l.SetPause(t.Context(), "ci", &since))

		both := &switched{kv: p.server.Client(nil)}
		s := shared.Open(shared.Options{KV: both, Replica: "b", Process: "b-1"})
		seen := must[rotation.Record](t)(s.Load(t.Context(), "ci"))
		must[map[string]rotation.Pause](t)(s.LoadPauses(t.Context()))
		both.set(restored.server.Client(nil))
		for what, do := range map[string]func() error{
			"load":       func() error { _, err := s.Load(t.Context(), "ci"); return err },
			"refresh":    func() error { _, err := s.RefreshAll(t.Context()); return err },
			"pauses":     func() error { _, err := s.LoadPauses(t.Context()); return err },
			"set pauses": func() error { _, err := s.SetPause(t.Context(), "cd", &since); return err },
		} {
			if err := do(); err == nil || !strings.Contains(err.Error(), "an older state than this replica has seen") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := s.Save(t.Context(), seen); !errors.Is(err, rotation.ErrConflict) {
			t.Errorf("save: %v", err)
		}
		if all, err := s.All(t.Context()); err != nil || len(all) != 1 || all[0].Revision != 2 {
			t.Errorf("all: %v, %v", all, err)
		}
		go func() { time.Sleep(300 * time.Millisecond); both.set(p.server.Client(nil)) }() // it was only behind
		if again, err := s.Load(t.Context(), "ci"); err != nil || again.Revision != 2 {
			t.Errorf("a node that catches up: %+v, %v", again, err)
		}
		// The record was removed, and another replica began again.
		time.Sleep(time.Second)
		other, client := p.open("c")
		if err := client.Remove(t.Context(), "tokens/ci"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(t.Context(), "ci"); err == nil || !strings.Contains(err.Error(), "is gone") {
			t.Errorf("removed: %v", err)
		}
		must[rotation.Record](t)(other.Save(t.Context(), record("ci")))
		if again, err := s.Load(t.Context(), "ci"); err != nil || again.Revision != 1 {
			t.Errorf("begun again: %+v, %v", again, err)
		}
	})
}

// TestForeignNames: an entry below tokens/ that is not a token's is named and changes nothing.
func TestForeignNames(t *testing.T) {
	p := &place{t: t}
	l, _ := p.open("a")
	must[rotation.Record](t)(l.Save(t.Context(), record("a..b...c")))
	p.server.Set("tokens/Some Thing", `{"x":1}`)
	p.server.Set("tokens/.proof", `{}`)
	other, _ := p.open("b")
	all, err := other.All(t.Context())
	if err != nil || len(all) != 1 || all[0].Token != "a..b...c" {
		t.Errorf("%v, %v", all, err)
	}
	if u := other.Unreadable(); len(u) != 1 || !strings.Contains(fmt.Sprint(u), "state.shared.vault.prefix") {
		t.Errorf("%v", u)
	}
}

// TestPausesMeet: replicas that pause at the same moment lose nothing.
func TestPausesMeet(t *testing.T) {
	const replicas, each = 4, 6
	p := &place{t: t}
	var all sync.WaitGroup
	want := map[string]rotation.Pause{}
	for i := range replicas * each {
		want[fmt.Sprintf("t-%d-%d", i/each, i%each)] = rotation.Pause{Since: time.Date(2026, 11, 29, 0, i, 0, 0, time.UTC)}
	}
	for n := range replicas {
		l, _ := p.open(fmt.Sprint("r", n))
		all.Go(func() {
			for i := range each {
				name := fmt.Sprintf("t-%d-%d", n, i)
				pause := want[name]
				if _, err := l.SetPause(t.Context(), name, &pause); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	l, _ := p.open("last")
	got := must[map[string]rotation.Pause](t)(l.LoadPauses(t.Context()))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := l.SavePauses(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if got := must[map[string]rotation.Pause](t)(l.LoadPauses(t.Context())); len(got) != 0 {
		t.Errorf("%v", got)
	}
	late, _ := p.open("late")
	if err := late.SavePauses(t.Context(), want); !errors.Is(err, rotation.ErrConflict) {
		t.Errorf("pauses that were never read are replaced: %v", err)
	}
}

// TestAway: while Vault cannot be reached, All has what was read, and the first read is an error.
func TestAway(t *testing.T) {
	p := &place{t: t}
	l, client := p.open("a")
	must[rotation.Record](t)(l.Save(t.Context(), record("ci")))
	other, otherClient := p.open("b")
	away := func(string, string) kvtest.Fault { return kvtest.Fault{Before: kvtest.ErrLost} }
	otherClient.Break(away)
	if all, err := other.All(t.Context()); !errors.Is(err, kvtest.ErrLost) {
		t.Errorf("the first read: %v, %v", all, err)
	}
	otherClient.Break(func(operation, _ string) kvtest.Fault {
		if operation == "get" {
			return kvtest.Fault{Before: kvtest.ErrLost}
		}
		return kvtest.Fault{}
	})
	if all, err := other.All(t.Context()); !errors.Is(err, kvtest.ErrLost) {
		t.Errorf("half of it: %v, %v", all, err)
	}
	otherClient.Break(nil)
	if all, err := other.All(t.Context()); err != nil || len(all) != 1 || other.Synced().IsZero() {
		t.Errorf("%v, %v", all, err)
	}
	must[[]rotation.Record](t)(l.All(t.Context()))
	client.Break(away)
	if all, err := l.All(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("from memory: %v, %v", all, err)
	}
	if err := l.Prove(t.Context()); err == nil {
		t.Error("proved")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := other.RefreshAll(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestSaved: others are told of each save, also of one whose answer was lost.
func TestSaved(t *testing.T) {
	p := &place{t: t}
	var told []string
	l, client := p.open("a", func(o *shared.Options) {
		o.Saved = func(token string, revision uint64) { told = append(told, fmt.Sprint(token, " ", revision)) }
	})
	r := must[rotation.Record](t)(l.Save(t.Context(), record("ci")))
	client.Break(func(operation, _ string) kvtest.Fault {
		if operation == "put" {
			return kvtest.Fault{After: kvtest.ErrLost}
		}
		return kvtest.Fault{}
	})
	must[rotation.Record](t)(l.Save(t.Context(), r))
	r.Failures = 9
	if _, err := l.Save(t.Context(), r); !errors.Is(err, rotation.ErrConflict) {
		t.Error(err)
	}
	must[map[string]rotation.Pause](t)(l.SetPause(t.Context(), "ci", &rotation.Pause{Since: time.Now()}))
	if fmt.Sprint(told) != "[ci 1 ci 2  1]" {
		t.Errorf("%v", told)
	}
}

// TestSavedInPart: others are told of the records of a batch that were saved, also if the others could not be.
func TestSavedInPart(t *testing.T) {
	p := &place{t: t}
	var mu sync.Mutex
	told := map[string]bool{}
	l, client := p.open("a", func(o *shared.Options) {
		o.Saved = func(token string, _ uint64) { mu.Lock(); defer mu.Unlock(); told[token] = true }
	})
	var batch []rotation.Record
	for i := range 40 {
		batch = append(batch, record(fmt.Sprintf("t%02d", i)))
	}
	client.Break(func(operation, path string) kvtest.Fault {
		if operation == "put" && strings.HasSuffix(path, "/t30") {
			return kvtest.Fault{Before: errors.New("away")}
		}
		return kvtest.Fault{}
	})
	saved, err := l.SaveAll(t.Context(), batch)
	if err == nil || len(saved) != len(batch) || len(told) == 0 || told["t30"] {
		t.Fatalf("%d of %d saved, %d told, %v", len(saved), len(batch), len(told), err)
	}
	for i, r := range saved {
		if token := batch[i].Token; told[token] != (r.Revision > 0) {
			t.Errorf("%s: saved as %d, and others were told: %t", token, r.Revision, told[token])
		}
	}
}

// switched is a KV that can be replaced by another.
type switched struct {
	mu sync.Mutex
	kv kvstore.KV
}

func (s *switched) set(kv kvstore.KV) { s.mu.Lock(); defer s.mu.Unlock(); s.kv = kv }
func (s *switched) now() kvstore.KV   { s.mu.Lock(); defer s.mu.Unlock(); return s.kv }

func (s *switched) Get(ctx context.Context, path string) (kvstore.Entry, error) {
	return s.now().Get(ctx, path)
}
func (s *switched) Put(ctx context.Context, path string, data any, version int) (kvstore.Entry, error) {
	return s.now().Put(ctx, path, data, version)
}
func (s *switched) List(ctx context.Context, dir string) ([]string, error) {
	return s.now().List(ctx, dir)
}
func (s *switched) Limit(ctx context.Context, path string, versions int) error {
	return s.now().Limit(ctx, path, versions)
}
func (s *switched) Remove(ctx context.Context, path string) error { return s.now().Remove(ctx, path) }
func (s *switched) At(path string) string                         { return s.now().At(path) }
