package rotation_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// outage is a time in which one part of the world does not answer.
type outage struct {
	What     string // "sink", "cloudflare", "ledger", or "daemon": nobody runs
	From     time.Duration
	Duration time.Duration
}

// outages has each call fail that belongs to what is away. The times count from now on. Calls of
// rotate whose number is in lose are carried out, and their answers are lost.
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

// endure works on the token for that long, as an engine does, and returns for how long in total
// consumers who read the sink were refused.
func (w *world) measureRefusal(r *rotation.Rotator, token rotation.Token, d time.Duration, all []outage) (refused time.Duration) {
	begin := time.Now()
	sample := min(max(token.Grace/256, 250*time.Millisecond), 15*time.Second)
	var floor time.Time // a token whose record cannot be written is not tried without a pause
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
			w.mayCutOff = true // whether it rotates too early is not the question here
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

// daemonMostlyDown adds a daemon that is up for two minutes out of each two fifths of a grace: a fake clock makes
// long times cheap only where little is tried in them.
func daemonMostlyDown(grace time.Duration, all ...outage) []outage {
	end := all[0].From + all[0].Duration - grace
	for from := all[0].From; from < end; from += grace * 2 / 5 {
		all = append(all, outage{"daemon", from, grace*2/5 - 2*time.Minute})
	}
	return all
}

// extensions is how often the old secret was extended.
func (w *world) extensionsDone() (n int) {
	for _, e := range w.events {
		if e, ok := e.(rotation.GraceExtended); ok && e.Err == nil {
			n++
		}
	}
	return n
}

// TestGraceIsExtendedAtTheFirstProof: the old secret is extended at the first look that shows that the lost
// request was carried out, and then whenever a quarter of the grace is over.
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

// TestOwedReissueKeepsTheOldSecretAlive: a doubt that nobody handles, and then a sink, Cloudflare or a
// disk that is away when the reissue begins.
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
					t.Errorf("it did not recover: %d rotates, %+v", w.rotates, w.record())
				}
			})
		})
	}
}

// TestOldSecretIsExtendedForThirtyDaysAtMost: then even a secret that is owed is no reason to let the old one live.
func TestOldSecretIsExtendedForThirtyDaysAtMost(t *testing.T) {
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
			t.Error("the old secret lives for longer than 30 days")
		}
	})
}

// TestCutOffConsumersAreServedWithinSeconds: consumers are cut off, the sink was away for so long that every
// back-off has grown, and when it is back they are served within seconds.
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

// TestLateDeliveryExtendsTheGrace: consumers have the promised grace to read what was delivered late.
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

// TestRevokeOrderStopsExtensions: an operator has ordered the old secret to be revoked.
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
			t.Errorf("a secret that is to be revoked was extended")
		}
	})
}

// TestUnprovenLossExtendsUnlessRevoked: nobody knows whether the lost request was carried out. The
// old secret is extended while the reissue cannot be stored, unless that could revive one that was
// revoked.
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

// TestNoConsumerIsStranded lives through random outages, each shorter than half of the grace, with lost
// answers that do not come two in a row. Consumers who read the sink are never refused.
func TestNoConsumerIsStranded(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		grace := rapid.SampledFrom([]time.Duration{8 * time.Second, time.Minute, 40 * time.Minute, 24 * time.Hour}).Draw(rt, "grace")
		var all []outage
		at := time.Duration(0)
		for range rapid.IntRange(0, 8).Draw(rt, "outages") {
			at += time.Duration(rapid.Int64Range(0, int64(grace)).Draw(rt, "gap"))
			o := outage{
				What: rapid.SampledFrom([]string{"sink", "cloudflare", "ledger", "daemon"}).Draw(rt, "what"), From: at,
				// Half of a grace is what is always left, and seconds are lost to the waits between tries.
				Duration: time.Duration(rapid.Int64Range(0, int64(grace/2-grace/16-time.Second)).Draw(rt, "duration")),
			}
			at += o.Duration + max(grace/16, 3*time.Second) // so that there is time to do something
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

// TestSecondLostAnswerIgnoresTheBackOff: preflights have failed many times when the reissue is carried out at last,
// and its answer is lost too. The wait that has grown does not hold up the one that consumers need now.
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
