package admission

import (
	"fmt"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// This file says what waiting tokens wait for: in the status, and in an event once when the rotations of
// an account begin to wait for Cloudflare's request limit, and once when they no longer do.

const (
	// tellDelayAfter is how long rotations must wait for the limit before an event says so.
	tellDelayAfter = 5 * time.Second
	// delayOverAfter is how long no rotation must have waited for the limit before the delay is over.
	delayOverAfter = 30 * time.Second
)

// delay says whether the turns of an account wait for the request limit. The lock of the turns guards
// it.
type delay struct {
	account     string
	tell        func(event.Detail)
	delayReason func(rotation.Urgency) (string, time.Time) // nil: the issuer does not explain
	since       time.Time                                  // zero: no turn waits for the limit
	last        time.Time                                  // when a turn was last seen to wait for it
	told        bool
}

// seen notes that n turns wait for the limit, and how urgent the first of them is.
func (d *delay) seen(now time.Time, u rotation.Urgency, n int) {
	if d.since.IsZero() {
		d.since = now
	}
	d.last = now
	if d.told || now.Sub(d.since) < tellDelayAfter {
		return
	}
	d.told = true
	why, until := limitReached, time.Time{}
	if d.delayReason != nil {
		if detail, end := d.delayReason(u); detail != "" {
			why, until = detail, end
		}
	}
	d.tell(event.LimitWait{Account: d.account, Waiting: n, Reason: why, Until: until})
}

// granted notes that a turn begins.
func (d *delay) granted(now time.Time) {
	if !d.since.IsZero() && now.Sub(d.last) >= delayOverAfter {
		d.over(now)
	}
}

// over notes that no turn waits any more.
func (d *delay) over(now time.Time) {
	if d.told {
		d.tell(event.LimitEnd{Account: d.account, Waited: now.Sub(d.since)})
	}
	d.since, d.told = time.Time{}, false
}

// limitReached is the reason if the issuer gives none.
const limitReached = "the request limit is used up for now"

// WaitsFor says what a token waits for that asked for this turn, and until when if that is known.
func (t *Turns) WaitsFor(one Turn, account string) (what string, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.fits(&one):
		return fmt.Sprintf("its turn: %d rotations of account %s are in progress", t.active, account), time.Time{}
	case !t.total.fits(t.active, one.Urgency):
		return fmt.Sprintf("its turn: %d rotations are in progress, %d of them of account %s, and accounts share %d", t.total.Active(), t.active, account, maxTotal), time.Time{}
	case one.Local || t.delay.delayReason == nil:
		return "its turn", time.Time{}
	}
	if why, until := t.delay.delayReason(one.Urgency); why != "" {
		return LimitWords(why), until
	}
	return fmt.Sprintf("its turn: %d tokens of account %s wait, and their requests leave as Cloudflare's limit allows", t.remote.len(), account), time.Time{}
}

// LimitWords says that the request limit is what a token waits for.
func LimitWords(why string) string { return "Cloudflare's request limit (" + why + ")" }
