package cloudflare

import (
	"math"
	"time"
)

// This file decides how fast requests may leave. A 429 stops all users of the credential for five
// minutes, so what others can be expected to use until the window ends is left to them. But that
// is an estimate, and only new answers can correct it. While Cloudflare says that plenty is left,
// some request therefore always leaves within seconds: see learnEvery.

const (
	// frontLoading says how much faster than evenly a window's share is spent at its beginning.
	// What is due at once is then done nearly as early as the limit allows, and late in the window
	// there is still something for what turns up.
	frontLoading = 3
	// maxRate and maxBurst bound a rush, in requests a second and in requests. Cloudflare
	// allows 200 a second from one address.
	maxRate, maxBurst = 50, 8
	// learnShare is the part of the quota that may be spent to see what others do: a twentieth,
	// which is one request every five seconds of Cloudflare's 1,200 in five minutes.
	learnShare, learnEveryMin = 20, 2 * time.Second
	// checkEvery is how soon a request asks again where only a margin for irregular others holds the
	// rest up.
	checkEvery = 10 * time.Second
)

// pace is how fast requests may be admitted.
type pace struct {
	oneByOne bool          // nothing is known of the present: one request asks, the others wait for its answer
	room     bool          // at rate
	rate     float64       // in a second
	learn    time.Duration // one request may leave this long after the last, whatever the estimates; 0: it may not
}

func (w *window) pace(now time.Time, ended, pending, back, limit int) pace {
	if !w.on && !w.known(now) {
		return pace{oneByOne: true}
	}
	requests, until := w.share(now, ended, pending, back, limit, careful)
	p := pace{room: requests >= 1, rate: rateOf(requests, until, limit)}
	if w.on {
		return p
	}
	share := func(o outlook) float64 { requests, _ := w.share(now, ended, pending, back, limit, o); return requests }
	if !p.room && share(hopeful) >= 1 {
		// Others may have stopped. What asks is spent although they may need it, so it is rare,
		// unless it is theirs only if they take more than so far.
		if p.learn = w.learnEvery(); share(average) >= 1 {
			p.learn = min(p.learn, checkEvery)
		}
	}
	if w.plenty(pending, back, limit) {
		if p.learn == 0 {
			p.learn = w.learnEvery()
		}
		if w.unwatched { // for a few seconds, no faster than evenly
			p.room, p.rate = true, max(p.rate, float64(min(w.quota, limit))/w.length.Seconds())
		}
	}
	p.oneByOne = p.room && now.Sub(w.leftAt) > freshSpan
	return p
}

// plenty reports whether Cloudflare's last answer left so much that a few requests more or less do
// not matter. Requests without an answer do not count here, because only an answer tells whether
// they were counted.
func (w *window) plenty(pending, back, limit int) bool {
	return w.left-pending-back > min(limit, w.quota)/10+reserveMin
}

// learnEvery is how long no request may leave while there is plenty, at most. Once others were
// watched for a while, there is less to learn, and more reason to leave the rest to them.
func (w *window) learnEvery() time.Duration {
	every := max(w.length*learnShare/time.Duration(max(w.quota, 1)), learnEveryMin)
	if n := len(w.marks); n > 0 && !w.unwatched && w.marks[n-1].at.Sub(w.marks[0].at) >= rateSpan/2 {
		every *= 2
	}
	return every
}

// share is what is ours of the window, beyond what is under way or kept back, and how long
// it is meant for.
func (w *window) share(now time.Time, ended, pending, back, limit int, o outlook) (requests float64, left time.Duration) {
	if w.on {
		left = budgetWindow - now.Sub(w.ownFrom)
		if left <= 0 {
			return float64(limit - back), budgetWindow
		}
		return float64(limit - back - w.ownSent), left
	}
	if left = w.ends.Sub(now); left < urgentWait {
		back = 0
	}
	requests = float64(w.left-w.untold-pending-back) - w.keep(now, limit, o)
	if w.slides { // what is over for us is back, and does not wait for the end
		requests += float64(w.ownEnded - ended)
		left = min(left, w.length/10)
	}
	return requests, left
}

// rateOf spends a twentieth of the limit evenly, so that the end of a window is seen, too,
// and the rest early.
func rateOf(requests float64, left time.Duration, limit int) float64 {
	tail := min(float64(limit)/20*left.Seconds()/budgetWindow.Seconds(), max(requests, 0))
	return min((frontLoading*(max(requests, 0)-tail)+tail)/max(left, time.Second).Seconds(), max(maxRate, float64(limit)/budgetWindow.Seconds()))
}

// over is how long nothing is left for certain.
func (w *window) over(now time.Time, pending, back, limit int) time.Duration {
	left := w.ends.Sub(now)
	if w.on || w.slides || left <= 0 || w.plenty(pending, back, limit) {
		return 0
	}
	if left < urgentWait {
		back = 0
	}
	if w.left-w.untold-pending-back > reserveMin {
		return 0
	}
	return left
}

// room is how many requests can be expected to be admitted within d.
func (w *window) room(now time.Time, d time.Duration, ended, pending, back, limit int) int {
	if !w.on && !w.known(now) {
		return limit
	}
	requests, left := w.share(now, ended, pending, back, limit, careful)
	if d >= left { // the next one begins
		return limit
	}
	n := int(max(requests, 0) * (1 - math.Pow(1-d.Seconds()/left.Seconds(), frontLoading)))
	p := w.pace(now, ended, pending, back, limit)
	if p.learn > 0 { // somebody must ask, or nothing is learned
		n = max(n, 1+int(d/p.learn))
	}
	if p.learn > 0 && w.unwatched {
		n = max(n, int(p.rate*d.Seconds()))
	}
	return n
}
