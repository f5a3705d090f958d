package app

import (
	"cmp"
	"container/heap"
	"context"
	"sync"
	"time"

	"rotatord/internal/rotation"
)

// maxInHand is how many rotations of one account may be in hand at once. Cloudflare's
// budget is the narrower bound; this one limits connections and memory. Each account has
// its own, so that one which answers slowly, or must be left alone, holds up no other.
// Beyond it, a few that operators order, or whose consumers may be cut off, need not wait
// for those that wait for the budget.
const (
	maxInHand     = 16
	maxUrgentMore = 4
)

// A rotation begins when its requests can be expected to leave within roomWithin: well before
// the end of its claim. Whether they can is looked at again after roomAgain at the latest.
const (
	roomWithin = 30 * time.Second
	roomAgain  = 5 * time.Second
)

// turns hand out the account's turns by urgency, then to those whose window ends first, then
// in the order of asking. Nobody gets one who could not but wait for Cloudflare: thousands
// of tokens that are due while an account must be left alone claim nothing and try nothing.
type turns struct {
	now func() time.Time

	mu      sync.Mutex
	room    func(time.Duration, rotation.Urgency) (int, time.Duration) // nil: there is no budget
	inHand  int
	asking  int       // of those in hand, that send requests
	remote  turnQueue // wait, and will send requests
	local   turnQueue // wait, and deliver what they have
	closing turnQueue // those among both that become more urgent at some time, by that time
	asked   int
	timer   *time.Timer
	delay   delay
}

// budgeted is an issuer that says how many requests of that urgency it will let through
// within d or, if none, for how long at least none will be.
type budgeted interface {
	Room(d time.Duration, u rotation.Urgency) (requests int, wait time.Duration)
}

// turn is one that is asked for.
type turn struct {
	urgency rotation.Urgency
	local   bool             // it sends no requests to the issuer
	close   time.Time        // when its window ends; zero for never
	closing time.Time        // from when on it is more urgent; zero for never, or if it is so already
	then    rotation.Urgency // how urgent it is then
	asked   int
	granted chan struct{}
	queue   *turnQueue
	place   [2]int // in its queue, and in the one of closing; -1 for not there
}

func newTurns(now func() time.Time) *turns {
	t := &turns{now: now}
	t.remote = turnQueue{before: urgentFirst}
	t.local = turnQueue{before: urgentFirst}
	t.closing = turnQueue{before: func(a, b *turn) bool { return a.closing.Before(b.closing) }, which: 1}
	return t
}

func urgentFirst(a, b *turn) bool {
	if a.urgency != b.urgency {
		return a.urgency > b.urgency
	}
	if a.close.Equal(b.close) || a.close.IsZero() && b.close.IsZero() {
		return a.asked < b.asked
	}
	return !a.close.IsZero() && (b.close.IsZero() || a.close.Before(b.close))
}

// rationedBy sets whose budget the turns go by.
func (t *turns) rationedBy(issuer rotation.Issuer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b, ok := issuer.(budgeted); ok {
		t.room = b.Room
	}
	if b, ok := issuer.(explained); ok {
		t.delay.heldUp = b.HeldUp
	}
}

// ask asks for a turn, and returns what waits for it within a context. On success that returns
// how urgent it has become, and release must be called; it is to be called in any case. Those
// who ask one after the other come in that order also where turns are free.
func (t *turns) ask(one turn) (wait func(context.Context) (u rotation.Urgency, release func(), err error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.push(&one)
	t.pump()
	return func(ctx context.Context) (rotation.Urgency, func(), error) { return t.await(ctx, &one) }
}

func (t *turns) await(ctx context.Context, one *turn) (u rotation.Urgency, release func(), err error) {
	select {
	case <-one.granted:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		if !t.giveUp(one) {
			t.release(one)
		}
		return 0, nil, err
	}
	return one.urgency, func() { t.release(one) }, nil
}

// giveUp takes a turn out that still waits, or returns false.
func (t *turns) giveUp(one *turn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.place[0] < 0 {
		return false
	}
	t.leave(one)
	return true
}

func (t *turns) release(one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inHand--
	if !one.local {
		t.asking--
	}
	t.pump()
}

// push lets a turn wait. t.mu must be held, as for all below.
func (t *turns) push(one *turn) {
	t.asked++
	one.asked, one.granted, one.place = t.asked, make(chan struct{}), [2]int{-1, -1}
	one.queue = &t.remote
	if one.local {
		one.queue = &t.local
	}
	heap.Push(one.queue, one)
	if !one.closing.IsZero() {
		heap.Push(&t.closing, one)
	}
}

// leave takes a turn out of where it waits.
func (t *turns) leave(one *turn) {
	heap.Remove(one.queue, one.place[0])
	if one.place[1] >= 0 {
		heap.Remove(&t.closing, one.place[1])
	}
}

// pump hands out what there is.
func (t *turns) pump() {
	for now := t.now(); len(t.closing.all) > 0 && !t.closing.all[0].closing.After(now); {
		one := heap.Pop(&t.closing).(*turn)
		one.urgency = max(one.urgency, one.then)
		heap.Fix(one.queue, one.place[0])
	}
	for {
		one := t.next()
		if one == nil {
			return
		}
		t.leave(one)
		t.inHand++
		if !one.local {
			t.asking++
		}
		close(one.granted)
	}
}

// next is whose turn it is; nil if it is nobody's.
func (t *turns) next() *turn {
	if len(t.local.all) > 0 && t.fits(t.local.all[0]) {
		return t.local.all[0]
	}
	if len(t.remote.all) == 0 {
		t.delay.over(t.now())
		return nil
	}
	if !t.fits(t.remote.all[0]) {
		return nil
	}
	one := t.remote.all[0]
	if t.room == nil {
		return one
	}
	requests, wait := t.room(roomWithin, one.urgency)
	if t.asking < requests || requests > 0 && one.urgency >= rotation.UrgencyEmergency {
		t.delay.granted(t.now())
		return one
	}
	t.delay.seen(t.now(), one.urgency, len(t.remote.all))
	t.lookIn(min(cmp.Or(wait, roomAgain), roomAgain))
	return nil
}

// fits reports whether one more may be in hand.
func (t *turns) fits(one *turn) bool {
	most := maxInHand
	if one.urgency >= rotation.UrgencyManual {
		most += maxUrgentMore
	}
	if one.urgency >= rotation.UrgencyEmergency {
		most += maxUrgentMore
	}
	return t.inHand < most
}

func (t *turns) lookIn(d time.Duration) {
	if t.timer != nil {
		t.timer.Reset(d)
		return
	}
	t.timer = time.AfterFunc(d, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.pump()
	})
}

// turnOf is what a token that is due asks for.
func turnOf(s scheduled, now time.Time) turn {
	one := pendingTurn(s, now)
	switch at := s.record.EmergencyAt(); {
	case at.IsZero():
	case !at.After(now):
		one.urgency, one.closing = rotation.UrgencyEmergency, time.Time{}
	default:
		one.closing, one.then = at, rotation.UrgencyEmergency
	}
	return one
}

func pendingTurn(s scheduled, now time.Time) turn {
	switch s.record.Step {
	case rotation.StepIntent, rotation.StepSealed, rotation.StepStored:
		return turn{urgency: rotation.UrgencyDoubt, local: true} // what was answered, if anything, is here
	case rotation.StepInDoubt:
		return turn{urgency: rotation.UrgencyDoubt}
	}
	if !s.chore.IsZero() && !s.chore.After(now) { // it is done first, and what else is due asks again
		return choreTurn(s, now)
	}
	return rotationTurn(s, now)
}

// choreTurn is that of what is to be done beside rotations. It holds up no rotation that is due,
// and what was leaked is revoked like what was ordered.
func choreTurn(s scheduled, now time.Time) turn {
	one := turn{urgency: rotation.UrgencyRoutine}
	if !s.due.Unscheduled && !s.due.At.After(now) {
		one = rotationTurn(s, now)
	}
	if end := s.record.Facts.ExpiresAt; !end.IsZero() && end.Sub(now) < rotation.EmergencyAhead { // it is to be renewed
		one.urgency = rotation.UrgencyEmergency
	}
	for _, old := range s.record.Replaced {
		if !old.Promised && !old.At.After(now) && !old.NotBefore.After(now) {
			one.urgency = max(one.urgency, rotation.UrgencyManual)
		}
	}
	return one
}

func rotationTurn(s scheduled, now time.Time) turn {
	one := turn{urgency: rotation.UrgencySlot, close: s.due.Close}
	switch {
	case s.due.Reason == rotation.DueOrdered: // those that were ordered together come in that order
		return turn{urgency: rotation.UrgencyManual, close: s.record.Order.Since}
	case s.due.Trigger == rotation.TriggerManual:
		one.urgency = rotation.UrgencyManual
	case s.due.Reason == rotation.DueReissue:
		one.urgency = rotation.UrgencyDoubt
	case s.due.Trigger == rotation.TriggerCatchUp:
		one.urgency = rotation.UrgencyCatchUp
	}
	if !one.close.IsZero() {
		one.then = rotation.UrgencyClosing
		one.closing = one.close.Add(-max(one.close.Sub(s.due.Begin)/10, time.Minute))
		if !one.closing.After(now) {
			one.urgency, one.closing = max(one.urgency, rotation.UrgencyClosing), time.Time{}
		}
	}
	return one
}

// turnQueue is a heap.
type turnQueue struct {
	all    []*turn
	before func(a, b *turn) bool
	which  int // of a turn's places
}

func (q *turnQueue) Len() int           { return len(q.all) }
func (q *turnQueue) Less(i, j int) bool { return q.before(q.all[i], q.all[j]) }
func (q *turnQueue) Swap(i, j int) {
	q.all[i], q.all[j] = q.all[j], q.all[i]
	q.all[i].place[q.which], q.all[j].place[q.which] = i, j
}
func (q *turnQueue) Push(x any) {
	one := x.(*turn)
	one.place[q.which] = len(q.all)
	q.all = append(q.all, one)
}
func (q *turnQueue) Pop() any {
	last := len(q.all) - 1
	one := q.all[last]
	q.all[last] = nil
	q.all = q.all[:last]
	one.place[q.which] = -1
	return one
}
