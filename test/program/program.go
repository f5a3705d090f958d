// Package program is what tests share that run programs of this repository and look at them from outside.
//
// It is a module without dependencies, so that every other module of tests can use it.
package program

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience bounds every wait for something that is to happen. It is far longer than that takes on a
// loaded machine: only a program that hangs reaches it.
const Patience = 2 * time.Minute

// Rotatord returns a function that builds the daemon as `make build` does, with these build tags: see
// [Build].
func Rotatord(tags ...string) func() (string, error) {
	if len(tags) == 0 {
		return Build("rotatord", "./cmd/rotatord")
	}
	return Build("rotatord-"+strings.Join(tags, "-"), "./cmd/rotatord", "-tags", strings.Join(tags, ","))
}

// Repository returns the root of the repository: the nearest directory above the test that contains this package.
func Repository() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "test", "program", "program.go")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not in the repository: run the test there", start)
		}
	}
}

// Build returns a function that builds a command, once for each test process, and returns the path of the
// program. pkg is a directory of the repository that starts with "./"; it is built in the module that it
// belongs to.
//
// Each program is built as the daemon is, so that what several need is compiled once, also for `make check`.
// The linker runs only if something has changed since another test process built the program: go build
// keeps a program that is up to date. The test gets a copy, so that no later build changes it.
func Build(name, pkg string, flags ...string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		repository, err := Repository()
		if err != nil {
			return "", err
		}
		kept := filepath.Join(repository, ".tools", "test", name)
		if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
			return "", err
		}
		lock, err := os.OpenFile(kept+".lock", os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return "", err
		}
		defer lock.Close()
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
			return "", err
		}
		cmd := exec.Command("go", slices.Concat([]string{"build", "-trimpath"}, flags, []string{"-o", kept, "."})...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Dir = filepath.Join(repository, pkg)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building %s: %w\n%s", name, err, out)
		}
		removeCopies(name)
		to, err := os.MkdirTemp("", fmt.Sprintf("%s-of-%d-", name, os.Getpid()))
		if err != nil {
			return "", err
		}
		path := filepath.Join(to, name)
		if out, err := exec.Command("cp", kept, path).CombinedOutput(); err != nil {
			return "", fmt.Errorf("copying %s: %w\n%s", name, err, out)
		}
		return path, nil
	})
}

// removeCopies removes the copies of a program whose test processes have ended: a copy is of use for the whole
// life of a process, which cannot remove it when it is killed. They would fill the disk.
func removeCopies(name string) {
	copies, _ := filepath.Glob(filepath.Join(os.TempDir(), name+"-of-*"))
	for _, dir := range copies {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), name+"-of-"), "-")
		if n, err := strconv.Atoi(pid); err == nil && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir)
		}
	}
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

// Accepts asks an application behind Access, without the network, whether it lets a service token in.
func Accepts(application http.Handler, clientID, clientSecret string) bool {
	r := httptest.NewRequest(http.MethodGet, "/app/", nil)
	r.Header.Set("CF-Access-Client-Id", clientID)
	r.Header.Set("CF-Access-Client-Secret", clientSecret)
	answer := httptest.NewRecorder()
	application.ServeHTTP(answer, r)
	return answer.Code == http.StatusOK
}

// ReadFile returns a file of the repository.
func ReadFile(t testing.TB, path string) string {
	t.Helper()
	repository, err := Repository()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(repository, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// FreeAddress returns a loopback address on which nothing listens. Its port is below those that the kernel gives to
// outgoing connections and to listeners on port 0: one of those could take the port before the program listens on it.
func FreeAddress(t testing.TB) string {
	t.Helper()
	var err error
	for range 100 {
		var listener net.Listener
		if listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))); err == nil {
			defer listener.Close()
			return listener.Addr().String()
		}
	}
	t.Fatal(err)
	return ""
}
