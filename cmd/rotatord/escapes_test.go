package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/printable"
	"rotatord/internal/vault/vaulttest"
)

// hostile has every kind of character that must not reach a terminal, and lines that pretend to be ours. As a
// JSON string it is escaped; raw bytes that are not UTF-8 are in pages.
const hostile = "CANARY \x1b[2J\x1b]0;owned\x07\x00\x08\x7f\r\nFORGED: line\n\tFORGED\u0085FORGED\u009b31m\u2028FORGED\u2029FORGED" +
	"\u202eabc\u202c\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u200b\u200d\ufeff\u00ad'\"`#: {}[]<>&\\ \U000e0041end"

// hostilePage is an HTML page with raw bytes too.
const hostilePage = "<!DOCTYPE html><html><head><title>" + hostile + "\x9b31m\xff&#27;[31m&#x202e;</title></head><body>" + hostile + "\x9b</body></html>"

// hostileErrors is an answer of the API with hostile errors.
func hostileErrors() string {
	b, _ := json.Marshal(map[string]any{"success": false, "result": nil, "messages": []any{map[string]any{"code": 1000, "message": hostile}}, "errors": []any{
		map[string]any{"code": 9109, "message": hostile, "documentation_url": "https://x.example/" + hostile, "source": map[string]any{"pointer": "/" + hostile},
			"error_chain": []any{map[string]any{"code": 6003, "message": hostile}}},
		map[string]any{"code": 9110, "message": hostile},
	}})
	return string(b)
}

// strings in an answer that are made hostile, unless the daemon needs them as they are.
var hostileFields = []string{"name", "duration", "created_by", "status", "policies", "display_name"}

// tamperer stands before a server, and changes what it answers.
type tamperer struct {
	next http.Handler
	mu   sync.Mutex
	how  func(w http.ResponseWriter, r *http.Request, good *httptest.ResponseRecorder)
}

func (p *tamperer) set(how func(http.ResponseWriter, *http.Request, *httptest.ResponseRecorder)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.how = how
}

func (p *tamperer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	good, probe := httptest.NewRecorder(), vaulttest.IsProbe(r)
	p.next.ServeHTTP(good, r)
	if probe {
		r.Method = methodProbe
	}
	p.mu.Lock()
	how := p.how
	p.mu.Unlock()
	maps.Copy(w.Header(), good.Header())
	w.Header().Del("Content-Length")
	// What Go's client lets through in a header.
	w.Header().Set("CF-Ray", "8f\u202e\u009b31m-FRA")
	w.Header().Set("Server", "\u202e\u009b31m")
	how(w, r, good)
}

// methodProbe takes the place of the method of a write that only asks whether it may write.
const methodProbe = "PROBE"

// asItIs passes an answer through.
func asItIs(w http.ResponseWriter, _ *http.Request, good *httptest.ResponseRecorder) {
	w.WriteHeader(good.Code)
	_, _ = w.Write(good.Body.Bytes())
}

// answer is in place of each answer.
func answerWith(status int, contentType, body string) func(http.ResponseWriter, *http.Request, *httptest.ResponseRecorder) {
	return func(w http.ResponseWriter, _ *http.Request, _ *httptest.ResponseRecorder) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hostileFacts makes every text in an answer hostile that rotatord shows and does not need as it is.
func hostileFacts(w http.ResponseWriter, _ *http.Request, good *httptest.ResponseRecorder) {
	var body any
	if json.Unmarshal(good.Body.Bytes(), &body) != nil {
		asItIs(w, nil, good)
		return
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		case map[string]any:
			for name, inner := range v {
				if text, ok := inner.(string); ok && strings.Contains(strings.Join(hostileFields, " "), name) && text != "active" {
					v[name] = text + hostile
				}
				if name == "warnings" {
					v[name] = []any{hostile}
				}
				walk(inner)
			}
		}
	}
	walk(body)
	b, _ := json.Marshal(body)
	w.WriteHeader(good.Code)
	_, _ = w.Write(b)
}

// hostileIDs makes an answer about a service token one about another, with a hostile name.
func hostileIDs(w http.ResponseWriter, _ *http.Request, good *httptest.ResponseRecorder) {
	var body map[string]any
	_ = json.Unmarshal(good.Body.Bytes(), &body)
	if result, ok := body["result"].(map[string]any); ok {
		result["id"], result["client_id"], result["name"] = hostile, hostile, hostile
	}
	b, _ := json.Marshal(body)
	w.WriteHeader(good.Code)
	_, _ = w.Write(b)
}

// onlyThen tampers with some operations, and passes the others through.
func onlyThen(match string, how func(http.ResponseWriter, *http.Request, *httptest.ResponseRecorder)) func(http.ResponseWriter, *http.Request, *httptest.ResponseRecorder) {
	at := regexp.MustCompile(match)
	return func(w http.ResponseWriter, r *http.Request, good *httptest.ResponseRecorder) {
		if at.MatchString(r.Method + " " + r.URL.Path) {
			how(w, r, good)
			return
		}
		asItIs(w, r, good)
	}
}

// harness is one daemon with its two servers.
type harness struct {
	t                 *testing.T
	dir, program      string
	format            string // of the log
	cloudflare, vault *tamperer
	seen              map[string]bool // commands whose output had the canary
	canary            string
	ownText           bool // the canary is an argument of the command
}

func TestNothingFromElsewhereSteersTheTerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a daemon for each case")
	}
	problem, _ := json.Marshal(map[string]any{"type": "https://x.example/" + hostile, "title": hostile, "detail": hostile, "instance": hostile, "error_code": 1020, "error_name": hostile, "ray_id": hostile})
	vaultErrors, _ := json.Marshal(map[string]any{"errors": []string{hostile, hostile}, "warnings": []string{hostile}})
	type tamper = func(http.ResponseWriter, *http.Request, *httptest.ResponseRecorder)
	for name, test := range map[string]struct{ cloudflare, vault tamper }{
		"facts":                   {hostileFacts, hostileFacts},
		"errors of Cloudflare":    {answerWith(403, "application/json", hostileErrors()), asItIs},
		"a success that is none":  {answerWith(200, "application/json", hostileErrors()), asItIs},
		"rotate in doubt":         {onlyThen("/rotate$", answerWith(500, "application/json", hostileErrors())), asItIs},
		"another client":          {onlyThen("/rotate$", hostileIDs), asItIs},
		"a page for rotate":       {onlyThen("/rotate$", answerWith(502, "text/html", hostilePage)), asItIs},
		"a page of Cloudflare":    {answerWith(403, "text/html\u202e", hostilePage), asItIs},
		"a problem of the edge":   {answerWith(522, "application/problem+json", string(problem)), asItIs},
		"raw bytes":               {answerWith(500, "text/plain", hostile+"\x9b\xff\xc3"), asItIs},
		"errors of Vault":         {asItIs, answerWith(403, "application/json", string(vaultErrors))},
		"errors of Vault's write": {asItIs, onlyThen("^(PUT|POST) .*/data/", answerWith(400, "application/json", string(vaultErrors)))},
		"errors of Vault's probe": {asItIs, onlyThen("^"+methodProbe+" .*/data/", answerWith(400, "application/json", string(vaultErrors)))},
		"Vault is sealed":         {asItIs, answerWith(503, "application/json", string(vaultErrors))},
		"a page for Vault":        {asItIs, answerWith(200, "text/html", hostilePage)},
		"a page for a secret":     {asItIs, onlyThen("/data/", answerWith(200, "text/html", hostilePage))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, map[bool]string{true: "json", false: "text"}[len(name)%2 == 0])
			h.cloudflare.set(test.cloudflare)
			h.vault.set(test.vault)
			h.play(name == "facts" || name == "another client" || name == "errors of Cloudflare")
			if len(h.seen) == 0 {
				t.Error("nothing that is hostile was shown at all, so this proves nothing")
			}
		})
	}
}

// TestCredentialsWithEscapesAreNotShown: what a credential's file holds is no more shown than the credential would be.
func TestCredentialsWithEscapesAreNotShown(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a daemon for each case")
	}
	for _, file := range []string{"api-token", "vault-token"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, "json")
			h.cloudflare.set(asItIs)
			h.vault.set(asItIs)
			if err := os.WriteFile(filepath.Join(h.dir, file), []byte(strings.ReplaceAll(hostile, "CANARY", "KEPT")), 0o600); err != nil {
				t.Fatal(err)
			}
			h.canary = "KEPT"
			h.play(false)
			for name := range h.seen {
				t.Errorf("%s shows what is in the file", name)
			}
		})
	}
}

func newHarness(t *testing.T, format string) *harness {
	t.Helper()
	h := &harness{t: t, format: format, canary: "CANARY", dir: t.TempDir(), seen: map[string]bool{}}
	if len(h.dir) > 80 { // a socket's path is short
		short, err := os.MkdirTemp("", "rd")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(short) })
		h.dir = short
	}
	simulator := cfsim.New(cfsim.Options{SeedTokens: 2})
	var ids []string
	for _, name := range []string{"ci", "second " + "\"quoted\" # it's"} {
		made, _, err := simulator.Create(cfsim.CreateParams{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, made.ID)
	}
	h.cloudflare = &tamperer{next: simulator}
	h.vault = &tamperer{next: vaulttest.New(vaulttest.Options{RootToken: "root", Mounts: []vaulttest.Mount{{Path: "secret", Version: 2}}})}
	api, vault := httptest.NewServer(h.cloudflare), httptest.NewServer(h.vault)
	t.Cleanup(api.Close)
	t.Cleanup(vault.Close)
	h.program = filepath.Join(h.dir, "rotatord")
	if err := os.Symlink(os.Args[0], h.program); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{"api-token": "an-api-token", "vault-token": "root", "config.yaml": fmt.Sprintf(`
listen: 127.0.0.1:0
admin_socket: %[1]s/a.sock
log: {format: %[6]s}
state: {dir: %[1]s/state}
accounts: {prod: {account_id: %[2]s, api_token: {file: %[1]s/api-token}, base_url: %[3]s/client/v4}}
vault: {address: %[4]s, auth: {token: {file: %[1]s/vault-token}}}
defaults: {account: prod, schedule: "0 4 1 1 *", grace: 1h}
tokens:
  ci: {id: %[5]s, sinks: [{vault: {mount: secret, path: access/ci}}]}
`, h.dir, cfsim.DefaultAccountID, api.URL, vault.URL, ids[0], format)} {
		if err := os.WriteFile(filepath.Join(h.dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// play runs a daemon, all commands or the most telling ones, and all pages, and looks at everything that they print.
func (h *harness) play(all bool) {
	config := filepath.Join(h.dir, "config.yaml")
	var log lockedBuffer
	daemon := exec.CommandContext(h.t.Context(), h.program, "run", "-c", config)
	daemon.Stdout, daemon.Stderr, daemon.Env = &log, &log, environment()
	if err := daemon.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.await(func() bool {
		conn, err := net.Dial("unix", filepath.Join(h.dir, "a.sock"))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	commands := []string{"rotate ci", "resolve ci", "status", "status ci", "status ci -o json", "doctor", "plan", "import --account prod"}
	if all {
		commands = append(commands, "rotate ci -o json", "status -o json", "doctor -o json", "plan -o json", "plan --calendar -", "check",
			"rotate --all --account prod --detach", "rotate --all --account prod --cancel", "revoke-previous ci", "extend-grace ci 2h",
			"pause ci --reason x", "resume ci", "status nobody")
	}
	for _, args := range commands {
		h.command(strings.Fields(args)...)
	}
	if all {
		h.ownText = true
		h.command("pause", "ci", "--reason", hostileArgument)
		h.command("status", hostileArgument)
		h.command("rotate", hostileArgument)
		h.command("check", "-c", hostileArgument)
		h.ownText = false
	}
	h.pages(log.find(h, `address"?[=:]"?(127\.0\.0\.1:\d+)`))
	_ = daemon.Process.Signal(syscall.SIGTERM)
	_ = daemon.Wait()
	h.clean("the log", log.bytes())
	if h.format == "json" {
		for line := range bytes.Lines(log.bytes()) {
			if !json.Valid(line) {
				h.t.Errorf("a line of the log is not JSON: %q", line)
			}
		}
	}
	h.command("recover", "--state-dir", filepath.Join(h.dir, "state"))
	h.command("recover", "--state-dir", filepath.Join(h.dir, "state"), "-o", "json")
	if all {
		h.command("recover", "--state-dir", filepath.Join(h.dir, "state"), "--reveal", "ci")
		h.command("recover", "--state-dir", filepath.Join(h.dir, "state"), "--reveal", "ci", "-o", "json")
		h.command("plan", "-o", "json")
	}
}

// hostileArgument has no NUL, which no argument can have.
var hostileArgument = strings.ReplaceAll(hostile, "\x00", "")

// environment is that of the programs. A binary with the race detector sleeps for a second at its end otherwise.
func environment() []string { return append(os.Environ(), "GORACE=atexit_sleep_ms=0") }

func (h *harness) await(ready func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatal("it did not come")
		}
	}
}

func (h *harness) command(args ...string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	if !strings.Contains(strings.Join(args, " "), "-c ") && args[0] != "recover" && args[0] != "check" {
		args = append(args, "-c", filepath.Join(h.dir, "config.yaml"))
	}
	cmd := exec.CommandContext(ctx, h.program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &stdout, &stderr, environment()
	err := cmd.Run()
	name := strings.ReplaceAll(strings.Join(args[:min(len(args), 4)], " "), h.dir, "DIR")
	if ctx.Err() != nil {
		h.t.Errorf("%s did not end", name)
	}
	if args[0] == "plan" && args[1] == "--calendar" {
		stdout = *bytes.NewBuffer(bytes.ReplaceAll(stdout.Bytes(), []byte("\r\n"), []byte("\n"))) // its lines end so
	}
	h.clean(name, stdout.Bytes())
	h.clean(name+", stderr", stderr.Bytes())
	if strings.Contains(strings.Join(args, " "), "-o json") && stdout.Len() > 0 && !json.Valid(stdout.Bytes()) {
		h.t.Errorf("%s: no JSON: %q (%v)", name, stdout.String(), err)
	}
	if args[0] == "import" && err == nil {
		h.yaml(name, stdout.Bytes())
	}
}

// yaml holds that what import writes is a configuration of the tokens that there are, whatever their names are.
func (h *harness) yaml(name string, text []byte) {
	h.t.Helper()
	var file struct {
		Tokens map[string]struct{ ID string }
	}
	if err := yaml.Unmarshal(text, &file); err != nil || len(file.Tokens) != 3 {
		h.t.Errorf("%s: %v, %d tokens:\n%s", name, err, len(file.Tokens), text)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "CANARY") && !strings.HasPrefix(line, "  # ") {
			h.t.Errorf("%s: a name is outside of its comment: %q", name, line)
		}
	}
}

// lockedBuffer is what a program writes while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

// find waits for a text, and returns its first group.
func (l *lockedBuffer) find(h *harness, pattern string) string {
	h.t.Helper()
	var found [][]byte
	h.await(func() bool { found = regexp.MustCompile(pattern).FindSubmatch(l.bytes()); return found != nil })
	return string(found[1])
}

// pages looks at all that is served.
func (h *harness) pages(address string) {
	h.t.Helper()
	for _, path := range []string{"/", "/api/v1/tokens", "/api/v1/tokens/ci", "/api/v1/tokens/%1b%5b2J", "/readyz?verbose", "/livez?verbose", "/metrics"} {
		r, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			h.t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			h.t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			h.t.Fatal(err)
		}
		h.clean(path, body)
		if strings.HasPrefix(path, "/api") && !json.Valid(body) {
			h.t.Errorf("%s: no JSON: %q", path, body)
		}
	}
}

// clean holds that an output has nothing raw in it, and no line that it did not begin itself.
func (h *harness) clean(name string, out []byte) {
	h.t.Helper()
	text := string(out)
	if !utf8.Valid(out) || !printable.IsPlain(text) {
		for line := range strings.Lines(text) {
			if !printable.IsPlain(line) {
				h.t.Errorf("%s: raw characters in %q", name, line)
			}
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "FORGED") {
			h.t.Errorf("%s: a line is forged: %q", name, line)
		}
	}
	if strings.Contains(text, h.canary) && !h.ownText {
		h.seen[name] = true
	}
}
