package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/httpapi"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// patience is the longest wait for the daemon. Nothing that it does takes longer.
const patience = 60 * time.Second

// maxJumps is how often the drill lets time pass. A disaster that has not ended by then will not end.
const maxJumps = 120

// play rehearses one disaster on its own stage.
func play(ctx context.Context, d disaster, s *sample, program Program) Outcome {
	o := Outcome{Name: d.name, What: d.what, Operator: d.operator, Fatal: d.fatal, Tokens: []TokenOutcome{}}
	s = s.those(d.only)
	s.renews = d.renews
	if d.lasts != nil {
		o.Ends = fmt.Sprintf("%s after %s", d.ends, Duration(d.lasts(s)))
	}
	st, err := newStage(s, program)
	if err == nil {
		if d.before != nil {
			d.before(st)
		}
		err = st.prepare(ctx, d)
		if err == nil {
			err = st.playOut(ctx, d)
		}
		if st.notes != nil && ctx.Err() == nil { // an interrupted disaster has no result
			o.Tokens = st.outcomes(d)
		}
		err = errors.Join(err, st.close())
	}
	if err != nil {
		o.Error = err.Error()
	}
	return o
}

// prepare rotates every token once without a disaster, and lets time pass until its next slot, or half of
// that. A service token that rotatord creates is created first, and then rotated.
func (st *stage) prepare(ctx context.Context, d disaster) error {
	rounds := 1
	switch {
	case d.first:
		return nil // the disaster is about its creation
	case slices.ContainsFunc(st.sample.tokens, func(p player) bool { return p.create }):
		rounds = 2
	}
	for i := range rounds {
		began := time.Now()
		if err := st.start(); err != nil {
			return err
		}
		err := st.wait(ctx, func(t status.Token) bool { return t.LastSuccess.After(began) && t.State == "idle" })
		if err != nil {
			return fmt.Errorf("before the disaster: %w", err)
		}
		pause := st.sample.every
		if d.early && i == rounds-1 {
			pause /= 2
		}
		if slices.ContainsFunc(st.sample.tokens, player.creates) {
			if err := st.tidyUp(ctx); err != nil {
				return err
			}
			pause -= st.sample.longestGrace()
		}
		if err := st.age(pause); err != nil {
			return err
		}
	}
	return nil
}

// tidyUp lets the grace pass, and waits until replaced service tokens are deleted.
func (st *stage) tidyUp(ctx context.Context) error {
	if err := st.age(st.sample.longestGrace()); err != nil {
		return err
	}
	if err := st.start(); err != nil {
		return err
	}
	if err := st.wait(ctx, func(t status.Token) bool { return t.Replaced == 0 }); err != nil {
		return fmt.Errorf("before the disaster, deleting replaced service tokens: %w", err)
	}
	return nil
}

// playOut makes the disaster happen, and lets time pass until all is well again, or until it is clear that
// it will not be.
func (st *stage) playOut(ctx context.Context, d disaster) error {
	for _, t := range st.sim.AllTokens() {
		st.issued[t.ID] = len(st.sim.Secrets(t.ID))
	}
	st.begin()
	st.notes = newNotes(st)
	st.consumers.begin()
	if d.strike != nil {
		if err := d.strike(st); err != nil {
			return err
		}
	}
	if err := st.killDaemon(ctx, d); err != nil {
		return err
	}
	if err := st.start(); err != nil {
		return err
	}
	lasts, lifted := time.Duration(0), d.lasts == nil
	if !lifted {
		lasts = d.lasts(st.sample)
	}
	for range maxJumps {
		if d.early || d.renews {
			st.look()
		}
		if err := st.rest(ctx); err != nil {
			return err
		}
		tokens := st.tokens()
		if lifted && st.over(tokens, d) {
			return st.aftermath(ctx, d, tokens)
		}
		if target := st.target(d, tokens, lasts, lifted); target > 0 {
			var firing []string
			if !lifted && target > 25*time.Minute { // a ratio over 15 minutes, for 10
				firing = d.alerts
			}
			st.notes.passes(tokens, target, firing)
			if err := st.age(target); err != nil {
				return err
			}
			if !lifted && st.elapsed() >= lasts {
				lifted = true
				st.notes.all(d.ends)
				if err := d.lift(st); err != nil {
					return err
				}
			}
			if err := st.start(); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("it did not end within %d steps", maxJumps)
}

// killDaemon runs the daemon until the moment at which the disaster kills it. Without such a moment it does nothing.
func (st *stage) killDaemon(ctx context.Context, d disaster) error {
	if d.kill == nil {
		return nil
	}
	if err := st.runAndKill(ctx, d.kill(st)); err != nil {
		return err
	}
	if err := st.mustHaveStopped(d.killedAt); err != nil {
		return err
	}
	st.notes.all("the daemon is killed, and started again")
	st.atCloudflare.set(nil)
	st.atVault.set(nil)
	return st.hideSinks(false)
}

// aftermath lets an hour pass after a disaster that does not end, so that the daemon notices everything.
func (st *stage) aftermath(ctx context.Context, d disaster, tokens map[string]status.Token) error {
	if !d.fatal {
		return nil
	}
	st.notes.passes(tokens, time.Hour, nil)
	if err := st.age(time.Hour); err != nil {
		return err
	}
	if err := st.start(); err != nil {
		return err
	}
	if err := st.rest(ctx); err != nil {
		return err
	}
	st.look()
	st.notes.passes(st.tokens(), time.Hour, d.alerts)
	return nil
}

// look waits until the daemon has listed the service tokens, or five seconds if it cannot.
func (st *stage) look() {
	failed := func(c httpapi.Check) bool { return !c.OK }
	for end := time.Now().Add(5 * time.Second); slices.ContainsFunc(st.daemon.Ready(), failed) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
}

// wait waits until a condition holds of each token.
func (st *stage) wait(ctx context.Context, holds func(status.Token) bool) error {
	deadline := time.After(patience)
	for {
		left := 0
		for _, t := range st.tokens() {
			if !holds(t) {
				left++
			}
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-st.daemon.Failed():
			return err
		case <-deadline:
			return fmt.Errorf("the daemon was still at %d tokens after %s", left, patience)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// near is the longest time to the daemon's next action that the drill waits for in real time.
const near = 2 * time.Second

// queued is how long a rotation may wait for others that are also due.
const queued = 10 * time.Second

// choreQueued is the same for chores, which come last. On a machine that is busy with many daemons ten seconds
// were too short: the drill reported that a replaced service token was not deleted.
const choreQueued = 45 * time.Second

// rest waits until the daemon has nothing to do for a while.
func (st *stage) rest(ctx context.Context) error {
	began := time.Now()
	return st.wait(ctx, func(t status.Token) bool {
		waited := time.Since(began)
		if st.choreDue(t) && st.choreSoon(t.Name) && waited < choreQueued {
			return false
		}
		return rests(t, waited)
	})
}

// rests reports whether the daemon has nothing to do for a token for a while, after so much time was
// spent on waiting for that.
func rests(t status.Token, waited time.Duration) bool {
	switch {
	case t.Next.IsZero() && (t.Reason == string(rotation.DueCreate) || t.Reason == string(rotation.DueUnfinished)):
		// It starts at once. The state can be idle already: a claim of a dead process is given up
		// before the token is claimed again.
		return false
	case t.State == "idle" && waited > queued: // it waits for Cloudflare, which asked to be left alone
		return true
	case t.State == "claimed", t.State == "intent":
		return false
	case t.Next.IsZero(): // nothing to come, or a rotation in progress that continues at once
		return t.State == "idle"
	}
	return time.Until(t.Next) > near
}

// choreSoon reports whether the daemon will do a chore now. After a failure it waits.
func (st *stage) choreSoon(token string) bool {
	at := st.daemon.ChoreAt(token)
	return !at.IsZero() && time.Until(at) <= near
}

// choreDue reports whether a chore of a token is due.
func (st *stage) choreDue(t status.Token) bool {
	now := time.Now()
	inGrace := 0
	if t.GraceEnd.After(now) {
		inGrace = 1
	}
	return t.State == "idle" && (t.Replaced > inGrace || !t.Renews.IsZero() && !t.Renews.After(now))
}

// finished reports whether a token was rotated since the disaster began, and what follows from that is done
// too: replaced service tokens are deleted, and the present one does not have to be renewed.
func (st *stage) finished(t status.Token) bool {
	rotated := t.State == "idle" && t.Failures == 0 && t.LastSuccess.After(time.Now().Add(-st.elapsed()))
	return rotated && t.Replaced == 0 && t.RenewalError == "" && !st.choreDue(t)
}

// over reports whether nothing more will happen.
func (st *stage) over(tokens map[string]status.Token, d disaster) bool {
	for _, t := range tokens {
		if !st.finished(t) && (!d.fatal || t.Failures < 3) {
			return false
		}
	}
	return true
}

// target returns how much time can pass until something happens to one of the tokens; 0 if that is not known.
func (st *stage) target(d disaster, tokens map[string]status.Token, lasts time.Duration, lifted bool) time.Duration {
	var all []time.Duration
	if !lifted {
		all = append(all, lasts-st.elapsed())
	}
	for _, p := range st.sample.tokens {
		t := tokens[p.name]
		if !st.finished(t) && (!d.fatal || t.Failures < 3) {
			all = append(all, looks(t, p, lifted)...)
		}
		if !t.Renews.IsZero() && t.RenewalError == "" {
			all = append(all, time.Until(t.Renews))
		}
	}
	all = slices.DeleteFunc(all, func(d time.Duration) bool { return d <= 0 })
	if len(all) == 0 {
		return 0
	}
	return slices.Min(all)
}

// choreBackOff is the longest time until the daemon tries a failed chore again.
const choreBackOff = time.Hour

// looks returns when, from now on, the daemon does something for a token that changes anything. It looks at
// the token more often, but those looks change nothing.
func looks(t status.Token, p player, lifted bool) []time.Duration {
	next, grace := time.Until(t.Next), p.grace
	switch {
	case t.State == "idle" && t.Failures == 0 && (t.Replaced > 0 || t.RenewalError != "" || !t.Renews.IsZero() && !t.Renews.After(time.Now())):
		if end := time.Until(t.GraceEnd); t.Replaced > 0 && end > 0 {
			return []time.Duration{end}
		}
		if lifted {
			return []time.Duration{choreBackOff}
		}
		return nil
	case t.Next.IsZero():
		return nil
	case t.Doubt != nil:
		decided := time.Until(t.Doubt.Since.Add(time.Minute))
		if end := t.Doubt.OldWorksUntil; decided <= 0 && !end.IsZero() {
			quarter, half := time.Until(end.Add(-grace*3/4)), time.Until(end.Add(-grace/2))
			return []time.Duration{quarter, half, max(next, half)}
		}
		return []time.Duration{max(decided, next)}
	case t.Verification != nil && !t.Verification.Refused && p.verify != nil: // until verify.within is over
		return []time.Duration{max(next, p.verify.within-time.Since(t.Verification.Since))}
	case (t.State == "sealed" || t.State == "stored") && !t.GraceEnd.IsZero():
		quarter := time.Until(t.GraceEnd.Add(-grace*3/4)) + time.Second // just after it
		if lifted {
			return []time.Duration{next}
		}
		return []time.Duration{quarter}
	case lifted:
		return []time.Duration{next}
	default: // nothing happens until the disaster ends
		return nil
	}
}
