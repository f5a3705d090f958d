package app

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// shows returns what a replica shows of the sharing of all tokens, by name.
func (r *simulated) shows() map[string]*status.Sharing {
	all := make(map[string]*status.Sharing)
	for _, name := range r.engine.names(nil) {
		seen, _ := r.engine.view(name)
		if s := r.showSharing(seen); s != nil {
			all[name] = s
		}
	}
	return all
}

// TestReplicasShowTheSame: within ten seconds each replica shows which one works on a token and until when, from whom it
// was taken over, and which replicas live.
func TestReplicasShowTheSame(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		a, b, c := w.up("a", nil), w.up("b", nil), w.up("c", nil)
		configured := &config.Config{}
		for i := range w.tokens {
			configured.Tokens = append(configured.Tokens, config.Token{Name: fmt.Sprint("ci-", i)})
		}
		for _, r := range w.all {
			r.mu.Lock()
			r.config = configured
			r.mu.Unlock()
		}
		pass(time.Minute)
		for _, r := range w.all {
			view, prefers := r.Replicas(), 0
			for _, shown := range view.Replicas {
				prefers += shown.Prefers
			}
			if view.Living() != 3 || view.Dead() != nil || prefers != w.tokens || time.Since(view.SyncedAt) > 10*time.Second || view.LedgerError != "" {
				t.Errorf("%s shows %+v", r.name, view)
			}
		}

		a.slow.Store(int64(10 * time.Minute)) // its answers do not come any more
		pass(time.Until(time.Now().Truncate(w.every).Add(w.every + w.every/10 + 10*time.Second)))
		var held []string
		revisions := make(map[string]uint64)
		for name, s := range a.shows() {
			if s.Hold != nil && s.Hold.Replica == "a" && time.Until(s.Hold.Until) > 12*time.Second {
				held = append(held, name)
				seen, _ := a.engine.view(name)
				revisions[name] = seen.record.Revision
			}
		}
		pass(10 * time.Second)
		same := 0
		for _, name := range held {
			if seen, _ := a.engine.view(name); seen.record.Revision != revisions[name] {
				continue // a has saved it since
			}
			for _, r := range []*simulated{b, c} {
				s := r.shows()[name]
				if s == nil || s.Hold == nil || s.Hold.Replica != "a" || s.BegunBy != "a" || s.TakenOverFrom() != "" || time.Until(s.Hold.Until) > w.claim+time.Second {
					t.Errorf("%s shows of %s: %+v", r.name, name, s)
				}
				same++
			}
		}
		if same == 0 {
			t.Fatal("a holds nothing, so this proves nothing")
		}
		a.kill()
		pass(100 * time.Second)
		view := b.Replicas()
		if dead := view.Dead(); !slices.Equal(dead, []string{"a"}) || view.Living() != 2 {
			t.Errorf("b shows %+v", view)
		}
		if s := b.showSharing(scheduled{record: rotation.Record{
			Hold: &rotation.Hold{Replica: "b", Process: "b 2"}, Work: &rotation.Work{Replica: "a", Copied: true},
		}}); s.TakenOverFrom() != "a" || !s.Copied {
			t.Errorf("a token that was taken over is shown as %+v", s)
		}
		pass(2 * w.every)
		for name, s := range c.shows() {
			if s.Hold != nil {
				t.Errorf("%s is shown as held, and nothing is in progress: %+v", name, s.Hold)
			}
		}
	})
}

// TestUnreadIsNotIdle: a replica that has not read the ledger, or not the record of a token, does not say that nothing is wrong.
func TestUnreadIsNotIdle(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		a := w.up("a", w.store.Client(func(string, string) kvtest.Fault { return kvtest.Fault{Before: kvtest.ErrLost} }))
		pass(time.Minute)
		unread := func(name string) bool { seen, _ := a.engine.view(name); return a.isUnread(seen) }
		if view := a.Replicas(); !unread("ci-1") || !view.SyncedAt.IsZero() || view.LedgerError == "" {
			t.Errorf("without Vault: %+v", view)
		}
		if all := status.AllTroubles(nil, nil, a.Replicas(), time.Now()); len(all) != 1 || all[0].Kind != "ledger_unread" || all[0].Severity != status.Critical {
			t.Errorf("without Vault: %+v", all)
		}
		a.mend()
		pass(20 * time.Second)
		if view := a.Replicas(); unread("ci-1") || time.Since(view.SyncedAt) > 10*time.Second || view.LedgerError != "" || view.Self().StandsAside != "" {
			t.Errorf("with Vault: %+v", view)
		}
		pass(3 * time.Hour) // nothing is told for long, and the view is not old because of that
		if view := a.Replicas(); time.Since(view.SyncedAt) > 10*time.Second {
			t.Errorf("after a quiet time the view is of %s ago", time.Since(view.SyncedAt))
		}
		w.store.Delete("tokens/ci-1")
		a.sharing.note([]string{nameAll})
		pass(time.Minute)
		if !unread("ci-1") || unread("ci-2") {
			t.Error("a deleted record is not shown as unread")
		}
	})
}

// TestLateAnswersAreShown: the replica that keeps a late answer shows it with its token.
func TestLateAnswersAreShown(t *testing.T) {
	simulate(t, func(t *testing.T, w *simulation) {
		w.grace = 30 * time.Second
		a, _, _ := w.up("a", nil), w.up("b", nil), w.up("c", nil)
		pass(w.every / 2)
		a.slow.Store(int64(2 * time.Minute)) // four claims
		shown := 0
		for range 30 {
			pass(30 * time.Second)
			for _, s := range a.shows() {
				for _, late := range s.Late {
					shown++
					if !late.Superseded || late.RotationID == "" || late.SealedAt.IsZero() {
						t.Fatalf("%+v", late)
					}
				}
			}
		}
		a.slow.Store(0)
		if a.late.Load() > 0 && shown == 0 {
			t.Errorf("%d late answers, and none was shown", a.late.Load())
		}
		t.Logf("%d late answers, shown %d times", a.late.Load(), shown)
		pass(4 * w.every)
	})
}
