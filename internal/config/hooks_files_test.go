package config_test

import (
	"strings"
	"testing"

	"rotatord/internal/config"
)

// TestWebhookHookFiles: the file of a hook's authorities is one of the files that the daemon reads, and moves with them.
func TestWebhookHookFiles(t *testing.T) {
	got := parse(t, minimal+"    after: [{exec: {command: [a]}}, {webhook: {url: 'https://a.example.com', secret: {file: /key}, ca_file: /creds/ca}}]\n")
	found := false
	for _, f := range got.Files() {
		found = found || f == config.NamedFile{Field: "tokens.ci.after[1].webhook.ca_file", Path: "/creds/ca"}
	}
	if !found {
		t.Errorf("%+v", got.Files())
	}
	if n := got.Relocate("/creds", "/other"); n != 1 || got.Tokens[0].After[1].(*config.WebhookHook).CAFile != "/other/ca" {
		t.Errorf("%d files were moved: %+v", n, got.Tokens[0].After[1])
	}
}

// TestSharedHookFiles: what a hook of defaults reads is named once, however many tokens share it.
func TestSharedHookFiles(t *testing.T) {
	two := strings.Replace(minimal, "\ntokens:\n", "\ndefaults:\n  account: prod\n  schedule: '@weekly'\n  after: [{webhook: {url: 'https://a.example.com', secret: {file: /creds/key}, ca_file: /creds/ca}}]\ntokens:\n"+
		"  another:\n    id: a174e90a-fafe-4643-bbbc-4a0ed4fc8415\n    sinks: [{vault: {mount: secret, path: access/another}}]\n", 1)
	got := parse(t, two)
	files := 0
	for _, f := range got.Files() {
		if strings.HasPrefix(f.Path, "/creds/") {
			files++
		}
	}
	if len(got.Tokens) != 2 || len(got.Tokens[1].After) != 1 || files != 2 {
		t.Errorf("%d tokens; %+v", len(got.Tokens), got.Files())
	}
}
