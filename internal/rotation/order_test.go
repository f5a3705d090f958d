package rotation_test

import (
	"errors"
	"testing"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// TestRevokeNow: right after the command, the leaked secret does not work any more. A pause, a freeze and a grace do
// not delay it.
func TestRevokeNow(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.advance(r, token)
		w.mayCutOff = true
		token.Timetable.Freezes = []scheduler.Freeze{{Name: "f", From: time.Now().Add(-time.Hour), To: time.Now().Add(48 * time.Hour)}}
		if err := r.Pause(w.t.Context(), token.Name, rotation.Pause{Since: time.Now()}); err != nil {
			t.Fatal(err)
		}
		leaked, older := w.current, w.previous
		record, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops")
		if err != nil || record.Order != nil || w.accepted(leaked) || w.accepted(older) || w.sink.ClientSecret.Reveal() != w.current || !record.GraceEnd().IsZero() {
			t.Fatal(record, err)
		}
		if record.Last.Trigger != rotation.TriggerManual {
			t.Error(record.Last.Trigger)
		}
	})
	inPair(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		leaked := w.current
		record, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops")
		if err != nil || record.Order != nil || w.rotates != 2 || w.accepted(leaked) {
			t.Fatal(record, err, w.rotates)
		}
		w.check("after both were rotated")
	})
	inFresh(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		record, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops")
		if err != nil || record.Order != nil || w.creates != 2 {
			t.Fatal(record, err)
		}
		if err := w.runNextChore(r, token); err != nil || !w.gone[w.created[0].id] || time.Since(record.Last.At) > time.Second {
			t.Error("the leaked service token still exists", err)
		}
	})
	inFresh(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		if _, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops"); err != nil || w.gone[w.created[0].id] {
			t.Fatal("the replaced service token has no grace", err)
		}
		if _, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops"); err != nil || w.creates != 3 {
			t.Fatal(err)
		}
		if err := w.runNextChore(r, token); err != nil || !w.gone[w.created[0].id] || !w.gone[w.created[1].id] {
			t.Error("a service token that was replaced before is still in its grace", err, w.gone)
		}
	})
}

// TestRevokeOrderSurvivesEveryFault makes each call of a rotation that was ordered fail, and makes the process die at
// each call, before and after it is carried out. In the end the leaked secret does not work any more, and consumers
// have a good one.
func TestRevokeOrderSurvivesEveryFault(t *testing.T) {
	for _, paired := range []bool{false, true} {
		run := inBubble
		if paired {
			run = inPair
		}
		var calls []string
		run(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			_, _ = r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops")
			calls = w.calls
		})
		for n, call := range calls {
			for _, f := range []fault{
				{before: &rotation.IssuerError{Class: rotation.NotCarriedOut}}, {after: &rotation.IssuerError{Class: rotation.Unknown}},
				{before: errors.New("x"), crash: true}, {after: errors.New("x"), crash: true},
			} {
				run(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
					w.mayCutOff = true
					leaked := w.current
					w.fault = func(i int, _ string) fault {
						if i == n {
							return f
						}
						return fault{}
					}
					func() {
						defer func() { _ = recover() }()
						_, _ = r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops")
					}()
					if f.crash {
						r = w.start()
						if _, err := r.Enroll(w.t.Context(), token); err != nil {
							t.Fatal(err)
						}
					}
					if n == 0 && (f.before != nil) { // the order itself was not saved
						return
					}
					start := time.Now()
					for range 12 {
						if record := w.record(); record.Order != nil || record.Step != rotation.StepIdle || rotation.NextDue(token, record, rotation.Pause{}).Reason == rotation.DueReissue {
							w.advance(r, token)
						}
					}
					if record := w.record(); record.Order != nil || record.Step != rotation.StepIdle || w.cfToken.accepted(leaked) || time.Since(start) > 5*time.Minute {
						t.Errorf("pair %t, %s (%d) %+v: after %s the record is %+v; the leaked secret is accepted: %t", paired, call, n, f, time.Since(start), record, w.cfToken.accepted(leaked))
					}
					w.check("at the end")
				})
			}
		}
	}
}

// TestOrderAll: the orders are durable, wait for what they do not override, are not given twice, and can be
// canceled.
func TestOrderAll(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.advance(r, token)
		quick := token
		quick.Name, quick.Grace = "quick", time.Minute
		if _, err := r.Enroll(w.t.Context(), quick); err != nil {
			t.Fatal(err)
		}
		all := r.OrderAll(w.t.Context(), []rotation.Token{token, quick}, rotation.Overrides{}, "ops")
		if len(all) != 2 || all[0].Token != "quick" || all[1].Token != "ci" || all[0].Err != nil || all[1].Err != nil {
			t.Fatalf("the order of the tokens is not by grace, the shortest first: %+v", all)
		}
		if due := rotation.NextDue(token, all[1].Record, rotation.Pause{}); due.Reason != rotation.DueGrace || time.Until(due.At) != 30*time.Minute {
			t.Error("the order does not wait for the grace:", due)
		}
		if first, second := all[0].Record.Order.Since, all[1].Record.Order.Since; !first.Before(second) || second.Sub(first) > time.Second {
			t.Error("the orders in the ledger do not have the right sequence:", first, second)
		}
		given := w.record().Order
		time.Sleep(time.Minute)
		if again := r.OrderAll(w.t.Context(), []rotation.Token{token}, rotation.Overrides{}, "others"); *again[0].Record.Order != *given {
			t.Errorf("the order was replaced: %+v", again[0].Record.Order)
		}
		more := r.OrderAll(w.t.Context(), []rotation.Token{token}, rotation.Overrides{RevokeNow: true}, "others")[0].Record
		if due := rotation.NextDue(token, more, rotation.Pause{}); !more.Order.RevokeNow || due.Reason != rotation.DueOrdered || due.At.After(time.Now()) {
			t.Errorf("a stronger order is ignored: %+v %+v", more.Order, due)
		}
		if changed, err := r.CancelOrders(w.t.Context(), []rotation.Token{token, quick}); err != nil || len(changed) != 2 || w.record().Order != nil {
			t.Error(changed, err)
		}
		if changed, err := r.CancelOrders(w.t.Context(), []rotation.Token{token}); err != nil || len(changed) != 0 {
			t.Error(changed, err)
		}
		if rotates := w.rotates; rotates != 1 {
			t.Error(rotates, "rotates")
		}
	})
}

// TestRevokeOrderDuringADoubt: an order to revoke a leaked secret is carried out even if a rotation is in doubt,
// whether its request was carried out or not.
func TestRevokeOrderDuringADoubt(t *testing.T) {
	give := map[string]func(w *world, r *rotation.Rotator, token rotation.Token) error{
		"one": func(w *world, r *rotation.Rotator, token rotation.Token) error {
			_, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops")
			return err
		},
		"all": func(w *world, r *rotation.Rotator, token rotation.Token) error {
			return r.OrderAll(w.t.Context(), []rotation.Token{token}, rotation.Overrides{RevokeNow: true}, "ops")[0].Err
		},
	}
	for name, order := range give {
		for when, f := range map[string]fault{
			"done":     {after: &rotation.IssuerError{Class: rotation.Unknown}},
			"not done": {before: &rotation.IssuerError{Class: rotation.Unknown}},
		} {
			t.Run(name+", "+when, func(t *testing.T) {
				inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
					old := w.current
					w.failOnce("rotate", f)
					w.advance(r, token)
					if _, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{Grace: true}, "ops"); !errors.Is(err, rotation.ErrNotRotated) {
						t.Error("an order that does not revoke must be refused during a doubt:", err)
					}
					w.mayCutOff = true
					if err := order(w, r, token); err != nil {
						t.Fatal(err)
					}
					for range 3 {
						w.advance(r, token)
					}
					if w.record().Order != nil || w.accepted(old) || w.sink.ClientSecret.Reveal() != w.current {
						t.Errorf("%+v", w.record())
					}
				})
			})
		}
	}
}

// TestRevokeNowWhileASecretIsSealed: the secret that waits for its sink is delivered first, and then the order is
// carried out.
func TestRevokeNowWhileASecretIsSealed(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		old := w.current
		w.failOnce("sink store", fault{before: errors.New("sealed")})
		w.advance(r, token)
		w.mayCutOff = true
		record, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops")
		if err == nil || errors.Is(err, rotation.ErrNotRotated) || record.Step != rotation.StepSealed || record.Order == nil {
			t.Fatal(record, err)
		}
		waiting := w.current
		for range 3 {
			w.advance(r, token)
		}
		if w.record().Order != nil || w.accepted(old) || w.accepted(waiting) || w.sink.ClientSecret.Reveal() != w.current {
			t.Errorf("%+v", w.record())
		}
	})
}

// TestOrderRepeatedWithMoreOverrides: an operator gives a delayed order again, and overrides what it waits for.
func TestOrderRepeatedWithMoreOverrides(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token.Timetable.Freezes = []scheduler.Freeze{{Name: "f", From: time.Now().Add(-time.Hour), To: time.Now().Add(48 * time.Hour)}}
		first := r.OrderAll(w.t.Context(), []rotation.Token{token}, rotation.Overrides{Grace: true}, "ops")[0].Record
		if due := rotation.NextDue(token, first, rotation.Pause{}); due.Reason != rotation.DueFreeze {
			t.Fatal(due.Reason)
		}
		time.Sleep(time.Minute)
		again := r.OrderAll(w.t.Context(), []rotation.Token{token}, rotation.Overrides{Freeze: true}, "others")[0].Record
		if due := rotation.NextDue(token, again, rotation.Pause{}); due.Reason != rotation.DueOrdered || due.At.After(time.Now()) {
			t.Error("the order is still delayed:", due.Reason)
		}
		if !again.Order.Since.Equal(first.Order.Since) || !again.Order.Grace {
			t.Errorf("%+v", again.Order)
		}
	})
}

// TestRevokeOrderWhileTheNewSecretIsRefused: verify refuses the new secret of a pair, and an operator orders to revoke
// the leaked one. Then the operator orders a reissue. Both are carried out.
func TestRevokeOrderWhileTheNewSecretIsRefused(t *testing.T) {
	inPair(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = verifying(w, token)
		w.failAll("probe", fault{before: errors.New("401")})
		leaked := w.current
		for end := time.Now().Add(time.Hour + 5*time.Minute); time.Now().Before(end); {
			w.advance(r, token)
		}
		if ordered := r.OrderAll(w.t.Context(), []rotation.Token{token}, rotation.Overrides{RevokeNow: true}, "ops"); ordered[0].Err != nil || ordered[0].Record.Step != rotation.StepStored {
			t.Fatalf("%+v", ordered)
		}
		w.fault = nil
		w.mayCutOff = true
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveRotateNow); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if record := w.record(); record.Order != nil || record.Step != rotation.StepIdle {
				w.advance(r, token)
			}
		}
		if w.cfToken.accepted(leaked) || w.record().Order != nil {
			t.Errorf("the leaked secret is accepted: %t; %+v", w.cfToken.accepted(leaked), w.record().Order)
		}
		w.check("at the end")
	})
}

// TestOrderAllRepeatedDoesNotRotateTwice: while an order for all tokens is not finished, the same order again does
// not rotate a token twice.
func TestOrderAllRepeatedDoesNotRotateTwice(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		other := token
		other.Name = "other"
		if _, err := r.Enroll(w.t.Context(), other); err != nil {
			t.Fatal(err)
		}
		all, o := []rotation.Token{token, other}, rotation.Overrides{RevokeNow: true}
		r.OrderAll(w.t.Context(), all, o, "ops")
		w.mayCutOff = true
		time.Sleep(time.Millisecond)
		if _, err := r.Advance(w.t.Context(), token); err != nil || w.record().Order != nil {
			t.Fatal(err, w.record().Order)
		}
		time.Sleep(time.Minute)
		for _, again := range r.OrderAll(w.t.Context(), all, o, "ops") {
			if (again.Record.Order == nil) != (again.Token == "ci") || again.Err != nil {
				t.Errorf("%s: %+v, %v", again.Token, again.Record.Order, again.Err)
			}
		}
		if _, err := r.CancelOrders(w.t.Context(), all); err != nil {
			t.Fatal(err)
		}
		for _, ordered := range r.OrderAll(w.t.Context(), all, o, "ops") { // no order is pending, so this is a new one
			if ordered.Record.Order == nil {
				t.Errorf("%s is not ordered again", ordered.Token)
			}
		}
	})
}
