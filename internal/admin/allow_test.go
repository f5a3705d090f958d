//go:build linux

package admin_test

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// TestAllowedVerbsAreThoseOfCommands: what admin.allow can name is what the socket knows.
func TestAllowedVerbsAreThoseOfCommands(t *testing.T) {
	want := []string{"all"}
	for _, kind := range event.Commands {
		want = append(want, kind.Name())
	}
	slices.Sort(want)
	if got := slices.Sorted(slices.Values(config.AllowVerbs)); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestAllow: who may use what, for root as the peer.
func TestAllow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root is the peer of this test")
	}
	root := []string{"all"}
	for _, c := range []struct {
		what            string
		allow           []config.Allow
		reads, resolves bool
	}{
		{"nothing is configured", nil, true, true},
		{"root is in no entry", []config.Allow{{User: "alice", Verbs: root}}, true, true},
		{"root by name, to read", []config.Allow{{User: "root", Verbs: []string{"status"}}}, true, false},
		{"root by number, to resolve", []config.Allow{{User: "0", Verbs: []string{"resolve"}}}, false, true},
		{"root by name and by group", []config.Allow{{User: "root", Verbs: []string{"pause"}}, {Group: "root", Verbs: []string{"status"}}}, true, false},
		{"root, for all", []config.Allow{{User: "root", Verbs: root}}, true, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			path, _ := serve(t, newDaemon(), c.allow...)
			client := admin.NewClient(path)
			_, readErr := client.Tokens(t.Context())
			_, historyErr := client.History(t.Context(), status.HistoryQuery{})
			_, resolveErr := client.Resolve(t.Context(), "ci", rotation.ResolveLook)
			for what, got := range map[string]struct {
				err error
				may bool
			}{"status": {readErr, c.reads}, "history": {historyErr, c.reads}, "resolve": {resolveErr, c.resolves}} {
				refused, isRefusal := errors.AsType[*admin.Refused](got.err)
				if got.may != (got.err == nil) || !got.may && (!isRefusal || refused.Code != http.StatusForbidden || !strings.Contains(refused.Message, "Ask for {user: root, verbs: [")) {
					t.Errorf("%s: %v", what, got.err)
				}
			}
		})
	}
}

// TestAllowOfOthers: the kernel's word for user and groups of another process counts. It gets no right that is not in
// an entry.
func TestAllowOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	const uid, gid, further = 64001, 64002, 64003
	run := func(path string) string {
		// With a umask of 077, go test builds a binary that another user may not run.
		if err := os.Chmod("/proc/self/exe", 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
		cmd.Env = []string{asStranger + "=" + path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: []uint32{further}}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	for _, c := range []struct {
		what  string
		allow config.Allow
		may   bool
	}{
		{"its user", config.Allow{User: strconv.Itoa(uid), Verbs: []string{"resolve"}}, true},
		{"its group", config.Allow{Group: strconv.Itoa(gid), Verbs: []string{"resolve"}}, true},
		{"a further group", config.Allow{Group: strconv.Itoa(further), Verbs: []string{"all"}}, true},
		{"another verb", config.Allow{User: strconv.Itoa(uid), Verbs: []string{"status", "pause"}}, false},
		{"another user", config.Allow{User: strconv.Itoa(gid), Verbs: []string{"all"}}, false},
		{"another group", config.Allow{Group: "root", Verbs: []string{"all"}}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			path, log := serve(t, newDaemon(), c.allow)
			for dir := filepath.Dir(path); dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
				if err := os.Chmod(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(path, 0o666); err != nil {
				t.Fatal(err)
			}
			out := run(path)
			if refused := strings.Contains(out, "uid 64001 may not use resolve"); refused == c.may {
				t.Errorf("%s", out)
			}
			if told := strings.Contains(log.String(), `"outcome":"refused"`); told == c.may {
				t.Errorf("the log: %s", log.String())
			}
		})
	}
}

// TestRefusedReadingIsToldOnce: a command that is repeated every second does not fill the record.
func TestRefusedReadingIsToldOnce(t *testing.T) {
	if _, err := user.Lookup("root"); err != nil || os.Geteuid() != 0 {
		t.Skip("root is the peer of this test")
	}
	path, log := serve(t, newDaemon(), config.Allow{User: "root", Verbs: []string{"pause"}})
	for range 5 {
		if _, err := admin.NewClient(path).Tokens(t.Context()); err == nil {
			t.Fatal("it was allowed")
		}
	}
	time.Sleep(time.Millisecond)
	if n := strings.Count(log.String(), `"verb":"status"`); n != 1 {
		t.Errorf("it was told %d times: %s", n, log.String())
	}
}

// TestEachReadingIsGuarded: no handler of a command that only reads is beside admin.allow.
func TestEachReadingIsGuarded(t *testing.T) {
	source, err := os.ReadFile("server.go")
	if err != nil {
		t.Fatal(err)
	}
	if text := string(source); strings.Contains(text, `mux.HandleFunc("GET /`) || strings.Count(text, "read(\"/v1/") < 6 {
		t.Error("a GET is registered without read")
	}
}
