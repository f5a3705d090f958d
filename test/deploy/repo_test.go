// Package deploy tests what is shipped beside the binary: the systemd unit, the
// Kubernetes manifests, the alert rules, the dashboard, the image, and the documents
// that go with them. It is a module of its own, so that Kubernetes' and Prometheus's
// code stays out of the product's.
package deploy

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// root is the root of the repository.
const root = "../.."

func readFile(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{root}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tool finds a program that scripts/install-tools.sh provides. Without it the test is
// skipped, or fails where ROTATORD_REQUIRE_TOOLS=1 says that it must run.
func tool(t *testing.T, name string) string {
	t.Helper()
	local, err := filepath.Abs(filepath.Join(root, ".tools", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(local); err == nil {
		return local
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	const hint = "%s is not installed: run scripts/install-tools.sh"
	if os.Getenv("ROTATORD_REQUIRE_TOOLS") == "1" {
		t.Fatalf(hint, name)
	}
	t.Skipf(hint, name)
	return ""
}

// TestMain lets the tests that wait for rollouts run at the same time, also where there are few processors.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "4")
	m.Run()
}

// run runs a program and returns its two outputs together.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=cat")
	err := cmd.Run()
	return out.String(), err
}

// shutdownTimeout is the value of --shutdown-timeout in a command line of rotatord.
func shutdownTimeout(t *testing.T, args []string) time.Duration {
	t.Helper()
	for i, arg := range args {
		value, found := strings.CutPrefix(arg, "--shutdown-timeout=")
		if arg == "--shutdown-timeout" && i+1 < len(args) {
			value, found = args[i+1], true
		}
		if found {
			d, err := time.ParseDuration(value)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
	}
	t.Fatalf("no --shutdown-timeout in %q", args)
	return 0
}

// fenced returns the contents of the code blocks of a language in a Markdown document.
func fenced(document, language string) []string {
	var blocks []string
	for _, part := range strings.Split(document, "```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	return blocks
}
