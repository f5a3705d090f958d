package admission

import (
	"math"
	"slices"
	"time"
)

// This file decides how fast requests may leave. A 429 stops all users of the credential for five
// minutes, so what others can be expected to use until the window ends is left to them. But that is an
// estimate, and only new answers can correct it. So while Cloudflare says that plenty is left, a
// request always leaves within seconds: see probeEvery.

const (
	// reserveMin requests of a window are never used: a count may be late.
	reserveMin = 2
	// frontLoading says how much faster than evenly a window's share is spent at its beginning.
	// What is due at once is then done nearly as early as the limit allows, and late in the window
	// there is still something for what turns up.
	frontLoading = 3
	// maxRate and maxBurst limit what is spread over the window, in requests a second and in requests. See also
	// [perSecond].
	maxRate, maxBurst = 50, 8
	// quietShare is the part of the quota that others may use and still count as not there: our own commands, an earlier
	// process of ours, or a person with a script.
	quietShare = 50
	// maxOthers is the part of the quota that others are taken to use at most, before anything was seen of them.
	maxOthers = 2.0 / 3
	// probeShare is the part of the quota that may be spent to see what others do: a twentieth, which
	// is one request every five seconds of Cloudflare's 1,200 in five minutes.
	probeShare, probeEveryMin = 20, 2 * time.Second
	// checkEvery is how soon a request asks again where only a margin for irregular others delays the
	// rest.
	checkEvery = 10 * time.Second
)

// pacer decides how fast requests may leave, from Cloudflare's report, from what others use, and from
// our own load.
type pacer struct {
	reported reported
	others   others
	silent   silent
}

// silent counts our own requests in windows of our own, while the answers have no headers.
type silent struct {
	on   bool
	from time.Time // when that window began, with a request
	sent int
}

// note counts a request that was admitted.
func (s *silent) note(now time.Time) {
	if now.Sub(s.from) >= Window {
		s.from, s.sent = now, 0
	}
	s.sent++
}

// load is what our own requests take of the budget.
type load struct {
	finished  int           // requests that are over and still count
	pending   int           // requests that were admitted and are not over
	reserved  int           // requests that are reserved for more urgent work
	limit     int           // requests_per_5m
	sinceLast time.Duration // since a request was last admitted
	urgent    bool          // a person waits, or consumers may be cut off: the share is not spread over the window
}

// observe takes in an answer. finished are the times when our requests were over, this one included;
// inFlight is how many are not over.
func (p *pacer) observe(o observation, finished []time.Time, inFlight int) {
	r := &p.reported
	if !o.Said {
		p.silent.on = p.silent.on || o.answered && !r.known(o.at)
		r.silence(o.at)
		return
	}
	p.silent.on = false
	which, ends, length := r.ageOf(o)
	switch which {
	case earlierWindow:
		return
	case newWindow:
		p.others.open(r, ends.Add(-length), o.at)
		r.open(o, ends, length)
	case sameWindow:
		r.update(o, ends, length)
	}
	r.ownFinished = len(finished)
	first, _ := slices.BinarySearchFunc(finished, r.countsFrom(o.at), time.Time.Compare)
	own := len(finished) - first
	if r.quota == 0 { // whatever was used before the first answer was used by others
		if r.quota = o.Quota; r.quota == 0 {
			r.quota = r.left + own
		}
	}
	used := max(r.quota-r.left-own-inFlight, 0) // Cloudflare may have counted those in flight
	if !r.slides {
		used = max(used, p.others.used)
	}
	p.others.note(o.at, used)
}

// pace is how fast requests may be admitted.
type pace struct {
	oneByOne bool          // the present is unknown: one request asks, the others wait for its answer
	allowed  bool          // requests may leave at rate
	atOnce   bool          // or as fast as they come, because no other user would need the rest of the window early
	rate     float64       // in a second
	probe    time.Duration // one request may leave this long after the last, whatever the estimates; 0: it may not
}

// pace returns how fast requests may be admitted now.
func (p *pacer) pace(now time.Time, l load) pace {
	r := &p.reported
	if !p.silent.on && !r.known(now) {
		return pace{oneByOne: true}
	}
	requests, until := p.share(now, l, careful)
	result := pace{allowed: requests >= 1, rate: rateOf(requests, until, l.limit), atOnce: p.atOnce(now, l) >= 1}
	if p.silent.on {
		return result
	}
	share := func(look outlook) float64 { requests, _ := p.share(now, l, look); return requests }
	if !result.allowed && share(hopeful) >= 1 {
		// Others may have stopped. A request that asks is spent although they may need it. So it is
		// rare, unless they need it only if they take more than so far.
		if result.probe = p.probeEvery(); share(average) >= 1 {
			result.probe = min(result.probe, checkEvery)
		}
	}
	if p.plenty(l) {
		if result.probe == 0 {
			result.probe = p.probeEvery()
		}
		if p.others.unwatched { // for a few seconds, no faster than evenly
			result.allowed, result.rate = true, max(result.rate, float64(min(r.quota, l.limit))/r.length.Seconds())
		}
	}
	result.oneByOne = (result.allowed || result.atOnce) && now.Sub(r.leftAt) > freshSpan
	return result
}

// atOnce returns how many requests may leave as fast as they come. To spread our share over the window serves only to see in
// time that others need more than they are expected to. So it is not spread while no other user is seen, nor for
// what is urgent. But what others could need is left to them, by all that was seen of them: a process that has just
// started has seen nothing, and leaves them two thirds of what the rest of the window allows.
func (p *pacer) atOnce(now time.Time, l load) float64 {
	r := &p.reported
	requests, _ := p.share(now, l, careful)
	if p.silent.on { // nothing would be seen
		if !l.urgent {
			return 0
		}
		return requests
	}
	seen, watched := p.others.evidence(r, now)
	quiet := float64(seen) <= max(float64(r.quota)/quietShare*watched.Seconds()/r.length.Seconds(), 1)
	if r.slides || !quiet && !l.urgent {
		return 0
	}
	left := r.ends.Sub(r.leftSent).Seconds()
	unseen, need := surely(float64(r.quota)*maxOthers*left/r.length.Seconds()), math.Inf(1)
	if watched > 0 {
		need = surely(float64(seen)) / watched.Seconds() * left
	}
	switch {
	case quiet:
		need = min(need, unseen)
	case p.others.unwatched: // what was used before the first answer may have been the process before a restart: it says nothing of others
		requests, need = float64(r.left), max(unseen, float64(r.quota-l.limit-p.others.used))
	}
	return min(requests, float64(r.left-r.silent-l.pending-l.reserved)-need-reserveMin)
}

// surely returns how many requests others make at most where n are expected. It is more than [upTo]: nothing that is seen
// later takes back what has left.
func surely(n float64) float64 { return n + 3*math.Sqrt(n) + 5 }

// plenty reports whether Cloudflare's last answer left so much that a few requests more or less do not
// matter. Requests without an answer do not count here, because only an answer tells whether Cloudflare
// counted them.
func (p *pacer) plenty(l load) bool {
	return p.reported.left-l.pending-l.reserved > min(l.limit, p.reported.quota)/10+reserveMin
}

// probeEvery returns after which time without a request one may leave while there is plenty. Once
// others were watched for a while, there is less to see, and more reason to leave the rest to them.
func (p *pacer) probeEvery() time.Duration {
	every := max(p.reported.length*probeShare/time.Duration(max(p.reported.quota, 1)), probeEveryMin)
	if p.others.watchedFor() >= rateSpan/2 {
		every *= 2
	}
	return every
}

// share returns how many requests of the window are ours, beyond those that are under way or reserved,
// and how long they have to last.
func (p *pacer) share(now time.Time, l load, look outlook) (requests float64, left time.Duration) {
	r := &p.reported
	if p.silent.on {
		left = Window - now.Sub(p.silent.from)
		if left <= 0 {
			return float64(l.limit - l.reserved), Window
		}
		return float64(l.limit - l.reserved - p.silent.sent), left
	}
	if left = r.ends.Sub(now); left < urgentWait {
		l.reserved = 0
	}
	requests = float64(r.left-r.silent-l.pending-l.reserved) - p.others.reserve(r, now, l.limit, look)
	if r.slides { // what is over for us is free again, and does not wait for the end
		requests += float64(r.ownFinished - l.finished)
		left = min(left, r.length/10)
	}
	return requests, left
}

// rateOf returns the rate for so many requests. It spends a twentieth of the limit evenly, so that the
// end of a window is seen, too, and the rest early.
func rateOf(requests float64, left time.Duration, limit int) float64 {
	tail := min(float64(limit)/20*left.Seconds()/Window.Seconds(), max(requests, 0))
	return min((frontLoading*(max(requests, 0)-tail)+tail)/max(left, time.Second).Seconds(), max(maxRate, float64(limit)/Window.Seconds()))
}

// usedUp returns how long nothing is left for certain.
func (p *pacer) usedUp(now time.Time, l load) time.Duration {
	r := &p.reported
	left := r.ends.Sub(now)
	if p.silent.on || r.slides || left <= 0 || p.plenty(l) {
		return 0
	}
	if left < urgentWait {
		l.reserved = 0
	}
	if r.left-r.silent-l.pending-l.reserved > reserveMin {
		return 0
	}
	return left
}

// capacity returns how many requests can be expected to be admitted within d.
func (p *pacer) capacity(now time.Time, d time.Duration, l load) int {
	if !p.silent.on && !p.reported.known(now) {
		return l.limit
	}
	requests, left := p.share(now, l, careful)
	if d >= left { // the next window begins
		return l.limit
	}
	n := int(max(requests, 0) * (1 - math.Pow(1-d.Seconds()/left.Seconds(), frontLoading)))
	n = max(n, int(p.atOnce(now, l)))
	current := p.pace(now, l)
	if current.probe > 0 { // some request must ask, or nothing new is seen
		asks := 1 + int(d/current.probe)
		if d < current.probe && l.sinceLast+d < current.probe {
			asks = 0 // not so soon
		}
		n = max(n, asks)
	}
	if current.probe > 0 && p.others.unwatched {
		n = max(n, int(current.rate*d.Seconds()))
	}
	return n
}
