package hook_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/hook"
)

var items = []hook.Item{{Token: "a", ID: "R1", RotationID: "R1", Digest: "sha256:a", Attempt: 1}, {Token: "b", ID: "R2", RotationID: "R2", Digest: "sha256:b", Attempt: 2}}

func open(t *testing.T, c config.Hook) hook.Hook {
	t.Helper()
	h, err := hook.Open(c, hook.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func command(timeout time.Duration, words ...string) *config.ExecHook {
	return &config.ExecHook{Command: words, HookTimes: config.HookTimes{Timeout: timeout}}
}

// TestExec is what a program learns, and what its end means.
func TestExec(t *testing.T) {
	canary := "cfast_" + strings.Repeat("Ab1", 16)
	t.Setenv("CANARY", canary)
	out := filepath.Join(t.TempDir(), "out")
	script := fmt.Sprintf(`env > %s; pwd >> %[1]s; cat >> %[1]s; ls /proc/self/fd | wc -l >> %[1]s`, out)
	if err := open(t, command(10*time.Second, "sh", "-c", script)).Run(t.Context(), items); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"ROTATORD_TOKEN=a b", "ROTATORD_ROTATION_ID=R1 R2", "ROTATORD_DIGEST=sha256:a sha256:b", "ROTATORD_ATTEMPT=2", "/", "4"} {
		if !strings.Contains("\n"+string(content), "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, content)
		}
	}
	if strings.Contains(string(content), "CANARY") {
		t.Errorf("the program has the environment of the daemon:\n%s", content)
	}

	for _, test := range []struct{ script, want string }{
		{"echo out; echo err >&2; exit 3", "exit status 3: out err"},
		{"echo " + canary + "; exit 1", "exit status 1: [redacted]"},
		{"exit 4", "exit status 4, without output"},
		{"kill -9 $$", "was ended by a signal"},
		{"head -c 3000000 /dev/zero | tr '\\0' x; exit 5", "exit status 5: ...xxx"},
	} {
		err := open(t, command(10*time.Second, "sh", "-c", test.script)).Run(t.Context(), items)
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), test.want) || strings.Contains(err.Error(), canary) || len(err.Error()) > 600 {
			t.Errorf("%s: %v", test.script, err)
		}
	}
	for _, words := range [][]string{{"no-such-program-of-this-test"}, {"/no/such/program"}, {"/"}, {"/etc/passwd"}} {
		h := open(t, command(time.Second, words...))
		if err := h.Run(t.Context(), items); err == nil {
			t.Errorf("%s has run", words)
		} else if check := h.Check(t.Context()); check == nil || check.Error() != err.Error() {
			t.Errorf("the check says %v, the run %v", check, err)
		}
	}
	if err := open(t, command(time.Second, "true")).Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestExecIsEnded: at the timeout, and when the daemon stops, the program ends with all that it has started, also if it
// ignores SIGTERM.
func TestExecIsEnded(t *testing.T) {
	for name, stops := range map[string]bool{"timeout": false, "stop": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pids := filepath.Join(t.TempDir(), "pids")
			script := fmt.Sprintf(`trap "" TERM; (trap "" TERM; sleep 300) & echo $! > %s; echo $$ >> %[1]s; wait; sleep 300`, pids)
			timeout, ctx := time.Second, t.Context()
			if stops {
				var cancel context.CancelFunc
				ctx, cancel = context.WithCancel(ctx)
				timeout = time.Hour
				time.AfterFunc(time.Second, cancel)
			}
			began := time.Now()
			err := open(t, command(timeout, "sh", "-c", script)).Run(ctx, items)
			if took := time.Since(began); err == nil || took > 20*time.Second || errors.Is(err, context.Canceled) != stops {
				t.Errorf("after %s: %v", took, err)
			}
			content, readErr := os.ReadFile(pids)
			if readErr != nil {
				t.Fatal(readErr)
			}
			for text := range strings.FieldsSeq(string(content)) {
				pid, _ := strconv.Atoi(text)
				for end := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("process %d still runs", pid)
					}
				}
			}
		})
	}
}

// alive reports whether a process runs. One that has ended and is not waited for by its parent does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && syscall.Kill(pid, 0) == nil && !strings.Contains(string(stat), ") Z ")
}

// TestWebhookAnswers: only 2xx is success; what a receiver answers is bounded and cleaned.
func TestWebhookAnswers(t *testing.T) {
	t.Setenv("HOOK_SECRET", "key")
	canary := "cfast_" + strings.Repeat("Ab1", 16)
	for _, test := range []struct {
		serve http.HandlerFunc
		want  string
	}{
		{func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, ""},
		{func(w http.ResponseWriter, _ *http.Request) { http.Error(w, canary, http.StatusForbidden) }, "answered 403"},
		{func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example.com/", http.StatusFound)
		}, "redirect"},
		{func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		{func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() }, "no answer within 1s"},
	} {
		server := httptest.NewServer(test.serve)
		h := open(t, &config.WebhookHook{URL: server.URL, Secret: config.SecretSource{Env: "HOOK_SECRET"}, HookTimes: config.HookTimes{Timeout: time.Second}})
		err := h.Run(t.Context(), items)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) || err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%v, want %q", err, test.want)
		}
		server.CloseClientConnections()
		server.Close()
	}
}

// TestWebhookBodyWithoutEnd: a receiver that answers 200 and does not end its answer has taken the request.
func TestWebhookBodyWithoutEnd(t *testing.T) {
	t.Setenv("HOOK_SECRET", "key")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then the end of the connection is seen
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	h := open(t, &config.WebhookHook{URL: server.URL, Secret: config.SecretSource{Env: "HOOK_SECRET"}, HookTimes: config.HookTimes{Timeout: 10 * time.Second}})
	began := time.Now()
	if err := h.Run(t.Context(), items); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// TestWebhookOfAPrivateAuthority: a receiver with a certificate of a private authority gets requests if ca_file names it, and
// nothing otherwise. The file is read for each request. What is wrong with it is said with its path.
func TestWebhookOfAPrivateAuthority(t *testing.T) {
	t.Setenv("HOOK_SECRET", "key")
	var got atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	c := &config.WebhookHook{URL: server.URL, Secret: config.SecretSource{Env: "HOOK_SECRET"}, HookTimes: config.HookTimes{Timeout: 10 * time.Second}}
	h := open(t, c)
	try := func(want string) {
		t.Helper()
		for _, err := range []error{h.Run(t.Context(), items), h.Check(t.Context())} {
			if err == nil || !strings.Contains(err.Error(), want) || got.Load() != 0 {
				t.Errorf("%v, want %s; %d requests", err, want, got.Load())
			}
		}
	}
	try("name the file with its authority in after.webhook.ca_file")
	c.CAFile = file
	try("ca_file: reading " + file)
	for content, want := range map[string]string{"": "it is empty", "hello": "has no line -----BEGIN"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		try(want)
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Check(t.Context()), h.Run(t.Context(), items)); err != nil || got.Load() != 1 {
		t.Errorf("%v; %d requests", err, got.Load())
	}
}
