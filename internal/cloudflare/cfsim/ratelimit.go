package cfsim

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"rotatord/internal/secret"
)

// limitWindow is the length of the window in which requests are counted, and of the penalty.
const limitWindow = 5 * time.Minute

// limiter counts requests for each credential. Only digests of credentials are kept.
type limiter struct {
	quota int // negative: no limit

	mu      sync.Mutex
	windows map[secret.Digest]*limitState
}

type limitState struct {
	ends    time.Time
	used    int
	penalty bool // every request is refused until ends
}

func newLimiter(quota int) *limiter {
	return &limiter{quota: quota, windows: map[secret.Digest]*limitState{}}
}

// allowance is what an answer says about the limit. The zero allowance says nothing.
type allowance struct {
	refused bool
	quota   int // 0: say nothing
	left    int
	reset   int // seconds until the window or the penalty ends, rounded up
}

// take counts one request. A refused request does not extend the penalty.
func (l *limiter) take(who secret.Digest, now time.Time) allowance {
	if l.quota < 0 {
		return allowance{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	state := l.windows[who]
	if state == nil || !now.Before(state.ends) {
		l.forget(now)
		state = &limitState{ends: now.Add(limitWindow)}
		l.windows[who] = state
	}
	if !state.penalty {
		state.used++
		if state.used > l.quota {
			state.penalty, state.ends = true, now.Add(limitWindow)
		}
	}
	return allowance{
		refused: state.penalty,
		quota:   l.quota,
		left:    max(0, l.quota-state.used),
		reset:   int((state.ends.Sub(now) + time.Second - 1) / time.Second),
	}
}

// forget removes windows that are over, so that credentials do not pile up.
func (l *limiter) forget(now time.Time) {
	for who, state := range l.windows {
		if !now.Before(state.ends) {
			delete(l.windows, who)
		}
	}
}

// reset forgets what was counted.
func (l *limiter) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.windows)
}

// set writes the headers that every answer carries.
func (a allowance) set(h http.Header) {
	if a.quota == 0 {
		return
	}
	h.Set("Ratelimit", fmt.Sprintf(`"default";r=%d;t=%d`, a.left, a.reset))
	h.Set("Ratelimit-Policy", fmt.Sprintf(`"default";q=%d;w=%d`, a.quota, int(limitWindow/time.Second)))
}
