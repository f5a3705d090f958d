package admission

import "time"

// observation is one answer.
type observation struct {
	sent, at time.Time
	answered bool
	Report
}

// reported is Cloudflare's own count of the requests in its window, as the answers show it.
type reported struct {
	begin, ends time.Time // ends is zero before the first answer
	length      time.Duration
	quota       int       // requests in a window, of all users of the credential
	left        int       // what is left after the request that Cloudflare counted last, as far as can be known
	leftAt      time.Time // when that answer came
	leftSent    time.Time // when its request was sent: Cloudflare counted it between the two
	leastLeft   int       // the smallest left in this window
	slides      bool      // left grew within a window: Cloudflare counts the last five minutes
	ownFinished int       // how many of our own requests counted at leftAt
	silent      int       // requests since then whose answers said nothing; Cloudflare may have counted them
	silentAt    time.Time // when the last of those answers came
}

// known reports whether the window that was reported last has not ended.
func (r *reported) known(now time.Time) bool { return now.Before(r.ends) }

// watched returns for how long at least the count of this window shows all users. The end of a window is told in seconds.
func (r *reported) watched() time.Duration { return max(r.leftSent.Sub(r.begin)-time.Second, 0) }

// silence notes an answer that said nothing, or a request without an answer.
func (r *reported) silence(at time.Time) { r.silent, r.silentAt = r.silent+1, at }

// age says which window an answer is about.
type age int

const (
	earlierWindow age = iota
	sameWindow
	newWindow
)

// ageOf returns which window an answer is about, with its end and length.
func (r *reported) ageOf(o observation) (which age, ends time.Time, length time.Duration) {
	length = o.Length
	if length == 0 {
		length = Window
	}
	ends = o.at.Add(o.Reset)
	switch apart := ends.Sub(r.ends); {
	case r.ends.IsZero(), apart > length/2:
		return newWindow, ends, length
	case apart < -length/2 && r.known(o.at): // its answer took long
		return earlierWindow, ends, length
	}
	return sameWindow, ends, length
}

// open begins a new window.
func (r *reported) open(o observation, ends time.Time, length time.Duration) {
	r.begin, r.ends, r.length = ends.Add(-length), ends, length
	r.quota, r.left, r.leftAt, r.leftSent, r.leastLeft, r.silent = o.Quota, o.Left, o.at, o.sent, o.Left, 0
}

// update takes in an answer about the same window.
func (r *reported) update(o observation, ends time.Time, length time.Duration) {
	if ends.Before(r.ends) || !r.known(o.at) { // the seconds are rounded up, so the earliest end is the best
		r.ends, r.begin = ends, ends.Add(-length)
	}
	if o.Left < r.left || !o.sent.Before(r.leftAt) {
		r.left, r.leftAt, r.leftSent = o.Left, o.at, o.sent
	}
	r.leastLeft = min(r.leastLeft, r.left)
	r.slides = r.slides || r.left > r.leastLeft+r.quota/20
	if !o.sent.Before(r.silentAt) {
		r.silent = 0
	}
}

// countsFrom returns since when Cloudflare counts requests.
func (r *reported) countsFrom(now time.Time) time.Time {
	if r.slides {
		return now.Add(-r.length)
	}
	return r.begin
}
