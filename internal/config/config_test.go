package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"rotatord/internal/config"
	"rotatord/internal/scheduler"
)

// minimal is the shortest configuration without a fault. It has no warning.
const minimal = `accounts:
  prod:
    account_id: 023e105f4ecef8ad9ca31a8372d0c353
    api_token: {file: /run/cloudflare-token}
vault:
  address: https://vault.example.com:8200
  auth:
    token: {file: /run/vault-token}
tokens:
  ci:
    account: prod
    id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415
    schedule: "@weekly"
    sinks:
      - vault: {mount: secret, path: access/ci}
`

// replaced returns minimal with other text: pairs are old and new texts.
func replaced(t *testing.T, pairs ...string) string {
	t.Helper()
	text := minimal
	for i := 0; i < len(pairs); i += 2 {
		if strings.Count(text, pairs[i]) != 1 {
			t.Fatalf("%q does not stand exactly once in the configuration", pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatalf("unexpected faults:\n%v", err)
	}
	return cfg
}

// faults returns the faults of text without the name of the file.
func faults(t *testing.T, text string) []string {
	t.Helper()
	_, err := config.Parse("test.yaml", []byte(text))
	found, ok := config.AsFaults(err)
	if !ok {
		t.Fatalf("got %v, want faults", err)
	}
	return lines(found)
}

func lines(found []config.Fault) []string {
	var out []string
	for _, f := range found {
		out = append(out, strings.TrimPrefix(f.String(), "test.yaml:"))
	}
	return out
}

func schedule(t *testing.T, expression, zone string) *scheduler.Schedule {
	t.Helper()
	location, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	s, err := scheduler.Parse(expression, location)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	m, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// sameConfig compares schedules by their text, and configurations without the positions in their
// files.
var sameConfig = cmp.Options{
	cmp.Comparer(func(a, b *scheduler.Schedule) bool {
		return a == b || a != nil && b != nil && a.String() == b.String() && a.Location().String() == b.Location().String()
	}),
	cmpopts.IgnoreUnexported(config.Config{}),
}

func TestDefaults(t *testing.T) {
	want := &config.Config{
		File:    "test.yaml",
		Listen:  "127.0.0.1:9321",
		Log:     config.Log{Level: "info", Format: "json"},
		Metrics: config.Metrics{PerToken: "full"},
		State:   config.State{Dir: "/var/lib/rotatord"},
		Audit:   config.Audit{File: "/var/lib/rotatord/audit/audit.jsonl", MaxSize: 64 << 20, MaxAge: 720 * time.Hour, Keep: 12},
		Accounts: map[string]config.Account{"prod": {
			Name:          "prod",
			AccountID:     "023e105f4ecef8ad9ca31a8372d0c353",
			APIToken:      config.SecretSource{File: "/run/cloudflare-token"},
			BaseURL:       "https://api.cloudflare.com/client/v4",
			RequestsPer5m: 1000, InventoryEvery: time.Hour,
		}},
		WatchEvery: 15 * time.Minute,
		Vault: &config.Vault{
			Address: "https://vault.example.com:8200",
			Timeout: 30 * time.Second,
			Auth:    &config.TokenAuth{Source: config.SecretSource{File: "/run/vault-token"}},
		},
		Tokens: []config.Token{{
			Name: "ci", Account: "prod", ID: "f174e90a-fafe-4643-bbbc-4a0ed4fc8415",
			Schedule: schedule(t, "@weekly", "UTC"),
			Grace:    24 * time.Hour,
			Sinks: []config.Sink{&config.VaultSink{
				Mount: "secret", Path: "access/ci", Metadata: true, SinkFields: config.SinkFields{ClientIDField: "client_id", ClientSecretField: "client_secret"},
			}},
		}},
	}
	if diff := cmp.Diff(want, parse(t, minimal), sameConfig); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPlainHTTP checks where a credential may be sent without TLS.
func TestPlainHTTP(t *testing.T) {
	for address, accepted := range map[string]bool{
		"http://localhost:8200":                true,
		"http://LOCALHOST":                     true,
		"http://127.0.0.1:8200":                true,
		"http://127.9.9.9":                     true,
		"http://[::1]:8200":                    true,
		"http://[::ffff:127.0.0.1]":            true,
		"https://10.0.0.1":                     true,
		"http://10.0.0.1":                      false,
		"http://0.0.0.0":                       false,
		"http://localhost.example.com":         false,
		"http://127.0.0.1.example.com":         false,
		"http://127.1":                         false,
		"http://vault":                         false,
		"http://localhost@evil.example.com":    false,
		"http://evil.example.com/?@localhost/": false,
		"http://evil.example.com#localhost":    false,
		"unix:///run/vault.sock":               false,
		"http:localhost":                       false,
		"http://":                              false,
		"http://:8200":                         false,
		"//localhost":                          false,
		"https://vault:port":                   false,
	} {
		for _, text := range []string{
			replaced(t, "https://vault.example.com:8200", address),
			replaced(t, "    api_token:", "    base_url: "+address+"\n    api_token:"),
		} {
			_, err := config.Parse("test.yaml", []byte(text))
			accepted := accepted || strings.HasPrefix(address, "unix:///") && strings.Contains(text, "address: unix:")
			if found, _ := config.AsFaults(err); (err == nil) != accepted || !accepted && len(found) != 1 {
				t.Errorf("%s: got %v; accepted should be %t, with one fault if not", address, err, accepted)
			}
		}
	}
}

func TestListen(t *testing.T) {
	for address, accepted := range map[string]bool{
		"127.0.0.1:9321": true, ":9321": true, "localhost:0": true, "[::1]:9321": true, "[fe80::1%eth0]:65535": true,
		"9321": false, "127.0.0.1": false, "::1:9321": false, "host:": false, "host:65536": false, "host:-1": false,
		"host:+1": false, "host:080": false, "a b:1": false, "http://host:1": false, "user@host:1": false,
	} {
		_, err := config.Parse("test.yaml", []byte("listen: '"+address+"'\n"+minimal))
		if (err == nil) != accepted {
			t.Errorf("%s: got %v; accepted should be %t", address, err, accepted)
		}
	}
}

func TestAdminSocket(t *testing.T) {
	longest := "/" + strings.Repeat("a", 106)
	for path, accepted := range map[string]bool{
		"/run/rotatord/admin.sock": true, "/a": true, longest: true,
		longest + "a": false, "/" + strings.Repeat("ä", 54): false, "admin.sock": false, "./a": false, "@abstract": false,
		"/": false, "/run/": false, "/run/.": false, "/run/..": false, "/var/lib/rotatord": false, "/var/lib//rotatord": false,
	} {
		_, err := config.Parse("test.yaml", []byte("admin_socket: '"+path+"'\n"+minimal))
		if found, _ := config.AsFaults(err); (err == nil) != accepted || !accepted && len(found) != 1 {
			t.Errorf("%s: got %v; accepted should be %t, with one fault if not", path, err, accepted)
		}
	}
	inState := parse(t, "admin_socket: /var/lib/rotatord/admin.sock\n"+minimal)
	if got := lines(inState.Warnings); len(got) != 1 || !strings.Contains(got[0], "admin_socket: is in state.dir") {
		t.Errorf("a socket in the state directory: the warnings are %q", got)
	}
	if got := parse(t, "admin_socket: /var/lib/rotatord.sock\n"+minimal); len(got.Warnings) != 0 {
		t.Errorf("a socket beside the state directory: %q", lines(got.Warnings))
	}
}

func TestNames(t *testing.T) {
	for name, accepted := range map[string]bool{
		"a": true, "0": true, "ci-deploy": true, "a.b_c-d": true, strings.Repeat("a", 63): true,
		"A": false, "-a": false, "a-": false, ".": false, "a b": false, "a/b": false, "ä": false, `"a\nb"`: false,
		strings.Repeat("a", 64): false,
	} {
		_, err := config.Parse("test.yaml", []byte(replaced(t, "  ci:", "  "+name+":")))
		if found, _ := config.AsFaults(err); (err == nil) != accepted || !accepted && (len(found) != 1 || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: got %v; accepted should be %t, with one fault if not", name, err, accepted)
		}
	}
}

// TestSamePaths checks that a dot in a name does not end it: the field grace of token a
// and a token with the name a.grace are different.
func TestSamePaths(t *testing.T) {
	got := faults(t, replaced(t, "  ci:", "  a.grace:")+"  a:\n    account: prod\n    grace: 1d\n")
	want := []string{
		`17:5: tokens.a.id: is missing: give the service token's UUID, from the Cloudflare dashboard or API; or pair, with those of two; or create, to have rotatord create one`,
		`17:5: tokens.a.schedule: is missing: say when to rotate, such as "0 4 * * 1" or @weekly, here or in defaults`,
		`17:5: tokens.a.sinks: is missing: give at least one place that the secret is written to, here or in defaults`,
		`18:12: tokens.a.grace: "1d" is not a duration: write 24h (units are h, m and s; a day is 24h)`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestAlias checks that an alias and its anchor are refused, even where the alias
// would contain itself.
func TestAlias(t *testing.T) {
	got := faults(t, replaced(t, "{mount: secret, path: access/ci}", "&v {mount: secret, path: access/ci}\n      - vault: *v"))
	want := []string{
		"15:16: tokens.ci.sinks[0].vault: an anchor (&name) is not accepted: write the value out, or use defaults",
		"16:16: tokens.ci.sinks[1].vault: an alias (*name) is not accepted: write the value out, or use defaults",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := faults(t, "tokens: &t\n  a: *t\n  *t : b\n"); len(got) == 0 {
		t.Error("a file that contains itself has no faults")
	}
}

// TestSyntaxErrorLine checks that a syntax error is reported where it is, in short
// files and in long ones.
func TestSyntaxErrorLine(t *testing.T) {
	long := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "key%d:\n  a: b\n", i)
		}
		return b.String()
	}
	for _, test := range []struct {
		name string
		text string
		line int
	}{
		{"first line", "a: b: c\nd: e\n", 1},
		{"no line break", "[", 1},
		{"in the middle", long(20) + " key: x\n" + long(20), 41},
		{"open quote", long(20) + "key: 'x\n" + long(20), 41},
		{"open bracket", long(20) + "key: [x\n" + long(20), 41},
		{"line without a key", long(20) + "key\n" + long(20), 41},
		{"in a valid list over lines", "key: [a,\n b,\n c]\nkey: b: c\n", 4},
		{"in a second document", "a: b\n---\nc: d: e\n", 3},
		{"in the last line", long(20) + "key: b: c", 41},
		{"last line of the search", long(500) + "key: b: c\n" + long(5), 1001},
		{"behind the search", long(2000) + "key: b: c\n" + long(5), 4001},
		{"long behind it", "key: b: c\n" + long(2000), 1},
	} {
		_, err := config.Parse("test.yaml", []byte(test.text))
		found, _ := config.AsFaults(err)
		if len(found) != 1 || found[0].Line != test.line || !strings.HasPrefix(found[0].Message, "not valid YAML: ") {
			t.Errorf("%s: got %v, want one fault on line %d", test.name, err, test.line)
		}
	}
}

// TestRareSchedule checks that a schedule with slots years apart is measured quickly
// and right: the 1st of January and of February are 31 days apart.
func TestRareSchedule(t *testing.T) {
	for expression, fits := range map[string]bool{"0 0 1 1,2 *": true, "0 0 1 2,3 *": false, "0 0 29 2 *": true} {
		started := time.Now()
		_, err := config.Parse("test.yaml", []byte(replaced(t, `"@weekly"`, "'"+expression+"'\n    grace: 671h\n    time_zone: Europe/Berlin\n    jitter: 672h")))
		if (err == nil) != fits {
			t.Errorf("%s: got %v; a jitter of 28 days should fit: %t", expression, err, fits)
		}
		if spent := time.Since(started); spent > time.Minute {
			t.Errorf("%s took %s", expression, spent)
		}
	}
}

// TestOneAccountTwice: one service token under two names of its account is still
// one service token, and the same id in two accounts is two.
func TestOneAccountTwice(t *testing.T) {
	two := func(accountID string) string {
		return replaced(t, "vault:\n", "  again:\n    account_id: "+accountID+"\n    api_token: {env: T}\nvault:\n") + `  other:
    account: again
    id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415
    schedule: "@weekly"
    sinks: [{vault: {mount: secret, path: access/other}}]
`
	}
	if got := len(parse(t, two("123e105f4ecef8ad9ca31a8372d0c353")).Tokens); got != 2 {
		t.Errorf("%d tokens, want 2", got)
	}
	got := faults(t, two("023E105F4ECEF8AD9CA31A8372D0C353"))
	want := []string{"21:9: tokens.other.id: is the same service token as tokens.ci (line 15): keep one entry, with all its sinks"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rotatord.yaml")
	_, err := config.Load(path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--config") {
		t.Errorf("for a file that does not exist: %v", err)
	}
	if _, err := config.Load(dir); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("for a directory: %v", err)
	}
	if err := os.WriteFile(path, []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	if cfg, err := config.Load(path); err != nil || cfg.File != path {
		t.Errorf("Load = %+v, %v", cfg, err)
	}
	if err := os.WriteFile(path, []byte("listen: 1\r\n"+minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = config.Load(path)
	if found, ok := config.AsFaults(err); !ok || len(found) != 1 || found[0].File != path || found[0].Line != 1 || found[0].Column != 9 {
		t.Errorf("for a faulty file: %v", err)
	}
}
