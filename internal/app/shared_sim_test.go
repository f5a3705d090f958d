package app

import (
	"context"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/rotation"
)

// TestEachSlotOnce: three replicas share the work, and serve each slot once and on time.
func TestEachSlotOnce(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		for _, name := range []string{"a", "b", "c"} {
			w.up(name, nil)
		}
		pass(time.Minute)
		began := time.Now()
		pass(6*w.every - time.Minute)
		if late := w.served(began, 5); late > 5*time.Second {
			t.Errorf("the latest rotation was %s late", late)
		}
		list := 0
		for _, r := range w.all {
			if n := w.by(r.name, began); n < 10 {
				t.Errorf("%s has made %d of 100 rotations", r.name, n)
			}
			if r.lists("prod") {
				list++
			}
		}
		if list != 1 {
			t.Errorf("%d replicas list the account", list)
		}
	})
}

// TestDeadReplica: what a dead replica would have done, another one does: at once where it had begun nothing, and after
// one claim where it had.
func TestDeadReplica(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		w.slow = 3 * time.Second
		a, _, _ := w.up("a", nil), w.up("b", nil), w.up("c", nil)
		pass(w.every + w.every/20) // in the middle of the rotations
		began := time.Now().Truncate(w.every)
		a.kill()
		pass(w.every - w.every/10)
		w.cloud.mu.Lock()
		served, late := 0, 0
		for _, all := range w.cloud.issued {
			for _, i := range all {
				if i.at.After(began) {
					served++
				}
				if i.at.Sub(began) > w.every/10+w.claim+45*time.Second { // until it counts as dead, and a claim
					late++
				}
			}
		}
		w.cloud.mu.Unlock()
		if served < w.tokens || late > 0 {
			t.Errorf("%d of %d slots are served, %d of them too late", served, w.tokens, late)
		}
		began = time.Now()
		pass(2 * w.every)
		w.served(began, 2)
	})
}

// TestRollingUpdate: each replica is replaced by a new process in the middle of a slot. No slot is skipped, and none is
// served late.
func TestRollingUpdate(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		replicas := map[string]*simulated{}
		names := []string{"a", "b", "c"}
		for _, name := range names {
			replicas[name] = w.up(name, nil)
		}
		pass(time.Minute)
		began := time.Now()
		for _, name := range names {
			pass(time.Until(time.Now().Truncate(w.every).Add(w.every + w.every/20)))
			replicas[name].down()
			pass(5 * time.Second)
			replicas[name] = w.up(name, nil)
		}
		pass(time.Until(time.Now().Truncate(w.every).Add(w.every - time.Minute)))
		if late := w.served(began, 3); late > 15*time.Second {
			t.Errorf("the latest rotation was %s late", late)
		}
		for _, r := range w.all {
			if n := r.tooks.Load(); n > 0 {
				t.Errorf("%s took %d tokens over from one that had stopped in an orderly way", r.name, n)
			}
		}
	})
}

// TestCutOff: a replica that reaches nothing begins nothing, its work is done by the others, and it goes on when it is
// back.
func TestCutOff(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		a, _, _ := w.up("a", nil), w.up("b", nil), w.up("c", nil)
		pass(w.every / 2)
		began := time.Now()
		a.sever()
		pass(2 * w.every)
		w.served(began, 2)
		if err := a.sharing.room.MayBegin(); err == nil || w.by("a", began) > 0 {
			t.Errorf("it may begin: %v", err)
		}
		a.mend()
		pass(time.Minute)
		if err := a.sharing.room.MayBegin(); err != nil {
			t.Error(err)
		}
		began = time.Now()
		pass(3 * w.every)
		w.served(began, 3)
		if w.by("a", began) < 10 {
			t.Errorf("after its return it has made %d of 60 rotations", w.by("a", began))
		}
	})
}

// TestVaultAwayAtStart: a replica lives without Vault, says why it is not ready, and begins when Vault is there.
func TestVaultAwayAtStart(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		client := w.store.Client(func(string, string) kvtest.Fault { return kvtest.Fault{Before: kvtest.ErrLost} })
		a := w.up("a", client)
		pass(10 * time.Minute)
		bad := map[string]string{}
		for _, c := range a.sharing.ready() {
			if !c.OK {
				bad[c.Name] = c.Detail
			}
		}
		if !strings.Contains(bad["shared ledger"], "no answer came") && !strings.Contains(bad["shared ledger"], "not found the other replicas") || bad["replica"] == "" {
			t.Errorf("%q", bad)
		}
		if _, err := a.engine.rotateNow(t.Context(), "ci-1", rotation.Overrides{}, "ops"); err == nil {
			t.Error("a command was carried out without a ledger")
		}
		if _, err := a.Pause(t.Context(), "ci-1", rotation.Pause{Since: time.Now()}); err == nil || !strings.Contains(err.Error(), "ledger") {
			t.Errorf("pausing without a ledger: %v", err)
		}
		a.mend()
		pass(20 * time.Second)
		for _, c := range a.sharing.ready() {
			if !c.OK {
				t.Errorf("%s: %s", c.Name, c.Detail)
			}
		}
		pass(time.Until(time.Now().Truncate(w.every).Add(w.every - time.Second)))
		began := time.Now()
		pass(w.every)
		w.served(began, 1)
	})
}

// TestOthersLearn: within ten seconds every replica knows a pause, its end, an order, a rotation and that a service
// token is gone.
func TestOthersLearn(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		a, b, c := w.up("a", nil), w.up("b", nil), w.up("c", nil)
		pass(time.Minute)
		all := []*simulated{a, b, c}
		learned := func(what string, is func(*simulated) bool) {
			t.Helper()
			pass(10 * time.Second)
			for _, r := range all {
				if !is(r) {
					t.Errorf("%s does not know: %s", r.name, what)
				}
			}
		}
		must(errOf(a.Pause(t.Context(), "ci-3", rotation.Pause{Since: time.Now()})))
		must(errOf(b.Pause(t.Context(), rotation.AllTokens, rotation.Pause{Since: time.Now()})))
		learned("two pauses", func(r *simulated) bool {
			seen, _ := r.engine.view("ci-5")
			return len(r.engine.rotator.Pauses()) == 2 && seen.due.Reason == rotation.DuePaused
		})
		pass(w.every)
		if n := w.by("a", time.Time{}) + w.by("b", time.Time{}) + w.by("c", time.Time{}); n > 0 {
			t.Errorf("%d rotations in a pause", n)
		}
		_, err := c.Resume(t.Context(), rotation.AllTokens)
		must(err)
		learned("the end of a pause", func(r *simulated) bool {
			return !r.engine.rotator.PauseOf("ci-5").On() && r.engine.rotator.PauseOf("ci-3").On()
		})

		before, _ := a.engine.view("ci-3")
		_, err = b.engine.rotateNow(t.Context(), "ci-3", rotation.Overrides{Pause: true}, "ops")
		must(err)
		learned("a rotation", func(r *simulated) bool {
			seen, _ := r.engine.view("ci-3")
			return seen.record.Last != nil && seen.record.Revision > before.record.Revision && seen.record.Hold == nil && seen.record.Step == rotation.StepIdle
		})
		for _, ordered := range a.engine.rotator.OrderAll(t.Context(), []rotation.Token{w.token(a, "ci-3")}, rotation.Overrides{}, "ops") {
			must(ordered.Err)
			a.engine.plan(ordered.Token, ordered.Record, 0)
		}
		learned("an order", func(r *simulated) bool { seen, _ := r.engine.view("ci-3"); return seen.record.Order != nil })
	})
}

// errOf returns the error of two results.
func errOf[T any](_ T, err error) error { return err }

// TestWrongClock: a replica with a wrong clock begins nothing and says so; the others do its work.
func TestWrongClock(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		a, b, c := w.up("a", nil), w.up("b", nil), w.up("c", nil)
		pass(w.every / 2)
		for _, wrong := range []time.Duration{time.Hour, -7 * time.Minute} {
			began := time.Now()
			b.wall.Store(int64(wrong))
			pass(20 * time.Second)
			if err := b.sharing.room.MayBegin(); err == nil || !strings.Contains(err.Error(), "clock") {
				t.Errorf("%s: %v", wrong, err)
			}
			if shown := a.Replicas(); len(shown.Replicas) != 3 || shown.Replicas[1].StandsAside == "" || shown.Replicas[1].ClockOffset < wrong.Seconds()-1 || shown.StandsAside != "" {
				t.Errorf("a shows %+v", shown)
			}
			if shown := b.Replicas(); shown.StandsAside == "" {
				t.Errorf("b shows %+v", shown)
			}
			if _, err := b.engine.rotateNow(t.Context(), "ci-1", rotation.Overrides{}, "ops"); err == nil {
				t.Error("a command was carried out")
			}
			pass(2*w.every - 20*time.Second)
			w.served(began, 2)
			if w.by("b", began) > 0 {
				t.Errorf("%s: it has rotated", wrong)
			}
			b.wall.Store(0)
			pass(20 * time.Second)
			if err := b.sharing.room.MayBegin(); err != nil {
				t.Error(err)
			}
			pass(w.every - 20*time.Second)
			w.served(began, 3)
		}
		if a.Replicas().Living() != 3 || c.Replicas().Living() != 3 {
			t.Error("not all live")
		}
	})
}

// TestOneName: the second of two processes with one name begins nothing, and says so.
func TestOneName(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		a := w.up("a", nil)
		pass(time.Minute)
		twin := w.upIn("a", "another one", nil)
		pass(time.Minute)
		if err := twin.sharing.room.MayBegin(); err == nil || a.sharing.room.MayBegin() != nil {
			t.Errorf("%v, %v", a.sharing.room.MayBegin(), err)
		}
		began := time.Now()
		pass(2 * w.every)
		w.served(began, 2)
	})
}

// TestLateAnswers: the answers of one replica come long after its claims. What it gets is never delivered over something
// newer, and in the end every sink has the latest secret and no answer is left on its disk.
func TestLateAnswers(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		w.grace = 3 * time.Minute
		a, b, c := w.up("a", nil), w.up("b", nil), w.up("c", nil)
		pass(w.every / 2)
		a.slow.Store(int64(2 * time.Minute)) // four claims
		pass(w.every)
		a.slow.Store(0)
		if n := b.tooks.Load() + c.tooks.Load(); n < 3 {
			t.Errorf("only %d tokens were taken over, so this proves little", n)
		}
		pass(3*w.every + w.every/2)
		if left, _ := a.disk.Sealed(); len(left) > 0 {
			t.Errorf("%d answers are left: %v", len(left), left)
		}
		began := time.Now().Truncate(w.every).Add(w.every - time.Second)
		pass(time.Until(began) + 2*w.every)
		w.served(began, 2)
	})
}

// TestCopies: answers that cannot be delivered at once are copied, so that others deliver them when their replica has
// died with its disk. No copy is left.
func TestCopies(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		a, b, _ := w.up("a", nil), w.up("b", nil), w.up("c", nil)
		pass(w.every / 2)
		began := time.Now()
		a.sinksAway.Store(true)
		pass(w.every/2 + w.every/5)
		mine := w.by("a", began)
		a.kill()
		if mine < 3 {
			t.Errorf("only %d rotations were begun by the replica that cannot deliver", mine)
		}
		pass(w.every/2 - w.every/5 - time.Second)
		w.served(began, 1) // nothing was rotated twice
		w.cloud.mu.Lock()
		for id, all := range w.cloud.issued {
			if !w.cloud.stored[id].ClientSecret.Equal(livingSecret(len(all))) {
				t.Errorf("%s: its secret was not delivered", id)
			}
		}
		w.cloud.mu.Unlock()
		pass(2 * w.every)
		files, err := b.sharing.copies.Files(t.Context())
		if err != nil || len(files) > 0 {
			t.Errorf("%d copies are left: %v", len(files), err)
		}
	})
}

// TestSweptCopies: a copy that no rotation needs is removed after a while, and one that is needed is not.
func TestSweptCopies(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		a := w.up("a", nil)
		pass(time.Minute)
		for _, id := range []string{"STRAY", "NEEDED"} {
			must(a.disk.Seal(t.Context(), rotation.PendingKey{RotationID: id, Token: "ci-1"}, rotation.Issued{}))
			must(a.sharing.copies.Copy(t.Context(), rotation.PendingKey{RotationID: id, Token: "ci-1"}))
		}
		records, err := a.state.ledger.All(t.Context())
		must(err)
		for i := range records {
			if records[i].Token == "ci-1" {
				records[i].Abandoned = []string{"NEEDED"}
			}
		}
		for _, want := range []int{2, 1} {
			must(a.sharing.sweepCopies(t.Context(), records))
			files, err := a.sharing.copies.Files(t.Context())
			if err != nil || len(files) != want || files[0].RotationID != "NEEDED" {
				t.Errorf("%d copies are left, want %d: %v", len(files), want, err)
			}
			pass(copyMinAge + time.Minute)
		}
	})
}

// TestUnreadableRecord: a record that cannot be used stops its own token alone, also where a replica starts with it. It is
// shown with that token.
func TestUnreadableRecord(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		a := w.up("a", nil)
		pass(w.every / 2)
		w.store.Delete("tokens/ci-1")
		a.sharing.note([]string{nameAll})
		pass(time.Minute)
		b := w.up("b", nil)
		pass(time.Minute)
		for _, r := range []*simulated{a, b} {
			for name, want := range map[string]bool{"ci-1": true, "ci-2": false} {
				seen, _ := r.engine.view(name)
				if (seen.unreadable != nil) != want {
					t.Errorf("%s shows of %s: %v", r.name, name, seen.unreadable)
				}
			}
			if !r.sharing.isJoined() {
				t.Errorf("%s has not joined", r.name)
			}
		}
		pass(2 * w.every)
		w.cloud.mu.Lock()
		defer w.cloud.mu.Unlock()
		if len(w.cloud.issued["ci-1"]) > 0 || len(w.cloud.issued) != w.tokens-1 {
			t.Errorf("%d tokens were rotated, that one %d times", len(w.cloud.issued), len(w.cloud.issued["ci-1"]))
		}
	})
}

// TestInventoryAfterPreference: a replica that was to list an account, and to which another one has told its listing
// then, learns that listing when it does not come first any more.
func TestInventoryAfterPreference(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		w.up("a", nil)
		w.up("b", nil)
		pass(time.Minute)
		for _, r := range w.all {
			if r.lists("prod") {
				continue
			}
			must(r.sharing.tellInventory(t.Context(), "prod", inventoryEntry{Format: inventoryFormat, At: time.Now(), By: "another", Size: 7}, true))
			learned := r.newAccount(config.Account{Name: "prod", InventoryEvery: time.Hour, RequestsPer5m: 1200})
			r.mu.Lock()
			r.accounts["prod"] = learned
			r.mu.Unlock()
			ctx, cancel := context.WithTimeout(t.Context(), 2*listsEvery)
			if r.waitToList(ctx, "prod", learned) {
				t.Errorf("%s lists the account", r.name)
			}
			cancel()
			if !learned.inventoried.Load() || learned.size.Load() != 7 {
				t.Errorf("%s has not learned what was listed", r.name)
			}
		}
	})
}
