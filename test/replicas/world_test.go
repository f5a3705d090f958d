package replicas

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
	"rotatord/test/program"
	"rotatord/test/realvault"
)

// settings say what a world is like.
type settings struct {
	replicas, tokens int
	claim            time.Duration // 0: one daemon with a ledger of its own
	period           time.Duration // of the schedules; with a grace it is 1.5 graces. They differ by a fifth, so that slots spread
	grace            time.Duration // of every other token that is not a pair; the others have none
	seed             uint64
	failpoints       string
	plain            bool               // no pairs, and every token has the grace
	schedule         func(n int) string // of each token; nil: by period
	tokensOfAccount  int                // how many tokens share a budget of requests; 0: 10
}

// subject is one token of the configuration.
type subject struct {
	name     string
	path     string
	account  int
	pair     bool
	grace    time.Duration
	schedule string
	ids      []string
	mu       sync.Mutex // of the requests for it
}

// world is a cluster, a Cloudflare, and the replicas.
type world struct {
	settings
	t            *testing.T
	dir          string
	vaultTimeout time.Duration
	accounts     int
	peers        *peers
	cluster      *realvault.Cluster
	sim          *cfsim.Simulator
	subjects     []*subject
	byTokenID    map[string]*subject
	byName       map[string]*subject
	replicas     []*replica

	outages outages

	mu       sync.Mutex
	loss     float64 // how many answers to rotate requests are lost, of 1
	requests []*request
	saves    []*save
	intents  map[intentKey]save
	looks    int
	refusals []refusal
	tally    tally
	wrong    []string // what was found before the oracle is asked
}

// tally counts what happened.
type tally struct {
	faults      map[string]int
	lostAnswers int
}

func accountName(n int) string { return fmt.Sprintf("account-%02d", n) }
func accountID(n int) string   { return fmt.Sprintf("%032x", 0xacc0+n) }

// newWorld makes a cluster and the tokens, with their first secrets in Vault. It starts no replica.
func newWorld(t *testing.T, s settings) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "replicas-") // short, for the paths of the sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.tokensOfAccount = cmp.Or(s.tokensOfAccount, 10)
	w := &world{
		settings: s, t: t, dir: dir, vaultTimeout: 5 * time.Second, accounts: (s.tokens + s.tokensOfAccount - 1) / s.tokensOfAccount,
		byTokenID: map[string]*subject{}, byName: map[string]*subject{}, intents: map[intentKey]save{}, tally: tally{faults: map[string]int{}},
		sim: cfsim.New(cfsim.Options{RateLimit: -1}),
	}
	if s.claim > 0 {
		w.vaultTimeout = min(5*time.Second, s.claim/4)
	}
	w.peers = &peers{t: t}
	w.cluster = w.peers.start()
	w.prepareVault()
	w.makeTokens()
	for n := range s.replicas {
		w.addReplica(n)
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) prepareVault() {
	w.t.Helper()
	leader := w.cluster.Leader(w.t)
	leader.MountKV(w.t, mount, 2, false)
	_, err := leader.Root(w.t).Logical().Write(mount+"/config", map[string]any{"max_versions": 1000}) // what was never in Vault is lost
	w.must(err)
	policy := realvault.LeastPolicy(w.t) + realvault.ReplicasPolicy(w.t)
	roleID, secretID := leader.AppRole(w.t, policy, "1h", "24h")
	identity, err := age.GenerateX25519Identity()
	w.must(err)
	for name, content := range map[string]string{"role-id": roleID, "secret-id": secretID, "identity": identity.String()} {
		w.must(os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o600))
	}
	for n := range w.accounts { // a budget belongs to a credential
		w.must(os.WriteFile(filepath.Join(w.dir, "api-token-"+accountName(n)), []byte("replicas-"+accountName(n)), 0o600))
	}
}

func (w *world) makeTokens() {
	w.t.Helper()
	random := rand.New(rand.NewPCG(w.seed, 7))
	var writers sync.WaitGroup
	queue := make(chan func(), w.tokens)
	root := w.cluster.Leader(w.t).Root(w.t).Logical()
	for n := range w.tokens {
		s := &subject{name: fmt.Sprintf("token-%05d", n), account: n / w.tokensOfAccount}
		s.path = "access/" + s.name
		if w.plain {
			s.grace = w.grace
		} else {
			switch n % 5 {
			case 0:
				s.pair = true
				s.grace = w.grace
			case 1, 2:
				s.grace = w.grace
			}
		}
		s.schedule = w.scheduleOf(n, s.grace > 0, random)
		for range 1 + btoi(s.pair) {
			made, value, err := w.sim.Create(cfsim.CreateParams{Name: s.name, AccountID: accountID(s.account)})
			w.must(err)
			if len(s.ids) == 0 {
				queue <- func() {
					_, err := root.Write(mount+"/data/"+s.path, map[string]any{"data": map[string]any{"client_id": made.ClientID, "client_secret": value.Reveal()}})
					if err != nil {
						w.t.Error(err)
					}
				}
			}
			s.ids = append(s.ids, made.ID)
			w.byTokenID[made.ID] = s
		}
		w.subjects = append(w.subjects, s)
		w.byName[s.name] = s
	}
	close(queue)
	for range 8 {
		writers.Go(func() {
			for write := range queue {
				write()
			}
		})
	}
	writers.Wait()
}

func (w *world) scheduleOf(n int, withGrace bool, random *rand.Rand) string {
	if w.schedule != nil {
		return w.schedule(n)
	}
	period := w.period
	if withGrace {
		period = w.grace * 3 / 2
	}
	period += time.Duration(random.Int64N(int64(2*period/5)+1)) - period/5
	return "@every " + period.Round(time.Second).String()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (w *world) addReplica(n int) {
	w.t.Helper()
	r := &replica{w: w, name: fmt.Sprintf("replica-%d", n)}
	r.dir = filepath.Join(w.dir, r.name)
	w.must(os.MkdirAll(r.dir, 0o700))
	serve := func(h http.HandlerFunc) string {
		server := httptest.NewUnstartedServer(h)
		server.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, lifeKey{}, r.last())
		}
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		server.Start()
		w.t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
		return server.URL
	}
	r.vaultURL, r.simURL = serve(r.serveVault), serve(r.serveCloudflare)
	w.must(r.configure())
	w.replicas = append(w.replicas, r)
	w.t.Cleanup(func() {
		r.kill()
		if lives := r.all(); w.t.Failed() && len(lives) > 0 {
			w.t.Logf("the end of the log of %s:\n%s", r.name, program.Tail(lives[len(lives)-1].log.String()))
		}
	})
}

// startAll starts all replicas and waits until they are ready.
func (w *world) startAll() {
	w.t.Helper()
	for _, r := range w.replicas {
		w.must(r.start())
	}
	w.awaitReady()
}

func (w *world) awaitReady() {
	w.t.Helper()
	for _, r := range w.replicas {
		for deadline := time.Now().Add(program.Patience); ; time.Sleep(20 * time.Millisecond) {
			err := r.get("/readyz", nil)
			if r.current() == nil {
				w.t.Fatalf("%s has ended", r.name)
			}
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				w.t.Fatalf("%s is not ready: %v", r.name, err)
			}
		}
	}
}

func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

func digest(value string) secret.Digest { return secret.New(value).Digest() }

// logs returns the logs of all lives.
func (w *world) logs() (all []string) {
	for _, r := range w.replicas {
		for _, p := range r.all() {
			all = append(all, p.log.String())
		}
	}
	return all
}

// keepLogs writes the logs of all lives to a directory.
func (w *world) keepLogs(dir string) {
	_ = os.MkdirAll(dir, 0o755)
	for _, r := range w.replicas {
		var b strings.Builder
		for n, p := range r.all() {
			fmt.Fprintf(&b, "=== life %d, started %s\n%s", n, p.started.Format(clock), p.log.String())
		}
		_ = os.WriteFile(filepath.Join(dir, r.name+".log"), []byte(b.String()), 0o600)
	}
}

// clock is how times are shown.
const clock = "15:04:05.000"
