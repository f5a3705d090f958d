package failpoint_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestNotInTheProduct looks for the name of the variable in the daemon's binary: it must be
// there only in a build that asks for it.
func TestNotInTheProduct(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the daemon twice")
	}
	for _, tags := range []string{"", "failpoint"} {
		path := filepath.Join(t.TempDir(), "rotatord")
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-tags", tags, "-o", path, "rotatord/cmd/rotatord")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as other tests build it, so that each dependency is compiled once
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if found := bytes.Contains(b, []byte("ROTATORD_FAILPOINTS")); found != (tags != "") {
			t.Errorf("with tags %q the variable is in the binary: %t", tags, found)
		}
	}
}
