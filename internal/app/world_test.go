package app_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/app"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
	"rotatord/internal/vault/vaulttest"
)

// The credentials of the daemon itself. They must not be shown anywhere either.
const (
	apiToken   = "canary-of-the-cloudflare-api-token"
	vaultToken = "canary-of-the-vault-token"
)

// patience limits every wait for something that must happen. It is far longer than that takes on a loaded
// machine: only a daemon that hangs reaches it.
const patience = 2 * time.Minute

// world is a Cloudflare and a Vault, and a state directory.
type world struct {
	t        *testing.T
	sim      *cfsim.Simulator
	vault    *vaulttest.Server
	simURL   string
	vaultURL string
	dir      string // has the credentials and the state directory
	tokens   []tokenSpec
	offset   atomic.Int64 // of the wall clock, in nanoseconds

	logStalled chan struct{} // until it is closed, nothing reads the log; nil: the log is read

	mu       sync.Mutex
	before   map[string]func()      // by operation: called before the simulator sees a request
	requests map[string][]time.Time // when each request was sent, by operation
	released chan struct{}          // closed at the end of the test, for gates
}

// tokenSpec is one token of the configuration.
type tokenSpec struct {
	Name, ID, Schedule, Grace string
	Partner                   string // of a pair
	Which, Rest               string // instead of the ID; also further fields
	Sinks                     string // instead of a path in Vault
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, dir: t.TempDir(), before: map[string]func(){}, requests: map[string][]time.Time{}, released: make(chan struct{}),
		sim:   cfsim.New(cfsim.Options{RateLimit: -1, APIToken: secret.New(apiToken)}),
		vault: vaulttest.New(vaulttest.Options{RootToken: vaultToken, Mounts: []vaulttest.Mount{{Path: "secret", Version: 2}}}),
	}
	sim, vault := httptest.NewServer(http.HandlerFunc(w.serveSim)), httptest.NewServer(w.vault)
	w.simURL, w.vaultURL = sim.URL, vault.URL
	t.Cleanup(vault.Close)
	t.Cleanup(sim.Close)
	t.Cleanup(func() { close(w.released) })
	w.write("cloudflare-api-token", apiToken)
	w.write("vault-token", vaultToken)
	return w
}

// serveSim notes a request and calls what a test wants to happen before it.
func (w *world) serveSim(rw http.ResponseWriter, r *http.Request) {
	operation := "get"
	switch {
	case strings.HasSuffix(r.URL.Path, "/rotate"):
		operation = "rotate"
	case strings.HasSuffix(r.URL.Path, "/service_tokens"):
		operation = "list"
	}
	w.mu.Lock()
	w.requests[operation] = append(w.requests[operation], time.Now())
	do := w.before[operation]
	w.mu.Unlock()
	if do != nil {
		do()
	}
	w.sim.ServeHTTP(rw, r)
}

// on sets what is called before each request of an operation.
func (w *world) on(operation string, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before[operation] = do
}

// gate blocks requests of an operation until open is called, or the test ends.
func (w *world) gate(operation string) (open func()) {
	opened := make(chan struct{})
	w.on(operation, func() {
		select {
		case <-opened:
		case <-w.released:
		}
	})
	return sync.OnceFunc(func() { close(opened) })
}

// seen returns when the requests of an operation were sent.
func (w *world) seen(operation string) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Time(nil), w.requests[operation]...)
}

func (w *world) write(name, content string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// now returns the time on the daemon's wall clock.
func (w *world) now() time.Time {
	return time.Now().Add(time.Duration(w.offset.Load()))
}

func (w *world) stateDir() string { return filepath.Join(w.dir, "state") }

// seldom is a schedule that has no slot while these tests run, whatever day it is.
var seldom = fmt.Sprintf("0 0 * * %d", (time.Now().UTC().Weekday()+3)%7)

// token creates a service token and adds it to the configuration.
func (w *world) token(name, schedule, grace string) tokenSpec {
	w.t.Helper()
	made, _, err := w.sim.Create(cfsim.CreateParams{Name: name})
	if err != nil {
		w.t.Fatal(err)
	}
	spec := tokenSpec{Name: name, ID: made.ID, Schedule: schedule, Grace: grace}
	w.tokens = append(w.tokens, spec)
	return spec
}

// anchored creates a token whose slots are counted from some moment, as if it was rotated then.
func (w *world) anchored(name string, every time.Duration, grace string, anchor time.Time) tokenSpec {
	w.t.Helper()
	spec := w.token(name, "@every "+every.String(), grace)
	j, err := statedir.Open(statedir.Options{Dir: w.stateDir()})
	if err != nil {
		w.t.Fatal(err)
	}
	defer j.Close()
	_, err = j.Ledger.Save(w.t.Context(), rotation.Record{Format: rotation.RecordFormat, Token: name, TokenID: spec.ID, Account: "sim", Anchor: anchor.UTC()})
	if err != nil {
		w.t.Fatal(err)
	}
	return spec
}

// due creates a token whose slot came a moment ago, and whose next one comes in an hour.
func (w *world) due(name, grace string) tokenSpec {
	w.t.Helper()
	return w.anchored(name, time.Hour, grace, time.Now().Add(-time.Hour-time.Second))
}

// config returns the configuration of this world, read by the real loader. Extra lines replace those with the
// same top-level key, or are added.
func (w *world) config(extra ...string) *config.Config {
	w.t.Helper()
	sections := []string{
		"listen: 127.0.0.1:0",
		fmt.Sprintf("state: {dir: %s}", w.stateDir()),
		fmt.Sprintf("accounts: {sim: {account_id: %s, api_token: {file: %s}, base_url: %s}}", cfsim.DefaultAccountID,
			filepath.Join(w.dir, "cloudflare-api-token"), w.simURL+cfsim.BasePath),
		fmt.Sprintf("vault: {address: %s, auth: {token: {file: %s}}}", w.vaultURL, filepath.Join(w.dir, "vault-token")),
		"defaults: {account: sim}",
	}
	for _, line := range extra {
		key, _, _ := strings.Cut(line, ":")
		if i := slices.IndexFunc(sections, func(s string) bool { return strings.HasPrefix(s, key+":") }); i >= 0 {
			sections[i] = line
		} else {
			sections = append(sections, line)
		}
	}
	var text strings.Builder
	text.WriteString(strings.Join(sections, "\n") + "\ntokens:\n")
	for _, spec := range w.tokens {
		which := "id: " + spec.ID
		if spec.Partner != "" {
			which = fmt.Sprintf("pair: [%s, %s]", spec.ID, spec.Partner)
		}
		if spec.Which != "" {
			which = spec.Which
		}
		if spec.Rest != "" {
			which += ", " + spec.Rest
		}
		fmt.Fprintf(&text, "  %s: {%s, schedule: %q, grace: %s, sinks: [%s]}\n",
			spec.Name, which, spec.Schedule, spec.Grace, cmp.Or(spec.Sinks, fmt.Sprintf("{vault: {mount: secret, path: access/%s}}", spec.Name)))
	}
	c, err := config.Parse("config.yaml", []byte(text.String()))
	if err != nil {
		w.t.Fatalf("%v\n%s", err, text.String())
	}
	return c
}

// truth returns the secret that Cloudflare now accepts as the current one.
func (w *world) truth(spec tokenSpec) secret.Value {
	w.t.Helper()
	all := w.sim.Secrets(spec.ID)
	if len(all) == 0 || all[len(all)-1].Status != cfsim.StatusCurrent {
		w.t.Fatalf("%s has no current secret", spec.Name)
	}
	return all[len(all)-1].Value
}

// delivered reports whether Vault has Cloudflare's current secret of a token.
func (w *world) delivered(spec tokenSpec) bool {
	value, _ := w.vault.Read("secret", "access/"+spec.Name)["client_secret"].(string)
	return value != "" && w.truth(spec).Equal(secret.New(value))
}

// daemon is an App that runs in this process.
type daemon struct {
	*app.App
	w      *world
	log    *buffer
	events *events
	url    string
}

// start builds an App and starts it. At the end of the test it is searched for secrets and stopped, unless
// stop did that.
func (w *world) start(c *config.Config) *daemon {
	w.t.Helper()
	d := w.run(c)
	w.t.Cleanup(d.stop)
	return d
}

// run builds an App and starts it. The caller stops it.
func (w *world) run(c *config.Config) *daemon {
	w.t.Helper()
	d := &daemon{w: w, log: &buffer{stalled: w.logStalled}, events: &events{}}
	var err error
	d.App, err = app.New(app.Options{
		Config: c, Logger: slog.New(slog.NewJSONHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Build: httpapi.Build{Version: "test"}, Subscriber: d.events.subscriber(), Now: w.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	d.url = "http://" + d.Addr().String()
	d.Start()
	return d
}

// stop searches for secrets and stops the App within a generous time.
func (d *daemon) stop() {
	d.w.t.Helper()
	if d.stopped() {
		return
	}
	d.searchPages()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		d.w.t.Errorf("stopping: %v", err)
	}
	d.searchFiles()
	if d.w.t.Failed() {
		d.w.t.Logf("the log of the daemon:\n%s", d.log)
	}
}

// stopped reports whether the listener is closed.
func (d *daemon) stopped() bool {
	res, err := http.Get(d.url + "/livez")
	if err != nil {
		return true
	}
	_ = res.Body.Close()
	return false
}

// get returns the status and the body of a page. On a busy machine it waits until the page knows all tokens.
func (d *daemon) get(path string) (int, string) {
	d.w.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if res, body := d.ask(path); res.Header.Get("Refresh") == "" || time.Now().After(end) {
			return res.StatusCode, body
		}
	}
}

// ask returns the first answer for a page.
func (d *daemon) ask(path string) (*http.Response, string) {
	d.w.t.Helper()
	res, err := http.Get(d.url + path)
	if err != nil {
		d.w.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		d.w.t.Fatal(err)
	}
	return res, string(body)
}

// metric returns the value of a series, and false if it is not there.
func (d *daemon) metric(series string) (float64, bool) {
	d.w.t.Helper()
	_, body := d.get("/metrics")
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(body)
	if found == nil {
		return 0, false
	}
	v, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		d.w.t.Fatal(err)
	}
	return v, true
}

// wantMetric checks a series at once.
func (d *daemon) wantMetric(series string, want float64) {
	d.w.t.Helper()
	if got, ok := d.metric(series); !ok || got != want {
		d.w.t.Errorf("%s is %v (there: %t), want %v", series, got, ok, want)
	}
}

// status returns what the API shows of a token.
func (d *daemon) status(name string) (s httpapi.TokenStatus) {
	d.w.t.Helper()
	code, body := d.get("/api/v1/tokens/" + name)
	if err := json.Unmarshal([]byte(body), &s); err != nil || code != http.StatusOK {
		d.w.t.Fatalf("%d %v: %s", code, err, body)
	}
	return s
}

// logged returns the log lines with a message.
func (d *daemon) logged(message string) []map[string]any {
	d.w.t.Helper()
	var found []map[string]any
	for line := range strings.Lines(d.log.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			d.w.t.Fatalf("a log line is not JSON: %v\n%s", err, line)
		}
		if entry["msg"] == message {
			found = append(found, entry)
		}
	}
	return found
}

// secrets returns everything that must not be shown anywhere, with its encoded forms.
func (w *world) secrets() map[string]string {
	w.t.Helper()
	plain := map[string]string{apiToken: "the API token", vaultToken: "the Vault token"}
	for _, token := range w.sim.Tokens() {
		for i, issued := range w.sim.Secrets(token.ID) {
			plain[issued.Value.Reveal()] = fmt.Sprintf("secret %d of %s", i+1, token.Name)
		}
	}
	all := map[string]string{}
	for value, what := range plain {
		all[value] = what
		all[hex.EncodeToString([]byte(value))] = what
		// In base64 it depends on how many bytes come before. The characters at both ends depend on their
		// neighbours, too, and are left out.
		for before, skip := range []int{0, 2, 3} {
			encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, before), value...))
			all[encoded[skip:len(encoded)-2]] = what
		}
	}
	return all
}

func (w *world) search(where, content string) {
	w.t.Helper()
	for value, what := range w.secrets() {
		if strings.Contains(content, value) {
			w.t.Errorf("%s holds %s", where, what)
		}
	}
	if secret.Scrub(content) != content {
		w.t.Errorf("%s holds something that looks like a client secret", where)
	}
}

// searchPages looks for secrets in everything that is served.
func (d *daemon) searchPages() {
	d.w.t.Helper()
	for _, path := range []string{"/metrics", "/", "/api/v1/tokens", "/livez?verbose", "/readyz?verbose"} {
		_, body := d.get(path)
		if body == "" {
			d.w.t.Errorf("%s is empty, so searching it proves nothing", path)
		}
		d.w.search(path, body)
	}
}

// searchFiles looks for secrets in the log and, byte by byte, in the state directory.
func (d *daemon) searchFiles() {
	d.w.t.Helper()
	d.w.search("the log", d.log.String())
	files := 0
	err := fs.WalkDir(os.DirFS(d.w.stateDir()), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		files++
		content, err := os.ReadFile(filepath.Join(d.w.stateDir(), path))
		if err != nil {
			return err
		}
		for value, what := range d.w.secrets() {
			if bytes.Contains(content, []byte(value)) {
				d.w.t.Errorf("%s in the state directory holds %s in the clear", path, what)
			}
		}
		if len(d.w.tokens) > 0 && path == "journal.db" && !bytes.Contains(content, []byte(d.w.tokens[0].ID)) {
			d.w.t.Error("the journal does not even hold the token's ID, so searching it proves nothing")
		}
		return nil
	})
	if err != nil || files < 2 { // the ledger and the identity
		d.w.t.Errorf("searched %d files in the state directory: %v", files, err)
	}
}

// eventually polls until a condition holds.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("it did not come to pass within %s: %s", patience, what)
		}
	}
}

// buffer is a log that can be read while it is written.
type buffer struct {
	stalled chan struct{} // until it is closed, a write waits; may be nil

	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	if b.stalled != nil {
		<-b.stalled
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// events collects the ends of attempts.
type events struct {
	mu  sync.Mutex
	all map[string][]attempt // by token
}

// attempt is the end of an attempt, and when it happened.
type attempt struct {
	At time.Time
	event.RotationEnded
}

func (e *events) subscriber() *event.Subscriber {
	return event.NewSubscriber("test", event.On(func(told event.Event, d event.RotationEnded) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.all == nil {
			e.all = map[string][]attempt{}
		}
		e.all[told.Token] = append(e.all[told.Token], attempt{told.At, d})
	}))
}

// of returns the attempts of a token with a result.
func (e *events) of(token string, result event.Result) []attempt {
	e.mu.Lock()
	defer e.mu.Unlock()
	var some []attempt
	for _, a := range e.all[token] {
		if a.Result == result {
			some = append(some, a)
		}
	}
	return some
}
