package crash

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/statedir"
	"rotatord/test/program"
	"rotatord/test/program/kube"
)

// hookKinds are the kinds of hooks, in the order of the table in docs/hooks.md.
var hookKinds = []string{"exec", "webhook", "restart"}

// hookKills says what the receiver of each kind of hook sees if the daemon is killed at a point: the attempts of the runs,
// and for restart how often its pod template changes. It is the table in docs/hooks.md. owed is whether the hook is owed
// after the kill.
var hookKills = []struct {
	point string
	seen  [3]string
	owed  bool
}{
	{"hook.begin.before", [3]string{"attempt 1", "attempt 1", "1 restart"}, true},
	{"hook.begin.after", [3]string{"attempt 2", "attempt 2", "1 restart"}, true},
	{"hook.effect.before", [3]string{"attempt 2", "attempt 2", "1 restart"}, true},
	{"hook.effect.after", [3]string{"attempts 1 and 2", "attempts 1 and 2", "1 restart"}, true},
	{"hook.end.before", [3]string{"attempts 1 and 2", "attempts 1 and 2", "1 restart"}, true},
	{"hook.end.after", [3]string{"attempt 1", "attempt 1", "1 restart"}, false},
}

// TestHookKillsAreDocumented: the table in docs/hooks.md is that of this test.
func TestHookKillsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/hooks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kill := range hookKills {
		row := fmt.Sprintf("(`%s`) | %s |", kill.point, strings.Join(kill.seen[:], " | "))
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/hooks.md has no row that ends with %s", row)
		}
	}
}

// TestKilledAroundAHook kills the daemon at each step of each kind of hook. The hook is not lost, and runs once for the
// rotation. Only if it has run, and the ledger does not have that yet, it runs again, and its receiver can see that. The next
// rotation has a run of its own, and a restart of the daemon repeats nothing.
func TestKilledAroundAHook(t *testing.T) {
	cluster := kube.Start(t)
	for i, kind := range hookKinds {
		for _, kill := range hookKills {
			t.Run(kind+"/"+kill.point, func(t *testing.T) {
				w := newHookWorld(t, kind, cluster)
				owed := w.killedAt(kill.point)
				if (len(owed) > 0) != kill.owed {
					t.Errorf("after the kill %v are owed, want %v", owed, kill.owed)
				}
				if got := w.receiver.seen(t); got != kill.seen[i] {
					t.Errorf("the receiver has seen %s, want %s", got, kill.seen[i])
				}
				w.receiver.forget(t)
				w.idle()
				if got := w.receiver.seen(t); got != w.receiver.nothing() {
					t.Errorf("after restarts of the daemon the receiver has seen %s", got)
				}
				w.rotateAll()
				if got, want := w.receiver.seen(t), hookKills[0].seen[i]; got != want {
					t.Errorf("for the next rotation the receiver has seen %s, want %s", got, want)
				}
			})
		}
	}
}

// TestKilledAroundABatch kills the daemon at each step of a run that serves three tokens. Each token is told at least once,
// and what the ledger knows to be done is not told again. Where a token is told again, its own delivery is the same and its
// attempt is higher; the delivery of the request is the same if all three are in it again.
func TestKilledAroundABatch(t *testing.T) {
	for _, point := range []string{
		"hook.begin.before", "hook.begin.after", "hook.begin.after#2", "hook.effect.before", "hook.effect.after",
		"hook.end.before", "hook.end.before#2", "hook.end.after", "hook.end.after#3",
	} {
		t.Run(point, func(t *testing.T) {
			w := newHookWorld(t, "batch", nil)
			owed := w.killedAt(point)
			r := w.receiver.(*noticeReceiver)
			first, whole := map[string]notice{}, ""
			told := map[string]int{}
			for _, n := range r.all() {
				for _, token := range n.Tokens {
					before, again := first[token.Name]
					switch {
					case !again:
						first[token.Name] = notice{Tokens: []noticedToken{token}}
					case before.Tokens[0].Delivery != token.Delivery || before.Tokens[0].Attempt >= token.Attempt:
						t.Errorf("%s was told by %+v and then by %+v", token.Name, before.Tokens[0], token)
					case !slices.Contains(owed, token.Name):
						t.Errorf("%s was done, and was told again", token.Name)
					}
					told[token.Name]++
				}
				if len(n.Tokens) == len(w.tokens) {
					if whole != "" && whole != n.Delivery {
						t.Errorf("the same batch has the deliveries %s and %s", whole, n.Delivery)
					}
					whole = n.Delivery
				}
			}
			if len(told) != len(w.tokens) {
				t.Errorf("told: %v", told)
			}
			t.Logf("owed after the kill: %v; told: %v in %d requests", owed, told, len(r.all()))
		})
	}
}

// hookReceiver is what a hook tells.
type hookReceiver interface {
	config() string              // of the hook
	seen(t *testing.T) string    // since the last call of forget
	forget(t *testing.T)         // begins to count again
	nothing() string             // what seen returns for nothing
	prepare(t *testing.T) string // returns further configuration
}

// hookWorld is a daemon with tokens that have one hook.
type hookWorld struct {
	*world
	receiver hookReceiver
	tokens   []string
	path     string // of the program
}

func newHookWorld(t *testing.T, kind string, cluster *kube.Server) *hookWorld {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w := &hookWorld{world: &world{t: t, dir: dir}, tokens: []string{"ci"}, path: path}
	switch kind {
	case "exec":
		w.receiver = &notedRuns{path: filepath.Join(dir, "noted")}
	case "webhook":
		w.receiver = &noticeReceiver{}
	case "batch":
		w.receiver, w.tokens = &noticeReceiver{batch: "3s"}, []string{"ci", "cd", "ce"}
	case "restart":
		w.receiver = &template{cluster: cluster, name: fmt.Sprintf("app-%d", time.Now().UnixNano())}
	}
	api := httptest.NewServer(cfsim.New(cfsim.Options{RateLimit: -1, SeedTokens: len(w.tokens)}))
	t.Cleanup(api.Close)
	w.simURL = api.URL
	more := w.receiver.prepare(t)
	var config strings.Builder
	fmt.Fprintf(&config, `
listen: 127.0.0.1:0
admin_socket: %[1]s/admin.sock
state: {dir: %[1]s/state}
accounts: {sim: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, api_token: {file: %[1]s/api-token}, base_url: %[2]s}}
%[3]s
defaults: {account: sim, schedule: "@every 720h", grace: 1h, after: [%[4]s]}
tokens:
`, dir, api.URL+cfsim.BasePath, more, w.receiver.config())
	for i, name := range w.tokens {
		fmt.Fprintf(&config, "  %s: {id: %s, sinks: [{file: {path: %s/%[1]s.env, fields: {client_id: ID, client_secret: SECRET}}}]}\n", name, cfsim.SeedTokenID(i+1), dir)
	}
	for name, content := range map[string]string{"api-token": "crash", "config.yaml": config.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// rotate rotates all tokens. The daemon may be killed before it answers.
func (w *hookWorld) rotate(p *process) (answers []string) {
	program.Eventually(w.t, 60*time.Second, "the daemon runs", func() bool { return p.status() != nil })
	for _, token := range w.tokens {
		out, err := exec.Command(w.path, "rotate", token, "--override-grace", "--config", w.config()).CombinedOutput()
		answers = append(answers, fmt.Sprintf("%s %v", out, err))
	}
	return answers
}

// owed returns the tokens that owe a hook, as the ledger of a daemon that does not run says.
func (w *hookWorld) owed() (names []string) {
	records, err := statedir.ReadLedger(w.t.Context(), filepath.Join(w.dir, "state"))
	if err != nil || len(records) != len(w.tokens) {
		w.t.Fatalf("the ledger: %d records, %v", len(records), err)
	}
	for _, r := range records {
		if len(r.OwedHooks()) > 0 {
			names = append(names, r.Token)
		}
	}
	return names
}

// killedAt rotates, kills the daemon at a point, and lets the next one finish. It returns who owed a hook after the kill.
func (w *hookWorld) killedAt(point string) []string {
	name, nth, counted := strings.Cut(point, "#")
	spec := name + "=kill"
	if counted {
		spec += "#" + nth
	}
	first := w.start(spec)
	answers := w.rotate(first)
	program.Eventually(w.t, 60*time.Second, "the daemon is killed at "+point, func() bool { return first.dies(time.Millisecond) })
	if fate := first.fate(); fate != "" {
		w.t.Fatalf("%s\n%s\n%s", fate, answers, first.log)
	}
	owed := w.owed()
	w.finish(w.start(""))
	return owed
}

// finish waits until no hook is owed, and stops the daemon.
func (w *hookWorld) finish(p *process) {
	program.Eventually(w.t, 60*time.Second, "all hooks have run", func() bool {
		all := p.status()
		return len(all) == len(w.tokens) && !slices.ContainsFunc(all, func(s tokenStatus) bool { return len(s.Hooks) != 1 || s.Hooks[0].State != "done" })
	})
	if err := p.terminate(); err != nil {
		w.t.Error(err)
	}
	if owed := w.owed(); len(owed) > 0 {
		w.t.Errorf("after a stop %v owe a hook", owed)
	}
}

// idle starts and stops the daemon twice.
func (w *hookWorld) idle() {
	for range 2 {
		w.finish(w.start(""))
	}
}

// rotateAll rotates all tokens again.
func (w *hookWorld) rotateAll() {
	p := w.start("")
	for _, answer := range w.rotate(p) {
		if !strings.HasSuffix(answer, "<nil>") {
			w.t.Errorf("rotating: %s", answer)
		}
	}
	program.Eventually(w.t, 60*time.Second, "the hook has run", func() bool { return w.receiver.seen(w.t) != w.receiver.nothing() })
	w.finish(p)
}

// attempts says which attempts were seen.
func attempts(all []string) string {
	if len(all) == 1 {
		return "attempt " + all[0]
	}
	return "attempts " + strings.Join(all, " and ")
}

// notedRuns is a program that notes its runs in a file.
type notedRuns struct {
	path string
	skip int
}

func (r *notedRuns) prepare(*testing.T) string { return "" }
func (r *notedRuns) nothing() string           { return attempts(nil) }
func (r *notedRuns) config() string {
	return fmt.Sprintf(`{exec: {command: [sh, -c, "echo $ROTATORD_ROTATION_ID $ROTATORD_DIGEST $ROTATORD_ATTEMPT >> %s"]}}`, r.path)
}

func (r *notedRuns) lines(t *testing.T) []string {
	b, err := os.ReadFile(r.path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(string(b)))
}

func (r *notedRuns) forget(t *testing.T) { r.skip = len(r.lines(t)) }

func (r *notedRuns) seen(t *testing.T) string {
	var all, rotations []string
	for _, line := range r.lines(t)[r.skip:] {
		words := strings.Fields(line)
		if len(words) != 3 {
			t.Fatalf("a run noted %q", line)
		}
		all, rotations = append(all, words[2]), append(rotations, words[0]+words[1])
	}
	if n := len(slices.Compact(rotations)); n > 1 {
		t.Errorf("the runs are for %d rotations", n)
	}
	slices.Sort(all) // a program that was started by a daemon which is killed goes on, and may note its run after the next one
	return attempts(all)
}

// notice is the body of a webhook, as docs/hooks.md describes it.
type notice struct {
	Delivery string         `json:"delivery"`
	Attempt  string         `json:"-"` // of the header
	Tokens   []noticedToken `json:"tokens"`
}

type noticedToken struct {
	Name     string `json:"name"`
	Delivery string `json:"delivery"`
	Attempt  int    `json:"attempt"`
}

// noticeReceiver receives webhooks.
type noticeReceiver struct {
	batch string

	url, key string
	mu       sync.Mutex
	notices  []notice
}

func (r *noticeReceiver) prepare(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var n notice
		b, err := io.ReadAll(req.Body)
		if err != nil || json.Unmarshal(b, &n) != nil || n.Delivery == "" || n.Delivery != req.Header.Get("X-Rotatord-Delivery") {
			t.Errorf("%s, %v, %v", b, req.Header, err)
		}
		n.Attempt = req.Header.Get("X-Rotatord-Attempt")
		r.mu.Lock()
		defer r.mu.Unlock()
		r.notices = append(r.notices, n)
	}))
	t.Cleanup(server.Close)
	r.url, r.key = server.URL, filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(r.key, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	return ""
}

func (r *noticeReceiver) config() string {
	batch := ""
	if r.batch != "" {
		batch = ", batch: " + r.batch
	}
	return fmt.Sprintf("{webhook: {url: %q, secret: {file: %s}%s}}", r.url, r.key, batch)
}

func (r *noticeReceiver) all() []notice {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.notices)
}

func (r *noticeReceiver) forget(*testing.T) { r.mu.Lock(); defer r.mu.Unlock(); r.notices = nil }
func (r *noticeReceiver) nothing() string   { return attempts(nil) }

func (r *noticeReceiver) seen(t *testing.T) string {
	var all []string
	notices := r.all()
	for _, n := range notices {
		if n.Delivery != notices[0].Delivery {
			t.Errorf("one rotation has the deliveries %s and %s", notices[0].Delivery, n.Delivery)
		}
		all = append(all, n.Attempt)
	}
	return attempts(all)
}

// template is the pod template of a Deployment in a real API server.
type template struct {
	cluster *kube.Server
	name    string
	before  float64
}

func (r *template) prepare(t *testing.T) string {
	r.cluster.Apply(t, fmt.Sprintf(`apiVersion: v1
kind: Namespace
metadata:
  name: ci
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
  namespace: ci
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {containers: [{name: a, image: example.com/a}]}
`, r.name))
	r.forget(t)
	return fmt.Sprintf("kubernetes: {kubeconfig: %s}", r.cluster.Kubeconfig(t, "admin", r.cluster.AdminToken))
}

func (r *template) config() string {
	return fmt.Sprintf("{restart: {kind: Deployment, namespace: ci, name: %s}}", r.name)
}

// generation grows with each change of the template.
func (r *template) generation(t *testing.T) float64 {
	return r.cluster.Get(t, "/apis/apps/v1/namespaces/ci/deployments/"+r.name)["metadata"].(map[string]any)["generation"].(float64)
}

func (r *template) forget(t *testing.T) { r.before = r.generation(t) }
func (r *template) nothing() string     { return restarts(0) }
func (r *template) seen(t *testing.T) string {
	return restarts(r.generation(t) - r.before)
}

func restarts(n float64) string {
	if n == 1 {
		return "1 restart"
	}
	return fmt.Sprintf("%v restarts", n)
}
