package secret_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"rotatord/internal/secret"
)

// panicName selects what the process of [TestPanicChild] panics with.
const panicName = "SECRET_TEST_PANIC"

var panics = map[string]func(secret.Value) any{
	"value":   func(v secret.Value) any { return v },
	"pointer": func(v secret.Value) any { return &v },
	"struct":  func(v secret.Value) any { return struct{ Secret secret.Value }{v} },
	"error":   func(v secret.Value) any { return fmt.Errorf("sending %v: refused", v) },
	"text":    func(v secret.Value) any { return fmt.Sprintf("%+v %#v %s %x", v, v, v, v) },
}

// TestPanic: the end of a process by a panic prints no secret, with the most that GOTRACEBACK can say and the secret in the arguments of the
// functions that are running.
func TestPanic(t *testing.T) {
	for name := range panics {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPanicChild$")
			cmd.Dir = t.TempDir() // of a core file
			cmd.Env = append(os.Environ(), panicName+"="+name, "GOTRACEBACK=all")
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "panic: ") || !strings.Contains(string(out), "goroutine ") {
				t.Fatalf("it did not panic: %v\n%s", err, out)
			}
			if strings.Contains(string(out), canary) || strings.Contains(string(out), fmt.Sprintf("%x", canary)) {
				t.Errorf("it has printed the secret:\n%s", out)
			}
		})
	}
}

// TestPanicChild is the process that panics.
func TestPanicChild(t *testing.T) {
	value, found := panics[os.Getenv(panicName)]
	if !found {
		t.Skip("it is the child of TestPanic")
	}
	use(value, secret.New(canary))
}

//go:noinline
func use(value func(secret.Value) any, v secret.Value) { panic(value(v)) }
