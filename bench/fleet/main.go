//go:build linux

// Command fleet measures what rotatord costs and how fast it is, beside what a user would otherwise write, and prints two
// tables in Markdown.
//
// It starts the real program, as `make build` builds it, against the simulator and the double of Vault. Both are another
// process, so that no memory is mixed. Every number is measured in this run: what cannot be measured says so in its cell. A burst
// whose rotations the simulator does not confirm one by one, or after which a secret in Vault does not work, is an error and no number.
//
// Everything that it starts is stopped, and its directory is removed, also after Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "doubles" {
		exit(runDoubles(os.Args[2:]))
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func exit(err error) {
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// bench is one run.
type bench struct {
	binary   string
	root     string // of the repository
	dir      string // everything is below it
	inMemory bool   // the directory is not on a disk
	tokens   []int
	only     []string // empty: everything
	full     bool
	slot     bool // every burst is a slot of cron

	rest, idle, scrapeTime, every time.Duration
	scrapes                       int
	counts

	sizes, rotations results
	ownSeries        map[string]int // of a daemon with one token, by metrics.per_token
	log              io.Writer
}

// counts are how many tokens are due at once, as the rows say. Only a test changes them.
type counts struct {
	hundred, thousand int // of one credential
	credentials, each int // of each of many
}

var asTheRowsSay = counts{hundred: 100, thousand: 1000, credentials: 20, each: 100}

// groups are what -only names.
var groups = []string{"check", "rest", "start", "restart", "reload", "metrics", "api", "listing", "used",
	"hundred", "hundred-far", "thousand", "thousand-reserve", "bound", "syncs", "killed"}

func (b *bench) wants(any ...string) bool {
	return len(b.only) == 0 || slices.ContainsFunc(any, func(group string) bool { return slices.Contains(b.only, group) })
}

// say tells on standard error what is being measured.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	b := &bench{counts: asTheRowsSay, sizes: results{}, rotations: results{}, ownSeries: map[string]int{}, log: stderr}
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	flags.SetOutput(stderr)
	tokens := flags.String("tokens", "1,1000,10000", "sizes of the fleet; none for only the rows about rotations")
	only := flags.String("only", "", "measure only these, with commas between: "+strings.Join(groups, ", "))
	dir := flags.String("dir", "", "directory on a disk for everything that is written (default: that of temporary files, or .tools if that one is in memory)")
	flags.StringVar(&b.binary, "binary", "", "program to measure, in place of building one")
	flags.BoolVar(&b.full, "full", false, "also 100,000 tokens, a later listing, and waiting for the next window of the limit; an hour")
	update := flags.Bool("update", false, "write the results into the tables of docs/benchmarks.md and docs/sizing.md; what this run does not measure stays there")
	flags.BoolVar(&b.slot, "slot", false, "tokens are due at a full minute also in the rows of few tokens: for a program that takes longer than -every for them")
	flags.DurationVar(&b.rest, "rest", 15*time.Second, "how long a daemon rests before its memory is read")
	flags.DurationVar(&b.idle, "idle", 20*time.Second, "how long an idle daemon is watched; a day is extrapolated from that")
	flags.IntVar(&b.scrapes, "scrapes", 100, "scrapes before memory is read again")
	flags.DurationVar(&b.scrapeTime, "scrape-time", 30*time.Second, "no more scrapes after this time; the cell then says how many there were")
	flags.DurationVar(&b.every, "every", 10*time.Second, "how long after their first start tokens are due that are to be rotated")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not expected: everything is a flag", flags.Arg(0))
	}
	if *only != "" {
		b.only = strings.Split(*only, ",")
	}
	for _, group := range b.only {
		if !slices.Contains(groups, group) {
			return fmt.Errorf("-only: %q is none of %s", group, strings.Join(groups, ", "))
		}
	}
	if b.full {
		set := map[string]bool{}
		flags.Visit(func(f *flag.Flag) { set[f.Name] = true })
		if !set["tokens"] {
			*tokens = "1,1000,10000,100000"
		}
		if !set["idle"] {
			b.idle = 2 * time.Minute
		}
		if !set["scrape-time"] {
			b.scrapeTime = 3 * time.Minute
		}
	}
	for _, word := range strings.Split(*tokens, ",") {
		if word = strings.TrimSpace(word); word == "" || word == "none" {
			continue
		}
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || n > 900_000 {
			return fmt.Errorf("-tokens: %q is not a number of tokens from 1 to 900000", word)
		}
		b.tokens = append(b.tokens, n)
	}
	clean, err := b.prepare(ctx, *dir)
	defer clean()
	if err != nil {
		return err
	}
	err = b.measure(ctx)
	fmt.Fprint(stdout, b.render()) // also what was measured before an error
	if err != nil || !*update {
		return err
	}
	return b.update(b.root)
}

// prepare makes a directory and builds the program. clean removes the directory, also after an error.
func (b *bench) prepare(ctx context.Context, parent string) (clean func(), err error) {
	clean = func() {}
	if b.root, err = repository(); err != nil {
		return clean, err
	}
	if parent == "" {
		if parent = os.TempDir(); inMemory(parent) {
			parent = filepath.Join(b.root, ".tools")
			if err := os.MkdirAll(parent, 0o755); err != nil {
				return clean, err
			}
		}
	}
	b.inMemory = inMemory(parent)
	if b.dir, err = os.MkdirTemp(parent, "rotatord-bench-"); err != nil {
		return clean, err
	}
	clean = func() { _ = os.RemoveAll(b.dir) }
	if b.binary == "" {
		b.say("building rotatord")
		b.binary = filepath.Join(b.dir, "rotatord")
		if err := build(ctx, b.root, b.binary); err != nil {
			return clean, err
		}
	}
	b.binary, err = filepath.Abs(b.binary)
	return clean, err
}

// build builds the program as `make build` does.
func build(ctx context.Context, root, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./cmd/rotatord")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building rotatord: %w\n%s", err, out)
	}
	return nil
}

// repository returns the root of the repository: the nearest directory above that has the command.
func repository() (string, error) {
	begin, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := begin; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "rotatord", "main.go")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not in the repository: run this there", begin)
		}
	}
}

// inMemory reports whether a directory is on a file system without a disk, where a sync costs nothing.
func inMemory(dir string) bool {
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	var s syscall.Statfs_t
	return syscall.Statfs(dir, &s) == nil && (s.Type == tmpfs || s.Type == ramfs)
}

// measure fills the tables, and stops at the first error.
func (b *bench) measure(ctx context.Context) error {
	for row, cells := range claims {
		for i, column := range rotationColumns {
			b.rotations.set(row, column, cells[i])
		}
	}
	if info, err := os.Stat(b.binary); err == nil {
		b.rotations.set("binary", ours, fmt.Sprintf("%.1f MB", float64(info.Size())/1e6))
	}
	for _, row := range []string{"bound-cpu", "bound-disk", "binary", "killed", "killed-done"} {
		b.rotations.set(row, loop, "")
		b.rotations.set(row, script, "")
	}
	for _, n := range b.tokens {
		if err := b.measureSize(ctx, n); err != nil {
			return fmt.Errorf("%s tokens: %w", number(int64(n)), err)
		}
		if b.wants("used") && (b.full || len(b.only) > 0) {
			if err := b.measureUsed(ctx, n); err != nil {
				return fmt.Errorf("%s tokens, all rotated: %w", number(int64(n)), err)
			}
		}
	}
	for _, one := range []struct {
		row    string
		due    burst
		script bool
	}{
		{"hundred", burst{accounts: 1, per: b.hundred}, true},
		{"hundred-far", burst{accounts: 1, per: b.hundred, delay: 200 * time.Millisecond}, true},
		{"thousand", burst{accounts: 1, per: b.thousand, limit: 1200}, false},
		{"thousand-reserve", burst{accounts: 1, per: b.thousand, limit: 1000, patient: b.full}, false},
		{"bound", burst{accounts: b.credentials, per: b.each}, false},
	} {
		if !b.wants(one.row) {
			continue
		}
		if err := b.measureBurst(ctx, one.row, one.due, one.script); err != nil {
			return err
		}
	}
	if b.wants("syncs") {
		if err := b.measureSyncs(ctx); err != nil {
			return err
		}
	}
	if b.wants("killed") {
		return b.measureKill(ctx)
	}
	return nil
}

// render returns both tables, and what they were measured on. With -only they have only what was measured.
func (b *bench) render() string {
	var columns []string
	for _, n := range b.tokens {
		columns = append(columns, number(int64(n)))
	}
	out := b.machine() + "\n"
	for _, t := range []struct {
		title   string
		all     rows
		columns []string
		cells   results
	}{{sizesTitle, sizeRows, columns, b.sizes}, {rotationsTitle, rotationRows, rotationColumns, b.rotations}} {
		if len(t.columns) == 0 {
			continue
		}
		some := t.all
		if len(b.only) > 0 {
			some = slices.DeleteFunc(slices.Clone(some), func(row [2]string) bool {
				_, claimed := claims[row[0]]
				return claimed || t.cells[row[0]][t.columns[0]] == ""
			})
		}
		if len(some) > 0 {
			out += "\n" + render(t.title, some, t.columns, t.cells)
		}
	}
	return out
}

// machine describes where this runs.
func (b *bench) machine() string {
	model := "an unknown processor"
	if content, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(content)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("%s, %d cores, %s, %s; load at the end %s", model, runtime.NumCPU(), runtime.Version(), time.Now().UTC().Format("2006-01-02"), one)
}

// sleep waits, or returns why not.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
