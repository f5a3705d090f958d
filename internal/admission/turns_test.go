package admission

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// limitedIssuer is an issuer with a budget.
type limitedIssuer struct {
	rotation.Issuer
	mu       sync.Mutex
	requests int
	until    time.Time // no capacity before this time
}

func (r *limitedIssuer) Capacity(time.Duration, rotation.Urgency) (int, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if wait := time.Until(r.until); wait > 0 {
		return 0, wait
	}
	return r.requests, 0
}

// asking asks for turns, and notes who got one.
type asking struct {
	*Turns
	mu      sync.Mutex
	order   []int
	release []func()
}

func (q *asking) ask(who int, one Turn) {
	q.Ask(one, func(_ rotation.Urgency, release func()) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.order, q.release = append(q.order, who), append(q.release, release)
	})
}

// got returns who got a turn since the last call.
func (q *asking) got() []int {
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	order := q.order
	q.order = nil
	return order
}

// end releases one turn.
func (q *asking) end() {
	q.mu.Lock()
	release := q.release[0]
	q.release = q.release[1:]
	q.mu.Unlock()
	release()
}

// want checks who got a turn since the last call, in any order.
func (q *asking) want(t *testing.T, when string, want ...int) {
	t.Helper()
	got := q.got()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s %v got a turn, want %v", when, got, want)
	}
}

func TestTurnsGoByUrgency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &asking{Turns: newTestTurns()}
		now := time.Now()
		for i := range maxActive {
			q.ask(i, Turn{Urgency: rotation.UrgencySlot})
		}
		if n := len(q.got()); n != maxActive {
			t.Fatalf("%d active", n)
		}
		for i, one := range []Turn{
			{Urgency: rotation.UrgencySlot},                                // 0
			{Urgency: rotation.UrgencySlot, Close: now.Add(2 * time.Hour)}, // 1
			{Urgency: rotation.UrgencySlot, Close: now.Add(time.Hour)},     // 2
			{Urgency: rotation.UrgencyCatchUp},                             // 3
			{Urgency: rotation.UrgencySlot},                                // 4
			{Urgency: rotation.UrgencySlot, Close: now.Add(3 * time.Minute), RisesAt: now.Add(30 * time.Second), RisesTo: rotation.UrgencyClosing},   // 5: becomes urgent
			{Urgency: rotation.UrgencySlot, Close: now.Add(4 * time.Minute), RisesAt: now.Add(3500 * time.Second), RisesTo: rotation.UrgencyClosing}, // 6
			{Urgency: rotation.UrgencyClosing, Close: now.Add(time.Minute)},                                                                          // 7
		} {
			q.ask(i, one)
		}
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
		// A doubt does not wait behind tokens that wait for the budget.
		for i := range maxUrgentMore + 1 {
			q.ask(100+i, Turn{Urgency: rotation.UrgencyDoubt})
		}
		q.want(t, "beyond those that are active", 100, 101, 102, 103)
		if q.remote.len() != 1 || q.rising.len() != 0 {
			t.Errorf("%d wait, %d of them for their window to end", q.remote.len(), q.rising.len())
		}
	})
}

// TestNoTurnWithoutCapacity: a token that would only wait for Cloudflare gets no turn, and a token that does
// not need Cloudflare gets one.
func TestNoTurnWithoutCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := &limitedIssuer{requests: 2, until: time.Now().Add(5 * time.Minute)}
		q := &asking{Turns: newTestTurns()}
		q.LimitBy(issuer)
		for i := range 4 {
			q.ask(i, Turn{Urgency: rotation.UrgencyManual})
		}
		q.ask(10, Turn{Urgency: rotation.UrgencyDoubt, Local: true})
		q.want(t, "while it must be left alone", 10)
		time.Sleep(5*time.Minute - time.Nanosecond)
		q.want(t, "a moment too early")
		time.Sleep(time.Nanosecond)
		q.want(t, "with capacity for two", 0, 1)
		issuer.mu.Lock()
		issuer.requests = 3
		issuer.mu.Unlock()
		time.Sleep(capacityAgain)
		q.want(t, "with capacity for three", 2)
		q.end() // the turn that delivered
		q.want(t, "with capacity for three still")
		q.end()
		q.want(t, "when one is done", 3)
	})
}

// TestManyWait: each turn costs little, however many tokens wait.
func TestManyWait(t *testing.T) {
	const n = 100_000
	q := newTestTurns()
	for i := range n { // as Ask does
		q.push(&Turn{Urgency: rotation.Urgency(i % 4), RisesAt: time.Unix(int64(i%977), 0), begin: func(rotation.Urgency, func()) {}})
	}
	compared := 0
	for _, queue := range []*queue[*Turn]{&q.remote, &q.local, &q.rising} {
		before := queue.before
		queue.before = func(a, b *Turn) bool { compared++; return before(a, b) }
	}
	q.mu.Lock()
	q.grant()
	q.mu.Unlock()
	for granted := maxActive; granted < n; granted++ {
		q.release(&Turn{})
	}
	if each := compared / n; each > 200 || q.remote.len() != 0 || q.rising.len() != 0 {
		t.Errorf("%d comparisons for each of %d turns; %d still wait", each, n, q.remote.len())
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
		one := Work{Record: rotation.Record{Step: test.step}, Due: test.due}.Turn(now)
		if one.Urgency != test.urgency || one.Local != test.local || !one.RisesAt.Equal(test.closing) {
			t.Errorf("%s: urgency %d, local %t, closing %s", name, one.Urgency, one.Local, one.RisesAt)
		}
	}
}

// TestTurnsKeepTheirOrder: tokens that ask first get the free turns, whichever waits first.
func TestTurnsKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &asking{Turns: newTestTurns()}
		const most = maxActive + maxUrgentMore
		for i := range 2 * most {
			q.ask(i, Turn{Urgency: rotation.UrgencyManual, Close: time.Now().Add(time.Duration(i))})
		}
		var first []int
		for i := range most {
			first = append(first, i)
		}
		q.want(t, "of those who asked together", first...)
	})
}

// TestTurnsOfChores: chores wait for everything else, except for the revocation of a leaked secret. A chore
// does not delay a rotation of its token that is due.
func TestTurnsOfChores(t *testing.T) {
	now := time.Now()
	chore := Work{Chore: now, Due: rotation.Due{At: now.Add(time.Hour)}}
	ordered := chore
	ordered.Due = rotation.Due{At: now, Trigger: rotation.TriggerManual, Reason: rotation.DueOrdered}
	ordered.Record.Order = &rotation.Order{Since: now}
	graced, revoked, failed := chore, chore, chore
	graced.Record.Replaced = []rotation.Replaced{{At: now, Promised: true}}
	revoked.Record.Replaced = []rotation.Replaced{{At: now}}
	failed.Record.Replaced = []rotation.Replaced{{At: now, NotBefore: now.Add(time.Minute)}}
	for name, test := range map[string]struct {
		of   Work
		want rotation.Urgency
	}{
		"a renewal":            {chore, rotation.UrgencyRoutine},
		"beside an order":      {ordered, rotation.UrgencyManual},
		"the end of a grace":   {graced, rotation.UrgencyRoutine},
		"a revocation":         {revoked, rotation.UrgencyManual},
		"one that has to wait": {failed, rotation.UrgencyRoutine},
	} {
		if got := test.of.Turn(now); got.Urgency != test.want || got.Local {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestClosedTurns: when the daemon stops, no turn that waits begins any more, also not one that is asked for later, or when
// others end.
func TestClosedTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := &limitedIssuer{requests: 2}
		q := &asking{Turns: newTestTurns()}
		q.LimitBy(issuer)
		for i := range 5 {
			q.ask(i, Turn{Urgency: rotation.UrgencySlot, Close: time.Now().Add(time.Hour), RisesAt: time.Now().Add(time.Minute), RisesTo: rotation.UrgencyClosing})
		}
		q.want(t, "before", 0, 1)
		q.Close()
		q.ask(5, Turn{Urgency: rotation.UrgencyEmergency})
		q.end()
		q.end()
		time.Sleep(time.Hour)
		q.want(t, "after")
		if n := q.Active(); n != 0 {
			t.Errorf("%d are active", n)
		}
	})
}

func newTestTurns() *Turns { return NewTurns(time.Now, new(Total), "prod", func(event.Detail) {}) }

// TestAWaitingTurnThatBecomesAnEmergency: while all turns of an account hang, one that waits begins when it has become so urgent that it may exceed
// their number. It does not wait for one of them to end.
func TestAWaitingTurnThatBecomesAnEmergency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &asking{Turns: NewTurns(time.Now, &Total{}, "prod", func(event.Detail) {})}
		defer q.Close()
		for i := range maxActive {
			q.ask(i, Turn{Urgency: rotation.UrgencySlot})
		}
		q.ask(maxActive, Turn{Urgency: rotation.UrgencySlot, RisesAt: time.Now().Add(2 * time.Minute), RisesTo: rotation.UrgencyEmergency})
		q.ask(maxActive+1, Turn{Urgency: rotation.UrgencySlot, RisesAt: time.Now().Add(time.Minute), RisesTo: rotation.UrgencyEmergency})
		q.ask(maxActive+2, Turn{Urgency: rotation.UrgencySlot, RisesAt: time.Now().Add(time.Minute), RisesTo: rotation.UrgencyClosing})
		if got := q.got(); len(got) != maxActive {
			t.Fatalf("%d turns began", len(got))
		}
		for _, want := range []int{maxActive + 1, maxActive} {
			time.Sleep(time.Minute)
			if got := q.got(); !slices.Equal(got, []int{want}) {
				t.Errorf("%v began, want %d", got, want)
			}
		}
	})
}
