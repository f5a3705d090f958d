package cfsim_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/cloudflare/cfsim"
)

// control sends a request to the control paths, which need no credential.
func (r *rig) control(method, path, body string, status int, into any) {
	r.Helper()
	a := r.send(method, "/_sim"+path, body)
	if a.err != nil || a.status != status {
		r.Fatalf("%s %s: status %d, %v: %s", method, path, a.status, a.err, a.raw)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(a.raw), into); err != nil {
			r.Fatalf("%s %s: %v in %s", method, path, err, a.raw)
		}
	}
}

func TestControlStats(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 2})
	id := cfsim.SeedTokenID(1)
	r.rotated(id, 0)
	r.rotated(id, time.Hour)
	r.api("GET", tokensPath, "")
	r.api("GET", "/nothing", "")
	r.send("GET", "/client/v4"+tokensPath, "")
	r.wantUse(id, r.first(id), 401, "")
	r.control("POST", "/faults", `{"operation":"rotate","status":429,"retry_after":5}`, 201, nil)
	if a := r.rotate(id, ""); a.status != 429 || a.header.Get("Retry-After") != "5" {
		t.Errorf("status %d, %v", a.status, a.header)
	}
	var got map[string]any
	r.control("GET", "/stats", "", 200, &got)
	want := map[string]any{
		"requests": map[string]any{
			"rotate":  map[string]any{"200": 2.0, "429": 1.0},
			"list":    map[string]any{"200": 1.0, "401": 1.0},
			"unknown": map[string]any{"404": 1.0},
		},
		"rotations": map[string]any{id: 2.0},
		"app":       map[string]any{"401": 1.0},
		"faults":    map[string]any{"status": 1.0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	r.sim.Stats().Requests["rotate"][200] = 99 // a copy
	if got := r.sim.Stats().Requests["rotate"][200]; got != 2 {
		t.Errorf("the statistics were changed from outside: %d", got)
	}
}

func TestControlTokens(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	old := r.first(id)
	fresh := r.rotated(id, time.Hour)
	r.control("PUT", "/tokens/"+id+"/policy", `{"in_policy":true}`, 204, nil)
	var got []map[string]any
	r.control("GET", "/tokens", "", 200, &got)
	token, _ := r.sim.Token(id)
	want := []map[string]any{{
		"id": id, "client_id": token.ClientID, "name": "seeded-0001", "owner": "accounts/" + cfsim.DefaultAccountID,
		"duration": "8760h", "enabled": true, "in_policy": true, "client_secret_version": 2.0, "rotations": 1.0,
		"created_at": "2026-11-02T04:00:00Z", "updated_at": "2026-11-02T04:00:00Z", "expires_at": "2027-11-02T04:00:00Z",
		"current_digest": string(fresh.Digest()), "previous_digest": string(old.Digest()),
		"previous_expires_at": "2026-11-02T05:00:00Z",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if a := r.api("DELETE", tokensPath+"/"+id, ""); a.code() != 12139 {
		t.Errorf("code %d", a.code())
	}
	r.control("PUT", "/tokens/"+id+"/policy", `{"in_policy":false}`, 204, nil)
	if a := r.api("DELETE", tokensPath+"/"+id, ""); a.status != 200 {
		t.Errorf("status %d", a.status)
	}
	r.control("PUT", "/tokens/"+id+"/policy", `{"in_policy":true}`, 404, nil)
	r.control("PUT", "/tokens/"+id+"/policy", `{}`, 400, nil)
	r.control("GET", "/tokens", "", 200, &got)
	if len(got) != 0 {
		t.Errorf("a deleted token is listed: %v", got)
	}
}

func TestControlFaults(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	var one cfsim.Fault
	r.control("POST", "/faults", `{"operation":"rotate","count":3,"status":503,"when":"after","token_id":"`+cfsim.SeedTokenID(1)+`","delay":"1ms"}`, 201, &one)
	want := cfsim.Fault{
		Operation: "rotate", Count: 3, Kind: cfsim.KindStatus, Status: 503, When: cfsim.After,
		TokenID: cfsim.SeedTokenID(1), Delay: cfsim.Duration(time.Millisecond),
	}
	if one != want {
		t.Errorf("armed %+v", one)
	}
	if a := r.rotate(cfsim.SeedTokenID(1), ""); a.status != 503 {
		t.Errorf("status %d", a.status)
	}
	var left []cfsim.Fault
	r.control("GET", "/faults", "", 200, &left)
	want.Count = 2
	if len(left) != 1 || left[0] != want {
		t.Errorf("left %+v", left)
	}
	for _, body := range []string{
		``, `{`, `[]`, `{}`, `{"status":503,"counts":3}`, `{"status":503} {}`, `{"operation":"none","status":503}`,
		`{"kind":"delay","delay":"soon"}`, `{"kind":"explode"}`,
	} {
		var e struct{ Error string }
		if r.control("POST", "/faults", body, 400, &e); e.Error == "" {
			t.Errorf("%s: no reason given", body)
		}
	}
	r.control("DELETE", "/faults", "", 204, nil)
	if a := r.rotate(cfsim.SeedTokenID(1), ""); a.status != 200 {
		t.Errorf("status %d", a.status)
	}
}

func TestControlBehaviour(t *testing.T) {
	r := newRig(t, cfsim.Options{Behaviour: cfsim.Behaviour{FrozenUpdatedAt: true}})
	var got cfsim.Behaviour
	r.control("GET", "/behaviour", "", 200, &got)
	if got != (cfsim.Behaviour{FrozenUpdatedAt: true}) {
		t.Errorf("%+v", got)
	}
	r.control("PUT", "/behaviour", `{"clock_skew":"-90s","keep_all_previous":true,"propagation_delay":"2s","login_redirect":true}`, 200, nil)
	want := cfsim.Behaviour{
		ClockSkew: cfsim.Duration(-90 * time.Second), KeepAllPrevious: true,
		PropagationDelay: cfsim.Duration(2 * time.Second), LoginRedirect: true,
	}
	if r.sim.Behaviour() != want {
		t.Errorf("%+v", r.sim.Behaviour())
	}
	r.control("PUT", "/behaviour", `{"clockskew":"1s"}`, 400, nil)
	r.control("PUT", "/behaviour", `{"clock_skew":"much"}`, 400, nil)
	if r.sim.Behaviour() != want {
		t.Errorf("a refused request changed it: %+v", r.sim.Behaviour())
	}
	r.control("DELETE", "/behaviour", ``, 405, nil)
}

// TestNothingLeaks looks for every secret that was issued, and for the credentials of
// the API, in the log and on every control path.
func TestNothingLeaks(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, cfsim.Options{
		SeedTokens: 1, Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	id := cfsim.SeedTokenID(1)
	token, _ := r.sim.Token(id)
	canary := "cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef"
	for _, f := range []cfsim.Fault{
		{Operation: cfsim.OpRotate, Kind: cfsim.KindMissingSecret},
		{Operation: cfsim.OpRotate, Kind: cfsim.KindCut, When: cfsim.After},
		{Operation: cfsim.OpRotate, Kind: cfsim.KindDrop, When: cfsim.After},
	} {
		if err := r.sim.Inject(f); err != nil {
			t.Fatal(err)
		}
		r.send("POST", "/client/v4"+tokensPath+"/"+id+"/rotate", "", "Authorization", "Bearer "+canary)
	}
	v := r.rotated(id, time.Hour)
	r.use("/app/", token.ClientID, v)
	r.use("/app/"+v.Reveal(), token.ClientID, r.first(id))
	r.send("GET", "/client/v4"+tokensPath+"/"+canary, canary, "X-Auth-Email", "a@b.c", "X-Auth-Key", canary)
	r.api("POST", tokensPath, `{"name":"`+canary) // a broken body

	var outputs strings.Builder
	outputs.WriteString(log.String())
	for _, path := range []string{"/stats", "/tokens", "/faults", "/behaviour"} {
		outputs.WriteString(r.send("GET", "/_sim"+path, "").raw)
	}
	history := r.sim.Secrets(id)
	shown, err := json.Marshal(history)
	if err != nil {
		t.Fatal(err)
	}
	outputs.WriteString(string(shown))
	if len(history) != 5 || strings.Count(log.String(), `"operation":"rotate"`) != 4 || !strings.Contains(outputs.String(), string(v.Digest())) {
		t.Fatalf("%d secrets, and a log that proves nothing: %s", len(history), outputs.String())
	}
	for i, s := range history {
		if strings.Contains(outputs.String(), s.Value.Reveal()) || strings.Contains(outputs.String(), s.Value.Reveal()[:26]) {
			t.Errorf("secret %d leaked", i)
		}
	}
	if strings.Contains(outputs.String(), "CANARY") {
		t.Error("a credential leaked")
	}
}

// TestTwoSimulatorsInOneProcess share nothing.
func TestTwoSimulatorsInOneProcess(t *testing.T) {
	a, b := newRig(t, cfsim.Options{SeedTokens: 1}), newRig(t, cfsim.Options{SeedTokens: 1})
	if err := a.sim.Inject(cfsim.Fault{Status: http.StatusBadGateway, Count: -1}); err != nil {
		t.Fatal(err)
	}
	if got := b.rotate(cfsim.SeedTokenID(1), "").status; got != 200 {
		t.Errorf("status %d", got)
	}
	if got := a.sim.Stats(); len(got.Requests) != 0 || len(got.Rotations) != 0 {
		t.Errorf("%+v", got)
	}
}
