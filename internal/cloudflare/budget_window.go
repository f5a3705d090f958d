package cloudflare

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file holds what the answers tell of Cloudflare's own count of a credential's
// requests, what others who use the credential are seen to take of it, and how fast we may
// therefore go. A 429 stops everybody who uses the credential for five minutes, so what
// others can be expected to use until the window ends is left to them.

const (
	// front says how much faster than evenly a window's share is spent at its beginning. What
	// is due at once is then done nearly as early as the limit allows, and late in the window
	// there is still something for what turns up.
	front = 3
	// maxRate and maxBurst bound a rush, in requests a second and in requests. Cloudflare
	// allows 200 a second from one address.
	maxRate, maxBurst = 50, 8
	// guard is what is never used of a window: one count may be late.
	guard = 2
	// rateOver is the time over which the rate of others is measured, and rateAtLeast the
	// shortest that says anything.
	rateOver, rateAtLeast = time.Minute, 10 * time.Second
	lately                = 15 * time.Second
)

// ratelimit is what an answer's headers say of the limit.
type ratelimit struct {
	said   bool
	left   int
	reset  time.Duration
	quota  int           // 0: not said
	length time.Duration // of a window; 0: not said
}

// readRatelimit reads `Ratelimit: "default";r=<left>;t=<seconds>` and
// `Ratelimit-Policy: "default";q=<quota>;w=<seconds>`. What makes no sense counts as not said.
func readRatelimit(h http.Header) ratelimit {
	var l ratelimit
	now, policy := parameters(h.Get("Ratelimit")), parameters(h.Get("Ratelimit-Policy"))
	left, hasLeft := now["r"]
	reset, hasReset := now["t"]
	if l.said = hasLeft && hasReset && left >= 0 && reset >= 0; l.said {
		l.left, l.reset = left, wait(reset)
	}
	if q, w := policy["q"], policy["w"]; q > 0 && q <= 1_000_000 && w > 0 && wait(w) < maxWait {
		l.quota, l.length = q, wait(w)
	}
	return l
}

// RateLimit says how many requests Cloudflare's last answer about it left to all who use the
// credential, and out of how many in a window; quota is 0 if that was not said, and ok is
// false if nothing was.
func (c *Client) RateLimit() (left, quota int, ok bool) {
	l := c.limit.Load()
	if l == nil {
		return 0, 0, false
	}
	return l.left, l.quota, true
}

// parameters are the whole numbers among the parameters of a header's item "default", or of
// its first one.
func parameters(header string) map[string]int {
	item := ""
	for next := range strings.SplitSeq(header, ",") {
		if next = strings.TrimSpace(next); item == "" || strings.HasPrefix(next, `"default"`) {
			item = next
		}
	}
	all := make(map[string]int)
	for part := range strings.SplitSeq(item, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if n, err := strconv.Atoi(value); err == nil {
			all[key] = n
		}
	}
	return all
}

// observation is one answer.
type observation struct {
	sent, at time.Time
	answered bool
	ratelimit
}

// window is one of Cloudflare's, as the answers show it.
type window struct {
	begin, ends time.Time // ends is zero before the first answer
	length      time.Duration
	quota       int // of all who use the credential
	left        int // as of the answer that was processed last, as far as can be told
	leftAt      time.Time
	endedAt     int // how many of ours counted then
	lost        int // requests that told nothing, and may have been counted since
	lostAt      time.Time
	least       int  // was left in it at some time
	grows       bool // what is left grew in the middle of one: Cloudflare's windows slide

	others int    // what others have used in it, at least
	trail  []mark // of others
	guess  bool   // the first of them: nobody saw how what was used before was spread
	before [2]struct {
		ends time.Time
		used int
	} // what others used in those before

	// Without any headers a window of our own begins with a request.
	silent   bool
	ours     time.Time
	oursSent int
}

type mark struct {
	at     time.Time
	others int
}

func (w *window) known(now time.Time) bool { return now.Before(w.ends) }

// observe takes in an answer. ended is when our requests were over, this one included;
// flying is how many are not.
func (w *window) observe(o observation, ended []time.Time, flying, limit int) {
	if !o.said {
		w.silent = w.silent || o.answered && !w.known(o.at)
		w.lost, w.lostAt = w.lost+1, o.at
		return
	}
	w.silent = false
	length := o.length
	if length == 0 {
		length = budgetWindow
	}
	ends := o.at.Add(o.reset)
	switch apart := ends.Sub(w.ends); {
	case w.ends.IsZero(), apart > length/2:
		w.open(o, ends, length)
	case apart < -length/2 && w.known(o.at): // an answer of the window before that took long
		return
	default:
		// The seconds are rounded up, so the earliest end is the best.
		if apart < 0 || !w.known(o.at) {
			w.ends, w.begin = ends, ends.Add(-length)
		}
		if o.left < w.left || !o.sent.Before(w.leftAt) {
			w.left, w.leftAt = o.left, o.at
		}
		w.least = min(w.least, w.left)
		w.grows = w.grows || w.left > w.least+w.quota/20
		if !o.sent.Before(w.lostAt) {
			w.lost = 0
		}
	}
	since := w.begin
	if w.grows {
		since = o.at.Add(-w.length)
	}
	w.endedAt = len(ended)
	first, _ := slices.BinarySearchFunc(ended, since, time.Time.Compare)
	own := len(ended) - first
	if w.quota == 0 { // whatever was used before the first answer was used by others
		w.quota = o.quota
		if w.quota == 0 {
			w.quota = w.left + own
		}
	}
	used := max(w.quota-w.left-own-flying, 0) // flying ones may have been counted already
	if w.grows {
		w.others = used
	} else {
		w.others = max(w.others, used)
	}
	if n := len(w.trail); n == 0 || o.at.Sub(w.trail[n-1].at) >= time.Second {
		w.trail = append(w.trail, mark{o.at, w.others})
	} else {
		w.trail[n-1].others = w.others
	}
	for len(w.trail) > 2 && (o.at.Sub(w.trail[1].at) >= rateOver || w.guess && o.at.Sub(w.trail[1].at) >= rateAtLeast) {
		w.trail, w.guess = w.trail[1:], false
	}
}

// open begins a window anew, and remembers what others used in the one before.
func (w *window) open(o observation, ends time.Time, length time.Duration) {
	w.guess = w.ends.IsZero() // it may have been a rush of the process before this one
	if !w.ends.IsZero() {
		used := w.others
		if unseen := w.ends.Sub(w.leftAt); unseen > w.length/20 && !w.grows { // nobody saw its end
			used = max(used+int(w.rate()*unseen.Seconds()), w.usual(o.at)/2)
		}
		w.before[1] = w.before[0]
		w.before[0].ends, w.before[0].used = w.ends, min(used, w.quota)
	}
	w.ends, w.begin, w.length = ends, ends.Add(-length), length
	w.quota, w.left, w.leftAt, w.least = o.quota, o.left, o.at, o.left
	w.lost, w.others = 0, 0
	w.trail = append(w.trail[:0], mark{w.begin, 0})
}

// usual is the most that others used in a window not long ago, but no more than half: who takes
// more must be seen to do so.
func (w *window) usual(now time.Time) int {
	most := 0
	for _, b := range w.before {
		if now.Sub(b.ends) < 3*w.length {
			most = max(most, b.used)
		}
	}
	return min(most, w.quota/2)
}

// rate is how many requests others make in a second, as seen for a minute. If that was a burst,
// and hardly any came of late, it is what can be behind those few.
func (w *window) rate() float64 {
	if len(w.trail) == 0 || w.grows {
		return 0
	}
	first, last := w.trail[0], w.trail[len(w.trail)-1]
	rate := float64(last.others-first.others) / max(last.at.Sub(first.at), rateAtLeast).Seconds()
	for _, m := range slices.Backward(w.trail) {
		if over := last.at.Sub(m.at); over >= lately {
			n := float64(last.others - m.others)
			return min(rate, (n+2*math.Sqrt(n)+3)/over.Seconds())
		}
	}
	return rate
}

// keep is what is left to others until the window ends: what they took in the windows before,
// what they will take if they go on as they do, and in any case what requests_per_5m leaves
// them. Nobody is ever seen to use nothing for sure, so it is never nothing.
func (w *window) keep(now time.Time, limit int) float64 {
	left := w.ends.Sub(now)
	usual := w.usual(now)
	expected := max(float64(usual-w.others), float64(w.quota)/100*left.Seconds()/w.length.Seconds(), 0)
	// What no limit would let them go on with is no rate, but a burst. If they have one in
	// each window, it is over. Those since the last answer are not in what it says is left.
	if more := w.rate() * w.ends.Sub(w.leftAt).Seconds(); more <= float64(w.quota) || float64(w.others) > 1.1*float64(usual) {
		expected = max(expected, more)
	}
	return max(expected+2*math.Sqrt(expected), float64(w.quota-limit-w.others)) + guard
}

// share is what is ours of the window, beyond what is under way or kept back, and how long
// it is meant for.
func (w *window) share(now time.Time, ended, pending, back, limit int) (requests float64, left time.Duration) {
	if w.silent {
		left = budgetWindow - now.Sub(w.ours)
		if left <= 0 {
			return float64(limit - back), budgetWindow
		}
		return float64(limit - back - w.oursSent), left
	}
	if left = w.ends.Sub(now); left < soon {
		back = 0
	}
	requests = float64(w.left-w.lost-pending-back) - w.keep(now, limit)
	if w.grows { // what is over for us is back, and does not wait for the end
		requests += float64(w.endedAt - ended)
		left = min(left, w.length/10)
	}
	return requests, left
}

// pace is how fast requests may be admitted.
type pace struct {
	probe   bool          // nothing is known of the window: one request at a time
	room    bool          // at rate, or else only one every trickle, if that is not 0
	rate    float64       // in a second
	trickle time.Duration // so that we see what goes on
}

func (w *window) pace(now time.Time, ended, pending, back, limit int) pace {
	if !w.silent && !w.known(now) {
		return pace{probe: true}
	}
	requests, until := w.share(now, ended, pending, back, limit)
	p := pace{room: requests >= 1, rate: w.rateOf(requests, until, limit)}
	left := w.left - w.lost - pending - back
	unseen := int(w.rate() * now.Sub(w.leftAt).Seconds())
	if !w.silent && (left-unseen > limit/20+guard || left > limit/10+guard && now.Sub(w.leftAt) >= soon) {
		p.trickle = w.length * 100 / time.Duration(max(limit, 100))
		if w.guess { // it is soon seen
			p.trickle = min(p.trickle, rateAtLeast/2)
		}
	}
	return p
}

// rateOf spends a twentieth of the limit evenly, so that the end of a window is seen, too,
// and the rest early.
func (w *window) rateOf(requests float64, left time.Duration, limit int) float64 {
	tail := min(float64(limit)/20*left.Seconds()/budgetWindow.Seconds(), max(requests, 0))
	return min((front*(max(requests, 0)-tail)+tail)/max(left, time.Second).Seconds(), max(maxRate, float64(limit)/budgetWindow.Seconds()))
}

// over is how long nothing is left for certain.
func (w *window) over(now time.Time, pending, back int) time.Duration {
	left := w.ends.Sub(now)
	if left < soon {
		back = 0
	}
	if w.silent || w.grows || left <= 0 || w.left-w.lost-pending-back > guard {
		return 0
	}
	return left
}

// room is how many requests can be expected to be admitted within d.
func (w *window) room(now time.Time, d time.Duration, ended, pending, back, limit int) int {
	if !w.silent && !w.known(now) {
		return limit
	}
	requests, left := w.share(now, ended, pending, back, limit)
	if d >= left { // the next one begins
		return limit
	}
	return int(requests * (1 - math.Pow(1-d.Seconds()/left.Seconds(), front)))
}

// sent counts a request that was admitted, for when there are no headers.
func (w *window) sent(now time.Time) {
	if now.Sub(w.ours) >= budgetWindow {
		w.ours, w.oursSent = now, 0
	}
	w.oursSent++
}
