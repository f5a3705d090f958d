package rotation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// verifying returns the token with verify: the daemon tries new secrets, for a minute at most.
func verifying(w *world, token rotation.Token) rotation.Token {
	w.gone = map[string]bool{}
	token.Prober, token.VerifyWithin = w, time.Minute
	return token
}

// count returns how often a call was made.
func (w *world) count(call string) (n int) {
	for _, c := range w.calls {
		if c == call {
			n++
		}
	}
	return n
}

// probed returns the results of all probes that were reported.
func (w *world) probed() (all []event.ProbeResult) {
	for _, e := range w.events {
		if p, ok := e.Detail.(event.Probe); ok {
			all = append(all, p.Result)
		}
	}
	return all
}

// TestAcceptedSecretIsProbedOnce: a secret that is accepted is tried only once: after every sink has it, and before
// the sealed answer is erased.
func TestAcceptedSecretIsProbedOnce(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = verifying(w, token)
		if err, _ := w.advance(r, token); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(w.calls, ", "); !strings.HasSuffix(got, "sink store, save stored, probe, erase, save ") {
			t.Error(got)
		}
		if record := w.record(); record.Last == nil || record.Last.Unverified != "" || !slices.Equal(w.probed(), []event.ProbeResult{event.ProbeGood}) {
			t.Errorf("%+v, %v", record.Last, w.probed())
		}
	})
}

// TestRefusalAtFirstIsNotAFailure: the edge needs some seconds to know a new secret, so a refusal at first does not
// count as a failure.
func TestRefusalAtFirstIsNotAFailure(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = verifying(w, token)
		slow := time.Now().Add(time.Hour + 20*time.Second)
		w.fault = func(_ int, c string) fault {
			if c == "probe" && time.Now().Before(slow) {
				return fault{before: errors.New("401")}
			}
			return fault{}
		}
		for range 20 {
			if err, _ := w.advance(r, token); err != nil {
				t.Fatal(err)
			}
			if record := w.record(); record.Failures > 0 {
				t.Fatal("the refusal counts as a failure")
			} else if record.Step == rotation.StepIdle {
				break
			}
		}
		if took := time.Since(slow.Add(-20 * time.Second)); w.record().Last == nil || took > 31*time.Second || w.count("probe") > 8 || w.count("rotate") != 1 {
			t.Errorf("it took %s and %d probes; %+v", took, w.count("probe"), w.record())
		}
		if w.record().Last.Unverified != "" || len(w.attempts()) != 1 {
			t.Error(w.record().Last.Unverified, w.attempts())
		}
	})
}

// TestRefusedSecretKeepsTheOldOneAlive: Cloudflare answered with a secret that Access refuses. The daemon extends the
// old one for as long as possible and does not rotate, until an operator resolves it.
func TestRefusedSecretKeepsTheOldOneAlive(t *testing.T) {
	deliverRefused := func(w *world, token rotation.Token, r *rotation.Rotator, days int) (rotation.Token, string) {
		token = verifying(w, token)
		old := w.current
		w.fault = func(_ int, c string) fault {
			if c == "sink store" && w.rotates == 1 {
				w.current, w.misled = "another", true // Cloudflare's secret is not the one in its answer
			}
			return fault{}
		}
		w.advance(r, token)
		for until := time.Now().Add(time.Duration(days) * 24 * time.Hour); time.Now().Before(until) && w.record().Step == rotation.StepStored; {
			w.advance(r, token)
			if !w.accepted(old) && time.Now().Before(until.Add(-time.Minute)) && days < 30 {
				w.t.Errorf("the old secret died after %s", time.Since(until.Add(-time.Duration(days)*24*time.Hour)))
				break
			}
		}
		return token, old
	}
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token, _ = deliverRefused(w, token, r, 2)
		record := w.record()
		if record.Step != rotation.StepStored || w.rotates != 1 || record.Failures == 0 || !record.Work.Verification.Refused(time.Minute, time.Now()) {
			t.Fatalf("%d rotates, %+v", w.rotates, record)
		}
		if n := w.count("probe"); n < 300 || n > 2000 {
			t.Errorf("%d probes in two days", n)
		}
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveAssumeNotRotated); !errors.Is(err, rotation.ErrUnfit) {
			t.Error(err)
		}
		if _, v, err := r.Resolve(w.t.Context(), token, rotation.ResolveAccept); err != nil || v.Reason != rotation.ReasonOperatorAccept {
			t.Fatal(v, err)
		}
		if err, _ := w.advance(r, token); err != nil || w.record().Step != rotation.StepIdle || !strings.Contains(w.record().Last.Unverified, "operator") || w.rotates != 1 {
			t.Error(err, w.record())
		}
	})
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token, _ = deliverRefused(w, token, r, 1)
		w.mayCutOff = true
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveRotateNow); err != nil {
			t.Fatal(err)
		}
		for w.record().Order != nil || w.record().Step != rotation.StepIdle {
			w.advance(r, token)
		}
		if record := w.record(); record.Order != nil || w.rotates != 2 || w.sink.ClientSecret.Reveal() != w.current || record.Last.Unverified != "" {
			t.Errorf("%d rotates, %+v", w.rotates, record)
		}
	})
	for name, order := range map[string]func(w *world, token rotation.Token, r *rotation.Rotator){
		"all": func(w *world, token rotation.Token, r *rotation.Rotator) {
			r.OrderAll(w.t.Context(), []rotation.Token{token}, rotation.Overrides{RevokeNow: true}, "ops")
		},
		"one": func(w *world, token rotation.Token, r *rotation.Rotator) {
			if record, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops"); err == nil || record.Order == nil {
				w.t.Error(err, record)
			}
		},
		"one, and again": func(w *world, token rotation.Token, r *rotation.Rotator) {
			_, _ = r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops")
			if record, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveRotateNow); err != nil || !record.Order.RevokeNow || record.Order.By != "ops" {
				w.t.Error("an order to revoke was replaced by a weaker one", err, record.Order)
			}
		},
	} {
		t.Run("an order to revoke "+name, func(t *testing.T) {
			inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
				token, old := deliverRefused(w, token, r, 1)
				w.mayCutOff = true
				order(w, token, r)
				for range 5 {
					w.advance(r, token)
				}
				if record := w.record(); record.Step != rotation.StepIdle || record.Order != nil || w.accepted(old) || w.sink.ClientSecret.Reveal() != w.current {
					t.Errorf("%d rotates, %+v", w.rotates, record)
				}
			})
		})
	}
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		deliverRefused(w, token, r, 32)
		if record := w.record(); record.Step != rotation.StepIdle || record.Last.Unverified == "" || record.Last.AskedAt.IsZero() || time.Since(record.Last.AskedAt) < 29*24*time.Hour {
			t.Errorf("after a month the rotation is not completed: %+v", record)
		}
	})
}

// TestWaitAfterRefusalCountsFromTheRefusal: a sink was away for hours, and then the application refuses the new secret for
// two minutes. It is asked again in a time that fits these two minutes, not the hours.
func TestWaitAfterRefusalCountsFromTheRefusal(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = verifying(w, token)
		token.VerifyWithin = 0
		back := time.Now().Add(4 * time.Hour)
		w.fault = func(_ int, c string) fault {
			switch {
			case c == "sink store" && time.Now().Before(back):
				return fault{before: errors.New("vault is sealed")}
			case c == "probe" && time.Now().Before(back.Add(2*time.Minute)):
				return fault{before: errors.New("401")}
			}
			return fault{}
		}
		for w.record().Last == nil && time.Since(back) < time.Hour {
			w.advance(r, token)
		}
		if took := time.Since(back); took > 5*time.Minute {
			t.Errorf("the secret was accepted after %s", took)
		}
		if n := w.count("probe"); n < 5 || n > 15 {
			t.Errorf("%d probes", n)
		}
	})
}

// TestInconclusiveProbe: if the application does not answer, a probe proves nothing. The rotation is completed after
// the time that the edge may need.
func TestInconclusiveProbe(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = verifying(w, token)
		w.failAll("probe", fault{before: errors.New("no route to host")})
		token.Prober = inconclusiveProber{w}
		start := time.Now().Add(time.Hour)
		for w.record().Last == nil {
			if err, _ := w.advance(r, token); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took > 70*time.Second || w.record().Last.Unverified != "no route to host" || !slices.Equal(w.probed(), []event.ProbeResult{event.ProbeUnknown}) {
			t.Error(took, w.record().Last, w.probed())
		}
	})
}

// TestCrashWhileVerifying: the process dies before and after each probe and at the end.
func TestCrashWhileVerifying(t *testing.T) {
	for _, call := range []string{"save stored", "probe", "erase", "save "} {
		for _, f := range []fault{{before: errors.New("x"), crash: true}, {after: errors.New("x"), crash: true}} {
			inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
				token = verifying(w, token)
				w.failOnce(call, f)
				if _, died := w.advance(r, token); !died {
					t.Fatal("it did not die at", call)
				}
				r = w.start()
				if _, err := r.Enroll(w.t.Context(), token); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if w.record().Step != rotation.StepIdle {
						w.advance(r, token)
					}
				}
				if record := w.record(); record.Step != rotation.StepIdle || record.Last == nil || record.Last.Unverified != "" || w.rotates != 1 || len(w.pending) > 0 {
					t.Errorf("%s: %+v, %d rotates", call, record, w.rotates)
				}
			})
		}
	}
}

// TestReplacedTokenOutlivesRefusal: with strategy replace the old service token is not deleted while the new one is
// refused.
func TestReplacedTokenOutlivesRefusal(t *testing.T) {
	inFresh(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		first := w.created[0]
		token = verifying(w, token)
		w.fault = func(_ int, c string) fault {
			if c == "sink store" {
				w.created[1].current = "another"
			}
			return fault{}
		}
		w.advance(r, token)
		w.sink.ClientSecret = secret.New(first.current) // world.Delete checks this one
		for until := time.Now().Add(10 * time.Hour); time.Now().Before(until); {
			w.advance(r, token)
		}
		if w.gone[first.id] || w.creates != 2 || w.record().Step != rotation.StepStored {
			t.Errorf("gone %v, %d creates, %s", w.gone, w.creates, w.record().Step)
		}
	})
}

// inconclusiveProber is an application whose failures prove nothing.
type inconclusiveProber struct{ *world }

func (u inconclusiveProber) Probe(ctx context.Context, c rotation.Credential) (rotation.Probe, error) {
	probe, err := u.world.Probe(ctx, c)
	if probe != rotation.ProbeGood {
		probe = rotation.ProbeUnknown
	}
	return probe, err
}

// TestUnreadableWhileVerifying: every sink has the new secret, but the sealed answer cannot be decrypted any more. So
// the secret cannot be tried, and the rotation is completed without that, unless the secret was refused before.
func TestUnreadableWhileVerifying(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = verifying(w, token)
		w.failOnce("probe", fault{before: errors.New("401"), crash: true})
		w.advance(r, token)
		w.unreadable = true
		r = w.start()
		for range 5 {
			w.advance(r, token)
		}
		if record := w.record(); record.Last == nil || !strings.Contains(record.Last.Unverified, "opened") || w.rotates > 2 {
			t.Errorf("%s: %+v", record.LastError, record)
		}
	})
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // the secret was refused before
		token = verifying(w, token)
		old := w.current
		w.failAll("probe", fault{before: errors.New("401")})
		for end := time.Now().Add(time.Hour + 5*time.Minute); time.Now().Before(end); {
			w.advance(r, token)
		}
		w.unreadable = true
		w.runFor(r, token, 10*time.Hour)
		if record := w.record(); record.Step != rotation.StepStored || !w.accepted(old) {
			t.Errorf("the old secret is accepted: %t; %+v", w.accepted(old), record)
		}
	})
}

// TestClockSetBackWhileVerifying: the wall clock was ahead when the new secret was first refused.
func TestClockSetBackWhileVerifying(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = verifying(w, token)
		old := w.current
		w.failAll("probe", fault{before: errors.New("401")})
		time.Sleep(time.Hour)
		w.offset = 90 * time.Minute
		w.advance(r, token)
		w.offset = 0
		for range 480 {
			time.Sleep(10 * time.Second)
			_, _ = r.Advance(w.t.Context(), token)
		}
		if record := w.record(); !w.accepted(old) || record.Failures == 0 {
			t.Errorf("no failure is recorded, or the old secret died (accepted: %t): %+v", w.accepted(old), record.Work)
		}
	})
}

// TestRefusedReplacement: the 30 days limit the grace of a secret, but not the life of a replaced service token. So it
// is not deleted even if the new one is refused for a month.
func TestRefusedReplacement(t *testing.T) {
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		token = verifying(w, token)
		w.failAll("probe", fault{before: errors.New("401")})
		w.runFor(r, token, 65*time.Minute)
		time.Sleep(31 * 24 * time.Hour)
		w.runFor(r, token, time.Hour)
		if w.gone[w.created[0].id] || w.record().Step != rotation.StepStored {
			t.Errorf("the service token that works was deleted: %+v", w.record())
		}
	})
}
