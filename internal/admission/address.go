package admission

import (
	"net/url"
	"sync"
	"time"
)

// perSecond is how many requests all credentials together send to one server within any second. Cloudflare allows 200 from
// one address. A fifth stays free: requests that were admitted one after the other may arrive closer together, and other
// programs may share the address.
const perSecond = 160

// address counts what one process sends to one server, with all credentials. The zero address has sent nothing. It is safe
// for concurrent use.
type address struct {
	mu   sync.Mutex
	sent []time.Time // within the last second, oldest first
}

// take counts one request that is sent now, if so many may be within a second. Else it counts nothing, and returns how long
// to wait.
func (a *address) take(now time.Time, most int) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := 0
	for old < len(a.sent) && now.Sub(a.sent[old]) >= time.Second {
		old++
	}
	if a.sent = a.sent[old:]; len(a.sent) == 0 {
		a.sent = nil // and the memory before it
	}
	if len(a.sent) < most {
		a.sent = append(a.sent, now)
		return 0
	}
	return time.Second - now.Sub(a.sent[len(a.sent)-most])
}

// perSecond returns this process's part of what all that share the limit may send within a second. A limit that no
// configuration has, as in benchmarks without Cloudflare's, allows more. b.mu must be held.
func (b *Budget) perSecond() int {
	return max(perSecond/max(1, b.sharers), b.limit/int(Window/time.Second), 1)
}

// addressOf returns what identifies the server of a base URL.
func addressOf(baseURL string) string {
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" {
		return baseURL
	}
	return u.Host
}
