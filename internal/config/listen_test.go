package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"rotatord/internal/config"
)

// TestListenIn: the address is found, whatever else in the file is wrong.
func TestListenIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	for content, want := range map[string]string{
		"listen: 0.0.0.0:9000\n":                "0.0.0.0:9000",
		"listen: ':9000' # all\nnosuchkey: 1\n": ":9000",
		"tokens: {}\n":                          "127.0.0.1:9321",
		"":                                      "127.0.0.1:9321",
		"tokens: [\nlisten: \"[::1]:9000\"   # not YAML\n":    "[::1]:9000",
		"tokens: [\n# listen: 10.0.0.1:1\n":                   "127.0.0.1:9321",
		"a: {listen: 10.0.0.1:1}\nlisten: 127.0.0.1:9000\nb:": "127.0.0.1:9000",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := config.ListenIn(t.Context(), path); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", content, got, err, want)
		}
	}
	if _, err := config.ListenIn(t.Context(), path+".not"); err == nil {
		t.Error("a file that is not there is read")
	}
}
