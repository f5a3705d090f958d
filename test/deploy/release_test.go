package deploy

import (
	"crypto/x509"
	"debug/buildinfo"
	"debug/elf"
	"encoding/csv"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	registryname "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

// largestBinary is how many bytes the binary may have, with every sink and every way to log in.
const largestBinary = 31_000_000

// TestRelease builds a release of the last commit. The script itself builds everything twice, in two
// directories, and fails if the two differ.
func TestRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a release twice")
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
	for _, pattern := range []string{
		"rotatord_0.0.1~test_*.deb", "rotatord-0.0.1~test-1.*.rpm", "rotatord_v0.0.1-test_image.oci.tar", name + ".cdx.json", name + ".licenses.csv",
	} {
		if found, err := filepath.Glob(filepath.Join(out, pattern)); err != nil || len(found) != 1 {
			t.Errorf("the release has %q for %s, %v", found, pattern, err)
		}
	}
	t.Run("packages", func(t *testing.T) { releasedPackages(t, out) })
	releasedLists(t, out, name)
	releasedImage(t, filepath.Join(out, "rotatord_v0.0.1-test_image.oci.tar"))
	for _, line := range []string{"sha256sum --check --strict SHA256SUMS", "tar -xzf " + name + ".tar.gz"} {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir = out
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, text)
		}
	}
	for _, file := range []string{"LICENSE", "THIRD-PARTY-LICENSES.txt", "README.md", "config.example.yaml", "deploy/systemd/rotatord.service", "docs/runbook.md"} {
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
	// What is downloaded to each node, and read by each start. See docs/benchmarks.md.
	if info, err := os.Stat(binary); err != nil {
		t.Error(err)
	} else if info.Size() > largestBinary {
		t.Errorf("the binary has %d bytes, more than %d: find what became larger with go tool nm -size -sort size", info.Size(), largestBinary)
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

// releasedLists holds the SBOM and the list of licences against what the toolchain says is in the binary.
func releasedLists(t *testing.T, out, name string) {
	t.Helper()
	dir := t.TempDir()
	if text, err := run(t, "tar", "-xzf", filepath.Join(out, name+".tar.gz"), "-C", dir); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	info, err := buildinfo.ReadFile(filepath.Join(dir, name, "rotatord"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(file string) string {
		content, err := os.ReadFile(filepath.Join(out, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	var sbom struct {
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal([]byte(read(name+".cdx.json")), &sbom); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(read(name + ".licenses.csv"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	component, licence := map[string]string{}, map[string]string{}
	for _, c := range sbom.Components {
		component[c.Name] = c.Version
	}
	for _, row := range rows[1:] {
		licence[row[0]] = row[1]
		if row[2] == "" {
			t.Errorf("%s has no licence", row[0])
		}
	}
	for _, m := range info.Deps {
		if component[m.Path] != m.Version {
			t.Errorf("the SBOM has %s %q, the binary %s", m.Path, component[m.Path], m.Version)
		}
		if licence[m.Path] != m.Version {
			t.Errorf("the list of licences has %s %q, the binary %s", m.Path, licence[m.Path], m.Version)
		}
	}
	if licence["Go standard library"] != info.GoVersion {
		t.Errorf("the list of licences has Go %q, the binary %s", licence["Go standard library"], info.GoVersion)
	}
}

// releasedImage reads the image as an engine would, holds it against the Dockerfile, and runs it with nothing but its own files.
func releasedImage(t *testing.T, archive string) {
	t.Helper()
	tag, err := registryname.NewTag("rotatord:v0.0.1-test-" + runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(archive, &tag)
	if err != nil {
		t.Fatal(err)
	}
	// The same image by the way of an OCI archive.
	dir := t.TempDir()
	if text, err := run(t, "tar", "-xf", archive, "-C", dir); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Errorf("the OCI archive: %v", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	stages := dockerStages(t)
	final := stages[len(stages)-1]
	if got, want := file.Config.User, commands[*instructions.UserCommand](final)[0].User; got != want {
		t.Errorf("the image runs as %s, that of the Dockerfile as %s", got, want)
	}
	if got, want := file.Config.Entrypoint, []string(commands[*instructions.EntrypointCommand](final)[0].CmdLine); !slices.Equal(got, want) {
		t.Errorf("the image starts %q, that of the Dockerfile %q", got, want)
	}
	if got, want := file.Config.Cmd, []string(commands[*instructions.CmdCommand](final)[0].CmdLine); !slices.Equal(got, want) {
		t.Errorf("the image has the arguments %q, that of the Dockerfile %q", got, want)
	}
	health := commands[*instructions.HealthCheckCommand](final)[0].Health
	if got := file.Config.Healthcheck; got == nil || !slices.Equal(got.Test, health.Test) || got.Interval != health.Interval || got.Timeout != health.Timeout ||
		got.StartPeriod != health.StartPeriod || got.Retries != health.Retries {
		t.Errorf("the image is checked by %+v, that of the Dockerfile by %+v", got, health)
	}
	for _, v := range commands[*instructions.VolumeCommand](final)[0].Volumes {
		if _, there := file.Config.Volumes[v]; !there {
			t.Errorf("the image has no volume %s", v)
		}
	}
	for _, c := range commands[*instructions.LabelCommand](final) {
		for _, l := range c.Labels {
			if want := strings.Trim(l.Value, `"`); file.Config.Labels[l.Key] == "" || !strings.Contains(want, "$") && file.Config.Labels[l.Key] != want {
				t.Errorf("the label %s is %q, in the Dockerfile %s", l.Key, file.Config.Labels[l.Key], l.Value)
			}
		}
	}

	root := t.TempDir()
	content := mutate.Extract(image)
	defer content.Close()
	unpack := exec.CommandContext(t.Context(), "tar", "-x", "--same-permissions", "-C", root)
	unpack.Stdin = content
	if text, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	roots, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil || !x509.NewCertPool().AppendCertsFromPEM(roots) {
		t.Errorf("the image has no CA certificates: %v", err)
	}
	if n := strings.Count(string(roots), "BEGIN CERTIFICATE"); n < 100 {
		t.Errorf("the image has %d CA certificates only", n)
	}
	if os.Geteuid() != 0 {
		t.Log("not run: that needs root")
		return
	}
	uid, gid := imageUser(t)
	cmd := exec.CommandContext(t.Context(), file.Config.Entrypoint[0], "version")
	cmd.Dir, cmd.Env = "/", file.Config.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if text, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(text), "rotatord v0.0.1-test ") {
		t.Errorf("the image does not run: %v\n%s", err, text)
	}
}
