package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

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
			"save claimed", "sink preflight", "reserve", "room", "ready", "save intent", "record", "rotate",
			"seal", "save sealed", "sink store", "save stored", "erase", "save ",
		}
		if diff := cmp.Diff(want, w.calls); diff != "" {
			t.Errorf("the order of the steps changed (-want +got):\n%s", diff)
		}
		if got := time.Since(enrolled); got != time.Hour {
			t.Errorf("rotated %s after the enrollment, want exactly 1h", got)
		}
		record := w.record()
		if record.Step != rotation.StepIdle || record.Work != nil || record.Failures != 0 || record.MovedCount != 1 {
			t.Errorf("the record after a rotation: %+v", record)
		}
		if record.Last.Digest != w.sink.ClientSecret.Digest() || w.sink.ClientSecret.Reveal() != w.current {
			t.Error("the sink, the ledger and Cloudflare disagree")
		}
		if len(w.pending)+len(w.reserved) != 0 {
			t.Error("something is still sealed or reserved")
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
		if !slices.Contains(w.slotsMissed(), event.Missed{Count: 14*24 - 1}) {
			t.Errorf("the missed slots were not counted: %v", w.events)
		}
		if due := rotation.NextDue(token, w.record(), rotation.Pause{}); time.Until(due.At) != 30*time.Minute {
			t.Errorf("next due in %s, want 30m", time.Until(due.At))
		}
	})
}

// TestSlotWaitsForTheGrace: a slot waits until the grace of the previous rotation is over.
func TestSlotWaitsForTheGrace(t *testing.T) {
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
					t.Fatalf("the next attempt did not rotate: %v", err)
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

// attemptAfter returns the expected attempt after a failure of that class. A 429 does not count as the token's failure.
func attemptAfter(c rotation.Class) string {
	if c == rotation.Throttled {
		return "schedule/success/"
	}
	return "retry/success/"
}

func TestStopBeforeTheRequestIsNotAFailure(t *testing.T) {
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

// TestRotationSurvivesEveryFault makes each call of a rotation fail, and makes the process die at each call, before
// and after the call is carried out. The later calls succeed. In the end the sink has the secret that works, no
// sealed answer is left behind, and there was no second rotation without a reason. With a grace, a working secret is
// in the sink or sealed after each attempt.
func TestRotationSurvivesEveryFault(t *testing.T) {
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
						// Only a request whose answer was lost justifies a second rotate.
						lost := call == "rotate" || call == "seal" && f.crash && f.before != nil || call == "save intent" && f.after != nil && f.crash
						if w.rotates > 1 && !lost {
							t.Errorf("rotated %d times", w.rotates)
						}
						for s := range w.pending {
							t.Errorf("still sealed: %s", s)
						}
					})
				})
			}
		}
	}
}

// TestSupersededSecretIsNotDelivered: while our secret waited for the sink, another person stored another secret
// there. The daemon overwrites it only if Cloudflare shows no rotation after ours.
func TestSupersededSecretIsNotDelivered(t *testing.T) {
	for _, rotated := range []bool{false, true} {
		t.Run(fmt.Sprint("rotated by another person=", rotated), func(t *testing.T) {
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
					t.Errorf("a secret that does not work was delivered: %v", err)
				case rotated && len(w.pending) != 1:
					t.Error("the secret is no longer sealed")
				case !rotated && (err != nil || w.sink.ClientSecret.Reveal() != ours):
					t.Errorf("the secret that works was not delivered: %v", err)
				}
			})
		})
	}
}

// TestUnwritableLedgerIsReported: no request is sent, and each attempt reports the error.
func TestUnwritableLedgerIsReported(t *testing.T) {
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

func TestNameIsReusedForAnotherToken(t *testing.T) {
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
			t.Errorf("a new token under the name does not have a new record: %v, %+v", err, record)
		}
	})
}

func TestEventsAndRecordsHoldNoSecret(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.advance(r, token)
		text := fmt.Sprintf("%+v %#v %+v %#v %s", w.events, w.events, w.steps, w.steps, w.records["ci"])
		for _, s := range w.issued {
			if strings.Contains(text, s) {
				t.Error("an event or a record contains a secret")
			}
		}
		if secret.Scrub(text) != text {
			t.Error("an event or a record contains something that looks like a secret")
		}
	})
}
