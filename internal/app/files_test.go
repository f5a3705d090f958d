package app_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rotatord/internal/rotation"
)

// TestFilesThatBecomeOne lets a symbolic link lead two tokens to one file while the daemon runs: no request leaves
// for either of them, doctor says why, and a reload with another path is the way out.
func TestFilesThatBecomeOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := func(name string) string { return filepath.Join(w.dir, name) }
	for _, name := range []string{"a", "b", "c"} {
		if err := os.Mkdir(at(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"a", "b"} {
		w.token(name, seldom, "1m")
		w.tokens[i].Sinks = "{file: {path: " + at(name) + "/cf.env}}"
	}
	d := w.start(w.config())
	if err := errors.Join(os.Remove(at("b")), os.Symlink("a", at("b"))); err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]string{"a": "b", "b": "a"} {
		want := "sink file:" + at(name) + "/cf.env: it is the same file as " + at(other) + "/cf.env, of the tokens " + name + " and " + other
		if _, err := d.Rotate(t.Context(), name, rotation.Overrides{}, "ops"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	bad := 0
	for _, f := range d.LookAtVault(t.Context()) {
		if f.Level == "bad" && strings.Contains(f.Message, "it is the same file as") {
			bad++
		}
	}
	if bad != 2 {
		t.Errorf("doctor found %d sinks that reach the file of another", bad)
	}
	if n := len(w.seen("rotate")); n != 0 {
		t.Fatalf("%d rotate requests", n)
	}
	w.tokens[1].Sinks = "{file: {path: " + at("c") + "/cf.env}}"
	if err := d.Reload(t.Context(), w.config()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if _, err := d.Rotate(t.Context(), name, rotation.Overrides{}, "ops"); err != nil {
			t.Errorf("%s after the reload: %v", name, err)
		}
	}
}
