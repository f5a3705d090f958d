package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/config"
	"rotatord/internal/hook"
	"rotatord/internal/moment"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// This file runs the hooks that the ledger says are owed. Package rotation keeps account of them; see there for what
// a crash leaves.
//
// Hooks are no part of a rotation: they have a queue and workers of their own, and take no turn. Hooks of different
// tokens that do the same are one action. An action runs for one token after the other, or with batch for all that
// wait, so that one program is never run twice at the same time by this process. With several replicas, the one that
// comes first for a token runs its hooks.

const (
	// hookWorkers is how many actions run at the same time.
	hookWorkers = 16
	// hookNotes is how many notes in the ledger a run with several tokens makes at the same time, and hookBegin for how long
	// it begins further ones: the first note must not be old when the run begins.
	hookNotes = 16
	hookBegin = 10 * time.Second
	// hookStop is how long a run may go on after a stop began.
	hookStop = 5 * time.Second
	// hookNoteTime is how long the daemon tries at its stop to note how a run has ended.
	hookNoteTime = 5 * time.Second
	// hookRetry is when it is tried again to begin a hook whose token is being worked on, or whose record cannot be saved.
	hookRetry      = time.Second
	hookLedgerWait = 30 * time.Second
)

// hooks runs the hooks of all tokens.
type hooks struct {
	app    *App
	queue  *scheduler.Queue // a time for each token that owes a hook
	places chan struct{}
	runs   sync.WaitGroup

	mu      sync.Mutex
	planned map[string]map[string]*action // by token and name of the hook
	busy    map[owedKey]bool              // hooks that wait for their action, or run
}

// owedKey is one hook of one token.
type owedKey struct{ token, hook string }

// action is what hooks of one or more tokens do alike.
type action struct {
	key     string
	name    string // of the hook
	hook    hook.Hook
	timeout time.Duration
	batch   bool
	tokens  []string // that have it

	waiting []string // tokens that wait for it, in order
	running bool
}

func newHooks(a *App) *hooks {
	return &hooks{app: a, queue: scheduler.NewQueue(a.now), places: make(chan struct{}, hookWorkers), busy: make(map[owedKey]bool)}
}

// hooksOf returns what package rotation has to know of hooks.
func hooksOf(t config.Token) (all []rotation.Hook) {
	for _, h := range t.After {
		all = append(all, rotation.Hook{Name: config.HookName(h), Batch: h.Times().Batch})
	}
	return all
}

// open opens the hooks of a configuration: all of them, or none if it returns an error.
func (h *hooks) open(c *config.Config) (map[string]map[string]*action, error) {
	planned, actions := make(map[string]map[string]*action), make(map[string]*action)
	for _, t := range c.Tokens {
		for _, configured := range t.After {
			document, err := json.Marshal(configured.Document())
			if err != nil {
				return nil, err
			}
			key := config.HookName(configured) + "\x00" + string(document)
			found := actions[key]
			if found == nil {
				opened, err := hook.Open(configured, hook.Deps{Kubernetes: h.app.cluster})
				if err != nil {
					return nil, fmt.Errorf("tokens.%s: %w", t.Name, err)
				}
				times := configured.Times()
				found = &action{key: key, name: config.HookName(configured), hook: opened, timeout: times.Timeout, batch: times.Batch > 0}
				actions[key] = found
			}
			found.tokens = append(found.tokens, t.Name)
			if planned[t.Name] == nil {
				planned[t.Name] = make(map[string]*action)
			}
			planned[t.Name][found.name] = found
		}
	}
	return planned, nil
}

// set puts opened hooks in force. An action that was in force before stays the one that it is, since it may run now.
// What waits for another action, or runs, ends with the hook as it was.
func (h *hooks) set(planned map[string]map[string]*action) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := make(map[string]*action)
	for _, byName := range h.planned {
		for _, act := range byName {
			before[act.key] = act
		}
	}
	for _, byName := range planned {
		for name, act := range byName {
			if same := before[act.key]; same != nil {
				same.tokens, byName[name] = act.tokens, same
			}
		}
	}
	h.planned = planned
}

// runHooks begins to run hooks.
func (a *App) runHooks() {
	a.background("hooks", func(ctx context.Context) {
		a.hooks.queue.Run(ctx, func(token string, _ time.Time) { a.hooks.fire(ctx, token) }, nil)
		a.hooks.runs.Wait()
	})
}

// note queues a token for when its next hook is due, as its record says. It waits for nothing.
func (h *hooks) note(token string, record rotation.Record) {
	owed := record.OwedHooks()
	if len(owed) == 0 {
		if record.After != nil {
			h.queue.Remove(token)
		}
		return
	}
	var next time.Time
	now := h.app.now()
	for _, o := range owed {
		if !h.isBusy(owedKey{token, o.Name}) {
			next = moment.MinNonZero(next, moment.Max(h.app.engine.rotator.HookAt(token, o), now))
		}
	}
	if !next.IsZero() {
		h.queue.Set(token, next)
	}
}

func (h *hooks) isBusy(k owedKey) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.busy[k]
}

// fire hands the hooks of a token that are due to their actions.
func (h *hooks) fire(ctx context.Context, token string) {
	seen, ok := h.app.engine.view(token)
	if !ok {
		return // it was removed
	}
	now := h.app.now()
	if wait := h.othersFirst(seen); wait > 0 {
		h.queue.Set(token, now.Add(wait))
		return
	}
	var next time.Time
	var unknown bool
	for _, o := range seen.record.OwedHooks() {
		at := h.app.engine.rotator.HookAt(token, o)
		switch act := h.find(token, o.Name); {
		case act == nil:
			unknown = true
		case at.After(now):
			next = moment.MinNonZero(next, at)
		default:
			h.hand(ctx, act, token)
		}
	}
	if unknown {
		if record, err := h.app.engine.rotator.DropUnknownHooks(ctx, seen.token); err != nil {
			next = moment.MinNonZero(next, now.Add(hookLedgerWait))
		} else {
			h.app.engine.planNewer(token, record)
		}
	}
	if !next.IsZero() {
		h.queue.Set(token, next)
	}
}

// othersFirst returns for how long another replica comes first for the hooks of a token; 0 if none does.
func (h *hooks) othersFirst(s scheduled) time.Duration {
	e := h.app.engine
	switch {
	case s.enrolling:
		return hookRetry
	case e.peers == nil:
		return 0
	case e.peers.MayBegin() != nil:
		return asideRetry
	}
	if held := e.peers.HeldFor(s.record); held > 0 {
		return held
	}
	var due time.Time
	for _, o := range s.record.OwedHooks() {
		due = moment.MinNonZero(due, e.rotator.HookAt(s.token.Name, o))
	}
	return max(0, moment.Max(due, s.since).Add(e.peers.Wait(s.token.Name, s.record)).Sub(e.now()))
}

// find returns the action of a hook; nil if the configuration does not have it any more.
func (h *hooks) find(token, name string) *action {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.planned[token][name]
}

// hand lets a token wait for an action, and begins to run the action if it does not run.
func (h *hooks) hand(ctx context.Context, act *action, token string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if key := (owedKey{token, act.name}); !h.busy[key] {
		h.busy[key] = true
		act.waiting = append(act.waiting, token)
	}
	if !act.running {
		act.running = true
		h.runs.Go(func() { h.work(ctx, act) })
	}
}

// work runs an action for all tokens that wait for it.
func (h *hooks) work(ctx context.Context, act *action) {
	for {
		select {
		case h.places <- struct{}{}:
		case <-ctx.Done(): // the ledger knows what is owed
			return
		}
		tokens := h.take(act)
		if len(tokens) > 0 {
			h.run(ctx, act, tokens)
		}
		<-h.places
		if len(tokens) == 0 {
			return
		}
	}
}

// take takes the tokens that the next run of an action serves; none if no token waits. With batch these are also those
// that owe it and whose time has not come yet.
func (h *hooks) take(act *action) []string {
	h.mu.Lock()
	act.running = len(act.waiting) > 0
	running, sharing := act.running, act.tokens
	h.mu.Unlock()
	if !running {
		return nil
	}
	var riders []string
	if act.batch {
		for _, token := range sharing {
			seen, ok := h.app.engine.view(token)
			if ok && !seen.enrolling && h.app.engine.ours(seen) && slices.ContainsFunc(seen.record.OwedHooks(), func(o rotation.OwedHook) bool { return o.Name == act.name }) {
				riders = append(riders, token)
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !act.batch {
		token := act.waiting[0]
		act.waiting = act.waiting[1:]
		return []string{token}
	}
	n := min(len(act.waiting), hook.MaxItems)
	tokens := slices.Clone(act.waiting[:n])
	act.waiting = act.waiting[n:]
	for _, token := range riders {
		if key := (owedKey{token, act.name}); len(tokens) < hook.MaxItems && !h.busy[key] {
			h.busy[key] = true
			tokens = append(tokens, token)
		}
	}
	return tokens
}

// begun is a run of a hook that the ledger knows of.
type begun struct {
	token rotation.Token
	run   rotation.HookRun
}

// run runs an action once, for several tokens. Their order does not depend on which of them waited first, so that a run
// which is repeated with the same tokens is seen to be the same.
func (h *hooks) run(ctx context.Context, act *action, tokens []string) {
	all := h.beginAll(ctx, act, tokens)
	if len(all) == 0 {
		return
	}
	items := make([]hook.Item, len(all))
	for i, b := range all {
		items[i] = hook.Item{Token: b.run.Token, ID: b.run.ID, RotationID: b.run.RotationID, Digest: b.run.Digest, Attempt: b.run.Attempt}
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(hookStop, cancel) })()
	began := time.Now()
	err := act.hook.Run(rotation.WithSendCheck(running, func() error { return h.mayRun(all) }), items)
	end := rotation.HookEnd{Err: err, CutOff: err != nil && running.Err() != nil || errors.Is(err, rotation.ErrNotHeld), Took: time.Since(began), Tokens: len(all)}
	h.atOnce(len(all), func(i int) { h.end(ctx, all[i], end) })
}

// mayRun returns why a run must not be begun any more.
func (h *hooks) mayRun(all []begun) error {
	for _, b := range all {
		if err := h.app.engine.rotator.MayRunHook(b.run); err != nil {
			return err
		}
	}
	return nil
}

// beginAll notes that a hook runs now for those of the tokens that still owe it, and returns them by name. What it does not
// begin in time waits for the next run.
func (h *hooks) beginAll(ctx context.Context, act *action, tokens []string) (all []begun) {
	slices.Sort(tokens)
	runs, began := make([]*begun, len(tokens)), time.Now()
	h.atOnce(len(tokens), func(i int) {
		if time.Since(began) > hookBegin {
			h.mu.Lock()
			defer h.mu.Unlock()
			act.waiting = append(act.waiting, tokens[i])
			return
		}
		if run, t := h.begin(ctx, act, tokens[i]); run != nil {
			runs[i] = &begun{t, *run}
		}
	})
	for _, b := range runs {
		if b != nil {
			all = append(all, *b)
		}
	}
	return all
}

// atOnce calls do for 0 to n-1, some at the same time, and returns after all of them.
func (h *hooks) atOnce(n int, do func(i int)) {
	var next atomic.Int64
	var calls sync.WaitGroup
	for range min(n, hookNotes) {
		calls.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	calls.Wait()
}

// begin notes that a hook runs now. It returns nil if it does not: then the token is queued again if it has to be.
func (h *hooks) begin(ctx context.Context, act *action, token string) (*rotation.HookRun, rotation.Token) {
	var run *rotation.HookRun
	var record rotation.Record
	var again time.Duration
	t, ok := h.app.engine.configured(token)
	if ok && ctx.Err() == nil {
		var err error
		run, record, err = h.app.engine.rotator.BeginHook(ctx, t, act.name, act.timeout, act.batch)
		switch {
		case err == nil:
		case errors.Is(err, rotation.ErrBusy), h.app.engine.lost(err):
			again = hookRetry
		default:
			again = hookLedgerWait
			h.app.log.Warn("a hook cannot run, because the ledger cannot note it: it is tried again", "token", token, "hook", act.name, "error", err, "again_in", again.String())
		}
	}
	if run != nil {
		h.app.engine.planNewer(token, record)
		return run, t
	}
	h.free(token, act.name)
	switch {
	case again > 0:
		h.queue.Set(token, h.app.now().Add(again))
	case record.Revision > 0:
		h.app.engine.planNewer(token, record)
		h.note(token, record)
	}
	return nil, t
}

// end notes how a run has ended. It tries that until it succeeds: the run is not repeated because the ledger is away for
// a while. Only if the daemon ends before that, the hook runs again.
func (h *hooks) end(ctx context.Context, b begun, end rotation.HookEnd) {
	noting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(hookNoteTime, cancel) })()
	for wait := hookRetry; ; wait = min(2*wait, hookLedgerWait) {
		record, err := h.app.engine.rotator.EndHook(noting, b.token, b.run, end)
		if err == nil {
			h.free(b.run.Token, b.run.Hook)
			h.app.engine.planNewer(b.run.Token, record)
			h.note(b.run.Token, record)
			return
		}
		if !h.app.engine.lost(err) {
			h.app.log.Warn("a hook has run, and the ledger cannot note it: it is tried again", "token", b.run.Token, "hook", b.run.Hook, "error", err, "again_in", wait.String())
		}
		select {
		case <-noting.Done():
			h.free(b.run.Token, b.run.Hook)
			return
		case <-time.After(wait):
		}
	}
}

func (h *hooks) free(token, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.busy, owedKey{token, name})
}

// configured returns a token as it is configured now, and false if it is not, or not ready.
func (e *engine) configured(name string) (rotation.Token, bool) {
	s, ok := e.view(name)
	return s.token, ok && !s.enrolling
}

// RunHooks implements [admin.Orders].
func (a *App) RunHooks(ctx context.Context, name string, hooks []string) (admin.Hooked, error) {
	_, err := a.engine.runCommand(name, func(t rotation.Token) (rotation.Record, error) { return a.engine.rotator.RunHooks(ctx, t, hooks) })
	return admin.Hooked{Token: a.token(name)}, err
}

// DropHooks implements [admin.Orders].
func (a *App) DropHooks(ctx context.Context, name string) (admin.Hooked, error) {
	_, err := a.engine.runCommand(name, func(t rotation.Token) (rotation.Record, error) { return a.engine.rotator.DropHooks(ctx, t) })
	return admin.Hooked{Token: a.token(name)}, err
}
