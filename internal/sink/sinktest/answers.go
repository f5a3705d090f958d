package sinktest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// This part of the suite is about each answer that a KV engine, or another server at its address, can
// give.

// The kinds of requests for a secret.
const (
	Read  = "read"
	Write = "write"
	Probe = "probe" // a write that cannot match
)

// Replaced is an answer in place of the real one.
type Replaced struct {
	To          string // Read, Write or Probe
	Skip, Count int    // how many are real before it, and how many are replaced; 0 means one
	CarryOut    bool   // the request is still carried out
	Status      int
	ContentType string // empty: none
	Body        string
}

const (
	jsonType = "application/json"
	htmlType = "text/html"
	login    = "<html><title>Sign in</title></html>"
)

// answer is an answer that does not show a secret.
type answer struct {
	name        string
	kv          int // 0: of either version
	status      int
	contentType string
	body        string
	want        string // is in the error
}

// wrongReads are answers to a read that neither show a secret nor say that there is none.
var wrongReads = []answer{
	{"no content", 0, 204, "", "", "204"},
	{"an empty 200", 0, 200, "", "", "empty body"},
	{"an empty 200 of JSON", 0, 200, jsonType, "", "empty body"},
	{"a login page", 0, 200, htmlType, login, "text/html"},
	{"a login page as JSON", 0, 200, jsonType, login, "not a JSON object"},
	{"null", 0, 200, jsonType, "null", "not a JSON object"},
	{"a list", 0, 200, jsonType, "[]", "not a JSON object"},
	{"a text", 0, 200, jsonType, `"ok"`, "not a JSON object"},
	{"two answers", 0, 200, jsonType, `{"data":{}}{"data":{}}`, "not a JSON object"},
	{"half an answer", 0, 200, jsonType, `{"data":{"data":{"a":"b"},`, "not a JSON object"},
	{"an empty object", 0, 200, jsonType, "{}", "no KV data"},
	{"another API", 0, 200, jsonType, `{"status":"ok"}`, "no KV data"},
	{"data null", 0, 200, jsonType, `{"data":null}`, "no KV data"},
	{"data a list", 0, 200, jsonType, `{"data":[]}`, "another type"},
	{"data a text", 0, 200, jsonType, `{"data":"x"}`, "another type"},
	{"data a number", 0, 200, jsonType, `{"data":7}`, "another type"},
	{"errors in a 200", 0, 200, jsonType, `{"errors":["no"],"data":{}}`, "errors in it"},
	{"errors of another form", 0, 200, jsonType, `{"errors":{"a":1}}`, "another form"},
	{"a wrapped answer", 0, 200, jsonType, `{"data":null,"wrap_info":{"token":"hvs.x"}}`, "wrapped"},
	{"created", 0, 201, jsonType, `{"data":{}}`, "201"},
	{"accepted", 0, 202, "", "", "202"},
	{"partial content", 0, 206, jsonType, `{"data":{}}`, "206"},
	{"multiple choices", 0, 300, "", "", "300"},
	{"see other", 0, 303, htmlType, login, "303"},
	{"not modified", 0, 304, "", "", "304"},
	{"a proxy's 404", 0, 404, htmlType, "<h1>404 Not Found</h1>", "text/html"},
	{"an empty 404", 0, 404, "", "", "empty body"},
	{"an empty 404 of JSON", 0, 404, jsonType, "", "empty body"},
	{"a 404 of another API", 0, 404, jsonType, `{"message":"not found"}`, "not Vault's own"},
	{"a 404 that is an empty object", 0, 404, jsonType, "{}", "not Vault's own"},
	{"a 404 that is null", 0, 404, jsonType, "null", "not a JSON object"},
	{"a 404 with null errors", 0, 404, jsonType, `{"errors":null}`, "not Vault's own"},
	{"a 404 with errors and more", 0, 404, jsonType, `{"errors":[],"code":1000}`, "not Vault's own"},
	{"a 404 with an error", 0, 404, jsonType, `{"errors":["unsupported path"]}`, "unsupported path"},
	{"no such mount", 0, 404, jsonType, `{"errors":["no handler for route \"x\". route entry not found."]}`, "no mount there"},
	{"a path of another version", 0, 404, jsonType, `{"data":null,"warnings":["Invalid path for a versioned K/V secrets engine."]}`, "Invalid path"},
	{"gone", 0, 410, jsonType, `{"errors":[]}`, "410"},
	{"behind", 0, 412, jsonType, `{"errors":["required index state not present"]}`, "412"},
	{"throttled", 0, 429, jsonType, `{"errors":["quota"]}`, "429"},
	{"failed", 0, 500, jsonType, `{"errors":["x"]}`, "500"},
	{"a bad gateway", 0, 502, htmlType, login, "502"},
	{"sealed", 0, 503, jsonType, `{"errors":["Vault is sealed"]}`, "sealed"},
	{"the fields null", 2, 200, jsonType, `{"data":{"data":null,"metadata":{"version":3}}}`, "without its data"},
	{"the fields a list", 2, 200, jsonType, `{"data":{"data":[],"metadata":{"version":3}}}`, "not a JSON object"},
	{"the fields a text", 2, 200, jsonType, `{"data":{"data":"x","metadata":{"version":3}}}`, "not a JSON object"},
	{"no metadata", 2, 200, jsonType, `{"data":{"data":{"a":"b"}}}`, "no metadata"},
	{"a secret of version 1", 2, 200, jsonType, `{"data":{"client_id":"x","client_secret":"y"}}`, "no metadata"},
	{"metadata null", 2, 200, jsonType, `{"data":{"data":{"a":"b"},"metadata":null}}`, "no metadata"},
	{"metadata a list", 2, 200, jsonType, `{"data":{"data":{"a":"b"},"metadata":[]}}`, "another form"},
	{"no version", 2, 200, jsonType, `{"data":{"data":{"a":"b"},"metadata":{}}}`, "not a positive number"},
	{"version 0", 2, 200, jsonType, `{"data":{"data":{"a":"b"},"metadata":{"version":0}}}`, "not a positive number"},
	{"a negative version", 2, 200, jsonType, `{"data":{"data":{"a":"b"},"metadata":{"version":-1}}}`, "not a positive number"},
	{"half a version", 2, 200, jsonType, `{"data":{"data":{"a":"b"},"metadata":{"version":1.5}}}`, "not a positive number"},
	{"a version that is a text", 2, 200, jsonType, `{"data":{"data":{"a":"b"},"metadata":{"version":"3"}}}`, "not a positive number"},
	{"a version without end", 2, 200, jsonType, `{"data":{"data":{"a":"b"},"metadata":{"version":99999999999999999999}}}`, "not a positive number"},
	{"a deletion time that is none", 2, 200, jsonType, `{"data":{"data":{"a":"b"},"metadata":{"version":3,"deletion_time":"soon"}}}`, "not a time"},
	{"a deletion time that is a number", 2, 200, jsonType, `{"data":{"data":{"a":"b"},"metadata":{"version":3,"deletion_time":7}}}`, "another form"},
	{"a deleted version without a number", 2, 404, jsonType, `{"data":{"data":null,"metadata":{"deletion_time":""}}}`, "not a positive number"},
	{"a 404 with a secret", 2, 404, jsonType, `{"data":{"data":{"a":"b"},"metadata":{"version":3}}}`, "fields of a secret"},
}

// wrongWrites are answers to a write that do not say that anything was written.
var wrongWrites = []answer{
	{"an empty 200", 2, 200, "", "", "empty body"},
	{"no content", 2, 204, "", "", "204"},
	{"a login page", 0, 200, htmlType, login, "text/html"},
	{"no version", 2, 200, jsonType, `{"data":{}}`, "not a positive number"},
	{"data null", 2, 200, jsonType, `{"data":null}`, "named no version"},
	{"version 0", 2, 200, jsonType, `{"data":{"version":0}}`, "not a positive number"},
	{"a version that is a text", 2, 200, jsonType, `{"data":{"version":"1"}}`, "not a positive number"},
	{"see other", 0, 303, htmlType, login, "303"},
	{"not modified", 0, 304, "", "", "304"},
	{"a proxy's 404", 0, 404, htmlType, login, "text/html"},
	{"throttled", 0, 429, jsonType, `{"errors":["request path \"x\": rate limit quota exceeded"]}`, "429"},
	{"failed", 0, 500, jsonType, `{"errors":["x"]}`, "500"},
	{"no leader", 0, 503, jsonType, `{"errors":["local node not active but active cluster node not found"]}`, "503"},
	{"a timeout of a proxy", 0, 504, htmlType, login, "504"},
}

// wrongProbes are answers to a write that cannot match, and which do not show that Vault would
// allow one.
var wrongProbes = []answer{
	{"a write that was accepted", 2, 200, jsonType, `{"data":{"version":1}}`, "cannot match"},
	{"an empty 200", 2, 200, "", "", "cannot match"},
	{"no content", 2, 204, "", "", "204"},
	{"see other", 2, 303, htmlType, login, "303"},
	{"another 400", 2, 400, jsonType, `{"errors":["Upgrading from non-versioned to versioned data."]}`, "Upgrading"},
	{"a 400 that wants a check-and-set", 2, 400, jsonType, `{"errors":["check-and-set parameter required for this call"]}`, "required"},
	{"a proxy's 400", 2, 400, htmlType, "<h1>400 Bad Request</h1>", "400"},
	{"forbidden", 2, 403, jsonType, `{"errors":["permission denied"]}`, "capabilities"},
	{"a proxy's 404", 2, 404, htmlType, login, "text/html"},
	{"no such mount", 2, 404, jsonType, `{"errors":["no handler for route \"x\""]}`, "no mount there"},
	{"method not allowed", 2, 405, jsonType, `{"errors":[]}`, "405"},
	{"too large", 2, 413, htmlType, login, "413"},
	{"throttled", 2, 429, jsonType, `{"errors":["quota"]}`, "429"},
	{"failed", 2, 500, jsonType, `{"errors":["x"]}`, "500"},
	{"sealed", 2, 503, jsonType, `{"errors":["Vault is sealed"]}`, "sealed"},
}

func (a answer) to(kind string) Replaced {
	return Replaced{To: kind, Status: a.status, ContentType: a.contentType, Body: a.body}
}

// fails says that an error must come, say what came, and show no secret.
func (a answer) fails(t *testing.T, what string, err error) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("%s: %s was believed", a.name, what)
	case !strings.Contains(err.Error(), a.want):
		t.Errorf("%s: %s: %v, want %q in it", a.name, what, err, a.want)
	case strings.Contains(err.Error(), "another writer"):
		t.Errorf("%s: %s is blamed on another writer: %v", a.name, what, err)
	default:
		clean(t, err)
	}
}

func each(t *testing.T, h Harness, table []answer, do func(t *testing.T, a answer)) {
	t.Helper()
	for _, a := range table {
		if a.kv == 0 || a.kv == h.KV {
			do(t, a)
		}
	}
}

func replaces(h Harness) bool { return h.AnswerNext != nil }

var answers = []testCase{
	{"preflight changes nothing", nil, func(t *testing.T, h Harness) {
		for range 3 {
			if s := preflight(t, h); s.Exists || s.Version != 0 {
				t.Errorf("an empty place is seen as %+v", s)
			}
		}
		if h.Fields(t) != nil || h.Versions(t) != 0 {
			t.Errorf("a preflight wrote: %d versions", h.Versions(t))
		}
		stored := store(t, h, credential(1), preflight(t, h))
		for range 3 {
			preflight(t, h)
		}
		if h.Versions(t) != 1 || preflight(t, h) != stored {
			t.Errorf("a preflight wrote: %d versions", h.Versions(t))
		}
		want(t, h, stored, credential(1))
	}},
	{"a wrong answer is not an empty place", replaces, func(t *testing.T, h Harness) {
		each(t, h, wrongReads, func(t *testing.T, a answer) {
			h.AnswerNext(t, a.to(Read))
			_, err := h.Sink.Preflight(t.Context())
			a.fails(t, "a preflight", err)
			h.AnswerNext(t, a.to(Read))
			_, err = h.Sink.Store(t.Context(), rotation.Delivery{Credential: credential(1)})
			a.fails(t, "a read before a write", err)
		})
		if n := h.Versions(t); n != 0 {
			t.Errorf("%d writes", n)
		}
		want(t, h, store(t, h, credential(1), preflight(t, h)), credential(1))
	}},
	{"a wrong answer when reading back", replaces, func(t *testing.T, h Harness) {
		n := 1
		each(t, h, wrongReads, func(t *testing.T, a answer) {
			if a.status == 412 { // the sink waits until this is over
				return
			}
			n++
			r := a.to(Read)
			r.Skip = 1
			h.AnswerNext(t, r)
			_, err := h.Sink.Store(t.Context(), rotation.Delivery{Credential: credential(n)})
			a.fails(t, "a read-back", err)
			versions := h.Versions(t)
			want(t, h, store(t, h, credential(n), rotation.Stored{}), credential(n))
			if h.Versions(t) != versions {
				t.Errorf("%s: what was written is written again", a.name)
			}
		})
	}},
	{"a wrong answer to a write that was carried out", replaces, func(t *testing.T, h Harness) {
		n := 0
		each(t, h, wrongWrites, func(t *testing.T, a answer) {
			n++
			r := a.to(Write)
			r.CarryOut = true
			h.AnswerNext(t, r)
			want(t, h, store(t, h, credential(n), rotation.Stored{}), credential(n))
			if h.Versions(t) != n {
				t.Errorf("%s: %d writes, want %d", a.name, h.Versions(t), n)
			}
		})
	}},
	{"a wrong answer to a write that was not carried out", replaces, func(t *testing.T, h Harness) {
		before := store(t, h, credential(1), preflight(t, h))
		each(t, h, wrongWrites, func(t *testing.T, a answer) {
			h.AnswerNext(t, a.to(Write))
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := h.Sink.Store(ctx, rotation.Delivery{Credential: credential(2)})
			a.fails(t, "a write", err)
		})
		if n := h.Versions(t); n != 1 {
			t.Errorf("%d writes", n)
		}
		if now := preflight(t, h); now != before {
			t.Errorf("%+v became %+v", before, now)
		}
	}},
	{"a write that is not proven", func(h Harness) bool { return replaces(h) && h.KV == 2 }, func(t *testing.T, h Harness) {
		each(t, h, wrongProbes, func(t *testing.T, a answer) {
			h.AnswerNext(t, a.to(Probe))
			_, err := h.Sink.Preflight(t.Context())
			a.fails(t, "the proof of a write", err)
		})
		if n := h.Versions(t); n != 0 {
			t.Errorf("%d writes", n)
		}
	}},
	{"a field that is not a text", func(h Harness) bool { return h.Typed }, func(t *testing.T, h Harness) {
		for _, value := range []any{7, true, []any{"x"}, map[string]any{"a": "b"}} {
			h.OutsideWrite(t, map[string]any{ClientSecretField: value})
			if _, err := h.Sink.Preflight(t.Context()); err == nil || !strings.Contains(err.Error(), ClientSecretField) {
				t.Errorf("%v would be overwritten: %v", value, err)
			}
		}
		// But a secret that is issued already is delivered: consumers wait for it.
		want(t, h, store(t, h, credential(1), rotation.Stored{}), credential(1))
	}},
	{"a stale read-back", func(h Harness) bool { return h.Stale != nil }, func(t *testing.T, h Harness) {
		before := store(t, h, credential(1), preflight(t, h))
		h.Stale(t, 1, 2)
		after := store(t, h, credential(2), before)
		want(t, h, after, credential(2))
		if n := h.Versions(t); n != 2 || after.Version != before.Version+1 {
			t.Errorf("version %d became %d, with %d writes", before.Version, after.Version, n)
		}
	}},
	{"a read-back that stays stale", func(h Harness) bool { return h.Stale != nil }, func(t *testing.T, h Harness) {
		before := store(t, h, credential(1), preflight(t, h))
		h.Stale(t, 1, 1000)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := h.Sink.Store(ctx, rotation.Delivery{Credential: credential(2), Base: before})
		shows := fmt.Sprintf("shows version %d, but version %d was written", before.Version, before.Version+1)
		if err == nil || !strings.Contains(err.Error(), shows) || !strings.Contains(err.Error(), "stale read") || strings.Contains(err.Error(), "another writer") {
			t.Errorf("%v, want %q", err, shows)
		}
		h.Stale(t, 0, 0)
		want(t, h, store(t, h, credential(2), before), credential(2))
		if n := h.Versions(t); n != 2 {
			t.Errorf("%d writes, want 2", n)
		}
	}},
	{"a stale read before a write", func(h Harness) bool { return h.Stale != nil }, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		before := store(t, h, credential(2), preflight(t, h))
		h.Stale(t, 0, 3) // the read, and two of those after the conflict
		after := store(t, h, credential(3), before)
		want(t, h, after, credential(3))
		if after.Version != before.Version+1 {
			t.Errorf("version %d became %d", before.Version, after.Version)
		}
	}},
	{"reads that stay stale before a write", func(h Harness) bool { return h.Stale != nil }, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		before := store(t, h, credential(2), preflight(t, h))
		h.Stale(t, 0, 1000)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := h.Sink.Store(ctx, rotation.Delivery{Credential: credential(3), Base: before})
		if err == nil || !strings.Contains(err.Error(), "stale read") || strings.Contains(err.Error(), "another writer") {
			t.Errorf("%v, want a stale read", err)
		}
		h.Stale(t, 0, 0)
	}},
	{"a node that is behind", func(h Harness) bool { return replaces(h) && h.KV == 2 }, func(t *testing.T, h Harness) {
		h.AnswerNext(t, Replaced{To: Read, Skip: 1, Count: 2, Status: 412, ContentType: jsonType, Body: `{"errors":["required index state not present"]}`})
		want(t, h, store(t, h, credential(1), rotation.Stored{}), credential(1))
		if n := h.Versions(t); n != 1 {
			t.Errorf("%d writes", n)
		}
	}},
	{"a version that deletes itself", func(h Harness) bool { return h.DeleteAfter != nil }, func(t *testing.T, h Harness) {
		before := store(t, h, credential(1), preflight(t, h))
		if !before.DeletesAt.IsZero() {
			t.Errorf("a version that stays is to be deleted at %s", before.DeletesAt)
		}
		h.DeleteAfter(t, time.Hour)
		stored := store(t, h, credential(2), before)
		if life := stored.DeletesAt.Sub(stored.WrittenAt); life != time.Hour {
			t.Errorf("it lives for %s, want an hour: %+v", life, stored)
		}
		now := preflight(t, h)
		if !now.Exists || now.DeleteAfter != time.Hour || !now.DeletesAt.Equal(stored.DeletesAt) {
			t.Errorf("Preflight sees %+v, want the next version to live for an hour", now)
		}
	}},
	{"a version that has deleted itself", func(h Harness) bool { return h.DeleteAfter != nil }, func(t *testing.T, h Harness) {
		h.DeleteAfter(t, h.ShortLife)
		_, _ = h.Sink.Store(t.Context(), rotation.Delivery{Credential: credential(1)}) // it may be gone when it is read back
		h.DeleteAfter(t, 0)
		var now rotation.Stored
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if now = preflight(t, h); !now.Exists {
				break
			}
		}
		if now.Exists || now.Version == 0 || now.DeletesAt.IsZero() {
			t.Fatalf("a version that is gone is seen as %+v", now)
		}
		after := store(t, h, credential(2), now)
		want(t, h, after, credential(2))
		if after.Version != now.Version+1 {
			t.Errorf("version %d came after %d", after.Version, now.Version)
		}
	}},
}
