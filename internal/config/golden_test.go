package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// faultsIn parses a file under its base name, so that goldens hold no directories.
func faultsIn(t *testing.T, path string) config.Faults {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse(filepath.Base(path), data)
	if err == nil || cfg != nil {
		t.Fatalf("Parse(%s) = %v, %v; want no configuration and an error", path, cfg, err)
	}
	faults, ok := config.AsFaults(err)
	if !ok {
		t.Fatalf("the error is a %T, not Faults: %v", err, err)
	}
	return faults
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestBad parses configurations with one fault each and compares the exact message.
func TestBad(t *testing.T) {
	paths, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) < 30 {
		t.Fatalf("only %d files match testdata/bad/*.yaml", len(paths))
	}
	goldens, err := filepath.Glob("testdata/bad/*.txt")
	if err != nil || !*update && len(goldens) != len(paths) {
		t.Errorf("%d goldens for %d files (%v)", len(goldens), len(paths), err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		t.Run(name, func(t *testing.T) {
			faults := faultsIn(t, path)
			if len(faults) != 1 {
				t.Errorf("%d faults, want exactly one", len(faults))
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".txt", faults.Error()+"\n")
		})
	}
}

// TestTenFaults checks that all faults come at once and in the order of the file.
func TestTenFaults(t *testing.T) {
	faults := faultsIn(t, "testdata/ten-faults.yaml")
	if len(faults) != 10 {
		t.Errorf("%d faults, want 10", len(faults))
	}
	golden(t, "testdata/ten-faults.txt", faults.Error()+"\n")
}
