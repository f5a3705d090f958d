package deploy

import (
	"debug/buildinfo"
	"debug/elf"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

func dockerStages(t *testing.T) []instructions.Stage {
	t.Helper()
	parsed, err := parser.Parse(strings.NewReader(readFile(t, "deploy/docker/Dockerfile")))
	if err != nil {
		t.Fatal(err)
	}
	for _, warning := range parsed.Warnings {
		t.Errorf("Dockerfile: %s", warning.Short)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

// commands returns the instructions of one kind in a stage.
func commands[T instructions.Command](stage instructions.Stage) []T {
	var found []T
	for _, c := range stage.Commands {
		if c, ok := c.(T); ok {
			found = append(found, c)
		}
	}
	return found
}

// imageUser returns the numeric user and group that the image runs as.
func imageUser(t *testing.T) (uid, gid int64) {
	t.Helper()
	stages := dockerStages(t)
	users := commands[*instructions.UserCommand](stages[len(stages)-1])
	if len(users) != 1 {
		t.Fatalf("%d USER instructions in the last stage, want one", len(users))
	}
	user, group, found := strings.Cut(users[0].User, ":")
	uid, err := strconv.ParseInt(user, 10, 64)
	if err != nil {
		t.Fatalf("USER %s: runAsNonRoot needs a number", users[0].User)
	}
	if gid, err = strconv.ParseInt(group, 10, 64); err != nil || !found {
		t.Fatalf("USER %s: no numeric group", users[0].User)
	}
	return uid, gid
}

func TestDockerfile(t *testing.T) {
	stages := dockerStages(t)
	final := stages[len(stages)-1]
	if final.BaseName != "scratch" {
		t.Errorf("the last stage is FROM %s, want scratch", final.BaseName)
	}
	if n := len(commands[*instructions.RunCommand](final)); n != 0 {
		t.Errorf("%d RUN instructions in the last stage: there is nothing in it to run", n)
	}
	if uid, gid := imageUser(t); uid == 0 || gid == 0 {
		t.Errorf("the image runs as %d:%d", uid, gid)
	}

	health := commands[*instructions.HealthCheckCommand](final)
	if len(health) != 1 || !slices.Equal(health[0].Health.Test, []string{"CMD", "/usr/local/bin/rotatord", "healthcheck"}) {
		t.Errorf("HEALTHCHECK must ask, without a shell, whether the daemon is alive, and not whether it is ready: %+v", health)
	}
	labels := map[string]string{}
	for _, c := range commands[*instructions.LabelCommand](final) {
		for _, l := range c.Labels {
			labels[l.Key] = l.Value
		}
	}
	if labels["org.opencontainers.image.version"] != `"${VERSION}"` || labels["org.opencontainers.image.revision"] != `"${REVISION}"` {
		t.Errorf("the image does not say what it is: %q", labels)
	}
	args := map[string]bool{} // of this stage: a build argument ends with its stage
	for _, c := range commands[*instructions.ArgCommand](final) {
		for _, a := range c.Args {
			args[a.Key] = true
		}
	}
	if !args["VERSION"] || !args["REVISION"] {
		t.Error("the labels would be empty: the last stage has no ARG for them")
	}

	destinations := map[string]string{}
	for _, c := range commands[*instructions.CopyCommand](final) {
		if c.From != stages[0].Name {
			t.Errorf("COPY %s comes from %q, want the build stage", c.DestPath, c.From)
		}
		destinations[c.DestPath] = strings.Join(c.SourcePaths, " ")
	}
	if destinations["/etc/ssl/certs/ca-certificates.crt"] == "" {
		t.Error("no CA certificates: Cloudflare could not be reached")
	}
	entry := commands[*instructions.EntrypointCommand](final)
	if len(entry) != 1 || entry[0].PrependShell || len(entry[0].CmdLine) != 1 {
		t.Fatalf("ENTRYPOINT must be the binary in exec form: there is no shell")
	}
	if destinations[entry[0].CmdLine[0]] != "/out/rotatord" {
		t.Errorf("ENTRYPOINT %s is not the binary that was built", entry[0].CmdLine[0])
	}
	if cmd := commands[*instructions.CmdCommand](final); len(cmd) != 1 || cmd[0].PrependShell {
		t.Error("there must be one CMD, in exec form")
	}
}

// buildContext copies into a directory what .dockerignore lets through.
func buildContext(t *testing.T) string {
	t.Helper()
	patterns, err := ignorefile.ReadAll(strings.NewReader(readFile(t, ".dockerignore")))
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains([]string{".git", ".tools", "bin", "test"}, rel) {
				return filepath.SkipDir
			}
			return nil
		}
		if skip, err := ignored.MatchesOrParentMatches(rel); err != nil || skip || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target := filepath.Join(dir, rel)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The build command of the Dockerfile, run here on the files of its build context, must
// give a static binary that knows its version.
func TestDockerBuildCommand(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary")
	}
	var build string
	for _, c := range commands[*instructions.RunCommand](dockerStages(t)[0]) {
		if line := strings.Join(c.CmdLine, " "); strings.Contains(line, "go build") {
			build = line
		}
	}
	if build == "" {
		t.Fatal("no RUN go build in the first stage")
	}
	out, dir := t.TempDir(), buildContext(t)
	binary := filepath.Join(out, "rotatord")
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", strings.ReplaceAll(build, "/out/", out+"/"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "VERSION=v1.2.3-test", "REVISION=0123abcd", "TARGETOS=", "TARGETARCH=", "GOFLAGS=", "GOWORK=off")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, output)
	}

	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary wants a dynamic loader: it cannot run in an empty image")
		}
	}
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) != 0 {
		t.Errorf("the binary wants the libraries %q (%v)", libraries, err)
	}
	if f.Section(".symtab") != nil {
		t.Error("the binary is not stripped")
	}

	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if settings["-trimpath"] != "true" || settings["CGO_ENABLED"] != "0" {
		t.Errorf("built with -trimpath=%s CGO_ENABLED=%s", settings["-trimpath"], settings["CGO_ENABLED"])
	}

	version, err := run(t, binary, "version")
	if err != nil {
		t.Fatalf("rotatord version: %v\n%s", err, version)
	}
	for _, want := range []string{"v1.2.3-test", "0123abcd"} {
		if !strings.Contains(version, want) {
			t.Errorf("rotatord version says %q: the linker did not set %s", version, want)
		}
	}

	// An empty image has no zoneinfo: time_zone works only if the binary brings it.
	deps := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/rotatord")
	deps.Dir = dir
	list, err := deps.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(strings.Fields(string(list)), "time/tzdata") {
		t.Error("cmd/rotatord does not embed time/tzdata")
	}
}
