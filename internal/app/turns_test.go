package app

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/rotation"
)

// roomy is an issuer with a budget.
type roomy struct {
	rotation.Issuer
	mu       sync.Mutex
	requests int
	until    time.Time // nothing before
}

func (r *roomy) Room(time.Duration, rotation.Urgency) (int, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if wait := time.Until(r.until); wait > 0 {
		return 0, wait
	}
	return r.requests, 0
}

// queue is those that ask for turns, and who got one.
type queue struct {
	*turns
	mu      sync.Mutex
	order   []int
	release []func()
}

func (q *queue) ask(ctx context.Context, who int, one turn) {
	go func() {
		_, release, err := q.turns.ask(one)(ctx)
		if err != nil {
			return
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		q.order, q.release = append(q.order, who), append(q.release, release)
	}()
	synctest.Wait()
}

// got returns who got a turn since the last call.
func (q *queue) got() []int {
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	order := q.order
	q.order = nil
	return order
}

// end gives one turn back.
func (q *queue) end() {
	q.mu.Lock()
	release := q.release[0]
	q.release = q.release[1:]
	q.mu.Unlock()
	release()
}

// want checks who got a turn since the last call, in any order.
func (q *queue) want(t *testing.T, when string, want ...int) {
	t.Helper()
	got := q.got()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s %v got a turn, want %v", when, got, want)
	}
}

// TestOneTurnForEachToken: a token that is asked for again while its rotation is in hand, as a listing
// may do, holds no second turn. Those would only wait for the first, and other tokens for them.
func TestOneTurnForEachToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10
		l := newLimited(n)
		l.takes = 15 * time.Second
		at := time.Now().Truncate(time.Minute).Add(30 * time.Minute)
		a, stop := l.start(t, n, limitQuota, parsed(fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour()), "UTC"), 0)
		time.Sleep(time.Until(at) + 10*time.Second)
		for i := range n {
			a.engine.begins(t.Context(), fmt.Sprintf("token-%04d", i+1))
		}
		synctest.Wait()
		turns := a.engine.turns["prod"]
		turns.mu.Lock()
		inHand := turns.inHand
		turns.mu.Unlock()
		if inHand != n {
			t.Errorf("%d turns are held for %d tokens", inHand, n)
		}
		time.Sleep(5 * time.Minute)
		stop()
		if done := len(l.finished()); done != n {
			t.Errorf("%d rotations of %d tokens", done, n)
		}
	})
}

func TestTurnsGoByUrgency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{turns: newTurns(time.Now)}
		now := time.Now()
		for i := range maxInHand {
			q.ask(t.Context(), i, turn{urgency: rotation.UrgencySlot})
		}
		if n := len(q.got()); n != maxInHand {
			t.Fatalf("%d in hand", n)
		}
		gone, leave := context.WithCancel(t.Context())
		for i, one := range []turn{
			{urgency: rotation.UrgencySlot},                                // 0
			{urgency: rotation.UrgencySlot, close: now.Add(2 * time.Hour)}, // 1
			{urgency: rotation.UrgencySlot, close: now.Add(time.Hour)},     // 2
			{urgency: rotation.UrgencyCatchUp},                             // 3
			{urgency: rotation.UrgencySlot},                                // 4
			{urgency: rotation.UrgencySlot, close: now.Add(3 * time.Minute), closing: now.Add(30 * time.Second), then: rotation.UrgencyClosing},      // 5: becomes urgent
			{urgency: rotation.UrgencySlot, close: now.Add(4 * time.Minute), closing: now.Add(3500 * time.Second), then: rotation.UrgencyClosing},    // 6
			{urgency: rotation.UrgencyClosing, close: now.Add(time.Minute)},                                                                          // 7
			{urgency: rotation.UrgencySlot, close: now.Add(time.Millisecond), closing: now.Add(10 * time.Nanosecond), then: rotation.UrgencyClosing}, // 8: leaves
		} {
			ctx := t.Context()
			if i == 8 {
				ctx = gone
			}
			q.ask(ctx, i, one)
		}
		leave()
		q.want(t, "without any being given back")
		time.Sleep(time.Minute)
		want := []int{7, 5, 3, 6, 2, 1, 0, 4}
		var order []int
		for range want {
			q.end()
			order = append(order, q.got()...)
		}
		if !slices.Equal(order, want) {
			t.Errorf("in the order %v, want %v", order, want)
		}
		// A doubt waits for none of those that wait for the budget.
		for i := range maxUrgentMore + 1 {
			q.ask(t.Context(), 100+i, turn{urgency: rotation.UrgencyDoubt})
		}
		q.want(t, "beyond those in hand", 100, 101, 102, 103)
		if q.remote.Len() != 1 || q.closing.Len() != 0 {
			t.Errorf("%d wait, %d of them for their window to end", q.remote.Len(), q.closing.Len())
		}
	})
}

// TestNoTurnWithoutRoom: who would wait for Cloudflare gets no turn, and who needs it not does.
func TestNoTurnWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := &roomy{requests: 2, until: time.Now().Add(5 * time.Minute)}
		q := &queue{turns: newTurns(time.Now)}
		q.rationedBy(issuer)
		for i := range 4 {
			q.ask(t.Context(), i, turn{urgency: rotation.UrgencyManual})
		}
		q.ask(t.Context(), 10, turn{urgency: rotation.UrgencyDoubt, local: true})
		q.want(t, "while it must be left alone", 10)
		time.Sleep(5*time.Minute - time.Nanosecond)
		q.want(t, "a moment too early")
		time.Sleep(time.Nanosecond)
		q.want(t, "with room for two", 0, 1)
		issuer.mu.Lock()
		issuer.requests = 3
		issuer.mu.Unlock()
		time.Sleep(roomAgain)
		q.want(t, "with room for three", 2)
		q.end() // the one that delivered
		q.want(t, "with room for three still")
		q.end()
		q.want(t, "when one is done", 3)
	})
}

// TestManyWait: each turn costs little, however many wait.
func TestManyWait(t *testing.T) {
	const n = 100_000
	q := newTurns(time.Now)
	for i := range n { // as take does, but for a goroutine each
		q.push(&turn{urgency: rotation.Urgency(i % 4), closing: time.Unix(int64(i%977), 0)})
	}
	compared := 0
	for _, queue := range []*turnQueue{&q.remote, &q.local, &q.closing} {
		before := queue.before
		queue.before = func(a, b *turn) bool { compared++; return before(a, b) }
	}
	q.mu.Lock()
	q.pump()
	q.mu.Unlock()
	for granted := maxInHand; granted < n; granted++ {
		q.release(&turn{})
	}
	if each := compared / n; each > 200 || q.remote.Len() != 0 || q.closing.Len() != 0 {
		t.Errorf("%d comparisons for each of %d turns; %d still wait", each, n, q.remote.Len())
	}
}

func TestTurnOf(t *testing.T) {
	now := time.Date(2026, 11, 24, 4, 0, 0, 0, time.UTC)
	slot := rotation.Due{Begin: now.Add(-time.Hour), Close: now.Add(time.Hour), Trigger: rotation.TriggerSchedule, Reason: rotation.DueSlot}
	with := func(change func(*rotation.Due)) rotation.Due { d := slot; change(&d); return d }
	for name, test := range map[string]struct {
		step    rotation.Step
		due     rotation.Due
		urgency rotation.Urgency
		local   bool
		closing time.Time
	}{
		"a slot":           {due: slot, urgency: rotation.UrgencySlot, closing: now.Add(48 * time.Minute)},
		"without a window": {due: with(func(d *rotation.Due) { d.Close = time.Time{} }), urgency: rotation.UrgencySlot},
		"near its end":     {due: with(func(d *rotation.Due) { d.Close = now.Add(6 * time.Minute) }), urgency: rotation.UrgencyClosing},
		"of a short window": {due: with(func(d *rotation.Due) { d.Begin, d.Close = now, now.Add(2*time.Minute) }),
			urgency: rotation.UrgencySlot, closing: now.Add(time.Minute)},
		"caught up": {due: with(func(d *rotation.Due) { d.Trigger, d.Close = rotation.TriggerCatchUp, time.Time{} }), urgency: rotation.UrgencyCatchUp},
		"ordered": {due: rotation.Due{Trigger: rotation.TriggerManual, Reason: rotation.DueReissue},
			urgency: rotation.UrgencyManual},
		"a lost secret": {due: rotation.Due{Trigger: rotation.TriggerRecovery, Reason: rotation.DueReissue}, urgency: rotation.UrgencyDoubt},
		"in doubt":      {step: rotation.StepInDoubt, urgency: rotation.UrgencyDoubt},
		"perhaps asked": {step: rotation.StepIntent, urgency: rotation.UrgencyDoubt, local: true},
		"sealed":        {step: rotation.StepSealed, urgency: rotation.UrgencyDoubt, local: true},
		"stored":        {step: rotation.StepStored, urgency: rotation.UrgencyDoubt, local: true},
		"claimed":       {step: rotation.StepClaimed, due: rotation.Due{Trigger: rotation.TriggerRecovery}, urgency: rotation.UrgencySlot},
	} {
		one := turnOf(scheduled{record: rotation.Record{Step: test.step}, due: test.due}, now)
		if one.urgency != test.urgency || one.local != test.local || !one.closing.Equal(test.closing) {
			t.Errorf("%s: urgency %d, local %t, closing %s", name, one.urgency, one.local, one.closing)
		}
	}
}

// TestTurnsKeepTheirOrder: those who ask first get the turns that are free, whoever is the first to
// wait.
func TestTurnsKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		q := &queue{turns: newTurns(time.Now)}
		const most = maxInHand + maxUrgentMore
		var waits []func()
		for i := range 2 * most {
			wait := q.turns.ask(turn{urgency: rotation.UrgencyManual, close: time.Now().Add(time.Duration(i))})
			waits = append(waits, func() {
				if _, _, err := wait(ctx); err == nil {
					q.mu.Lock()
					defer q.mu.Unlock()
					q.order = append(q.order, i)
				}
			})
		}
		for _, wait := range slices.Backward(waits) {
			go wait()
		}
		var first []int
		for i := range most {
			first = append(first, i)
		}
		q.want(t, "of those who asked together", first...)
	})
}

// TestTurnsOfChores: what is to be done beside rotations waits for all others, but not what revokes
// a leaked secret, and it does not hold up a rotation that is due.
func TestTurnsOfChores(t *testing.T) {
	now := time.Now()
	chore := scheduled{chore: now, due: rotation.Due{At: now.Add(time.Hour)}}
	ordered := chore
	ordered.due = rotation.Due{At: now, Trigger: rotation.TriggerManual, Reason: rotation.DueOrdered}
	ordered.record.Order = &rotation.Order{Since: now}
	graced, revoked, failed := chore, chore, chore
	graced.record.Replaced = []rotation.Replaced{{At: now, Promised: true}}
	revoked.record.Replaced = []rotation.Replaced{{At: now}}
	failed.record.Replaced = []rotation.Replaced{{At: now, NotBefore: now.Add(time.Minute)}}
	for name, test := range map[string]struct {
		of   scheduled
		want rotation.Urgency
	}{
		"a renewal":            {chore, rotation.UrgencyRoutine},
		"beside an order":      {ordered, rotation.UrgencyManual},
		"the end of a grace":   {graced, rotation.UrgencyRoutine},
		"a revocation":         {revoked, rotation.UrgencyManual},
		"one that has to wait": {failed, rotation.UrgencyRoutine},
	} {
		if got := turnOf(test.of, now); got.urgency != test.want || got.local {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
