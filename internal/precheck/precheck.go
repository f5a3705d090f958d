// Package precheck has the look-ahead checks: from time to time they check everything that the next rotation
// will need, so that a fault is known long before a slot comes.
//
// Guarantees: checks are independent. One that hangs delays no other, and is reported as failing. A check
// that finds out nothing does not change its last result. A check never costs a secret, and nothing waits for
// a check.
package precheck

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

const (
	// A failing check is repeated retryShare times as often, so that a person who repairs something sees it,
	// but not more often than every retryMin.
	retryShare = 4
	retryMin   = 15 * time.Second
	// hangsAfter is how long a check may run after its timeout before it counts as failed.
	hangsAfter = 5 * time.Second
	// toldMost is how many different refusals of a check are told until it is good again: a server may give each another text.
	toldMost = 8
)

// ErrNothingLearned is in the error of a check that found out nothing, neither good nor bad: it was cut off, or
// it waits for something that another check reports. Its last result stays.
var ErrNothingLearned = errors.New("nothing was learned")

// Check is one thing to check. All fields except Subject are required.
type Check struct {
	// Name is the kind of check, one of [status.CheckNames]. Subject is what it is about; empty if there is
	// only one. Together they identify the check, and are labels of metrics.
	Name, Subject string
	// Every is the time between two looks if all is well.
	Every time.Duration
	// Timeout ends a look. A look that does not end then is reported as failing.
	Timeout time.Duration
	// Stops is set if no rotation that needs the subject can start while the check fails.
	Stops bool
	// Look returns nil if a rotation would find what it needs. It should obey its context.
	Look func(ctx context.Context) error
}

type key struct{ name, subject string }

// Watch runs checks. It is safe for concurrent use. Use it once: New, Set, Close.
type Watch struct {
	now     func() time.Time
	changed func(status.Check)

	mu      sync.Mutex
	closed  bool
	running map[key]*running
	loops   sync.WaitGroup
}

// running is a check with its last result. The lock of Watch guards result, told and began.
type running struct {
	check  Check
	result status.Check
	told   []string  // what was told since the check fails: see [rotation.ToldAs]
	began  time.Time // when the look in progress started; zero if there is none
	again  chan struct{}
	stop   context.CancelFunc
}

// New returns a Watch without checks. now is the wall clock; nil for the system's. changed is called when a
// check starts to fail, fails for another reason, or is good again. It must not block, and may be nil.
func New(now func() time.Time, changed func(status.Check)) *Watch {
	if now == nil {
		now = time.Now
	}
	if changed == nil {
		changed = func(status.Check) {}
	}
	return &Watch{now: now, changed: changed, running: make(map[key]*running)}
}

// Set replaces the checks. Checks that exist already, by name and subject, continue; new ones look at once. It
// does nothing after Close.
func (w *Watch) Set(checks []Check) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	wanted := make(map[key]bool, len(checks))
	for _, c := range checks {
		k := key{c.Name, c.Subject}
		wanted[k] = true
		if w.running[k] != nil {
			continue
		}
		ctx, stop := context.WithCancel(context.Background())
		r := &running{check: c, again: make(chan struct{}, 1), stop: stop,
			result: status.Check{Name: c.Name, Subject: c.Subject, Stops: c.Stops}}
		w.running[k] = r
		w.loops.Go(func() { w.loop(ctx, r) })
	}
	for k, r := range w.running {
		if !wanted[k] {
			r.stop()
			delete(w.running, k)
		}
	}
}

// Close ends all checks, and waits within ctx for the looks in progress. Results stay.
func (w *Watch) Close(ctx context.Context) error {
	w.mu.Lock()
	w.closed = true
	for _, r := range w.running {
		r.stop()
	}
	w.mu.Unlock()
	ended := make(chan struct{})
	go func() { w.loops.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// LookNow runs the checks whose last result fits now.
func (w *Watch) LookNow(fits func(status.Check) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.running {
		if fits(r.result) {
			select {
			case r.again <- struct{}{}:
			default:
			}
		}
	}
}

// Results returns the last result of each check that has run, sorted by name and subject.
func (w *Watch) Results() []status.Check {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []status.Check
	for _, r := range w.running {
		if result := r.known(w.now()); !result.LookedAt.IsZero() {
			all = append(all, result)
		}
	}
	slices.SortFunc(all, func(a, b status.Check) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Subject, b.Subject))
	})
	return all
}

// Failing returns the last result of a check, and false if it is good or if the check has not run.
func (w *Watch) Failing(name, subject string) (status.Check, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.running[key{name, subject}]
	if r == nil {
		return status.Check{}, false
	}
	result := r.known(w.now())
	return result, result.Fails()
}

// known returns the last result, or that the look in progress hangs. The caller holds the lock.
func (r *running) known(now time.Time) status.Check {
	result := r.result
	if r.began.IsZero() || now.Sub(r.began) < r.check.Timeout+hangsAfter {
		return result
	}
	if !result.Fails() {
		result.Since = r.began
	}
	result.OK, result.LookedAt, result.Reason = false, now.UTC(), "hangs"
	result.Detail = "it did not end within " + r.check.Timeout.String()
	return result
}

// loop runs one check again and again until ctx ends.
func (w *Watch) loop(ctx context.Context, r *running) {
	for {
		ok := w.look(ctx, r)
		wait := r.check.Every
		if !ok {
			wait = min(wait, max(wait/retryShare, retryMin))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-r.again:
		}
	}
}

// tellThatItHangs reports a look that does not end, unless the check was failing already.
func (w *Watch) tellThatItHangs(r *running) {
	w.mu.Lock()
	known := r.known(w.now())
	news := known.Fails() && !r.result.Fails() && !w.closed
	w.mu.Unlock()
	if news {
		w.changed(known)
	}
}

// look runs the check once, and reports whether all is well.
func (w *Watch) look(ctx context.Context, r *running) bool {
	w.mu.Lock()
	r.began = w.now().UTC()
	w.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, r.check.Timeout)
	hangs := time.AfterFunc(r.check.Timeout+hangsAfter, func() { w.tellThatItHangs(r) })
	err := r.check.Look(bounded)
	hangs.Stop()
	cancel()
	w.mu.Lock()
	before := r.known(w.now())
	r.began = time.Time{}
	if ctx.Err() != nil || errors.Is(err, ErrNothingLearned) {
		w.mu.Unlock()
		return before.OK
	}
	after := status.Check{Name: r.check.Name, Subject: r.check.Subject, Stops: r.check.Stops, LookedAt: w.now().UTC(), OK: err == nil}
	if err != nil {
		after.Reason, after.Detail, after.Since = rotation.CauseOf(err), printable.Text(err.Error()), after.LookedAt
		if before.Fails() {
			after.Since = before.Since
		}
	}
	// Before the first look all counts as well, so that only a fault is reported.
	news := after.Fails() != before.Fails() || after.Reason != before.Reason
	if what := rotation.ToldAs(err); err == nil {
		r.told = nil
	} else if !slices.Contains(r.told, what) && len(r.told) < toldMost {
		r.told, news = append(r.told, what), true
	}
	r.result = after
	w.mu.Unlock()
	if news {
		w.changed(after)
	}
	return after.OK
}
