package prometheus

import (
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	t.Parallel()
	n := strings.Count(rules, "runbook_url: ")
	if n < 30 || n != strings.Count(rules, "runbook_url: "+RunbookURL+"#") {
		t.Fatalf("%d alerts have a runbook_url, and not all of them the placeholder", n)
	}
	const mine = "https://wiki.example.org/x/rotatord?page=1&v=2"
	got, err := Rules(mine)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got, RunbookURL) || strings.Count(got, "runbook_url: "+mine+"#") != n {
		t.Error("the placeholder was not replaced everywhere")
	}
	if back := strings.ReplaceAll(got, mine, RunbookURL); back != rules {
		t.Error("more than the address has changed")
	}
	if same, err := Rules(RunbookURL); err != nil || same != rules {
		t.Errorf("the placeholder itself: %v", err)
	}
}

func TestRulesRefuse(t *testing.T) {
	t.Parallel()
	for runbook, want := range map[string]string{
		"":                                   "begin with https://",
		"docs/runbook.md":                    "begin with https://",
		"ftp://example.org/x":                "begin with https://",
		"https://":                           "begin with https://",
		"https://:8080/x":                    "begin with https://",
		"javascript:alert(1)":                "begin with https://",
		"https://example.org/x#y":            "no # part",
		"https://example.org/\"x":            `'"'`,
		"https://example.org/'x":             `'\''`,
		"https://example.org/x\ny":           `'\n'`,
		"https://example.org/x\r":            `'\r'`,
		"https://example.org/x\x00":          `'\x00'`,
		"https://example.org/x y":            "' '",
		"https://example.org/x\t":            `'\t'`,
		"https://example.org/{{ $value }}":   "'{'",
		"https://example.org/\\":             `'\\'`,
		"https://example.org/`x`":            "'`'",
		"https://example.org/[x]":            "'['",
		"https://example.org/ü":              "'ü'",
		"https://example.org/\u202egnp":      `'\u202e'`,
		"https://example.org/\xff":           "'\ufffd'",
		"https://example.org/%zz":            "not a URL",
		"https://ops:secret@example.org/":    "no user name",
		"https://example.org:port/x":         "not a URL",
		"https://example.org/x\u0085y: true": `'\u0085'`,
	} {
		got, err := Rules(runbook)
		if err == nil || got != "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", runbook, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows the password: %v", runbook, err)
		}
	}
}
