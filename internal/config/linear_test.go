package config

import (
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"rotatord/internal/racedetector"
)

// fleets are files of n tokens, each with something that could cost more for each token the more tokens there are.
var fleets = map[string]func(n int) string{
	"tokens": func(n int) string { return head + tokensOf(n, "") },
	"an account for each token": func(n int) string {
		return accountsOf(n) + tokensOf(n, "    account: a%d\n")
	},
	"unknown accounts": func(n int) string {
		return accountsOf(n) + tokensOf(n, "    account: unknown-account-%d\n")
	},
	"the same unknown account": func(n int) string {
		return accountsOf(n) + tokensOf(n, "    account: unknown\n")
	},
	"no account": func(n int) string {
		return strings.Replace(accountsOf(n), "account: prod, ", "", 1) + tokensOf(n, "")
	},
	"unknown keys": func(n int) string { return head + tokensOf(n, "    unknown%d: x\n") },
	"an unknown freeze": func(n int) string {
		return head + freezesOf(n/10) + tokensOf(n, "    except_freezes: [unknown-freeze-%d]\n")
	},
	"a freeze of each token": func(n int) string {
		return head + freezesOf(1) + tokensOf(n, "    freezes: {own%d: {from: 2026-01-01, to: 2026-01-02}}\n")
	},
	"one place": func(n int) string {
		return head + tokensOf(n, "    sinks: [{vault: {mount: secret, path: one}}]\n")
	},
	"one service token": func(n int) string {
		return head + serviceTokens.ReplaceAllString(tokensOf(n, ""), "id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415")
	},
	"files that are gone after a restart": func(n int) string {
		return head + tokensOf(n, "    sinks: [{file: {path: /run/d%d/a.env}}]\n")
	},
	"files in one directory": func(n int) string {
		return head + tokensOf(n, "    sinks: [{file: {path: /run/a%d.env}}]\n")
	},
	"programs": func(n int) string {
		return head + tokensOf(n, "    after: [{exec: {command: [/bin/p%d]}}]\n")
	},
	"schedules": func(n int) string {
		return head + tokensOf(n, "    schedule: \"@every %d00h\"\n")
	},
	"a receiver for each token": func(n int) string {
		var b strings.Builder
		b.WriteString("notify:\n")
		for i := range n / 10 {
			fmt.Fprintf(&b, "  - {name: r%d, webhook: {url: {file: /run/u}}, tokens: [t%d, \"t%d-*\", \"unknown*\"]}\n", i, i, i)
		}
		return head + b.String() + tokensOf(n, "")
	},
}

// tokensOf are n entries with a text in each, in which %d is its number.
func tokensOf(n int, text string) string {
	var b strings.Builder
	b.WriteString("tokens:\n")
	for i := range n {
		own := entry(i)
		if strings.Contains(text, "sinks:") {
			own = own[:strings.Index(own, "    sinks:")]
		}
		b.WriteString(own)
		b.WriteString(strings.ReplaceAll(text, "%d", strconv.Itoa(i+1)))
	}
	return b.String()
}

// accountsOf is head with n more accounts.
func accountsOf(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  a%d: {account_id: %032x, api_token: {file: /run/cloudflare-token}}\n", i+1, i)
	}
	return strings.Replace(head, "vault:", b.String()+"vault:", 1)
}

var serviceTokens = regexp.MustCompile(`id: f174\S+`)

func freezesOf(n int) string {
	var b strings.Builder
	b.WriteString("freezes:\n  x: {from: 2026-01-01, to: 2026-01-02}\n")
	for i := range n {
		fmt.Fprintf(&b, "  f%d: {from: 2026-01-01, to: 2026-01-02}\n", i)
	}
	return b.String()
}

// TestLinear: reading four times as many tokens takes about four times as many allocations, bytes and comparisons.
func TestLinear(t *testing.T) {
	if racedetector.On {
		t.Skip("it takes too long with the race detector, and runs without")
	}
	const n, most = 500, 5
	for name, fleet := range fleets {
		t.Run(name, func(t *testing.T) {
			few, many := costOf(t, fleet(n)), costOf(t, fleet(4*n))
			if many.objects > most*few.objects || many.bytes > most*few.bytes || many.compared > most*few.compared+maxCompared {
				t.Errorf("%d tokens cost %+v, and %d cost %+v", n, few, 4*n, many)
			}
		})
	}
}

type cost struct{ objects, bytes, compared int }

func costOf(t *testing.T, text string) cost {
	t.Helper()
	f, ok := apart([]byte(text), partSize)
	if !ok {
		t.Fatal("the file is not read in parts")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := newChecker("test.yaml", f)
	cfg, err := c.config()
	switch {
	case err == nil:
		cfg.Lint(time.Date(2026, time.March, 1, 0, 0, 0, 0, time.UTC))
		cfg.ProgramWarnings(func(string) error { return nil })
		cfg.Secrets()
	default:
		if _, ok := AsFaults(err); !ok {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	return cost{int(after.Mallocs - before.Mallocs), int(after.TotalAlloc - before.TotalAlloc), c.compared}
}
