package main

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

var importDay = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// TestImportedNames makes names of all kinds of names, each its own.
func TestImportedNames(t *testing.T) {
	long := strings.Repeat("a", 70)
	var all []rotation.TokenFacts
	for i, name := range []string{"CI deploy", "ci/deploy", "ci-deploy", "  ", "Ünïcödé", "a\nb: {evil: true}", "..", long, long, "--x--", "ok_1.2", "ci-deploy-2"} {
		all = append(all, rotation.TokenFacts{ID: fmt.Sprintf("%08d-0000-4000-8000-000000000000", i), Name: name, CreatedAt: importDay.Add(time.Duration(i) * time.Hour)})
	}
	got := map[string]string{}
	for _, imported := range nameAll(all, map[string]bool{"ok_1.2": true}, importDay) {
		got[imported.id[6:8]] = imported.name
	}
	want := map[string]string{
		"00": "ci-deploy", "01": "ci-deploy-2", "02": "ci-deploy-3", "03": "token-00000003", "04": "n-c-d", "05": "a-b-evil-true",
		"06": "token-00000006", "07": long[:63], "08": long[:61] + "-2", "09": "x", "10": "ok_1.2-2", "11": "ci-deploy-2-2",
	}
	for id, name := range want {
		if got[id] != name {
			t.Errorf("%s became %q, want %q", id, got[id], name)
		}
	}
}

// TestImportRemarksReplacements: what an entry with strategy: replace made is in no configuration.
func TestImportRemarksReplacements(t *testing.T) {
	listed := []rotation.TokenFacts{{ID: "1", Name: "edge-4nq7zzb2ka"}, {ID: "2", Name: "edge"}, {ID: "3", Name: "edge-4nq7zzb2k1"}}
	c := &config.Config{Tokens: []config.Token{{Account: "main", Replace: true}}}
	for account, want := range map[string]int{"main": 1, "other": 0} {
		tokens := []importedToken{{id: "3"}, {id: "2"}, {id: "1"}}
		remarkReplacements(c, account, listed, tokens)
		if got := len(tokens[2].comments); got != want || len(tokens[0].comments)+len(tokens[1].comments) != 0 {
			t.Errorf("%s: %+v", account, tokens)
		}
	}
}

// TestImportLoads: whatever service tokens are called, the file loads, and has each of them.
func TestImportLoads(t *testing.T) {
	here, err := placeFor(forHere, "/o\"dd", "/o\"dd/to\"ken")
	if err != nil {
		t.Fatal(err)
	}
	draft := importDraft{
		place: here, spans: spansOf("@weekly"),
		account:  config.Account{Name: "main", AccountID: cfsim.DefaultAccountID, APIToken: config.SecretSource{File: "to\"ken"}},
		schedule: "@weekly", mount: "secret", prefix: "access",
	}
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-zA-Z0-9._ -]{0,70}`), rapid.SampledFrom([]string{"a", "a-2", "A"})), 1, 12).Draw(t, "names")
		var all []rotation.TokenFacts
		for i, name := range names {
			all = append(all, rotation.TokenFacts{
				ID: fmt.Sprintf("%08d-0000-4000-8000-000000000000", i), Name: name, Enabled: i%2 == 0,
				ExpiresAt: importDay.Add(time.Duration(i-2) * 40 * 24 * time.Hour),
			})
		}
		text := draft.render(nameAll(all, map[string]bool{}, importDay), 3)
		c, err := config.Parse("import.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		ids := map[string]bool{}
		for _, token := range c.Tokens {
			ids[token.ID] = true
			if token.Sinks[0].(*config.VaultSink).Path != "access/"+token.Name || token.Account != "main" {
				t.Errorf("%+v", token)
			}
		}
		if len(ids) != len(all) {
			t.Errorf("%d of %d were written:\n%s", len(ids), len(all), text)
		}
	})
}

// TestImportOfAZone: its service tokens are replaced, since they cannot be rotated.
func TestImportOfAZone(t *testing.T) {
	simulator := cfsim.New(cfsim.Options{})
	server := httptest.NewServer(simulator)
	t.Cleanup(server.Close)
	const zone = "0123456789abcdef0123456789abcdef"
	made, _, err := simulator.Create(cfsim.CreateParams{Name: "zoned", ZoneID: zone})
	if err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("made-up"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"import", "--zone-id", zone, "--api-token-file", token, "--base-url", server.URL + cfsim.BasePath},
		strings.NewReader(""), &stdout, &stderr); code != exitGood {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	c, err := config.Parse("imported.yaml", stdout.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if c.Accounts["main"].ZoneID != zone || len(c.Tokens) != 1 || c.Tokens[0].ID != made.ID || !c.Tokens[0].Replace {
		t.Errorf("%+v", c.Tokens)
	}
}

// TestImportRemarks says what speaks against rotating a service token.
func TestImportRemarks(t *testing.T) {
	days := func(n int) time.Time { return importDay.AddDate(0, 0, n) }
	for name, test := range map[string]struct {
		facts rotation.TokenFacts
		same  int
		want  []string
	}{
		"all is well": {rotation.TokenFacts{Name: "x", Enabled: true, LastSeenAt: days(-1), ExpiresAt: days(300)}, 1,
			[]string{`"x", last used 2026-11-23, expires 2027-09-20`}},
		"new": {rotation.TokenFacts{Name: "x", Enabled: true, CreatedAt: days(-3)}, 1, []string{`"x", never used, does not expire`}},
		"unused": {rotation.TokenFacts{Name: "x", Enabled: true, CreatedAt: days(-90)}, 1,
			[]string{`"x", never used, does not expire`, "UNUSED for 90 days: is it still needed?"}},
		"everything": {rotation.TokenFacts{Name: "x\n", LastSeenAt: days(-61), ExpiresAt: days(5)}, 2,
			[]string{`"x\n", last used 2026-09-24, expires 2026-11-29`, "UNUSED for 61 days: is it still needed?",
				"EXPIRES SOON: renew_before renews it", "DISABLED: enable it, or remove this entry",
				"SAME NAME: 2 service tokens have this name"}},
		"letters": {rotation.TokenFacts{Name: "Zażółć 日本", Enabled: true, LastSeenAt: days(-1)}, 1, []string{`"Zażółć 日本", last used 2026-11-23, does not expire`}},
		"hostile": {rotation.TokenFacts{Name: "'\"#: \x1b[2J\u202e\u2028\u3164\U000e0041\x9b\n- evil", Enabled: true, LastSeenAt: days(-1)}, 1,
			[]string{`"'\"#: \x1b[2J\u202e\u2028\u3164\U000e0041\x9b\n- evil", last used 2026-11-23, does not expire`}},
		"a secret": {rotation.TokenFacts{Name: "cfat_Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4zAb7cDe0f", Enabled: true, LastSeenAt: days(-1)}, 1,
			[]string{`"[redacted]", last used 2026-11-23, does not expire`}},
		"long": {rotation.TokenFacts{Name: strings.Repeat("n", 5000), Enabled: true, LastSeenAt: days(-1)}, 1,
			[]string{`"` + strings.Repeat("n", 199) + `..., last used 2026-11-23, does not expire`}},
		"ended": {rotation.TokenFacts{Name: "x", Enabled: true, LastSeenAt: days(-9), ExpiresAt: days(-5)}, 1,
			[]string{`"x", last used 2026-11-15, expires 2026-11-19`, "EXPIRED: renew it at Cloudflare (a rotation does not renew it), or remove this entry"}},
	} {
		if got := remarks(test.facts, test.same, importDay); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestImportKeepsVault: an account of a configuration brings its credential and its Vault.
func TestImportKeepsVault(t *testing.T) {
	simulator := cfsim.New(cfsim.Options{SeedTokens: 5})
	server := httptest.NewServer(simulator)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	t.Setenv("IMPORT_KEY", "a-key")
	path := filepath.Join(dir, "config.yaml")
	before := fmt.Sprintf(`
accounts:
  prod: {account_id: %s, api_email: a@b.c, api_key: {env: IMPORT_KEY}, base_url: %s%s, requests_per_5m: 77, inventory_every: 20m}
vault:
  address: https://vault.internal:8200
  nodes: [https://vault-1.internal:8200]
  namespace: team/a
  timeout: 7s
  tls: {ca_file: /ca.pem, cert_file: /c.pem, key_file: /k.pem, server_name: v}
  auth: {approle: {mount: approle/x, role_id: {file: /r}, secret_id: {env: S}}}
defaults: {account: prod, schedule: "@daily", grace: 1h}
tokens:
  seeded-0002: {id: %s, sinks: [{vault: {mount: secret, path: a}}]}
  pair: {pair: [%s, %s], sinks: [{vault: {mount: secret, path: b}}]}
`, cfsim.DefaultAccountID, server.URL, cfsim.BasePath, cfsim.SeedTokenID(1), cfsim.SeedTokenID(3), cfsim.SeedTokenID(4))
	if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"import", "-c", path, "--account", "prod", "--mount", "kv", "--path-prefix", "/x/y/", "--schedule", "@monthly"},
		strings.NewReader(""), &stdout, &stderr); code != exitGood || stderr.String() != "2 service token(s) written, 3 already configured\n" {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	old, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("imported.yaml", stdout.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(old.Vault, c.Vault); diff != "" {
		t.Errorf("Vault has changed:\n%s", diff)
	}
	if c.Accounts["prod"] != old.Accounts["prod"] {
		t.Errorf("the account became %+v", c.Accounts["prod"])
	}
	var names []string
	for _, token := range c.Tokens {
		names = append(names, token.Name+" "+token.ID+" "+token.Sinks[0].(*config.VaultSink).Mount+" "+token.Sinks[0].(*config.VaultSink).Path)
	}
	// The name seeded-0002 stands for another one there.
	want := []string{"seeded-0002-2 " + cfsim.SeedTokenID(2) + " kv x/y/seeded-0002-2", "seeded-0005 " + cfsim.SeedTokenID(5) + " kv x/y/seeded-0005"}
	if !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
	for _, op := range []string{cfsim.OpCreate, cfsim.OpUpdate, cfsim.OpDelete, cfsim.OpRotate, cfsim.OpRefresh} {
		if n := simulator.Stats().Count(op); n != 0 {
			t.Errorf("%d requests for %s", n, op)
		}
	}
}

// TestImportLeavesRoom: whatever the schedule is, the file has neither a fault nor a warning.
func TestImportLeavesRoom(t *testing.T) {
	for _, schedule := range []string{
		"0 4 * * 1", "@weekly", "@daily", "@hourly", "@monthly", "@yearly", "30 2 1 * *", "0 4 * * 1,3", "*/5 * * * *", "*/20 * * * *",
		"0 0 29 2 *", "@every 1m", "@every 13m", "@every 25m", "@every 25h", "@every 47h", "@every 720h", "@every 20s",
	} {
		p, err := placeFor(forSystemd, "", "")
		if err != nil {
			t.Fatal(err)
		}
		draft := importDraft{
			place: p, account: config.Account{Name: "main", AccountID: cfsim.DefaultAccountID, APIToken: config.SecretSource{File: p.apiToken}},
			schedule: schedule, spans: spansOf(schedule), mount: "secret", prefix: "access",
		}
		text := draft.render([]importedToken{{name: "a", id: cfsim.SeedTokenID(1)}}, 0)
		c, err := config.Parse("import.yaml", []byte(text))
		if err != nil {
			t.Errorf("%s: %v\n%s", schedule, err, text)
			continue
		}
		if len(c.Warnings) > 0 {
			t.Errorf("%s: %v", schedule, c.Warnings)
		}
		if c.Tokens[0].Jitter == 0 || c.Tokens[0].Grace == 0 || c.Tokens[0].RenewBefore == 0 {
			t.Errorf("%s: %+v", schedule, c.Tokens[0])
		}
	}
}

// TestImportPlaces: a file for the unit or the pod names the paths that those have, and one for here
// those of the command line.
func TestImportPlaces(t *testing.T) {
	server := httptest.NewServer(cfsim.New(cfsim.Options{SeedTokens: 2}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("made-up"), 0o600); err != nil {
		t.Fatal(err)
	}
	imported := func(t *testing.T, args ...string) *config.Config {
		t.Helper()
		out := filepath.Join(dir, "out-"+strings.ReplaceAll(t.Name(), "/", "-"), "config.yaml")
		args = append([]string{"import", "--account-id", cfsim.DefaultAccountID, "--api-token-file", filepath.Join(dir, "token"),
			"--base-url", server.URL + cfsim.BasePath, "--out", out}, args...)
		var stdout, stderr bytes.Buffer
		if code := run(args, strings.NewReader(""), &stdout, &stderr); code != exitGood {
			t.Fatalf("exit code %d: %s", code, stderr.String())
		}
		c, err := config.Load(out)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for args, shipped := range map[string]string{
		"--for systemd": "config.example.yaml", "--for kubernetes": "deploy/kubernetes/overlays/example/config.yaml",
		"--for kubernetes --vault-auth approle": "deploy/kubernetes/overlays/approle/config.yaml",
	} {
		t.Run(args, func(t *testing.T) {
			c := imported(t, strings.Fields(args)...)
			want, err := config.Load(filepath.Join("../..", shipped))
			if err != nil {
				t.Fatal(err)
			}
			if c.Listen != want.Listen || c.AdminSocket != want.AdminSocket || c.State.Dir != want.State.Dir ||
				c.Accounts["main"].APIToken != want.Accounts["prod"].APIToken || !reflect.DeepEqual(c.Vault.Auth, want.Vault.Auth) {
				t.Errorf("%+v\n%+v\n%+v", c, c.Accounts, c.Vault.Auth)
			}
		})
	}
	t.Run("default", func(t *testing.T) {
		if c := imported(t); c.State.Dir != "/var/lib/rotatord" || c.Vault.Address != "https://vault.example.com:8200" {
			t.Errorf("%+v", c)
		}
	})
	t.Run("here", func(t *testing.T) {
		c := imported(t, "--for", "here", "--vault-address", "http://127.0.0.1:8200", "--listen", "127.0.0.1:1", "--vault-secret-id-file", "/s")
		base := filepath.Dir(c.File)
		role := config.AppRole{Mount: "approle", RoleID: config.SecretSource{File: filepath.Join(dir, "vault-role-id")}, SecretID: config.SecretSource{File: "/s"}}
		if c.Listen != "127.0.0.1:1" || c.AdminSocket != base+"/run/admin.sock" || c.State.Dir != base+"/state" || *c.Vault.Auth.(*config.AppRole) != role ||
			c.Accounts["main"].APIToken.File != filepath.Join(dir, "token") || c.Vault.Address != "http://127.0.0.1:8200" {
			t.Errorf("%+v\n%+v\n%+v", c, c.Accounts, *c.Vault.Auth.(*config.AppRole))
		}
	})
	t.Run("jwt", func(t *testing.T) {
		for args, want := range map[string]config.JWTAuth{
			"--for kubernetes --vault-auth jwt --vault-role r":      {Role: "r", Mount: "jwt", JWT: config.SecretSource{File: config.DefaultServiceAccountFile}},
			"--for here --vault-auth jwt --vault-jwt-file /run/jwt": {Role: "rotatord", Mount: "jwt", JWT: config.SecretSource{File: "/run/jwt"}},
		} {
			if c := imported(t, append(strings.Fields(args), "--overwrite")...); *c.Vault.Auth.(*config.JWTAuth) != want {
				t.Errorf("%s: %+v", args, c.Vault.Auth)
			}
		}
	})
	t.Run("of a configuration", func(t *testing.T) {
		known := imported(t, "--for", "kubernetes")
		text, err := os.ReadFile(known.File)
		if err != nil {
			t.Fatal(err)
		}
		one, _, _ := strings.Cut(string(text), `  # "seeded-0002"`)
		path := filepath.Join(dir, "one.yaml")
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(one, "/etc/rotatord/credentials/cloudflare-api-token", filepath.Join(dir, "token"))), 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		if code := run([]string{"import", "-c", path, "--account", "main"}, strings.NewReader(""), &stdout, &stderr); code != exitGood {
			t.Fatalf("exit code %d: %s", code, stderr.String())
		}
		c, err := config.Parse("x", stdout.Bytes())
		if err != nil || c.Listen != known.Listen || c.AdminSocket != known.AdminSocket || c.State.Dir != known.State.Dir {
			t.Errorf("%v: %+v", err, c)
		}
	})
}

// TestImportWritesForTheService: the service's user can read the file, whatever the umask of whoever
// runs import is, and a file that exists is replaced only if that is said.
func TestImportWritesForTheService(t *testing.T) {
	old := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(old) })
	top := filepath.Join(t.TempDir(), "etc")
	path := filepath.Join(top, "rotatord", "config.yaml")
	o := importOptions{out: path}
	if err := o.write(nil, "first"); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{path: 0o644, filepath.Dir(path): 0o755 | os.ModeDir, top: 0o755 | os.ModeDir} {
		if info, err := os.Stat(p); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, want %v: %v", p, info.Mode(), want, err)
		}
	}
	if err := o.write(nil, "second"); err == nil || !strings.Contains(err.Error(), "--overwrite") {
		t.Errorf("it was overwritten: %v", err)
	}
	o.overwrite = true
	if err := o.write(nil, "third"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "third" {
		t.Errorf("%q, %v", text, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	o = importOptions{out: filepath.Join(path, "below", "config.yaml")}
	if err := o.write(nil, "x"); err == nil || !strings.Contains(err.Error(), "is not a directory") && !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("below a file: %v", err)
	}
}
