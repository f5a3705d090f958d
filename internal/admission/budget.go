package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"rotatord/internal/moment"
	"rotatord/internal/rotation"
)

// Window is the window of Cloudflare's rate limit, and its documented penalty.
const Window = 5 * time.Minute

const (
	// admittedLife is how long a request may take from its admission to its sending. One that was not
	// sent by then never will be: the deadline of its claim is over.
	admittedLife = 150 * time.Second
	// lookAgain limits for how long a budget relies on what it knew: what is left to others shrinks
	// with the time that they have left.
	lookAgain = time.Second
	// urgentWait is how long an urgent request can wait, if it comes at a bad moment.
	urgentWait = 30 * time.Second
	// refusalWaitMin is the shortest wait after a 429 that names no time in the future, or that
	// follows another 429. It doubles with each further one, up to Cloudflare's documented penalty.
	refusalWaitMin = 5 * time.Second
)

// Budget is the budget of requests of one credential, which all clients of that credential share. It
// admits requests by urgency, then in the order in which they came. It is safe for concurrent use.
//
// Guarantee: all budgets of one server together admit at most [perSecond] requests within any second, also urgent ones, and
// at most [mostAway] of them arrive there within any second, however long each was on its way.
//
// Guarantee: whatever the answers say, and if they say nothing, at most requests_per_5m requests are at
// Cloudflare within any five minutes. A request counts from when it may leave until five minutes after
// its answer arrived, so it does not matter how long it was on its way.
type Budget struct {
	mu       sync.Mutex
	users    map[*User]int // the limit that each user's account sets
	sharers  int           // processes that share the limit; 0 for this one alone
	limit    int           // this process's share of the smallest of them, at least 1
	finished []time.Time   // when requests were over, oldest first, while they count
	inFlight int           // requests that were sent and are not over
	admitted []time.Time   // when the requests were admitted that were not sent yet
	pacer    pacer

	blockedUntil time.Time // until when nothing may be sent
	usedUp       bool      // because no request was left, and not because of a 429
	refusedUntil time.Time // until when a 429 to this process lasts; what other processes have said is not in it
	refusals     int       // 429s in a row
	refusedAt    time.Time // when the last of them came
	unclear      bool      // the last of them named no time in the future

	credit       float64 // what the pace has allowed and no request has used
	creditAt     time.Time
	lastAdmitted time.Time // when a request was last admitted
	address      *address  // what all credentials send to this server

	waiting queue[*waiter]
	arrived int
	timer   *time.Timer
}

// NewBudget returns a budget of so many requests in five minutes.
func NewBudget(limit int) *Budget {
	return &Budget{limit: limit, address: &address{}, users: make(map[*User]int), waiting: queue[*waiter]{before: waitsBefore, place: func(w *waiter) *int { return &w.place }}}
}

// waiter is a request that waits to be admitted.
type waiter struct {
	urgency  rotation.Urgency
	arrived  int
	place    int
	admitted chan error
}

// waitsBefore puts the most urgent request first, then the one that came first.
func waitsBefore(a, b *waiter) bool {
	if a.urgency != b.urgency {
		return a.urgency > b.urgency
	}
	return a.arrived < b.arrived
}

// NoCapacityError says that a request cannot be admitted soon enough.
type NoCapacityError struct {
	Wait    time.Duration // at least
	Blocked bool          // because Cloudflare said so
}

// Error implements error.
func (e *NoCapacityError) Error() string {
	return fmt.Sprintf("no request can leave before %s from now", e.Wait.Round(time.Second))
}

func (b *Budget) join(u *User, limit int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users[u] = limit
	b.setLimit()
}

func (b *Budget) leave(u *User) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.users, u)
	b.setLimit()
}

// share leaves to this process an equal part of the limit.
func (b *Budget) share(sharers int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sharers = sharers
	b.setLimit()
}

// setLimit takes a part of the smallest limit of all users. Without users the limit stays. b.mu must be held.
func (b *Budget) setLimit() {
	if len(b.users) > 0 {
		b.limit = max(1, slices.Min(slices.Collect(maps.Values(b.users)))/max(1, b.sharers))
	}
	b.admit(time.Now())
}

// countEarlier counts requests that an earlier process of ours sent.
func (b *Budget) countEarlier(at []time.Time) {
	if len(at) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, finished := range at {
		if finished.After(now) { // the clock was set back since
			finished = now
		}
		b.finished = append(b.finished, finished)
	}
	slices.SortFunc(b.finished, time.Time.Compare)
	b.forget(now)
	b.admit(now)
}

// idle reports whether the budget has no users and nothing counts any more.
func (b *Budget) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	return len(b.users) == 0 && b.counted(now) == 0 && b.waiting.len() == 0 && !now.Before(b.blockedUntil)
}

// Take waits within ctx until one request may leave. It returns a [*NoCapacityError] at once if ctx
// would certainly end before that, or if Cloudflare asked to be left alone. After a Take, the caller
// sends one request, with [Budget.Send], or none.
func (b *Budget) Take(ctx context.Context) error {
	b.mu.Lock()
	now := time.Now()
	urgency := rotation.UrgencyOf(ctx)
	if left := b.blockedUntil.Sub(now); left > 0 {
		b.mu.Unlock()
		return &NoCapacityError{left, true}
	}
	if deadline, ok := ctx.Deadline(); ok {
		if wait := b.minWait(now, urgency); wait > deadline.Sub(now) {
			b.mu.Unlock()
			return &NoCapacityError{Wait: wait}
		}
	}
	b.arrived++
	w := &waiter{urgency: urgency, arrived: b.arrived, admitted: make(chan error, 1)}
	b.waiting.push(w)
	b.admit(now)
	b.mu.Unlock()
	select {
	case err := <-w.admitted:
		return err
	case <-ctx.Done():
		return b.giveUp(ctx, w)
	}
}

// giveUp takes back a request whose context has ended.
func (b *Budget) giveUp(ctx context.Context, w *waiter) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if w.place >= 0 {
		b.waiting.remove(w)
	} else if <-w.admitted == nil && len(b.admitted) > 0 { // it was admitted in this very moment
		b.admitted = b.admitted[:len(b.admitted)-1]
	}
	wait := b.minWait(now, w.urgency)
	b.admit(now)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &NoCapacityError{Wait: max(wait, lookAgain)}
	}
	return ctx.Err()
}

// Send waits within ctx until Cloudflare's limit for one address lets a request leave, which is hardly ever longer than a
// moment: those that were admitted may have been delayed, and leave together. Then it says that the request is sent now, as
// [Budget.Begin] does. With an error nothing may be sent.
func (b *Budget) Send(ctx context.Context) (end func(Answer) (blocked, more time.Duration), err error) {
	b.mu.Lock()
	address, most := b.address, b.ofSecond(mostAway)
	b.mu.Unlock()
	if err := address.depart(ctx, most); err != nil {
		return nil, err
	}
	over := b.Begin()
	return func(a Answer) (blocked, more time.Duration) {
		address.arrived(time.Now(), a.Unsent)
		return over(a)
	}, nil
}

// Begin says that a request is sent now, which the limit of the address does not count. The caller must call end with its
// answer. end returns how long nothing will be sent from then on, and how much longer that is because of the answer.
func (b *Budget) Begin() (end func(Answer) (blocked, more time.Duration)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// The newest: entries of requests that are never sent then stay at the front, and expire.
	if n := len(b.admitted); n > 0 {
		b.admitted = b.admitted[:n-1]
	}
	b.inFlight++
	sent := time.Now()
	return func(a Answer) (blocked, more time.Duration) { return b.end(sent, a) }
}

// Answer says what became of a request.
type Answer struct {
	Unsent   bool          // it never left
	Answered bool          // an answer arrived
	Refused  bool          // the answer was a 429
	Throttle time.Duration // how long Cloudflare asks us to send nothing, 0 if it does not say
	Limit    Report        // what the headers say
}

func (b *Budget) end(sent time.Time, a Answer) (blocked, more time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.inFlight--
	if !a.Unsent {
		b.finished = append(b.finished, now)
		b.forget(now)
		b.pacer.observe(observation{sent: sent, at: now, answered: a.Answered, Report: a.Limit}, b.finished, b.inFlight)
	}
	wait, before := b.waitAfter(sent, now, a), max(b.blockedUntil.Sub(now), 0)
	if until := now.Add(wait); wait > 0 && until.After(b.blockedUntil) { // never shortened
		b.blockedUntil, b.usedUp = until, !a.Refused
	}
	if a.Refused {
		b.refusedUntil = moment.Max(b.refusedUntil, now.Add(wait))
	}
	blocked = max(b.blockedUntil.Sub(now), 0)
	b.admit(now)
	return blocked, blocked - before
}

// waitAfter returns how long nothing may be sent after an answer. Cloudflare says so itself, but a
// server that refuses again and again, and each time says "now" or "in a second", must not be asked at
// that pace forever.
func (b *Budget) waitAfter(sent, now time.Time, a Answer) time.Duration {
	if !a.Refused {
		if a.Answered && sent.After(b.refusedAt) && !b.unclear {
			b.refusals = 0
		}
		return a.Throttle
	}
	if !sent.Before(b.refusedAt) { // else it was under way together with one that was refused
		if now.Sub(b.blockedUntil) >= Window {
			b.refusals = 0
		}
		b.refusals, b.refusedAt, b.unclear = b.refusals+1, now, a.Throttle <= 0
	}
	if b.refusals < 2 && a.Throttle > 0 {
		return a.Throttle
	}
	return max(a.Throttle, min(refusalWaitMin<<min(max(b.refusals-1, 0), 10), Window))
}

// refused returns how long nothing is sent because Cloudflare answered this process with a 429.
func (b *Budget) refused() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(time.Until(b.refusedUntil), 0)
}

// block sends nothing for a time, because another process was answered with a 429. A longer wait stays.
func (b *Budget) block(until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if until.After(now) && until.After(b.blockedUntil) {
		b.blockedUntil, b.usedUp = until, false
		b.admit(now) // tells those that wait
	}
}

// forget drops what no longer counts. b.mu must be held, as for all methods below that are not exported.
func (b *Budget) forget(now time.Time) {
	old := 0
	for old < len(b.finished) && now.Sub(b.finished[old]) >= Window {
		old++
	}
	if b.finished = b.finished[old:]; len(b.finished) == 0 {
		b.finished = nil // and the memory before it
	}
	old = 0
	for old < len(b.admitted) && now.Sub(b.admitted[old]) >= admittedLife {
		old++
	}
	b.admitted = b.admitted[old:]
}

// counted returns how many requests count now.
func (b *Budget) counted(now time.Time) int {
	b.forget(now)
	return len(b.finished) + b.pending()
}

// pending returns how many requests were admitted and are not over.
func (b *Budget) pending() int { return b.inFlight + len(b.admitted) }

// reserved returns how many requests are reserved for more urgent work: a hundredth, for operators and
// doubts.
func (b *Budget) reserved(u rotation.Urgency) int {
	if u >= rotation.UrgencyManual {
		return 0
	}
	return b.limit / 100
}

// load returns what our own requests take, as requests of this urgency see it.
func (b *Budget) load(u rotation.Urgency) load {
	return load{finished: len(b.finished), pending: b.pending(), reserved: b.reserved(u), limit: b.limit, sinceLast: time.Since(b.lastAdmitted), urgent: u >= rotation.UrgencyManual}
}

// limitWait returns how long requests_per_5m lets nothing through. The reserve may be spent if as much
// becomes free soon.
func (b *Budget) limitWait(now time.Time, u rotation.Urgency) time.Duration {
	over := b.counted(now) - b.limit
	wait := time.Duration(0)
	for _, must := range []struct {
		over int
		in   time.Duration
	}{{over, 0}, {over + b.reserved(u), urgentWait}} {
		switch {
		case must.over < 0:
		case must.over < len(b.finished):
			wait = max(wait, Window-now.Sub(b.finished[must.over])-must.in)
		default:
			wait = max(wait, lookAgain) // each of those under way counts for at least five minutes more
		}
	}
	return wait
}

// minWait returns how long a request has to wait for certain.
func (b *Budget) minWait(now time.Time, u rotation.Urgency) time.Duration {
	wait := max(b.blockedUntil.Sub(now), b.limitWait(now, u))
	if u < rotation.UrgencyEmergency {
		wait = max(wait, b.pacer.usedUp(now, b.load(u)))
	}
	return wait
}

// delay returns how long to wait before the next request is admitted, or before looking again; 0 if it
// may be admitted now, as far as this credential is concerned. An emergency does not wait for estimates: only Cloudflare's
// own refusal and requests_per_5m delay it.
func (b *Budget) delay(now time.Time, u rotation.Urgency) time.Duration {
	if wait := max(b.blockedUntil.Sub(now), b.limitWait(now, u)); wait > 0 {
		return wait
	}
	if u >= rotation.UrgencyEmergency {
		return 0
	}
	current := b.pacer.pace(now, b.load(u))
	if current.oneByOne {
		if b.pending() == 0 || now.Sub(b.lastAdmitted) >= lookAgain {
			return 0
		}
		return lookAgain - now.Sub(b.lastAdmitted)
	}
	b.credit = min(b.credit+current.rate*now.Sub(b.creditAt).Seconds(), maxBurst)
	b.creditAt = now
	switch {
	case current.atOnce, current.allowed && b.credit >= 1:
		return 0
	case current.probe > 0 && now.Sub(b.lastAdmitted) >= current.probe:
		return 0
	case current.allowed && current.rate > 0:
		wait := time.Duration((1 - b.credit) / current.rate * float64(time.Second))
		return min(max(wait, time.Millisecond), lookAgain)
	default:
		return lookAgain
	}
}

// admit admits the requests that may leave now, and sets the timer for the others.
func (b *Budget) admit(now time.Time) {
	for b.waiting.len() > 0 {
		w := b.waiting.first()
		if left := b.blockedUntil.Sub(now); left > 0 { // none of them need wait to be told
			b.waiting.remove(w)
			w.admitted <- &NoCapacityError{left, true}
			continue
		}
		wait := b.delay(now, w.urgency)
		if wait <= 0 {
			wait = b.address.take(now, b.ofSecond(perSecond))
		}
		if wait > 0 {
			b.admitIn(wait)
			return
		}
		b.credit = max(b.credit-1, 0)
		b.lastAdmitted = now
		b.admitted = append(b.admitted, now)
		b.pacer.silent.note(now)
		b.waiting.remove(w)
		w.admitted <- nil
	}
}

func (b *Budget) admitIn(d time.Duration) {
	if b.timer == nil {
		b.timer = time.AfterFunc(d, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.admit(time.Now())
		})
		return
	}
	b.timer.Reset(d)
}

// Capacity returns how many requests of this urgency can be expected to be admitted within d. If none,
// it returns how long that will certainly be so.
func (b *Budget) Capacity(d time.Duration, u rotation.Urgency) (requests int, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if wait := b.minWait(now, u); wait > 0 {
		return 0, wait
	}
	hard := b.limit - b.reserved(u) - b.counted(now)
	for _, finished := range b.finished {
		if Window-now.Sub(finished) > d {
			break
		}
		hard++
	}
	if u < rotation.UrgencyEmergency {
		paced := b.pacer.capacity(now, d, b.load(u))
		if paced < 1 && b.pending() == 0 && b.waiting.len() == 0 && b.delay(now, u) == 0 {
			paced = 1 // whatever is expected of a short time, one may leave now
		}
		hard = min(hard, paced)
	}
	return max(hard, 0), 0
}

// DelayReason says in words what delays a request of this urgency now, and until when if that is known;
// "" if nothing does.
func (b *Budget) DelayReason(u rotation.Urgency) (why string, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, r := time.Now(), &b.pacer.reported
	if now.Before(b.blockedUntil) {
		if b.usedUp {
			return "Cloudflare says that no request is left", b.blockedUntil
		}
		return "Cloudflare asked to be left alone: 429", b.blockedUntil
	}
	if wait := b.limitWait(now, u); wait > 0 {
		return fmt.Sprintf("requests_per_5m: %d requests were sent in the last five minutes", b.counted(now)), now.Add(wait)
	}
	if u >= rotation.UrgencyEmergency {
		return "", time.Time{}
	}
	left := fmt.Sprintf("Cloudflare says that %d of %d requests are left", r.left, r.quota)
	if wait := b.pacer.usedUp(now, b.load(u)); wait > 0 {
		return left, r.ends
	}
	switch current := b.pacer.pace(now, b.load(u)); {
	case current.oneByOne, current.atOnce:
		return "", time.Time{}
	case current.allowed && current.rate >= 1:
		return "", time.Time{}
	case current.allowed:
		return "the requests are spread over five minutes", time.Time{}
	case current.probe > 0:
		return fmt.Sprintf("%s, which others seem to need: one request every %s until then", left, current.probe), r.ends
	default:
		return left + ", which others seem to need", r.ends
	}
}
