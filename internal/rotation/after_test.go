package rotation_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

const reload, ping = "exec:reload app", "webhook:https://app.example.com/"

// hookWorld is a token with hooks, and what its hooks have seen.
type hookWorld struct {
	*world
	token rotation.Token
	// ran has each rotation for which a hook was carried out, in order, by the hook's name. The hook itself is the world's:
	// it stays when the process ends.
	ran map[string][]rotation.HookRun
}

func newHookWorld(t *testing.T) *hookWorld {
	w := newWorld(t)
	token := w.token(0)
	token.Hooks = []rotation.Hook{{Name: reload}, {Name: ping, Batch: time.Minute}}
	if _, err := w.start().Enroll(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	return &hookWorld{w, token, map[string][]rotation.HookRun{}}
}

// rotate rotates the token now, as often as it takes.
func (w *hookWorld) rotate(r *rotation.Rotator) rotation.Record {
	w.t.Helper()
	record, err := r.RotateNow(w.t.Context(), w.token, rotation.Overrides{Grace: true}, "alice")
	if err != nil {
		w.t.Errorf("rotating: %v", err)
	}
	return record
}

// run runs a hook of the token as the engine does it. It returns whether it was due.
func (w *hookWorld) run(r *rotation.Rotator, name string, err error) (rotation.Record, bool) {
	w.t.Helper()
	run, record, beginErr := r.BeginHook(w.t.Context(), w.token, name, time.Minute, false)
	if beginErr != nil {
		w.t.Fatal(beginErr)
	}
	if run == nil {
		return record, false
	}
	if err == nil {
		w.ran[name] = append(w.ran[name], *run)
	}
	record, endErr := r.EndHook(w.t.Context(), w.token, *run, rotation.HookEnd{Err: err})
	if endErr != nil {
		w.t.Fatal(endErr)
	}
	return record, true
}

// owed returns the names of the hooks that are owed.
func owed(r rotation.Record) (names []string) {
	for _, h := range r.OwedHooks() {
		names = append(names, h.Name)
	}
	return names
}

// TestHooksAreOwedWithTheCommit: the save that commits a rotation says which hooks are owed, and no save before it.
func TestHooksAreOwedWithTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newHookWorld(t)
		record := w.rotate(w.start())
		for _, step := range w.steps[:len(w.steps)-1] {
			if step.After != nil {
				t.Errorf("in step %q the record says that hooks are owed: %+v", step.Step, step.After)
			}
		}
		if last := w.steps[len(w.steps)-1]; last.Step != rotation.StepIdle || last.After == nil || last.After.RotationID != last.Last.RotationID || last.After.Digest != last.Last.Digest {
			t.Errorf("the record of the commit: %+v", last.After)
		}
		now := time.Now()
		hooks := record.OwedHooks()
		if len(hooks) != 2 || !hooks[0].NotBefore.Equal(now) || !hooks[1].NotBefore.Equal(now.Add(time.Minute)) || !hooks[1].Since.Equal(now) {
			t.Errorf("owed: %+v", hooks)
		}
	})
}

// TestHookRunsOnce: a hook that has succeeded is not due again, also after a restart; one that waits for its batch is
// not due before.
func TestHookRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newHookWorld(t)
		r := w.start()
		w.rotate(r)
		if _, ran := w.run(r, ping, nil); ran {
			t.Error("a hook has run before its batch was over")
		}
		if record, ran := w.run(r, reload, nil); !ran || !slices.Equal(owed(record), []string{ping}) {
			t.Errorf("ran %v, owed %v", ran, owed(record))
		}
		r = w.start()
		if _, ran := w.run(r, reload, nil); ran {
			t.Error("a hook has run twice")
		}
		time.Sleep(time.Minute)
		if record, ran := w.run(r, ping, nil); !ran || len(owed(record)) > 0 || record.After == nil || record.After.Hooks[0].DoneAt.IsZero() {
			t.Errorf("ran %v, after %+v", ran, record.After)
		}
	})
}

// TestHookIsRepeatedAfterACrash: a process that dies during a run leaves the hook owed, and the next run says that it is
// the second.
func TestHookIsRepeatedAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newHookWorld(t)
		r := w.start()
		w.rotate(r)
		first, _, err := r.BeginHook(t.Context(), w.token, reload, time.Minute, false)
		if err != nil || first == nil || first.Attempt != 1 {
			t.Fatalf("%+v, %v", first, err)
		}
		second, _, err := w.start().BeginHook(t.Context(), w.token, reload, time.Minute, false)
		if err != nil || second == nil || second.Attempt != 2 || second.ID != first.ID {
			t.Errorf("%+v, %v", second, err)
		}
	})
}

// TestEndOfARunThatWasTakenOver: a run that could not note its end in time was taken over by another one. Its failure
// says nothing about that one, which may go on; its success is one.
func TestEndOfARunThatWasTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newHookWorld(t)
		r := w.start()
		w.rotate(r)
		begin := func() rotation.HookRun {
			run, _, err := r.BeginHook(t.Context(), w.token, reload, time.Minute, false)
			if err != nil || run == nil {
				t.Fatalf("%v, %v", run, err)
			}
			return *run
		}
		first, second := begin(), begin()
		record, err := r.EndHook(t.Context(), w.token, first, rotation.HookEnd{Err: errors.New("too slow"), Tokens: 1})
		if h := record.After.Hooks[0]; err != nil || h.Runner == nil || h.Attempts != second.Attempt || h.Failures != 0 {
			t.Errorf("%+v, %v", h, err)
		}
		record, err = r.EndHook(t.Context(), w.token, first, rotation.HookEnd{Tokens: 1})
		if h := record.After.Hooks[0]; err != nil || h.Owed() {
			t.Errorf("%+v, %v", h, err)
		}
	})
}

// TestHookBacksOff: a hook that fails is tried again, with growing waits of an hour at most, and no rotation is one of its
// failures.
func TestHookBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newHookWorld(t)
		r := w.start()
		w.rotate(r)
		for i := range 30 {
			record, ran := w.run(r, reload, errors.New("exit status 1"))
			h := record.OwedHooks()[0]
			wait := time.Until(h.NotBefore)
			if !ran || h.Failures != i+1 || h.Attempts != i+1 || h.LastError != "exit status 1" || wait <= 0 || wait > time.Hour || record.Failures != 0 {
				t.Fatalf("try %d: ran %v, %+v, waits %s", i, ran, h, wait)
			}
			if _, ran := w.run(r, reload, nil); ran {
				t.Fatal("it has run before its back-off was over")
			}
			time.Sleep(wait)
		}
		if record, _ := w.run(r, reload, nil); !slices.Equal(owed(record), []string{ping}) {
			t.Errorf("owed %v", owed(record))
		}
	})
}

// TestNewerRotationReplacesHooks: it waits for no hook, the hook then runs for the new secret at once, and how long
// consumers wait is counted from the first rotation. The end of a run for the older one does not count for it.
func TestNewerRotationReplacesHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newHookWorld(t)
		r := w.start()
		first := w.rotate(r)
		w.run(r, reload, errors.New("no"))
		time.Sleep(time.Minute)
		began, _, err := r.BeginHook(t.Context(), w.token, ping, time.Minute, false)
		if err != nil || began == nil {
			t.Fatal(err)
		}
		second := w.rotate(r) // a run is in progress, and a hook is in its back-off
		h := second.OwedHooks()
		if len(h) != 2 || h[0].Attempts != 0 || h[0].Replaced != 1 || !h[0].Since.Equal(first.Last.At) || h[0].NotBefore.After(time.Now()) {
			t.Errorf("owed: %+v", h)
		}
		record, err := r.EndHook(t.Context(), w.token, *began, rotation.HookEnd{})
		if err != nil || !slices.Equal(owed(record), []string{reload, ping}) {
			t.Errorf("owed %v, %v", owed(record), err)
		}
		if e, ok := w.events[len(w.events)-1].Detail.(event.HookEnded); !ok || !e.Replaced || e.RotationID != first.Last.RotationID {
			t.Errorf("the last event: %+v", e)
		}
		if run, _ := w.run(r, reload, nil); run.After.RotationID != second.Last.RotationID || w.ran[reload][0].RotationID != second.Last.RotationID {
			t.Errorf("it has run for %+v", w.ran)
		}
	})
}

// TestOperatorsRunAndDropHooks are the exits of an owed hook.
func TestOperatorsRunAndDropHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newHookWorld(t)
		r := w.start()
		if _, err := r.RunHooks(t.Context(), w.token, nil); !errors.Is(err, rotation.ErrUnfit) {
			t.Errorf("before a rotation: %v", err)
		}
		first := w.rotate(r)
		w.run(r, reload, nil)
		record, err := r.RunHooks(t.Context(), w.token, []string{"exec"})
		if err != nil || !slices.Equal(owed(record), []string{ping, reload}) || record.After.ID(record.OwedHooks()[1]) != first.Last.RotationID+".2" {
			t.Errorf("%+v, %v", record.After, err)
		}
		if _, err := r.RunHooks(t.Context(), w.token, []string{"restart"}); !errors.Is(err, rotation.ErrUnfit) {
			t.Errorf("a hook that it does not have: %v", err)
		}
		record, err = r.DropHooks(t.Context(), w.token)
		if err != nil || len(owed(record)) > 0 {
			t.Errorf("%+v, %v", record.After, err)
		}
		if _, err := r.DropHooks(t.Context(), w.token); !errors.Is(err, rotation.ErrUnfit) {
			t.Errorf("twice: %v", err)
		}
		w.rotate(r)
		w.token.Hooks = w.token.Hooks[:1]
		record, err = r.DropUnknownHooks(t.Context(), w.token)
		if err != nil || !slices.Equal(owed(record), []string{reload}) {
			t.Errorf("%+v, %v", record.After, err)
		}
	})
}

// TestHooksHealed: a clock that was ahead does not delay a hook for long.
func TestHooksHealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newHookWorld(t)
		w.offset = 90 * 24 * time.Hour
		r := w.start()
		w.rotate(r)
		w.run(r, reload, errors.New("no"))
		if _, _, err := r.BeginHook(t.Context(), w.token, ping, time.Minute, false); err != nil {
			t.Fatal(err)
		}
		w.offset = 0
		record, err := w.start().Enroll(t.Context(), w.token)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range record.OwedHooks() {
			if h.NotBefore.After(time.Now()) || h.Began.After(time.Now()) {
				t.Errorf("%+v", h)
			}
		}
	})
}

var hookSeeds = flag.Int("hook.seeds", 0, "how many worlds with hooks are run; 0 for the default")

// TestHooksInARandomWorld lets everything fail and the process die at every call, and hooks fail and last. Whatever happens,
// in the end each hook was carried out for the last rotation. It was carried out more than once for a rotation only where
// the ledger could not be told, and then it was told so by its attempt.
func TestHooksInARandomWorld(t *testing.T) {
	runs := cmp.Or(*hookSeeds, fewer(1500))
	if testing.Short() {
		runs = 200
	}
	repeated, replaced := 0, 0
	for seed := range uint64(runs) {
		synctest.Test(t, func(t *testing.T) {
			w := newHookWorld(t)
			r := rand.New(rand.NewPCG(seed, 20))
			faults := true
			w.fault = func(_ int, call string) (f fault) {
				if !faults || r.IntN(12) > 0 {
					return fault{}
				}
				switch r.IntN(4) {
				case 0:
					f.before = errors.New("failed")
				case 1:
					f.after = errors.New("the answer was lost")
				case 2:
					f.before, f.crash = errors.New("died"), true
				default:
					f.after, f.crash = errors.New("died"), true
				}
				return f
			}
			rotator := w.start()
			carriedOut := map[string]int{} // by hook and ID: the highest attempt with which it was carried out
			for range 60 {
				func() {
					defer func() {
						if p := recover(); p != nil {
							if _, ok := p.(crashed); !ok {
								panic(p)
							}
							rotator = w.start()
						}
					}()
					ctx := context.Background()
					if r.IntN(6) == 0 {
						_, _ = rotator.RotateNow(ctx, w.token, rotation.Overrides{Grace: true}, "alice")
					} else {
						_, _ = rotator.Advance(ctx, w.token)
					}
					for _, h := range w.token.Hooks {
						run, _, err := rotator.BeginHook(ctx, w.token, h.Name, time.Minute, false)
						if err != nil || run == nil {
							continue
						}
						var hookErr error
						if r.IntN(3) == 0 {
							hookErr = errors.New("exit status 1")
						} else {
							key := h.Name + run.ID
							if before := carriedOut[key]; before >= run.Attempt {
								t.Errorf("seed %d: %s was carried out for %s with attempt %d after one with attempt %d", seed, h.Name, run.ID, run.Attempt, before)
							} else if before > 0 {
								repeated++
							}
							carriedOut[key] = run.Attempt
							w.ran[h.Name] = append(w.ran[h.Name], *run)
						}
						if r.IntN(8) == 0 { // a rotation comes while the hook runs
							if _, err := rotator.RotateNow(ctx, w.token, rotation.Overrides{Grace: true}, "alice"); err == nil {
								replaced++
							}
						}
						for range 3 { // as the engine does, which tries for as long as it runs
							if _, err := rotator.EndHook(ctx, w.token, *run, rotation.HookEnd{Err: hookErr}); err == nil {
								break
							}
						}
					}
				}()
				time.Sleep(time.Duration(r.IntN(int(2 * time.Minute))))
			}
			faults = false
			rotator = w.start()
			for range 40 {
				_, _ = rotator.Advance(t.Context(), w.token)
				for _, h := range w.token.Hooks {
					w.run(rotator, h.Name, nil)
				}
				time.Sleep(5 * time.Minute)
			}
			time.Sleep(time.Minute) // the last rotation may have been done right now
			for _, h := range w.token.Hooks {
				w.run(rotator, h.Name, nil)
			}
			record, err := w.Load(t.Context(), w.token.Name)
			if err != nil || len(record.OwedHooks()) > 0 {
				t.Fatalf("seed %d: still owed: %+v, %v", seed, record.After, err)
			}
			if record.Last == nil {
				return
			}
			for _, h := range w.token.Hooks {
				if !slices.ContainsFunc(w.ran[h.Name], func(run rotation.HookRun) bool {
					return run.RotationID == record.Last.RotationID && run.Digest == record.Last.Digest
				}) {
					t.Errorf("seed %d: %s was never carried out for the last rotation %s", seed, h.Name, record.Last.RotationID)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
	if repeated == 0 || replaced == 0 {
		t.Errorf("this test shows too little: %s", fmt.Sprintf("%d runs were repeated, %d rotations came during a run", repeated, replaced))
	}
}
