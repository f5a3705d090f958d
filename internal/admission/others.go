package admission

import (
	"math"
	"slices"
	"time"
)

const (
	// rateSpan is the time over which the rate of other users is measured, and rateSpanMin the
	// shortest time that says anything. After burstSpan a burst of theirs is taken to be over.
	rateSpan, rateSpanMin = time.Minute, 10 * time.Second
	burstSpan             = 15 * time.Second
	// freshSpan is how long an answer is taken to describe the present. After that, one request asks
	// again before others follow.
	freshSpan = 5 * time.Second
)

// others is what other users of the credential were seen to use of Cloudflare's window.
type others struct {
	used  int    // in this window, at least
	marks []mark // used, over the last rateSpan; the first may be the beginning of the window
	// unwatched is set while the first mark is from before our first answer. Nothing shows whether
	// what was used until then was a burst, perhaps of our own process before a restart.
	unwatched bool
	firstAt   time.Time // when our first answer came, if that was in the middle of this window; else zero
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
	ends    time.Time
	used    int // with what was not seen
	seen    int
	watched time.Duration // see [reported.watched]
}

// outlook says how others are expected to go on until the window ends.
type outlook int

const (
	careful outlook = iota // as the last answer showed it, and irregularly
	average                // as the last answer showed it, evenly
	hopeful                // they made no request since the last answer
)

// open begins a new window, and remembers what others used in the one before. r still describes the
// one before; begin is when the new window began.
func (o *others) open(r *reported, begin, now time.Time) {
	first := r.ends.IsZero()
	if !first {
		past := pastUse{ends: r.ends, used: min(o.usedUntilEnd(r, now), r.quota), seen: o.used, watched: r.watched()}
		o.before = [2]pastUse{past, o.before[0]}
	}
	o.used, o.marks = 0, append(o.marks[:0], mark{at: begin})
	o.unwatched, o.firstAt, o.firstUsed = first, time.Time{}, 0
}

// usedUntilEnd returns what others are taken to have used in the window that ends now. What they used
// before our first answer may have been ours, so the time that was watched stands for the whole
// window. A few seconds without a request of theirs do not say that they make none.
func (o *others) usedUntilEnd(r *reported, now time.Time) int {
	used := o.used
	if unseen := r.ends.Sub(r.leftAt); unseen > r.length/20 && !r.slides {
		used = max(used+int(o.rate(r, now, careful)*unseen.Seconds()), o.usual(r, now)/2)
	}
	if watched := r.ends.Sub(o.firstAt); !o.firstAt.IsZero() && watched > 0 && watched < r.length {
		used = min(used, int(upTo(used-o.firstUsed)*r.length.Seconds()/watched.Seconds()))
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

// watchedFor returns for how long others were watched in this window; 0 while that says nothing.
func (o *others) watchedFor() time.Duration {
	if n := len(o.marks); n > 0 && !o.unwatched {
		return o.marks[n-1].at.Sub(o.marks[0].at)
	}
	return 0
}

// usual returns the most that others used in the two windows before, if that is not long ago, but at
// most half of the quota: a user who takes more must be seen to do so.
func (o *others) usual(r *reported, now time.Time) int {
	most := 0
	for _, past := range o.before {
		if now.Sub(past.ends) < 3*r.length {
			most = max(most, past.used)
		}
	}
	return min(most, r.quota/2)
}

// evidence returns how many requests others were seen to make in this window and the two before, and for how long that was
// watched: from the beginning of each window to our last request in it that was answered.
func (o *others) evidence(r *reported, now time.Time) (seen int, watched time.Duration) {
	seen, watched = o.used, r.watched()
	for _, past := range o.before {
		if now.Sub(past.ends) < 3*r.length {
			seen, watched = seen+past.seen, watched+past.watched
		}
	}
	return seen, watched
}

// upTo returns how many requests there may be where n were seen.
func upTo(n int) float64 { return float64(n) + 2*math.Sqrt(float64(n)) + 3 }

// rate returns how many requests others make in a second, as seen for a minute. After a burst of theirs
// it falls to what the few requests since then allow. Only in the hopeful outlook does it decay while
// no answer comes: that we did not ask says nothing about them.
func (o *others) rate(r *reported, now time.Time, look outlook) float64 {
	if len(o.marks) == 0 || r.slides {
		return 0
	}
	first, last := o.marks[0], o.marks[len(o.marks)-1]
	until := last.at
	if old := now.Add(-freshSpan); look == hopeful && old.After(until) {
		until = old
	}
	rate := float64(last.used-first.used) / max(until.Sub(first.at), rateSpanMin).Seconds()
	for _, m := range slices.Backward(o.marks) {
		if over := until.Sub(m.at); over >= burstSpan {
			return min(rate, upTo(last.used-m.used)/over.Seconds())
		}
	}
	return rate
}

// reserve returns how many requests are left to others until the window ends: what they used in the
// windows before, what they will use if they go on as they do, and in any case what our limit leaves
// them. Others may begin at any time, so it is never zero.
func (o *others) reserve(r *reported, now time.Time, limit int, look outlook) float64 {
	left := r.ends.Sub(now)
	usual := o.usual(r, now)
	expected := max(float64(usual-o.used), float64(r.quota)/100*left.Seconds()/r.length.Seconds(), 0)
	// A rate that no limit would let them keep up is a burst. If they have one in each window, it
	// is over. The requests that they made since the last answer are not in what it says is left.
	if more := o.rate(r, now, look) * r.ends.Sub(r.leftAt).Seconds(); more <= float64(r.quota) || float64(o.used) > 1.1*float64(usual) {
		expected = max(expected, more)
	}
	margin := 2 * math.Sqrt(expected)
	if look == average {
		margin = 0
	}
	return max(expected+margin, float64(r.quota-limit-o.used)) + reserveMin
}
