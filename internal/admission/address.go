package admission

import (
	"context"
	"net/url"
	"sync"
	"time"

	"rotatord/internal/moment"
)

// Cloudflare allows 200 requests a second from one address, whatever the credentials. There are two limits for what one
// process sends to one server.
const (
	// perSecond is how many requests are admitted within any second, in the order of their urgency. A fifth of what
	// Cloudflare allows stays free: other programs may share the address.
	perSecond = 160
	// mostAway is how many requests may have left and count: until a second after their answer. So however long each was
	// delayed after its admission, on its way, or on the way back, no more than these arrive within any second.
	mostAway = 190
	// departAgain is how soon a request looks again whether it may leave, if none of those under way is over.
	departAgain = 20 * time.Millisecond
)

// address counts what one process sends to one server, with all credentials. The zero address has sent nothing. It is safe
// for concurrent use.
type address struct {
	mu   sync.Mutex
	sent []time.Time // when requests were admitted, within the last second, oldest first
	away int         // requests that have left and are not over
	over []time.Time // when requests were over, within the last second, oldest first
}

// newAddress returns an address for a process that began at a time. What a process before it has sent is not known: it is
// taken to have sent as much as it was allowed to, until then.
func newAddress(began time.Time) *address {
	a := &address{over: make([]time.Time, perSecond)}
	for i := range a.over {
		a.over[i] = began
	}
	return a
}

// depart waits within ctx until one more request may leave. The caller calls arrived when it is over.
func (a *address) depart(ctx context.Context, most int) error {
	for {
		wait := a.tryDepart(time.Now(), most)
		if wait <= 0 {
			return nil
		}
		if err := moment.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// tryDepart counts a request that leaves now, if it may. Else it returns how long to wait before the next try.
func (a *address) tryDepart(now time.Time, most int) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = withinSecond(a.over, now)
	switch excess := a.away + len(a.over) - most; {
	case excess < 0:
		a.away++
		return 0
	case excess < len(a.over):
		return time.Second - now.Sub(a.over[excess])
	default:
		return departAgain
	}
}

// arrived notes that a request that has left is over. One that never left Cloudflare has not seen.
func (a *address) arrived(now time.Time, unsent bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away--
	if !unsent {
		a.over = append(a.over, now)
	}
}

// withinSecond returns those times that are less than a second ago, in the same order; nil if there are none.
func withinSecond(times []time.Time, now time.Time) []time.Time {
	old := 0
	for old < len(times) && now.Sub(times[old]) >= time.Second {
		old++
	}
	if old == len(times) {
		return nil // and the memory before it
	}
	return times[old:]
}

// take counts one request that is sent now, if so many may be within a second. Else it counts nothing, and returns how long
// to wait.
func (a *address) take(now time.Time, most int) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent = withinSecond(a.sent, now)
	if len(a.sent) < most {
		a.sent = append(a.sent, now)
		return 0
	}
	return time.Second - now.Sub(a.sent[len(a.sent)-most])
}

// ofSecond returns this process's part of what all that share the limit may send within a second. A limit that no
// configuration has, as in benchmarks without Cloudflare's, allows more. b.mu must be held.
func (b *Budget) ofSecond(all int) int {
	return max(all/max(1, b.sharers), b.limit/int(Window/time.Second), 1)
}

// addressOf returns what identifies the server of a base URL.
func addressOf(baseURL string) string {
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" {
		return baseURL
	}
	return u.Host
}
