package admission

import (
	"cmp"
	"sync"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// maxActive is how many turns of one account may be active at once. Cloudflare's budget is the narrower
// limit; this one limits connections, memory, and how many tokens a crash can leave in doubt. It is twice as many as a program
// that rotates and stores and does nothing else would need: a turn also waits for the disk, and those that wait together share
// its syncs. Each account has its own, so an account that answers
// slowly, or must be left alone, delays no other. Turns that operators order, or whose consumers may
// be cut off, may exceed it by maxUrgentMore. What all accounts may have together is a [Total].
const (
	maxActive     = 32
	maxUrgentMore = 4
)

// A turn begins when its requests can be expected to leave within capacityWithin: well before the end of
// its claim. The budget is asked again after capacityAgain at the latest. See [Turns.Within] for shorter claims.
const (
	capacityWithin = 30 * time.Second
	capacityAgain  = 5 * time.Second
)

// totalAgain is when a turn that waits for turns of other accounts asks again, if none of its own account ends before.
const totalAgain = time.Second

// Turns give out the turns of one account: by urgency, then to those whose window ends first, then in
// the order of asking. A turn that could only wait for Cloudflare is not given: thousands of tokens that
// are due while an account must be left alone claim nothing and try nothing. Turns is safe for
// concurrent use.
type Turns struct {
	now   func() time.Time
	total *Total

	mu       sync.Mutex
	within   time.Duration                                              // capacityWithin, or less if claims are short
	capacity func(time.Duration, rotation.Urgency) (int, time.Duration) // nil: there is no budget
	active   int
	sending  int          // of the active turns, those that send requests
	remote   queue[*Turn] // turns that wait and will send requests
	local    queue[*Turn] // turns that wait and only deliver what they have
	rising   queue[*Turn] // the waiting turns that become more urgent at some time, by that time
	asked    int
	timer    *time.Timer
	again    time.Time // when the timer fires; zero if it does not
	delay    delay
	closed   bool
}

// Limiter is an issuer with a budget of requests.
type Limiter interface {
	// Capacity returns how many requests of that urgency can be expected to leave within d. If none,
	// it returns how long that will certainly be so.
	Capacity(d time.Duration, u rotation.Urgency) (requests int, wait time.Duration)
}

// Explainer is an issuer that says in words what delays its requests.
type Explainer interface {
	// DelayReason says what delays requests of that urgency now, and until when if that is known; "" if
	// nothing does.
	DelayReason(u rotation.Urgency) (why string, until time.Time)
}

// Turn is a turn that a token asks for.
type Turn struct {
	Urgency rotation.Urgency
	Local   bool             // it sends no requests to the issuer
	Close   time.Time        // when its window ends; zero for never
	RisesAt time.Time        // when it becomes more urgent; zero for never, or if it is so already
	RisesTo rotation.Urgency // how urgent it is then

	asked       int
	begin       func(u rotation.Urgency, release func())
	queue       *queue[*Turn]
	place       int // in its queue; -1 once it left
	placeRising int // in the queue of rising turns; -1 while it is not there
}

// NewTurns returns the turns of an account. now is the wall clock. total is that of all accounts. tell is called
// when rotations begin to wait for the request limit, and when they no longer do; it must not block.
func NewTurns(now func() time.Time, total *Total, account string, tell func(event.Detail)) *Turns {
	t := &Turns{now: now, total: total, within: capacityWithin, delay: delay{account: account, tell: tell}}
	place := func(one *Turn) *int { return &one.place }
	t.remote = queue[*Turn]{before: turnsBefore, place: place}
	t.local = queue[*Turn]{before: turnsBefore, place: place}
	t.rising = queue[*Turn]{before: func(a, b *Turn) bool { return a.RisesAt.Before(b.RisesAt) }, place: func(one *Turn) *int { return &one.placeRising }}
	return t
}

// turnsBefore puts the most urgent turn first, then the one whose window ends first, then the one that
// was asked for first.
func turnsBefore(a, b *Turn) bool {
	if a.Urgency != b.Urgency {
		return a.Urgency > b.Urgency
	}
	if a.Close.Equal(b.Close) || a.Close.IsZero() && b.Close.IsZero() {
		return a.asked < b.asked
	}
	return !a.Close.IsZero() && (b.Close.IsZero() || a.Close.Before(b.Close))
}

// LimitBy sets the issuer whose budget limits the turns, if it is a [Limiter], and who explains what
// they wait for, if it is an [Explainer].
func (t *Turns) LimitBy(issuer any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l, ok := issuer.(Limiter); ok {
		t.capacity = l.Capacity
	}
	if e, ok := issuer.(Explainer); ok {
		t.delay.delayReason = e.DelayReason
	}
}

// Within sets within which time the requests of a turn must be expected to leave, if that is less than half a minute. A
// claim that ends before they can leave was taken without use.
func (t *Turns) Within(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.within = min(d, capacityWithin)
}

// Active returns how many turns are active.
func (t *Turns) Active() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.active
}

// Ask asks for a turn. begin is called when it is given, with how urgent the turn has become; release must be called at its
// end. begin starts what the turn is for and returns at once: it must not use the turns. Nothing waits for a turn but its
// place in the queue, so thousands of tokens can. Turns that are asked for one after the other also begin in that order.
func (t *Turns) Ask(one Turn, begin func(u rotation.Urgency, release func())) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	one.begin = begin
	t.push(&one)
	t.grant()
}

// Close forgets the turns that wait, and gives out no more. Those that are active may end.
func (t *Turns) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.remote.all, t.local.all, t.rising.all = nil, nil, nil
	if t.timer != nil {
		t.timer.Stop()
	}
}

func (t *Turns) release(one *Turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active--
	t.total.end(t.active)
	if !one.Local {
		t.sending--
	}
	t.grant()
}

// push lets a turn wait. t.mu must be held, as for all methods below.
func (t *Turns) push(one *Turn) {
	t.asked++
	one.asked, one.place, one.placeRising = t.asked, -1, -1
	one.queue = &t.remote
	if one.Local {
		one.queue = &t.local
	}
	one.queue.push(one)
	if !one.RisesAt.IsZero() {
		t.rising.push(one)
	}
}

// remove takes a turn out of where it waits.
func (t *Turns) remove(one *Turn) {
	one.queue.remove(one)
	if one.placeRising >= 0 {
		t.rising.remove(one)
	}
}

// grant gives out all turns that may begin now.
func (t *Turns) grant() {
	if t.closed {
		return
	}
	for now := t.now(); t.rising.len() > 0 && !t.rising.first().RisesAt.After(now); {
		one := t.rising.first()
		t.rising.remove(one)
		one.Urgency = max(one.Urgency, one.RisesTo)
		one.queue.moved(one)
	}
	for one := t.next(); one != nil; one = t.next() {
		t.remove(one)
		t.active++
		if !one.Local {
			t.sending++
		}
		one.begin(one.Urgency, func() { t.release(one) })
	}
	if t.rising.len() > 0 { // what is more urgent may exceed limits, while those that are active may hang
		t.grantIn(t.rising.first().RisesAt.Sub(t.now()))
	}
}

// next returns the turn that begins now, which the total has counted; nil if none may begin.
func (t *Turns) next() *Turn {
	if t.local.len() > 0 && t.fits(t.local.first()) && t.count(t.local.first()) {
		return t.local.first()
	}
	if t.remote.len() == 0 {
		t.delay.over(t.now())
		return nil
	}
	one := t.remote.first()
	if !t.fits(one) || !t.affords(one) || !t.count(one) {
		return nil
	}
	return one
}

// affords reports whether the budget has requests for one more turn. If not, it is asked again.
func (t *Turns) affords(one *Turn) bool {
	if t.capacity == nil {
		return true
	}
	requests, wait := t.capacity(t.within, one.Urgency)
	if t.sending < requests || requests > 0 && one.Urgency >= rotation.UrgencyEmergency {
		t.delay.granted(t.now())
		return true
	}
	t.delay.seen(t.now(), one.Urgency, t.remote.len())
	t.grantIn(min(cmp.Or(wait, capacityAgain), capacityAgain, max(t.within, time.Second)))
	return false
}

// fits reports whether the account may have one more active turn.
func (t *Turns) fits(one *Turn) bool {
	return t.active < maxActive+urgentMore(one.Urgency, maxUrgentMore)
}

// count lets the total count one more active turn. If other accounts leave no room for it, it is asked for again.
func (t *Turns) count(one *Turn) bool {
	if t.total.begin(t.active, one.Urgency) {
		return true
	}
	t.grantIn(totalAgain)
	return false
}

// urgentMore returns by how much turns of that urgency may exceed a limit: by more if an operator has ordered it or it is
// a doubt, and by twice that if consumers may be cut off.
func urgentMore(u rotation.Urgency, more int) int {
	switch {
	case u >= rotation.UrgencyEmergency:
		return 2 * more
	case u >= rotation.UrgencyManual:
		return more
	}
	return 0
}

// grantIn lets turns be given again after d, or earlier if that was asked for before.
func (t *Turns) grantIn(d time.Duration) {
	at := time.Now().Add(d)
	switch {
	case t.timer == nil:
		t.timer = time.AfterFunc(d, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.again = time.Time{}
			t.grant()
		})
	case t.again.IsZero() || at.Before(t.again):
		t.timer.Reset(d)
	default:
		return
	}
	t.again = at
}
