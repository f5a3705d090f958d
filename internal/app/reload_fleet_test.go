package app

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"weak"

	"rotatord/internal/config"
	"rotatord/internal/ledger"
)

// fleetConfig makes a configuration with n tokens whose files are below dir. more are further lines.
func fleetConfig(t *testing.T, dir string, n int, more ...string) *config.Config {
	t.Helper()
	c, err := config.Parse("rotatord.yaml", []byte(fleetText(dir, n, more...)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fleetText returns the configuration of fleetConfig.
func fleetText(dir string, n int, more ...string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "listen: 127.0.0.1:0\nadmin_socket: %s/a.sock\nstate: {dir: %s/state}\naccounts: {prod: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, api_token: {env: NONE}, base_url: 'http://127.0.0.1:1'}}\n", dir, dir)
	fmt.Fprintf(&text, "defaults: {account: prod, schedule: '@weekly', time_zone: Europe/Berlin, freezes: {winter: {from: 2030-12-20, to: 2031-01-04}}}\ntokens:\n")
	for i := range n {
		fmt.Fprintf(&text, "  token-%04d: {id: 5eed0000-0000-4000-8000-%012d, sinks: [{file: {path: %s/%d/cf.env, format: env}}]}\n", i, i, dir, i)
	}
	for _, line := range more {
		text.WriteString("  " + line + "\n")
	}
	return text.String()
}

// TestStartDecodesEachRecordOnce: to plan the token. A reload decodes none of those that it does not change.
func TestStartDecodesEachRecordOnce(t *testing.T) {
	for _, n := range []int{25, 100} {
		dir := t.TempDir()
		open := func() (*App, *ledger.Local) {
			a, err := New(Options{Config: fleetConfig(t, dir, n), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			return a, a.state.ledger.(*ledger.Local)
		}
		a, l := open()
		if got := l.Decoded(); got != int64(n) {
			t.Errorf("the first start with %d tokens decodes %d records, want one for each", n, got)
		}
		must(a.Stop(context.Background()))

		a, l = open()
		started := l.Decoded()
		if started != int64(n) {
			t.Errorf("a start with %d tokens decodes %d records, want one for each", n, started)
		}
		must(a.Reload(t.Context(), fleetConfig(t, dir, n)))
		if got := l.Decoded() - started; got != 0 {
			t.Errorf("a reload without changes of %d tokens decodes %d records", n, got)
		}
		must(a.Reload(t.Context(), fleetConfig(t, dir, n, "other: {id: 5eed0000-0000-4000-8000-000000009999, sinks: [{file: {path: /run/other.env, format: env}}]}")))
		if got := l.Decoded() - started; got != 1 {
			t.Errorf("a reload that adds one token to %d decodes %d records, want 1", n, got)
		}
		must(a.Stop(context.Background()))
	}
}

// TestReloadKeepsOneConfiguration: what a reload does not change stays the one that is in use, so the memory of the other is
// given back.
func TestReloadKeepsOneConfiguration(t *testing.T) {
	dir := t.TempDir()
	before, after := fleetConfig(t, dir, 5), fleetConfig(t, dir, 5)
	old := slices.Clone(before.Tokens)
	changed, removed := takeUnchanged(before.Tokens, after.Tokens)
	if len(changed)+len(removed) > 0 {
		t.Errorf("%d changed, %q removed", len(changed), removed)
	}
	for i, now := range after.Tokens {
		if now.Schedule != old[i].Schedule || now.Sinks[0] != old[i].Sinks[0] {
			t.Errorf("%s is another one", now.Name)
		}
	}
}

// TestTakeUnchanged: what is new, changed and removed is found, wherever it is in the order.
func TestTakeUnchanged(t *testing.T) {
	tokens := func(all ...string) (tokens []config.Token) { // "name" or "name=id"
		schedule := fleetConfig(t, "/run", 1).Tokens[0].Schedule
		for _, one := range all {
			name, id, _ := strings.Cut(one, "=")
			tokens = append(tokens, config.Token{Name: name, ID: id, Schedule: schedule})
		}
		return tokens
	}
	for name, test := range map[string]struct {
		before, after    []config.Token
		changed, removed string
	}{
		"nothing":      {},
		"all new":      {after: tokens("a", "b"), changed: "a b"},
		"all removed":  {before: tokens("a", "b"), removed: "a b"},
		"same":         {before: tokens("a", "b"), after: tokens("a", "b")},
		"changed":      {before: tokens("a", "b", "c"), after: tokens("a", "b=2", "c"), changed: "b"},
		"first, last":  {before: tokens("b"), after: tokens("a", "b", "c"), changed: "a c"},
		"between":      {before: tokens("a", "c"), after: tokens("a", "b", "c"), changed: "b"},
		"ends removed": {before: tokens("a", "b", "c"), after: tokens("b"), removed: "a c"},
		"replaced":     {before: tokens("a", "c", "e"), after: tokens("b", "c", "d"), changed: "b d", removed: "a e"},
	} {
		changed, removed := takeUnchanged(test.before, test.after)
		var names []string
		for _, c := range changed {
			names = append(names, c.Name)
		}
		if got := strings.Join(names, " "); got != test.changed || strings.Join(removed, " ") != test.removed {
			t.Errorf("%s: changed %q, removed %q", name, got, removed)
		}
	}
}

// TestReloadForgetsTheOldConfiguration: nothing keeps the configuration that a reload has replaced.
func TestReloadForgetsTheOldConfiguration(t *testing.T) {
	dir := t.TempDir()
	first := fleetConfig(t, dir, 5)
	old := weak.Make(first)
	a, err := New(Options{Config: first, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a.Start()
	defer func() { must(a.Stop(context.Background())) }()
	a.tokensIn("prod")
	must(a.Reload(t.Context(), fleetConfig(t, dir, 5)))
	for end := time.Now().Add(10 * time.Second); old.Value() != nil; time.Sleep(10 * time.Millisecond) { // what runs now may still use it
		if runtime.GC(); time.Now().After(end) {
			t.Fatal("it is still in memory")
		}
	}
}

// TestReloadOfAnUnchangedFile: a file with the content that is in force is not parsed, and its tokens are not looked at. After a file that
// was refused, and after another one, the content counts.
func TestReloadOfAnUnchangedFile(t *testing.T) {
	allocated, enough := map[int]float64{}, math.Inf(1)
	for _, n := range []int{50, 800} {
		dir := t.TempDir()
		path := filepath.Join(dir, "config.yaml")
		load := func(c *config.Config, text string) *config.Config {
			t.Helper()
			must(os.WriteFile(path, []byte(text), 0o600))
			c, err := config.LoadAgain(t.Context(), path, c)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		text := fleetText(dir, n)
		a, err := New(Options{Config: load(nil, text), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		before := a.InForce()
		c := load(before, text)
		must(a.Reload(t.Context(), c))
		if c != before {
			t.Errorf("%d tokens: a file without a change was read again", n)
		}
		allocated[n] = LeastAllocated(enough, 1, func() { must(a.reload(t.Context(), c)) })
		enough = allocated[50] + 100
		if n == 50 { // a directory of a file is another one
			must(os.Symlink(t.TempDir(), filepath.Join(dir, "7")))
			if c := load(before, text); c == before {
				t.Error("a directory of files has changed, and the file was not checked again")
			}
			must(os.Remove(filepath.Join(dir, "7")))
		}
		if c := load(before, strings.Replace(text, "listen: 127.0.0.1:0", "listen: 127.0.0.1:1", 1)); c == before || a.Reload(t.Context(), c) == nil {
			t.Errorf("%d tokens: another address was taken over", n)
		}
		if load(a.InForce(), text) != before {
			t.Errorf("%d tokens: what is in force is not known after a file that was refused", n)
		}
		other := load(before, strings.Replace(text, "@weekly", "@monthly", 1))
		must(a.Reload(t.Context(), other))
		if schedule := a.InForce().Tokens[0].Schedule.String(); schedule != "@monthly" || a.InForce() != other {
			t.Errorf("%d tokens: the schedule in force is %s", n, schedule)
		}
		if again := load(other, text); again == other || again == before {
			t.Errorf("%d tokens: a file with another content was not read", n)
		} else if must(a.Reload(t.Context(), again)); a.InForce().Tokens[0].Schedule.String() != "@weekly" {
			t.Errorf("%d tokens: the first schedule did not come back", n)
		}
		must(a.Stop(context.Background()))
	}
	if allocated[800] > enough {
		t.Errorf("a reload without changes allocates %.0f objects for 50 tokens and %.0f for 800", allocated[50], allocated[800])
	}
}
