package admission

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/rotation"
)

// spend sends requests one after the other for d, each of which takes a while, and returns when they were
// sent.
func spend(t *testing.T, b *Budget, d, takes time.Duration) (sent []time.Time) {
	t.Helper()
	for start := time.Now(); time.Since(start) < d; {
		if err := b.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		end := b.Begin()
		sent = append(sent, time.Now())
		time.Sleep(takes)
		end(Answer{})
	}
	return sent
}

// fullest returns the largest number of these times within any five minutes.
func fullest(at []time.Time) int {
	most, first := 0, 0
	for i := range at {
		for at[i].Sub(at[first]) >= Window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// TestBudgetHoldsWithoutHeaders sends as fast as the budget allows for half an hour, and counts the fullest
// five minutes. No header says anything.
func TestBudgetHoldsWithoutHeaders(t *testing.T) {
	for _, limit := range []int{1, 2, 7, 1000} {
		synctest.Test(t, func(t *testing.T) {
			sent := spend(t, NewBudget(limit), 30*time.Minute, 0)
			if most := fullest(sent); most > limit {
				t.Errorf("budget %d: %d requests in five minutes", limit, most)
			}
			if least := limit * 59 / 10; len(sent) < least {
				t.Errorf("budget %d: only %d requests in 30 minutes, want at least %d", limit, len(sent), least)
			}
		})
	}
}

func TestBudgetGivesUpAtOnceWhenItWouldTakeTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(2)
		spend(t, b, time.Minute, time.Minute)
		spend(t, b, time.Minute, time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		var none *NoCapacityError
		if err := b.Take(ctx); !errors.As(err, &none) || none.Wait != 4*time.Minute || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// TestUrgentFirst: requests leave by urgency, then in the order in which they came. A few are reserved for
// doubts and operators.
func TestUrgentFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 200
		b := NewBudget(limit)
		admit := func(u rotation.Urgency) bool {
			ctx, cancel := context.WithTimeout(rotation.WithUrgency(t.Context(), u), 2*Window/3)
			defer cancel()
			if b.Take(ctx) != nil {
				return false
			}
			end := b.Begin()
			time.Sleep(10 * time.Millisecond)
			end(Answer{})
			return true
		}
		start := time.Now()
		for spent := 0; admit(rotation.UrgencySlot); spent++ {
			if spent > limit {
				t.Fatal("more than the limit")
			}
		}
		for i := range limit / 100 {
			if !admit(rotation.UrgencyManual) {
				t.Errorf("the %d. urgent one was not admitted after %s", i+1, time.Since(start))
			}
		}
		b = NewBudget(1)
		b.Begin()(Answer{})
		var mu sync.Mutex
		var order []rotation.Urgency
		var all sync.WaitGroup
		for _, u := range []rotation.Urgency{rotation.UrgencySlot, rotation.UrgencyRoutine, rotation.UrgencyDoubt, rotation.UrgencyClosing,
			rotation.UrgencyManual, rotation.UrgencyCatchUp, rotation.UrgencyEmergency, rotation.UrgencyDoubt, rotation.UrgencySlot} {
			all.Go(func() {
				if err := b.Take(rotation.WithUrgency(t.Context(), u)); err != nil {
					t.Error(err)
				}
				b.Begin()(Answer{})
				mu.Lock()
				order = append(order, u)
				mu.Unlock()
			})
			synctest.Wait()
		}
		all.Wait()
		if len(order) != 9 || !slices.IsSortedFunc(order, func(x, y rotation.Urgency) int { return int(y - x) }) {
			t.Errorf("served in the order %v", order)
		}
	})
}

// TestEmergency: consumers are cut off, and the estimates say to wait. An emergency goes first and at once.
// Only Cloudflare's refusal and requests_per_5m hold it up.
func TestEmergency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 200
		b := NewBudget(limit)
		said := func(left int) Answer {
			return Answer{Answered: true, Limit: Report{Said: true, Left: left, Reset: Window, Quota: 1200, Length: Window}}
		}
		at := func(u rotation.Urgency) time.Duration {
			start := time.Now()
			if err := b.Take(rotation.WithUrgency(t.Context(), u)); err != nil {
				t.Error(err)
			}
			return time.Since(start)
		}
		b.Begin()(said(1)) // other users have used the rest
		var others atomic.Int32
		var all sync.WaitGroup
		for _, u := range []rotation.Urgency{rotation.UrgencySlot, rotation.UrgencyManual, rotation.UrgencyDoubt} {
			all.Go(func() {
				at(u)
				others.Add(1)
				b.Begin()(said(1000))
			})
			synctest.Wait()
		}
		for n := range 50 {
			if requests, wait := b.Capacity(30*time.Second, rotation.UrgencyEmergency); requests != limit-n-1 || wait != 0 {
				t.Errorf("capacity for %d emergencies, after %s", requests, wait)
			}
			if waited := at(rotation.UrgencyEmergency); waited > 0 || others.Load() > 0 {
				t.Fatalf("emergency %d waited %s, after %d others", n+1, waited, others.Load())
			}
			b.Begin()(said(0))
		}
		all.Wait()
		for b.counted(time.Now()) < limit {
			at(rotation.UrgencyEmergency)
			b.Begin()(said(1000))
		}
		if waited := at(rotation.UrgencyEmergency); waited == 0 {
			t.Error("more than requests_per_5m were sent")
		}
		b.Begin()(Answer{Answered: true, Refused: true, Throttle: time.Minute})
		var none *NoCapacityError
		if err := b.Take(rotation.WithUrgency(t.Context(), rotation.UrgencyEmergency)); !errors.As(err, &none) || !none.Blocked || none.Wait != time.Minute {
			t.Errorf("while Cloudflare asks to be left alone: %v", err)
		}
	})
}

// TestWhoLeavesTakesNothing: a request whose context ends gives up its place, even if it was admitted in that
// very moment. A request that was admitted and never sent is forgotten.
func TestWhoLeavesTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(2)
		for range 2 {
			if err := b.Take(t.Context()); err != nil { // and never sends it
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- b.Take(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who left was told %v", err)
		}
		start := time.Now()
		if err := b.Take(t.Context()); err != nil || time.Since(start) > admittedLife {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		b = NewBudget(1)
		for range 3 { // either may be seen first
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if b.Take(ctx) == nil {
				b.Begin()(Answer{Unsent: true})
			}
		}
		if n := b.counted(time.Now()); n != 0 {
			t.Errorf("%d are spent by requests that were not sent", n)
		}
	})
}

// TestIdleBudgetsAreDropped: a credential that was replaced keeps its budget while its requests count.
func TestIdleBudgetsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewBudgets()
		u, other := s.Join(1000), s.Join(10)
		u.CountEarlier([]time.Time{time.Now()})
		first, second := Key{BaseURL: "first"}, Key{BaseURL: "second"}
		old := u.Budget(first)
		if n := old.counted(time.Now()); n != 1 {
			t.Errorf("%d requests count, want that of the process before", n)
		}
		if u.Budget(second) == old || other.Budget(second) != u.Current() || u.Current().limit != 10 {
			t.Error("the budgets are not shared by key")
		}
		if u.Budget(second); len(s.all) != 2 {
			t.Errorf("%d budgets are kept, want also the old one", len(s.all))
		}
		other.Close()
		if limit := u.Current().limit; limit != 1000 {
			t.Errorf("after a user has left, the limit is still %d", limit)
		}
		time.Sleep(Window)
		u.Budget(Key{BaseURL: "third"})
		if len(s.all) != 1 {
			t.Errorf("%d budgets are kept, want the one in use", len(s.all))
		}
		u.Close()
		if u.Budget(first); u.Current() != nil {
			t.Error("a user that was closed is in a budget")
		}
	})
}
