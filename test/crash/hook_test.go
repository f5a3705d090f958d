package crash

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/statedir"
	"rotatord/test/program"
)

// TestKilledAroundAHook kills the daemon before and after each save of the ledger that a hook needs. The hook is not
// lost, and runs once for the rotation. Only if it has run, and the ledger does not have that yet, it runs again, and sees that.
func TestKilledAroundAHook(t *testing.T) {
	for point, attempts := range map[string][]string{
		"hook.begin.before": {"1"},
		"hook.begin.after":  {"2"},
		"hook.end.before":   {"1", "2"},
		"hook.end.after":    {"1"},
	} {
		t.Run(point, func(t *testing.T) { killedAroundAHook(t, point, attempts) })
	}
}

func killedAroundAHook(t *testing.T, point string, attempts []string) {
	dir := t.TempDir()
	api := httptest.NewServer(cfsim.New(cfsim.Options{RateLimit: -1, SeedTokens: 1}))
	defer api.Close()
	w := &world{t: t, dir: dir, simURL: api.URL}
	noted := filepath.Join(dir, "noted")
	for name, content := range map[string]string{
		"noted": "", "api-token": "crash",
		"config.yaml": fmt.Sprintf(`
listen: 127.0.0.1:0
admin_socket: %[1]s/admin.sock
state: {dir: %[1]s/state}
accounts: {sim: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, api_token: {file: %[1]s/api-token}, base_url: %[2]s}}
tokens:
  ci:
    account: sim
    id: %[3]s
    schedule: "@every 720h"
    grace: 1h
    sinks: [{file: {path: %[1]s/cf.env, fields: {client_id: ID, client_secret: SECRET}}}]
    after: [{exec: {command: [sh, -c, "echo $ROTATORD_ROTATION_ID $ROTATORD_DIGEST $ROTATORD_ATTEMPT >> %[4]s"]}}]
`, dir, api.URL+cfsim.BasePath, cfsim.SeedTokenID(1), noted),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runs := func() (all []string) {
		b, err := os.ReadFile(noted)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Collect(strings.Lines(string(b)))
	}
	owed := func() int {
		records, err := statedir.ReadLedger(t.Context(), filepath.Join(dir, "state"))
		if err != nil || len(records) != 1 {
			t.Fatalf("the ledger: %d records, %v", len(records), err)
		}
		return len(records[0].OwedHooks())
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	rotate := func(p *process) ([]byte, error) {
		program.Eventually(t, 30*time.Second, "the daemon runs", func() bool { return p.status() != nil })
		return exec.Command(path, "rotate", "ci", "--override-grace", "--config", w.config()).CombinedOutput()
	}

	first := w.start(point + "=kill")
	_, _ = rotate(first) // it may be killed before it answers
	program.Eventually(t, 30*time.Second, "the daemon is killed at "+point, func() bool { return first.dies(time.Millisecond) })
	if fate := first.fate(); fate != "" {
		t.Fatalf("%s\n%s", fate, first.log)
	}
	lost := 1
	if point == "hook.end.after" {
		lost = 0
	}
	if n := owed(); n != lost {
		t.Errorf("after the kill %d hooks are owed, want %d", n, lost)
	}

	second := w.start("")
	program.Eventually(t, 30*time.Second, "the daemon runs", func() bool { return second.status() != nil })
	program.Eventually(t, 30*time.Second, "the hook has run", func() bool { return len(runs()) >= len(attempts) })
	if err := second.terminate(); err != nil {
		t.Error(err)
	}
	if n := owed(); n != 0 {
		t.Errorf("after a stop %d hooks are owed", n)
	}

	// The next rotation has its own run, and the one before is not repeated.
	third := w.start("")
	if out, err := rotate(third); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program.Eventually(t, 30*time.Second, "the hook has run for the next rotation", func() bool { return len(runs()) > len(attempts) })
	if err := third.terminate(); err != nil {
		t.Error(err)
	}
	all := runs()
	var got, rotations []string
	for _, run := range all {
		words := strings.Fields(run)
		if len(words) != 3 {
			t.Fatalf("a run noted %q", run)
		}
		got, rotations = append(got, words[2]), append(rotations, words[0]+" "+words[1])
	}
	if want := append(slices.Clone(attempts), "1"); !slices.Equal(got, want) {
		t.Errorf("the runs were attempts %v, want %v", got, want)
	}
	slices.Sort(rotations)
	if n := len(slices.Compact(rotations)); n != 2 {
		t.Errorf("they were for %d rotations, want 2:\n%s", n, all)
	}
}
