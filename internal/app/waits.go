package app

import (
	"fmt"
	"log/slog"
	"time"

	"rotatord/internal/rotation"
)

// This file says what waiting tokens wait for: in the status, and once in the log when the
// rotations of an account begin to wait for Cloudflare's request limit, and when that is over.

const (
	// tellDelayAfter is how long rotations must wait for the limit before the log says so.
	tellDelayAfter = 5 * time.Second
	// delayOverAfter is how long nothing must have waited for the limit before that is over.
	delayOverAfter = 30 * time.Second
)

// explained is an issuer that says in words what holds up requests of that urgency, and until
// when if that is known; "" if nothing does.
type explained interface {
	HeldUp(u rotation.Urgency) (why string, until time.Time)
}

// delay is whether the turns of an account wait for the request limit. Its turns' lock guards it.
type delay struct {
	log    *slog.Logger // nil: silent
	heldUp func(rotation.Urgency) (string, time.Time)
	since  time.Time // zero: they do not
	last   time.Time // when they were last seen to
	told   bool      // the log says so
}

// seen notes that n rotations wait, the first of them that urgent.
func (d *delay) seen(now time.Time, u rotation.Urgency, n int) {
	if d.since.IsZero() {
		d.since = now
	}
	d.last = now
	if d.told || now.Sub(d.since) < tellDelayAfter || d.log == nil {
		return
	}
	d.told = true
	why, until := limitReached, time.Time{}
	if d.heldUp != nil {
		if detail, end := d.heldUp(u); detail != "" {
			why, until = detail, end
		}
	}
	attrs := []any{"waiting", n, "reason", why}
	if !until.IsZero() {
		attrs = append(attrs, "until", until.UTC().Format(time.RFC3339))
	}
	d.log.Info("rotations of the account wait for Cloudflare's request limit", attrs...)
}

// granted notes that one may begin.
func (d *delay) granted(now time.Time) {
	if !d.since.IsZero() && now.Sub(d.last) >= delayOverAfter {
		d.over(now)
	}
}

// over notes that nothing waits any more.
func (d *delay) over(now time.Time) {
	if d.told {
		d.log.Info("rotations of the account no longer wait for Cloudflare's request limit", "waited", now.Sub(d.since).Round(time.Second).String())
	}
	d.since, d.told = time.Time{}, false
}

// limitReached is what is waited for where the issuer has no words for it.
const limitReached = "the request limit has no room yet"

// waitsFor says what a token that waits for its turn waits for, and until when if that is known.
func (t *turns) waitsFor(one turn, account string) (what string, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.fits(&one):
		return fmt.Sprintf("its turn: %d rotations of account %s are in progress", t.inHand, account), time.Time{}
	case one.local || t.delay.heldUp == nil:
		return "its turn", time.Time{}
	}
	if why, until := t.delay.heldUp(one.urgency); why != "" {
		return limitWords(why), until
	}
	return fmt.Sprintf("its turn: %d tokens of account %s wait, and their requests leave as Cloudflare's limit allows", len(t.remote.all), account), time.Time{}
}

func limitWords(why string) string { return "Cloudflare's request limit (" + why + ")" }

// waitsFor says what holds up a token that is due, and until when if that is known; "" if nothing
// does.
func (e *engine) waitsFor(s scheduled) (what string, until time.Time) {
	e.mu.Lock()
	turns := e.turns[s.token.Account]
	e.mu.Unlock()
	if s.waiting && turns != nil {
		return turns.waitsFor(turnOf(s, e.now()), s.token.Account)
	}
	issuer, ok := s.token.Issuer.(explained)
	switch {
	case !ok:
	case s.working > 0 && s.record.Step == rotation.StepClaimed: // its request waits to be admitted, or is about to
		if why, until := issuer.HeldUp(rotation.UrgencySlot); why != "" {
			return limitWords(why), until
		}
	case s.working == 0 && s.due.Reason == rotation.DueBackOff && s.due.At.After(e.now()):
		// Its own request may be the one that was refused.
		if why, until := issuer.HeldUp(rotation.UrgencySlot); why != "" && until.Sub(s.due.At).Abs() <= 2*time.Second {
			return limitWords(why), until
		}
	}
	return "", time.Time{}
}
