package rotation_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// rotateOutside does what another person may do: it rotates the service token with this grace, and stores the
// new secret in the sink.
func (w *world) rotateOutside(grace time.Duration) {
	time.Sleep(2 * time.Second)
	c := w.tokenByID(tokenID)
	c.previous, c.previousUntil = c.current, time.Now().Add(grace)
	c.current, c.updatedAt = w.secretOf(500+len(w.issued)), time.Now().UTC()
	w.issued = append(w.issued, c.current)
	w.sink = rotation.Credential{ClientID: c.clientID, ClientSecret: secret.New(c.current)}
	w.version++
}

// overtake brings the token into the state overtaken: another person rotates it while Vault refuses our write.
func (w *world) overtake(r *rotation.Rotator, token rotation.Token, grace time.Duration) {
	w.t.Helper()
	w.failAll("sink store", fault{before: errors.New("permission denied")})
	w.advance(r, token)
	w.rotateOutside(grace)
	w.fault = nil
	w.advance(r, token)
	if work := w.record().Work; work == nil || work.Overtaken == nil {
		w.t.Fatal("the secret was not overtaken")
	}
}

// advanceUntilIdle advances the token up to n times, until it is idle and not due within ten minutes.
func (w *world) advanceUntilIdle(r *rotation.Rotator, token rotation.Token, n int) {
	for range n {
		if record := w.record(); record.Step == rotation.StepIdle && time.Until(rotation.NextDue(token, record, rotation.Pause{}).At) > 10*time.Minute {
			return
		}
		w.advance(r, token)
	}
}

// TestOvertakenIsReportedOnce: overtaken is a state of its own. It is reported once, the daemon looks again without
// further reports, and the record says what is known.
func TestOvertakenIsReportedOnce(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.overtake(r, token, time.Hour)
		found := *w.record().Work.Overtaken
		if record := w.record(); r.StateOf(token, record) != rotation.StateOvertaken || found.ChangedAt.IsZero() || len(found.Sinks) != 1 || !found.Since.Equal(time.Now()) {
			t.Fatalf("%+v", found)
		}
		attempts, events, failures := len(w.attempts()), len(w.events), w.record().Failures
		for range 20 {
			if err, _ := w.advance(r, token); err == nil || !strings.Contains(err.Error(), "overtaken") {
				t.Fatal(err)
			}
		}
		if len(w.attempts()) != attempts || w.record().Failures != failures || !w.record().Work.Overtaken.Since.Equal(found.Since) {
			t.Errorf("it was reported again: %v, %d failures", w.attempts()[attempts:], w.record().Failures)
		}
		for _, e := range w.events[events:] {
			if _, stuck := e.Detail.(event.RotationStuck); stuck {
				t.Fatal("it was reported as stuck")
			}
		}
		if time.Since(found.Since) > 2*time.Hour || len(w.pending) != 1 {
			t.Error(time.Since(found.Since), len(w.pending))
		}
		if attempt := w.attempts()[attempts-1]; attempt != "schedule/failed/overtaken" {
			t.Error(attempt)
		}
		r = w.start() // the next process knows the state too
		record, err := r.Enroll(w.t.Context(), token)
		if err != nil || r.StateOf(token, record) != rotation.StateOvertaken {
			t.Error(err)
		}
		if w.sink.ClientSecret.Reveal() != w.current {
			t.Error("the secret that works was overwritten")
		}
	})
}

// TestOvertakenInTheFirstDelivery: others rotate the token between our answer and its delivery in the same attempt, and
// store their secret. Ours does not go over it.
func TestOvertakenInTheFirstDelivery(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.once("sink store", func() { w.rotateOutside(time.Hour) })
		w.advance(r, token)
		if work := w.record().Work; work == nil || work.Overtaken == nil {
			t.Errorf("the secret was not overtaken: %+v", w.record().Step)
		}
		if w.sink.ClientSecret.Reveal() != w.current {
			t.Error("the secret that works was overwritten")
		}
	})
}

// TestOtherSecretInTheFirstDelivery: another program stores a secret between our answer and its delivery, and nothing was
// changed at Cloudflare. Then ours is the last one, and goes over it in the same attempt.
func TestOtherSecretInTheFirstDelivery(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.once("sink store", func() {
			w.sink = rotation.Credential{ClientID: w.clientID, ClientSecret: secret.New("an old one")}
			w.version++
		})
		w.advance(r, token)
		if w.record().Step != rotation.StepIdle || w.sink.ClientSecret.Reveal() != w.current {
			t.Errorf("%s: our secret is not in the sink", w.record().Step)
		}
	})
}

// TestOvertakenEndsByItself: another writer puts our secret or the one before back into the sink, or empties it.
func TestOvertakenEndsByItself(t *testing.T) {
	for _, what := range []string{"ours", "the one from before", "nothing"} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
				before := w.sink
				w.overtake(r, token, time.Hour)
				ours := w.pending[w.record().Work.RotationID].Credential
				w.sink = map[string]rotation.Credential{"ours": ours, "the one from before": before}[what]
				if err, _ := w.advance(r, token); err != nil || w.record().Step != rotation.StepIdle || !w.sink.ClientSecret.Equal(ours.ClientSecret) || len(w.pending) != 0 {
					t.Errorf("%v, %+v", err, w.record())
				}
			})
		})
	}
}

// TestVerifyDecidesWhichSecretWorks: with verify, the daemon tries both secrets, and so knows which one works.
func TestVerifyDecidesWhichSecretWorks(t *testing.T) {
	t.Run("theirs", func(t *testing.T) {
		inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			token = verifying(w, token)
			w.failAll("sink store", fault{before: errors.New("permission denied")})
			w.advance(r, token)
			w.rotateOutside(time.Hour) // during this grace our secret is accepted too
			w.fault = nil
			if err, _ := w.advance(r, token); err != nil || w.record().Step != rotation.StepIdle || w.sink.ClientSecret.Reveal() != w.current {
				t.Errorf("%v, %+v", err, w.record())
			}
			if len(w.record().Abandoned) != 1 || len(w.pending) != 1 || w.rotates != 1 {
				t.Errorf("%+v, %d pending", w.record(), len(w.pending))
			}
			if record, err := r.RecordListing(w.t.Context(), token, w.facts()); err != nil || !record.Outside.IsZero() {
				t.Error("the rotation that is known already raises an alarm:", record.Outside, err)
			}
			w.advance(r, token) // the next slot
			if w.rotates != 2 || len(w.pending) != 0 || len(w.record().Abandoned) != 0 {
				t.Errorf("%d rotates, %d pending", w.rotates, len(w.pending))
			}
			w.check("at the end")
		})
	})
	t.Run("ours", func(t *testing.T) {
		inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			token = verifying(w, token)
			w.failAll("sink store", fault{before: errors.New("permission denied")})
			w.advance(r, token)
			ours := w.current
			time.Sleep(2 * time.Second)
			w.updatedAt, w.sink.ClientSecret = time.Now().UTC(), secret.New(w.secretOf(900)) // another person edits the token, and stores a wrong secret
			w.fault = nil
			w.advance(r, token)
			if w.sink.ClientSecret.Reveal() == ours {
				t.Error("the daemon did not give the edge time to know the other secret")
			}
			w.advanceUntilIdle(r, token, 5)
			if record := w.record(); record.Step != rotation.StepIdle || w.sink.ClientSecret.Reveal() != ours || len(w.pending) != 0 {
				t.Errorf("%+v", record)
			}
		})
	})
	t.Run("neither can be told", func(t *testing.T) {
		inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			token = verifying(w, token)
			w.overtakeUnproven(r, token)
			w.advance(r, token)
			if o := w.record().Work.Overtaken; o == nil || o.Tried == "" {
				t.Errorf("%+v", w.record())
			}
		})
	})
}

// overtakeUnproven is like overtake, but no probe proves which secret works.
func (w *world) overtakeUnproven(r *rotation.Rotator, token rotation.Token) {
	w.failAll("sink store", fault{before: errors.New("permission denied")})
	w.advance(r, token)
	w.rotateOutside(time.Hour)
	token.Prober = nil
	w.fault = nil
	w.advance(r, token)
	w.failAll("sink read back", fault{before: errors.New("permission denied")})
}

// TestRotateAfterOutsideEndsOvertaken: with outside_rotation: rotate, the daemon rotates an overtaken token again.
func TestRotateAfterOutsideEndsOvertaken(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token.RotateAfterOutside = true
		w.failAll("sink store", fault{before: errors.New("permission denied")})
		w.advance(r, token)
		w.rotateOutside(time.Hour)
		w.fault = nil
		theirs := w.current
		w.mayCutOff = true
		w.advance(r, token)
		if w.rotates != 2 || w.record().Step != rotation.StepIdle || !w.accepted(theirs) || len(w.pending) != 0 {
			t.Errorf("%d rotates, %+v", w.rotates, w.record())
		}
		w.check("at the end")
	})
}

// TestOwnExtensionDoesNotHideARotation: while the sink was away, another person rotated the token. Then the daemon
// extended the grace, which moves updated_at too. The daemon must not overwrite the secret of the other person.
func TestOwnExtensionDoesNotHideARotation(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.failAll("sink preflight", fault{before: errors.New("connection refused")})
		w.fault = func(_ int, c string) fault {
			if w.rotates > 0 && strings.HasPrefix(c, "sink") {
				return fault{before: errors.New("connection refused")}
			}
			return fault{}
		}
		w.advance(r, token)
		w.rotateOutside(24 * time.Hour)
		theirs := w.current
		for failed := time.Now(); time.Since(failed) < time.Hour; {
			w.advance(r, token)
		}
		if w.count("extend") == 0 {
			t.Fatal("nothing was extended: this proves nothing")
		}
		w.fault = nil
		w.advance(r, token)
		if w.sink.ClientSecret.Reveal() != theirs || w.record().Work == nil || w.record().Work.Overtaken == nil {
			t.Errorf("the secret that works was overwritten with the previous one: %+v", w.record())
		}
	})
}

// TestOvertakenWhenUpdatedAtDoesNotMove: our rotation did not move updated_at, so the daemon cannot know whether the
// token was rotated again. It does not overwrite the secret in the sink.
func TestOvertakenWhenUpdatedAtDoesNotMove(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.frozenUpdatedAt = true
		w.failAll("sink store", fault{before: errors.New("permission denied")})
		w.advance(r, token)
		at := w.updatedAt
		w.rotateOutside(time.Hour)
		w.updatedAt, w.fault = at, nil
		w.advance(r, token)
		if o := w.record().Work; o == nil || o.Overtaken == nil || !o.Overtaken.ChangedAt.IsZero() || w.sink.ClientSecret.Reveal() != w.current {
			t.Fatalf("a secret that works was overwritten: %+v", w.record())
		}
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveDrop); err != nil || w.record().Step != rotation.StepIdle {
			t.Error(err)
		}
	})
}

// TestDropNeedsProof: our secret can be given up only if every sink has another complete secret.
func TestDropNeedsProof(t *testing.T) {
	for what, change := range map[string]func(w *world){
		"holds no secret":                      func(w *world) { w.sink = rotation.Credential{} },
		"still holds the secret from before":   func(w *world) { w.sink.ClientSecret = secret.New(w.secretOf(0)) },
		"does not hold a whole secret":         func(w *world) { w.sink.ClientSecret = secret.New("cfast_short") },
		"holds a secret for another client ID": func(w *world) { w.sink.ClientID = "another.access" },
		"could not be read":                    func(w *world) { w.failAll("sink preflight", fault{before: errors.New("403")}) },
		"Cloudflare could not be asked": func(w *world) {
			w.failAll("inspect", fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut}})
		},
		"holds the new secret already, and the rot": func(w *world) { w.sink = w.pending[w.record().Work.RotationID].Credential },
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
				w.overtake(r, token, time.Hour)
				change(w)
				_, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveDrop)
				if !errors.Is(err, rotation.ErrUnfit) || !strings.Contains(err.Error(), what) || w.record().Step != rotation.StepSealed || len(w.pending) != 1 {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// TestDeliverAppliesToOneSecret: an operator orders to overwrite the other secret with ours. The order does not apply
// to a secret that is stored later.
func TestDeliverAppliesToOneSecret(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.overtake(r, token, time.Hour)
		if _, verdict, err := r.Resolve(w.t.Context(), token, rotation.ResolveDeliver); err != nil || !verdict.Deliver {
			t.Fatal(verdict, err)
		}
		w.rotateOutside(time.Hour)
		w.advance(r, token)
		if o := w.record().Work; o == nil || o.Overtaken == nil || o.Overtaken.Deliver || w.sink.ClientSecret.Reveal() != w.current {
			t.Fatalf("a later secret was overwritten: %+v", w.record())
		}
		ours := w.pending[w.record().Work.RotationID].ClientSecret
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveDeliver); err != nil {
			t.Fatal(err)
		}
		if err, _ := w.advance(r, token); err != nil || !w.sink.ClientSecret.Equal(ours) || w.record().Step != rotation.StepIdle {
			t.Errorf("%v", err)
		}
	})
}

// TestSecretOfADeletedServiceToken: a secret waits for its sink, and the service token is deleted. The secret is
// useless, so an operator gives it up. Then the entry can name another service token.
func TestSecretOfADeletedServiceToken(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.failAll("sink store", fault{before: errors.New("permission denied")})
		w.advance(r, token)
		w.gone = map[string]bool{tokenID: true}
		other := token
		other.ID = partnerID
		if _, err := r.Enroll(w.t.Context(), other); err == nil {
			t.Fatal("a rotation in progress was forgotten")
		}
		record, verdict, err := r.Resolve(w.t.Context(), token, rotation.ResolveDrop)
		if err != nil || verdict.Reason != rotation.ReasonOperatorDrop || record.Step != rotation.StepIdle || len(w.pending) != 1 {
			t.Fatal(record, verdict, err)
		}
		w.fault = nil
		if record, err = r.Enroll(w.t.Context(), other); err != nil || record.TokenID != partnerID || len(record.Abandoned) != 1 {
			t.Fatal(record, err)
		}
		if record, err := r.RotateNow(w.t.Context(), other, rotation.Overrides{}, "ops"); err != nil || len(w.pending) != 0 {
			t.Error(record, err)
		}
	})
}

// TestRevokeOrderBeforeTheDoubt: the process dies while the request is under way, and then an operator orders to
// revoke. The rotation becomes a doubt, and the order does not wait until it is resolved.
func TestRevokeOrderBeforeTheDoubt(t *testing.T) {
	inBubble(t, 24*time.Hour, func(w *world, token rotation.Token, r *rotation.Rotator) {
		leaked := w.current
		w.failAll("rotate", fault{after: errors.New("x"), crash: true})
		if _, died := w.advance(r, token); !died {
			t.Fatal("it did not die")
		}
		w.fault = nil
		r = w.start()
		if _, err := r.Enroll(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops"); !errors.Is(err, rotation.ErrFinishedFirst) {
			t.Fatal(err)
		}
		w.mayCutOff = true
		ordered := time.Now()
		w.advanceUntilIdle(r, token, 10)
		if record := w.record(); record.Order != nil || w.accepted(leaked) || time.Since(ordered) > time.Minute {
			t.Errorf("after %s the leaked secret is accepted: %t; %+v", time.Since(ordered), w.accepted(leaked), record)
		}
		w.check("at the end")
	})
}

// TestLeakedSecretIsRevokedWhileTheSinkIsAway: an order to revoke waits only for the sink. The daemon does not extend
// the leaked secret's grace any more, and an operator can end it at once.
func TestLeakedSecretIsRevokedWhileTheSinkIsAway(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		leaked := w.current
		w.failAll("sink store", fault{before: errors.New("permission denied")})
		w.advance(r, token)
		_, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops")
		if !errors.Is(err, rotation.ErrFinishedFirst) || !strings.Contains(err.Error(), "rotatord revoke-previous ci --override-in-use") || !strings.Contains(err.Error(), "permission denied") {
			t.Fatal(err)
		}
		if _, err := r.RevokePrevious(w.t.Context(), token); !errors.Is(err, rotation.ErrNoPrevious) || !strings.Contains(err.Error(), "--override-in-use") || !w.accepted(leaked) {
			t.Error(err)
		}
		if _, err := r.RevokeInUse(w.t.Context(), token); err != nil || w.accepted(leaked) {
			t.Error("the leaked secret still works:", err)
		}
		w.fault = nil
		w.advanceUntilIdle(r, token, 5)
		if record := w.record(); record.Step != rotation.StepIdle || record.Order != nil || w.rotates != 2 {
			t.Errorf("%+v", record)
		}
		w.check("at the end")
	})
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		leaked := w.current
		w.failAll("sink store", fault{before: errors.New("permission denied")})
		w.advance(r, token)
		_, _ = r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops")
		for began := time.Now(); time.Since(began) < time.Hour; {
			w.advance(r, token)
		}
		if w.accepted(leaked) {
			t.Error("the leaked secret's grace is extended")
		}
	})
}

// TestRevokeOrderDoesNotWaitForVerify: verify is trying the new secret, but the order replaces it anyway.
func TestRevokeOrderDoesNotWaitForVerify(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = verifying(w, token)
		leaked := w.current
		failed := 0
		w.fault = func(_ int, c string) fault {
			if c == "sink store" && failed == 0 {
				failed++
				return fault{before: errors.New("503")}
			}
			if c == "probe" && w.rotates == 1 {
				return fault{before: errors.New("401")}
			}
			return fault{}
		}
		w.advance(r, token)
		time.Sleep(time.Millisecond)
		_, _ = r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops")
		w.mayCutOff = true
		w.advanceUntilIdle(r, token, 4)
		if record := w.record(); record.Order != nil || record.Step != rotation.StepIdle || w.accepted(leaked) || w.rotates != 2 {
			t.Errorf("%+v", record)
		}
	})
}
