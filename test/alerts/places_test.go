package alerts

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rotatord/test/program"
	"rotatord/test/realvault"
)

// design is what a place is built from.
type design struct {
	name     string
	ownVault bool
	alone    bool   // with a Prometheus of its own, for which it is the only rotatord
	slow     bool   // its alerts take minutes: it starts first, and fails at once
	clocks   bool   // each daemon has a clock of its own
	replicas bool   // two, with a ledger in Vault
	way      bool   // the second one reaches Vault by a way that can be cut
	claim    string // of replicas; empty: 20s
	schedule string // of its tokens; empty: due in 30 days
	grace    string // empty: 24h
	tokens   []tokenOf
	account  string // more of the account
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
	for n, token := range p.design.tokens {
		if token.name == name {
			return idOf(n)
		}
	}
	panic(name + " is not a token of " + p.design.name)
}

// path is where a token's secret is in Vault, below the mount.
func (p *place) path(token string) string { return "access/" + p.design.name + "-" + token }

// folder is where a token's secret is that is written to a file.
func (p *place) folder(token string) string { return filepath.Join(p.dir, "files", token) }

// ofDaemon is what the daemons of a place have apart.
type ofDaemon struct{ listen, run, state, vault string }

func (p *place) first() ofDaemon { return ofDaemon{p.listen, "run", "state", p.vault.Address} }

func (p *place) other() ofDaemon {
	at := ofDaemon{p.others[0], "run2", "state2", p.vault.Address}
	if p.design.way {
		at.vault = p.wayToVault
	}
	return at
}

func (p *place) configure(t *testing.T) {
	t.Helper()
	for n, token := range p.design.tokens {
		if n > 0 {
			p.control(t, "POST", "tokens", fmt.Sprintf(`{"name": %q, "id": %q, "account_id": %q}`, token.name, idOf(n), accountID))
		}
		if token.file {
			if err := os.MkdirAll(p.folder(token.name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	if p.design.replicas {
		p.prepareReplicas(t)
	}
	if p.design.prepare != nil {
		p.design.prepare(t, p)
	}
	p.write(t, "config.yaml", p.yaml())
	if p.design.replicas {
		p.write(t, "second.yaml", p.yamlOf(p.other()))
	}
}

// yaml is the configuration of the first daemon.
func (p *place) yaml() string { return p.yamlOf(p.first()) }

func (p *place) yamlOf(at ofDaemon) string {
	d := p.design
	shared, timeout := "", "5s"
	if d.replicas {
		shared = fmt.Sprintf(", identity: {file: %s/identity}, shared: {vault: {mount: %s, prefix: rotatord}, claim: %s, replica: %s}", p.dir, mount, cmp.Or(d.claim, "20s"), at.state)
		timeout = "2s"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `listen: %s
admin_socket: %s/%s/admin.sock
state: {dir: %s/%s%s}
metrics: {per_token: %s}
accounts:
  %s: {account_id: %s, api_token: {file: %s/api-token}, base_url: %s/client/v4, inventory_every: 1m%s}
`, at.listen, p.dir, at.run, p.dir, at.state, shared, *perToken, d.name, accountID, p.dir, p.simURL, d.account)
	fmt.Fprintf(&b, `vault:
  address: %s
  timeout: %s
  watch_every: %s
  auth: {approle: {role_id: {file: %s/role-id}, secret_id: {file: %s/secret-id}%s}}
defaults: {account: %s, schedule: "%s", grace: %s}
%stokens:
`, at.vault, timeout, p.watchEvery, p.dir, p.dir, d.vault, d.name, cmp.Or(d.schedule, "@every 720h"), cmp.Or(d.grace, "24h"), strings.ReplaceAll(d.more, "$DIR", p.dir))
	replacer := strings.NewReplacer("$SIM", p.simURL, "$DIR", p.dir, "$EVERY", p.verifyEvery.String())
	for n, token := range d.tokens { // the last section
		sink := fmt.Sprintf("{vault: {mount: %s, path: %s}}", mount, p.path(token.name))
		if token.file {
			sink = fmt.Sprintf("{file: {path: %s/secret.env, format: env}}", p.folder(token.name))
		}
		more := ""
		if token.more != "" {
			more = ", " + strings.ReplaceAll(replacer.Replace(token.more), "$ID", idOf(n))
		}
		fmt.Fprintf(&b, "  %s: {id: %s, sinks: [%s]%s}\n", token.name, idOf(n), sink, more)
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
	progress("%s: rotate %s: %s", p.design.name, token, firstLines(p.rotatord(append([]string{"rotate", token}, flags...)...), 2))
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

// putPolicy gives the daemons of a Vault of their own the policies that are shipped, and more rules.
func (p *place) putPolicy(t *testing.T, more string) {
	t.Helper()
	policy := realvault.LeastPolicy(t) + more
	if p.design.replicas {
		policy += realvault.ReplicasPolicy(t)
	}
	if err := p.vault.Root(t).Sys().PutPolicy("rotatord", policy); err != nil {
		t.Fatal(err)
	}
}

// denySink has Vault refuse all that concerns the sink of a token, until [place.putPolicy] is called with no more rules.
func (p *place) denySink(t *testing.T, token string) {
	t.Helper()
	p.putPolicy(t, fmt.Sprintf("\npath \"%s/data/%s\" { capabilities = [\"deny\"] }\n", mount, p.path(token)))
}

// slowly makes the next answer of a rotation late, starts that, and does something meanwhile.
func (p *place) slowly(t *testing.T, token, delay string, meanwhile func()) {
	t.Helper()
	p.fault(t, token, fmt.Sprintf(`"operation": "rotate", "kind": "delay", "when": "after", "delay": %q`, delay))
	before := p.rotations(t, token)
	go p.rotate(token)
	program.Eventually(t, 0, "a rotate request of "+token, func() bool { return p.rotations(t, token) > before })
	meanwhile()
}

// clearFaults ends every fault of the simulator.
func clearFaults(t *testing.T, p *place) { p.control(t, "DELETE", "faults", "") }

const rotateFails = `"operation": "rotate", "kind": "status", "status": 500, "when": "before", "count": -1`

// reload writes the configuration as the place has it now, and has the daemon read it.
func (p *place) reload(t *testing.T) { p.reloadWith(t, p.yaml()) }

func (p *place) reloadWith(t *testing.T, config string) {
	t.Helper()
	p.write(t, "config.yaml", config)
	_ = p.daemon.cmd.Process.Signal(syscall.SIGHUP)
}

// soon returns a period near to the wanted one, with which a token has its place in the period within seconds from now: a
// daemon spreads its looks over the period by the names of tokens, as watching.md says.
func soon(name string, wanted time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	place, now := h.Sum64(), time.Now()
	for every := wanted; ; every += 10 * time.Millisecond {
		at := now.Truncate(every).Add(time.Duration(place % uint64(every)))
		if in := at.Sub(now); in > 6*time.Second && in < 12*time.Second {
			return every
		}
	}
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
