package rotation_test

import (
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

// loseFirstAnswer loses the answer to the first rotate, which is carried out or not.
func (w *world) loseFirstAnswer(carriedOut bool) {
	unknown := &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}
	done := false
	w.fault = func(_ int, c string) fault {
		if c != "rotate" || done {
			return fault{}
		}
		done = true
		if carriedOut {
			return fault{after: unknown}
		}
		return fault{before: unknown}
	}
}

// reasons returns the codes of all verdicts so far, without those that repeat the one before.
func (w *world) reasons() (all []string) {
	for _, e := range w.events {
		if j, ok := e.Detail.(event.Verdict); ok && j.Reason != j.Before {
			all = append(all, j.Reason)
		}
	}
	return all
}

func TestOperatorResolvesADoubt(t *testing.T) {
	const grace = 40 * time.Minute
	for name, test := range map[string]struct {
		carriedOut, looked bool
		how                rotation.Resolution
		want               error
		trigger            string
		rotates            int
		reason             string
	}{
		"look, too early":            {carriedOut: false, how: rotation.ResolveLook, reason: rotation.ReasonUnderWay, rotates: 0},
		"look":                       {carriedOut: true, how: rotation.ResolveLook, reason: rotation.ReasonOldSecretWorks, rotates: 1},
		"rotate now":                 {carriedOut: true, how: rotation.ResolveRotateNow, trigger: "manual", reason: rotation.ReasonOperatorRotateNow, rotates: 2},
		"rotate now, was not":        {carriedOut: false, how: rotation.ResolveRotateNow, trigger: "manual", reason: rotation.ReasonOperatorRotateNow, rotates: 1},
		"assume not rotated":         {carriedOut: false, how: rotation.ResolveAssumeNotRotated, trigger: "retry", reason: rotation.ReasonOperatorNotRotated, rotates: 1},
		"assume not rotated, but is": {carriedOut: true, looked: true, how: rotation.ResolveAssumeNotRotated, want: rotation.ErrUnfit, rotates: 1},
		"deliver nothing":            {carriedOut: true, how: rotation.ResolveDeliver, want: rotation.ErrUnfit, rotates: 1},
		"nonsense":                   {carriedOut: true, how: "nonsense", want: rotation.ErrUnfit, rotates: 1},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
				if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveRotateNow); !errors.Is(err, rotation.ErrNotInDoubt) {
					t.Errorf("resolving a token that is not in doubt: %v", err)
				}
				w.loseFirstAnswer(test.carriedOut)
				w.advance(r, token)
				if test.looked {
					if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveLook); err != nil {
						t.Fatal(err)
					}
				}
				w.mayCutOff = test.how == rotation.ResolveRotateNow
				record, verdict, err := r.Resolve(w.t.Context(), token, test.how)
				if test.want != nil {
					if !errors.Is(err, test.want) || w.record().Step != rotation.StepInDoubt {
						t.Fatalf("%v, step %q", err, w.record().Step)
					}
					return
				}
				if err != nil || verdict.Reason != test.reason || record.Revision != w.record().Revision {
					t.Fatalf("%+v, %v", verdict, err)
				}
				if test.trigger == "" {
					if d := w.record().Doubt; d == nil || d.Decision != test.reason || !d.DecidedAt.Equal(time.Now()) {
						t.Errorf("the decision was not saved: %+v", d)
					}
				} else {
					began := time.Now()
					if err, _ := w.advance(r, token); err != nil || time.Since(began) != 0 {
						t.Errorf("the rotation after the resolution: %v, after %s", err, time.Since(began))
					}
					if diff := cmp.Diff([]string{"schedule/in_doubt/outcome_unknown", test.trigger + "/success/"}, w.attempts()); diff != "" {
						t.Error(diff)
					}
					if w.sink.ClientSecret.Reveal() != w.current || len(w.pending)+len(w.reserved) != 0 {
						t.Error("the sink does not have a working secret, or something is still sealed or reserved")
					}
				}
				if w.rotates != test.rotates {
					t.Errorf("%d rotates, want %d", w.rotates, test.rotates)
				}
				if reasons := w.reasons(); !slices.Contains(reasons, test.reason) {
					t.Errorf("verdicts reported: %v", reasons)
				}
			})
		})
	}
}

func TestOperatorDeliversAnUnfamiliarSecret(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.secretOf = func(n int) string { return fmt.Sprint("a third format ", n) }
		w.advance(r, token)
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveDeliver); err != nil {
			t.Fatal(err)
		}
		if err, _ := w.advance(r, token); err != nil || w.sink.ClientSecret.Reveal() != w.current || w.rotates != 1 || len(w.pending) != 0 {
			t.Errorf("%v, %d rotates, %d pending", err, w.rotates, len(w.pending))
		}
	})
}

// TestResolvingSurvivesACrash: the operator's decision is saved before the daemon acts on it.
func TestResolvingSurvivesACrash(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.loseFirstAnswer(true)
		w.advance(r, token)
		w.failAll("save claimed", fault{before: errors.New("x"), crash: true})
		w.mayCutOff = true
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveRotateNow); err != nil {
			t.Fatal(err)
		}
		if _, died := w.advance(r, token); !died {
			t.Fatal("it did not die")
		}
		w.fault = nil
		r = w.start()
		if err, _ := w.advance(r, token); err != nil || w.rotates != 2 {
			t.Fatalf("%v, %d rotates", err, w.rotates)
		}
		if last := w.attempts(); last[len(last)-1] != "manual/success/" {
			t.Errorf("attempts %v", last)
		}
	})
}

// TestOldSecretIsKeptAliveWhileTheSinkIsAway: consumers have only the old secret, so the daemon extends its grace
// until the sink is back, for 30 days at most.
func TestOldSecretIsKeptAliveWhileTheSinkIsAway(t *testing.T) {
	for _, away := range []time.Duration{20 * time.Minute, 72 * time.Hour, 31 * 24 * time.Hour} {
		t.Run(away.String(), func(t *testing.T) {
			inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
				old := w.current
				w.failAll("sink store", fault{before: errors.New("sealed")})
				w.advance(r, token)
				failed := time.Now()
				for time.Since(failed) < away {
					time.Sleep(10 * time.Minute) // shorter waits would only make the test slower
					w.advance(r, token)
				}
				if alive := w.accepted(old); alive != (away < 30*24*time.Hour) {
					t.Errorf("after %s the old secret works: %t", away, alive)
				}
				w.fault = nil
				if err, _ := w.advance(r, token); err != nil || w.rotates != 1 || w.sink.ClientSecret.Reveal() != w.current {
					t.Fatalf("%v, %d rotates", err, w.rotates)
				}
				if end := w.record().Last.GraceEndsAt; away < 30*24*time.Hour && !end.Equal(w.previousUntil) {
					t.Errorf("the ledger has the grace end at %s, Cloudflare at %s", end, w.previousUntil)
				}
				// Our own extensions must not count as rotations by another person.
				if record := w.record(); record.MovedCount != 1 || record.StillCount != 0 {
					t.Errorf("the counts of updated_at are wrong: %d moved, %d still", record.MovedCount, record.StillCount)
				}
			})
		})
	}
}

// TestOwnExtensionIsNotTakenForARotation: another writer changes the sink while the daemon extends the grace. An
// extension moves updated_at as a rotation does.
func TestOwnExtensionIsNotTakenForARotation(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.failAll("sink store", fault{before: errors.New("sealed")})
		w.advance(r, token)
		for failed := time.Now(); time.Since(failed) < 2*time.Hour; {
			w.advance(r, token)
		}
		w.fault = nil
		w.sink.ClientSecret = secret.New(w.secretOf(500))
		if err, _ := w.advance(r, token); err != nil || w.sink.ClientSecret.Reveal() != w.current {
			t.Errorf("%v", err)
		}
	})
}

// TestDeliveryIsTriedInTimeToExtendTheGrace: the grace is short and the back-off grows, but the old secret still
// does not die.
func TestDeliveryIsTriedInTimeToExtendTheGrace(t *testing.T) {
	inBubble(t, 8*time.Second, func(w *world, token rotation.Token, r *rotation.Rotator) {
		old := w.current
		w.failAll("sink store", fault{before: errors.New("sealed")})
		w.advance(r, token)
		for failed := time.Now(); time.Since(failed) < 10*time.Minute; {
			w.advance(r, token)
			if !w.accepted(old) {
				t.Fatalf("the old secret died after %s", time.Since(failed))
			}
		}
	})
}

// TestDeliveredWhileTheLedgerFails: a sealed secret is delivered even if the ledger cannot be written.
func TestDeliveredWhileTheLedgerFails(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.fault = func(_ int, c string) fault {
			if w.rotates > 0 && strings.HasPrefix(c, "save") {
				return fault{before: errors.New("no space left on device")}
			}
			return fault{}
		}
		if err, _ := w.advance(r, token); !errors.Is(err, rotation.ErrLedger) || w.sink.ClientSecret.Reveal() != w.current {
			t.Fatalf("not delivered: %v", err)
		}
		w.fault = nil
		if err, _ := w.advance(r, token); err != nil || w.rotates != 1 || len(w.pending) != 0 {
			t.Errorf("%v, %d rotates, %d pending", err, w.rotates, len(w.pending))
		}
	})
}

// TestSealedAnswerIsLost: while the sink was away, the sealed answer was deleted, or it cannot be decrypted any more.
// Then the token is in doubt, and not stuck for ever.
func TestSealedAnswerIsLost(t *testing.T) {
	for _, unreadable := range []bool{false, true} {
		for _, grace := range []time.Duration{0, 40 * time.Minute} {
			t.Run(fmt.Sprint("unreadable=", unreadable, " grace=", grace), func(t *testing.T) {
				inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
					w.failAll("sink store", fault{before: errors.New("sealed")})
					w.advance(r, token)
					w.fault = nil
					id := w.record().Work.RotationID
					if w.unreadable = unreadable; !unreadable {
						delete(w.pending, id)
					}
					w.advance(r, token)
					d := w.record().Doubt
					if d == nil || d.Reason != rotation.ReasonSealedLost || d.Sealed != unreadable {
						t.Fatalf("%+v", w.record())
					}
					if grace > 0 && unreadable {
						// The identity is restored, and an operator orders to deliver.
						w.unreadable = false
						if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveDeliver); err != nil {
							t.Fatal(err)
						}
						if err, _ := w.advance(r, token); err != nil || w.rotates != 1 || w.sink.ClientSecret.Reveal() != w.current {
							t.Fatalf("%v, %d rotates", err, w.rotates)
						}
						return
					}
					w.unreadable = false // otherwise the next secret could not be read back either
					for range 50 {
						if w.record().Step == rotation.StepIdle && w.rotates == 2 {
							break
						}
						w.advance(r, token)
						if grace > 0 {
							w.check("while in doubt")
						}
					}
					if w.rotates != 2 || w.sink.ClientSecret.Reveal() != w.current {
						t.Errorf("not recovered: %d rotates", w.rotates)
					}
				})
			})
		}
	}
}
