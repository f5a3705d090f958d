package app

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"sync"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/sink"
	"rotatord/internal/status"
)

// This file watches between rotations: it reads each sink on a slow cycle and compares it with the ledger, and
// tries the secret in use again where verify.every is set. The comparison is in package rotation.
//
// The cycle is cheap. One look is one read of one sink, and the ledger is read and written only if something is
// different. The looks are spread evenly over the period, and a token has the same place in it after a restart.
// Few looks run at the same time, and fewer at one mount or directory, so one that hangs delays only its own. No
// look begins while a rotation works on the token, while Vault cannot be used, or with a session whose uses are
// limited. What a look shows is recorded if a second look agrees that something is wrong, or that nothing is: a
// standby may show an older state, and a person may be in the middle of a change. The two need not find the same
// secret: another writer may change it all the time.

const (
	// confirmAfter is the time between two looks that must agree.
	confirmAfter = time.Minute
	// lookTimeout is how long one look may take.
	lookTimeout = 10 * time.Second
	// watchWorkers is how many looks run at the same time, and watchPerGroup how many of them at one group of
	// sinks. A look that finds no place waits for lookAgainIn.
	watchWorkers  = 8
	watchPerGroup = 4
	lookAgainIn   = 30 * time.Second
	// skippedWait is when a look that could not begin is tried again, if the period is longer.
	skippedWait = 15 * time.Minute
	// unreadableAfter is how many looks in a row must fail, over unreadableFor at least, before a sink counts
	// as unreadable.
	unreadableAfter = 4
	unreadableFor   = 6 * time.Minute
	// refusedAfter is how many requests in a row must be refused, over refusedFor at least, before the secret
	// in use counts as refused. They are refusedRetry apart.
	refusedAfter = 4
	refusedFor   = 6 * time.Minute
	refusedRetry = 2 * time.Minute
	// maxRestoring is how many tokens are restored at the same time.
	maxRestoring = 2
	probeTimeout = 20 * time.Second
)

// watch looks at sinks regularly. Its clock is monotonic: setting the wall clock neither delays nor bunches looks.
type watch struct {
	app    *App
	now    func() time.Time
	queue  *scheduler.Queue
	looks  sync.WaitGroup
	places chan struct{} // of the restores

	mu         sync.Mutex
	items      map[string]*watched
	generation uint32 // counts the configurations
	running    int
	inGroup    map[string]int // looks in progress, by group
}

// watchPlan is what the configuration says of one thing that is looked at: a sink of a token, or with verify.every the
// secret in use.
type watchPlan struct {
	key, token string
	sink       string // its name; empty for the secret in use
	group      string
	needsVault bool
	every      time.Duration
}

// watched is one thing that is looked at.
type watched struct {
	watchPlan

	// Only the look in progress uses the fields below, and at most one is in progress. lookedAt is read
	// under the lock of the watch.
	looking    bool
	generation uint32    // of the configuration that last had it; read under the lock of the watch
	lookedAt   time.Time // of the last look, also of one that failed; at first when the watch began
	suspect    *rotation.Finding
	// first is when the last look showed something else than the ledger for the first time in a row, failed
	// for the first time in a row, or was refused. failures counts those that failed or were refused.
	first    time.Time
	failures int
}

func newWatch(a *App) *watch {
	base := time.Now()
	now := func() time.Time { return base.Add(time.Since(base)) }
	return &watch{
		app: a, now: now, queue: scheduler.NewQueue(now), items: make(map[string]*watched), inGroup: make(map[string]int),
		places: make(chan struct{}, maxRestoring),
	}
}

// watchSinks starts to watch.
func (a *App) watchSinks() {
	a.watch.set(a.InForce())
	a.background("watching sinks", func(ctx context.Context) {
		a.watch.queue.Run(ctx, func(key string, _ time.Time) { a.watch.fire(ctx, key) }, nil)
		a.watch.looks.Wait()
	})
}

// set takes over a configuration. What was seen of a sink that stays is kept.
func (w *watch) set(c *config.Config) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.generation++
	groups := make(map[string]string) // few, and each is in memory once
	add := func(plan watchPlan) {
		plan.key = watchKey(plan.token, plan.sink)
		plan.sink = plan.key[len(plan.token)+1:] // the same text, in memory once
		if group, known := groups[plan.group]; known {
			plan.group = group
		} else {
			groups[plan.group] = plan.group
		}
		item := w.items[plan.key]
		if item == nil || item.watchPlan != plan {
			now := w.now()
			item = &watched{watchPlan: plan, lookedAt: now}
			w.items[plan.key] = item
			w.queue.Set(plan.key, plan.next(now))
		}
		item.generation = w.generation
	}
	for _, t := range c.Tokens {
		vault := false
		for _, s := range t.Sinks {
			vault = vault || s.NeedsVault()
			if c.WatchEvery > 0 {
				add(watchPlan{token: t.Name, sink: config.SinkName(s), group: s.Group(), needsVault: s.NeedsVault(), every: c.WatchEvery})
			}
		}
		if t.Verify != nil && t.Verify.Every > 0 {
			add(watchPlan{token: t.Name, group: "verify " + t.Verify.URL, needsVault: vault, every: t.Verify.Every})
		}
	}
	for key, item := range w.items {
		if item.generation != w.generation {
			delete(w.items, key)
			w.queue.Remove(key)
		}
	}
}

// watchKey identifies what is looked at.
func watchKey(token, sink string) string { return token + "\x00" + sink }

// next returns when it is looked at next after a time: its own place in the period.
func (i watchPlan) next(after time.Time) time.Time {
	h := fnv.New64a()
	_, _ = h.Write([]byte(i.token))
	if i.sink == "" {
		_, _ = h.Write([]byte(" verify"))
	}
	offset := time.Duration(h.Sum64() % uint64(i.every))
	begin := after.Truncate(i.every)
	for next := begin.Add(offset); ; next = next.Add(i.every) {
		if next.After(after) {
			return next
		}
	}
}

// fire starts a look, if there is a place for it.
func (w *watch) fire(ctx context.Context, key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	item := w.items[key]
	if item == nil {
		return
	}
	if item.looking || w.running >= watchWorkers || w.inGroup[item.group] >= watchPerGroup {
		w.queue.Set(key, w.now().Add(min(lookAgainIn, item.every)))
		return
	}
	item.looking = true
	w.running++
	w.inGroup[item.group]++
	w.looks.Go(func() {
		var wait time.Duration
		if item.sink == "" {
			wait = w.tryInUse(ctx, item)
		} else {
			wait = w.look(ctx, item)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		item.looking = false
		w.running--
		if w.inGroup[item.group]--; w.inGroup[item.group] == 0 {
			delete(w.inGroup, item.group)
		}
		if w.items[key] != item {
			return // a reload has replaced it
		}
		if at := item.next(w.now()); wait > 0 && w.now().Add(wait).Before(at) {
			w.queue.Set(key, w.now().Add(wait))
		} else {
			w.queue.Set(key, at)
		}
	})
}

// paused reports whether no look may begin now that needs Vault, because Vault cannot be used, or because each
// request uses up something that rotations need.
func (w *watch) paused(ctx context.Context, item *watched) bool {
	if !item.needsVault {
		return false
	}
	if _, failing := w.app.ahead.Failing(status.CheckVault, ""); failing {
		return true
	}
	limited, err := w.app.session.Limited(ctx)
	return limited || err != nil
}

// idle returns what is known of the token if nothing works on it, no work on it is unfinished, and no other replica
// watches it.
func (w *watch) idle(token string) (scheduled, bool) {
	seen, ok := w.app.engine.view(token)
	return seen, ok && !seen.enrolling && seen.active == 0 && seen.record.Step == rotation.StepIdle && seen.record.Hold == nil && w.app.engine.ours(seen)
}

// sinkNamed returns the sink of a token with a name; nil if it is not configured any more.
func sinkNamed(t rotation.Token, name string) sink.Sink {
	for _, s := range t.Sinks {
		if opened, ok := s.(sink.Sink); ok && s.Name() == name {
			return opened
		}
	}
	return nil
}

// look looks at a sink. It returns how long to wait until the next look; 0 for the next one in turn.
func (w *watch) look(ctx context.Context, item *watched) (wait time.Duration) {
	before, ok := w.idle(item.token)
	at := sinkNamed(before.token, item.sink)
	if !ok || at == nil || !before.record.Watched() || w.paused(ctx, item) {
		if !w.app.engine.ours(before) {
			w.setLooked(item) // another replica has
		}
		item.calm()
		w.counted(item, "skipped")
		return skippedWait // the cause is mostly over earlier than a long period
	}
	stored, err := lookBriefly(ctx, at)
	if ctx.Err() != nil { // the daemon stops
		return 0
	}
	after, ok := w.idle(item.token)
	if !ok || sinkNamed(after.token, item.sink) == nil {
		item.calm()
		w.counted(item, "skipped")
		return confirmAfter
	}
	w.setLooked(item)
	if err != nil {
		w.counted(item, "failed")
		return w.unread(ctx, item, before, after, err)
	}
	look := rotation.Look{Sink: item.sink, Before: before.record, Stored: stored}
	return w.compare(ctx, item, after, look)
}

// lookBriefly looks at a sink within a bound. What comes after a look that took all of it is not bound by it.
func lookBriefly(ctx context.Context, at sink.Sink) (rotation.Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return at.Look(ctx)
}

// compare compares what a look has shown with the record.
func (w *watch) compare(ctx context.Context, item *watched, seen scheduled, look rotation.Look) (wait time.Duration) {
	now, record := w.now(), seen.record
	found, known := record.Compare(item.sink, look.Stored), record.Findings[item.sink]
	result := "differs"
	if found.Kind == "" {
		result = "as_written"
	}
	w.counted(item, result)
	item.failures = 0
	switch {
	case found.Same(known):
		item.calm()
		if look.Stored.Exists && !look.Stored.DeletesAt.Equal(record.Deletes[item.sink]) { // it needs no second look
			record = w.record(ctx, seen, look)
		}
	case item.suspect == nil || (item.suspect.Kind == "") != (found.Kind == ""):
		item.suspect, item.first = &found, now
		return confirmAfter
	case now.Sub(item.first) < confirmAfter/2:
		return confirmAfter
	default:
		item.calm()
		record = w.record(ctx, seen, look)
	}
	return w.restore(ctx, seen.token, record)
}

// unread notes that a look has failed.
func (w *watch) unread(ctx context.Context, item *watched, before, seen scheduled, err error) (wait time.Duration) {
	item.suspect = nil
	if _, failing := w.app.ahead.Failing(status.CheckSink, item.group); failing || w.paused(ctx, item) {
		item.calm() // a look-ahead check says why
		return 0
	}
	now := w.now()
	if item.failures++; item.failures == 1 {
		item.first = now
	}
	if item.failures < unreadableAfter || now.Sub(item.first) < unreadableFor {
		return confirmAfter << min(item.failures-1, 2)
	}
	if seen.record.Findings[item.sink].Kind != rotation.FoundUnreadable {
		w.record(ctx, seen, rotation.Look{Sink: item.sink, Before: before.record, Err: err})
	}
	return 0
}

// calm forgets what earlier looks have shown.
func (i *watched) calm() { i.suspect, i.failures = nil, 0 }

// counted counts a look in the metrics.
func (w *watch) counted(item *watched, result string) {
	w.app.metrics.SinkLooked(item.sink, result)
}

func (w *watch) setLooked(item *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	item.lookedAt = w.now()
}

// state returns how often each sink is looked at, and when the sink was looked at whose last look is the longest ago.
// A token that has nothing to compare with, or whose rotation is in progress, does not count. Both are zero if no
// sink is left.
func (w *watch) state() (every time.Duration, oldest time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, item := range w.items {
		seen, ok := w.app.engine.view(item.token)
		if item.sink != "" && ok && seen.record.Watched() && w.app.engine.ours(seen) && (oldest.IsZero() || item.lookedAt.Before(oldest)) {
			every, oldest = item.every, item.lookedAt
		}
	}
	return every, oldest
}

// record records what a look has shown, and returns the record after it.
func (w *watch) record(ctx context.Context, seen scheduled, look rotation.Look) rotation.Record {
	record, err := w.app.engine.rotator.RecordLook(ctx, seen.token, look)
	if err != nil {
		w.app.tell(seen.token.Name, rotation.StuckOn(err))
		return seen.record
	}
	w.app.engine.planNewer(seen.token.Name, record)
	return record
}

// restore restores a token whose configuration asks for that. It returns how long to wait until the next look.
func (w *watch) restore(ctx context.Context, t rotation.Token, record rotation.Record) (wait time.Duration) {
	if !rotation.WantsRestore(t, record) {
		return 0
	}
	select {
	case w.places <- struct{}{}:
		defer func() { <-w.places }()
	default:
		return confirmAfter
	}
	if err := w.app.engine.restore(ctx, t.Name); err != nil && ctx.Err() == nil {
		w.app.log.Warn("the secret could not be restored; it is tried again with a later look", "token", t.Name, "error", err)
	}
	return 0
}

// restoreTimeout is how long one attempt to restore may take, beside its writes.
const restoreTimeout = 30 * time.Second

// restore writes the secret of a token back to sinks that no longer hold it, or orders a rotation.
func (e *engine) restore(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	_, err := e.runCommand(name, func(t rotation.Token) (rotation.Record, error) { return e.rotator.Restore(ctx, t) })
	return err
}

// planNewer plans a token again if the record is newer than the known one.
func (e *engine) planNewer(name string, record rotation.Record) {
	if now, ok := e.view(name); ok && now.active == 0 && record.Revision > now.record.Revision {
		e.plan(name, record, 0)
	}
}

// tryInUse tries the secret in use. It returns how long to wait until the next try; 0 for the next one in turn.
func (w *watch) tryInUse(ctx context.Context, item *watched) (wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout+probeTimeout)
	defer cancel()
	before, ok := w.idle(item.token)
	t := before.token
	if !ok || t.Prober == nil || t.Uncreated(before.record) || w.paused(ctx, item) {
		item.failures = 0
		return 0
	}
	c, wrong, err := rotation.ReadInUse(ctx, t, before.record)
	if wrong != "" {
		w.lookNow(item.token, wrong)
	}
	if err != nil || c.ClientSecret.IsZero() {
		return 0 // looks at the sinks say so
	}
	probe, probeErr := t.Prober.Probe(ctx, c)
	if ctx.Err() == context.Canceled { //nolint:errorlint // the daemon stops
		return 0
	}
	w.app.metrics.InUseProbed(probe)
	if _, ok := w.idle(item.token); !ok {
		item.failures = 0
		return 0
	}
	now, refused := w.now(), before.record.RefusedInUse
	switch {
	case probe == rotation.ProbeGood:
		if item.failures = 0; refused != nil {
			w.recordProbe(ctx, before, nil)
		}
		return 0
	case probe != rotation.ProbeBad: // it proves nothing
		return 0
	case refused != nil: // it is recorded already; it is tried often, to see when it ends
		return min(item.every, refusedFor)
	}
	if item.failures++; item.failures == 1 {
		item.first = now
	}
	if item.failures < refusedAfter || now.Sub(item.first) < max(refusedFor, t.VerifyWithin) {
		return refusedRetry
	}
	since := w.app.now().Add(-now.Sub(item.first)).UTC()
	w.recordProbe(ctx, before, &rotation.RefusedInUse{Since: since, Digest: c.ClientSecret.Digest(), Error: cmp.Or(probeErr, errRefused).Error()})
	return refusedRetry
}

var errRefused = errors.New("it was refused")

func (w *watch) recordProbe(ctx context.Context, seen scheduled, refused *rotation.RefusedInUse) {
	record, err := w.app.engine.rotator.RecordProbe(ctx, seen.token, seen.record, refused)
	if err != nil {
		w.app.tell(seen.token.Name, rotation.StuckOn(err))
		return
	}
	w.app.engine.planNewer(seen.token.Name, record)
}

// lookNow has a sink looked at soon.
func (w *watch) lookNow(token, sink string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if item := w.items[watchKey(token, sink)]; item != nil && !item.looking {
		w.queue.Set(item.key, w.now())
	}
}
