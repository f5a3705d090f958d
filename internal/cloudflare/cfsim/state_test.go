package cfsim_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/cloudflare/cfsim"
)

// openRig returns a simulator with a state file, behind a server.
func openRig(t *testing.T, o cfsim.Options, c *clock, path string) *rig {
	t.Helper()
	o.Now = c.Now
	sim, err := cfsim.Open(o, path)
	if err != nil {
		t.Fatal(err)
	}
	return serveRig(t, sim, c)
}

// TestState: what was answered is still there after the process has died without Close.
func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	c := &clock{now: epoch}
	id, second := cfsim.SeedTokenID(1), cfsim.SeedTokenID(2)
	r := openRig(t, cfsim.Options{SeedTokens: 3, Seed: 7, Behaviour: cfsim.Behaviour{FrozenUpdatedAt: true}}, c, path)
	old := r.first(id)
	fresh := r.rotated(id, time.Hour)
	made := r.api("POST", tokensPath, `{"name":"made","duration":"forever"}`).token(r)
	if a := r.api("DELETE", tokensPath+"/"+second, ""); a.status != 200 {
		t.Fatalf("status %d", a.status)
	}
	r.control("PUT", "/tokens/"+id+"/policy", `{"in_policy":true}`, 204, nil)
	want := r.sim.Tokens()

	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	r = openRig(t, cfsim.Options{SeedTokens: 4}, c, path)
	got := r.sim.Tokens()
	if diff := cmp.Diff(want, got[:len(got)-1]); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if last := got[len(got)-1]; last.ID != cfsim.SeedTokenID(4) || last.Name != "seeded-0004" {
		t.Errorf("the missing seeded token: %+v", last)
	}
	if !r.sim.Behaviour().FrozenUpdatedAt {
		t.Error("the behaviour is forgotten")
	}
	r.wantUse(id, old, 200, "previous")
	r.wantUse(id, fresh, 200, "current")
	if a := r.api("GET", tokensPath+"/"+made.ID, ""); a.token(r).Name != "made" {
		t.Errorf("status %d", a.status)
	}
	if a := r.api("GET", tokensPath+"/"+second, ""); a.status != 404 {
		t.Errorf("a deleted token is back: %d", a.status)
	}
	if a := r.api("DELETE", tokensPath+"/"+id, ""); a.code() != 12139 {
		t.Errorf("the policy is forgotten: code %d", a.code())
	}

	if err := r.sim.Close(); err != nil {
		t.Fatal(err)
	}
	r = openRig(t, cfsim.Options{}, c, path)
	if token, _ := r.sim.Token(id); !token.LastSeenAt.Equal(epoch) {
		t.Errorf("last seen at %s", token.LastSeenAt)
	}
}

// TestStateIsSavedBeforeTheAnswer: what a fault hides from the client is in the file.
func TestStateIsSavedBeforeTheAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	c := &clock{now: epoch}
	id := cfsim.SeedTokenID(1)
	r := openRig(t, cfsim.Options{SeedTokens: 1}, c, path)
	for _, text := range []string{"rotate:drop:after", "rotate:status=500:after", "rotate:cut:after", "rotate:garbage:after", "rotate:drop:before"} {
		f, err := cfsim.ParseFault(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.sim.Inject(f); err != nil {
			t.Fatal(err)
		}
		r.send("POST", "/client/v4"+tokensPath+"/"+id+"/rotate", "", "Authorization", "Bearer t")
		want, _ := r.sim.Token(id)
		again, err := cfsim.Open(cfsim.Options{Now: c.Now}, path)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := again.Token(id); got != want {
			t.Errorf("%s: %+v in the file, %+v in memory", text, got, want)
		}
	}
	if token, _ := r.sim.Token(id); token.Rotations != 4 {
		t.Errorf("%d rotations", token.Rotations)
	}

	// A directory is where the next file has to go.
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if a := r.rotate(id, ""); a.status != 500 {
		t.Errorf("what could not be saved was answered with %d", a.status)
	}
	r.control("PUT", "/tokens/"+id, `{"enabled":false}`, 500, nil)
}

func TestStateThatIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	sim, err := cfsim.Open(cfsim.Options{SeedTokens: 1, Seed: 5}, path)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	value := sim.Secrets(cfsim.SeedTokenID(1))[0].Value.Reveal()
	flipped := bytes.Replace(good, []byte(value), []byte(value[:20]+"!"+value[21:]), 1)
	for name, x := range map[string]struct {
		content []byte
		seed    uint64
		want    string
	}{
		"empty":         {nil, 0, "it is damaged: replace it with a copy, or move it away"},
		"cut":           {good[:len(good)/2], 0, "it is damaged"},
		"another digit": {flipped, 0, "it is damaged"},
		"another file":  {[]byte(`{"kind":"config"}`), 0, "it is not a state file"},
		"newer":         {bytes.Replace(good, []byte(`"version":1`), []byte(`"version":2`), 1), 0, "version 2 and this program knows up to 1: use the newer rotatord"},
		"another seed":  {good, 6, "made with seed 5 and not with 6: leave the seed away"},
	} {
		if err := os.WriteFile(path, x.content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := cfsim.Open(cfsim.Options{Seed: x.seed, SeedTokens: 2}, path)
		if err == nil || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), value[:20]) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadFile(path); err != nil || !bytes.Equal(left, x.content) {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cfsim.Open(cfsim.Options{Seed: 5}, path); err != nil {
		t.Errorf("the undamaged file: %v", err)
	}
	if _, err := cfsim.Open(cfsim.Options{}, t.TempDir()); err == nil {
		t.Error("a directory is taken for a file")
	}
	if _, err := cfsim.Open(cfsim.Options{}, filepath.Join(t.TempDir(), "no", "where")); err == nil {
		t.Error("a file that cannot be written is not an error")
	}
}

// conversation sends the same requests to a simulator, and returns all answers byte by byte. Between the two
// halves, next may replace the simulator.
func conversation(t *testing.T, sim *cfsim.Simulator, c *clock, next func() *cfsim.Simulator) string {
	t.Helper()
	var all bytes.Buffer
	send := func(method, path, body string) []byte {
		req, _ := http.NewRequestWithContext(t.Context(), method, "http://sim"+path, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer t")
		c.advance(time.Second)
		resp, err := sim.RoundTripper().RoundTrip(req)
		if err != nil {
			fmt.Fprintln(&all, err)
			return nil
		}
		dump, err := httputil.DumpResponse(resp, true)
		fmt.Fprintf(&all, "%s %v\n", dump, err)
		return dump
	}
	api, id := "/client/v4"+tokensPath, cfsim.SeedTokenID(1)
	half := func() {
		var made struct{ Result struct{ ID string } }
		answer := send("POST", api, `{"name":"made"}`)
		if err := json.Unmarshal(answer[bytes.IndexByte(answer, '{'):], &made); err != nil || made.Result.ID == "" {
			t.Fatalf("%v in %s", err, answer)
		}
		send("POST", api+"/"+made.Result.ID+"/rotate", `{"previous_client_secret_expires_at":"2026-11-03T00:00:00Z"}`)
		send("POST", "/_sim/faults", `{"operation":"rotate","kind":"cut","when":"after"}`)
		send("POST", api+"/"+id+"/rotate", "")
		send("POST", "/_sim/tokens", `{"name":"by hand"}`)
		send("POST", "/_sim/tokens/"+id+"/rotate", `{"grace":"1h"}`)
		send("GET", "/_sim/tokens", "")
		send("GET", api, "")
		send("PUT", api+"/"+id, `{"duration":"forever","client_secret_version":9}`)
		send("GET", "/client/v4/user/tokens/verify", "")
		send("GET", "/app/", "")
	}
	half()
	if sim = next(); sim == nil {
		t.Fatal("there is no other half")
	}
	half()
	return all.String()
}

// TestSameSeedSameAnswers: two simulators with the same seed and clock give the same answers, byte by byte,
// and so does one that was restarted in between.
func TestSameSeedSameAnswers(t *testing.T) {
	run := func(seed uint64, path string) string {
		c := &clock{now: epoch}
		o := cfsim.Options{Now: c.Now, Seed: seed, SeedTokens: 2, RateLimit: -1}
		if path == "" {
			sim := cfsim.New(o)
			return conversation(t, sim, c, func() *cfsim.Simulator { return sim })
		}
		sim, err := cfsim.Open(o, path)
		if err != nil {
			t.Fatal(err)
		}
		return conversation(t, sim, c, func() *cfsim.Simulator {
			again, err := cfsim.Open(o, path)
			if err != nil {
				t.Fatal(err)
			}
			return again
		})
	}
	first := run(11, "")
	if strings.Count(first, "cfast_") != 4 {
		t.Fatalf("a conversation that proves nothing:\n%s", first)
	}
	if diff := cmp.Diff(first, run(11, "")); diff != "" {
		t.Errorf("another run:\n%s", diff)
	}
	if diff := cmp.Diff(first, run(11, filepath.Join(t.TempDir(), "state"))); diff != "" {
		t.Errorf("with a new start in between:\n%s", diff)
	}
	if first == run(12, "") {
		t.Error("another seed gives the same")
	}
}
