package app_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/vault/vaulttest"
)

// fifo creates a named pipe: opening it for reading waits for a writer.
func (w *world) fifo(name string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// replace replaces a file in one step.
func (w *world) replace(name, content string) {
	w.t.Helper()
	if err := os.Rename(w.write(name+".new", content), filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

// twoAccounts are sim and blocked, each with a credential file.
func (w *world) twoAccounts() string {
	account := func(name, file string) string {
		return fmt.Sprintf("%s: {account_id: %s, api_token: {file: %s}, base_url: %s}", name, cfsim.DefaultAccountID,
			filepath.Join(w.dir, file), w.simURL+cfsim.BasePath)
	}
	return "accounts: {" + account("sim", "cloudflare-api-token") + ", " + account("blocked", "blocked-api-token") + "}"
}

// TestCredentialFileThatBlocks: an account whose credential file blocks delays no other account and no
// shutdown. Every view shows it, and its tokens are rotated once the file can be read.
func TestCredentialFileThatBlocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.fifo("blocked-api-token")
	good := w.due("good", "0s")
	blocked := w.due("blocked", "0s")
	w.tokens[1].Rest = "account: blocked"
	later := w.token("later", "@every 720h", "0s") // not due: only its account shows that something is wrong
	w.tokens[2].Rest = "account: blocked"
	d := w.start(w.config(w.twoAccounts()))

	w.eventually("the other account rotates", func() bool { return len(d.events.of("good", event.ResultSuccess)) == 1 })
	w.eventually("the failure is counted", func() bool { return d.status("blocked").Failures > 0 })
	for _, name := range []string{"blocked", "later"} {
		if s := d.status(name); !strings.Contains(s.AccountError, path) || !strings.Contains(s.AccountError, "named pipe") {
			t.Errorf("the status of %s: %+v", name, s)
		}
	}
	if s := d.status("blocked"); !strings.Contains(s.LastError, path) {
		t.Errorf("the last error: %q", s.LastError)
	}
	if s := d.status("good"); s.AccountError != "" || !w.delivered(good) {
		t.Errorf("the other account: %+v", s)
	}
	code, body := d.get("/readyz?verbose")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "[-] credential of blocked: ") || !strings.Contains(body, path) ||
		!strings.Contains(body, "[+] credential of sim") {
		t.Errorf("%d %s", code, body)
	}
	if lines := d.logged("the account's credential cannot be read: none of its tokens can be rotated until it can"); len(lines) != 1 ||
		lines[0]["account"] != "blocked" || !strings.Contains(fmt.Sprint(lines[0]["error"]), path) {
		t.Errorf("in the log: %v", lines)
	}

	w.replace("blocked-api-token", apiToken)
	w.eventually("it is rotated once the file can be read", func() bool { return len(d.events.of("blocked", event.ResultSuccess)) == 1 })
	if s := d.status("later"); s.AccountError != "" || !w.delivered(blocked) || later.Name != s.Name {
		t.Errorf("afterwards: %+v", s)
	}
	if len(d.logged("the account's credential can be read again")) != 1 {
		t.Error("the log does not say that it can be read again")
	}

	// And again while it runs; then it is told to stop.
	w.fifo("blocked-api-token")
	began := time.Now()
	d.stop()
	if took := time.Since(began); took > patience/3 {
		t.Errorf("the stop took %s", took)
	}
}

// TestVaultCredentialThatBlocks: a Vault credential that cannot be read delays no shutdown, is named, and
// is used once it can be read.
func TestVaultCredentialThatBlocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := w.due("ci", "0s")
	path := w.fifo("vault-token")
	d := w.start(w.config())
	w.eventually("the failure is counted", func() bool { return d.status("ci").Failures > 0 })
	if s := d.status("ci"); !strings.Contains(s.LastError, path) || !strings.Contains(s.LastError, "vault.auth.token") {
		t.Errorf("the last error: %q", s.LastError)
	}
	w.replace("vault-token", vaultToken)
	w.eventually("it is rotated", func() bool { return w.delivered(spec) && len(d.events.of("ci", event.ResultSuccess)) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), patience/3)
	defer cancel()
	if err := d.Stop(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("stopping: %v", err)
	}
}

// TestCredentialsOfAllKinds replaces each credential of an account by something that is not a file. The
// daemon still starts, stops, and says what is wrong.
func TestCredentialsOfAllKinds(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(w *world){
		"a directory": func(w *world) { _ = os.Mkdir(filepath.Join(w.dir, "blocked-api-token"), 0o700) },
		"a device":    func(w *world) { _ = os.Symlink("/dev/zero", filepath.Join(w.dir, "blocked-api-token")) },
		"KiB":         func(w *world) { w.write("blocked-api-token", strings.Repeat("x", 1<<20)) },
		"empty":       func(w *world) { w.write("blocked-api-token", "\n") },
		"no such":     func(*world) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			put(w)
			w.token("ci", "@every 720h", "0s")
			w.tokens[0].Rest = "account: blocked"
			d := w.start(w.config(w.twoAccounts()))
			w.eventually("it is told", func() bool {
				s := d.status("ci").AccountError
				return strings.Contains(s, name) && strings.Contains(s, filepath.Join(w.dir, "blocked-api-token"))
			})
		})
	}
}

// TestDoctorAsksTheDaemon: if a secret ID can be used only once, doctor looks at Vault through the daemon's
// session, and there is no second login.
func TestDoctorAsksTheDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.vault = vaulttest.New(vaulttest.Options{Mounts: []vaulttest.Mount{{Path: "secret", Version: 2}},
		AppRole: &vaulttest.AppRole{RoleID: "role", SecretID: vaultToken, TTL: time.Hour, SecretIDUses: 1}})
	w.vault.SetPolicy(func(path string) []string {
		if path == "secret/data/access/ci" {
			return []string{"create", "read", "update"}
		}
		return []string{"deny"}
	})
	server := httptest.NewServer(w.vault)
	t.Cleanup(server.Close)
	w.write("role-id", "role")
	w.due("ci", "0s")
	socket := filepath.Join(w.dir, "run", "admin.sock")
	d := w.start(w.config("admin_socket: "+socket, fmt.Sprintf("vault: {address: %s, auth: {approle: {role_id: {file: %s}, secret_id: {file: %s}}}}", server.URL,
		filepath.Join(w.dir, "role-id"), filepath.Join(w.dir, "vault-token"))))
	w.eventually("it rotates", func() bool { return len(d.events.of("ci", event.ResultSuccess)) == 1 })
	for range 3 {
		got, err := admin.NewClient(socket).LookAtVault(t.Context())
		var codes []string
		for _, f := range got.Findings {
			codes = append(codes, f.Code)
		}
		if err != nil || !slices.Contains(codes, "vault_session") || !slices.Contains(codes, "vault_mount") || !slices.Contains(codes, "sinks_good") {
			t.Errorf("%v, %v", codes, err)
		}
	}
	if n := w.vault.Logins(); n != 1 {
		t.Errorf("%d logins", n)
	}
}

// TestWrappedSecretID: a secret ID that is delivered wrapped is unwrapped once for all lives of the daemon. A daemon that stops
// leaves no session in Vault. A stolen token is shown, and stops no rotation.
func TestWrappedSecretID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.vault = vaulttest.New(vaulttest.Options{Mounts: []vaulttest.Mount{{Path: "secret", Version: 2}},
		AppRole: &vaulttest.AppRole{RoleID: "role", SecretID: vaultToken, TTL: time.Hour}})
	server := httptest.NewServer(w.vault)
	t.Cleanup(server.Close)
	w.write("role-id", "role")
	w.write("wrapping-token", w.vault.WrapSecretID(time.Hour))
	w.due("ci", "0s")
	c := w.config(fmt.Sprintf("vault: {address: %s, auth: {approle: {role_id: {file: %s}, secret_id: {file: %s}, wrapped: true}}}", server.URL,
		filepath.Join(w.dir, "role-id"), filepath.Join(w.dir, "wrapping-token")))
	for range 2 {
		d := w.start(c)
		w.eventually("there is a session", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
		d.stop()
		if w.vault.Unwraps() != 1 || w.vault.Sessions() != 0 {
			t.Errorf("%d unwrapped, %d sessions are left", w.vault.Unwraps(), w.vault.Sessions())
		}
	}
	stolen := w.vault.WrapSecretID(time.Hour)
	w.vault.Unwrap(stolen)
	w.write("wrapping-token", stolen)
	d := w.start(c)
	w.eventually("it is ready", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
	w.eventually("the check fails", func() bool {
		v, ok := d.metric(`rotatord_check_ok{check="wrapping_token",subject=""}`)
		return ok && v == 0
	})
	if since, ok := d.metric("rotatord_vault_unwrap_failed_timestamp_seconds"); !ok || since == 0 {
		t.Errorf("the metric of the alarm is %f (%t)", since, ok)
	}
	d.wantMetric(`rotatord_vault_logins_total{method="approle",result="success"}`, 1)
	if len(d.logged("the wrapping token cannot be unwrapped: another program may have the secret ID")) != 1 {
		t.Errorf("the log does not say so")
	}
}

// TestLedgerIsDeletedUnderTheDaemon: the daemon says so, and begins no rotation whose record would be lost.
func TestLedgerIsDeletedUnderTheDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("ci", "@every 720h", "0s")
	socket := filepath.Join(w.dir, "admin.sock")
	d := w.start(w.config("admin_socket: " + socket))
	w.eventually("it is ready", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
	ledger := filepath.Join(w.stateDir(), "journal.db")
	if err := os.Rename(ledger, ledger+".gone"); err != nil {
		t.Fatal(err)
	}
	if code, body := d.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "[-] ledger: the ledger was deleted under the running daemon") {
		t.Errorf("%d %s", code, body)
	}
	if _, err := admin.NewClient(socket).Rotate(t.Context(), "ci", rotation.Overrides{}); err == nil || !strings.Contains(err.Error(), "was deleted under") {
		t.Errorf("a rotation began: %v", err)
	}
	if n := len(w.seen("rotate")); n != 0 {
		t.Errorf("%d rotate requests", n)
	}
	if err := os.Rename(ledger+".gone", ledger); err != nil {
		t.Fatal(err)
	}
	w.eventually("it is ready again", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
}
