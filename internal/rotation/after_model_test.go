package rotation_test

import (
	"errors"
	"slices"
	"time"

	"rotatord/internal/rotation"
)

// This file is what must be true of hooks in the random worlds, whatever fails. A world tells hooksModel each record that
// was saved, and each run of a hook that was carried out.

// hooksModel checks the hooks of one token.
type hooksModel struct {
	names  []string
	errorf func(format string, args ...any)

	carriedOut map[hookKey][]int // the attempts that have succeeded, in their order
	noted      map[hookKey]int   // the ledger says that it has succeeded: how many attempts were begun by then
	latest     map[string]int    // by hook: the rank of the newest rotation for which it has run
	committed  []rotation.Done   // the rotations, in their order
	repeated   int               // runs that were repeated although they had succeeded
	replaced   int               // hooks that were owed when a newer rotation came
	foreign    int               // runs that another process had begun
	beganBy    map[hookKey]string
}

// hookKey is what a hook is owed for.
type hookKey struct{ hook, id string }

func newHooksModel(errorf func(string, ...any), names ...string) *hooksModel {
	return &hooksModel{names: names, errorf: errorf, carriedOut: map[hookKey][]int{}, noted: map[hookKey]int{}, beganBy: map[hookKey]string{}, latest: map[string]int{}}
}

func hookIn(r rotation.Record, name string) (h rotation.OwedHook) {
	if r.After != nil {
		if i := slices.IndexFunc(r.After.Hooks, func(h rotation.OwedHook) bool { return h.Name == name }); i >= 0 {
			h = r.After.Hooks[i]
		}
	}
	return h
}

// saved checks a record that was saved over another one.
func (m *hooksModel) saved(before, after rotation.Record) {
	if m == nil {
		return
	}
	commits := after.Last != nil && (before.Last == nil || before.Last.RotationID != after.Last.RotationID)
	if commits {
		m.committed = append(m.committed, *after.Last)
	}
	for _, name := range m.names {
		was, is := hookIn(before, name), hookIn(after, name)
		switch {
		case commits && (!is.Owed() || after.After.RotationID != after.Last.RotationID || after.After.Digest != after.Last.Digest):
			m.errorf("rotation %s was committed, and %s is not owed for it: %+v", after.Last.RotationID, name, after.After)
		case commits:
			if was.Owed() {
				m.replaced++
			}
		case is.Name == "" && was.Name == "":
		case is.Name == "":
			m.errorf("%s was owed, and the record has lost it", name)
		case was.Name == "" || before.After.RotationID != after.After.RotationID || before.After.ID(was) != after.After.ID(is):
			m.errorf("%s is owed for %s, and no rotation was committed", name, after.After.ID(is))
		case !was.Owed() && is.Owed():
			m.errorf("%s was done, and is owed again", name)
		case was.Owed() && !is.Owed():
			key := hookKey{name, after.After.ID(is)}
			if len(m.carriedOut[key]) == 0 {
				m.errorf("%s is noted as done for %s, and was never carried out", name, key.id)
			}
			m.noted[key] = is.Attempts
		case is.Attempts < was.Attempts:
			m.errorf("%s has %d attempts after %d", name, is.Attempts, was.Attempts)
		case is.Attempts > was.Attempts:
			key := hookKey{name, after.After.ID(is)}
			if by := m.beganBy[key]; by != "" && by != is.Runner.Process {
				m.foreign++
			}
			m.beganBy[key] = is.Runner.Process
		}
	}
}

// runs notes that a run is carried out, and succeeds. late is set if it was stopped on its way, after the last check.
func (m *hooksModel) runs(ledger rotation.Record, run rotation.HookRun, late bool) {
	key := hookKey{run.Hook, run.ID}
	is := hookIn(ledger, run.Hook)
	attempts := m.carriedOut[key]
	switch {
	case late: // what was stopped there cannot be held back
	case !slices.ContainsFunc(m.committed, func(o rotation.Done) bool { return o.RotationID == run.RotationID && o.Digest == run.Digest }):
		m.errorf("%s runs for %s, which was not committed with that digest", run.Hook, run.RotationID)
	case m.noted[key] > 0 && run.Attempt > m.noted[key]:
		m.errorf("%s runs again for %s, although the ledger says that it has succeeded", run.Hook, run.ID)
	case ledger.After != nil && ledger.After.ID(is) == run.ID && is.Attempts < run.Attempt:
		m.errorf("%s runs for %s with attempt %d, and the ledger has %d", run.Hook, run.ID, run.Attempt, is.Attempts)
	case m.rank(run.RotationID) < m.latest[run.Hook]:
		m.errorf("%s runs for %s after a newer rotation: consumers see an older digest last", run.Hook, run.RotationID)
	case len(attempts) > 0 && attempts[len(attempts)-1] >= run.Attempt:
		m.errorf("%s runs for %s with attempt %d after attempt %d: its receiver cannot tell", run.Hook, run.ID, run.Attempt, attempts[len(attempts)-1])
	case len(attempts) > 0:
		m.repeated++
	}
	m.carriedOut[key] = append(attempts, run.Attempt)
	m.latest[run.Hook] = max(m.latest[run.Hook], m.rank(run.RotationID))
}

// rank returns the place of a rotation in the order in which they were committed.
func (m *hooksModel) rank(rotationID string) int {
	return slices.IndexFunc(m.committed, func(d rotation.Done) bool { return d.RotationID == rotationID })
}

// end checks the hooks after everything has worked for a while: those of the last rotation have run, unless they have not
// waited for longer than patience.
func (m *hooksModel) end(r rotation.Record, patience time.Duration) {
	if r.Last == nil {
		return
	}
	for _, name := range m.names {
		h := hookIn(r, name)
		switch {
		case h.Name == "":
			m.errorf("%s has no entry in the last record", name)
		case h.Owed() && time.Since(r.After.At) > patience:
			m.errorf("%s is still owed %s after the rotation: %+v", name, time.Since(r.After.At), h)
		case !h.Owed() && len(m.carriedOut[hookKey{name, r.After.ID(h)}]) == 0:
			m.errorf("%s was never carried out for the last rotation %s", name, r.Last.RotationID)
		}
	}
}

// count adds what has happened.
func (m *hooksModel) count(seen map[string]int) {
	seen["hooks repeated"] += m.repeated
	seen["hooks replaced"] += m.replaced
	seen["hooks taken over"] += m.foreign
	for key, attempts := range m.carriedOut {
		seen["hooks run"] += len(attempts)
		if len(attempts) > 1 && m.noted[key] == 0 {
			seen["hooks run and not noted"]++
		}
	}
}

// of returns a token with the hooks of the model.
func (m *hooksModel) of(t rotation.Token) rotation.Token {
	for _, name := range m.names {
		t.Hooks = append(t.Hooks, rotation.Hook{Name: name})
	}
	return t
}

// sabotage is what a test breaks on purpose, so that the model must find it.
type sabotage string

const (
	notedFirst sabotage = "a hook is noted as done before it has run"
	forgotten  sabotage = "the record that commits a rotation does not have its hooks"
	startsLate sabotage = "a run is begun however long ago it was noted"
	lostByHold sabotage = "a replica that takes over a token forgets its hooks"
)

var errHook = errors.New("exit status 1")

// runHooks runs the hooks of a token that are due, as package app does it. fails says of each run whether it fails. It
// reports whether the process died.
func (w *world) runHooks(r *rotation.Rotator, token rotation.Token, fails func() bool) (died bool) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(crashed); !ok {
				panic(p)
			}
			died = true
		}
	}()
	for _, h := range token.Hooks {
		run, _, err := r.BeginHook(w.t.Context(), token, h.Name, time.Minute, false)
		if err != nil || run == nil {
			continue
		}
		end := func(err error) {
			for range 3 { // package app tries for as long as it runs
				if _, noteErr := r.EndHook(w.t.Context(), token, *run, rotation.HookEnd{Err: err}); noteErr == nil {
					return
				}
			}
		}
		if w.sabotage == notedFirst {
			end(nil)
		}
		err = errHook
		if !fails() {
			err = w.do("hook", func() error { w.hooks.runs(w.decoded[token.Name], *run, false); return nil })
		}
		if w.sabotage != notedFirst {
			end(err)
		}
	}
	return false
}
