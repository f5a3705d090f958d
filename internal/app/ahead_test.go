package app_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/status"
	"rotatord/internal/vault/vaulttest"
)

// check returns the last result of a check; the zero Check if it was never done.
func (d *daemon) check(name string) status.Check {
	for _, c := range d.App.Checks() {
		if c.Name == name {
			return c
		}
	}
	return status.Check{}
}

// troubles returns what rotatord status begins with.
func (d *daemon) troubles() []status.Trouble {
	return status.Troubles(d.Tokens(), d.App.Checks(), d.w.now())
}

// TestFaultsAreSeenBeforeASlot breaks each thing that a rotation needs, one at a time, while no slot is near.
// The fault is shown in the metrics, in readiness and in the first lines of status. It sends no rotate
// request and writes nothing to Vault, and it is over when the thing is repaired.
func TestFaultsAreSeenBeforeASlot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		check, subject, reason, detail string
		fault, mend                    func(w *world)
	}{
		"Vault is sealed": {status.CheckVault, "", "sealed", "Vault is sealed",
			func(w *world) { w.vault.Seal(true) }, func(w *world) { w.vault.Seal(false) }},
		"a policy without update": {status.CheckSink, "vault:secret", "refused", "vault:secret/access/ci, of token ci",
			func(w *world) { w.vault.SetPolicy(func(string) []string { return []string{"read"} }) }, func(w *world) { w.vault.SetPolicy(nil) }},
		"the Vault token was revoked": {status.CheckSink, "vault:secret", "refused", "Vault denied permission",
			func(w *world) { w.vault.RevokeAll() }, nil},
		// Vault says that it is well, but cannot write its audit log (a public report about sys/health).
		"Vault is unsealed and serves nothing": {status.CheckSink, "vault:secret", "server_error", "HTTP 500",
			func(w *world) { w.vault.Inject(vaulttest.Fault{Count: 1 << 30, Reads: true, Status: 500}) },
			func(w *world) { w.vault.ClearFaults() }},
		"the API token was revoked": {status.CheckCloudflare, "sim", "refused", "cloudflare get: refused (HTTP 403)",
			func(w *world) { w.sim.SetBehaviour(cfsim.Behaviour{APITokenStatus: cfsim.APITokenRevoked}) },
			func(w *world) { w.sim.SetBehaviour(cfsim.Behaviour{}) }},
		"Cloudflare fails": {status.CheckCloudflare, "sim", "server_error", "HTTP 502",
			func(w *world) {
				if err := w.sim.Inject(cfsim.Fault{Kind: cfsim.KindStatus, Status: 502, When: cfsim.Before, Count: -1}); err != nil {
					w.t.Fatal(err)
				}
			}, func(w *world) { w.sim.ClearFaults() }},
		"the ledger was deleted": {status.CheckStateDirectory, "", "missing", "the ledger was deleted under the running daemon",
			func(w *world) {
				if err := os.Rename(w.ledger(), w.ledger()+".away"); err != nil {
					w.t.Fatal(err)
				}
			}, func(w *world) {
				if err := os.Rename(w.ledger()+".away", w.ledger()); err != nil {
					w.t.Fatal(err)
				}
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.token("ci", seldom, "1h")
			w.write("vault-token", w.vault.AddToken(time.Hour, time.Hour)) // it can be revoked
			d := w.start(w.config())
			w.eventually("all is well", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK && len(d.Ahead()) == 7 })
			if got := d.troubles(); len(got) != 0 {
				t.Errorf("troubles before: %+v", got)
			}
			writes := w.vault.Writes()

			test.fault(w)
			w.eventually("it is seen", func() bool { d.LookAhead(); return d.check(test.check).Reason != "" })
			c := d.check(test.check)
			if place := map[string]string{status.CheckVault: w.config().Vault.Address, status.CheckSink: w.config().Vault.Address}[c.Name]; place != "" && c.Place != place || c.Place == "" {
				t.Errorf("it is to be mended at %q", c.Place)
			}
			if c.OK || !c.Stops || c.Subject != test.subject || c.Reason != test.reason || !strings.Contains(c.Detail, test.detail) || c.Since.IsZero() {
				t.Errorf("the check is %+v", c)
			}
			if got := d.troubles(); len(got) != 1 || got[0].Severity != status.Warning || got[0].Check == nil || got[0].Check.Name != test.check {
				t.Errorf("troubles: %+v", got)
			}
			labels := `{check="` + test.check + `",subject="` + test.subject + `"}`
			d.wantMetric("rotatord_check_ok"+labels, 0)
			if since, ok := d.metric("rotatord_check_failing_since_timestamp_seconds" + strings.TrimSuffix(strings.Replace(labels, ",subject", `,reason="`+test.reason+`",subject`, 1), "")); !ok || since == 0 {
				t.Errorf("the metric says %v, %v", since, ok)
			}
			if code, body := d.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, test.detail) {
				t.Errorf("ready: %d %s", code, body)
			}
			if _, body := d.get("/"); !strings.Contains(body, `<span class="sev">warning</span>`) || !strings.Contains(body, "<b>"+c.Title()) {
				t.Errorf("the page does not say it: %s", body)
			}
			lines, texts := d.logged("the next rotation could not begin: something that it needs is missing"), map[any]bool{}
			for _, line := range lines {
				texts[line["error"]] = true
			}
			if len(lines) == 0 || len(lines) != len(texts) || lines[0]["check"] != test.check {
				t.Errorf("logged: %v", lines)
			}
			if n := w.vault.Writes() - writes; n != 0 || len(w.seen("rotate")) != 0 {
				t.Errorf("the checks wrote %d times and rotated %d times", n, len(w.seen("rotate")))
			}
			if test.mend == nil {
				return
			}
			test.mend(w)
			w.eventually("it is mended", func() bool { d.LookAhead(); code, _ := d.get("/readyz"); return code == http.StatusOK })
			w.eventually("the end is logged", func() bool { return len(d.logged("what rotations need is there again")) == 1 })
			if got := d.troubles(); len(got) != 0 {
				t.Errorf("troubles after: %+v", got)
			}
		})
	}
}

// ledger returns the path of the ledger file.
func (w *world) ledger() string {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(w.stateDir(), "journal.db*"))
	if err != nil || len(found) != 1 {
		w.t.Fatal(found, err)
	}
	return strings.TrimSuffix(found[0], ".away")
}

// TestFullDiskIsSeenAtTheStart: without a due slot, and by a daemon that has written nothing yet.
func TestFullDiskIsSeenAtTheStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	disk := w.onDisk(400)
	w.token("ci", seldom, "1h")
	d := w.start(w.config())
	w.eventually("all is well", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
	d.stop()
	disk.Fill()
	d = w.start(w.config())
	w.eventually("it is seen", func() bool { return d.check(status.CheckStateDirectory).Reason == "no_space" })
	if code, body := d.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "[-] journal: ") {
		t.Errorf("ready: %d %s", code, body)
	}
	w.eventually("the space is seen", func() bool {
		return slices.ContainsFunc(d.Ahead(), func(c status.Check) bool { return c.Name == status.CheckDiskSpace && c.Reason == "no_space" })
	})
	if got := d.troubles(); len(got) != 1 || got[0].Check.Name != status.CheckStateDirectory {
		t.Errorf("one fault is shown as %+v", got)
	}
	disk.Free()
	w.eventually("it is mended", func() bool { d.LookAhead(); return d.check(status.CheckStateDirectory).OK })
}

// TestChecksOfALimitedSession: each use of such a session is kept for a rotation.
func TestChecksOfALimitedSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("ci", seldom, "1h")
	token := w.vault.AddToken(time.Hour, time.Hour)
	w.vault.LimitUses(token, 100)
	w.write("vault-token", token)
	d := w.start(w.config())
	w.eventually("the others were looked at", func() bool {
		code, _ := d.get("/readyz")
		return code == http.StatusOK && d.check(status.CheckVault).OK
	})
	for range 20 {
		d.LookAhead()
		w.eventually("all was looked at", func() bool { return d.check(status.CheckCloudflare).OK })
	}
	if probes := w.vault.Probes(); probes != 0 {
		t.Errorf("%d writes were proven", probes)
	}
	if c := d.check(status.CheckSink); c != (status.Check{}) {
		t.Errorf("the sink is said to be %+v", c)
	}
}

// TestReloadChangesChecks: accounts and mounts are added and removed, and a refused reload is a trouble.
func TestReloadChangesChecks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("ci", seldom, "1h")
	d := w.start(w.config())
	names := func() (all []string) {
		for _, c := range d.App.Checks() {
			all = append(all, c.Title())
		}
		return all
	}
	w.eventually("all was looked at", func() bool { return len(d.Ahead()) == 7 })
	if err := d.reload(func(c *config.Config) { c.Tokens[0].Sinks[0].(*config.VaultSink).Mount = "kv" }); err != nil {
		t.Fatal(err)
	}
	w.eventually("the other mount is looked at", func() bool { return slices.Contains(names(), "sink vault:kv") })
	if slices.Contains(names(), "sink vault:secret") {
		t.Errorf("the checks are %q", names())
	}
	if err := d.reload(func(c *config.Config) { c.Listen = "127.0.0.1:1" }); err == nil {
		t.Fatal("it was taken")
	}
	if c := d.check(status.CheckConfiguration); c.OK || c.Stops || c.Reason != "refused" || c.Since.IsZero() {
		t.Errorf("after a reload that was refused: %+v", c)
	}
	if err := d.reload(nil); err != nil {
		t.Fatal(err)
	}
	if c := d.check(status.CheckConfiguration); !c.OK || c.Reason != "" {
		t.Errorf("after one that was taken: %+v", c)
	}
}

// TestCredentialIsChecked: a credential that cannot be read is a trouble of its own, and Cloudflare is not
// asked.
func TestCredentialIsChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("ci", seldom, "1h")
	w.write("cloudflare-api-token", `{"token": "x"}`)
	d := w.start(w.config())
	w.eventually("it is seen", func() bool { d.LookAhead(); return d.check(status.CheckCredential).Reason == "malformed" })
	if c := d.check(status.CheckCloudflare); c.Detail != "" {
		t.Errorf("Cloudflare is said to be %+v", c)
	}
	if lines := d.logged("the next rotation could not begin: something that it needs is missing"); len(lines) != 0 {
		t.Errorf("logged: %v", lines) // the error of the read, and nothing else
	}
}

// TestSmallAccountsAreListed: a change of a service token is seen long before the next regular listing and
// logged once, and a token that was merely used costs no write.
func TestSmallAccountsAreListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	disabled, gone, used := w.token("disabled", seldom, "1h"), w.token("gone", seldom, "1h"), w.token("used", seldom, "1h")
	w.tokens = append(w.tokens, tokenSpec{Name: "never", ID: "00000000-0000-4000-8000-00000000dead", Schedule: seldom, Grace: "1h"})
	d := w.start(w.config())
	w.eventually("all is well", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK && d.status("used").Known })
	look := func() {
		t.Helper()
		before := len(w.seen("list"))
		w.eventually("the account is listed", func() bool { d.LookAhead(); return len(w.seen("list")) > before })
	}
	if _, err := w.sim.Edit(used.ID, cfsim.Edit{LastSeenAt: new(time.Now())}); err != nil {
		t.Fatal(err)
	}
	look()
	look() // the earlier one has ended
	if seen := d.status("used").LastSeen; !seen.IsZero() {
		t.Errorf("that the token was used is written down: %s", seen)
	}
	if _, err := w.sim.Edit(disabled.ID, cfsim.Edit{Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	if err := w.sim.Delete(gone.ID); err != nil {
		t.Fatal(err)
	}
	w.eventually("both are seen", func() bool {
		d.LookAhead()
		return slices.Equal(d.status("disabled").Troubles, []string{"disabled"}) && slices.Equal(d.status("gone").Troubles, []string{"gone"})
	})
	look()
	look()
	if lines := d.logged("the service token is disabled at Cloudflare, which refuses its secrets"); len(lines) != 1 {
		t.Errorf("logged %d times", len(lines))
	}
	const missing = "the account has no service token with this id any more, or never had: its secret works nowhere, and its rotations fail until the configuration is corrected"
	if lines := d.logged(missing); len(lines) != 3 { // "never" at first, and with "gone" it is news
		t.Errorf("logged %d times: %v", len(lines), lines)
	}
	if c := d.check(status.CheckCloudflare); !c.OK {
		t.Errorf("the account is fine, and the check says %+v", c)
	}
	if n := len(w.seen("get")); n > 4 { // the first look, and the looks at those that a listing does not have
		t.Errorf("%d service tokens were asked for one by one", n)
	}
	// Service tokens that an empty account does not have are not asked for: that would look like a failure.
	for _, spec := range []tokenSpec{disabled, used} {
		if err := w.sim.Delete(spec.ID); err != nil {
			t.Fatal(err)
		}
	}
	w.eventually("all are gone", func() bool { d.LookAhead(); return d.status("used").Gone && d.status("disabled").Gone })
	before := len(w.seen("get"))
	look()
	look()
	if n := len(w.seen("get")) - before; n != 0 {
		t.Errorf("%d service tokens of an empty account were asked for", n)
	}
}

// TestEachSinkIsLookedAt: also the second sink of a token in the same mount.
func TestEachSinkIsLookedAt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("ci", seldom, "1h")
	c := w.config()
	second := *c.Tokens[0].Sinks[0].(*config.VaultSink)
	second.Path = "access/second"
	c.Tokens[0].Sinks = append(c.Tokens[0].Sinks, &second)
	w.vault.SetPolicy(func(path string) []string {
		if strings.Contains(path, "second") {
			return []string{"read"}
		}
		return []string{"create", "read", "update"}
	})
	d := w.start(c)
	w.eventually("it is seen", func() bool { d.LookAhead(); return d.check(status.CheckSink).Reason == "refused" })
	if c := d.check(status.CheckSink); !strings.Contains(c.Detail, "access/second, of token ci") {
		t.Errorf("%+v", c)
	}
}
