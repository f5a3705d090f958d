package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

const expiringConfig = `state: {dir: STATE}
accounts:
  sim:
    account_id: 023e105f4ecef8ad9ca31a8372d0c353
    api_token: {file: STATE/secret}
vault:
  address: https://vault.example.com:8200
  auth: {token: {file: STATE/secret}}
defaults: {account: sim, schedule: "@every 240h"}
tokens:
  soon:
    id: 5eed0000-0000-4000-8000-000000000001
    sinks: [{vault: {mount: secret, path: access/soon}}]
  later:
    id: 5eed0000-0000-4000-8000-000000000002
    sinks: [{vault: {mount: secret, path: access/later}}]
  over:
    pair: [5eed0000-0000-4000-8000-000000000003, 5eed0000-0000-4000-8000-000000000004]
    sinks: [{vault: {mount: secret, path: access/over}}]
  other:
    id: 5eed0000-0000-4000-8000-000000000005
    sinks: [{vault: {mount: secret, path: access/other}}]
freezes:
  past: {from: 2020-01-01, to: 2020-01-02}
`

// TestCheckAuthorities: a file of authorities that a receiver cannot use is a warning with its place.
func TestCheckAuthorities(t *testing.T) {
	dir := t.TempDir()
	file, path := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf("notify:\n  - {name: a, webhook: {url: {file: %[1]s/gone}}}\n  - {name: b, webhook: {url: {file: %[1]s/gone}, ca_file: %[1]s/ca.pem}}\n%[2]s", dir, strings.ReplaceAll(expiringConfig, "STATE", dir))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func() string {
		var errs bytes.Buffer
		cmd := newCheck()
		cmd.SetOut(&errs)
		cmd.SetErr(&errs)
		cmd.SetArgs([]string{"-c", path})
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, &errs)
		}
		return errs.String()
	}
	if said := check(); !strings.Contains(said, path+": notify[1].webhook.ca_file: ") || !strings.Contains(said, "no such file") || strings.Contains(said, "notify[0].webhook.ca_file") {
		t.Errorf("%s", said)
	}
	for content, want := range map[string]string{"": "it is empty", "hello": "it has no line -----BEGIN"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if said := check(); !strings.Contains(said, "notify[1].webhook.ca_file: "+file+" has no PEM certificate: "+want) {
			t.Errorf("%q: %s", content, said)
		}
	}
	server := httptest.NewTLSServer(http.NotFoundHandler())
	server.Close()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := check(); strings.Contains(said, "ca_file") {
		t.Errorf("a good file: %s", said)
	}
}

// TestCheckExpiry holds that check reports the service tokens that end before their next
// rotation, as far as the ledger tells, and that a daemon that has it open is not a trouble.
func TestCheckExpiry(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	j, err := statedir.Open(statedir.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			j.Close()
		}
	}()
	now := time.Now().UTC().Truncate(time.Second)
	for name, ids := range map[string]string{"soon": "1", "later": "2", "over": "34", "other": "9"} {
		facts := func(n int, expires time.Time) rotation.TokenFacts {
			return rotation.TokenFacts{ID: "5eed0000-0000-4000-8000-00000000000" + ids[n:n+1], ExpiresAt: expires}
		}
		record := rotation.Record{Format: rotation.RecordFormat, Token: name, TokenID: facts(0, now).ID, Account: "sim", Anchor: now}
		switch name {
		case "soon", "other": // the ledger knows another service token by that name than the file
			record.Facts = facts(0, now.Add(239*time.Hour))
		case "later":
			record.Facts = facts(0, now.Add(241*time.Hour))
		case "over":
			record.Facts, record.Spare = facts(0, time.Time{}), facts(1, now.Add(-time.Hour))
		}
		if _, err := j.Ledger.Save(t.Context(), record); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "config.yaml")
	text := strings.ReplaceAll(expiringConfig, "STATE", dir)
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (stdout, stderr string, err error) {
		var out, errs bytes.Buffer
		cmd := newCheck()
		cmd.SetOut(&out)
		cmd.SetErr(&errs)
		cmd.SetArgs(append(args, "-c", path))
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		err = cmd.ExecuteContext(t.Context())
		return out.String(), errs.String(), err
	}
	if stdout, stderr, err := run(); err != nil || !strings.Contains(stdout, "good: 4 token(s)") || strings.Contains(stderr, "service token") ||
		!strings.Contains(stderr, "warning: "+path+":24:9: freezes.past: is over since 2020-01-02 00:00:00Z: remove it\n") {
		t.Errorf("beside a daemon: %v\n%s%s", err, stdout, stderr)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	closed = true

	at := func(d time.Duration) string { return now.Add(d).Format(time.RFC3339) }
	const renew = "renew it in the Cloudflare dashboard, or by API (POST .../access/service_tokens/5eed0000-0000-4000-8000-00000000000"
	want := []string{
		path + ":11:3: tokens.soon: the next rotation begins at " + at(240*time.Hour) + ", and the service token itself ends at " + at(239*time.Hour) +
			" already: set renew_before, or " + renew + "1/refresh), or rotate more often",
		path + ":17:3: tokens.over: the service token itself has ended at " + at(-time.Hour) + ", and a rotation renews its secret alone: " + renew +
			"4/refresh), and set renew_before, which does so in time",
	}
	stdout, stderr, err := run()
	if !errors.Is(err, errReported) || stdout != "" || !strings.HasSuffix(stderr, want[0]+"\n"+want[1]+"\nrotatord: 2 fault(s) in "+path+" and the ledger\n") {
		t.Errorf("%v\n%s%s", err, stdout, stderr)
	}
	stdout, _, err = run("-o", "json")
	var result struct {
		Good   bool
		Faults []string
	}
	if jsonErr := json.Unmarshal([]byte(stdout), &result); jsonErr != nil {
		t.Fatal(jsonErr)
	}
	if !errors.Is(err, errReported) || result.Good || len(result.Faults) != 2 || result.Faults[0] != want[0] || result.Faults[1] != want[1] {
		t.Errorf("%v\n%s", err, stdout)
	}
}
