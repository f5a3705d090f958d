package deploy

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

// TestRelease builds a release of the last commit. The script itself builds the binary twice, in two
// directories, and fails if the two differ.
func TestRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary twice")
	}
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		t.Skip("this is not a git repository")
	}
	out := filepath.Join(t.TempDir(), "out")
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "scripts/release.sh"), "v0.0.1-test", out)
	cmd.Env = append(os.Environ(), "SNAPSHOT=1", "QUICK=1", "ARCHS="+runtime.GOARCH)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	name := "rotatord_v0.0.1-test_linux_" + runtime.GOARCH
	for _, line := range []string{"sha256sum --check --strict SHA256SUMS", "tar -xzf " + name + ".tar.gz"} {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir = out
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, text)
		}
	}
	for _, file := range []string{"LICENSE", "README.md", "config.example.yaml", "deploy/systemd/rotatord.service", "docs/runbook.md"} {
		if _, err := os.Stat(filepath.Join(out, name, file)); err != nil {
			t.Errorf("the archive lacks a file: %v", err)
		}
	}
	// Helm reads the chart, which has the version of the release and renders as the one in the repository.
	chart, err := loader.Load(filepath.Join(out, "rotatord-0.0.1-test.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	if m := chart.Metadata; m.Version != "0.0.1-test" || m.AppVersion != "v0.0.1-test" {
		t.Errorf("the chart has the version %s of the application %s", m.Version, m.AppVersion)
	}
	objects, err := render(filepath.Join(out, "rotatord-0.0.1-test.tgz"), map[string]any{"config": readFile(t, "deploy/kubernetes/base/config.yaml")})
	if err != nil || len(objects) != 7 {
		t.Errorf("the chart renders %d objects: %v", len(objects), err)
	}
	binary := filepath.Join(out, name, "rotatord")
	version, err := exec.CommandContext(t.Context(), binary, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(version), "rotatord v0.0.1-test (revision ") {
		t.Errorf("version says %q, %v", version, err)
	}
	program, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary is not static: the sandbox of the unit does not let a dynamic linker run")
		}
	}
}

// TestReleaseRefuses checks what the script refuses to build without SNAPSHOT=1.
func TestReleaseRefuses(t *testing.T) {
	for version, want := range map[string]string{"1.0": "usage:", "latest": "usage:", "v999.0.0": "release: "} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(root, "scripts/release.sh"), version, filepath.Join(t.TempDir(), "out"))
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("release %s: %v\n%s", version, err, out)
		}
	}
}
