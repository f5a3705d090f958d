package deploy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rotatord/internal/config"
)

// TestRunbookFreezes reads the freezes that the runbook shows, with the configuration that
// is shipped for systemd.
func TestRunbookFreezes(t *testing.T) {
	blocks := slices.DeleteFunc(fenced(readFile(t, "docs/runbook.md"), "yaml"), func(block string) bool {
		return !strings.HasPrefix(block, "freezes:")
	})
	if len(blocks) != 1 {
		t.Fatalf("%d blocks of freezes in the runbook, want one", len(blocks))
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(fencedConfig(t)+blocks[0]), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Warnings {
		t.Errorf("%s", w)
	}
	if n := len(c.Tokens[0].Freezes); n != 2 {
		t.Errorf("%d freezes apply to the token", n)
	}
}

// Every configuration that is shipped is one that the daemon starts with, and has
// nothing to warn of.
func TestShippedConfigurations(t *testing.T) {
	shipped := map[string]string{"deploy/systemd/README.md": fencedConfig(t), "deploy/systemd/README.md#several-hosts": severalHosts(t)}
	for _, name := range builds {
		shipped["deploy/kubernetes/"+name] = build(t, name).config.Data["config.yaml"]
	}
	for name, content := range shipped {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Tokens) == 0 {
				t.Error("it rotates no token: an example should")
			}
			for _, w := range c.Warnings {
				t.Errorf("%s", w)
			}
		})
	}
}
