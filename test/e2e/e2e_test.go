package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/test/program"
)

// consumers read each secret from Vault and present it to the application, without pause,
// until stop is called; it returns how often, and every answer that was not 200. What a consumer presents so late that
// the grace may be over since it began to read does not count: this machine was slow, and not the daemon.
func (w *world) consumers(t *testing.T, grace time.Duration) (stop func() (calls int, refused []string)) {
	t.Helper()
	var (
		mu      sync.Mutex
		calls   int
		refused []string
		ended   = make(chan struct{})
		all     sync.WaitGroup
	)
	for worker := range 2 {
		all.Go(func() {
			for i := worker; ; i += 2 {
				select {
				case <-ended:
					return
				default:
				}
				name := w.names[i%len(w.names)]
				began := time.Now()
				id, value, ok := w.stored(t, name)
				if !ok {
					time.Sleep(time.Millisecond)
					continue
				}
				status := w.call(t, name, id, value)
				if time.Since(began) >= grace/2 { // a delivery may take a part of it
					continue
				}
				mu.Lock()
				calls++
				if status != 200 {
					refused = append(refused, fmt.Sprintf("%s: %d", name, status))
				}
				mu.Unlock()
			}
		})
	}
	return func() (int, []string) {
		close(ended)
		all.Wait()
		return calls, refused
	}
}

// TestAMinuteOfRotations: twenty tokens, rotated every two seconds for a minute.
func TestAMinuteOfRotations(t *testing.T) {
	length := time.Minute
	if testing.Short() {
		length = 10 * time.Second
	}
	const grace = time.Second
	w := newWorld(t, options{tokens: 20, schedule: "@every 2s", grace: grace})
	d := w.run(t)
	program.Eventually(t, 20*time.Second, "a first secret for every token", func() bool {
		for _, name := range w.names {
			if _, _, ok := w.stored(t, name); !ok {
				return false
			}
		}
		return true
	})
	stop := w.consumers(t, grace)
	time.Sleep(length)
	least := 20 * int(length.Seconds()/4)
	program.Eventually(t, 0, "rotations", func() bool { return w.stats(t).rotations() >= least })
	calls, refused := stop()
	if len(refused) > 0 {
		t.Errorf("%d of %d calls with the secret in Vault were refused, the first: %s", len(refused), calls, refused[0])
	}
	if calls < 100 {
		t.Fatalf("only %d calls: this proves little", calls)
	}

	// The metrics count exactly what Cloudflare did: between two equal readings of the
	// simulator nothing happened, and what was in flight has ended in one of the tries.
	var exposition string
	var s stats
	program.Eventually(t, 20*time.Second, "metrics that count what happened", func() bool {
		before := w.stats(t)
		exposition = get(t, d.url+"/metrics")
		s = w.stats(t)
		if before.rotations() != s.rotations() {
			return false
		}
		for _, name := range w.names {
			if sumMetric(exposition, `rotatord_rotations_total\{result="success",token="`+name+`",trigger="[a-z_]+"\}`) != float64(s.Rotations[w.tokenID(name)]) {
				return false
			}
		}
		return true
	})
	// With a grace of a second, a delivery that takes a quarter of one extends it: a look, and the update.
	if s.requests("rotate") != s.rotations() || s.requests("get")+s.requests("list") > 3+s.requests("update") {
		t.Errorf("%d rotations took %d rotate, %d get, %d list and %d update requests, want one rotate for each, a look before each update, and at the start a listing, one more that confirms the clock, and a look ahead",
			s.rotations(), s.requests("rotate"), s.requests("get"), s.requests("list"), s.requests("update"))
	}
	for series, want := range map[string]float64{
		`rotatord_cloudflare_requests_total{code="200",operation="rotate"}`: float64(s.rotations()),
		`rotatord_cloudflare_requests_total{code="200",operation="list"}`:   float64(s.requests("list")),
		`rotatord_sink_writes_total{result="success",sink="vault"}`:         float64(s.rotations()),
		`rotatord_sink_writes_total{result="failed",sink="vault"}`:          0,
		`rotatord_rotation_duration_seconds_count{result="success"}`:        float64(s.rotations()),
		`rotatord_pending_secrets`:                                          0,
	} {
		if got := metric(exposition, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	if n := sumMetric(exposition, `rotatord_rotations_total\{result="(?:failed|in_doubt|skipped)",token="[^"]+",trigger="[a-z_]+"\}`); n != 0 {
		t.Errorf("%v attempts did not succeed", n)
	}

	if code := d.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	w.agree(t)
	t.Logf("%d rotations, %d rotate requests; %d calls by consumers, %d refused", s.rotations(), s.requests("rotate"), calls, len(refused))
}

// TestStopInTheMiddle: SIGTERM while requests are in flight, and a start after it.
func TestStopInTheMiddle(t *testing.T) {
	t.Parallel() // it mostly waits
	w := newWorld(t, options{tokens: 10, schedule: "@every 4s", grace: time.Second})
	w.inject(t, `{"operation":"rotate","kind":"delay","delay":"800ms","count":-1}`)
	var lines []logLine
	for round := range 3 {
		d := w.run(t)
		before := w.stats(t).rotations()
		program.Eventually(t, 30*time.Second, "a request in flight", func() bool { return w.stats(t).rotations() > before })
		if code := d.terminate(t); code != 0 {
			t.Errorf("round %d: exit code %d", round, code)
		}
		if log := d.log(t); log[len(log)-1].Msg != "stopped" {
			t.Errorf("round %d: the log does not end with \"stopped\"", round)
		}
		lines = append(lines, d.log(t)...)
	}
	// Once to its end, so that every doubt is resolved.
	d := w.run(t)
	before := w.stats(t)
	program.Eventually(t, 30*time.Second, "another rotation of every token", func() bool {
		now := w.stats(t)
		for _, name := range w.names {
			if now.Rotations[w.tokenID(name)] == before.Rotations[w.tokenID(name)] {
				return false
			}
		}
		return true
	})
	if code := d.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	lines = append(lines, d.log(t)...)
	w.agree(t)

	rotated, slots := 0, map[string]bool{}
	for _, l := range lines {
		if l.Msg != "rotated" {
			if l.Level == "ERROR" {
				t.Errorf("%s: %s %v", l.Token, l.Msg, l.Error)
			}
			continue
		}
		rotated++
		if l.Time.Before(l.Slot) {
			t.Errorf("%s was rotated at %s, before its slot %s", l.Token, l.Time, l.Slot)
		}
		key := l.Token + " " + l.Slot.Format(time.RFC3339Nano)
		if slots[key] {
			t.Errorf("the slot %s was served twice", key)
		}
		slots[key] = true
	}
	if s := w.stats(t); s.rotations() != rotated || s.requests("rotate") != rotated {
		t.Errorf("Cloudflare carried out %d rotations on %d requests, the logs say %d", s.rotations(), s.requests("rotate"), rotated)
	}
}

// TestKilled: SIGKILL at any moment, over and over. The deadline of a token in doubt is a
// quarter of its grace before the end, so all is resolved soon after the last start.
func TestKilled(t *testing.T) {
	t.Parallel() // it mostly waits
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	w := newWorld(t, options{tokens: 10, schedule: "@every 3s", grace: 2 * time.Second})
	for range rounds {
		d := w.run(t)
		before := w.stats(t).rotations()
		program.Eventually(t, 30*time.Second, "rotations", func() bool { return w.stats(t).rotations() > before+3 })
		d.kill()
		<-d.done
	}
	d := w.run(t)
	before := w.stats(t)
	program.Eventually(t, 60*time.Second, "another rotation of every token", func() bool {
		now := w.stats(t)
		for _, name := range w.names {
			if now.Rotations[w.tokenID(name)] < before.Rotations[w.tokenID(name)]+2 {
				return false
			}
		}
		return true
	})
	if code := d.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	w.agree(t)
}

// TestVaultAway: Vault is killed for twenty seconds, and comes back.
func TestVaultAway(t *testing.T) {
	t.Parallel() // it mostly waits
	away := 20 * time.Second
	if testing.Short() {
		away = 5 * time.Second
	}
	w := newWorld(t, options{tokens: 10, schedule: "@every 2s", grace: time.Second})
	d := w.run(t)
	program.Eventually(t, 20*time.Second, "rotations", func() bool { return w.stats(t).rotations() >= 10 })
	w.vault.Kill()
	var stuck stats // what was in progress gets stuck within seconds
	program.Eventually(t, 20*time.Second, "no request for two seconds", func() bool {
		stuck = w.stats(t)
		time.Sleep(2 * time.Second)
		return w.stats(t).requests("rotate") == stuck.requests("rotate")
	})
	if d.status(t, "/livez") != 200 {
		t.Error("not alive because Vault is away")
	}
	time.Sleep(away - 2*time.Second)
	if now := w.stats(t); now.requests("rotate") != stuck.requests("rotate") {
		t.Errorf("%d rotate requests were sent while Vault was away", now.requests("rotate")-stuck.requests("rotate"))
	}
	w.vault.Resume(t)
	program.Eventually(t, time.Minute, "another rotation of every token", func() bool {
		now := w.stats(t)
		for _, name := range w.names {
			if now.Rotations[w.tokenID(name)] == stuck.Rotations[w.tokenID(name)] {
				return false
			}
		}
		return true
	})
	if code := d.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	w.agree(t)
	if s := w.stats(t); s.requests("rotate") != s.rotations() {
		t.Errorf("%d requests for %d rotations", s.requests("rotate"), s.rotations())
	}
}

// TestThrottled: Cloudflare answers 429 with Retry-After: 15, and then well.
func TestThrottled(t *testing.T) {
	t.Parallel() // it mostly waits
	w := newWorld(t, options{tokens: 5, schedule: "@every 2s", grace: time.Second})
	d := w.run(t)
	program.Eventually(t, 20*time.Second, "rotations", func() bool { return w.stats(t).rotations() >= 5 })
	throttled := time.Now() // or later
	w.inject(t, `{"operation":"rotate","kind":"status","status":429,"retry_after":15,"count":1}`)
	program.Eventually(t, 20*time.Second, "the 429", func() bool {
		asked := time.Now()
		if w.stats(t).Requests["rotate"]["429"] == 1 {
			return true
		}
		throttled = asked
		return false
	})
	var before stats // requests that were in progress at that moment have come
	program.Eventually(t, 20*time.Second, "no request for a second", func() bool {
		before = w.stats(t)
		time.Sleep(time.Second)
		return w.stats(t).requests("rotate") == before.requests("rotate")
	})
	time.Sleep(time.Until(throttled.Add(8 * time.Second)))
	now := w.stats(t)
	if took := time.Since(throttled); took > 14*time.Second {
		t.Logf("Retry-After was over before this machine had looked, after %s", took)
	} else if now.requests("rotate") != before.requests("rotate") || now.requests("list") != before.requests("list") {
		t.Errorf("requests were sent within Retry-After: %v, then %v", before.Requests, now.Requests)
	}
	program.Eventually(t, 20*time.Second, "another rotation of every token", func() bool {
		now := w.stats(t)
		for _, name := range w.names {
			if now.Rotations[w.tokenID(name)] == before.Rotations[w.tokenID(name)] {
				return false
			}
		}
		return true
	})
	exposition := get(t, d.url+"/metrics")
	if got := metric(exposition, `rotatord_cloudflare_throttled_seconds_total{account="prod"}`); got != 15 {
		t.Errorf("rotatord_cloudflare_throttled_seconds_total is %v, want 15", got)
	}
	if code := d.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	w.agree(t)
}

// TestNoSecretLeaves looks for both formats of a client secret in everything that the
// daemon writes or serves, while things go well and while they do not.
func TestNoSecretLeaves(t *testing.T) {
	t.Parallel() // it mostly waits
	w := newWorld(t, options{tokens: 4, schedule: "@every 2s", grace: time.Second})
	old := strings.Repeat("0123456789abcdef", 4) // the older format
	for _, name := range w.names {
		_, err := w.vault.Root(t).Logical().Write(mount+"/data/access/"+name, map[string]any{
			"data": map[string]any{"client_id": "x", "client_secret": old, "note": "kept"}, "options": map[string]any{"cas": 0},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// Each kind of bad answer once, on a token of its own, with the secret in it where
	// there is one.
	for i, kind := range []string{"malformed_secret", "wrong_client_id", "cut", "refuse"} {
		w.inject(t, fmt.Sprintf(`{"operation":"rotate","kind":%q,"when":"after","token_id":%q}`, kind, w.tokenID(w.names[i])))
	}
	d := w.run(t)
	var seen strings.Builder
	secrets := map[string]bool{old: true}
	program.Eventually(t, 60*time.Second, "three rotations of every token", func() bool {
		for _, path := range []string{"/metrics", "/", "/livez", "/readyz?verbose", "/api/v1/tokens", "/api/v1/tokens/token-01", "/nowhere"} {
			seen.WriteString(get(t, d.url+path))
		}
		done := true
		now := w.stats(t)
		for _, name := range w.names {
			if _, value, ok := w.stored(t, name); ok {
				secrets[value] = true
			}
			done = done && now.Rotations[w.tokenID(name)] >= 4
		}
		return done
	})
	// And Vault away, for its errors.
	w.vault.Kill()
	program.Eventually(t, 3*time.Second, "the daemon says so", func() bool { return strings.Contains(d.errs.String(), "Vault cannot be reached") })
	seen.WriteString(get(t, d.url+"/"))
	w.vault.Resume(t)
	if code := d.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	seen.WriteString(d.out.String() + d.errs.String())
	for _, word := range []string{"in_doubt", "rotated", "Vault cannot be reached"} {
		if !strings.Contains(seen.String(), word) {
			t.Errorf("%q was seen nowhere: not everything happened that the test needs", word)
		}
	}
	files := 0
	err := filepath.WalkDir(filepath.Join(w.dir, "state"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		seen.Write(b)
		return err
	})
	if err != nil || files < 2 {
		t.Fatalf("%d state files: %v", files, err)
	}
	if len(secrets) < 8 {
		t.Fatalf("only %d secrets are known", len(secrets))
	}
	for value := range secrets {
		if strings.Contains(seen.String(), value) {
			t.Errorf("the secret %.10s... is in the daemon's output or state", value)
		}
	}
	formats := regexp.MustCompile(`cfast_[A-Za-z0-9]{10,}|\b[0-9a-f]{64}\b`)
	if found := formats.FindString(seen.String()); found != "" {
		t.Errorf("what looks like a secret is in the daemon's output or state: %.14s...", found)
	}
	for _, name := range w.names {
		s, err := w.vault.Root(t).Logical().Read(mount + "/data/access/" + name)
		if err != nil || s.Data["data"].(map[string]any)["note"] != "kept" {
			t.Errorf("%s: the field beside the secret was not kept", name)
		}
	}
}
