package cloudflare

import (
	"math"
	"slices"
	"time"
)

// This file keeps what the answers tell about Cloudflare's rate limit. There are three parts:
// reported is Cloudflare's own count, others is what other users of the credential take of it,
// and unreported stands in for both while no answer has the headers. budget_pace.go decides
// from them how fast requests may leave.

const (
	// reserveMin is never used of a window: a count may be late.
	reserveMin = 2
	// rateSpan is the time over which the rate of other users is measured, and rateSpanMin the
	// shortest that says anything. burstSpan is how soon a burst of theirs is taken to be over.
	rateSpan, rateSpanMin = time.Minute, 10 * time.Second
	burstSpan             = 15 * time.Second
	// freshSpan is for how long an answer is taken to describe the present. After it, one
	// request asks again before others follow.
	freshSpan = 5 * time.Second
)

// observation is one answer.
type observation struct {
	sent, at time.Time
	answered bool
	ratelimit
}

// window is what is known of Cloudflare's present window.
type window struct {
	reported
	others
	unreported
}

// reported is Cloudflare's own count, as the answers show it.
type reported struct {
	begin, ends time.Time // ends is zero before the first answer
	length      time.Duration
	quota       int       // requests in a window, of all users of the credential
	left        int       // of them, after the request that Cloudflare counted last, as far as can be told
	leftAt      time.Time // when that answer came
	leastLeft   int       // in this window
	slides      bool      // left grew within a window: Cloudflare counts the last five minutes
	ownEnded    int       // how many of our own requests counted at leftAt
	untold      int       // requests since then whose answers said nothing; they may have been counted
	untoldAt    time.Time
}

// known reports whether the window that was reported last has not ended.
func (r *reported) known(now time.Time) bool { return now.Before(r.ends) }

// others is what other users of the credential were seen to take.
type others struct {
	used  int    // in this window, at least
	marks []mark // used, over the last rateSpan; the first may be the window's begin
	// unwatched is set while the first mark is from before our first answer. Nobody knows whether
	// what was used until then was a burst, perhaps of our own process before a restart.
	unwatched bool
	firstAt   time.Time // our first answer, if that came in the middle of this window; else zero
	firstUsed int       // used at that time
	before    [2]pastUse
}

// mark is how much others had used at a time.
type mark struct {
	at   time.Time
	used int
}

// pastUse is what others used in a window that is over.
type pastUse struct {
	ends time.Time
	used int
}

// unreported counts our own requests in windows of our own while the answers have no headers.
type unreported struct {
	on      bool
	ownFrom time.Time // when that window began, with a request
	ownSent int
}

// observe takes in an answer. ended is when our requests were over, this one included;
// flying is how many are not.
func (w *window) observe(o observation, ended []time.Time, flying int) {
	if !o.said {
		w.on = w.on || o.answered && !w.known(o.at)
		w.untold, w.untoldAt = w.untold+1, o.at
		return
	}
	w.on = false
	if !w.report(o) {
		return
	}
	since := w.begin
	if w.slides {
		since = o.at.Add(-w.length)
	}
	w.ownEnded = len(ended)
	first, _ := slices.BinarySearchFunc(ended, since, time.Time.Compare)
	own := len(ended) - first
	if w.quota == 0 { // whatever was used before the first answer was used by others
		if w.quota = o.quota; w.quota == 0 {
			w.quota = w.left + own
		}
	}
	used := max(w.quota-w.left-own-flying, 0) // Cloudflare may have counted those that are flying
	if !w.slides {
		used = max(used, w.used)
	}
	w.note(o.at, used)
}

// report takes in what an answer says about Cloudflare's count. It returns false for an answer
// about an earlier window.
func (w *window) report(o observation) bool {
	length := o.length
	if length == 0 {
		length = budgetWindow
	}
	ends := o.at.Add(o.reset)
	switch apart := ends.Sub(w.ends); {
	case w.ends.IsZero(), apart > length/2:
		w.open(o, ends, length)
		return true
	case apart < -length/2 && w.known(o.at): // its answer took long
		return false
	case apart < 0 || !w.known(o.at): // the seconds are rounded up, so the earliest end is the best
		w.ends, w.begin = ends, ends.Add(-length)
	}
	if o.left < w.left || !o.sent.Before(w.leftAt) {
		w.left, w.leftAt = o.left, o.at
	}
	w.leastLeft = min(w.leastLeft, w.left)
	w.slides = w.slides || w.left > w.leastLeft+w.quota/20
	if !o.sent.Before(w.untoldAt) {
		w.untold = 0
	}
	return true
}

// open begins a new window, and remembers what others used in the one before.
func (w *window) open(o observation, ends time.Time, length time.Duration) {
	first := w.ends.IsZero()
	if !first {
		w.before = [2]pastUse{{w.ends, min(w.usedUntilEnd(o.at), w.quota)}, w.before[0]}
	}
	w.begin, w.ends, w.length = ends.Add(-length), ends, length
	w.quota, w.left, w.leftAt, w.leastLeft, w.untold = o.quota, o.left, o.at, o.left, 0
	w.used, w.marks = 0, append(w.marks[:0], mark{at: w.begin})
	w.unwatched, w.firstAt, w.firstUsed = first, time.Time{}, 0
}

// usedUntilEnd is what others are taken to have used in the window that ends now. What they used
// before our first answer may have been ours, so the time that was watched stands for all of it. A few
// seconds without a request of theirs do not say that they make none.
func (w *window) usedUntilEnd(now time.Time) int {
	used := w.used
	if unseen := w.ends.Sub(w.leftAt); unseen > w.length/20 && !w.slides {
		used = max(used+int(w.rate(now, careful)*unseen.Seconds()), w.usual(now)/2)
	}
	if watched := w.ends.Sub(w.firstAt); !w.firstAt.IsZero() && watched > 0 && watched < w.length {
		n := float64(used - w.firstUsed)
		used = min(used, int((n+2*math.Sqrt(n)+3)*w.length.Seconds()/watched.Seconds()))
	}
	return used
}

// note records how much others have used at a time.
func (o *others) note(at time.Time, used int) {
	o.used = used
	if o.unwatched && o.firstAt.IsZero() {
		o.firstAt, o.firstUsed = at, used
		o.unwatched = used > 0
	}
	if n := len(o.marks); n == 0 || at.Sub(o.marks[n-1].at) >= time.Second {
		o.marks = append(o.marks, mark{at, used})
	} else {
		o.marks[n-1].used = used
	}
	for len(o.marks) > 2 && (at.Sub(o.marks[1].at) >= rateSpan || o.unwatched && at.Sub(o.marks[1].at) >= rateSpanMin) {
		o.marks, o.unwatched = o.marks[1:], false
	}
}

// usual is the most that others used in the two windows before, if that is not long ago, but no
// more than half of the quota: a user who takes more must be seen to do so.
func (w *window) usual(now time.Time) int {
	most := 0
	for _, past := range w.before {
		if now.Sub(past.ends) < 3*w.length {
			most = max(most, past.used)
		}
	}
	return min(most, w.quota/2)
}

// outlook says how what others were seen to take is carried forward to the window's end.
type outlook int

const (
	careful outlook = iota // they go on as the last answer showed it, and are irregular
	average                // they go on as the last answer showed it, evenly
	hopeful                // they have made no request since the last answer
)

// rate is how many requests others make in a second, as seen for a minute. After a burst of theirs
// it falls to what the few requests since allow. It decays while no answer comes only in the
// hopeful outlook: that we did not ask says nothing about them.
func (w *window) rate(now time.Time, o outlook) float64 {
	if len(w.marks) == 0 || w.slides {
		return 0
	}
	first, last := w.marks[0], w.marks[len(w.marks)-1]
	until := last.at
	if old := now.Add(-freshSpan); o == hopeful && old.After(until) {
		until = old
	}
	rate := float64(last.used-first.used) / max(until.Sub(first.at), rateSpanMin).Seconds()
	for _, m := range slices.Backward(w.marks) {
		if over := until.Sub(m.at); over >= burstSpan {
			n := float64(last.used - m.used)
			return min(rate, (n+2*math.Sqrt(n)+3)/over.Seconds())
		}
	}
	return rate
}

// keep is what is left to others until the window ends: what they took in the windows before,
// what they will take if they go on as they do, and in any case what requests_per_5m leaves
// them. Others may begin at any time, so it is never nothing.
func (w *window) keep(now time.Time, limit int, o outlook) float64 {
	left := w.ends.Sub(now)
	usual := w.usual(now)
	expected := max(float64(usual-w.used), float64(w.quota)/100*left.Seconds()/w.length.Seconds(), 0)
	// A rate that no limit would let them keep up is a burst. If they have one in each window, it
	// is over. The requests that they made since the last answer are not in what it says is left.
	if more := w.rate(now, o) * w.ends.Sub(w.leftAt).Seconds(); more <= float64(w.quota) || float64(w.used) > 1.1*float64(usual) {
		expected = max(expected, more)
	}
	margin := 2 * math.Sqrt(expected)
	if o == average {
		margin = 0
	}
	return max(expected+margin, float64(w.quota-limit-w.used)) + reserveMin
}

// sent counts a request that was admitted, for when there are no headers.
func (u *unreported) sent(now time.Time) {
	if now.Sub(u.ownFrom) >= budgetWindow {
		u.ownFrom, u.ownSent = now, 0
	}
	u.ownSent++
}
