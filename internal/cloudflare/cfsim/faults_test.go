package cfsim_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
)

// Checks of what the client saw of a rotate that a fault struck.
func isFailure(status int, header ...string) func(*testing.T, answer) {
	return func(t *testing.T, a answer) {
		t.Helper()
		if a.err != nil || a.status != status || len(header) > 0 && a.header.Get(header[0]) != header[1] {
			t.Errorf("status %d, %v, %v", a.status, a.err, a.header)
		}
		var e struct {
			Success *bool
			Errors  []struct{ Code int }
		}
		err := json.Unmarshal([]byte(a.raw), &e)
		if err != nil || e.Success == nil || *e.Success || len(e.Errors) != 1 || e.Errors[0].Code < 1000 {
			t.Errorf("not the envelope of a failure: %v", err)
		}
	}
}

func isDropped(t *testing.T, a answer) {
	t.Helper()
	if !errors.Is(a.err, io.EOF) || a.status != 0 {
		t.Errorf("status %d, %v", a.status, a.err)
	}
}

func isCut(t *testing.T, a answer) {
	t.Helper()
	if a.status != 200 || !errors.Is(a.err, io.ErrUnexpectedEOF) || !strings.HasPrefix(a.raw, `{"success":true`) ||
		json.Valid([]byte(a.raw)) {
		t.Errorf("status %d, %v, %d bytes", a.status, a.err, len(a.raw))
	}
}

// isCutInSecret: a part of the secret arrives, which is the worst place.
func isCutInSecret(t *testing.T, a answer) {
	t.Helper()
	isCut(t, a)
	if _, part, ok := strings.Cut(a.raw, `"client_secret":"`); !ok || len(part) != 20 {
		t.Errorf("%d bytes of the secret arrived", len(part))
	}
}

func isGarbage(status int) func(*testing.T, answer) {
	return func(t *testing.T, a answer) {
		t.Helper()
		if a.status != status || a.err != nil || json.Valid([]byte(a.raw)) || a.raw == "" {
			t.Errorf("status %d, %v", a.status, a.err)
		}
	}
}

// isChanged checks the token in a complete answer.
func isChanged(check func(result) bool) func(*testing.T, answer) {
	return func(t *testing.T, a answer) {
		t.Helper()
		var e struct {
			Success bool
			Result  result
		}
		if err := json.Unmarshal([]byte(a.raw), &e); err != nil || a.status != 200 || !e.Success || !check(e.Result) {
			t.Errorf("status %d, %v, %s", a.status, err, secret.Scrub(a.raw))
		}
	}
}

// faultCase is a fault, whether the rotate that it struck was carried out, and what the client saw.
type faultCase struct {
	fault      cfsim.Fault
	carriedOut bool
	check      func(*testing.T, answer)
}

func faultCases() map[string]faultCase {
	const before, after = cfsim.Before, cfsim.After
	clientID := cfsim.New(cfsim.Options{SeedTokens: 1}).Tokens()[0].ClientID
	intact := func(r result) bool {
		return r.ID == cfsim.SeedTokenID(1) && r.ClientID == clientID && secretShape.MatchString(r.ClientSecret)
	}
	return map[string]faultCase{
		"429":            {cfsim.Fault{Status: 429, RetryAfter: 5}, false, isFailure(429, "Retry-After", "5")},
		"503 before":     {cfsim.Fault{Status: 503, When: before}, false, isFailure(503, "Retry-After", "")},
		"503 after":      {cfsim.Fault{Status: 503, When: after}, true, isFailure(503)},
		"403 before":     {cfsim.Fault{Status: 403, Code: 1234, Message: "why"}, false, isFailure(403)},
		"refused before": {cfsim.Fault{Kind: cfsim.KindRefuse}, false, isFailure(200)},
		"refused after":  {cfsim.Fault{Kind: cfsim.KindRefuse, When: after}, true, isFailure(200)},
		"drop before":    {cfsim.Fault{Kind: cfsim.KindDrop}, false, isDropped},
		"drop after":     {cfsim.Fault{Kind: cfsim.KindDrop, When: after}, true, isDropped},
		"cut before":     {cfsim.Fault{Kind: cfsim.KindCut}, false, isCut},
		"cut after":      {cfsim.Fault{Kind: cfsim.KindCut, When: after}, true, isCutInSecret},
		"garbage before": {cfsim.Fault{Kind: cfsim.KindGarbage}, false, isGarbage(200)},
		"garbage after":  {cfsim.Fault{Kind: cfsim.KindGarbage, When: after, Status: 502}, true, isGarbage(502)},
		"delay":          {cfsim.Fault{Kind: cfsim.KindDelay, Delay: cfsim.Duration(time.Millisecond)}, true, isChanged(intact)},
		"wrong client ID": {cfsim.Fault{Kind: cfsim.KindWrongClientID}, true, isChanged(func(r result) bool {
			wrong := r.ClientID
			r.ClientID = clientID
			return wrong != clientID && strings.HasSuffix(wrong, ".access") && intact(r)
		})},
		"wrong token ID": {cfsim.Fault{Kind: cfsim.KindWrongTokenID}, true, isChanged(func(r result) bool {
			wrong := r.ID
			r.ID = cfsim.SeedTokenID(1)
			return wrong != r.ID && intact(r)
		})},
		"missing secret": {cfsim.Fault{Kind: cfsim.KindMissingSecret}, true, isChanged(func(r result) bool {
			return r.ClientSecret == "" && r.ClientID == clientID
		})},
		"malformed secret": {cfsim.Fault{Kind: cfsim.KindMalformedSecret}, true, isChanged(func(r result) bool {
			return len(r.ClientSecret) == 27 && r.ClientID == clientID
		})},
	}
}

// TestFaults strikes one rotate with each fault, over a real connection, and then asks whether it was carried
// out.
func TestFaults(t *testing.T) {
	for name, x := range faultCases() {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, cfsim.Options{SeedTokens: 1})
			id := cfsim.SeedTokenID(1)
			x.fault.Operation = cfsim.OpRotate
			if err := r.sim.Inject(x.fault); err != nil {
				t.Fatal(err)
			}
			old := r.first(id)
			rotate := func() answer {
				return r.send("POST", "/client/v4"+tokensPath+"/"+id+"/rotate", "{}", "Authorization", "Bearer t")
			}
			a := rotate()
			x.check(t, a)
			if x.carriedOut {
				r.wantUse(id, old, 401, "")
				all := r.sim.Secrets(id)
				r.wantUse(id, all[len(all)-1].Value, 200, "current")
			} else {
				r.wantUse(id, old, 200, "current")
			}
			stats := r.sim.Stats()
			if got := stats.Rotations[id] == 1; got != x.carriedOut {
				t.Errorf("%d rotations", stats.Rotations[id])
			}
			if stats.Count(cfsim.OpRotate) != 1 || stats.Requests[cfsim.OpRotate][a.status] != 1 {
				t.Errorf("counted %v", stats.Requests)
			}
			if again := rotate(); again.status != 200 || !strings.Contains(again.raw, "cfast_") {
				t.Errorf("the next rotate was struck as well: %d, %v", again.status, again.err)
			}
			struck := 0
			for _, count := range r.sim.Stats().Faults {
				struck += count
			}
			if struck != 1 || len(r.sim.Faults()) != 0 {
				t.Errorf("%d requests were struck, %d faults are left", struck, len(r.sim.Faults()))
			}
		})
	}
}

// TestFaultsStrikeExactly: among many concurrent requests, exactly as many are struck as were asked for, and
// the numbers add up.
func TestFaultsStrikeExactly(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 4, RateLimit: -1})
	const workers, each = 8, 25
	for _, f := range []cfsim.Fault{
		// First, or the other requests might use up all faults for that token.
		{Operation: cfsim.OpRotate, Count: 10, Kind: cfsim.KindDrop, When: cfsim.After, TokenID: cfsim.SeedTokenID(2)},
		{Operation: cfsim.OpRotate, Count: 30, Status: 503},
		{Operation: cfsim.OpRotate, Count: 20, Status: 500, When: cfsim.After},
	} {
		if err := r.sim.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	transport := r.sim.RoundTripper()
	var ok, unavailable, internal, broken atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range each {
				url := "http://sim/client/v4" + tokensPath + "/" + cfsim.SeedTokenID(w%4+1) + "/rotate"
				req, _ := http.NewRequestWithContext(t.Context(), "POST", url, nil)
				req.Header.Set("Authorization", "Bearer t")
				resp, err := transport.RoundTrip(req)
				switch {
				case err != nil:
					broken.Add(1)
				case resp.StatusCode == 200:
					ok.Add(1)
				case resp.StatusCode == 503:
					unavailable.Add(1)
				case resp.StatusCode == 500:
					internal.Add(1)
				}
				r.sim.Stats()
				r.sim.Tokens()
			}
		})
	}
	wg.Wait()
	if ok.Load() != workers*each-60 || unavailable.Load() != 30 || internal.Load() != 20 || broken.Load() != 10 {
		t.Errorf("ok %d, 503 %d, 500 %d, broken %d", ok.Load(), unavailable.Load(), internal.Load(), broken.Load())
	}
	carriedOut := 0
	for i := range 4 {
		n := r.sim.Stats().Rotations[cfsim.SeedTokenID(i+1)]
		carriedOut += n
		if token, _ := r.sim.Token(cfsim.SeedTokenID(i + 1)); token.Rotations != n || len(r.sim.Secrets(token.ID)) != n+1 {
			t.Errorf("token %d: %d rotations, %d counted", i+1, token.Rotations, n)
		}
	}
	if carriedOut != workers*each-30 {
		t.Errorf("%d were carried out, want %d", carriedOut, workers*each-30)
	}
}

func TestFaultsFitOnlyWhatTheyName(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 2})
	one, two := cfsim.SeedTokenID(1), cfsim.SeedTokenID(2)
	inject := func(f cfsim.Fault) {
		t.Helper()
		if err := r.sim.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	inject(cfsim.Fault{Operation: cfsim.OpGet, TokenID: strings.ToUpper(two), Status: 500})
	if a := r.api("GET", tokensPath+"/"+one, ""); a.status != 200 {
		t.Errorf("another token was struck: %d", a.status)
	}
	if a := r.rotate(two, ""); a.status != 200 {
		t.Errorf("another operation was struck: %d", a.status)
	}
	if a := r.send("GET", "/client/v4"+tokensPath+"/"+two, ""); a.status != 401 {
		t.Errorf("a request without a credential was struck: %d", a.status)
	}
	if a := r.api("GET", tokensPath+"/"+two, ""); a.status != 500 {
		t.Errorf("not struck: %d", a.status)
	}

	inject(cfsim.Fault{Operation: "*", Count: -1, Status: 502})
	for range 3 {
		if a := r.api("GET", tokensPath, ""); a.status != 502 {
			t.Errorf("status %d", a.status)
		}
	}
	r.wantUse(one, r.first(one), 200, "current") // the application must be named
	r.sim.ClearFaults()
	if a := r.api("GET", tokensPath, ""); a.status != 200 {
		t.Errorf("struck after the faults were cleared: %d", a.status)
	}

	inject(cfsim.Fault{Operation: cfsim.OpApp, TokenID: one, Status: 502})
	inject(cfsim.Fault{Operation: cfsim.OpApp, Kind: cfsim.KindDrop, When: cfsim.After})
	first, _ := r.sim.Token(one)
	if status, _ := r.use("/app/", first.ClientID, r.first(one)); status != 502 {
		t.Errorf("status %d", status)
	}
	if a := r.send("POST", "/app/", ""); a.err == nil { // Go's client repeats a GET by itself
		t.Errorf("status %d, want a broken connection", a.status)
	}
	r.wantUse(one, r.first(one), 200, "current")
}

func TestInjectRefusesNonsense(t *testing.T) {
	sim := cfsim.New(cfsim.Options{})
	for name, f := range map[string]cfsim.Fault{
		"nothing to do":        {},
		"operation":            {Operation: "revoke", Status: 500},
		"status too low":       {Status: 200},
		"status too high":      {Status: 600},
		"kind":                 {Kind: "explode"},
		"when":                 {Status: 500, When: "during"},
		"change before":        {Kind: cfsim.KindMissingSecret, When: cfsim.Before},
		"delay without length": {Kind: cfsim.KindDelay},
		"negative delay":       {Kind: cfsim.KindDrop, Delay: -1},
		"garbage without body": {Kind: cfsim.KindGarbage, Status: 204},
		"change of the app":    {Operation: cfsim.OpApp, Kind: cfsim.KindWrongClientID},
	} {
		if err := sim.Inject(f); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if len(sim.Faults()) != 0 {
		t.Errorf("armed: %v", sim.Faults())
	}
}

// TestDelayOnFakeTime shows the in-memory transport inside a synctest bubble: delays take exactly as long as
// they say, and if a client gives up, the request is carried out or not as the fault says.
func TestDelayOnFakeTime(t *testing.T) {
	for when, wantRotations := range map[cfsim.When]int{cfsim.Before: 0, cfsim.After: 1} {
		synctest.Test(t, func(t *testing.T) {
			sim := cfsim.New(cfsim.Options{SeedTokens: 1})
			id := cfsim.SeedTokenID(1)
			client := &http.Client{Transport: sim.RoundTripper(), Timeout: 30 * time.Second}
			rotate := func() error {
				req, _ := http.NewRequestWithContext(t.Context(), "POST", "https://api.example/client/v4"+tokensPath+"/"+id+"/rotate", nil)
				req.Header.Set("Authorization", "Bearer t")
				resp, err := client.Do(req)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				_, err = io.Copy(io.Discard, resp.Body)
				return err
			}
			for _, delay := range []time.Duration{time.Minute, 10 * time.Second} {
				if err := sim.Inject(cfsim.Fault{Operation: cfsim.OpRotate, When: when, Delay: cfsim.Duration(delay)}); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			if err := rotate(); err == nil || time.Since(began) != 30*time.Second {
				t.Errorf("%s: %v after %s", when, err, time.Since(began))
			}
			if got := sim.Stats(); got.Rotations[id] != wantRotations || got.Requests[cfsim.OpRotate][0] != 1 {
				t.Errorf("%s: %v", when, got)
			}
			began = time.Now()
			if err := rotate(); err != nil || time.Since(began) != 10*time.Second {
				t.Errorf("%s: %v after %s", when, err, time.Since(began))
			}
			if got := sim.Stats().Rotations[id]; got != wantRotations+1 {
				t.Errorf("%s: %d rotations", when, got)
			}
		})
	}
}

// TestRoundTripperBreaksLikeASocket compares the in-memory transport with a real one.
func TestRoundTripperBreaksLikeASocket(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	r.http = &http.Client{Transport: r.sim.RoundTripper()}
	for kind, want := range map[cfsim.Kind]error{cfsim.KindDrop: io.EOF, cfsim.KindCut: io.ErrUnexpectedEOF} {
		if err := r.sim.Inject(cfsim.Fault{Kind: kind, When: cfsim.After}); err != nil {
			t.Fatal(err)
		}
		if a := r.send("GET", "/client/v4"+tokensPath, "", "Authorization", "Bearer t"); !errors.Is(a.err, want) {
			t.Errorf("%s: %v, want %v", kind, a.err, want)
		}
	}
	v := r.rotated(cfsim.SeedTokenID(1), time.Hour)
	r.wantUse(cfsim.SeedTokenID(1), v, 200, "current")
	if a := r.api("GET", "//x", ""); a.status != 404 {
		t.Errorf("status %d", a.status)
	}
}
