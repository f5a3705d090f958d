package alerts

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"rotatord/test/realvault"
)

// design is what a place is built from.
type design struct {
	name     string
	ownVault bool
	replicas bool   // two, with a ledger in Vault
	schedule string // of its tokens; empty: due in 30 days
	grace    string // empty: 24h
	tokens   []tokenOf
	vault    string // more of the section vault
	more     string // more sections
	prepare  func(t *testing.T, p *place)
	faults   []*fault
}

// tokenOf is a token and what it has beside its ID. The sink is a place in Vault, or a file.
type tokenOf struct {
	name, more string
	file       bool
}

func idOf(n int) string { return fmt.Sprintf("5eed0000-0000-4000-8000-%012d", n+1) }

// id is the service token of a token of this place.
func (p *place) id(name string) string {
	for n, token := range p.tokens {
		if token.name == name {
			return idOf(n)
		}
	}
	panic(name + " is not a token of " + p.name)
}

// path is where a token's secret is in Vault, below the mount.
func (p *place) path(token string) string { return "access/" + p.name + "-" + token }

// folder is where a token's secret is that is written to a file.
func (p *place) folder(token string) string { return filepath.Join(p.dir, "files", token) }

func (p *place) configure(t *testing.T, d design) {
	t.Helper()
	p.tokens = d.tokens
	for n, token := range d.tokens {
		if n > 0 {
			p.control(t, "POST", "tokens", fmt.Sprintf(`{"name": %q, "id": %q, "account_id": %q}`, token.name, idOf(n), accountID))
		}
		if token.file {
			if err := os.MkdirAll(p.folder(token.name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.design = d
	p.write(t, "config.yaml", p.yamlOf(d, p.listen, "run", "state"))
	if d.replicas {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		p.write(t, "identity", identity.String())
		if err := p.vault.Root(t).Sys().PutPolicy("rotatord", realvault.LeastPolicy(t)+realvault.ReplicasPolicy(t)); err != nil {
			t.Fatal(err)
		}
		p.others = []string{freeAddress(t)}
		p.write(t, "second.yaml", p.yamlOf(d, p.others[0], "run2", "state2"))
	}
	if d.prepare != nil {
		d.prepare(t, p)
	}
}

// yamlOf is the configuration, for a daemon with this address, socket and state directory.
func (p *place) yamlOf(d design, listen, run, state string) string {
	schedule, grace := d.schedule, d.grace
	if schedule == "" {
		schedule = "@every 720h"
	}
	if grace == "" {
		grace = "24h"
	}
	shared, timeout := "", "5s"
	if d.replicas {
		shared = fmt.Sprintf(", identity: {file: %s/identity}, shared: {vault: {mount: %s, prefix: rotatord}, claim: 20s, replica: %s}", p.dir, mount, state)
		timeout = "2s"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `listen: %[1]s
admin_socket: %[2]s/%[8]s/admin.sock
state: {dir: %[2]s/%[9]s%[12]s}
metrics: {per_token: %[14]s}
accounts:
  %[3]s: {account_id: %[4]s, api_token: {file: %[2]s/api-token}, base_url: %[5]s/client/v4, inventory_every: 1m}
vault:
  address: %[6]s
  timeout: %[13]s
  watch_every: 1m
  auth: {approle: {role_id: {file: %[2]s/role-id}, secret_id: {file: %[2]s/secret-id}%[7]s}}
defaults: {account: %[3]s, schedule: "%[10]s", grace: %[11]s}
%[15]stokens:
`, listen, p.dir, p.name, accountID, p.simURL, p.vault.Address, d.vault, run, state, schedule, grace, shared, timeout, *perToken, strings.ReplaceAll(d.more, "$DIR", p.dir))
	for n, token := range d.tokens { // the last section
		sink := fmt.Sprintf("{vault: {mount: %s, path: %s}}", mount, p.path(token.name))
		if token.file {
			sink = fmt.Sprintf("{file: {path: %s/secret.env, format: env}}", p.folder(token.name))
		}
		more := strings.NewReplacer("$SIM", p.simURL, "$DIR", p.dir).Replace(token.more)
		if more != "" {
			more = ", " + more
		}
		fmt.Fprintf(&b, "  %s: {id: %s, sinks: [%s]%s}\n", token.name, idOf(n), sink, strings.ReplaceAll(more, "$ID", idOf(n)))
	}
	return b.String()
}

// fault arms a fault of the simulator for one token.
func (p *place) fault(t *testing.T, token, body string) {
	t.Helper()
	p.control(t, "POST", "faults", fmt.Sprintf(`{"token_id": %q, %s}`, p.id(token), body))
}

// rotate orders a rotation and waits for its end, which may be a failure.
func (p *place) rotate(token string, flags ...string) {
	progress("%s: rotate %s: %s", p.name, token, firstLines(p.rotatord(append([]string{"rotate", token}, flags...)...), 2))
}

// set changes a service token without its clients.
func (p *place) set(t *testing.T, token, field string, value any) {
	t.Helper()
	body, err := json.Marshal(map[string]any{field: value})
	if err != nil {
		t.Fatal(err)
	}
	p.control(t, "PUT", "tokens/"+p.id(token), string(body))
}

// overwrite puts another secret into a token's place in Vault, as another person would.
func (p *place) overwrite(t *testing.T, token string) {
	t.Helper()
	root := p.vault.Root(t).Logical()
	version := 0
	if found, err := root.Read(mount + "/metadata/" + p.path(token)); err == nil && found != nil {
		n, _ := found.Data["current_version"].(json.Number).Int64()
		version = int(n)
	}
	if _, err := root.Write(mount+"/data/"+p.path(token), map[string]any{"options": map[string]any{"cas": version},
		"data": map[string]any{"client_id": "other.access", "client_secret": strings.Repeat("ab", 32)}}); err != nil {
		t.Fatal(err)
	}
}

// slowly makes the next answer of a rotation late, starts that, and does something meanwhile.
func (p *place) slowly(t *testing.T, token, delay string, meanwhile func()) {
	t.Helper()
	p.fault(t, token, fmt.Sprintf(`"operation": "rotate", "kind": "delay", "when": "after", "delay": %q`, delay))
	go p.rotate(token)
	time.Sleep(1500 * time.Millisecond)
	meanwhile()
}

// clearFaults ends every fault of the simulator.
func clearFaults(t *testing.T, p *place) { p.control(t, "DELETE", "faults", "") }

const rotateFails = `"operation": "rotate", "kind": "status", "status": 500, "when": "before", "count": -1`

func designs() []design {
	return []design{
		{name: "tokens", tokens: tokensOfFaults(tokenFaults()), faults: tokenFaults(), prepare: prepareTokens},
		{name: "inuse", tokens: []tokenOf{{name: "inuse", more: `verify: {url: "$SIM/app/$ID", within: 1s, every: 5m}`}}, faults: []*fault{{
			what: "the application refuses the secret in use", token: "inuse", alerts: []string{"RotatordSecretInUseRefused"},
			before: func(_ *testing.T, p *place) { p.rotate("inuse") },
			provoke: func(t *testing.T, p *place) {
				p.fault(t, "inuse", `"operation": "app", "kind": "status", "status": 401, "count": -1`)
			},
			mend: clearFaults,
		}}},
		{name: "reload", tokens: []tokenOf{{name: "reload"}}, faults: []*fault{{
			what: "a reload of a faulty configuration", alerts: []string{"RotatordConfigReloadFailed"},
			provoke: func(t *testing.T, p *place) { p.write(t, "config.yaml", "listen: [\n"); p.reload() },
			mend: func(t *testing.T, p *place) {
				p.write(t, "config.yaml", p.yamlOf(p.design, p.listen, "run", "state"))
				p.reload()
			},
		}}},
		{name: "never", tokens: []tokenOf{{name: "never", file: true}}, faults: []*fault{{
			what: "a sink is added after the last rotation", token: "never", alerts: []string{"RotatordSinkNeverWritten"},
			provoke: func(t *testing.T, p *place) {
				p.rotate("never")
				text := p.yamlOf(p.design, p.listen, "run", "state")
				added := fmt.Sprintf("format: env}}, {file: {path: %s/second.env, format: env}}]", p.folder("never"))
				p.write(t, "config.yaml", strings.Replace(text, "format: env}}]", added, 1))
				p.reload()
			},
			mend: func(_ *testing.T, p *place) { p.rotate("never", "--override-grace") },
		}}},
		{name: "skew", tokens: []tokenOf{{name: "skew"}}, faults: []*fault{{
			what: "the clock is a minute off", alerts: []string{"RotatordClockSkew"},
			provoke: func(t *testing.T, p *place) { p.control(t, "PUT", "behaviour", `{"clock_skew": "60s"}`) },
			mend:    func(t *testing.T, p *place) { p.control(t, "PUT", "behaviour", `{}`) },
		}}},
		{name: "clock", schedule: "@every 40s", grace: "10s", tokens: []tokenOf{{name: "clock"}},
			prepare: func(t *testing.T, p *place) { p.control(t, "PUT", "behaviour", `{"clock_skew": "20m"}`) }, faults: []*fault{{
				what: "the clock was 20 minutes off when the daemon started", alerts: []string{"RotatordClockStopsRotations", "RotatordRotationFailing"}, fromStart: true,
				provoke: nothing,
				mend:    func(t *testing.T, p *place) { p.control(t, "PUT", "behaviour", `{}`) },
			}}},
		{name: "gone", tokens: []tokenOf{{name: "gone"}, {name: "stays"}}, faults: []*fault{{
			what: "the service token is deleted; mended by taking it out of the configuration", token: "gone", alerts: []string{"RotatordTokenGone"},
			provoke: func(t *testing.T, p *place) { p.control(t, "DELETE", "tokens/"+p.id("gone"), "") },
			mend: func(t *testing.T, p *place) {
				text := p.yamlOf(p.design, p.listen, "run", "state")
				p.write(t, "config.yaml", regexp.MustCompile(`(?m)^  gone: \{id: .*\n`).ReplaceAllString(text, ""))
				p.reload()
			},
		}}},
		{name: "down", schedule: "@every 10s", grace: "5s", tokens: []tokenOf{{name: "down"}}, faults: []*fault{{
			what: "the daemon is killed, while another one runs", token: "down", alerts: []string{"RotatordTokenUnwatched"}, after: []string{"RotatordSlotsMissed"},
			provoke: func(_ *testing.T, p *place) { p.daemon.end(syscall.SIGKILL); time.Sleep(25 * time.Second) },
			mend:    func(t *testing.T, p *place) { p.launch(t) },
		}}},
		{name: "twice", tokens: []tokenOf{{name: "twice"}}, prepare: func(t *testing.T, p *place) { p.others = []string{freeAddress(t)} }, faults: []*fault{{
			what: "a second daemon has the same token", token: "twice", alerts: []string{"RotatordTokenManagedTwice"},
			provoke: func(t *testing.T, p *place) {
				file := p.write(t, "second.yaml", p.yamlOf(p.design, p.others[0], "run2", "state2"))
				p.begin(t, file)
			},
			mend: func(_ *testing.T, p *place) { p.second.end(syscall.SIGTERM) },
		}}},
		{name: "vault", ownVault: true, schedule: "@every 4h", grace: "1h", tokens: []tokenOf{{name: "vault"}}, faults: []*fault{{
			what: "Vault is killed, four hours before a rotation", alerts: []string{"RotatordVaultFailing", "RotatordCheckFailing", "RotatordCannotRotate"},
			provoke: func(_ *testing.T, p *place) { p.vault.Kill() },
			mend:    func(t *testing.T, p *place) { p.vault.Resume(t) },
		}}},
		{name: "session", ownVault: true, tokens: []tokenOf{{name: "session"}}, faults: []*fault{{
			what: "the Vault session is revoked, and no login is possible", alerts: []string{"RotatordVaultSessionExpiring"},
			provoke: func(t *testing.T, p *place) { revokeSession(t, p.site); p.rotate("session") },
			mend: func(t *testing.T, p *place) {
				answer, err := p.vault.Root(t).Logical().Write("auth/approle/role/rotatord/secret-id", nil)
				if err != nil {
					t.Fatal(err)
				}
				p.write(t, "secret-id", answer.Data["secret_id"].(string))
			},
		}}},
		{name: "cloudflare", tokens: []tokenOf{{name: "cloudflare"}}, faults: []*fault{{
			what: "Cloudflare answers 503 to everything", alerts: []string{"RotatordCloudflareFailing"},
			provoke: func(t *testing.T, p *place) {
				p.control(t, "POST", "faults", `{"operation": "*", "kind": "status", "status": 503, "count": -1}`)
			},
			mend: clearFaults,
		}}},
		{name: "inventory", tokens: []tokenOf{{name: "inventory"}}, faults: []*fault{{
			what: "Cloudflare answers 503 to each listing", alerts: []string{"RotatordInventoryStale"},
			provoke: func(t *testing.T, p *place) {
				p.control(t, "POST", "faults", `{"operation": "list", "kind": "status", "status": 503, "count": -1}`)
			},
			mend: clearFaults,
		}}},
		{name: "dirty", tokens: []tokenOf{{name: "dirty", file: true}}, faults: []*fault{{
			token: "dirty", what: "the file of the sink is a directory now", alerts: []string{"RotatordSinkUnreadable"},
			before:  func(_ *testing.T, p *place) { p.rotate("dirty") },
			provoke: fileToDirectory, mend: directoryToFile,
		}}},
		{name: "throttled", tokens: []tokenOf{{name: "throttled"}}, faults: []*fault{{
			what: "Cloudflare answers 429 and asks to wait for 30 seconds", alerts: []string{"RotatordCloudflareThrottled"},
			provoke: func(t *testing.T, p *place) {
				p.control(t, "POST", "faults", `{"operation": "*", "kind": "status", "status": 429, "retry_after": 30, "count": -1}`)
			},
			mend: clearFaults,
		}}},
		{name: "wrapped", ownVault: true, vault: ", wrapped: true", tokens: []tokenOf{{name: "wrapped"}},
			prepare: func(t *testing.T, p *place) { p.write(t, "secret-id", p.wrap(t)) }, faults: []*fault{{
				what: "another program has unwrapped the wrapping token", alerts: []string{"RotatordVaultUnwrapFailed"},
				provoke: func(t *testing.T, p *place) {
					stolen := p.wrap(t)
					if _, err := p.vault.Root(t).Logical().Unwrap(stolen); err != nil {
						t.Fatal(err)
					}
					p.write(t, "secret-id", stolen)
				},
				mend: func(t *testing.T, p *place) { p.write(t, "secret-id", p.wrap(t)) },
			}}},
		{name: "hook", tokens: []tokenOf{{name: "hook", more: "after: [{exec: {command: [$DIR/hook]}}]"}},
			prepare: func(t *testing.T, p *place) { p.hook(t, "exit 0") }, faults: []*fault{{
				what: "the program of a hook ends with 1", token: "hook", alerts: []string{"RotatordHookFailing"},
				provoke: func(t *testing.T, p *place) { p.hook(t, "exit 1"); p.rotate("hook") },
				mend:    func(t *testing.T, p *place) { p.hook(t, "exit 0") },
			}}},
		{name: "notify", more: "notify: [{name: night, group: 5s, webhook: {url: {file: $DIR/receiver}, secret: {file: $DIR/webhook-secret}}}]\n", tokens: []tokenOf{{name: "notify"}},
			prepare: func(t *testing.T, p *place) {
				p.write(t, "webhook-secret", strings.Repeat("s", 40))
				p.write(t, "receiver", receiver(t, &p.refuses))
			}, faults: []*fault{{
				what: "the receiver of notifications answers 503", alerts: []string{"RotatordNotificationsFailing"},
				provoke: func(t *testing.T, p *place) {
					p.refuses.Store(true)
					p.control(t, "DELETE", "tokens/"+p.id("notify"), "")
				},
				mend: func(_ *testing.T, p *place) {
					p.refuses.Store(false)
					progress("notify test: %s", firstLines(p.rotatord("notify", "test", "night"), 2))
				},
			}}},
		{name: "unwatched", ownVault: true, tokens: []tokenOf{{name: "unwatched"}}, faults: []*fault{{
			what: "Vault is killed, and sinks are looked at every minute", alerts: []string{"RotatordSinksNotWatched"},
			before:  func(_ *testing.T, p *place) { p.rotate("unwatched") },
			provoke: func(_ *testing.T, p *place) { p.vault.Kill() },
			mend:    func(t *testing.T, p *place) { p.vault.Resume(t) },
		}}},
		{name: "replica-down", ownVault: true, replicas: true, tokens: []tokenOf{{name: "replica-down"}}, faults: []*fault{{
			what: "one of two replicas is killed", alerts: []string{"RotatordReplicaDown"},
			provoke: func(_ *testing.T, p *place) { p.second.end(syscall.SIGKILL) },
			mend:    func(t *testing.T, p *place) { p.begin(t, filepath.Join(p.dir, "second.yaml")) },
		}}},
		{name: "replicas-down", ownVault: true, replicas: true, tokens: []tokenOf{{name: "replicas-down"}}, faults: []*fault{{
			what: "both replicas are killed, while another rotatord runs", alerts: []string{"RotatordNoReplicaAlive"},
			provoke: func(_ *testing.T, p *place) { p.stop() },
			mend: func(t *testing.T, p *place) {
				p.launch(t)
				p.begin(t, filepath.Join(p.dir, "second.yaml"))
			},
		}}},
		{name: "record", ownVault: true, replicas: true, tokens: []tokenOf{{name: "record"}}, faults: []*fault{{
			what: "the record of a token in the shared ledger is damaged", token: "record", alerts: []string{"RotatordRecordUnreadable"},
			provoke: damageRecord, mend: mendRecord,
		}}},
	}
}

func (p *place) reload() { _ = p.daemon.cmd.Process.Signal(syscall.SIGHUP) }

// begin starts another daemon at this place.
func (p *place) begin(t *testing.T, config string) {
	t.Helper()
	var err error
	if p.second, err = launch(p.program, "run", "--config", config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.second.end(syscall.SIGKILL) })
}

// wrap returns a wrapping token of a new secret ID.
func (p *place) wrap(t *testing.T) string {
	t.Helper()
	client, err := p.vault.Root(t).Clone()
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(p.vault.RootToken)
	client.SetWrappingLookupFunc(func(string, string) string { return "20m" })
	answer, err := client.Logical().Write("auth/approle/role/rotatord/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer.WrapInfo.Token
}

// record is where the shared ledger has a token's record.
func (p *place) record(t *testing.T) string {
	t.Helper()
	var found string
	var walk func(folder string)
	walk = func(folder string) {
		list, err := p.vault.Root(t).Logical().List(mount + "/metadata/" + folder)
		if err != nil || list == nil {
			return
		}
		for _, key := range list.Data["keys"].([]any) {
			name := folder + key.(string)
			if strings.HasSuffix(name, "/") {
				walk(name)
			} else if strings.Contains(name, p.tokens[0].name) {
				found = name
			}
		}
	}
	walk("rotatord/")
	if found == "" {
		t.Fatalf("no record of %s", p.tokens[0].name)
	}
	return found
}

// damageRecord writes something else over a record, and mendRecord what was there before.
func damageRecord(t *testing.T, p *place) {
	root, path := p.vault.Root(t).Logical(), p.record(t)
	before, err := root.Read(mount + "/data/" + path)
	if err != nil {
		t.Fatal(err)
	}
	p.kept = before.Data["data"]
	p.putRecord(t, path, map[string]any{"record": "damaged"})
	p.stop() // a replica that runs knows the record
	p.launch(t)
	p.begin(t, filepath.Join(p.dir, "second.yaml"))
}

func mendRecord(t *testing.T, p *place) { p.putRecord(t, p.record(t), p.kept) }

func (p *place) putRecord(t *testing.T, path string, data any) {
	t.Helper()
	root := p.vault.Root(t).Logical()
	metadata, err := root.Read(mount + "/metadata/" + path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Write(mount+"/data/"+path, map[string]any{"options": map[string]any{"cas": metadata.Data["current_version"]}, "data": data}); err != nil {
		t.Fatal(err)
	}
}

// hook writes the program of a hook.
func (p *place) hook(t *testing.T, does string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "hook"), []byte("#!/bin/sh\n"+does+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// receiver takes notifications, or refuses them, and returns its address.
func receiver(t *testing.T, refuses *atomic.Bool) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if refuses.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func fileToDirectory(t *testing.T, p *place) {
	file := filepath.Join(p.folder("dirty"), "secret.env")
	rename(t, file, file+".away")
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
}

func directoryToFile(t *testing.T, p *place) {
	file := filepath.Join(p.folder("dirty"), "secret.env")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	rename(t, file+".away", file)
}
