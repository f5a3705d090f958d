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

	"pgregory.net/rapid"

	"rotatord/internal/event"
	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// outage is a time during which one part of the world does not work.
type outage struct {
	What     string // "sink", "cloudflare", "ledger", or "daemon": no process runs
	From     time.Duration
	Duration time.Duration
}

// setOutages makes each call fail that needs a part of the world which is away. The times of the outages
// count from now. The rotate requests whose numbers are in lose are carried out, but their answers are lost.
func (w *world) setOutages(all []outage, lose map[int]bool) {
	begin := time.Now()
	away := func(what string) bool {
		for _, o := range all {
			if since := time.Since(begin) - o.From; o.What == what && since >= 0 && since < o.Duration {
				return true
			}
		}
		return false
	}
	w.fault = func(_ int, call string) fault {
		switch call {
		case "sink preflight", "sink store":
			if away("sink") {
				return fault{before: errors.New("vault is sealed")}
			}
		case "rotate", "inspect", "extend", "ready":
			if away("cloudflare") {
				return fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: call}}
			}
			if call == "rotate" && lose[w.rotates] {
				return fault{after: &rotation.IssuerError{Class: rotation.Unknown, Operation: call}}
			}
		default:
			if away("ledger") && strings.HasPrefix(call, "save") {
				return fault{before: errors.New("no space left on device")}
			}
		}
		return fault{}
	}
}

// measureRefusal works on the token for the time d, as the engine does. It returns for how long in total
// consumers that use the sink's secret were refused.
func (w *world) measureRefusal(r *rotation.Rotator, token rotation.Token, d time.Duration, all []outage) (refused time.Duration) {
	begin := time.Now()
	sample := min(max(token.Grace/256, 250*time.Millisecond), 15*time.Second)
	var floor time.Time // the next try, if the record could not be written
	for now := begin; now.Sub(begin) < d; now = time.Now() {
		down := false
		for _, o := range all {
			if since := now.Sub(begin) - o.From; o.What == "daemon" && since >= 0 {
				if down = since < o.Duration; !down && since < o.Duration+sample {
					r = w.start()
					if _, err := r.Enroll(w.t.Context(), token); err != nil {
						w.t.Fatal(err)
					}
				}
			}
		}
		if due := r.Due(token, w.record()); !down && !due.Unscheduled && !due.At.After(now) && !now.Before(floor) {
			w.mayCutOff = true // this test does not check whether a rotation is too early
			if _, err := r.Advance(w.t.Context(), token); errors.Is(err, rotation.ErrLedger) {
				floor = now.Add(3 * time.Second)
			}
		}
		if !w.accepted(w.sink.ClientSecret.Reveal()) {
			refused += sample
		}
		time.Sleep(sample)
	}
	return refused
}

// daemonMostlyDown adds outages of the daemon: it is up for two minutes in each two fifths of a grace. This
// keeps tests of long times fast, since they take as long as the number of attempts in them.
func daemonMostlyDown(grace time.Duration, all ...outage) []outage {
	end := all[0].From + all[0].Duration - grace
	for from := all[0].From; from < end; from += grace * 2 / 5 {
		all = append(all, outage{"daemon", from, grace*2/5 - 2*time.Minute})
	}
	return all
}

// extensionsDone returns how often the grace of the old secret was extended.
func (w *world) extensionsDone() (n int) {
	for _, e := range w.events {
		if e, ok := e.Detail.(event.GraceExtension); ok && e.Err == nil {
			n++
		}
	}
	return n
}

// TestGraceIsExtendedAtTheFirstProof: the grace is extended as soon as Cloudflare shows that the lost request
// was carried out, and then each time a quarter of the grace is over.
func TestGraceIsExtendedAtTheFirstProof(t *testing.T) {
	for _, grace := range []time.Duration{8 * time.Second, 10 * time.Minute, 24 * time.Hour} {
		t.Run(grace.String(), func(t *testing.T) {
			inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
				w.loseFirstAnswer(true)
				w.advance(r, token)
				asked := time.Now()
				for w.extensionsDone() == 0 && time.Since(asked) < grace {
					w.advance(r, token)
				}
				if waited := time.Since(asked); waited > time.Second {
					t.Errorf("extended after %s", waited)
				}
				for time.Since(asked) < 2*grace {
					w.advance(r, token)
					if left := time.Until(w.record().Doubt.OldWorksUntil); left < grace*3/4-time.Second {
						t.Fatalf("only %s of %s are left", left, grace)
					}
				}
			})
		})
	}
}

// TestOldSecretEndsBeforeItsKnownEnd: the end that is known of an old secret is up to two seconds late, and the grace is
// as short as that. It is extended in time, and not more often than a try comes.
func TestOldSecretEndsBeforeItsKnownEnd(t *testing.T) {
	for _, test := range []struct {
		grace, late time.Duration
		lose        map[int]bool
	}{
		{2 * time.Second, 2 * time.Second, nil},
		{2 * time.Second, time.Second, nil},
		{2 * time.Second, 0, nil},
		{3 * time.Second, 2 * time.Second, nil},
		{8 * time.Second, 2 * time.Second, nil},
		{10 * time.Minute, 2 * time.Second, nil},
		{2 * time.Second, 2 * time.Second, map[int]bool{0: true}},
		{3 * time.Second, time.Second, map[int]bool{0: true}},
		{8 * time.Second, 2 * time.Second, map[int]bool{0: true}},
	} {
		t.Run(fmt.Sprintf("a grace of %s, %s late, lost %v", test.grace, test.late, test.lose[0]), func(t *testing.T) {
			inBubble(t, test.grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
				time.Sleep(time.Hour) // until the first slot
				away := 3*test.grace + 30*time.Second
				w.knownLate = test.late
				w.setOutages([]outage{{"sink", 0, away}}, test.lose)
				outages := w.fault
				w.fault = func(n int, call string) fault {
					if call == "sink preflight" && w.rotates == 0 {
						return fault{}
					}
					return outages(n, call)
				}
				if refused := w.measureRefusal(r, token, away+40*time.Second, nil); refused > 0 {
					t.Errorf("consumers were refused for %s", refused)
				}
				if n, most := w.extensionsDone(), int((away+40*time.Second)/(700*time.Millisecond)); n == 0 || n > most {
					t.Errorf("%d extensions", n)
				}
				if w.sink.ClientSecret.Reveal() != w.current {
					t.Error("the new secret was not delivered")
				}
			})
		})
	}
}

// TestOwedReissueKeepsTheOldSecretAlive: no operator resolves the doubt, and then the sink, Cloudflare or the
// disk is away when the reissue begins.
func TestOwedReissueKeepsTheOldSecretAlive(t *testing.T) {
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		grace   time.Duration
		outages []outage
	}{
		"three days, then an hour without a sink":      {day, []outage{{"sink", 3*day - 20*time.Minute, time.Hour}}},
		"a sink that is away for 25 days":              {day, daemonMostlyDown(day, outage{"sink", 3*day - 20*time.Minute, 25 * day})},
		"a sink that is away for a day, a short grace": {40 * time.Minute, daemonMostlyDown(40*time.Minute, outage{"sink", time.Minute, day})},
		"no daemon for half a grace":                   {day, []outage{{"daemon", 3*day - time.Hour, 12 * time.Hour}}},
		"Cloudflare is away for half a grace":          {day, []outage{{"cloudflare", 3*day - time.Hour, 12 * time.Hour}}},
		"no disk":                                      {day, []outage{{"ledger", 3*day - time.Hour, 2 * day}}},
		"no disk and no sink, seconds":                 {8 * time.Second, []outage{{"ledger", 22 * time.Second, time.Minute}, {"sink", 22 * time.Second, time.Minute}}},
		"one after the other": {day, []outage{
			{"cloudflare", 3 * time.Minute, 6 * time.Hour}, {"sink", 2 * day, 2 * day}, {"daemon", 3 * day, 6 * time.Hour}, {"cloudflare", 4*day - time.Hour, 8 * time.Hour},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if racedetector.On && len(test.outages) > 10 {
				t.Skip("it is long, in one goroutine: make test runs it without the race detector")
			}
			inBubble(t, test.grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
				time.Sleep(time.Hour) // until the first slot
				w.setOutages(test.outages, map[int]bool{0: true})
				end := time.Duration(0)
				for _, o := range test.outages {
					end = max(end, o.From+o.Duration)
				}
				end = max(end, 3*test.grace)
				if refused := w.measureRefusal(r, token, end+max(test.grace/2, 40*time.Second), test.outages); refused > 0 {
					t.Errorf("consumers were refused for %s", refused)
				}
				if w.rotates < 2 || w.sink.ClientSecret.Reveal() != w.current || w.record().Lost != nil {
					t.Errorf("the token did not recover: %d rotates, %+v", w.rotates, w.record())
				}
			})
		})
	}
}

// TestOldSecretIsExtendedForThirtyDaysAtMost: after 30 days the old secret is not extended any more, even if a
// reissue is still owed.
func TestOldSecretIsExtendedForThirtyDaysAtMost(t *testing.T) {
	if racedetector.On {
		t.Skip("it is a month in one goroutine: make test runs it without the race detector")
	}
	const grace = 24 * time.Hour
	inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		time.Sleep(time.Hour)
		old := w.current
		all := daemonMostlyDown(grace, outage{"sink", time.Hour, 29 * 24 * time.Hour})
		all[0].Duration = 40 * 24 * time.Hour
		w.setOutages(all, map[int]bool{0: true})
		begin := time.Now()
		w.measureRefusal(r, token, rotation.MaxGrace-10*time.Minute, all)
		if !w.accepted(old) {
			t.Errorf("the old secret died after %s", time.Since(begin))
		}
		w.measureRefusal(r, token, 12*time.Minute, nil)
		if w.accepted(old) {
			t.Error("the old secret works for longer than 30 days")
		}
	})
}

// TestCutOffConsumersAreServedWithinSeconds: consumers are cut off, and the sink was away for so long that the
// back-off has grown. When the sink is back, consumers get the secret within seconds.
func TestCutOffConsumersAreServedWithinSeconds(t *testing.T) {
	for name, lose := range map[string]map[int]bool{"delivery": nil, "reissue": {0: true}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
				time.Sleep(time.Hour)
				all := []outage{{"sink", 0, time.Hour}}
				w.setOutages(all, lose)
				away := w.fault
				w.fault = func(n int, call string) fault {
					if w.rotates == 0 {
						if call == "rotate" {
							return away(n, call)
						}
						return fault{}
					}
					return away(n, call)
				}
				if refused := w.measureRefusal(r, token, time.Hour+5*time.Second, all); refused < 59*time.Minute || w.sink.ClientSecret.Reveal() != w.current {
					t.Errorf("refused for %s, then %+v", refused, w.record())
				}
			})
		})
	}
}

// TestLateDeliveryExtendsTheGrace: consumers have nearly the whole promised grace to read a secret that was
// delivered late.
func TestLateDeliveryExtendsTheGrace(t *testing.T) {
	const grace = 24 * time.Hour
	inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		time.Sleep(time.Hour)
		old := w.current
		all := []outage{{"sink", time.Nanosecond, 15 * time.Hour}}
		w.failOnce("sink store", fault{before: errors.New("sealed")})
		w.advance(r, token)
		w.setOutages(all, nil)
		w.measureRefusal(r, token, 15*time.Hour+time.Minute, all)
		if w.record().Step != rotation.StepIdle || w.sink.ClientSecret.Reveal() != w.current {
			t.Fatalf("%+v", w.record())
		}
		if left := time.Until(w.previousUntil); w.previous != old || left < grace*3/4-time.Minute || w.record().Last.GraceEndsAt.Sub(w.previousUntil).Abs() > time.Second {
			t.Errorf("the old secret works for %s more, and the ledger says until %s", left, w.record().Last.GraceEndsAt)
		}
	})
}

// hangingSink is a sink that answers no Store before a time.
type hangingSink struct {
	memorySink
	until time.Time
}

func (s hangingSink) Store(ctx context.Context, d rotation.Delivery) (rotation.Stored, error) {
	if time.Now().Before(s.until) {
		<-ctx.Done()
		return rotation.Stored{}, ctx.Err()
	}
	return s.memorySink.Store(ctx, d)
}

// TestSlowSinkDoesNotUseUpTheGrace: with a short grace, a sink that does not answer is left in time to extend the old
// secret.
func TestSlowSinkDoesNotUseUpTheGrace(t *testing.T) {
	for sinks, grace := range map[int]time.Duration{1: 4 * time.Second, 2: 10 * time.Second, 4: 30 * time.Second, 3: time.Hour} {
		inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
			one := hangingSink{memorySink{w}, time.Now().Add(3*time.Hour + 2*time.Minute)}
			token.Sinks = slices.Repeat([]rotation.Sink{one}, sinks)
			for range 6 {
				w.advance(r, token)
				if !w.accepted(w.sink.ClientSecret.Reveal()) {
					t.Fatalf("grace %s: the old secret ended while the sink did not answer: %q", grace, w.calls)
				}
			}
			one.until = time.Time{}
			token.Sinks = []rotation.Sink{one}
			w.advance(r, token)
			if record := w.record(); record.Step != rotation.StepIdle || w.sink.ClientSecret.Reveal() != w.current {
				t.Errorf("grace %s: %+v", grace, record)
			}
		})
	}
}

// TestRevokeOrderStopsExtensions: after an operator has ordered to revoke the old secret, the daemon does not
// extend its grace.
func TestRevokeOrderStopsExtensions(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		time.Sleep(time.Hour)
		w.loseFirstAnswer(true)
		w.advance(r, token)
		w.advance(r, token)
		extended := w.extensionsDone()
		w.failAll("sink preflight", fault{before: errors.New("sealed")})
		if _, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{RevokeNow: true}, "ops"); err == nil || w.record().Order == nil {
			t.Fatalf("%v, %+v", err, w.record())
		}
		for begin := time.Now(); time.Since(begin) < time.Hour; {
			w.advance(r, token)
		}
		if w.extensionsDone() != extended {
			t.Errorf("the grace of a secret that is to be revoked was extended")
		}
	})
}

// TestUnprovenLossExtendsUnlessRevoked: nothing shows whether the lost request was carried out. The daemon
// extends the grace while the reissue cannot be stored, unless the previous secret was revoked: an extension
// could revive it.
func TestUnprovenLossExtendsUnlessRevoked(t *testing.T) {
	for _, revoked := range []bool{false, true} {
		t.Run(fmt.Sprint("revoked=", revoked), func(t *testing.T) {
			inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
				w.frozenUpdatedAt = true
				w.advance(r, token)
				if revoked {
					if _, err := r.RevokePrevious(w.t.Context(), token); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Until(rotation.NextDue(token, w.record(), rotation.Pause{}).At))
				before := w.extensionsDone()
				all := []outage{{"sink", time.Minute, 3 * time.Hour}}
				w.setOutages(all, map[int]bool{1: true})
				w.measureRefusal(r, token, 3*time.Hour, all)
				if extended := w.extensionsDone() > before; extended == revoked {
					t.Errorf("extended: %t", extended)
				}
			})
		})
	}
}

// TestNoConsumerIsStranded runs random outages, each shorter than half of the grace, with lost answers that
// never come two in a row. Consumers that use the sink's secret are never refused.
func TestNoConsumerIsStranded(t *testing.T) {
	scenarios(t, 100)
	rapid.Check(t, func(rt *rapid.T) {
		grace := rapid.SampledFrom([]time.Duration{8 * time.Second, time.Minute, 40 * time.Minute, 24 * time.Hour}).Draw(rt, "grace")
		var all []outage
		at := time.Duration(0)
		for range rapid.IntRange(0, 8).Draw(rt, "outages") {
			at += time.Duration(rapid.Int64Range(0, int64(grace)).Draw(rt, "gap"))
			o := outage{
				What: rapid.SampledFrom([]string{"sink", "cloudflare", "ledger", "daemon"}).Draw(rt, "what"), From: at,
				// At least half of a grace is always left, and the waits between tries take seconds.
				Duration: time.Duration(rapid.Int64Range(0, int64(grace/2-grace/16-time.Second)).Draw(rt, "duration")),
			}
			at += o.Duration + max(grace/16, 3*time.Second) // leaves the daemon time for an attempt
			all = append(all, o)
		}
		lose := map[int]bool{}
		for i := range 6 {
			lose[i] = !lose[i-1] && rapid.Bool().Draw(rt, "lose")
		}
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			token := w.token(grace)
			schedule, err := scheduler.Parse("@every "+(grace+grace/4).String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			token.Timetable.Schedule = schedule
			r := w.start()
			if _, err := r.Enroll(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			w.setOutages(all, lose)
			if refused := w.measureRefusal(r, token, at+8*grace, all); refused > 0 {
				rt.Errorf("consumers were refused for %s\ncalls: %q", refused, w.calls)
			}
		})
	})
}

// TestSecondLostAnswerIgnoresTheBackOff: the preflight of a reissue fails many times. Then the reissue is
// carried out, and its answer is lost too. The next reissue does not wait for the long back-off.
func TestSecondLostAnswerIgnoresTheBackOff(t *testing.T) {
	const grace = 10 * time.Minute
	inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		time.Sleep(time.Hour) // until the first slot
		all := []outage{{"sink", 3*grace - time.Minute, 20 * time.Minute}}
		w.setOutages(all, map[int]bool{0: true, 1: true})
		refused := w.measureRefusal(r, token, 7*grace, all)
		if w.rotates < 3 {
			t.Fatalf("%d requests were sent: this proves nothing", w.rotates)
		}
		if refused == 0 || refused > 10*time.Second {
			t.Errorf("consumers were refused for %s", refused)
		}
	})
}

// TestAutomaticExtensionIsNotShorter: what an operator asked for is never shortened by an extension of the daemon,
// also if the ledger could not note it or the answer of Cloudflare was lost. The daemon extends by the token's grace,
// which may be much less.
func TestAutomaticExtensionIsNotShorter(t *testing.T) {
	const grace, asked = 40 * time.Minute, 24 * time.Hour
	for name, test := range map[string]struct {
		call  string
		fault fault
	}{
		"all is well":             {},
		"the answer is lost":      {"extend", fault{after: errors.New("lost")}},
		"the ledger says nothing": {"save sealed", fault{before: errors.New("disk full")}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
				time.Sleep(time.Hour)
				w.failAll("sink store", fault{before: errors.New("sealed")})
				w.advance(r, token)
				time.Sleep(grace / 2)
				if w.record().Step != rotation.StepSealed || w.extensionsDone() != 0 {
					t.Fatalf("%+v", w.record())
				}
				failed := false
				w.fault = func(_ int, call string) fault {
					switch {
					case call == "sink store":
						return fault{before: errors.New("sealed")}
					case call == test.call && !failed:
						failed = true
						return test.fault
					}
					return fault{}
				}
				_, err := r.ExtendGrace(w.t.Context(), token, asked)
				if (err != nil) != (test.call != "") {
					t.Fatal(err)
				}
				end := w.previousUntil
				if time.Until(end) != asked {
					t.Fatalf("the old secret works for %s", time.Until(end))
				}
				for time.Until(end) > 0 {
					time.Sleep(10 * time.Minute)
					w.advance(r, token)
					if w.previousUntil.Before(end) {
						t.Fatalf("after %s the daemon has moved the end from %s to %s", asked-time.Until(end), end, w.previousUntil)
					}
				}
				if !w.previousUntil.After(end) {
					t.Error("it was not extended any more")
				}
				for _, e := range w.events {
					if _, ok := e.Detail.(event.Healed); ok {
						t.Errorf("what the operator asked for is taken for a wrong clock: %+v", e.Detail)
						break
					}
				}
			})
		})
	}
}

// TestRevokedInUseIsNotExtended: an operator revokes the old secret while the new one waits for its sink. The daemon
// has extended it before, and does not do it again, also if the ledger could not note the revocation.
func TestRevokedInUseIsNotExtended(t *testing.T) {
	for _, unsaved := range []bool{false, true} {
		t.Run(fmt.Sprint("unsaved=", unsaved), func(t *testing.T) {
			inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
				time.Sleep(time.Hour)
				w.failAll("sink store", fault{before: errors.New("sealed")})
				for begin := time.Now(); time.Since(begin) < time.Hour; {
					w.advance(r, token)
				}
				if w.extensionsDone() == 0 {
					t.Fatal("it was not extended before")
				}
				if unsaved {
					w.failAll("save sealed", fault{before: errors.New("disk full")})
				}
				if _, err := r.RevokeInUse(w.t.Context(), token); (err != nil) != unsaved || w.previousUntil.After(time.Now()) {
					t.Fatal(err, w.previousUntil)
				}
				w.failAll("sink store", fault{before: errors.New("sealed")})
				extended := w.extensionsDone()
				for begin := time.Now(); time.Since(begin) < time.Hour; {
					w.advance(r, token)
				}
				if more := w.extensionsDone() - extended; more != 0 {
					t.Errorf("the revoked secret was extended %d times", more)
				}
				if end := w.record().Work.GraceEndsAt; end.After(time.Now().Add(-time.Hour)) {
					t.Errorf("the ledger says that the revoked secret works until %s", end)
				}
			})
		})
	}
}

// TestEndMovedInADoubtStays: an operator extends the old secret of a token in doubt, and then has the odd answer
// delivered. The end that was moved is that of the rotation.
func TestEndMovedInADoubtStays(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		time.Sleep(time.Hour)
		w.secretOf = func(n int) string { return fmt.Sprintf("unfamiliar_%020d", n) }
		w.advance(r, token)
		if w.record().Step != rotation.StepInDoubt {
			t.Fatalf("%+v", w.record())
		}
		if _, err := r.ExtendGrace(w.t.Context(), token, 24*time.Hour); err != nil {
			t.Fatal(err)
		}
		end := w.previousUntil
		r = w.start() // only the ledger knows
		w.failAll("sink store", fault{before: errors.New("sealed")})
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveDeliver); err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); time.Since(begin) < 3*time.Hour; {
			w.advance(r, token)
			if w.previousUntil.Before(end) || !w.record().Work.GraceEndsAt.Equal(end) {
				t.Fatalf("the end was moved from %s to %s, and the ledger says %s", end, w.previousUntil, w.record().Work.GraceEndsAt)
			}
		}
	})
}
