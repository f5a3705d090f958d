package app_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

// fields are what a place in Vault holds.
func fields(clientSecret string) map[string]any {
	return map[string]any{"client_id": "c", "client_secret": clientSecret, "note": "of another program"}
}

// withFile returns the configuration of a token with a place in Vault and a file, and the path of the file.
func (w *world) withFile(spec tokenSpec, more string) (*config.Config, string) {
	w.t.Helper()
	path := filepath.Join(w.dir, "files", "ci.env")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	text := fmt.Sprintf(`listen: 127.0.0.1:0
state: {dir: %s}
accounts: {sim: {account_id: %s, api_token: {file: %s}, base_url: %s}}
vault: {address: %s, auth: {token: {file: %s}}}
tokens:
  %s: {account: sim, id: %s, schedule: "@every 2000h", grace: 0s%s, sinks: [{vault: {mount: secret, path: access/%s}}, {file: {path: %s, format: env}}]}
`, w.stateDir(), cfsim.DefaultAccountID, filepath.Join(w.dir, "cloudflare-api-token"), w.simURL+cfsim.BasePath, w.vaultURL, filepath.Join(w.dir, "vault-token"),
		spec.Name, spec.ID, more, spec.Name, path)
	c, err := config.Parse("config.yaml", []byte(text))
	if err != nil {
		w.t.Fatalf("%v\n%s", err, text)
	}
	return c, path
}

// TestWatchOfRealSinks changes a place in Vault and a file as others do, and checks what the daemon shows and does.
func TestWatchOfRealSinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.token("ci", "@every 2000h", "0s")
	c, path := w.withFile(ci, "")
	d := w.start(c)
	rotate := func() {
		t.Helper()
		w.eventually("rotated", func() bool {
			_, err := d.Rotate(t.Context(), "ci", rotation.Overrides{Grace: true}, "ops")
			return err == nil
		})
	}
	rotate()
	rotate()
	const vault = "vault:secret/access/ci"
	file := "file:" + path
	want := func(findings ...string) {
		t.Helper()
		d.WatchSinks(t.Context())
		var got []string
		for _, f := range d.status("ci").Findings {
			got = append(got, f.Sink+" "+f.Kind)
			if v, ok := d.metric(fmt.Sprintf("rotatord_sink_finding_timestamp_seconds{finding=%q,sink=%q,token=\"ci\"}", f.Kind, f.Sink)); !ok || v == 0 {
				t.Errorf("no metric shows %s", f.Kind)
			}
		}
		if strings.Join(got, ", ") != strings.Join(findings, ", ") {
			t.Errorf("found %q, want %q", got, findings)
		}
	}
	want()
	ours := w.vault.Read("secret", "access/ci")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ours["note"] = "another field"
	w.vault.Write("secret", "access/ci", ours)
	want()
	w.vault.Write("secret", "access/ci", fields("another secret"))
	want(vault + " changed")
	if f := d.status("ci").Findings[0]; f.PutBack != fmt.Sprintf("vault kv rollback -mount=secret -version=%d access/ci", f.WantVersion) || f.WantVersion != f.Version-2 {
		t.Errorf("%+v", f)
	}
	w.vault.Write("secret", "access/ci", map[string]any{"client_id": "c", "client_secret": 7})
	want(vault + " no_secret")
	w.vault.Delete("secret", "access/ci")
	want(vault + " deleted")
	w.vault.Write("secret", "access/ci", ours)
	want()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want(file + " gone")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	want()
	w.vault.Write("secret", "access/ci", fields("another secret"))
	want(vault + " changed")
	rotate()
	want()
	if n := len(d.logged("a sink holds another secret than the one that was written to it: rotatord status ci")); n != 2 {
		t.Errorf("%d lines in the log", n)
	}
	if !w.delivered(ci) || len(w.seen("rotate")) != 3 {
		t.Error("a finding has led to a rotation")
	}
}

// TestRestoreOfRealSinks: the secret is written back from the file to Vault and from Vault to the file, beside what
// other programs have there.
func TestRestoreOfRealSinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.token("ci", "@every 2000h", "0s")
	c, path := w.withFile(ci, ", outside_change: restore")
	d := w.start(c)
	for range 2 {
		w.eventually("rotated", func() bool {
			_, err := d.Rotate(t.Context(), "ci", rotation.Overrides{Grace: true}, "ops")
			return err == nil
		})
	}
	w.vault.Write("secret", "access/ci", fields("another secret"))
	d.WatchSinks(t.Context())
	if !w.delivered(ci) || w.vault.Read("secret", "access/ci")["note"] != "of another program" {
		t.Fatalf("%+v\n%s", d.status("ci"), d.log)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.offset.Add(int64(31 * time.Minute))
	d.WatchSinks(t.Context())
	content, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(content), w.truth(ci).Reveal()) {
		t.Errorf("%v, %d bytes\n%s", err, len(content), d.log)
	}
	shown := d.status("ci")
	if len(shown.Findings) > 0 || shown.RestoredAt.IsZero() || len(w.seen("rotate")) != 2 {
		t.Errorf("%+v", shown)
	}
	d.wantMetric(`rotatord_sink_restores_total{result="success"}`, 2)

	// A person rotates by hand and writes the new secret to both sinks: it stays there.
	_, theirs, err := w.sim.Rotate(ci.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.vault.Write("secret", "access/ci", fields(theirs.Reveal()))
	w.offset.Add(int64(3 * time.Hour)) // the wait after two restores
	d.WatchSinks(t.Context())
	if got := w.vault.Read("secret", "access/ci")["client_secret"]; got != theirs.Reveal() {
		t.Error("the secret of a person was written over")
	}
	if shown := d.status("ci"); shown.NotRestored == "" {
		t.Errorf("%+v", shown)
	}
}
