package cloudflare_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
)

// dated is a Cloudflare whose answers have given dates.
type dated struct {
	mu   sync.Mutex
	n    int
	date func(n int, h http.Header)
	told []time.Time // the ends of graces
}

func (d *dated) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	var body struct {
		At time.Time `json:"previous_client_secret_expires_at"`
	}
	d.mu.Lock()
	if json.Unmarshal(b, &body) == nil && !body.At.IsZero() {
		d.told = append(d.told, body.At)
	}
	w.Header()["Date"] = nil // the server's own date
	d.date(d.n, w.Header())
	d.n++
	d.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "/service_tokens") {
		answer(200, "application/json", `{"success":true,"errors":[],"messages":[],"result":[],"result_info":{"total_count":0}}`)(w, r)
		return
	}
	answer(200, "application/json", goodBody)(w, r)
}

func ahead(d time.Duration) func(h http.Header) {
	return func(h http.Header) { h.Set("Date", time.Now().Add(d).UTC().Format(http.TimeFormat)) }
}

func always(f func(h http.Header)) func(int, http.Header) {
	return func(_ int, h http.Header) { f(h) }
}

// TestPromisedGraceHolds: whatever dates the answers have, every request that sets the end of a grace sends
// one that is not before the local time plus the grace, nor far behind the clock that is believed. What is
// reported is what was sent.
func TestPromisedGraceHolds(t *testing.T) {
	const grace, blur = 24 * time.Hour, 5 * time.Second
	written := func(date string) func(http.Header) { return func(h http.Header) { h.Set("Date", date) } }
	for name, test := range map[string]struct {
		date   func(n int, h http.Header)
		longer time.Duration // than on the local clock
		apart  bool          // and no scheduled rotation begins
	}{
		"right":                    {always(ahead(0)), 0, false},
		"ten minutes ahead":        {always(ahead(10 * time.Minute)), 10 * time.Minute, false},
		"ten minutes behind":       {always(ahead(-10 * time.Minute)), 0, false},
		"two days ahead":           {always(ahead(48 * time.Hour)), 48 * time.Hour, true},
		"two days behind":          {always(ahead(-48 * time.Hour)), 0, true},
		"ten years ahead":          {always(ahead(87600 * time.Hour)), 0, true},
		"the year 9999":            {always(written("Fri, 31 Dec 9999 23:59:59 GMT")), 0, false},
		"the year 1":               {always(written("Mon, 01 Jan 0001 00:00:00 GMT")), 0, false},
		"none":                     {always(func(http.Header) {}), 0, false},
		"malformed":                {always(written("yesterday")), 0, false},
		"from a cache":             {always(func(h http.Header) { ahead(-48 * time.Hour)(h); h.Set("Age", "172800") }), 0, false},
		"a cache's, without age":   {always(func(h http.Header) { ahead(48 * time.Hour)(h); h.Set("CF-Cache-Status", "HIT") }), 0, false},
		"the first two days ahead": {func(n int, h http.Header) { ahead(map[bool]time.Duration{true: 48 * time.Hour}[n == 0])(h) }, 0, false},
		"the first days behind":    {func(n int, h http.Header) { ahead(map[bool]time.Duration{true: -48 * time.Hour}[n == 0])(h) }, 0, false},
		"taking turns":             {func(n int, h http.Header) { ahead(map[bool]time.Duration{true: 48 * time.Hour}[n%2 == 1])(h) }, 0, false},
		"each a day earlier":       {func(n int, h http.Header) { ahead(-time.Duration(n) * 24 * time.Hour)(h) }, 0, false},
		"each a minute earlier":    {func(n int, h http.Header) { ahead(-time.Duration(n) * time.Minute)(h) }, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := &dated{date: test.date}
			url, _ := serve(t, d.ServeHTTP)
			var o told
			c := client(t, url, cloudflare.Options{Observer: &o})
			if _, err := c.List(t.Context()); err != nil { // as at the start of the daemon
				t.Fatal(err)
			}
			if err := c.Ready(t.Context()); (err != nil) != test.apart {
				t.Errorf("ready: %v", err)
			}
			if skewed := o.skew.Abs() > 30*time.Second; skewed != (test.longer != 0 || test.apart || name == "ten minutes behind") {
				t.Errorf("the metric shows a skew of %s", o.skew)
			}
			for what, tell := range map[string]func(ctx context.Context) (time.Time, error){
				"rotate": func(ctx context.Context) (time.Time, error) {
					issued, err := c.Rotate(ctx, rotation.RotateRequest{TokenID: tokenID, Grace: grace})
					return issued.GraceEndsAt, err
				},
				"extend": func(ctx context.Context) (time.Time, error) {
					_, until, err := c.SetGrace(ctx, tokenID, grace)
					return until, err
				},
			} {
				before := time.Now()
				reported, err := tell(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				sent := d.told[len(d.told)-1]
				if early := before.Add(grace).Sub(sent); early > 0 {
					t.Errorf("%s: the end that was sent is %s too early", what, early)
				}
				if longer := sent.Sub(before.Add(grace)); longer > test.longer+blur || longer < test.longer-blur {
					t.Errorf("%s: the end that was sent is %s later than on the local clock, want %s", what, longer, test.longer)
				}
				if reported.Before(before.Add(grace)) || reported.After(before.Add(grace+cloudflare.MaxApart+blur)) {
					t.Errorf("%s: it is reported to end in %s", what, reported.Sub(before))
				}
			}
		})
	}
}

// TestManualRotationOnAWrongClock: an operator rotates while one of the clocks is far off. The previous
// secret works for the whole grace, and at least that is reported.
func TestManualRotationOnAWrongClock(t *testing.T) {
	for _, skew := range []time.Duration{0, -10 * time.Minute, 10 * time.Minute, -48 * time.Hour, 48 * time.Hour} {
		w := newShapedWorld(t, cfsim.OpRotate, "", 24*time.Hour, inMemory())
		w.passed = 0
		w.simulator.SetBehaviour(cfsim.Behaviour{ClockSkew: cfsim.Duration(skew)})
		before := time.Now()
		record, err := w.rotator.RotateNow(t.Context(), w.token, rotation.Overrides{}, "ops")
		if err != nil || record.Last == nil {
			t.Fatalf("skew %s: %v", skew, err)
		}
		truth, _ := w.truth()
		if kept := truth.PreviousExpiresAt.Sub(truth.UpdatedAt); kept < 24*time.Hour {
			t.Errorf("skew %s: the previous secret is kept for %s", skew, kept)
		}
		if reported := record.Last.GraceEndsAt.Sub(before); reported < 24*time.Hour || reported > 24*time.Hour+20*time.Minute {
			t.Errorf("skew %s: it is reported to work for %s", skew, reported)
		}
		if old := w.simulator.Secrets(w.token.ID)[0]; old.Status == cfsim.StatusDead {
			t.Errorf("skew %s: it is dead", skew)
		}
		if record, err = w.rotator.ExtendGrace(t.Context(), w.token, 48*time.Hour); err != nil {
			t.Fatalf("skew %s: %v", skew, err)
		}
		truth, _ = w.truth()
		if kept := truth.PreviousExpiresAt.Sub(truth.UpdatedAt); kept < 48*time.Hour {
			t.Errorf("skew %s: extended, the previous secret is kept for %s", skew, kept)
		}
		if _, err := w.rotator.RevokePrevious(t.Context(), w.token); err != nil {
			t.Fatalf("skew %s: %v", skew, err)
		}
		if old := w.simulator.Secrets(w.token.ID)[0]; old.Status != cfsim.StatusDead {
			t.Errorf("skew %s: revoked, it is %s", skew, old.Status)
		}
	}
}
