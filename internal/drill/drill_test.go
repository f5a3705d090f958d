package drill_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"rotatord/internal/config"
	"rotatord/internal/drill"
)

const text = `
accounts:
  prod: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, api_token: {file: /nonexistent/token}}
vault: {address: "https://vault.invalid:8200", auth: {token: {env: NOT_SET}}}
defaults: {account: prod, schedule: "0 4 * * 1"}
tokens:
  ci: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415, grace: 24h, window: 6h, sinks: [{vault: {mount: secret, path: access/ci}}]}
  other: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8416, grace: 24h, window: 6h, sinks: [{vault: {mount: secret, path: access/other}}]}
  at-once: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8417, grace: 0s, sinks: [{vault: {mount: secret, path: access/at-once}}]}
  both:
    pair: [f174e90a-fafe-4643-bbbc-4a0ed4fc8418, f174e90a-fafe-4643-bbbc-4a0ed4fc8419]
    grace: 1h
    sinks: [{vault: {mount: kv, path: both, fields: {client_id: ID, client_secret: SECRET}}}]
`

func load(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("config.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// program builds rotatord.
func program(t *testing.T) drill.Program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rotatord")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "rotatord/cmd/rotatord").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return drill.Program{Path: path, Name: "rotatord"}
}

func TestTry(t *testing.T) {
	var only []string
	if name := os.Getenv("ONLY"); name != "" {
		only = []string{name}
	}
	report, err := drill.Run(t.Context(), load(t, text), drill.Options{Program: program(t), Only: only})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := json.MarshalIndent(report, "", " ")
	t.Logf("%s", out)
}
