package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
)

// names returns the names of each token's freezes.
func names(cfg *config.Config) map[string]string {
	all := map[string]string{}
	for _, token := range cfg.Tokens {
		var of []string
		for _, f := range token.Freezes {
			of = append(of, f.Name)
		}
		all[token.Name] = strings.Join(of, " ")
	}
	return all
}

// TestWhichFreezesApply looks at three tokens, of which one says nothing about freezes.
func TestWhichFreezesApply(t *testing.T) {
	const global = `freezes:
  z: {from: 2026-12-20, to: 2026-12-21}
  a: {from: 2026-12-22, to: 2026-12-23}
  m: {from: 2026-12-24, to: 2026-12-25}
`
	const own = "freezes: {y: {from: 2027-01-01, to: 2027-01-02}, b: {from: 2027-01-03, to: 2027-01-04}}"
	for _, test := range []struct {
		name, top, defaults, first, second string
		want                               map[string]string
	}{
		{"none", "", "", "", "", map[string]string{"plain": "", "first": "", "second": ""}},
		{"global", global, "", "", "", map[string]string{"plain": "z a m", "first": "z a m", "second": "z a m"}},
		{"own", "", "", own, "", map[string]string{"plain": "", "first": "y b", "second": ""}},
		{"global and own", global, "", own, "", map[string]string{"plain": "z a m", "first": "z a m y b", "second": "z a m"}},
		{"excepted", global, "", "except_freezes: [m, z]", own, map[string]string{"plain": "z a m", "first": "a", "second": "z a m y b"}},
		{"own in place of an excepted one", global, "", "except_freezes: [z]\n    freezes: {z: {from: 2027-01-01, to: 2027-01-02}}", "",
			map[string]string{"plain": "z a m", "first": "a m z", "second": "z a m"}},
		{"inherited", global, own, "", "", map[string]string{"plain": "z a m y b", "first": "z a m y b", "second": "z a m y b"}},
		{"inherited and replaced", global, own, "freezes: {c: {from: 2027-01-01, to: 2027-01-02}}", "except_freezes: [a]",
			map[string]string{"plain": "z a m y b", "first": "z a m c", "second": "z m y b"}},
		{"inherited exception and replaced", global, "except_freezes: [z, a]", "except_freezes: [m]", "",
			map[string]string{"plain": "m", "first": "z a", "second": "m"}},
	} {
		token := func(name, id, line string) string {
			return "  " + name + ":\n    id: 3f2b8a52-1d0e-4c3c-9a54-7d0c0f6f2b1" + id + "\n    " + line +
				"\n    sinks: [{vault: {mount: secret, path: " + name + "}}]\n"
		}
		head, _, _ := strings.Cut(minimal, "tokens:")
		cfg := parse(t, test.top+head+"defaults:\n  account: prod\n  schedule: \"@weekly\"\n  "+test.defaults+"\ntokens:\n"+
			token("plain", "0", "")+token("first", "1", test.first)+token("second", "2", test.second))
		if diff := cmp.Diff(test.want, names(cfg)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// TestUnusedFreeze checks that there is a warning about a global freeze to which every token is an exception.
func TestUnusedFreeze(t *testing.T) {
	text := "freezes: {x: {from: 2026-12-20, to: 2027-01-04}}\n" + replaced(t, `"@weekly"`, "\"@weekly\"\n    except_freezes: [x]")
	want := []string{"1:14: freezes.x: applies to no token, since all of them name it in except_freezes: remove it, or let it apply to one"}
	if diff := cmp.Diff(want, lines(parse(t, text).Warnings)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLongerFreeze checks that the longer freeze counts when clocks change.
func TestLongerFreeze(t *testing.T) {
	for _, test := range []struct {
		from, to string
		lasts    time.Duration
	}{
		{"2026-10-25", "2026-10-26", 25 * time.Hour},
		{"2026-03-29", "2026-03-30", 23 * time.Hour},
		{"2026-10-25 02:00", "2026-10-25 02:30", 90 * time.Minute},
		{"2026-03-29 01:59", "2026-03-29 02:45", time.Minute},
		{"2026-03-29 02:15", "2026-03-29 03:00:01", time.Second},
		{"2026-10-25 02:00+02:00", "2026-10-25 02:30+02:00", 30 * time.Minute},
	} {
		cfg := parse(t, "freezes: {x: {from: "+test.from+", to: "+test.to+", time_zone: Europe/Berlin}}\n"+minimal)
		f := cfg.Tokens[0].Freezes[0]
		if got := f.To.Sub(f.From); got != test.lasts || f.From.Location().String() != "Europe/Berlin" {
			t.Errorf("from %s to %s lasts %s, want %s", test.from, test.to, got, test.lasts)
		}
	}
}

// TestManyTokensShareFreezes checks that memory does not grow with tokens times freezes.
func TestManyTokensShareFreezes(t *testing.T) {
	cfg := parse(t, "freezes: {x: {from: 2026-12-20, to: 2027-01-04}}\n"+minimal+`  other:
    account: prod
    id: 3f2b8a52-1d0e-4c3c-9a54-7d0c0f6f2b11
    schedule: "@daily"
    grace: 1h
    sinks: [{vault: {mount: secret, path: access/other}}]
`)
	if a, b := cfg.Tokens[0].Freezes, cfg.Tokens[1].Freezes; len(a) != 1 || len(b) != 1 || &a[0] != &b[0] {
		t.Errorf("%v and %v are not the same", a, b)
	}
}
