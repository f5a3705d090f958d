package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
)

const idLine = "    id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415\n"

func TestCreate(t *testing.T) {
	longest := strings.Repeat("ä", 255)
	for text, want := range map[string]config.Create{
		"{name: ci}":                                {Name: "ci", Duration: "8760h"},
		"{name: no, adopt: false}":                  {Name: "no", Duration: "8760h"},
		"{name: 'CI deploy (1)', adopt: true}":      {Name: "CI deploy (1)", Duration: "8760h", Adopt: true},
		"{name: ci, duration: forever}":             {Name: "ci", Duration: "forever"},
		"{name: ci, duration: 525600m0s}":           {Name: "ci", Duration: "8760h"},
		"{name: ci, duration: '200h30m0.5s'}":       {Name: "ci", Duration: "200h30m0.5s"},
		"{name: " + longest + ", duration: 168h1s}": {Name: longest, Duration: "168h0m1s"},
	} {
		token := parse(t, replaced(t, idLine, "    create: "+text+"\n")).Tokens[0]
		if diff := cmp.Diff(&want, token.Create); diff != "" || token.ID != "" {
			t.Errorf("%s: the ID is %q (-want +got):\n%s", text, token.ID, diff)
		}
	}
}

// TestCreateAtOnce checks that all faults are reported together, and that a broken entry causes no
// other faults.
func TestCreateAtOnce(t *testing.T) {
	got := faults(t, replaced(t, idLine, "    create: {duration: 1y, adopt: 1, nam: ci}\n    strategy: replce\n    renew_before: 9000h\n    renew_for: 0\n"+
		"    verify: {url: 'http://10.0.0.1', header: Host, within: 1h}\n    outside_rotation: heal\n"))
	want := []string{
		`12:24: tokens.ci.create.duration: "1y" is neither a duration, such as 8760h (a year), nor forever`,
		"12:35: tokens.ci.create.adopt: must be true or false, without quotes",
		"12:38: tokens.ci.create.nam: unknown key: did you mean name?",
		`13:15: tokens.ci.strategy: must be rotate or replace, not "replce"`,
		"14:19: tokens.ci.renew_before: 9000h is too long: at most 8760h (a year)",
		"15:16: tokens.ci.renew_for: must be more than 0: write a duration such as 8760h, or remove the key",
		"16:19: tokens.ci.verify.url: would send the client secret without encryption: use https (plain http is for localhost, 127.0.0.0/8 and ::1)",
		"16:46: tokens.ci.verify.header: is a header that has another meaning on the way: write the one that the application has in " +
			"read_service_tokens_from_header, such as Authorization",
		"16:60: tokens.ci.verify.within: 1h is too long: at most 10m; an edge that refuses a secret for longer does not accept it later",
		`17:23: tokens.ci.outside_rotation: must be alarm or rotate, not "heal"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestCreateTwice: a name may be in one account once, even if two entries of accounts are that account.
func TestCreateTwice(t *testing.T) {
	two := func(account, name string) string {
		return replaced(t, idLine, "    create: {name: ci}\n", "vault:\n", "  again:\n    "+account+"\n    api_token: {env: T}\nvault:\n") + `  other:
    account: again
    create: {name: ` + name + `}
    schedule: "@weekly"
    strategy: replace
    sinks: [{vault: {mount: secret, path: access/other}}]
`
	}
	const first, second = "123e105f4ecef8ad9ca31a8372d0c353", "023e105f4ecef8ad9ca31a8372d0c353"
	for _, text := range []string{two("account_id: "+first, "ci"), two("account_id: "+second, "CI"), two("zone_id: "+first, "ci")} {
		if got := len(parse(t, text).Tokens); got != 2 {
			t.Errorf("%d tokens, want 2", got)
		}
	}
	got := faults(t, two("account_id: "+strings.ToUpper(second), "ci"))
	want := []string{"21:20: tokens.other.create.name: is also the name in tokens.ci (line 15), so both would use the service token that is created " +
		"first: choose another name"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestEntryNamedCreate checks that the name of an entry is not mistaken for a part of its path.
func TestEntryNamedCreate(t *testing.T) {
	got := faults(t, replaced(t, "  ci:\n", "  create:\n")+"  name:\n    account: prod\n"+idLine+
		"    schedule: \"@weekly\"\n    sinks: [{vault: {mount: secret, path: access/name}}]\n")
	want := []string{"18:9: tokens.name.id: is the same service token as tokens.create (line 12): keep one entry, with all its sinks"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestZone checks what a zone's service tokens are by default.
func TestZone(t *testing.T) {
	cfg := parse(t, replaced(t, "account_id:", "zone_id:", `"@weekly"`, "\"@weekly\"\n    strategy: replace\n    renew_before: 720h"))
	account, token := cfg.Accounts["prod"], cfg.Tokens[0]
	if account.ZoneID != "023e105f4ecef8ad9ca31a8372d0c353" || account.AccountID != "" {
		t.Errorf("the account is %+v", account)
	}
	if !token.Replace || token.RenewBefore != 720*time.Hour || token.RenewFor != "8760h" {
		t.Errorf("the token is %+v", token)
	}
	// Both keys together are one fault, and cause no other.
	got := faults(t, replaced(t, "    api_token:", "    zone_id: 023e105f4ecef8ad9ca31a8372d0c353\n    api_token:"))
	if len(got) != 1 || !strings.HasPrefix(got[0], "4:14: accounts.prod.zone_id: is written beside account_id") {
		t.Errorf("%q", got)
	}
}

func TestRenewFor(t *testing.T) {
	for _, test := range []struct{ identity, fields, want string }{
		{idLine, "renew_before: 720h", ""},
		{idLine, "renew_before: 1440h\n    renew_for: 1440h1s", "1440h0m1s"},
		{"    create: {name: ci, duration: 2000h}\n", "renew_before: 720h", "2000h"},
		{"    create: {name: ci, duration: 2000h}\n", "renew_before: 720h\n    renew_for: 1000h", "1000h"},
		{"    create: {name: ci, duration: 721h}\n", "renew_before: 720h", "721h"},
		{"    create: {name: ci, duration: forever}\n", "renew_before: 0", ""},
		{"    create: {name: ci, duration: 24h}\n", "renew_before: 23h", "24h"}, // shorter than the gap, but renewed
	} {
		if got := parse(t, replaced(t, idLine, test.identity+"    "+test.fields+"\n")).Tokens[0].RenewFor; got != test.want {
			t.Errorf("%s %s: a renewal gives %q, want %q", test.identity, test.fields, got, test.want)
		}
	}
}

// TestVerify checks what may be asked, and that nothing is repeated that may hold a password.
func TestVerify(t *testing.T) {
	for address, accepted := range map[string]bool{
		"https://app.example.com": true, "https://app.example.com/": true, "https://app.example.com:8443/a/?b=c&d": true,
		"HTTPS://[2001:db8::1]/": true, "http://127.0.0.1:1/app/?": true, "http://localhost/": true, "http://[::1]:8080/app/": true,
		"http://app.example.com/": false, "http://10.0.0.1/": false, "https://": false, "https:///health": false, "/health": false,
		"ftp://app.example.com/": false, "https://hunter2@app.example.com/": false, "https://app.example.com/#hunter2": false,
		"https://app.example.com/%zzhunter2": false, "https://app.example.com:hunter2/": false,
	} {
		cfg, err := config.Parse("test.yaml", []byte(replaced(t, `"@weekly"`, "\"@weekly\"\n    verify: {url: '"+address+"'}")))
		if found, _ := config.AsFaults(err); (err == nil) != accepted || !accepted && len(found) != 1 {
			t.Errorf("%s: got %v; accepted should be %t, with one fault if not", address, err, accepted)
		}
		if err == nil && cfg.Tokens[0].Verify.URL != address {
			t.Errorf("%s became %s", address, cfg.Tokens[0].Verify.URL)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for header, accepted := range map[string]bool{
		"Authorization": true, "X-Service-Token": true, "x_token.1": true, "a": true,
		"Content-Length": false, "TRANSFER-ENCODING": false, "cookie": false, "Connection": false, "te": false, "Proxy-Authorization": false,
		"cf-access-client-secret": false, "CF-Connecting-IP": false, "a b": false, "a:": false, "ä": false, "a,b": false, "(a)": false,
	} {
		text := replaced(t, `"@weekly"`, "\"@weekly\"\n    verify: {url: https://app.example.com/, header: '"+header+"'}")
		_, err := config.Parse("test.yaml", []byte(text))
		if found, _ := config.AsFaults(err); (err == nil) != accepted || !accepted && len(found) != 1 {
			t.Errorf("%s: got %v; accepted should be %t, with one fault if not", header, err, accepted)
		}
	}
}
