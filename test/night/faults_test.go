package night

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"rotatord/test/program"
)

// fault is one night.
type fault struct {
	id, what string
	quick    bool   // it is seen within seconds
	disk     bool   // the state directory is on a small disk
	replicas bool   // there are two
	grace    string // empty: 1h
	schedule string // empty: one that has no slot in the drill
	token    string // more of its entry
	more     string // more of the configuration
	prepare  func(w *world)
	cause    func(w *world)
	// page is the kind of trouble for which the engineer is paged; empty if the daemon is down.
	page string
	play func(e *engineer)
	// rotations are those that the night costs, of the fault and of the cure.
	rotations int
}

var faults = []fault{
	{
		id: "lost-answer", what: "the answer of a rotate request is lost: the token is in doubt", quick: true, page: "in doubt", rotations: 2,
		cause: func(w *world) {
			w.control("POST", "faults", `{"operation": "rotate", "kind": "drop", "when": "after"}`, nil)
			_, _ = w.shell("rotatord rotate ci --override-grace", "")
		},
		play: func(e *engineer) {
			e.page("in doubt")
			e.types("rotatord resolve ci", "")
			e.types("rotatord resolve ci --rotate-now", "")
		},
	},
	{
		id: "vault-sealed", what: "Vault is sealed", page: "vault",
		cause: func(w *world) { w.vault.Seal(w.t) },
		play: func(e *engineer) {
			e.page("vault")
			e.types("vault operator unseal -address="+e.w.vault.Address, unsealKey(e.w))
		},
	},
	{
		id: "policy-lost", what: "Vault's policy does not allow the path any more", page: "sink",
		cause: func(w *world) {
			policy := `path "auth/token/lookup-self" { capabilities = ["read"] } path "auth/token/renew-self" { capabilities = ["update"] }`
			if err := w.vault.Root(w.t).Sys().PutPolicy("rotatord", policy); err != nil {
				w.t.Fatal(err)
			}
		},
		play: func(e *engineer) {
			e.page("sink")
			e.types("vault policy write -address="+e.w.vault.Address+" rotatord <(rotatord docs deploy/vault/rotatord-policy.hcl)", "")
		},
	},
	{
		id: "login-lost", what: "the secret ID for Vault was destroyed, and the session revoked", page: "vault",
		cause: func(w *world) {
			secretID, err := os.ReadFile(filepath.Join(w.dir, "secret-id"))
			if err == nil {
				_, err = w.vault.Root(w.t).Logical().Write("auth/approle/role/rotatord/secret-id/destroy", map[string]any{"secret_id": strings.TrimSpace(string(secretID))})
			}
			if err == nil {
				err = w.vault.Root(w.t).Sys().RevokePrefix("auth/approle/login")
			}
			if err != nil {
				w.t.Fatal(err)
			}
		},
		play: func(e *engineer) {
			c := e.page("vault")
			e.looks("rotatord doctor")
			e.follow(c)
			secretID := e.types("vault write -field=secret_id -f auth/approle/role/rotatord/secret-id", "")
			e.types("cat > FILE", secretID+"\n", "FILE", filepath.Join(e.w.dir, "secret-id"))
		},
	},
	{
		id: "pending", what: "Vault is sealed in the middle of a rotation: the new secret waits, and the old one's grace ends", quick: true, page: "grace ending", rotations: 1, grace: "30m",
		cause: func(w *world) {
			w.control("POST", "faults", `{"operation": "rotate", "kind": "", "delay": "5s"}`, nil)
			ended := make(chan struct{})
			go func() { defer close(ended); _, _ = w.shell("timeout 20 rotatord rotate ci --override-grace", "") }()
			program.Eventually(w.t, 0, "the request is under way", func() bool {
				var left []any
				w.control("GET", "faults", "", &left)
				return len(left) == 0
			})
			w.vault.Seal(w.t)
			<-ended
		},
		play: func(e *engineer) {
			e.page("grace ending")
			e.types("vault operator unseal -address="+e.w.vault.Address, unsealKey(e.w))
		},
	},
	{
		id: "disk-full", what: "the disk of the state directory is full: nothing can be recorded, so nothing is rotated", disk: true, page: "state directory",
		cause: func(w *world) { w.disk.Fill() },
		play: func(e *engineer) {
			e.page("state directory")
			e.types(`du -axh --max-depth=2 "$(df --output=target `+e.w.state+` | tail -n 1)" | sort -h | tail`, "")
			e.elsewhere("delete the file that fills the disk", e.w.disk.Dir+"/filler", e.w.disk.Free)
		},
	},
	{
		id: "api-token-revoked", what: "Cloudflare's API token is revoked", page: "cloudflare",
		cause: func(w *world) { w.startSim(secondKey) },
		play: func(e *engineer) {
			e.page("cloudflare")
			e.elsewhere("create an API token in Cloudflare's dashboard", "In Cloudflare's dashboard create an API token for this account", func() {})
			e.types("cat > "+filepath.Join(e.w.dir, "api-token"), secondKey+"\n")
		},
	},
	{
		id: "credential-lost", what: "the file of the API token is gone", page: "credential",
		cause: func(w *world) {
			if err := os.Remove(filepath.Join(w.dir, "api-token")); err != nil {
				w.t.Fatal(err)
			}
		},
		play: func(e *engineer) {
			e.page("credential")
			e.types("cat > "+filepath.Join(e.w.dir, "api-token"), firstKey+"\n")
		},
	},
	{
		id: "clock", what: "the clock of the host is 20 minutes off", page: "failing", rotations: 1, schedule: "@every 1m", grace: "5s",
		cause: func(w *world) { // it is off since the machine has started
			w.control("PUT", "behaviour", `{"clock_skew": "20m"}`, nil)
			_, _ = w.shell("systemctl restart rotatord.service", "")
		},
		play: func(e *engineer) {
			e.page("failing")
			e.elsewhere("set the clock right", "timedatectl The clock of this host differs from Cloudflare's: have a time service set it right", func() {
				e.w.control("PUT", "behaviour", `{}`, nil)
				e.w.edit("@every 1m", "@every 720h") // no slot comes while the rotations are counted
				e.w.signalOnly(syscall.SIGHUP)
			})
			e.types("rotatord rotate ci", "")
		},
	},
	{
		id: "gone", what: "the service token was deleted at Cloudflare", page: "gone",
		cause: func(w *world) { w.control("DELETE", "tokens/"+tokenID, "", nil) },
		play: func(e *engineer) {
			e.page("gone")
			e.elsewhere("edit the configuration", "write create: {name: ci} in place of id", func() { e.w.edit("id: "+tokenID, "create: {name: ci}") })
			e.types("rotatord check", "")
			e.types("systemctl reload rotatord.service", "")
			e.elsewhere("put the new service token into the Access policies", "In the Access policies put the new service token in the place of the old one", func() {})
		},
	},
	{
		id: "disabled", what: "the service token is disabled at Cloudflare", page: "disabled",
		cause: func(w *world) { w.control("PUT", "tokens/"+tokenID, `{"enabled": false}`, nil) },
		play: func(e *engineer) {
			e.page("disabled")
			e.elsewhere("enable it in Cloudflare's dashboard", "Cloudflare's dashboard", func() {
				e.w.control("PUT", "tokens/"+tokenID, `{"enabled": true}`, nil)
			})
		},
	},
	{
		id: "rotated-outside", what: "another person rotated the service token at Cloudflare", page: "rotated outside", rotations: 2,
		cause: func(w *world) {
			time.Sleep(130 * time.Second) // a change so soon after our own could be ours
			w.control("POST", "tokens/"+tokenID+"/rotate", `{"grace": "1h"}`, nil)
		},
		play: func(e *engineer) {
			e.page("rotated outside")
			e.types("rotatord rotate ci --override-grace", "")
		},
	},
	{
		id: "sink-emptied", what: "the secret was deleted from Vault", page: "sink empty",
		cause: func(w *world) {
			if _, err := w.vault.Root(w.t).Logical().Delete(mount + "/data/access/ci"); err != nil {
				w.t.Fatal(err)
			}
		},
		play: func(e *engineer) {
			e.page("sink empty")
			e.types("vault kv undelete -mount=secret -versions=1 access/ci", "")
			e.types("rotatord resolve ci", "")
		},
	},
	{
		id: "sink-overwritten", what: "another secret was written over ours in Vault", page: "sink changed",
		cause: func(w *world) {
			id, _ := w.stored()
			if _, err := w.vault.Root(w.t).Logical().Write(mount+"/data/access/ci", map[string]any{"data": map[string]any{"client_id": id, "client_secret": strings.Repeat("0", 64)}}); err != nil {
				w.t.Fatal(err)
			}
		},
		play: func(e *engineer) {
			e.page("sink changed")
			e.types("vault kv rollback -mount=secret -version=1 access/ci", "")
			e.types("rotatord resolve ci", "")
		},
	},
	{
		id: "hook", what: "the hook after a rotation fails", page: "hook failing", rotations: 1, token: ", after: [{exec: {command: [$DIR/hook]}}]",
		prepare: func(w *world) { w.hook("exit 0") },
		cause: func(w *world) {
			w.hook("echo the application is not there; exit 1")
			_, _ = w.shell("rotatord rotate ci --override-grace", "")
		},
		play: func(e *engineer) {
			e.page("hook failing")
			e.elsewhere("mend what the error says", "the application is not there", func() { e.w.hook("exit 0") })
			e.types("rotatord hook run ci", "")
		},
	},
	{
		id: "receiver-gone", what: "the receiver of notifications takes nothing", page: "notify",
		more: "notify: [{name: night, group: 1s, webhook: {url: {file: $DIR/receiver}, secret: {file: $DIR/receiver-secret}}}]\n",
		prepare: func(w *world) {
			w.write("receiver-secret", strings.Repeat("s", 40))
			w.write("receiver", "http://127.0.0.1:1/gone")
		},
		cause: func(w *world) { // news that cannot be told, and is over
			w.control("PUT", "tokens/"+tokenID, `{"enabled": false}`, nil)
			time.Sleep(3 * time.Minute)
			w.control("PUT", "tokens/"+tokenID, `{"enabled": true}`, nil)
		},
		play: func(e *engineer) {
			e.page("notify")
			e.looks("rotatord notify test night")
			e.elsewhere("correct the file of the URL", filepath.Join(e.w.dir, "receiver"), func() {
				var taken atomic.Int32
				server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { taken.Add(1) }))
				e.w.t.Cleanup(server.Close)
				e.w.write("receiver", server.URL)
			})
			e.types("rotatord notify test night", "")
		},
	},
	{
		id: "replica-dead", what: "one of two replicas is dead", page: "replica dead", replicas: true,
		cause: func(w *world) { w.signal("pid-2", syscall.SIGKILL) },
		play: func(e *engineer) {
			e.page("replica dead")
			e.w.bin += "-2" // the card says on which host
			e.types("systemctl start rotatord.service", "")
			e.w.bin = strings.TrimSuffix(e.w.bin, "-2")
		},
	},
	{
		id: "reload-refused", what: "a faulty configuration was reloaded", quick: true, page: "configuration",
		cause: func(w *world) {
			w.edit("grace: 1h", "grace: 1 hour")
			w.signalOnly(syscall.SIGHUP)
		},
		play: func(e *engineer) {
			e.page("configuration")
			e.elsewhere("correct the configuration", filepath.Join(e.w.dir, "config.yaml")+":10:", func() { e.w.edit("grace: 1 hour", "grace: 1h") })
			e.types("systemctl reload rotatord.service", "")
		},
	},
	{
		id: "not-starting", what: "the daemon is down: it does not start with a faulty configuration", quick: true,
		cause: func(w *world) {
			w.signal("pid", syscall.SIGTERM)
			w.edit("grace: 1h", "grace: 1 hour")
			_, _ = w.shell("systemctl start rotatord.service", "")
		},
		play: func(e *engineer) {
			e.page("")
			e.looks("rotatord status")
			e.elsewhere("correct the configuration", filepath.Join(e.w.dir, "config.yaml")+":10:", func() { e.w.edit("grace: 1 hour", "grace: 1h") })
			e.types("systemctl restart rotatord.service", "")
		},
	},
	{
		id: "ledger-damaged", what: "the daemon is down: its ledger is damaged, and there is no backup", quick: true,
		cause: func(w *world) {
			w.signal("pid", syscall.SIGTERM)
			ledger := filepath.Join(w.state, "journal.db")
			b, err := os.ReadFile(ledger)
			if err != nil {
				w.t.Fatal(err)
			}
			for i := range b[:16<<10] {
				b[i] = byte(i * 7)
			}
			if err := os.WriteFile(ledger, b, 0o600); err != nil {
				w.t.Fatal(err)
			}
			_, _ = w.shell("systemctl start rotatord.service", "")
		},
		play: func(e *engineer) {
			e.page("")
			e.looks("rotatord status")
			e.looks("systemctl status rotatord.service")
			e.types("rotatord recover --state-dir "+e.w.state, "")
			e.types("rotatord recover --state-dir "+e.w.state+" --new-ledger", "")
			e.types("systemctl restart rotatord.service", "")
		},
	},
}

// unsealKey is what an operator of Vault has in a safe.
func unsealKey(w *world) string {
	w.t.Helper()
	var secrets struct {
		UnsealKey string `json:"unseal_key"`
	}
	b, err := os.ReadFile(w.vault.InitFile())
	if err == nil {
		err = json.Unmarshal(b, &secrets)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return secrets.UnsealKey
}

// hook writes the program of the hook.
func (w *world) hook(does string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, "hook"), []byte("#!/bin/sh\n"+does+"\n"), 0o700); err != nil {
		w.t.Fatal(err)
	}
}
