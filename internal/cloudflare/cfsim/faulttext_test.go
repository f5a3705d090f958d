package cfsim_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
)

func TestParseFault(t *testing.T) {
	id := cfsim.SeedTokenID(1)
	for text, want := range map[string]cfsim.Fault{
		"rotate:drop:after": {Operation: "rotate", Kind: cfsim.KindDrop, When: cfsim.After, Count: 1},
		"rotate:status=500:before:count=3": {
			Operation: "rotate", Kind: cfsim.KindStatus, Status: 500, When: cfsim.Before, Count: 3,
		},
		"list:status=429:retry-after=300": {
			Operation: "list", Kind: cfsim.KindStatus, Status: 429, RetryAfter: 300, When: cfsim.Before, Count: 1,
		},
		"get:delay=3s":   {Operation: "get", Kind: cfsim.KindDelay, Delay: cfsim.Duration(3 * time.Second), When: cfsim.Before, Count: 1},
		"rotate:cut":     {Operation: "rotate", Kind: cfsim.KindCut, When: cfsim.Before, Count: 1},
		"*:garbage":      {Kind: cfsim.KindGarbage, Status: 200, When: cfsim.Before, Count: 1},
		"app:status=502": {Operation: "app", Kind: cfsim.KindStatus, Status: 502, When: cfsim.Before, Count: 1},
		"rotate:missing-secret:count=always:token=" + id: {
			Operation: "rotate", Kind: cfsim.KindMissingSecret, When: cfsim.After, Count: -1, TokenID: id,
		},
		"rotate:after:status=503:delay=1m30s": {
			Operation: "rotate", Kind: cfsim.KindStatus, Status: 503, When: cfsim.After, Count: 1, Delay: cfsim.Duration(90 * time.Second),
		},
		"verify:refuse:code=9109:message=no: not now": {
			Operation: "verify", Kind: cfsim.KindRefuse, Code: 9109, Message: "no: not now", When: cfsim.Before, Count: 1,
		},
	} {
		got, err := cfsim.ParseFault(text)
		if err != nil || got != want {
			t.Errorf("%s: %#v, %v", text, got, err)
		}
		if again, err := cfsim.ParseFault(got.String()); err != nil || again != got {
			t.Errorf("%s: through %s: %#v, %v", text, got, again, err)
		}
	}
}

func TestParseFaultSaysWhatWouldBeRight(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "want OPERATION:WHAT, such as rotate:drop:after",
		"rotate":                            "want OPERATION:WHAT",
		":drop":                             "want OPERATION:WHAT",
		"rotate:":                           `"" is not known: use drop, cut, garbage, refuse, malformed_secret`,
		"rotate:explode":                    `"explode" is not known`,
		"revoke:drop":                       "none of create, list, get, update, delete, rotate, refresh, verify, app",
		"rotate:drop:garbage":               "garbage is the second of its kind",
		"rotate:drop:before:after":          "after is the second of its kind",
		"rotate:status=500:status=501":      "status=501 is the second of its kind",
		"rotate:after":                      "status 0 is not between 400 and 599",
		"rotate:status=200":                 "status 200 is not between 400 and 599",
		"rotate:status=":                    "want a status such as 503",
		"rotate:drop:status=500":            "a status goes with the kinds status and garbage, not with drop",
		"rotate:drop:count=0":               "count=0: want a number of at least 1, or always",
		"rotate:drop:count=-1":              "count=-1: want",
		"rotate:drop:times=3":               "there is no key times: use count, token, delay, shape, status, retry-after, code or message",
		"rotate:delay=soon":                 "want a duration such as 3s",
		"rotate:delay=-1s":                  "want a duration such as 3s",
		"rotate:drop:token=":                "want the UUID",
		"rotate:drop:token=ci":              `token "ci" is not the ID of one`,
		"rotate:cut:retry-after=3":          "a time to retry after goes with the kind status, not with cut",
		"rotate:status=429:retry-after=1m":  "want a number of seconds",
		"rotate:drop:message=hello":         "goes with the kinds status and refuse",
		"rotate:refuse:message=":            "want a text",
		"rotate:refuse:code=7":              "code 7 is none of Cloudflare's",
		"rotate:missing_secret:before":      "can only strike after",
		"app:missing_secret":                "does not go with the application",
		"rotate:garbage:status=204":         "cannot have a body",
		"rotate:drop:BEFORE":                `"BEFORE" is not known`,
		"rotate:status=500:message=a:after": "", // the rest is the message
	} {
		f, err := cfsim.ParseFault(text)
		if want == "" {
			if err != nil || f.Message != "a:after" {
				t.Errorf("%q: %v, %v", text, f, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want one with %q", text, err, want)
		}
	}
}

// FuzzParseFault: a parsed fault is written so that it parses to the same fault, and Inject accepts it.
func FuzzParseFault(f *testing.F) {
	seeds, err := filepath.Glob("testdata/faults/*.txt")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range seeds {
		content, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			f.Add(strings.TrimSuffix(line, "\n"))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, err := cfsim.ParseFault(text)
		if err != nil {
			return
		}
		again, err := cfsim.ParseFault(first.String())
		if err != nil || again != first {
			t.Fatalf("%q is %#v, written as %q, read as %#v, %v", text, first, first, again, err)
		}
		if err := cfsim.New(cfsim.Options{}).Inject(first); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
