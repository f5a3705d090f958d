package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// inBubble runs test with a fresh world, enrolled and read once by an inventory.
func inBubble(t *testing.T, grace time.Duration, test func(w *world, token rotation.Token, r *rotation.Rotator)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		token := w.token(grace)
		r := w.start()
		if _, err := r.Enroll(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if _, err := r.RecordListing(w.t.Context(), token, w.facts()); err != nil {
			t.Fatal(err)
		}
		w.calls = nil
		test(w, token, r)
	})
}

func (w *world) record() rotation.Record {
	r, err := w.Load(w.t.Context(), "ci")
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func TestOneRotation(t *testing.T) {
	inBubble(t, 10*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		enrolled := time.Now().UTC()
		if _, err := r.Advance(w.t.Context(), token); err != nil || w.rotates != 0 {
			t.Fatalf("rotated before it was due: %v, %d rotates", err, w.rotates)
		}
		if err, _ := w.advance(r, token); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"save claimed", "sink preflight", "reserve", "ready", "save intent", "rotate",
			"seal", "save sealed", "sink store", "save stored", "erase", "save ",
		}
		if diff := cmp.Diff(want, w.calls); diff != "" {
			t.Errorf("the order of the steps changed (-want +got):\n%s", diff)
		}
		if got := time.Since(enrolled); got != time.Hour {
			t.Errorf("rotated %s after enrolment, want exactly 1h", got)
		}
		record := w.record()
		if record.Step != rotation.StepIdle || record.Work != nil || record.Failures != 0 || record.MovedCount != 1 {
			t.Errorf("the record after a rotation: %+v", record)
		}
		if record.Last.Digest != w.sink.ClientSecret.Digest() || w.sink.ClientSecret.Reveal() != w.current {
			t.Error("the sink, the ledger and Cloudflare disagree")
		}
		if len(w.pending)+len(w.reserved) != 0 {
			t.Error("something was left pending")
		}
		if diff := cmp.Diff([]string{"schedule/success/"}, w.attempts()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFirstStartAndRestartDoNotRotate(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, _ *rotation.Rotator) {
		for range 5 {
			time.Sleep(10 * time.Minute)
			r := w.start()
			if _, err := r.Enroll(w.t.Context(), token); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Advance(w.t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		if w.rotates != 0 {
			t.Fatalf("%d rotations before the first slot", w.rotates)
		}
		time.Sleep(10 * time.Minute)
		if _, err := w.start().Advance(w.t.Context(), token); err != nil || w.rotates != 1 {
			t.Fatalf("the slot was forgotten: %v, %d rotates", err, w.rotates)
		}
	})
}

func TestDowntimeIsCaughtUpOnce(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, _ *rotation.Rotator) {
		time.Sleep(14*24*time.Hour + 30*time.Minute)
		r := w.start()
		for range 3 {
			if _, err := r.Advance(w.t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		if w.rotates != 1 {
			t.Fatalf("%d rotations after two weeks, want 1", w.rotates)
		}
		if diff := cmp.Diff([]string{"catch_up/success/"}, w.attempts()); diff != "" {
			t.Error(diff)
		}
		if !slices.Contains(w.events, rotation.Event(rotation.SlotsMissed{Token: "ci", Count: 14*24 - 1})) {
			t.Errorf("the missed slots were not counted: %v", w.events)
		}
		if due := rotation.NextDue(token, w.record(), rotation.Pause{}); time.Until(due.At) != 30*time.Minute {
			t.Errorf("next due in %s, want 30m", time.Until(due.At))
		}
	})
}

// TestGraceIsKept: a slot that falls into the grace of the rotation before it waits.
func TestGraceIsKept(t *testing.T) {
	inBubble(t, 90*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		if err, _ := w.advance(r, token); err != nil {
			t.Fatal(err)
		}
		first := time.Now()
		due := rotation.NextDue(token, w.record(), rotation.Pause{})
		if due.Reason != rotation.DueGrace || due.At.Sub(first) != 90*time.Minute {
			t.Fatalf("due %s after the first rotation because of %s", due.At.Sub(first), due.Reason)
		}
		if err, _ := w.advance(r, token); err != nil || w.rotates != 2 {
			t.Fatalf("%v, %d rotates", err, w.rotates)
		}
	})
}

func TestNothingIsSentUnlessPreflightPasses(t *testing.T) {
	for _, call := range []string{"save claimed", "sink preflight", "reserve", "ready", "save intent"} {
		t.Run(call, func(t *testing.T) {
			inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
				w.failAll(call, fault{before: errors.New("disk full")})
				for range 5 {
					if err, _ := w.advance(r, token); err == nil || !strings.Contains(err.Error(), "disk full") {
						t.Fatalf("error %v", err)
					}
				}
				if w.rotates != 0 || slices.Contains(w.calls, "rotate") {
					t.Fatal("a rotate request was sent")
				}
				for _, a := range w.attempts() {
					if !strings.HasPrefix(a, "schedule/skipped/") && !strings.HasPrefix(a, "retry/skipped/") {
						t.Errorf("attempt %s", a)
					}
				}
				w.fault = nil
				if err, _ := w.advance(r, token); err != nil || w.rotates != 1 {
					t.Fatalf("it did not resume: %v", err)
				}
				if len(w.reserved) != 0 {
					t.Error("a reservation was left behind")
				}
			})
		})
	}
}

func TestProvenFailuresAreRetried(t *testing.T) {
	for class, reason := range map[rotation.Class]string{
		rotation.NotCarriedOut: "not_carried_out", rotation.Refused: "refused", rotation.Throttled: "throttled",
	} {
		t.Run(reason, func(t *testing.T) {
			inBubble(t, 10*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
				w.failAll("rotate", fault{before: &rotation.IssuerError{Class: class, Operation: "rotate", RetryAfter: 5 * time.Minute}})
				if err, _ := w.advance(r, token); err == nil {
					t.Fatal("no error")
				}
				w.fault = nil
				failed := time.Now()
				if err, _ := w.advance(r, token); err != nil {
					t.Fatal(err)
				}
				waited := time.Since(failed)
				if class == rotation.Throttled && waited != 5*time.Minute {
					t.Errorf("Retry-After of 5m was obeyed with %s", waited)
				}
				if class != rotation.Throttled && (waited <= 0 || waited > time.Second) {
					t.Errorf("the first back-off was %s", waited)
				}
				if diff := cmp.Diff([]string{"schedule/failed/" + reason, attemptAfter(class)}, w.attempts()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// attemptAfter is the attempt after a failure: a 429 is not the token's own.
func attemptAfter(c rotation.Class) string {
	if c == rotation.Throttled {
		return "schedule/success/"
	}
	return "retry/success/"
}

// TestUnknownOutcomeWaitsForTheGrace: the old secret is not touched while it may be the
// one that works, it is kept alive where Cloudflare shows that it needs to be, and the
// reissue comes before it dies.
func TestUnknownOutcomeWaitsForTheGrace(t *testing.T) {
	const grace = 40 * time.Minute
	for name, test := range map[string]struct {
		frozen, refuseExtension bool
		want                    time.Duration // from the doubt to the reissue
		extensions              int
	}{
		"extended":          {want: 3 * grace, extensions: 12}, // at once, and then whenever a quarter is over
		"not shown":         {frozen: true, want: grace / 2},
		"refused to extend": {refuseExtension: true, want: grace / 2},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
				w.frozenUpdatedAt = test.frozen
				w.fault = func(_ int, c string) fault {
					switch {
					case c == "rotate" && w.rotates == 0:
						return fault{after: &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}}
					case c == "extend" && test.refuseExtension:
						return fault{before: &rotation.IssuerError{Class: rotation.Refused, Operation: "update"}}
					}
					return fault{}
				}
				if err, _ := w.advance(r, token); err == nil {
					t.Fatal("no error")
				}
				doubted := time.Now()
				for w.rotates == 1 {
					w.check("while in doubt")
					if !w.accepted(w.sink.ClientSecret.Reveal()) {
						t.Fatal("the old secret has died")
					}
					if record := w.record(); record.Step != rotation.StepInDoubt || record.Doubt.Reason != rotation.ReasonOutcomeUnknown {
						t.Fatalf("step %s", record.Step)
					}
					w.advance(r, token)
				}
				if waited := time.Since(doubted); waited != test.want {
					t.Errorf("reissued after %s, want %s", waited, test.want)
				}
				w.check("after the reissue")
				if w.sink.ClientSecret.Reveal() != w.current || w.rotates != 2 {
					t.Errorf("not recovered: %d rotates", w.rotates)
				}
				if diff := cmp.Diff([]string{"schedule/in_doubt/outcome_unknown", "recovery/success/"}, w.attempts()); diff != "" {
					t.Error(diff)
				}
				extended := 0
				for _, e := range w.events {
					if e, ok := e.(rotation.GraceExtended); ok && e.Err == nil {
						extended++
					}
				}
				if extended != test.extensions {
					t.Errorf("extended %d times, want %d", extended, test.extensions)
				}
			})
		})
	}
}

// TestUnknownOutcomeThatWasNothing: where updated_at was seen to move before, that it
// did not move proves that nothing happened.
func TestUnknownOutcomeThatWasNothing(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		t.Run(fmt.Sprint("frozen=", frozen), func(t *testing.T) {
			inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
				w.frozenUpdatedAt = frozen
				if err, _ := w.advance(r, token); err != nil { // calibrates
					t.Fatal(err)
				}
				w.failAll("rotate", fault{before: &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}})
				w.advance(r, token)
				w.fault = nil
				doubted := time.Now()
				for w.rotates == 1 {
					w.advance(r, token)
				}
				want := time.Minute // the settling time
				if frozen {
					want = 20 * time.Minute // the oracle is not trusted
				}
				if waited := time.Since(doubted); waited != want {
					t.Errorf("resolved after %s, want %s", waited, want)
				}
			})
		})
	}
}

func TestUnknownOutcomeWithoutGraceIsReissuedAtOnce(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.fault = func(_ int, c string) fault {
			if c == "rotate" && w.rotates == 0 {
				return fault{after: &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}}
			}
			return fault{}
		}
		w.advance(r, token)
		doubted := time.Now()
		w.advance(r, token)
		if waited := time.Since(doubted); waited > time.Second || w.rotates != 2 {
			t.Errorf("reissued after %s, %d rotates", waited, w.rotates)
		}
		w.check("after the reissue")
	})
}

func TestInvalidAnswersAreSealedAndDoubted(t *testing.T) {
	t.Run("wrong client ID", func(t *testing.T) {
		inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			w.wrongClientID = true
			before := w.sink
			w.advance(r, token)
			if w.record().Step != rotation.StepInDoubt || len(w.pending) != 1 || !w.sink.ClientSecret.Equal(before.ClientSecret) {
				t.Fatal("the answer was not sealed, or was delivered")
			}
			w.wrongClientID = false
			for w.rotates == 1 {
				w.advance(r, token)
			}
			w.check("after the reissue")
			if len(w.pending) != 1 {
				t.Error("the sealed answer was thrown away before an operator saw it")
			}
		})
	})
	t.Run("damaged secret", func(t *testing.T) {
		inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			good := w.secretOf
			w.secretOf = func(n int) string { return good(n)[:30] }
			w.advance(r, token)
			if w.record().Doubt.Reason != rotation.ReasonAnswerInvalid || len(w.pending) != 1 {
				t.Fatal("not in doubt, or not sealed")
			}
			w.secretOf = good
			for w.rotates == 1 {
				w.advance(r, token)
			}
			if w.sink.ClientSecret.Reveal() != w.current || len(w.pending) != 1 {
				t.Error("it was not reissued, or the damaged answer was thrown away")
			}
		})
	})
	t.Run("unfamiliar format", func(t *testing.T) {
		inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			w.secretOf = func(n int) string { return fmt.Sprint("a third format ", n) }
			w.advance(r, token)
			if w.record().Doubt.Reason != rotation.ReasonUnfamiliarSecret || len(w.pending) != 1 {
				t.Fatal("not in doubt")
			}
			for w.record().Step != rotation.StepIdle {
				w.advance(r, token)
				w.check("while in doubt")
			}
			if w.rotates != 1 || w.sink.ClientSecret.Reveal() != w.current {
				t.Error("it was not delivered before the old secret died")
			}
		})
	})
	t.Run("no secret", func(t *testing.T) {
		inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			w.secretOf = func(int) string { return "" }
			w.advance(r, token)
			if w.record().Doubt.Reason != rotation.ReasonAnswerInvalid || len(w.pending) != 0 {
				t.Fatal("not in doubt")
			}
		})
	})
}

// TestDiskFailsAtTheSeal: the secret is delivered from memory, and sealed later.
func TestDiskFailsAtTheSeal(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.fault = func(_ int, c string) fault {
			if w.rotates > 0 && (c == "seal" || strings.HasPrefix(c, "save")) {
				return fault{before: errors.New("no space left on device")}
			}
			return fault{}
		}
		w.advance(r, token)
		if w.sink.ClientSecret.Reveal() != w.current {
			t.Fatal("the secret was not delivered")
		}
		w.fault = nil
		if err, _ := w.advance(r, token); err != nil || w.rotates != 1 || w.record().Step != rotation.StepIdle {
			t.Fatalf("the rotation was not completed: %v, %d rotates, step %q", err, w.rotates, w.record().Step)
		}
	})
}

// TestHeldSecretIsSealedAtTheEnd: what the disk refused is tried once more before the process
// ends, and the next one finds it.
func TestHeldSecretIsSealedAtTheEnd(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.fault = func(_ int, c string) fault {
			if c == "seal" || c == "sink store" {
				return fault{before: errors.New("input/output error")}
			}
			return fault{}
		}
		w.advance(r, token)
		if err := r.SealUnsealed(w.t.Context()); err == nil || r.Unsealed() != 1 || !strings.Contains(err.Error(), "of ci: input/output error") {
			t.Fatalf("%v, %d held", err, r.Unsealed())
		}
		w.fault = nil
		if err := r.SealUnsealed(w.t.Context()); err != nil || r.Unsealed() != 0 || len(w.pending) != 1 {
			t.Fatalf("%v, %d held, %d sealed", err, r.Unsealed(), len(w.pending))
		}
		if err, _ := w.advance(w.start(), token); err != nil || w.rotates != 1 || w.sink.ClientSecret.Reveal() != w.current {
			t.Errorf("the next process: %v, %d rotates", err, w.rotates)
		}
	})
}

func TestStopBeforeTheRequestIsNobodysFailure(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		ctx, cancel := context.WithCancel(w.t.Context())
		time.Sleep(time.Hour)
		w.fault = func(_ int, c string) fault {
			if c == "ready" {
				cancel()
				return fault{before: ctx.Err()}
			}
			return fault{}
		}
		_, err := r.Advance(ctx, token)
		record := w.record()
		if !errors.Is(err, context.Canceled) || w.rotates != 0 || record.Step != rotation.StepIdle || record.Failures != 0 || len(w.attempts()) != 0 {
			t.Errorf("%v, %d rotates, %+v", err, w.rotates, record)
		}
	})
}

// TestEveryStepFailsAndDies lets each call of a rotation fail, fail after it was carried
// out, and take the process with it, and then goes on without faults. Whatever happened:
// the sink ends up with the secret that works, at each stop a working secret was
// somewhere, nothing is left pending, and nothing was rotated again without reason.
func TestEveryStepFailsAndDies(t *testing.T) {
	var calls []string
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.advance(r, token)
		calls = w.calls
	})
	if len(calls) < 12 {
		t.Fatalf("a rotation makes only %d calls: the test would prove little", len(calls))
	}
	unknown := &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}
	for n, call := range calls {
		for _, f := range []fault{{before: unknown}, {after: unknown}, {before: unknown, crash: true}, {after: unknown, crash: true}} {
			name := fmt.Sprintf("%02d %s before=%t crash=%t", n, call, f.before != nil, f.crash)
			for _, grace := range []time.Duration{0, 40 * time.Minute} {
				t.Run(fmt.Sprint(name, " grace=", grace), func(t *testing.T) {
					inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
						w.fault = func(i int, _ string) fault {
							if i == n {
								return f
							}
							return fault{}
						}
						for range 40 {
							_, died := w.advance(r, token)
							if grace > 0 || w.record().Step == rotation.StepIdle && !died {
								w.check("after an attempt")
							}
							if died {
								r = w.start()
								if _, err := r.Enroll(w.t.Context(), token); err != nil {
									t.Fatal(err)
								}
							}
							if w.record().Last != nil && w.record().Step == rotation.StepIdle {
								break
							}
						}
						if w.record().Step != rotation.StepIdle || w.sink.ClientSecret.Reveal() != w.current {
							t.Fatalf("not recovered: step %q", w.record().Step)
						}
						if len(w.pending) != 0 {
							t.Error("a sealed secret was left behind")
						}
						// Only a request without a kept answer justifies a second rotate.
						lost := call == "rotate" || call == "seal" && f.crash && f.before != nil || call == "save intent" && f.after != nil && f.crash
						if w.rotates > 1 && !lost {
							t.Errorf("rotated %d times", w.rotates)
						}
						for s := range w.pending {
							t.Errorf("pending %s", s)
						}
					})
				})
			}
		}
	}
}

// TestSupersededSecretIsNotDelivered: while a secret waited to be delivered somebody put
// another one into the sink. It is overwritten only if ours is still the last.
func TestSupersededSecretIsNotDelivered(t *testing.T) {
	for _, rotated := range []bool{false, true} {
		t.Run(fmt.Sprint("rotated by somebody=", rotated), func(t *testing.T) {
			inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
				w.failAll("sink store", fault{before: errors.New("sealed")})
				w.advance(r, token)
				w.fault = nil
				ours := w.current
				if rotated {
					time.Sleep(time.Second)
					w.current, w.updatedAt = w.secretOf(100), time.Now().UTC()
				}
				w.sink.ClientSecret = secret.New(w.secretOf(100))
				err, _ := w.advance(r, token)
				switch {
				case rotated && (err == nil || !strings.Contains(err.Error(), "not delivered") || w.sink.ClientSecret.Reveal() != w.current):
					t.Errorf("a dead secret was delivered: %v", err)
				case rotated && len(w.pending) != 1:
					t.Error("the secret is no longer kept")
				case !rotated && (err != nil || w.sink.ClientSecret.Reveal() != ours):
					t.Errorf("the secret that works was not delivered: %v", err)
				}
			})
		})
	}
}

// TestUnwritableLedgerIsSaid: nothing is sent, and each attempt says why.
func TestUnwritableLedgerIsSaid(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.fault = func(_ int, c string) fault {
			if strings.HasPrefix(c, "save") {
				return fault{before: errors.New("input/output error")}
			}
			return fault{}
		}
		for range 3 {
			if err, _ := w.advance(r, token); !errors.Is(err, rotation.ErrLedger) {
				t.Errorf("%v", err)
			}
		}
		if w.rotates != 0 || len(w.attempts()) != 3 {
			t.Errorf("%d rotates, attempts %v", w.rotates, w.attempts())
		}
	})
}

func TestRenamedTokenIsNotMixedUp(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.failAll("sink store", fault{before: errors.New("sealed")})
		w.advance(r, token)
		other := token
		other.ID = "00000000-0000-4000-8000-000000000000"
		if _, err := r.Enroll(w.t.Context(), other); err == nil || !strings.Contains(err.Error(), "unfinished rotation") {
			t.Errorf("Enroll of another token under the name: %v", err)
		}
		w.fault = nil
		w.advance(r, token)
		record, err := r.Enroll(w.t.Context(), other)
		if err != nil || record.TokenID != other.ID || record.Last != nil || !record.Anchor.Equal(time.Now().UTC().Truncate(time.Second)) {
			t.Errorf("a new token under the name did not start afresh: %v, %+v", err, record)
		}
	})
}

func TestBackOffGrowsAndIsCapped(t *testing.T) {
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 11: 10 * time.Minute, 1000: 10 * time.Minute} {
		for range 100 {
			if got := rotation.BackOff(n); got > want || got < want*3/4 {
				t.Fatalf("BackOff(%d) = %s, want within a quarter below %s", n, got, want)
			}
		}
	}
}

func TestEventsAndRecordsHoldNoSecret(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.advance(r, token)
		text := fmt.Sprintf("%+v %#v %s", w.events, w.events, w.records["ci"])
		for _, s := range w.issued {
			if strings.Contains(text, s) {
				t.Error("a secret stands in an event or a record")
			}
		}
		if secret.Scrub(text) != text {
			t.Error("something that looks like a secret stands in an event or a record")
		}
	})
}
