package app

import (
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/rotation"
)

// TestOutageThatEndsIsNoticedOnce: and not more often than every few seconds.
func TestOutageThatEndsIsNoticedOnce(t *testing.T) {
	ledgerFails := event.New(time.Now(), "ci", event.Daemon, event.RotationStuck{Err: rotation.ErrLedger})
	for name, test := range map[string]struct{ away, back func(*outages) }{
		"Vault is sealed": {
			func(o *outages) {
				vaultObserver{httpapi.NewMetrics(httpapi.Build{}), o}.VaultRequest("write", "503", 0)
			},
			func(o *outages) { vaultObserver{httpapi.NewMetrics(httpapi.Build{}), o}.VaultRequest("read", "404", 0) },
		},
		"no session": {
			func(o *outages) {
				vaultObserver{httpapi.NewMetrics(httpapi.Build{}), o}.VaultRequest("login", "400", 0)
			},
			func(o *outages) {
				vaultObserver{httpapi.NewMetrics(httpapi.Build{}), o}.VaultRequest("login", "200", 0)
			},
		},
		"Cloudflare": {
			func(o *outages) {
				cloudflareObserver{httpapi.NewMetrics(httpapi.Build{}), o, nil}.CloudflareRequest("list", "error", 0)
			},
			func(o *outages) {
				cloudflareObserver{httpapi.NewMetrics(httpapi.Build{}), o, nil}.CloudflareRequest("rotate", "403", 0)
			},
		},
		"the disk": {func(o *outages) { o.Subscriber().Handle(ledgerFails) }, func(o *outages) { o.ledgerWritten(rotation.Record{}) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				retries := 0
				o := newOutages(time.Now, func() { retries++ })
				expect := func(what string, want int) {
					t.Helper()
					time.Sleep(retryDelay)
					synctest.Wait()
					if retries != want {
						t.Errorf("%s: %d retries, want %d", what, retries, want)
					}
				}
				test.back(o)
				expect("it was never away", 0)
				test.away(o)
				test.away(o)
				expect("it is away", 0)
				test.back(o)
				test.back(o)
				expect("it is back", 1)
				test.away(o)
				test.back(o)
				expect("a moment later", 1)
				time.Sleep(retryEvery)
				test.back(o)
				expect("and it stayed", 2)
			})
		})
	}
}

// TestRetryPending: tokens with a pending secret are due now, and no others.
func TestRetryPending(t *testing.T) {
	later := time.Now().Add(time.Hour)
	e := newEngine(time.Now, nil, nil)
	for name, s := range map[string]scheduled{
		"sealed":  {record: rotation.Record{Step: rotation.StepSealed}, due: rotation.Due{At: later}},
		"owed":    {record: rotation.Record{Lost: &rotation.Lost{}}, due: rotation.Due{At: later}},
		"idle":    {due: rotation.Due{At: later}},
		"working": {record: rotation.Record{Step: rotation.StepSealed}, due: rotation.Due{At: later}, condition: condition{active: 1}},
		"waiting": {record: rotation.Record{Step: rotation.StepSealed}, due: rotation.Due{At: later}, condition: condition{waiting: true}},
	} {
		e.tokens[name] = keep(s)
	}
	e.retryPending()
	for name := range e.tokens {
		s, _ := e.view(name)
		if want := name == "sealed" || name == "owed"; s.skipBackOff != want || s.due.At.Equal(later) == want {
			t.Errorf("%s: skipBackOff=%t, due in %s", name, s.skipBackOff, time.Until(s.due.At))
		}
	}
}

// TestEmergencyGoesFirst: a token whose consumers are cut off, or will be soon, asks for a turn before all
// others, even if that happens while it waits.
func TestEmergencyGoesFirst(t *testing.T) {
	now := time.Now()
	lost := func(until time.Time) rotation.Record {
		return rotation.Record{Lost: &rotation.Lost{At: now, Until: until}}
	}
	for name, test := range map[string]struct {
		s       scheduled
		urgency rotation.Urgency
		then    rotation.Urgency
	}{
		"cut off":      {scheduled{record: lost(now.Add(-time.Hour)), due: rotation.Due{Reason: rotation.DueReissue}}, rotation.UrgencyEmergency, 0},
		"soon":         {scheduled{record: lost(now.Add(time.Minute)), due: rotation.Due{Reason: rotation.DueReissue}}, rotation.UrgencyEmergency, 0},
		"later":        {scheduled{record: lost(now.Add(time.Hour)), due: rotation.Due{Reason: rotation.DueReissue}}, rotation.UrgencyDoubt, rotation.UrgencyEmergency},
		"about to end": {scheduled{record: rotation.Record{Facts: rotation.TokenFacts{ExpiresAt: now.Add(time.Minute)}}, condition: condition{chore: now}}, rotation.UrgencyEmergency, 0},
	} {
		one := test.s.turn(now)
		if one.Urgency != test.urgency || one.RisesTo != test.then || one.RisesTo != 0 && !one.RisesAt.Equal(now.Add(58*time.Minute)) {
			t.Errorf("%s: %+v", name, one)
		}
	}
}
