package rotation

import (
	"slices"
	"time"

	"rotatord/internal/moment"
)

// This file holds the transitions of the hooks that are owed after a rotation.

// withHook returns r with a changed copy of one owed hook.
func (r Record) withHook(name string, change func(h *OwedHook)) Record {
	i := r.After.index(name)
	if i < 0 {
		return r
	}
	after := *r.After
	after.Hooks = slices.Clone(after.Hooks)
	change(&after.Hooks[i])
	r.After = &after
	return r
}

// owesHooks notes the hooks that follow the rotation that ends now. It is part of the save that commits the rotation,
// so no crash can come between the two. What was owed for an earlier rotation is owed for this one instead. A run for that
// one may go on, and the next run waits for its end: an older digest must not be the last that consumers see.
func (r Record) owesHooks(t Token, now time.Time) Record {
	before := r.After
	if r.After = nil; len(t.Hooks) == 0 {
		return r
	}
	after := &After{RotationID: r.Last.RotationID, Digest: r.Last.Digest, At: now}
	for _, h := range t.Hooks {
		owed := OwedHook{Name: h.Name, Since: now, NotBefore: now.Add(h.Batch)}
		if old := before.hook(h.Name); old.Owed() {
			owed.Since, owed.Replaced, owed.Failures = moment.Min(old.Since, now), old.Replaced+1, old.Failures
			owed.Began, owed.Runner = old.Began, old.Runner
		}
		after.Hooks = append(after.Hooks, owed)
	}
	r.After = after
	return r
}

// hookBegun notes that a hook is about to run. A process that finds this note and not the end of the run cannot know
// how far it came, and runs the hook again.
func (r Record) hookBegun(name string, by *Hold, now time.Time) Record {
	return r.withHook(name, func(h *OwedHook) {
		h.Attempts++
		h.Began, h.Runner = now, by
	})
}

// hookDone notes that a hook has succeeded.
func (r Record) hookDone(name string, now time.Time) Record {
	return r.withHook(name, func(h *OwedHook) {
		h.DoneAt, h.Failures, h.LastError, h.Runner = now, 0, "", nil
		h.Began, h.NotBefore = time.Time{}, time.Time{}
	})
}

// hookFailed notes that a hook has failed, and when it is tried again.
func (r Record) hookFailed(name, why string, next time.Time) Record {
	return r.withHook(name, func(h *OwedHook) {
		h.Failures++
		h.LastError, h.NotBefore, h.Runner, h.Began = why, next, nil, time.Time{}
	})
}

// hookRunEnded notes the end of a run for an earlier rotation.
func (r Record) hookRunEnded(run HookRun) Record {
	return r.withHook(run.Hook, func(h *OwedHook) {
		if h.isRun(run) {
			h.Runner, h.Began = nil, time.Time{}
		}
	})
}

// hookCutOff notes that a run was ended by the daemon itself. That is not a failure.
func (r Record) hookCutOff(name string, next time.Time) Record {
	return r.withHook(name, func(h *OwedHook) { h.NotBefore, h.Runner, h.Began = next, nil, time.Time{} })
}

// hooksOrdered notes that hooks are to run again for the last rotation, because an operator wants it.
func (r Record) hooksOrdered(names []string, now time.Time) Record {
	before, after := r.After, &After{RotationID: r.Last.RotationID, Digest: r.Last.Digest, At: now}
	if before == nil || before.RotationID != after.RotationID {
		before = &After{}
	}
	for _, h := range before.Hooks {
		if !slices.Contains(names, h.Name) {
			after.Hooks = append(after.Hooks, h)
		}
	}
	for _, name := range names {
		old, running := before.hook(name), r.After.hook(name)
		owed := OwedHook{Name: name, Since: now, NotBefore: now, Again: old.Again + 1, Began: running.Began, Runner: running.Runner}
		if old.Owed() {
			owed.Since = moment.Min(old.Since, now)
		}
		after.Hooks = append(after.Hooks, owed)
	}
	r.After = after
	return r
}

// hooksDropped gives up hooks that are owed.
func (r Record) hooksDropped(names []string) Record {
	after := *r.After
	after.Hooks = slices.DeleteFunc(slices.Clone(after.Hooks), func(h OwedHook) bool { return slices.Contains(names, h.Name) && h.Owed() })
	if r.After = &after; len(after.Hooks) == 0 {
		r.After = nil
	}
	return r
}
