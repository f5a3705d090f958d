package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
)

// TestCredentialsBeforeTheStart: what systemd hands to a unit is read where the unit takes it from
// while the unit does not run, by root; or where --credentials says, whether it runs or not.
func TestCredentialsBeforeTheStart(t *testing.T) {
	const unit = "rotatord.service"
	for name, test := range map[string]struct {
		running, root, noSources bool
		flag                     bool
		read                     string // the directory that is read
		outOfSight               int
	}{
		"root, before the start":              {root: true, read: "sources"},
		"root, running":                       {root: true, running: true, read: "run/" + unit},
		"another user, before the start":      {read: "run/" + unit, outOfSight: 1},
		"another user, running":               {running: true, read: "run/" + unit},
		"no sources":                          {root: true, noSources: true, read: "run/" + unit, outOfSight: 1},
		"by the flag, before the start":       {flag: true, read: "flag"},
		"by the flag, running":                {flag: true, running: true, read: "flag"},
		"by the flag, running, and with root": {flag: true, running: true, root: true, read: "flag"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := credentialPlaces{filepath.Join(dir, "run"), filepath.Join(dir, "sources"), test.root}
			made := []string{"flag"}
			if test.running {
				made = append(made, "run/"+unit)
			}
			if !test.noSources {
				made = append(made, "sources")
			}
			for _, d := range made {
				if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			text := fmt.Sprintf(`
accounts: {main: {account_id: %s, api_token: {file: "%[2]s/api-token"}}}
vault: {address: https://v.example.com, tls: {ca_file: "%[2]s/ca.pem"}, auth: {approle: {role_id: {file: "%[2]s/role-id"}, secret_id: {file: /elsewhere}}}}
state: {identity: {file: "%[2]s/identity"}}
defaults: {account: main, schedule: "@weekly"}
tokens: {a: {id: %[3]s, sinks: [{vault: {mount: secret, path: a}}]}}
`, cfsim.DefaultAccountID, filepath.Join(p.runtime, unit), cfsim.SeedTokenID(1))
			c, err := config.Parse("x.yaml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			flag := ""
			if test.flag {
				flag = filepath.Join(dir, "flag")
			}
			moved, err := p.relocate(c, flag)
			if err != nil {
				t.Fatal(err)
			}
			in := func(name string) string { return filepath.Join(dir, test.read, name) }
			if c.Accounts["main"].APIToken.File != in("api-token") || c.Vault.TLS.CAFile != in("ca.pem") || c.Vault.Auth.(*config.AppRole).RoleID.File != in("role-id") ||
				c.State.Identity.File != in("identity") || c.Vault.Auth.(*config.AppRole).SecretID.File != "/elsewhere" {
				t.Errorf("%+v", c.Files())
			}
			if isMoved := !strings.HasPrefix(test.read, "run/"); len(moved) > 0 != isMoved || isMoved && (moved[0].To != filepath.Join(dir, test.read) || moved[0].Requested != test.flag) {
				t.Errorf("%+v", moved)
			}
			warnings, files := p.outOfSight(c)
			if len(warnings) != test.outOfSight || len(files) != 4*test.outOfSight {
				t.Errorf("%q, %v", warnings, files)
			}
		})
	}
}

// TestCredentialsThatAreNowhere: a directory that is not there, or that the configuration has no use
// for, is wrong usage.
func TestCredentialsThatAreNowhere(t *testing.T) {
	c := &config.Config{File: "x.yaml", Accounts: map[string]config.Account{"main": {APIToken: config.SecretSource{File: "/etc/token"}}}}
	for dir, want := range map[string]string{filepath.Join(t.TempDir(), "none"): "no such file", "/etc/hostname": "not a directory", t.TempDir(): "x.yaml names no file in /run/credentials/UNIT"} {
		if _, err := systemPlaces().relocate(c, dir); err == nil || !isUsage(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
