package cloudflare

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// This file holds the budget of requests that all users of one credential share. What is
// known of Cloudflare's own count, and of others who use the credential, stands in
// budget_window.go.
//
// Guarantee: whatever the answers say, or if they say nothing, no more requests than
// requests_per_5m are at Cloudflare within any five minutes. A request counts from when it
// may leave until five minutes after its answer was here, so how long it was on its way is
// of no matter.

// budgetWindow is the window of Cloudflare's rate limit, and its documented penalty.
const budgetWindow = 5 * time.Minute

const (
	// ticketLife is how long a request may take from its admission to its sending. One that
	// was not sent by then never will be: the deadline of its claim is over.
	ticketLife = 150 * time.Second
	// lookAgain bounds for how long a budget goes by what it knew: what is kept for others
	// shrinks with the time that they have left.
	lookAgain = time.Second
	// soon is for how long what is urgent can wait, if it comes at a bad moment.
	soon = 30 * time.Second
)

// Budgets are the budgets of all credentials that the clients of one process use. The zero
// value is not usable; call [NewBudgets].
type Budgets struct {
	mu   sync.Mutex
	all  map[budgetKey]*budget
	used map[*Client]budgetKey // what each used last
}

// budgetKey says what is counted together at Cloudflare.
type budgetKey struct {
	baseURL    string
	credential secret.Digest
}

// NewBudgets returns an empty set.
func NewBudgets() *Budgets {
	return &Budgets{all: make(map[budgetKey]*budget), used: make(map[*Client]budgetKey)}
}

// of returns the budget of what a client uses now.
func (s *Budgets) of(c *Client, key budgetKey) *budget {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was, known := s.used[c]; known && was == key {
		return s.all[key]
	}
	s.leave(c)
	b := s.all[key]
	if b == nil {
		b = newBudget(c.account.RequestsPer5m)
		s.all[key] = b
	}
	if !c.closed.Load() { // else it only ends what it has in hand
		s.used[c] = key
		b.join(c, c.account.RequestsPer5m)
	}
	return b
}

// leave takes a client out of the budget that it used, which lives on for as long as what
// was spent of it counts. s.mu must be held.
func (s *Budgets) leave(c *Client) {
	if b := s.all[s.used[c]]; b != nil {
		b.leave(c)
	}
	delete(s.used, c)
	for key, b := range s.all {
		if b.idle() {
			delete(s.all, key)
		}
	}
}

// budget is what one credential has. It admits requests by urgency, then in the order in
// which they came.
type budget struct {
	mu      sync.Mutex
	users   map[*Client]int // the limit that each one's account sets
	limit   int             // the smallest of them
	ended   []time.Time     // when requests were over, oldest first, while they count
	flying  int             // sent, and not over
	tickets []time.Time     // admitted and not sent: when they were admitted
	window  window
	blocked time.Time // until when nothing may be sent

	credit   float64 // what the pace has let through and nobody took
	creditAt time.Time
	granted  time.Time // the last time that one was admitted

	waiting waiters
	arrived int
	timer   *time.Timer
}

func newBudget(limit int) *budget {
	return &budget{limit: limit, users: make(map[*Client]int)}
}

// errNoRoom says that the budget has no room soon enough.
type errNoRoom struct {
	wait    time.Duration // at least
	blocked bool          // because Cloudflare said so
}

func (e *errNoRoom) Error() string {
	return fmt.Sprintf("there is no room before %s from now", e.wait.Round(time.Second))
}

func (b *budget) join(c *Client, limit int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users[c] = limit
	b.setLimit()
}

func (b *budget) leave(c *Client) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.users, c)
	b.setLimit()
}

func (b *budget) setLimit() {
	first := true
	for _, limit := range b.users {
		if first || limit < b.limit {
			b.limit, first = limit, false
		}
	}
	b.pump(time.Now())
}

// idle reports whether nobody uses it and nothing that was spent counts any more.
func (b *budget) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	return len(b.users) == 0 && b.spent(now) == 0 && len(b.waiting) == 0 && !now.Before(b.blocked)
}

// take waits for one request's worth within ctx. It returns at once if ctx would end before
// that for certain, or if Cloudflare asked to be left alone. Who took one sends one request,
// by begin, or none.
func (b *budget) take(ctx context.Context) error {
	b.mu.Lock()
	now := time.Now()
	urgency := rotation.UrgencyOf(ctx)
	if left := b.blocked.Sub(now); left > 0 {
		b.mu.Unlock()
		return &errNoRoom{left, true}
	}
	if deadline, ok := ctx.Deadline(); ok {
		if wait := b.atLeast(now, urgency); wait > deadline.Sub(now) {
			b.mu.Unlock()
			return &errNoRoom{wait: wait}
		}
	}
	b.arrived++
	w := &waiter{urgency: urgency, arrived: b.arrived, admitted: make(chan error, 1)}
	heap.Push(&b.waiting, w)
	b.pump(now)
	b.mu.Unlock()
	select {
	case err := <-w.admitted:
		return err
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now = time.Now()
	if w.place >= 0 {
		heap.Remove(&b.waiting, w.place)
	} else if <-w.admitted == nil && len(b.tickets) > 0 { // just now, and for nothing
		b.tickets = b.tickets[:len(b.tickets)-1]
	}
	wait := b.atLeast(now, urgency)
	b.pump(now)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &errNoRoom{wait: max(wait, lookAgain)}
	}
	return ctx.Err()
}

// begin says that a request is sent now, and returns what is to be called with its answer.
func (b *budget) begin() (end func(answer)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// The last ticket: those that nobody will use then stay below, and expire.
	if n := len(b.tickets); n > 0 {
		b.tickets = b.tickets[:n-1]
	}
	b.flying++
	sent := time.Now()
	return func(a answer) { b.end(sent, a) }
}

// answer is what became of a request.
type answer struct {
	unsent   bool          // it never left
	answered bool          // something came back
	throttle time.Duration // how long Cloudflare wants to be left alone, 0 if it does not
	limit    ratelimit     // what its headers say
}

func (b *budget) end(sent time.Time, a answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.flying--
	if !a.unsent {
		b.ended = append(b.ended, now)
		b.spent(now) // forgets
		b.window.observe(observation{sent: sent, at: now, answered: a.answered, ratelimit: a.limit}, b.ended, b.flying, b.limit)
	}
	if until := now.Add(a.throttle); a.throttle > 0 && until.After(b.blocked) { // never shortened
		b.blocked = until
	}
	b.pump(now)
}

// spent is how many requests count now. b.mu must be held, as for all below.
func (b *budget) spent(now time.Time) int {
	old := 0
	for old < len(b.ended) && now.Sub(b.ended[old]) >= budgetWindow {
		old++
	}
	if b.ended = b.ended[old:]; len(b.ended) == 0 {
		b.ended = nil // and the memory before it
	}
	old = 0
	for old < len(b.tickets) && now.Sub(b.tickets[old]) >= ticketLife {
		old++
	}
	b.tickets = b.tickets[old:]
	return len(b.ended) + b.pending()
}

// pending is how many were admitted and have no answer.
func (b *budget) pending() int { return b.flying + len(b.tickets) }

// keptBack is what is left for what is more urgent: a hundredth, for operators and doubts.
func (b *budget) keptBack(u rotation.Urgency) int {
	if u >= rotation.UrgencyManual {
		return 0
	}
	return b.limit / 100
}

// full is how long the hard bound lets nothing through. What is kept back may be spent if as
// much comes free soon.
func (b *budget) full(now time.Time, u rotation.Urgency) time.Duration {
	over := b.spent(now) - b.limit
	wait := time.Duration(0)
	for _, must := range []struct {
		over int
		in   time.Duration
	}{{over, 0}, {over + b.keptBack(u), soon}} {
		switch {
		case must.over < 0:
		case must.over < len(b.ended):
			wait = max(wait, budgetWindow-now.Sub(b.ended[must.over])-must.in)
		default:
			wait = max(wait, lookAgain) // of those under way, none counts for less than five minutes more
		}
	}
	return wait
}

// atLeast is how long a request has to wait for certain.
func (b *budget) atLeast(now time.Time, u rotation.Urgency) time.Duration {
	return max(b.blocked.Sub(now), b.full(now, u), b.window.over(now, b.pending(), b.keptBack(u)))
}

// delay is how long to wait before the next request is admitted, or before looking again; 0
// if it may be admitted now.
func (b *budget) delay(now time.Time, u rotation.Urgency) time.Duration {
	if wait := max(b.blocked.Sub(now), b.full(now, u)); wait > 0 {
		return wait
	}
	pace := b.window.pace(now, len(b.ended), b.pending(), b.keptBack(u), b.limit)
	if pace.probe { // one tells of a new window, and the others wait for what it says
		if b.pending() == 0 || now.Sub(b.granted) >= lookAgain {
			return 0
		}
		return lookAgain - now.Sub(b.granted)
	}
	b.credit = min(b.credit+pace.rate*now.Sub(b.creditAt).Seconds(), maxBurst)
	b.creditAt = now
	switch {
	case pace.room && b.credit >= 1:
		return 0
	case pace.room && pace.rate > 0:
		wait := time.Duration((1 - b.credit) / pace.rate * float64(time.Second))
		return min(max(wait, time.Millisecond), lookAgain)
	case pace.trickle > 0 && now.Sub(b.granted) >= pace.trickle:
		return 0
	default:
		return lookAgain
	}
}

// pump admits those that may go now, and sees to it that somebody looks again at the others.
func (b *budget) pump(now time.Time) {
	for len(b.waiting) > 0 {
		if left := b.blocked.Sub(now); left > 0 { // nobody need wait to be told
			heap.Pop(&b.waiting).(*waiter).admitted <- &errNoRoom{left, true}
			continue
		}
		wait := b.delay(now, b.waiting[0].urgency)
		if wait > 0 {
			b.lookIn(wait)
			return
		}
		b.credit = max(b.credit-1, 0)
		b.granted = now
		b.tickets = append(b.tickets, now)
		b.window.sent(now)
		heap.Pop(&b.waiting).(*waiter).admitted <- nil
	}
}

func (b *budget) lookIn(d time.Duration) {
	if b.timer == nil {
		b.timer = time.AfterFunc(d, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.pump(time.Now())
		})
		return
	}
	b.timer.Reset(d)
}

// room is how many requests of that urgency can be expected to be admitted within d, and how
// long nothing will be for certain.
func (b *budget) room(d time.Duration, u rotation.Urgency) (requests int, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if wait := b.atLeast(now, u); wait > 0 {
		return 0, wait
	}
	hard := b.limit - b.keptBack(u) - b.spent(now)
	for _, ended := range b.ended {
		if budgetWindow-now.Sub(ended) > d {
			break
		}
		hard++
	}
	return max(min(hard, b.window.room(now, d, len(b.ended), b.pending(), b.keptBack(u), b.limit)), 0), 0
}

// waiter is a request that waits to be admitted.
type waiter struct {
	urgency  rotation.Urgency
	arrived  int
	place    int // in the heap; -1 once it was taken out
	admitted chan error
}

// waiters is a heap: the most urgent first, then the one that came first.
type waiters []*waiter

func (w waiters) Len() int { return len(w) }
func (w waiters) Less(i, j int) bool {
	if w[i].urgency != w[j].urgency {
		return w[i].urgency > w[j].urgency
	}
	return w[i].arrived < w[j].arrived
}
func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].place, w[j].place = i, j
}
func (w *waiters) Push(x any) {
	one := x.(*waiter)
	one.place = len(*w)
	*w = append(*w, one)
}
func (w *waiters) Pop() any {
	last := len(*w) - 1
	one := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	one.place = -1
	return one
}

// budget returns the one of the credential as it is now.
func (c *Client) budget(ctx context.Context) (*budget, error) {
	login, err := c.readLogin(ctx)
	if err != nil {
		return nil, err
	}
	return c.budgetOf(login), nil
}

func (c *Client) budgetOf(l login) *budget {
	return c.budgets.of(c, budgetKey{c.account.BaseURL, l.digest()})
}

// Close takes the client out of the budget that it shares. What it has in hand may go on.
func (c *Client) Close() {
	c.closed.Store(true)
	c.budgets.mu.Lock()
	defer c.budgets.mu.Unlock()
	c.budgets.leave(c)
}

// Room says how many requests of that urgency can be expected to be admitted within d, and if
// none, for how long at least none will be. The scheduler asks, so it reads no file.
func (c *Client) Room(d time.Duration, u rotation.Urgency) (requests int, wait time.Duration) {
	c.last.mu.Lock()
	login, known := c.last.login, c.last.known
	c.last.mu.Unlock()
	if !known {
		return math.MaxInt, 0 // whoever sends a request reads it, or is told why it cannot be read
	}
	return c.budgetOf(login).room(d, u)
}
