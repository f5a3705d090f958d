package auth

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"rotatord/test/program/ca"
	"rotatord/test/program/kube"
)

var away = flag.Duration("away", 5*time.Second, "how long Vault is away")

// accounts are the identities of the daemon and of Vault's reviewer in the cluster.
const accounts = `apiVersion: v1
kind: Namespace
metadata:
  name: rotatord
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: rotatord
  namespace: rotatord
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: vault-token-review
  namespace: kube-system
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: vault-token-review
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: system:auth-delegator
subjects:
- kind: ServiceAccount
  name: vault-token-review
  namespace: kube-system
`

// table is what was measured.
type table struct {
	mu   sync.Mutex
	rows map[string]map[string]time.Duration // by method and step
}

func (m *table) note(method, step string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows[method] == nil {
		m.rows[method] = map[string]time.Duration{}
	}
	m.rows[method][step] = d
}

// Steps of the table, in its order.
const (
	started   = "started"
	ended     = "session ended"
	renewed   = "renewed"
	revoked   = "revoked"
	replaced  = "replaced"
	vaultAway = "Vault away"
)

var steps = []string{started, ended, renewed, revoked, replaced, vaultAway}

func (m *table) String() string {
	var b strings.Builder
	out := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "method\t"+strings.Join(steps, "\t"))
	for _, method := range methods() {
		row := []string{method.name}
		for _, step := range steps {
			cell := "-"
			if d, ok := m.rows[method.name][step]; ok {
				cell = d.Round(100 * time.Millisecond).String()
			}
			row = append(row, cell)
		}
		fmt.Fprintln(out, strings.Join(row, "\t"))
	}
	_ = out.Flush()
	return b.String()
}

// TestMain lets all tests run at the same time, also where there are few processors: they wait.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "16")
	m.Run()
}

// TestMethods is `make auth`, where Vault is away for a minute.
func TestMethods(t *testing.T) {
	t.Parallel()
	authority := ca.New(t, "test")
	cluster := kube.Start(t)
	cluster.Apply(t, accounts)
	measured := &table{rows: map[string]map[string]time.Duration{}}
	t.Run("methods", func(t *testing.T) {
		for _, m := range methods() {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel() // it mostly waits
				m.play(newWorld(t, authority, cluster), measured)
			})
		}
	})
	t.Logf("until the next rotation was finished (a slot every 4 s; with Vault away for %s: one slot that was due meanwhile):\n%s", *away, measured)
}

// play goes through all steps of a method.
func (m method) play(w *world, measured *table) {
	t := w.t
	auth, wrong, says := m.prepare(w)
	tls := fmt.Sprintf(`tls: {ca_file: %q%s},`, w.ca.File, strings.ReplaceAll(m.tls, "%[1]s", w.dir))
	if w.agent != nil {
		tls = "" // the agent has it
	}
	// A session that ends before it can be renewed: nothing but a new login helps.
	m.role(w, 25*time.Second, 25*time.Second)
	if w.agent == nil {
		m.good(w)
	}
	often := w.token("often", "@every 4s")

	w.configure(wrong, tls, often)
	w.start()
	w.eventually("the daemon says "+says, func() bool { return w.count("logging in to Vault failed.*"+says) > 0 })
	w.stop()

	if m.given || m.name == "approle, wrapped" {
		m.role(w, 25*time.Second, 25*time.Second)
		m.good(w)
	}
	w.configure(auth, tls, often)
	w.start()
	measured.note(m.name, started, w.rotates("often"))

	if m.given {
		time.Sleep(26 * time.Second) // until it has ended
		ttl := 30 * time.Second
		if w.agent != nil {
			ttl = time.Hour // this agent does not renew it, and the next login may be 15 seconds away
		}
		m.role(w, ttl, time.Hour)
		m.good(w)
		measured.note(m.name, ended, w.rotates("often"))
	} else {
		w.eventually("a second login", func() bool { return w.count("logged in to Vault") > 1 })
		measured.note(m.name, ended, w.rotates("often"))
		m.role(w, 30*time.Second, time.Hour)
	}
	if !m.given { // else the other program renews it
		w.eventually("a renewal", func() bool { return w.renewals() > 0 })
		measured.note(m.name, renewed, w.rotates("often"))
	}

	m.role(w, time.Hour, 24*time.Hour)
	w.revoke()
	if m.given {
		m.good(w)
	}
	measured.note(m.name, revoked, w.rotates("often"))

	m.bad(w)
	if m.given {
		w.revoke()
	}
	w.eventually("the daemon says "+m.badSays, func() bool { return w.count(m.badSays) > 0 })
	if !m.given {
		w.rotates("often")                // a bad credential does not end a good session
		if m.name != "approle, wrapped" { // a wrapped one is kept, and is good for another login
			w.revoke()
			w.eventually("the session is lost", func() bool { return w.count("logging in to Vault failed") > 0 })
		}
	}
	m.good(w)
	measured.note(m.name, replaced, w.rotates("often"))
	w.stop()

	// One slot is due while Vault is away, and the daemon is started then.
	w.vault.Kill()
	slot := w.token("slot", "@every 1h")
	_, id, _ := strings.Cut(slot, "id: ")
	id, _, _ = strings.Cut(id, ",")
	w.due("slot", id)
	w.configure(auth, tls, slot)
	w.start()
	time.Sleep(*away)
	w.vault.Resume(t)
	measured.note(m.name, vaultAway, w.rotates("slot"))
	w.stop()
	for _, secret := range w.sim.Secrets(id) {
		if strings.Contains(w.log.String(), secret.Value.Reveal()) {
			t.Error("a secret is in the log")
		}
	}
}

// renewals asks the daemon's metrics.
func (w *world) renewals() int {
	address := ""
	for line := range strings.Lines(w.log.String()) {
		if _, after, found := strings.Cut(line, `"rotatord is running"`); found {
			if _, after, found = strings.Cut(after, `"address":"`); found {
				address, _, _ = strings.Cut(after, `"`)
			}
		}
	}
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	exposition, err := io.ReadAll(response.Body)
	if err != nil {
		return 0
	}
	n := 0
	for line := range strings.Lines(string(exposition)) {
		if value, found := strings.CutPrefix(line, `rotatord_vault_requests_total{code="200",operation="renew"} `); found {
			_, _ = fmt.Sscan(value, &n)
		}
	}
	return n
}

// TestAPIServerAway has the API server away when a session has to be replaced: TokenReview is not possible. And it has
// the service account deleted.
func TestAPIServerAway(t *testing.T) {
	t.Parallel()
	authority := ca.New(t, "test")
	cluster := kube.Start(t)
	cluster.Apply(t, accounts)
	m := kubernetes()
	w := newWorld(t, authority, cluster)
	auth, _, _ := m.prepare(w)
	m.role(w, time.Hour, 24*time.Hour)
	m.good(w)
	w.configure(auth, fmt.Sprintf("tls: {ca_file: %q},", authority.File), w.token("often", "@every 4s"))
	w.start()
	w.rotates("often")
	cluster.KillAPI()
	w.rotates("often") // the session goes on
	w.revoke()
	w.eventually("a login that fails", func() bool { return w.count("logging in to Vault failed") > 0 })
	time.Sleep(*away)
	cluster.Resume(t)
	t.Logf("the API server was away for %s: a rotation was finished %s after it was ready", *away, w.rotates("often").Round(100*time.Millisecond))
	// A service account that is gone: its token is not accepted any more, although it has not ended.
	cluster.Delete(t, "/api/v1/namespaces/rotatord/serviceaccounts/rotatord")
	// The API server keeps its last review of a token for ten seconds: until then a login succeeds.
	failed := w.count("logging in to Vault failed")
	w.eventually("a login that fails", func() bool { w.revoke(); return w.count("logging in to Vault failed") > failed })
	cluster.Apply(t, accounts)
	m.good(w)
	w.rotates("often")
	w.stop()
}
