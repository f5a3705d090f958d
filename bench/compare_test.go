package bench

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestCompare compares a benchmark of the last commit with that of the working tree, by the command that CONTRIBUTING.md names.
func TestCompare(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the benchmarks twice")
	}
	if err := exec.Command("git", "-C", "..", "rev-parse", "HEAD").Run(); err != nil {
		t.Skip("this is not a checkout of the repository: there is no commit to compare with")
	}
	compare := func(arguments ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "make", append([]string{"--no-print-directory", "-C", "..", "bench-compare"}, arguments...)...).CombinedOutput()
		return string(out), err
	}
	out, err := compare("BASE=HEAD", "BENCH=^BenchmarkForget", "DIRS=internal/httpapi", "COUNT=1", "TIME=1x")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"sec/op", "B/op", "allocs/op", "vs base", "Forget"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if left, err := exec.Command("git", "-C", "..", "worktree", "list").Output(); err != nil || strings.Contains(string(left), os.TempDir()+"/tmp.") {
		t.Errorf("a checkout is left: %s %v", left, err)
	}
	for _, wrong := range []struct{ arguments, want string }{
		{"BASE=", "BASE=HEAD~1"},
		{"BASE=no-such-commit", "no-such-commit is not a commit of this repository"},
		{"BASE=HEAD BENCH=NoSuchBenchmark DIRS=internal/httpapi COUNT=1", "no benchmark of internal/httpapi matches NoSuchBenchmark"},
		{"BASE=HEAD DIRS=internal/no-such-package COUNT=1", "internal/no-such-package"},
	} {
		if out, err := compare(strings.Fields(wrong.arguments)...); err == nil || !strings.Contains(out, wrong.want) {
			t.Errorf("%s: %v, %q is not in\n%s", wrong.arguments, err, wrong.want, out)
		}
	}
}
