package config_test

import (
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
