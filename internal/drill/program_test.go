package drill

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// BuildProgram builds rotatord, once for all tests, and returns its path. The flags are those of `make build` and of
// other tests: so whoever builds first compiles the dependencies for all.
var BuildProgram = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "rotatord")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "rotatord/cmd/rotatord")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

// buildDir is removed when all tests are over.
var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "rotatord-of-drill-")
	if err != nil {
		panic(err)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}
