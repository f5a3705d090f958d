package crash

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/test/program"
)

// TestKilledWhileWritingAFile kills the daemon right before the new file takes the place of the old one. There
// is no Vault. The old file is whole, the temporary file holds a secret that is not lost, and the next life
// delivers that secret, without a second rotation, and removes what was left.
func TestKilledWhileWritingAFile(t *testing.T) {
	dir := t.TempDir()
	sim := cfsim.New(cfsim.Options{RateLimit: -1, SeedTokens: 1})
	api := httptest.NewServer(sim)
	defer api.Close()
	w := &world{t: t, dir: dir, simURL: api.URL}
	place := filepath.Join(dir, "cf.env")
	const old = "# mine\nCF_ACCESS_CLIENT_SECRET=old\n"
	for name, content := range map[string]string{
		"cf.env": old, "api-token": "crash",
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
    sinks: [{file: {path: %[4]s, mode: "0640", fields: {client_id: CF_ACCESS_CLIENT_ID, client_secret: CF_ACCESS_CLIENT_SECRET}}}]
`, dir, api.URL+cfsim.BasePath, cfsim.SeedTokenID(1), place),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left := func() []string {
		found, _ := filepath.Glob(filepath.Join(dir, ".new-cf.env-*"))
		return found
	}
	first := w.start("file.rename=kill")
	program.Eventually(t, 30*time.Second, "the daemon runs", func() bool { return first.status() != nil })
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	order := exec.Command(path, "rotate", "ci", "--config", w.config())
	if out, err := order.CombinedOutput(); err == nil { // the daemon dies meanwhile
		t.Errorf("the rotation succeeded:\n%s", out)
	}
	program.Eventually(t, 30*time.Second, "the daemon is killed at the write", func() bool { return first.dies(time.Millisecond) })
	if fate := first.fate(); fate != "" {
		t.Fatalf("%s\n%s", fate, first.log)
	}
	if b, err := os.ReadFile(place); err != nil || string(b) != old {
		t.Errorf("the old file is %q, %v", b, err)
	}
	if n := len(left()); n != 1 {
		t.Errorf("%d temporary files were left, want 1", n)
	}
	second := w.start("")
	value := ""
	program.Eventually(t, 30*time.Second, "the secret is delivered", func() bool {
		b, _ := os.ReadFile(place)
		_, value, _ = strings.Cut(string(b), "CF_ACCESS_CLIENT_SECRET=")
		value, _, _ = strings.Cut(value, "\n")
		return value != "old"
	})
	program.Eventually(t, 30*time.Second, "the rotation is done", func() bool {
		for _, s := range second.status() {
			if s.Name == "ci" && !s.LastSuccess.IsZero() {
				return true
			}
		}
		return false
	})
	if err := second.terminate(); err != nil {
		t.Error(err)
	}
	if all := sim.Secrets(cfsim.SeedTokenID(1)); len(all) != 2 || all[1].Value.Reveal() != value {
		t.Errorf("Cloudflare has issued %d secrets, and the last one is not in the file", len(all))
	}
	if found := left(); len(found) != 0 {
		t.Errorf("%q is still there", found)
	}
	if info, err := os.Stat(place); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
}
