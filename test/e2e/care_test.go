package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/test/program"
)

// truth is what the simulator knows of a service token.
type truth struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Owner     string    `json:"owner"`
	ExpiresAt time.Time `json:"expires_at"`
}

// serviceTokens returns the service tokens whose name is or starts with name.
func (w *world) serviceTokens(t *testing.T, name string) (found []truth) {
	t.Helper()
	var all []truth
	if err := json.Unmarshal([]byte(get(t, w.sim+"/_sim/tokens")), &all); err != nil {
		t.Fatal(err)
	}
	for _, token := range all {
		if strings.HasPrefix(token.Name, name) {
			found = append(found, token)
		}
	}
	return found
}

// behind changes a service token without the daemon.
func (w *world) behind(t *testing.T, method, path, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.sim+"/_sim/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode > 299 {
		t.Fatalf("%s %s: %s", method, path, res.Status)
	}
}

// admits asks an application that admits every service token.
func (w *world) admits(t *testing.T, clientID, clientSecret string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.sim+"/app/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("CF-Access-Client-Id", clientID)
	req.Header.Set("CF-Access-Client-Secret", clientSecret)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// works reports whether what Vault holds for a token is admitted.
func (w *world) works(t *testing.T, name string) bool {
	t.Helper()
	id, value, ok := w.stored(t, name)
	return ok && w.admits(t, id, value)
}

// shown is what the tests read of a token's status.
type shown struct {
	TokenID        string    `json:"token_id"`
	State          string    `json:"state"`
	Known          bool      `json:"known"`
	LastError      string    `json:"last_error"`
	Gone           bool      `json:"gone"`
	Enabled        bool      `json:"enabled"`
	RotatedOutside time.Time `json:"rotated_outside"`
	Unverified     string    `json:"unverified"`
	Verification   *struct {
		Refused bool `json:"refused"`
	} `json:"verification"`
}

func (d *daemon) token(t *testing.T, name string) (s shown) {
	t.Helper()
	if err := json.Unmarshal([]byte(get(t, d.url+"/api/v1/tokens/"+name)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// again kills the daemon and starts it again, which lists the account again too.
func (w *world) again(t *testing.T, d *daemon) *daemon {
	t.Helper()
	d.kill()
	<-d.done
	return w.run(t)
}

// says runs a command and checks its exit code and a part of its output.
func (w *world) says(t *testing.T, code int, text string, args ...string) {
	t.Helper()
	if out, got := w.command(t, args...); got != code || !strings.Contains(out, text) {
		t.Errorf("rotatord %s: exit code %d, want %d and %q\n%s", strings.Join(args, " "), got, code, text, out)
	}
}

// newCareWorld has tokens that nothing rotates by itself in the length of a test, whatever day it is, and a socket.
// Cloudflare has no limit in it: a daemon that is started in the middle of a rush takes what its
// predecessor has sent for requests of another program, and leaves requests for that.
// change makes of the entry of a token what the test wants.
func newCareWorld(t *testing.T, tokens int, change map[string]string, more string) *world {
	t.Helper()
	schedule := fmt.Sprintf("0 0 * * %d", (time.Now().UTC().Weekday()+3)%7)
	w := newWorld(t, options{tokens: tokens, schedule: schedule, grace: time.Hour, limit: -1})
	w.edit(t, func(c string) string {
		for name, text := range change {
			from := name + ": {"
			if strings.Contains(text, "create:") {
				from += "id: " + w.tokenID(name) + ", "
			}
			if !strings.Contains(c, from) {
				t.Fatalf("no %q in the configuration", from)
			}
			c = strings.Replace(c, from, name+": {"+strings.ReplaceAll(text, "SIM", w.sim)+", ", 1)
		}
		zone := fmt.Sprintf("  edge: {zone_id: %032d, api_token: {file: %s/api-token}, base_url: %s/client/v4}\n", 123, w.dir, w.sim)
		c = strings.Replace(c, "vault:\n", zone+"vault:\n", 1)
		return "admin_socket: " + filepath.Join(w.dir, "admin.sock") + "\n" + c + more
	})
	return w
}

// TestCare makes, replaces, renews, tries and watches service tokens, and does by hand what is
// done to previous secrets, over kills of the daemon, under the shipped policy.
func TestCare(t *testing.T) {
	t.Parallel() // it mostly waits
	const plain, refused, ending, gone, off, outside, healed, adopted, taken = "token-01", "token-02", "token-03", "token-04", "token-05",
		"token-06", "token-07", "token-08", "token-09"
	w := newCareWorld(t, 9, map[string]string{
		plain:   "verify: {url: SIM/app/}",
		refused: "verify: {url: SIM/app/, within: 0s}",
		ending:  "renew_before: 8000h, renew_for: 8760h",
		healed:  "outside_rotation: rotate",
		adopted: "create: {name: seeded-0008, adopt: true}",
		taken:   "create: {name: seeded-0009}",
	}, fmt.Sprintf(`  ci: {create: {name: ci-deploy, duration: 720h}, sinks: [{vault: {mount: %[1]s, path: access/ci}}]}
  edge: {account: edge, create: {name: edge}, strategy: replace, sinks: [{vault: {mount: %[1]s, path: access/edge}}]}
`, mount))
	w.behind(t, http.MethodPut, "tokens/"+w.tokenID(ending), fmt.Sprintf(`{"expires_at":%q}`, time.Now().Add(1000*time.Hour).UTC().Format(time.RFC3339)))
	d := w.run(t)
	w.tended(t, d, adopted, taken)
	program.Eventually(t, 10*time.Second, "one that is about to end is renewed", func() bool {
		for _, token := range w.serviceTokens(t, "seeded-0003") {
			return time.Until(token.ExpiresAt) > 8700*time.Hour
		}
		return false
	})
	d = w.again(t, d)
	w.tended(t, d, adopted, taken)
	if n := w.stats(t).requests("create"); n != 2 {
		t.Errorf("%d create requests, want one for each that was not there", n)
	}

	w.replaceByHand(t)
	w.previousByHand(t, plain)
	d = w.refuse(t, d, refused)

	for _, name := range []string{gone, off, outside, healed} {
		program.Eventually(t, 10*time.Second, "an inventory", func() bool { return d.token(t, name).Known })
	}
	w.behind(t, http.MethodDelete, "tokens/"+w.tokenID(gone), "")
	w.behind(t, http.MethodPut, "tokens/"+w.tokenID(off), `{"enabled":false}`)
	for _, name := range []string{outside, healed} {
		w.behind(t, http.MethodPost, "tokens/"+w.tokenID(name)+"/rotate", `{"grace":"0s"}`)
	}
	d = w.again(t, d)
	program.Eventually(t, 10*time.Second, "the alarms", func() bool {
		m := get(t, d.url+"/metrics")
		return metric(m, `rotatord_token_gone{token="`+gone+`"}`) == 1 && metric(m, `rotatord_token_enabled{token="`+off+`"}`) == 0 &&
			metric(m, `rotatord_token_enabled{token="`+plain+`"}`) == 1 && metric(m, `rotatord_token_out_of_band_rotations_total{token="`+outside+`"}`) == 1
	})
	if s := d.token(t, outside); s.RotatedOutside.IsZero() || w.works(t, outside) {
		t.Errorf("%+v", s)
	}
	program.Eventually(t, 10*time.Second, "a rotation that makes up for one by another program", func() bool {
		return w.works(t, healed) && d.token(t, healed).RotatedOutside.IsZero()
	})
	w.names = []string{plain, refused, healed}
	w.agree(t)
	if code := d.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// tended waits for what is to be there after any start.
func (w *world) tended(t *testing.T, d *daemon, adopted, taken string) {
	t.Helper()
	program.Eventually(t, 15*time.Second, "service tokens that are made", func() bool {
		return w.works(t, "ci") && d.token(t, "ci").State == "idle" && w.works(t, "edge") && d.token(t, "edge").State == "idle"
	})
	program.Eventually(t, 10*time.Second, "one that is adopted", func() bool { return d.token(t, adopted).TokenID == w.tokenID(adopted) })
	program.Eventually(t, 10*time.Second, "one that is not", func() bool { return strings.Contains(d.token(t, taken).LastError, "adopt: true") })
	if made := w.serviceTokens(t, "ci-deploy"); len(made) != 1 || made[0].ID != d.token(t, "ci").TokenID {
		t.Errorf("%+v", made)
	}
	if made := w.serviceTokens(t, "edge"); len(made) != 1 || !strings.HasPrefix(made[0].Owner, "zones/") {
		t.Errorf("%+v", made)
	}
}

// replaceByHand has a service token of a zone replaced, and the old one deleted.
func (w *world) replaceByHand(t *testing.T) {
	t.Helper()
	firstID, first, _ := w.stored(t, "edge")
	w.says(t, 0, "edge was rotated", "rotate", "edge")
	if id, _, _ := w.stored(t, "edge"); id == firstID || !w.works(t, "edge") || !w.admits(t, firstID, first) {
		t.Error("no other service token has taken the place, or the old one does not work")
	}
	w.says(t, 0, "was revoked", "revoke-previous", "edge")
	if left := w.serviceTokens(t, "edge"); len(left) != 1 || w.admits(t, firstID, first) || !w.works(t, "edge") {
		t.Errorf("%+v", left)
	}
	w.says(t, 1, "no service token that was replaced", "revoke-previous", "edge")
}

// previousByHand keeps a previous secret for longer, revokes it, and rotates without a grace.
func (w *world) previousByHand(t *testing.T, name string) {
	t.Helper()
	w.says(t, 0, "accepted at verify.url", "rotate", name)
	id, first, _ := w.stored(t, name)
	w.says(t, 1, "--override-grace", "rotate", name)
	w.says(t, 0, "accepted at verify.url", "rotate", name, "--override-grace")
	w.says(t, 0, "is extended", "extend-grace", name, "5h")
	if !w.admits(t, id, first) {
		t.Error("the previous secret does not work in its grace")
	}
	w.says(t, 0, "was revoked", "revoke-previous", name)
	if w.admits(t, id, first) || !w.works(t, name) {
		t.Error("the previous secret works, or the present one does not")
	}
	w.says(t, 1, "cannot be revived", "extend-grace", name, "5h")
	_, leaked, _ := w.stored(t, name)
	w.says(t, 0, "revoked", "rotate", name, "--revoke-now")
	if w.admits(t, id, leaked) || !w.works(t, name) {
		t.Error("the leaked secret works, or the present one does not")
	}
}

// refuse has an application refuse a new secret, over a kill of the daemon, until it is accepted
// by hand.
func (w *world) refuse(t *testing.T, d *daemon, name string) *daemon {
	t.Helper()
	w.inject(t, fmt.Sprintf(`{"operation":"app","kind":"status","status":401,"count":-1,"token_id":%q}`, w.tokenID(name)))
	w.says(t, 1, "refused where it was tried", "rotate", name)
	before := w.stats(t).Rotations[w.tokenID(name)]
	d = w.again(t, d)
	program.Eventually(t, 10*time.Second, "a refused secret", func() bool {
		s := d.token(t, name)
		return s.State == "stored" && s.Verification != nil && s.Verification.Refused
	})
	w.says(t, 1, "is in progress", "revoke-previous", name)
	w.says(t, 0, "", "resolve", name, "--accept")
	program.Eventually(t, 10*time.Second, "the end of the rotation", func() bool { return d.token(t, name).State == "idle" })
	if s := d.token(t, name); !strings.Contains(s.Unverified, "operator") || w.stats(t).Rotations[w.tokenID(name)] != before {
		t.Errorf("%+v, %d rotations", s, w.stats(t).Rotations[w.tokenID(name)])
	}
	w.behind(t, http.MethodDelete, "faults", "")
	if !w.works(t, name) {
		t.Error("what Vault holds does not work")
	}
	return d
}

// TestLeakedVault rotates all tokens of an account without a grace. The daemon is killed in the
// middle of it.
func TestLeakedVault(t *testing.T) {
	t.Parallel()             // it mostly waits
	const n, atOnce = 60, 34 // up to atOnce of them are in progress at the same time
	graces := map[string]string{}
	for i := range n { // the last ones have the least
		graces[fmt.Sprintf("token-%02d", i+1)] = fmt.Sprintf("grace: %dm", 2*n-i)
	}
	w := newCareWorld(t, n, graces, "")
	d := w.run(t)
	w.says(t, 0, fmt.Sprintf("all are rotated: %d", n), "rotate", "--all", "--account", "prod")
	leaked := map[string]string{}
	for _, name := range w.names {
		if !w.works(t, name) {
			t.Fatalf("what Vault holds for %s does not work", name)
		}
		_, leaked[name], _ = w.stored(t, name)
	}
	w.inject(t, `{"operation":"rotate","kind":"delay","when":"after","delay":"150ms","count":-1}`)
	w.says(t, 0, "token(s) of prod are still to be rotated", "rotate", "--all", "--account", "prod", "--revoke-now", "--detach")
	program.Eventually(t, 20*time.Second, "a part of it", func() bool { return w.stats(t).rotations() >= n+atOnce+n/6 }) // so some are also stored
	d.kill()
	<-d.done
	var done []string
	for _, name := range w.names {
		if _, value, _ := w.stored(t, name); value != leaked[name] {
			done = append(done, name)
		}
	}
	if len(done) == 0 || len(done) == n {
		t.Fatalf("%d of %d were done when the daemon was killed: this proves nothing", len(done), n)
	}
	for _, name := range done {
		if name < w.names[max(n-len(done)-atOnce, 0)] {
			t.Errorf("%s has more grace than others, and is among the first %d", name, len(done))
		}
	}
	w.says(t, 1, "", "rotate", "--all", "--account", "prod", "--revoke-now") // nobody is there
	d = w.run(t)
	program.Eventually(t, 30*time.Second, "the rest, without another word", func() bool {
		return !strings.Contains(get(t, d.url+"/api/v1/tokens"), `"order":`)
	})
	stats := w.stats(t)
	for _, name := range w.names {
		id, _, _ := w.stored(t, name)
		if w.admits(t, id, leaked[name]) || !w.works(t, name) {
			t.Errorf("%s: the leaked secret works, or the present one does not", name)
		}
	}
	t.Logf("%d were done before the kill; %d rotations in all, %d answers lost to it", len(done), stats.rotations(), stats.rotations()-2*n)
	if lost := stats.rotations() - 2*n; lost < 0 || lost > atOnce {
		t.Errorf("%d rotations of %d tokens", stats.rotations(), n)
	}
	w.agree(t)
	if code := d.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
