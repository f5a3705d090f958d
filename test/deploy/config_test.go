package deploy

import (
	"os"
	"path/filepath"
	"testing"

	"rotatord/internal/config"
)

// Every configuration that is shipped is one that the daemon starts with, and has
// nothing to warn of.
func TestShippedConfigurations(t *testing.T) {
	shipped := map[string]string{"deploy/systemd/README.md": fencedConfig(t)}
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
