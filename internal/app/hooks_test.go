package app_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/hook"
	"rotatord/internal/outbound"
	"rotatord/internal/rotation"
)

// receiver is the other end of webhooks.
type receiver struct {
	mu      sync.Mutex
	refuse  bool
	notices []hook.Notice
}

func (r *receiver) setRefuse(refuse bool) { r.mu.Lock(); defer r.mu.Unlock(); r.refuse = refuse }

func (r *receiver) seen() []hook.Notice {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]hook.Notice{}, r.notices...)
}

// newReceiver serves a receiver that checks signatures with that key.
func newReceiver(t *testing.T, key string) (*receiver, string) {
	r := &receiver{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		at, sum, _ := strings.Cut(strings.TrimPrefix(req.Header.Get(outbound.SignatureHeader), "t="), ",v1=")
		mac := hmac.New(sha256.New, []byte(key))
		fmt.Fprintf(mac, "%s.%s", at, body)
		if sum != hex.EncodeToString(mac.Sum(nil)) {
			t.Errorf("the signature is wrong: %v", req.Header)
		}
		var n hook.Notice
		if err := json.Unmarshal(body, &n); err != nil || n.Delivery == "" || n.Delivery != req.Header.Get(outbound.DeliveryHeader) {
			t.Errorf("%s, %v", body, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.refuse {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		r.notices = append(r.notices, n)
	}))
	t.Cleanup(server.Close)
	return r, server.URL
}

// TestHooks rotates a token with a program and a webhook that follow it: both learn of the rotation, and no secret. A
// program that fails delays no rotation, is shown, and is run again by an operator.
func TestHooks(t *testing.T) {
	w := newWorld(t)
	key := w.write("webhook-secret", "canary-of-the-webhook-secret\n")
	seen, fails := filepath.Join(w.dir, "seen"), filepath.Join(w.dir, "fails")
	script := w.write("reload.sh", fmt.Sprintf("#!/bin/sh\nenv | sort >> %s; echo $# $1 >> %[1]s; [ ! -e %s ] || { echo cannot reload; exit 3; }\n", seen, fails))
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	receiver, url := newReceiver(t, "canary-of-the-webhook-secret")
	ci := w.token("ci", seldom, "1h")
	w.tokens[0].Rest = fmt.Sprintf("after: [{exec: {command: [%s, an argument]}}, {webhook: {url: %s, secret: {file: %s}}}]", script, url, key)
	d := w.start(w.config())
	rotate := func() {
		t.Helper()
		w.eventually("rotated", func() bool {
			_, err := d.Rotate(t.Context(), "ci", rotation.Overrides{Grace: true}, "ops")
			return err == nil
		})
	}
	done := func() bool { s := d.status("ci"); return len(s.Hooks) == 2 && s.HooksOwed.IsZero() }
	rotate()
	w.eventually("hooks done", done)
	content, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	w.search("the environment of the program", string(content))
	got := string(content)
	for _, line := range []string{"ROTATORD_ATTEMPT=1", "ROTATORD_TOKEN=ci", "ROTATORD_DIGEST=" + string(w.truth(ci).Digest()), "1 an argument", "PATH=" + hook.SearchPath} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("the program has not seen %q:\n%s", line, got)
		}
	}
	if n := strings.Count(got, "\n"); n > 9 { // five of ours, what the shell adds, and the line of arguments
		t.Errorf("the program has seen more:\n%s", got)
	}
	if n := receiver.seen(); len(n) != 1 || len(n[0].Tokens) != 1 || n[0].Tokens[0].Name != "ci" || n[0].Tokens[0].Digest != w.truth(ci).Digest() {
		t.Errorf("the receiver got %+v", n)
	}

	if err := os.WriteFile(fails, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rotate()
	w.eventually("failing", func() bool { s := d.status("ci"); return len(s.Hooks) == 2 && s.Hooks[0].Failures == 1 })
	if s := d.status("ci"); !strings.Contains(s.Hooks[0].LastError, "exit status 3: cannot reload") || s.Hooks[0].State != "failing" || s.HooksOwed.IsZero() || s.Failures != 0 {
		t.Errorf("%+v", s.Hooks)
	}
	d.wantMetric(`rotatord_hooks_total{kind="exec",result="failed"}`, 1)
	if _, shown := d.metric(`rotatord_token_hook_failing_timestamp_seconds{token="ci"}`); !shown {
		t.Error("no metric shows that a hook is owed")
	}
	rotate() // it waits for no hook
	if err := os.Remove(fails); err != nil {
		t.Fatal(err)
	}
	w.eventually("run again", func() bool {
		_, err := d.RunHooks(t.Context(), "ci", []string{"exec"})
		return err == nil
	})
	w.eventually("hooks done", done)
	w.eventually("all notices", func() bool { return len(receiver.seen()) == 3 })
	if lines := d.logged("a hook failed after the rotation: consumers may not know of the new secret yet"); len(lines) == 0 {
		t.Error("the log does not say that the hook failed")
	}
	d.stop()

	// A restart runs nothing again.
	again := w.start(w.config())
	w.eventually("shown", func() bool { return len(again.status("ci").Hooks) == 2 })
	time.Sleep(100 * time.Millisecond)
	if n := receiver.seen(); len(n) != 3 {
		t.Errorf("the receiver got %d notices", len(n))
	}
}

// TestHooksInBatches: with batch one run serves all tokens whose hooks are the same; a run that was refused is tried
// again, also by the next process.
func TestHooksInBatches(t *testing.T) {
	w := newWorld(t)
	key := w.write("webhook-secret", "canary-of-the-webhook-secret")
	receiver, url := newReceiver(t, "canary-of-the-webhook-secret")
	receiver.setRefuse(true)
	const n = 12
	for i := range n {
		w.due(fmt.Sprintf("t%02d", i), "10m")
		w.tokens[i].Rest = fmt.Sprintf("after: [{webhook: {url: %s, secret: {file: %s}, batch: 3s}}]", url, key)
	}
	d := w.start(w.config())
	failing := func(d *daemon) (failing int) {
		for i := range n {
			for _, h := range d.status(fmt.Sprintf("t%02d", i)).Hooks {
				failing += min(h.Failures, 1)
			}
		}
		return failing
	}
	w.eventually("all refused", func() bool { return failing(d) == n })
	d.stop()
	receiver.setRefuse(false)
	if got := receiver.seen(); len(got) != 0 {
		t.Fatalf("%+v", got)
	}
	d = w.start(w.config())
	w.eventually("all told", func() bool {
		told := map[string]bool{}
		for _, notice := range receiver.seen() {
			for _, token := range notice.Tokens {
				told[token.Name] = true
			}
		}
		return len(told) == n
	})
	w.eventually("noted", func() bool {
		_, owed := d.metric(`rotatord_token_hook_failing_timestamp_seconds{token="t00"}`)
		return !owed && failing(d) == 0
	})
	if got := receiver.seen(); len(got) != 1 {
		t.Errorf("%d requests tell of %d tokens", len(got), n)
	}
}

// TestHookAtAReload: a program that runs while the configuration is reloaded is not run a second time beside itself for
// another token.
func TestHookAtAReload(t *testing.T) {
	w := newWorld(t)
	log, goOn := filepath.Join(w.dir, "runs"), filepath.Join(w.dir, "go-on")
	script := w.write("reload.sh", fmt.Sprintf("#!/bin/sh\necho begins >> %s\nwhile [ ! -e %s ]; do sleep 0.02; done\necho ends >> %[1]s\n", log, goOn))
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"first", "second"} {
		w.token(name, seldom, "1h")
		w.tokens[i].Rest = fmt.Sprintf("after: [{exec: {command: [%s]}}]", script)
	}
	d := w.start(w.config())
	rotate := func(name string) {
		t.Helper()
		w.eventually("rotated", func() bool {
			_, err := d.Rotate(t.Context(), name, rotation.Overrides{}, "ops")
			return err == nil
		})
	}
	runs := func() string {
		content, _ := os.ReadFile(log)
		return string(content)
	}
	rotate("first")
	w.eventually("the program runs", func() bool { return runs() == "begins\n" })
	if err := d.Reload(t.Context(), w.config()); err != nil {
		t.Fatal(err)
	}
	rotate("second")
	time.Sleep(200 * time.Millisecond)
	if got := runs(); got != "begins\n" {
		t.Errorf("the program runs twice at the same time: %q", got)
	}
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.eventually("both done", func() bool {
		return d.status("first").HooksOwed.IsZero() && d.status("second").HooksOwed.IsZero() && strings.Count(runs(), "ends\n") == 2
	})
}
