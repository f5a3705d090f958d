// Package program is what tests share that run programs of this repository and look at them from outside.
package program

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// Patience bounds every wait for something that is to happen. It is far longer than that takes on a
// loaded machine: only a program that hangs reaches it.
const Patience = 2 * time.Minute

// Rotatord returns a function that builds the daemon with these flags of go build: see [Build]. Call it in
// a package two directories below the repository's root.
func Rotatord(flags ...string) func() (string, error) {
	return Build("rotatord", "./cmd/rotatord", "../..", flags...)
}

// Build returns a function that builds a command, once for each test process, and returns the path of the
// program. dir is where go build runs, empty for here.
func Build(name, pkg, dir string, flags ...string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		to, err := os.MkdirTemp("", name+"-")
		if err != nil {
			return "", err
		}
		path := filepath.Join(to, name)
		cmd := exec.Command("go", slices.Concat([]string{"build"}, flags, []string{"-o", path, pkg})...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building %s: %w\n%s", name, err, out)
		}
		return path, nil
	})
}

// Output keeps what a program writes. It is safe for concurrent use, and the zero Output is empty.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns all that was written.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Tail returns the end of a long text.
func Tail(s string) string { return s[max(len(s)-3000, 0):] }

// Eventually waits for a condition. within is what it takes on a quiet machine at most; a loaded one
// has [Patience].
func Eventually(t testing.TB, within time.Duration, what string, condition func() bool) {
	t.Helper()
	within = max(within, Patience)
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("did not come about within %s: %s", within, what)
}
