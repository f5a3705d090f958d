package doctor

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/sink"
	"rotatord/internal/vault"
)

// vaultPaths are all that doctor asks Vault, by operation.
var vaultPaths = map[string]string{
	"login": "auth/approle/login", "lookup": "auth/token/lookup-self", "mounts": "sys/internal/ui/mounts/", "capabilities": "sys/capabilities-self", "read": "secret/data/",
}

// TestOddVaultAnswers: doctor survives each odd answer to each question, and reports it.
func TestOddVaultAnswers(t *testing.T) {
	for _, answer := range []string{
		"200 ", "204 ", "200 null", "200 {}", "200 []", `200 {"data":null}`, `200 {"auth":null}`, `200 {"data":[]}`, `200 {"data":{"ttl":"x","type":7}}`,
		`200 {"auth":{"client_token":7}}`, "404 ", "404 <html>", "403 <html>", "302 ", "307 ", "500 null", `200 {"data":{"ttl":-1,"type":"kv","options":7}}`,
	} {
		for operation, path := range vaultPaths {
			w := newWorld(t)
			w.inFront(func(rw http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, "/v1/"+path) {
					return false
				}
				rw.Header().Set("Location", "https://login.example.com/?token=private")
				var status int
				_, _ = fmt.Sscan(answer[:3], &status)
				rw.WriteHeader(status)
				_, _ = io.WriteString(rw, answer[4:])
				return true
			})
			findings := Examine(t.Context(), w.Options)
			if Worst(findings) == Good {
				t.Errorf("%s answered with %q: nothing is found wrong", operation, answer)
			}
			text := fmt.Sprint(findings)
			if strings.Contains(text, "CANARY") || strings.Contains(text, "private") {
				t.Errorf("%s answered with %q: a secret came out: %s", operation, answer, text)
			}
			if answer[0] == '3' && !strings.Contains(text, "redirected to https://login.example.com: is an SSO policy in front of Vault?") {
				t.Errorf("%s answered with %q: the redirect is not named: %s", operation, answer, text)
			}
		}
	}
}

// TestEnvironmentChangesNothing runs itself again in hostile environments. A whole examination, a
// session and a write to Vault must go as they do in an empty one.
func TestEnvironmentChangesNothing(t *testing.T) {
	const child = "ROTATORD_TEST_CHILD"
	if os.Getenv(child) != "" {
		useVault(t)
		return
	}
	var trapped atomic.Int64
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { trapped.Add(1) }))
	defer trap.Close()
	run := func(env []string) string {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestEnvironmentChangesNothing$", "-test.v")
		cmd.Env = append([]string{child + "=1", "PATH=" + os.Getenv("PATH"), "TMPDIR=" + t.TempDir()}, env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var kept []string
		for line := range strings.Lines(string(out)) {
			if text, ok := strings.CutPrefix(line, "SAID "); ok {
				kept = append(kept, regexp.MustCompile(`\d+`).ReplaceAllString(text, "N")) // ports and times
			}
		}
		return strings.Join(kept, "")
	}
	clean := run(nil)
	if strings.Count(clean, "good") < 5 || !strings.Contains(clean, "stored") {
		t.Fatalf("nothing much was done:\n%s", clean)
	}
	for name, value := range map[string]func(string) string{
		"not to be read": func(string) string { return "\xff not to be read {" },
		"paths":          func(string) string { return "/nonexistent/x.pem" },
		"numbers":        func(string) string { return "1" },
		"addresses":      func(string) string { return trap.URL },
		"plausible": func(name string) string {
			return map[string]string{
				"VAULT_WRAP_TTL": "60s", "VAULT_NAMESPACE": "elsewhere", "VAULT_TOKEN": "hvs.elsewhere", "VAULT_SKIP_VERIFY": "true", "VAULT_SRV_LOOKUP": "true",
				"VAULT_HEADERS": `{"X-Vault-Wrap-TTL":"60s","X-Leak":"x"}`, "VAULT_RATE_LIMIT": "0.001:1", "VAULT_CLIENT_TIMEOUT": "1ns", "VAULT_MAX_RETRIES": "1000",
				"VAULT_DISABLE_REDIRECTS": "false", "GODEBUG": "http2debug=2", "NO_PROXY": "", "REQUEST_METHOD": "GET", "CLOUDFLARE_API_TOKEN": "elsewhere",
			}[name]
		},
	} {
		var env []string
		for _, variable := range variables(t) {
			if v := value(variable); v != "" || name != "plausible" {
				env = append(env, variable+"="+v)
			}
		}
		for _, proxy := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
			env = append(env, proxy+"="+trap.URL)
		}
		if got := run(env); got != clean {
			t.Errorf("%s: said\n%s\nand in an empty environment\n%s", name, got, clean)
		}
	}
	if n := trapped.Load(); n != 0 {
		t.Errorf("another server got %d requests", n)
	}
}

// variables are those of Vault's and Cloudflare's own tools: what docs/environment.md lists, and
// what the source of their libraries mentions as far as it is on this machine.
func variables(t *testing.T) []string {
	t.Helper()
	all := map[string]bool{}
	name := regexp.MustCompile(`\b(?:VAULT|CLOUDFLARE|CF|BAO)_[A-Z][A-Z_]*[A-Z]\b`)
	add := func(content []byte) {
		for _, found := range name.FindAll(content, -1) {
			all[string(found)] = true
		}
	}
	doc, err := os.ReadFile("../../docs/environment.md")
	if err != nil {
		t.Fatal(err)
	}
	add(doc)
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cloudflare/cloudflare-go/v7").Output()
	if err != nil {
		t.Fatal(err)
	}
	sdk := strings.TrimSpace(string(out))
	files, err := filepath.Glob(filepath.Join(sdk, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no source of the SDK in %s", sdk)
	}
	modules := filepath.Dir(filepath.Dir(filepath.Dir(sdk))) // of the module cache
	libraries, _ := filepath.Glob(filepath.Join(modules, "hashicorp", "vault", "api@*", "*.go"))
	for _, path := range append(files, libraries...) {
		content, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		add(content)
	}
	if len(all) < 25 || !all["VAULT_WRAP_TTL"] || !all["CLOUDFLARE_API_TOKEN"] {
		t.Fatalf("only %d variables: %v", len(all), all)
	}
	return slices.Sorted(maps.Keys(all))
}

// useVault examines a healthy world, and stores a secret in it.
func useVault(t *testing.T) {
	w := newWorld(t)
	for _, f := range Examine(t.Context(), w.Options) {
		fmt.Printf("SAID %s %s %s %s\n", f.Level, f.Code, f.Subject, f.Message)
	}
	var log bytes.Buffer
	w.config.Vault.Address = strings.Replace(w.config.Vault.Address, "127.0.0.1", "LOCALHOST", 1) // which Go would ask a proxy for
	logged := event.NewLog(slog.New(slog.NewTextHandler(&log, nil)))
	session, err := vault.New(*w.config.Vault, func(d event.Detail) { logged.Handle(event.New(time.Now(), "", event.Daemon, d)) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	ended := make(chan struct{})
	go func() { defer close(ended); session.Run(ctx) }()
	t.Cleanup(func() { <-ended })
	to := sink.NewVault(session, config.VaultSink{Mount: "secret", Path: "access/one", SinkFields: config.SinkFields{ClientIDField: "id", ClientSecretField: "value"}})
	base, err := to.Preflight(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := to.Store(ctx, rotation.Delivery{Credential: rotation.Credential{ClientID: "x.access", ClientSecret: secret.New("new-CANARY")}, Base: base})
	fmt.Printf("SAID stored %t version %d %v\n", stored.Exists, stored.Version, err)
	if got := w.vault.Read("secret", "access/one"); got["value"] != "new-CANARY" {
		t.Errorf("Vault has %v", got)
	}
}
