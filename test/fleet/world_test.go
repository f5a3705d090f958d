package fleet

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
	"rotatord/test/realvault"
)

const (
	fleetSize = 50
	mount     = "secret"
	apiToken  = "fleet-api-token"
)

// pace is how fast everything goes. What takes weeks in production takes seconds here, in
// the same proportions: re-read interval < grace < gap between two rotations.
type pace struct {
	reread  time.Duration
	grace   time.Duration
	periods []time.Duration // of each credential; all differ, so that they rotate at different moments
	length  time.Duration
	quiet   time.Duration // at the end, in which no process is killed any more
}

// killing says when a scenario kills the contestant.
type killing int

const (
	never killing = iota
	atRandom
	unsealed // when it has the answer of a struck rotation, and has put it nowhere
)

// writeFault is what a scenario does to a struck write to Vault.
type writeFault int

const (
	nothing     writeFault = iota
	refused                // 500, and nothing is written
	vaultKilled            // SIGKILL, and started again after away
	vaultSealed            // unsealed again after away
)

// scenario is what goes wrong.
type scenario struct {
	name   string
	answer cfsim.Kind // happens to the answer of a struck rotation, which was carried out
	status int        // of that answer
	write  writeFault
	away   time.Duration
	killed killing
	// strike says which credential (counted from 0) is struck in which of its rotations or
	// writes (counted from 1). A second fault comes after the first has been dealt with.
	strike map[int]int
}

// calm reports whether nothing goes wrong.
func (s scenario) calm() bool { return s.answer == "" && s.write == nothing && s.killed == never }

// losesAnswers reports whether a secret is issued whose answer is lost.
func (s scenario) losesAnswers() bool { return s.answer != "" || s.killed == unsealed }

// world is a Vault, a Cloudflare and a fleet, for one contestant.
type world struct {
	pace       pace
	scenario   scenario
	contestant contestant
	names      []string
	byTokenID  map[string]int
	byPath     map[string]int

	vault         *realvault.Vault
	sim           *cfsim.Simulator
	dir           string
	simURL        string
	cloudflareURL string
	vaultURL      string
	oneToken      bool // behind each credential, and so the application can insist on it

	rotates, writes ordinals
	takeAway        chan chan struct{} // a write waits for Vault to be taken away
	kills           int
	outages         *outages // nil but in TestOutages
}

func path(name string) string { return "access/" + name }

// application is what the clients of a credential call. It admits one service token, or for
// a pair every valid one.
func (w *world) application(name string) string {
	if w.oneToken {
		return w.simURL + "/app/" + cfsim.SeedTokenID(w.byPath[path(name)]+1)
	}
	return w.simURL + "/app/" + name
}

func newWorld(t *testing.T, p pace, s scenario, pairs bool) *world {
	t.Helper()
	n := len(p.periods)
	w := &world{
		pace: p, scenario: s, oneToken: !pairs, dir: t.TempDir(), takeAway: make(chan chan struct{}),
		byTokenID: map[string]int{}, byPath: map[string]int{},
		vault: realvault.Start(t),
		sim:   cfsim.New(cfsim.Options{SeedTokens: 2 * n, RateLimit: -1, APIToken: secret.New(apiToken)}),
	}
	w.vault.MountKV(t, mount, 2, false)
	root := w.vault.Root(t).Logical()
	// Every version is kept: what was never in Vault is lost.
	if _, err := root.Write(mount+"/config", map[string]any{"max_versions": 1000}); err != nil {
		t.Fatal(err)
	}
	roleID, secretID := w.vault.AppRole(t, realvault.LeastPolicy(t), "1m", "1h")
	for name, content := range map[string]string{"role-id": roleID, "secret-id": secretID, "api-token": apiToken} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		name := fmt.Sprintf("token-%02d", i+1)
		w.names = append(w.names, name)
		w.byPath[path(name)] = i
		w.byTokenID[cfsim.SeedTokenID(i+1)], w.byTokenID[cfsim.SeedTokenID(i+1+n)] = i, i
		token, ok := w.sim.Token(cfsim.SeedTokenID(i + 1))
		if !ok {
			t.Fatal("the simulator has too few tokens")
		}
		first := map[string]any{"client_id": token.ClientID, "client_secret": w.sim.Secrets(token.ID)[0].Value.Reveal()}
		if _, err := root.Write(mount+"/data/"+path(name), map[string]any{"data": first}); err != nil {
			t.Fatal(err)
		}
	}
	w.simURL = w.cloudflare(t)
	w.cloudflareURL = w.simURL + cfsim.BasePath
	w.vaultURL = w.vaultProxy(t)
	return w
}

// outcome is one cell of the table.
type outcome struct {
	tally
	struck    int // by the scenario's fault
	kills     int
	rotations int
	lost      int // secrets that Cloudflare issued and Vault never held
	lostMost  int // of one credential
	lockedOut int // credentials that are refused at the end
	alarms    int
}

// run lets the contestant and the fleet work while faults happen, and returns the result.
func (w *world) run(t *testing.T) outcome {
	t.Helper()
	stop := w.clients(t)
	w.contestant.start(t)
	w.disturb(t)
	w.contestant.stop(t)
	time.Sleep(w.pace.reread + 2*pause) // so that every client has what was written last
	o := outcome{tally: stop(), struck: w.rotates.count() + w.writes.count(), kills: w.kills, alarms: w.contestant.alarms()}
	if o.broken != nil {
		t.Fatalf("a client gave up, so this counts nothing: %v", o.broken)
	}
	for _, n := range w.sim.Stats().Rotations {
		o.rotations += n
	}
	for i, name := range w.names {
		lost := w.lost(t, i)
		o.lost += lost
		o.lostMost = max(o.lostMost, lost)
		if !w.admitted(t, name) {
			o.lockedOut++
		}
	}
	return o
}

// disturb waits for as long as the scenario lasts. It kills, and takes Vault away.
func (w *world) disturb(t *testing.T) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2)) // the same moments for all
	end := time.Now().Add(w.pace.length)
	for {
		var kill <-chan time.Time
		if w.scenario.killed == atRandom && time.Until(end) > w.pace.quiet {
			kill = time.After(2*time.Second + time.Duration(random.Int64N(int64(2*time.Second))))
		}
		select {
		case <-kill:
			w.contestant.kill()
			w.kills++
		case waiting := <-w.takeAway:
			w.outage(t, waiting)
		case <-time.After(time.Until(end)):
			return
		}
	}
}

// lost counts the secrets of a credential that were issued and never in Vault.
func (w *world) lost(t *testing.T, credential int) (n int) {
	t.Helper()
	root := w.vault.Root(t).Logical()
	at := path(w.names[credential])
	meta, err := root.Read(mount + "/metadata/" + at)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[secret.Digest]bool{}
	for version := range meta.Data["versions"].(map[string]any) {
		s, err := root.ReadWithData(mount+"/data/"+at, map[string][]string{"version": {version}})
		if err != nil {
			t.Fatal(err)
		}
		value, _ := s.Data["data"].(map[string]any)["client_secret"].(string)
		stored[secret.New(value).Digest()] = true
	}
	for id, of := range w.byTokenID {
		if of != credential {
			continue
		}
		for _, s := range w.sim.Secrets(id)[1:] { // the first was not issued by a rotation
			if !stored[s.Digest] {
				n++
			}
		}
	}
	return n
}

// admitted reports whether the application accepts what Vault holds.
func (w *world) admitted(t *testing.T, name string) bool {
	t.Helper()
	c := client{
		http: http.DefaultClient, application: w.application(name),
		stored: w.vault.Address + "/v1/" + mount + "/data/" + path(name), vaultToken: w.vault.RootToken,
	}
	has, err := c.read()
	if err != nil {
		t.Fatal(err)
	}
	status, err := c.call(has)
	if err != nil {
		t.Fatal(err)
	}
	return status == http.StatusOK
}
