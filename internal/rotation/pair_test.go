package rotation_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// inPair runs test with a pair. At first the sink has the secret of the first service token.
func inPair(t *testing.T, grace time.Duration, test func(w *world, token rotation.Token, r *rotation.Rotator)) {
	t.Helper()
	inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token.Partner = partnerID
		test(w, token, r)
	})
}

// TestPairRotatesTheSpare: the two service tokens are rotated in turn, and never the one in use.
func TestPairRotatesTheSpare(t *testing.T) {
	inPair(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		for n, want := range []*cfToken{&w.partner, &w.cfToken, &w.partner, &w.cfToken} {
			used, user := w.sink.ClientSecret.Reveal(), w.tokenByID(token.ID)
			if w.sink.ClientID == w.partner.clientID {
				user = &w.partner
			}
			if err, _ := w.advance(r, token); err != nil {
				t.Fatal(err)
			}
			if w.sink.ClientID != want.clientID || w.sink.ClientSecret.Reveal() != want.current {
				t.Fatalf("rotation %d: the sink has client %s", n, w.sink.ClientID)
			}
			if user.current != used {
				t.Fatalf("rotation %d changed the service token in use", n)
			}
			record := w.record()
			if record.TokenID != want.id || record.Facts.ID != want.id || record.Spare.ID != user.id {
				t.Fatalf("rotation %d: the record says that %s is in use; it has the facts of %s, and the spare %s", n, record.TokenID, record.Facts.ID, record.Spare.ID)
			}
			if end := record.Last.GraceEndsAt; time.Until(end) != 30*time.Minute {
				t.Errorf("the replaced credential is promised until %s", end)
			}
		}
		if w.rotates != 4 || len(w.pending)+len(w.reserved) != 0 {
			t.Errorf("%d rotates, %d pending", w.rotates, len(w.pending))
		}
	})
}

// TestPairDoubtDoesNotAffectConsumers: an answer is lost again and again. No consumer uses the spare, so the daemon
// reissues as soon as no request can be under way, and consumers notice nothing.
func TestPairDoubtDoesNotAffectConsumers(t *testing.T) {
	inPair(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.fault = func(_ int, c string) fault {
			if c == "rotate" && w.rotates < 3 {
				return fault{after: &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}}
			}
			return fault{}
		}
		used := w.current
		w.advance(r, token)
		doubted := time.Now()
		if end := w.record().GraceEnd(); !end.IsZero() {
			t.Errorf("the record of a pair in doubt says that the secret in use ends at %s", end)
		}
		for w.record().Step != rotation.StepIdle || w.record().Last == nil {
			w.advance(r, token)
			if w.current != used {
				t.Fatal("the service token in use was changed")
			}
		}
		if waited := time.Since(doubted); waited != 3*time.Minute || w.rotates != 4 || w.sink.ClientSecret.Reveal() != w.partner.current {
			t.Errorf("done after %s with %d rotates", waited, w.rotates)
		}
	})
}

// TestPairDoesNotDeliverAnUnfamiliarSecret: consumers keep the old credential, which continues to work, until an
// operator has looked at the new secret.
func TestPairDoesNotDeliverAnUnfamiliarSecret(t *testing.T) {
	inPair(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.secretOf = func(n int) string { return fmt.Sprint("a third format ", n) }
		used := w.current
		w.advance(r, token)
		for range 20 {
			w.advance(r, token)
		}
		if w.rotates != 1 || w.sink.ClientSecret.Reveal() != used || w.record().Doubt.Decision != rotation.ReasonUnfamiliarKept {
			t.Fatalf("%d rotates, decision %v", w.rotates, w.record().Doubt)
		}
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveDeliver); err != nil {
			t.Fatal(err)
		}
		if err, _ := w.advance(r, token); err != nil || w.sink.ClientSecret.Reveal() != w.partner.current {
			t.Errorf("not delivered: %v", err)
		}
	})
}

// TestPairSinksShowWhichTokenIsInUse: the credential in the sinks decides which of the two service tokens is in use.
func TestPairSinksShowWhichTokenIsInUse(t *testing.T) {
	t.Run("rolled back", func(t *testing.T) {
		inPair(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
			before := w.sink
			w.advance(r, token) // the sink has the partner now
			w.sink = before     // another writer restores the previous version
			if err, _ := w.advance(r, token); err != nil || w.current != before.ClientSecret.Reveal() || w.sink.ClientID != w.partner.clientID {
				t.Errorf("%v: the one in use was rotated", err)
			}
			if record := w.record(); record.TokenID != partnerID || record.Facts.ID != partnerID || record.Spare.ID != tokenID {
				t.Errorf("%+v", record)
			}
		})
	})
	t.Run("empty", func(t *testing.T) {
		inPair(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
			w.sink = rotation.Credential{}
			first := w.current
			if err, _ := w.advance(r, token); err != nil || w.current != first || w.sink.ClientID != w.partner.clientID {
				t.Errorf("%v: the first of the configuration was rotated first", err)
			}
			w.sink = rotation.Credential{} // another writer empties the sink; the ledger knows which token was in use
			second := w.partner.current
			if err, _ := w.advance(r, token); err != nil || w.partner.current != second || w.sink.ClientSecret.Reveal() != w.current {
				t.Errorf("%v: the one that was delivered last was rotated", err)
			}
		})
	})
	t.Run("they disagree", func(t *testing.T) {
		inPair(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
			other := newWorld(t)
			other.sink = rotation.Credential{ClientID: w.partner.clientID, ClientSecret: secret.New(w.partner.current)}
			token.Sinks = append(token.Sinks, namedSink{memorySink{other}, "memory:other"})
			if err, _ := w.advance(r, token); err == nil || !strings.Contains(err.Error(), "both service tokens of the pair are in use") {
				t.Errorf("%v", err)
			}
			if w.rotates != 0 {
				t.Error("one of them was rotated")
			}
		})
	})
}

type namedSink struct {
	memorySink
	name string
}

func (s namedSink) Name() string { return s.name }

// TestSingleTokenBecomesAPair: the pair continues the history, the schedule and an unfinished rotation of the token.
func TestSingleTokenBecomesAPair(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.advance(r, token)
		w.failAll("sink store", fault{before: errors.New("sealed")})
		w.advance(r, token) // unfinished
		w.fault = nil
		pair := token
		pair.ID, pair.Partner = partnerID, tokenID // the order does not matter
		r = w.start()
		if record, err := r.Enroll(w.t.Context(), pair); err != nil || record.Last == nil || record.Work.TokenID != tokenID {
			t.Fatalf("%+v, %v", record, err)
		}
		if err, _ := w.advance(r, pair); err != nil || w.rotates != 2 || w.sink.ClientSecret.Reveal() != w.current {
			t.Fatalf("the unfinished rotation: %v, %d rotates", err, w.rotates)
		}
		used := w.current
		if err, _ := w.advance(r, pair); err != nil || w.current != used || w.sink.ClientSecret.Reveal() != w.partner.current {
			t.Errorf("the first rotation as a pair: %v", err)
		}
		// Then the pair becomes a single token again: the one in use.
		single := token
		single.ID = partnerID
		if record, err := w.start().Enroll(w.t.Context(), single); err != nil || record.Last == nil {
			t.Errorf("%+v, %v", record, err)
		}
	})
}

// TestPairSurvivesEveryFault is TestRotationSurvivesEveryFault for a pair, with a stronger condition: the sink's
// secret is accepted after every attempt.
func TestPairSurvivesEveryFault(t *testing.T) {
	var calls []string
	inPair(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.advance(r, token)
		calls = w.calls
	})
	if len(calls) < 13 {
		t.Fatalf("a rotation makes only %d calls: the test would prove little", len(calls))
	}
	unknown := &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}
	for n, call := range calls {
		for _, f := range []fault{{before: unknown}, {after: unknown}, {before: unknown, crash: true}, {after: unknown, crash: true}} {
			t.Run(fmt.Sprintf("%02d %s before=%t crash=%t", n, call, f.before != nil, f.crash), func(t *testing.T) {
				inPair(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
					w.fault = func(i int, _ string) fault {
						if i == n {
							return f
						}
						return fault{}
					}
					accepted := func() bool {
						return w.sink.ClientID == w.clientID && w.sink.ClientSecret.Reveal() == w.current ||
							w.sink.ClientID == w.partner.clientID && w.sink.ClientSecret.Reveal() == w.partner.current
					}
					for range 20 {
						if _, died := w.advance(r, token); died {
							r = w.start()
						}
						if !accepted() {
							t.Fatal("the sink's secret is not accepted")
						}
						if w.record().Last != nil && w.record().Step == rotation.StepIdle {
							break
						}
					}
					if w.record().Last == nil || len(w.pending)+len(w.reserved) > 0 && !f.crash || len(w.pending) > 0 {
						t.Errorf("not recovered: %+v, pending %v", w.record(), w.pending)
					}
				})
			})
		}
	}
}

// becomesSingle rotates a pair once, lets the former spare end soon, and returns the configuration that names only the
// one in use any more.
func (w *world) becomesSingle(token rotation.Token, r *rotation.Rotator) rotation.Token {
	w.t.Helper()
	if err, _ := w.advance(r, token); err != nil {
		w.t.Fatal(err)
	}
	w.cfToken.expiresAt = time.Now().Add(20 * 24 * time.Hour).UTC()
	w.partner.expiresAt = time.Now().Add(300 * 24 * time.Hour).UTC()
	for _, facts := range []rotation.TokenFacts{w.cfToken.facts(), w.partner.facts()} {
		if _, err := r.RecordListing(w.t.Context(), token, facts); err != nil {
			w.t.Fatal(err)
		}
	}
	token.ID, token.Partner = partnerID, ""
	token.Renewer, token.RenewBefore = w, 30*24*time.Hour
	return token
}

// TestPairThatBecomesSingle: the configuration names only the one in use any more, while the former spare is
// about to end. What was known of the spare is forgotten: it is not renewed, and rotations go on.
func TestPairThatBecomesSingle(t *testing.T) {
	inPair(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		single := w.becomesSingle(token, r)
		r = w.start()
		if _, err := r.Enroll(w.t.Context(), single); err != nil {
			t.Fatal(err)
		}
		w.calls = nil
		rotated := w.rotates
		for end := time.Now().Add(3 * time.Hour); time.Now().Before(end); time.Sleep(time.Minute) {
			if _, err := r.Advance(w.t.Context(), single); err != nil {
				t.Fatal(err)
			}
		}
		record := w.record()
		if record.Facts.ID != partnerID || record.Spare.ID != "" {
			t.Errorf("the record knows %s, and the spare %q", record.Facts.ID, record.Spare.ID)
		}
		if w.rotates == rotated || len(w.calls) > 60 {
			t.Errorf("%d rotations with %d calls in three hours", w.rotates-rotated, len(w.calls))
		}
	})
}

// TestRenewalOfAFormerSpare: the spare is still in a record, since its rotation was in progress when the
// configuration changed. Renewing it does not touch what is known of the service token in use.
func TestRenewalOfAFormerSpare(t *testing.T) {
	inPair(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		single := w.becomesSingle(token, r)
		for range 6 { // not enrolled: the record is that of the pair
			if _, err := r.Advance(w.t.Context(), single); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		record := w.record()
		if record.Facts.ID != record.TokenID {
			t.Errorf("the facts of %s are those of %s", record.TokenID, record.Facts.ID)
		}
		if at := rotation.NextChore(single, record); !at.After(time.Now()) {
			t.Error("a chore is due for ever")
		}
	})
}
