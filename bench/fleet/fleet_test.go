//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/bench/marked"
)

// binary is the program under test, built once.
var binary string

// TestMain lets the test's program be the process of the doubles too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "doubles" {
		exit(runDoubles(os.Args[2:]))
	}
	asTheRowsSay = counts{hundred: 6, thousand: 8, credentials: 2, each: 5}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "fleet-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		root, err := repository()
		if err != nil {
			panic(err)
		}
		binary = filepath.Join(dir, "rotatord")
		if err := build(context.Background(), root, binary); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

// TestEveryRowIsMeasured runs the program with few tokens. The program itself compares each burst with what the simulator and
// Vault's double have: exactly the tokens that were due were rotated, once each, and what is stored works.
func TestEveryRowIsMeasured(t *testing.T) {
	// What -full adds is not here: a slot of cron can take a minute to come, and so can a listing.
	var group sync.WaitGroup // the runs wait most of the time, and so all go at once
	for only, measures := range map[string][]string{
		"check,rest,start,restart,reload,metrics,api": {"rest", "rest-scraped", "peak-scraped", "peak-reloaded", "start", "restart", "check", "check-peak", "reload", "reload-changed",
			"api", "metrics", "metrics-gzip", "metrics-size", "series", "essential", "essential-size", "essential-series", "start-disk", "restart-disk", "memory"},
		"hundred":          {"hundred"},
		"hundred-far":      {"hundred-far"},
		"thousand":         {"thousand"},
		"thousand-reserve": {"thousand-reserve"},
		"bound":            {"bound", "bound-cpu", "bound-disk", "vault"},
		"syncs":            {"syncs-one", "syncs-many"},
		"killed":           {"killed", "killed-done", "binary"},
	} {
		group.Go(func() { measureFew(t, only, measures) })
	}
	group.Wait()
}

// measureFew checks one run.
func measureFew(t *testing.T, only string, measures []string) {
	dir, tokens := shortDir(t), "none"
	if sizeRows.named(measures) != nil {
		tokens = "1,30"
	}
	var out, log bytes.Buffer
	for every := 8 * time.Second; ; every *= 2 { // a loaded machine needs longer
		err := run(t.Context(), []string{"-binary", binary, "-dir", dir, "-only", only, "-tokens", tokens, "-rest", "100ms", "-idle", "100ms",
			"-scrapes", "2", "-every", every.String()}, &out, &log)
		if err == nil {
			break
		}
		if !errors.Is(err, errTooEarly) || every > time.Minute {
			t.Errorf("%s: %v\n%s", only, err, log.String())
			return
		}
		out.Reset()
	}
	sizes, rotations := tableOf(t, out.String(), sizesTitle), tableOf(t, out.String(), rotationsTitle)
	for _, key := range measures {
		if row := sizeRows.named([]string{key}); row != nil {
			for _, column := range []string{"1", "30"} {
				plausible(t, row[0][1], column, sizes[row[0][1]][column])
			}
			continue
		}
		title := rotationRows.named([]string{key})[0][1]
		plausible(t, title, ours, rotations[title][ours])
		if key == "killed" && !strings.Contains(rotations[title][ours], "(2 in progress)") {
			t.Errorf("%q: want a rotation of each token in progress", rotations[title][ours])
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// shortDir returns a directory whose path leaves room for that of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "f-")
	if err != nil {
		panic(err) // not Fatal: this is not always the goroutine of the test
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// tableOf returns the cells of one table of the output; none if it is not there.
func tableOf(t *testing.T, out, title string) map[string]map[string]string {
	t.Helper()
	_, table, _ := strings.Cut(out, "| "+title+" |")
	table, _, _ = strings.Cut("| "+title+" |"+table, "\n\n")
	return marked.Cells(table)
}

// measured is a number with a unit, and what may follow.
var measured = regexp.MustCompile(`^[0-9][0-9,.]*( (ms|s|B|KiB|MiB|MB))?( \(.*\)| in all)?$`)

func plausible(t *testing.T, row, column, cell string) {
	t.Helper()
	if strings.HasPrefix(cell, notMeasured+":") && os.Getenv("ROTATORD_REQUIRE_TOOLS") != "1" {
		t.Logf("%s, %s: %s", row, column, cell) // a tool is missing here
		return
	}
	if !measured.MatchString(cell) {
		t.Errorf("%s, %s: %q is not a measured number", row, column, cell)
	}
	if strings.Trim(cell, "0. mskiMKB") == "" && !strings.Contains(row, "disk") { // a file system may write later
		t.Errorf("%s, %s: %q", row, column, cell)
	}
}

// TestInterrupted stops the program in the middle, as Ctrl-C does: nothing that it started runs on, and its directory is gone.
func TestInterrupted(t *testing.T) {
	dir := shortDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	log := &watched{word: "at rest", then: cancel}
	err := run(ctx, []string{"-binary", binary, "-tokens", "3", "-rest", "1h", "-only", "rest", "-dir", dir}, &bytes.Buffer{}, log)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if out, err := exec.Command("pgrep", "-f", dir).Output(); err == nil {
		t.Errorf("these still run: %s", out)
	}
}

// watched calls a function when a word is written.
type watched struct {
	word string
	then func()
}

func (w *watched) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.word)) {
		w.then()
	}
	return len(p), nil
}

// TestUntrueBurst: rotations that are not exactly those that were due are an error and no number.
func TestUntrueBurst(t *testing.T) {
	w, err := newWorld(t.TempDir(), shape{accounts: 3, per: 2, limit: 1200})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	due := burst{accounts: 1, per: 2}
	b := &bench{}
	if err := checkTruth(t.Context(), w, 0, 1, 2); err == nil {
		t.Error("nothing was rotated, and that is accepted")
	}
	if _, err := b.loop(t.Context(), w, due); err != nil {
		t.Error(err)
	}
	if _, err := b.loop(t.Context(), w, due); err == nil {
		t.Error("tokens were rotated twice, and that is accepted")
	}
	if err := w.rotateBarely(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := send(t.Context(), "POST", w.Vault+"/v1/secret/data/"+kvPath(0), []byte(`{"data":{"client_secret":"other"}}`), "X-Vault-Token", rootKey); err != nil {
		t.Fatal(err)
	}
	if err := checkTruth(t.Context(), w, 0, 1, 1); err == nil {
		t.Error("what is stored does not work, and that is accepted")
	}
}

// TestCountSyncs reads what strace writes.
func TestCountSyncs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	const lines = `1 100.000001 fsync(5) = 0
1 101.5 fdatasync(5 <unfinished ...>
2 101.6 fsync(7) = 0
1 101.7 <... fdatasync resumed>) = 0
1 102.0 --- SIGURG {si_signo=SIGURG} ---
2 103.5 fsync(7) = 0
`
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := countSyncs(path, time.Unix(101, 0), time.Unix(103, 0)); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// TestUpdate: a run writes what it measured and leaves the rest.
func TestUpdate(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "docs"), 0o755); err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{}
	for _, p := range parts {
		pages[p.page] += "<!-- make bench: " + p.name + " -->\n<!-- end of make bench -->\n"
	}
	for page, content := range pages {
		if err := os.WriteFile(filepath.Join(root, page), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for column, cell := range map[string]string{"1,000": "30 MiB", "10,000": "70 MiB"} {
		b := &bench{sizes: results{}, rotations: results{}}
		b.sizes.set("rest", column, cell)
		if err := b.update(root); err != nil {
			t.Fatal(err)
		}
	}
	for _, page := range []string{"docs/benchmarks.md", "docs/sizing.md"} {
		content, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		if want := "| resident at rest | not measured | 30 MiB | 70 MiB | not measured |\n"; !strings.Contains(string(content), want) {
			t.Errorf("%s has not %q:\n%s", page, want, content)
		}
	}
}

// TestDocuments checks that both documents have the rows and columns that this program writes, and that what is only arithmetic is right.
func TestDocuments(t *testing.T) {
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		content, err := os.ReadFile(filepath.Join(root, p.page))
		if err != nil {
			t.Fatal(err)
		}
		text, err := marked.Find(string(content), p.name)
		if err != nil {
			t.Errorf("%s: %v", p.page, err)
			continue
		}
		if strings.Contains(text, notMeasured) {
			t.Errorf("%s: a cell of the part %q is not measured: run make bench FULL=1 UPDATE=1", p.page, p.name)
		}
		if p.name == "machine" {
			if !strings.Contains(text, " cores, ") {
				t.Errorf("%s does not say on what it was measured: run make bench FULL=1 UPDATE=1", p.page)
			}
			continue
		}
		// What is written again from itself is the same, if rows, columns and arithmetic are.
		if again := p.text(&bench{sizes: results{}, rotations: results{}}, text); again != text {
			t.Errorf("%s: the part %q is not what the program writes: run make bench FULL=1 UPDATE=1\n%s", p.page, p.name, again)
		}
	}
}

func TestCells(t *testing.T) {
	for got, want := range map[string]string{
		timeCell(290 * time.Microsecond):    "0.29 ms",
		timeCell(12340 * time.Microsecond):  "12 ms",
		timeCell(994600 * time.Microsecond): "995 ms",
		timeCell(2449 * time.Millisecond):   "2.4 s",
		timeCell(299 * time.Second):         "299 s",
		bytesCell(75 << 20):                 "75 MiB",
		bytesCell(3<<20 + 1<<18):            "3.2 MiB",
		bytesCell(155 << 10):                "155 KiB",
		bytesCell(0):                        "0 B",
		significant(4):                      "4.0",
		significant(3140):                   "3,140",
		number(-1234567):                    "-1,234,567",
		bytesCell(memoryFor(200 << 20)):     "256 MiB",
		bytesCell(memoryFor(210 << 20)):     "512 MiB",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
