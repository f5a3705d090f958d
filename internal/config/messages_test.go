package config_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"rotatord/internal/config"
)

// edits are the mistakes that people make, by what they put into the place of a piece of minimal.
var edits = []struct {
	class string
	old   string // a piece of minimal
	put   string // in its place, with one %s
	with  []string
}{
	{"schedule", `"@weekly"`, "%s", []string{
		"* * * * *", "*/5 4 * * *", "*/30 * * * sat", "* * * * * *", "*Password", "@daily", "@every 720h", "0 4 * * 1", "0 4 * * 7", "0 4 1 * 1", "0 4 1 * 1\n    grace: 1h", "0 4 1-7 * SUN\n    grace: 1h", "0 4 13 10 FRI-SUN\n    grace: 1h", "0 4 1 * SAT-MON",
		"0 0 4 * * ?", "0 24 * * *", "H 4 * * *", "Mon *-*-* 04:00", `"CRON_TZ=Europe/Berlin 0 4 * * 1"`, `"@every 30d"`, "weekly",
	}},
	{"grace", `"@weekly"`, "\"@weekly\"\n    grace: %s", []string{
		"1d", "30", "1h30", "-1h", "-1d", "24H", "PT1H", "99999999h", "1 h", "24 hours", "1,5h", "1h 30m", "soon", "01:30", "1.5d", `""`, "null", "[1h]",
	}},
	{"time_zone", `"@weekly"`, "\"@weekly\"\n    time_zone: %s", []string{
		"CET", "Europe/Berlin", "utc", "utc+2", "+02:00", "GMT-5", "Local", "local", "europe/berlin", "Berlin", "new york", "america/new_york", "PST", "CEST", "IST", "Z", "EST", "MST", "HST",
		"Etc/GMT+2", "Etc/GMT-1", "/usr/share/zoneinfo/Asia/Tokyo", `Asia\Tokyo`, "W. Europe Standard Time", "../etc/passwd", "Nowhere", "Europe", "port-au-prince",
	}},
	{"account_id", "023e105f4ecef8ad9ca31a8372d0c353", "%s", []string{
		"01234567890123456789012345678901", "1e100000000000000000000000000000", "023E105F4ECEF8AD9CA31A8372D0C353", "0x3e105f4ecef8ad9ca31a8372d0c353", "23e105f4ecef8ad9ca31a8372d0c35",
		"f174e90a-fafe-4643-bbbc-4a0ed4fc8415", "023e105f4ecef8ad9ca31a8372d0c353.access", "ops@example.com", "https://dash.cloudflare.com/023e105f4ecef8ad9ca31a8372d0c353", "My Company", "0",
	}},
	{"id", "f174e90a-fafe-4643-bbbc-4a0ed4fc8415", "%s", []string{
		"F174E90A-FAFE-4643-BBBC-4A0ED4FC8415", "023e105f4ecef8ad9ca31a8372d0c353", "f174e90afafe4643bbbc4a0ed4fc8415", "023e105f4ecef8ad9ca31a8372d0c353.access",
		`"{f174e90a-fafe-4643-bbbc-4a0ed4fc8415}"`, "deploy", "cfast_x", "null",
	}},
	{"listen", "accounts:", "listen: %s\naccounts:", []string{
		"9321", "127.0.0.1", "127.0.0.1:", ":9321", ":99999", ":09321", "http://127.0.0.1:9321", "127.0.0.1:9321/metrics", "127.0.0.1:http", "::1:9321", "[::1]:9321", `"[::1]:9321"`, `"*:9321"`, "unix:///run/x",
		"/run/x", `"${LISTEN}"`, `"127.0.0.1 9321"`,
	}},
	{"state.dir", "accounts:", "state: {dir: %s}\naccounts:", []string{
		"~", "~/rotatord", "~rotatord", "$HOME/rotatord", `"${STATE_DIRECTORY}"`, `"%S/rotatord"`, `"%x/rotatord"`, "state", "file:///var/lib/rotatord", `'C:\rotatord'`, "/var/lib/100%d", `"{{ dir }}"`,
	}},
	{"admin_socket", "accounts:", "admin_socket: %s\naccounts:", []string{
		"$RUNTIME_DIRECTORY/admin.sock", `"%t/rotatord/admin.sock"`, "~/admin.sock", "unix:///run/x.sock", "admin.sock", "/run/rotatord/", "/" + strings.Repeat("x", 107),
	}},
	{"file", "/run/cloudflare-token", "%s", []string{
		"~/token", "$CREDENTIALS_DIRECTORY/token", `"${CREDENTIALS_DIRECTORY}/token"`, `"%d/token"`, `"%h/token"`, "token", "./token", "/run/", "file:///run/token", `'C:\token'`, `"/run/token "`, `"/run/token\n"`,
	}},
	{"env", "{file: /run/cloudflare-token}", "{env: %s}", []string{"$CF_TOKEN", `"${CF_TOKEN}"`, "CF_TOKEN=x", "/run/token", "CF-TOKEN", "1CF"}},
	{"approle", "token: {file: /run/vault-token}", "approle: {role_id: {file: /run/role}, secret_id: %s}", []string{"{file: /run/role}", "{env: ROLE}", "/run/secret", "{file: ~/secret}"}},
	{"ca_file", "  auth:", "  tls: {ca_file: %s}\n  auth:", []string{"~/ca.pem", "ca.pem", "$HOME/ca.pem", "/etc/ssl/", "/etc/ssl/ca.pem"}},
	{"address", "https://vault.example.com:8200", "%s", []string{
		"https://vault.example.com:8200/", "https://vault.example.com:8200/prefix", "https://vault.example.com:8200/ui", "https://vault.example.com:8200/ui/vault/secrets",
		"https://vault.example.com:8200/v1", "https://vault.example.com:8200/v1/", "https://vault.example.com:8200/v1/secret/data/x", "https://vault.example.com:65535", "https://vault.example.com:65536",
		"https://vault.example.com:0", "\"https://vault.example.com:\"", "https://vault.example.com:port", "vault.example.com:8200", "vault.example.com", "//vault.example.com", "htps://vault.example.com",
		"https//vault.example.com", "https:/vault.example.com", "https:vault.example.com", "https://https://vault.example.com", `"https://vault example.com"`, "https://user:CANARY@vault.example.com",
		"https://vault.example.com?CANARY", "\"https://vault.example.com/#CANARY\"", "https://[::1]:8200", "https://::1:8200", "https://fe80::1", "unix:///run/vault.sock", "/run/vault.sock",
		`"${VAULT_ADDR}"`, "https://$VAULT_ADDR", `"{{ vault }}"`, "http://vault.example.com:8200", "https://vault..example.com", "https://väult.example.com", `https://vault.example.com\x`, "HTTPS://vault.example.com",
	}},
	{"nodes", "  auth:", "  nodes: [%s]\n  auth:", []string{"https://v:8200/ui", "https://v:99999", "v:8200", "https://v:8200/"}},
	{"base_url", "    api_token:", "    base_url: %s\n    api_token:", []string{
		"https://api.cloudflare.com/client/v4/", "https://api.cloudflare.com", "https://api.cloudflare.com/client/v4/accounts", "https://dash.cloudflare.com/x", "api.cloudflare.com/client/v4",
	}},
	{"verify.url", `"@weekly"`, "\"@weekly\"\n    verify: {url: \"%s\"}", []string{"https://app.example.com:70000/", "app.example.com", "https://app.example.com/?a=b"}},
	{"mount", "mount: secret", "mount: %s", []string{"/secret/", "secret/data", "secret/metadata", "v1/secret", "sys", "cubbyhole", "identity", `"{{ mount }}"`, "secret//x"}},
	{"path", "access/ci", "%s", []string{
		"/access/ci/", "secret/data/access/ci", "data/access/ci", "metadata/access/ci", "secret/access/ci", "kv/data/access/ci", "v1/secret/data/access/ci", "ui/vault/secrets/secret/show/ci",
		"https://vault/access/ci", `"${CI}"`, `"<name>"`, "access/*", "a//b", "a/../b",
	}},
	{"name", "  ci:", "  %s:", []string{"CI", "ci deploy", "ci/deploy", "Ci_Deploy!", "ci-", "äöü", "123", "true", "null", "~", strings.Repeat("a", 64), "cfast_" + strings.Repeat("aB1", 16) + "/"}},
	{"yaml", "    account: prod\n", "%s\n", []string{
		"\taccount: prod", "  \taccount: prod", "    account:\tprod", "    account: &a prod", "    account: *a", "    <<: *a", "    <<: {account: prod}", "    account: prod\n    account: prod",
		"    account: `prod`", "    account: %prod", "    account: \"prod", "    account: prod: x", "    account:prod", "   account: prod", "    account: [prod", "    account: {a: [prod}", "    account: !x prod", "    account:", "    account: ~",
		"    account: {{ account }}", "    account: {a: b}", "    account: [prod]", "    account: |\n      prod", "    account: prod\x07", "    account: prod\n---", "    ? account\n    : prod", "    account: yes",
	}},
	{"number", "    api_token:", "    requests_per_5m: %s\n    api_token:", []string{`"1000"`, "1_000", "1e3", "0x10", "1000.0", "[1000]", "yes", "1000"}},
	{"list", "      - vault:", "%s", []string{"      vault:", "      - - vault:"}},
	{"map", "  ci:\n    account: prod\n    id:", "%s", []string{"  - name: ci\n    account: prod\n    id:", "  ci: ci-deploy\n  id:"}},
}

// whole are mistakes with a file as a whole.
var whole = []struct{ name, text string }{
	{"%YAML 1.1", "%YAML 1.1\n---\n" + minimal}, {"%YAML 1.2", "%YAML 1.2\n---\n" + minimal}, {"%YAML 1.2 alone", "%YAML 1.2\n" + minimal}, {"%FOO", "%FOO\n" + minimal},
	{"---", "---\n" + minimal}, {"--- twice", minimal + "---\n" + minimal}, {"--- at the end", minimal + "---\n"}, {"... at the end", minimal + "...\n"}, {"--- with more", minimal + "--- # next\n" + minimal},
	{"vault twice", minimal + "vault: {address: x}\n"},
	{"BOM", "\ufeff" + minimal}, {"BOM and a fault", "\ufefflisten: x\n" + minimal}, {"BOM and a tab", "\ufeff\tlisten: x\n" + minimal},
	{"UTF-16 little, BOM", "\xff\xfe" + utf16le(minimal, binary.LittleEndian)}, {"UTF-16 big, BOM", "\xfe\xff" + utf16le(minimal, binary.BigEndian)},
	{"UTF-16 little", utf16le(minimal, binary.LittleEndian)}, {"UTF-16 big", utf16le(minimal, binary.BigEndian)},
	{"Latin-1", strings.Replace(minimal, "  ci:", "  c\xe4:", 1)}, {"NUL", strings.Replace(minimal, "  ci:", "  ci\x00:", 1)},
	{"CRLF", strings.ReplaceAll(minimal, "\n", "\r\n")}, {"CRLF and a fault", strings.ReplaceAll(strings.Replace(minimal, "account: prod", "account: *x", 1), "\n", "\r\n")},
	{"CR", strings.ReplaceAll(minimal, "\n", "\r")}, {"a list", "- a\n"}, {"text", "hello\n"}, {"HTML", "<!DOCTYPE html>\n<html>\n"},
}

// TestMessages checks what is said of each of these mistakes, and that what is right is accepted.
// One mistake makes one message.
func TestMessages(t *testing.T) {
	var all strings.Builder
	say := func(name, text string) {
		cfg, err := config.Parse("test.yaml", []byte(text))
		var said []string
		if found, ok := config.AsFaults(err); ok {
			said = lines(found)
		} else {
			for _, w := range lines(cfg.Warnings) {
				said = append(said, "warning: "+w)
			}
		}
		if len(said) > 1 {
			t.Errorf("%s: %d messages:\n%s", name, len(said), strings.Join(said, "\n"))
		}
		if len(said) == 0 {
			said = []string{"good"}
		}
		fmt.Fprintf(&all, "%s\n    %s\n", name, strings.Join(said, "\n    "))
		if strings.Contains(strings.Join(said, ""), "CANARY") {
			t.Errorf("%s: a message repeats what may be a password", name)
		}
	}
	for _, edit := range edits {
		for _, text := range edit.with {
			if strings.Count(minimal, edit.old) != 1 {
				t.Fatalf("%q does not stand exactly once in the configuration", edit.old)
			}
			say(fmt.Sprintf("%s %q", edit.class, text), strings.Replace(minimal, edit.old, fmt.Sprintf(edit.put, text), 1))
		}
	}
	for _, file := range whole {
		say("file "+file.name, file.text)
	}
	golden(t, "testdata/messages.txt", all.String())
}
