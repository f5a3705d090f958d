package rotation_test

import (
	"fmt"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestUnknownOutcomeWaitsForTheGrace: the answer to a request is lost. The daemon does not rotate again while
// the old secret may be the one that works. It extends the grace if Cloudflare shows that the request was
// carried out, and it reissues before the old secret dies.
func TestUnknownOutcomeWaitsForTheGrace(t *testing.T) {
	const grace = 40 * time.Minute
	for name, test := range map[string]struct {
		frozen, refuseExtension bool
		want                    time.Duration // from the doubt to the reissue
		extensions              int
	}{
		"extended":          {want: 3 * grace, extensions: 13}, // at once, and then two seconds before each quarter of the grace is over
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
					if e, ok := e.Detail.(event.GraceExtension); ok && e.Err == nil {
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

// TestUnknownOutcomeNotCarriedOut: updated_at has moved on an earlier rotation, and does not move now. This
// proves that the request was not carried out.
func TestUnknownOutcomeNotCarriedOut(t *testing.T) {
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
				want := time.Minute // until no request can be under way
				if frozen {
					want = 20 * time.Minute // updated_at never moved, so it proves nothing
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
				t.Error("the sealed answer was erased before an operator saw it")
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
				t.Error("it was not reissued, or the damaged answer was erased")
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

// TestReissueAnswerIsLostToo loses two answers in a row. The second request cuts consumers off at once: the
// grace that it gives belongs to the first lost secret, and not to the secret that consumers use.
func TestReissueAnswerIsLostToo(t *testing.T) {
	const grace = 40 * time.Minute
	inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		unknown := &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}
		lost := 0
		w.fault = func(_ int, c string) fault {
			if c != "rotate" || lost == 2 {
				return fault{}
			}
			lost++
			return fault{after: unknown}
		}
		var cutOff time.Time
		extensions := 0
		for range 100 {
			w.mayCutOff = w.rotates > 0 // the second request may cut off; the world does not know why
			w.advance(r, token)
			if !w.accepted(w.sink.ClientSecret.Reveal()) && cutOff.IsZero() {
				cutOff = time.Now()
				for _, e := range w.events {
					if _, ok := e.Detail.(event.GraceExtension); ok {
						extensions++
					}
				}
				if w.record().OldDiesBy.IsZero() {
					t.Error("the ledger does not know when the old secret dies")
				}
			}
			if !cutOff.IsZero() && w.record().Step == rotation.StepIdle && w.record().Last != nil {
				break
			}
		}
		if cutOff.IsZero() {
			t.Fatal("consumers were never cut off: this proves nothing")
		}
		if refused := w.record().Last.At.Sub(cutOff); refused > time.Minute {
			t.Errorf("consumers were refused for %s", refused)
		}
		for _, e := range w.events {
			if _, ok := e.Detail.(event.GraceExtension); ok {
				extensions--
			}
		}
		if extensions != 0 {
			t.Error("the grace of a lost secret was extended")
		}
		if !w.record().OldDiesBy.IsZero() {
			t.Error("the ledger still says when the old secret dies")
		}
		w.check("at the end")
	})
}

// TestInterruptedReissueWithAShortGrace: the daemon dies between the intent of a reissue and its request, with
// half of the old secret's grace left. The doubt is resolved before the old secret dies.
func TestInterruptedReissueWithAShortGrace(t *testing.T) {
	for _, grace := range []time.Duration{4 * time.Second, 7 * time.Second, time.Minute, 10 * time.Minute} {
		t.Run(grace.String(), func(t *testing.T) {
			now := time.Now()
			before := rotation.TokenFacts{UpdatedAt: now.Add(-grace)}
			ends := now.Add(grace / 2)
			r := rotation.Record{
				Step: rotation.StepInDoubt, OldDiesBy: ends,
				Work:  &rotation.Work{Grace: rotation.Grace(grace), IntentAt: now, Before: before},
				Doubt: &rotation.Doubt{Since: now, Reason: rotation.ReasonInterrupted, OldWorksUntil: ends},
			}
			evidence := rotation.Evidence{Facts: &before, Trusted: true}
			if v := rotation.Judge(r, evidence, now); v.Resolved {
				t.Errorf("resolved at once: %+v", v)
			}
			if v := rotation.Judge(r, evidence, ends.Add(-grace/4)); !v.Resolved || !v.NotCarriedOut {
				t.Errorf("it is not resolved a quarter of the grace before the old secret dies: %+v", v)
			}
		})
	}
}
