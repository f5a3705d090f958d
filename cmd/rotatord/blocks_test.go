package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"rotatord/internal/racedetector"
)

// This file runs the command blocks of the documents: those in sh, and those with lines that begin with a prompt.
// A block is run here, in a sandbox with the simulator of Cloudflare, a KV server and this program; or a test of a guide
// runs it; or it is marked with a comment before it, which says why it is only an illustration:
//
//	<!-- illustration: it needs a cluster -->

// ranElsewhere are the documents and sections whose blocks a test in another module runs. That test fails if it leaves
// one out that is not marked.
var ranElsewhere = map[string]string{
	"deploy/kubernetes/README.md":          "test/deploy",
	"deploy/helm/rotatord/README.md":       "test/deploy",
	"deploy/systemd/README.md":             "test/guide",
	"deploy/vault/README.md":               "test/guide",
	"docs/simulator.md#Rehearse the setup": "test/guide",
	"README.md#A first setup":              "test/guide", // the same lines as in the guide to systemd
}

// block is a block of commands in a document.
type block struct {
	path, section string
	line          int
	console       bool // with prompts and output
	text          string
	illustration  string // why it is not run; empty if it is
}

var marked = regexp.MustCompile(`^ *<!-- illustration: (.*) -->$`)

// blocksOf returns the blocks of commands of a document.
func blocksOf(t *testing.T, path string) (all []block) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../..", path))
	if err != nil {
		t.Fatal(err)
	}
	section, mark := "", ""
	lines := strings.Split(string(content), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		switch kind, fenced := strings.CutPrefix(strings.TrimSpace(line), "```"); {
		case fenced:
			b := block{path: path, section: section, line: i + 1, illustration: mark}
			var text strings.Builder
			for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
				text.WriteString(strings.TrimPrefix(lines[i], indent) + "\n")
			}
			b.text = text.String()
			b.console = kind == "console" || kind == "" && regexp.MustCompile(`(?m)^\$ `).MatchString(b.text)
			if b.console && b.illustration == "" && !strings.Contains("\n"+b.text, "\n$ ") {
				t.Errorf("%s:%d: no line begins with the prompt $, so nothing is run", path, b.line)
			}
			if b.console || kind == "sh" {
				all = append(all, b)
			}
			mark = ""
		case strings.HasPrefix(line, "#"):
			section, mark = strings.TrimLeft(line, "# "), ""
		case marked.MatchString(line):
			if mark = marked.FindStringSubmatch(line)[1]; len(strings.Fields(mark)) < 3 {
				t.Errorf("%s:%d: the mark does not say why", path, i+1)
			}
		case strings.TrimSpace(line) != "":
			if mark != "" {
				t.Errorf("%s:%d: the mark above is not before a block", path, i+1)
			}
			mark = ""
		}
	}
	return all
}

// filledIn is what a reader puts into a command, or what would take too long.
var filledIn = strings.NewReplacer(
	"go run ./cmd/rotatord demo", "rotatord demo --for 2s", "--for 12s", "--for 2s", "make test", "make --dry-run --directory REPOSITORY test > /dev/null",
	"ci-deploy", "seeded-0001", "ALICE", "alice", "--state-dir DIR ", "--state-dir /var/lib/rotatord ", "curl --silent ", "curl --silent --fail ",
	"https://api.cloudflare.com/", "http://127.0.0.1:8787/",
)

// script returns the commands of a block in sh, as the sandbox runs them.
func (s *sandbox) script(text string) string {
	repository, err := filepath.Abs("../..")
	if err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(filledIn.Replace(text), "\\\n", " ")) {
		bare, _, _ := strings.Cut(line, " #")
		if bare = strings.TrimSpace(bare); regexp.MustCompile(`^rotatord (sim|run)\b`).MatchString(bare) && !strings.HasSuffix(bare, "&") {
			line = "serve " + line // it does not end by itself
		}
		b.WriteString(strings.ReplaceAll(line, "REPOSITORY", repository))
	}
	return b.String()
}

// unstable is what differs from run to run in an output, and what stands for it in a comparison.
var unstable = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`0 4 \* \* \d`), "SCHEDULE"},
	{regexp.MustCompile(`sha256:[A-Za-z0-9_-]+`), "DIGEST"},
	{regexp.MustCompile(`\b[A-Z2-7]{26}\b`), "ROTATION"},
	{regexp.MustCompile(`\b[0-9a-f]{32}\.access`), "CLIENT"},
	{regexp.MustCompile(`go1\.[0-9.]+`), "GO"},
	{regexp.MustCompile(`\d{8}T\d{6}\.\d{3}Z`), "TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z| UTC| \+\d\d:\d\d)?`), "TIME"},
	{regexp.MustCompile(`\b\d\d-\d\d \d\d:\d\d\b`), "TIME"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d\b`), "TIME"},
	{regexp.MustCompile(`\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) TIME`), "TIME"},
	{regexp.MustCompile(`(in )?\b\d+ (d|h|min|s)\b( \d+ (min|s)\b)?( ago)?`), "DISTANCE"},
	{regexp.MustCompile(`(\(|, |   )now\b`), "${1}DISTANCE"},
	{regexp.MustCompile(`cfast_\S+`), "SECRET"},
	{regexp.MustCompile(`\b\d+[hm][0-9hms]*s\b`), "DURATION"},
	{regexp.MustCompile(`next: seeded-\d+`), "next: TOKEN"},
	{regexp.MustCompile(`\b11\d\d of the 1200`), "11xx of the 1200"},
	{regexp.MustCompile(`\b\w+ by root\b`), "by root"},
	{regexp.MustCompile(`locked out for a moment`), "never locked out"}, // between two requests of a loaded machine
	{regexp.MustCompile(`\bby [a-z_][a-z0-9_-]*, until`), "by USER, until"},
}

// progress is a line that comes each second, so that a slow machine has more of them.
var progress = regexp.MustCompile(`^TIME \d+ of \d+ rotated`)

// stable returns the lines of an output without what differs from run to run.
func stable(text string) (lines []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for _, u := range unstable {
			line = u.pattern.ReplaceAllString(line, u.with)
		}
		if line = strings.Join(strings.Fields(line), " "); line != "" && !progress.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// matches reports whether an output is what a document shows. A line of three dots stands for any lines. The lines of a
// table may have another order, because the offsets of the tokens depend on the slot.
func matches(want, got []string) bool {
	if !slices.Contains(want, "...") {
		return slices.Equal(want, got) || slices.Equal(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))) ||
			strings.Join(want, " ") == strings.Join(got, " ") // a paragraph is broken elsewhere
	}
	return begins(want, got)
}

func begins(want, got []string) bool {
	switch {
	case len(want) == 0:
		return len(got) == 0
	case want[0] == "...":
		return begins(want[1:], got) || len(got) > 0 && begins(want, got[1:])
	}
	return len(got) > 0 && want[0] == got[0] && begins(want[1:], got[1:])
}

// TestMatches: the comparison can fail.
func TestMatches(t *testing.T) {
	for _, test := range []struct {
		want, got string
		same      bool
	}{
		{"a in 3 h 5 min\n", "a in 2 d\n", true},
		{"a 2026-11-28 19:36:06 UTC (now)\n", "a 2027-01-01 00:00:00 UTC (1 s ago)\n", true},
		{"a\nb\n", "b\na\n", true},
		{"a\nb\n", "a\nc\n", false},
		{"a\nb\n", "a\n", false},
		{"a\n...\nb\n", "a\nx\ny\nb\n", true},
		{"a\n...\nb\n", "a\nx\ny\n", false},
		{"a\n...\n", "b\n", false},
		{"a\n...\nb\n", "a\n", false},
		{"a\n...\nb\n...\n", "a\nx\nb\ny\n", true},
		{"a\n...\nb\n...\n", "a\nx\ny\n", false},
	} {
		if same := matches(stable(test.want), stable(test.got)); same != test.same {
			t.Errorf("%q and %q: %v", test.want, test.got, same)
		}
	}
}

// console runs the commands of a block with prompts, and compares what they print. With -update it returns the block as
// it would have to be.
func (s *sandbox) console(b block) string {
	s.t.Helper()
	var shown strings.Builder
	parts := regexp.MustCompile(`(?m)^\$ `).Split(b.text, -1)
	shown.WriteString(parts[0])
	for _, part := range parts[1:] {
		command, want, _ := strings.Cut(part, "\n")
		got, err := s.run(s.script(command))
		if exit := (*exec.ExitError)(nil); err != nil && !asExit(err, &exit) {
			s.t.Fatalf("%s:%d: %s: %v\n%s", b.path, b.line, command, err, got)
		}
		keep := want
		if !matches(stable(filledIn.Replace(want)), stable(got)) {
			if !*update {
				s.t.Errorf("%s:%d: %s\nprints\n%s\nand the document has\n%s", b.path, b.line, command, got, want)
			}
			keep = regexp.MustCompile(`cfast_\S+`).ReplaceAllString(got, "cfast_…")
		}
		if *update && slices.Contains(stable(want), "...") {
			keep = want // shortened by hand
		}
		shown.WriteString("$ " + command + "\n" + keep)
	}
	return shown.String()
}

func asExit(err error, exit **exec.ExitError) bool {
	e, ok := errors.AsType[*exec.ExitError](err)
	*exit = e
	return ok
}

// TestBlocks runs each block of commands of the documents that is not marked as an illustration.
func TestBlocks(t *testing.T) {
	if racedetector.On {
		t.Skip("it takes too long with the race detector, and runs without")
	}
	for _, program := range []string{"bash", "curl", "setsid", "make"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	ran, illustrations, elsewhere := 0, 0, 0
	for _, glob := range documents {
		paths, err := filepath.Glob(filepath.Join("../..", glob))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s matches nothing: %v", glob, err)
		}
		for _, path := range paths {
			path = strings.TrimPrefix(filepath.ToSlash(path), "../../")
			var sections []string
			bySection := map[string][]block{}
			for _, b := range blocksOf(t, path) {
				switch {
				case b.illustration != "":
					illustrations++
				case ranElsewhere[path] != "" || ranElsewhere[path+"#"+b.section] != "":
					elsewhere++
				default:
					ran++
					if bySection[b.section] == nil {
						sections = append(sections, b.section)
					}
					bySection[b.section] = append(bySection[b.section], b)
				}
			}
			for _, section := range sections {
				if testing.Short() {
					continue
				}
				t.Run(path+"#"+section, func(t *testing.T) { runSection(t, path, section, bySection[section]) })
			}
		}
	}
	t.Logf("%d blocks are run here, %d by tests of guides, and %d are marked as illustrations", ran, elsewhere, illustrations)
	if ran < 20 {
		t.Errorf("only %d blocks are run", ran)
	}
}

// runSection runs the blocks of a section one after the other, in a sandbox of their own.
func runSection(t *testing.T, path, section string, blocks []block) {
	s := newSandbox(t)
	scene, known := scenes[path+"#"+section]
	if !known {
		scene = withDaemon
	}
	if out, err := s.run(scene); err != nil {
		t.Fatalf("what comes before the section: %v\n%s", err, out)
	}
	for _, b := range blocks {
		if b.console {
			if shown := s.console(b); *update && shown != b.text {
				rewrite(t, b, shown)
			}
			continue
		}
		if out, err := s.run(s.script(b.text)); err != nil {
			t.Errorf("%s:%d: %v\n%s\nprints\n%s", b.path, b.line, err, b.text, out)
		}
	}
}

// rewrite puts another text in the place of a block.
func rewrite(t *testing.T, b block, text string) {
	t.Helper()
	path := filepath.Join("../..", b.path)
	content, err := os.ReadFile(path)
	if err != nil || strings.Count(string(content), b.text) != 1 {
		t.Fatalf("%s:%d: the block cannot be written again: %v", b.path, b.line, err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(content), b.text, text, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}
