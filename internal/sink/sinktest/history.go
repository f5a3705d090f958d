package sinktest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// This part of the suite is about sinks with versions: which one is the current one, what became of it, and
// what the earlier ones hold.

func hasHistory(h Harness) bool {
	_, has := h.Sink.(rotation.SinkHistory)
	return has && h.KV != 1
}

// look returns what a watch of the sink sees.
func look(t *testing.T, h Harness) rotation.Stored {
	t.Helper()
	s, err := h.Sink.(rotation.Looker).Look(t.Context())
	if err != nil {
		t.Fatalf("Look: %v", err)
	}
	return s
}

// wantVersion reads a version; n is 0 if the sink does not have it, with a reason that has why in it.
func wantVersion(t *testing.T, h Harness, version, n int, why string) {
	t.Helper()
	c, err := h.Sink.(rotation.SinkHistory).ReadVersion(t.Context(), version)
	switch {
	case n == 0 && (!errors.Is(err, rotation.ErrNoVersion) || !strings.Contains(err.Error(), why)):
		t.Errorf("version %d: %v, want an error with %q", version, err, why)
	case n != 0 && (err != nil || !c.ClientSecret.Equal(credential(n).ClientSecret) || c.ClientID != credential(n).ClientID):
		t.Errorf("version %d is not the secret %d: %v", version, n, err)
	}
}

var history = []testCase{
	{"a look sees what is stored", func(h Harness) bool { _, can := h.Sink.(rotation.Looker); return can }, func(t *testing.T, h Harness) {
		if s := look(t, h); s.Exists || s.Version != 0 || s.Deleted {
			t.Errorf("an empty place is seen as %+v", s)
		}
		stored := store(t, h, credential(1), preflight(t, h))
		versions := h.Versions(t)
		if s := look(t, h); s != stored {
			t.Errorf("Store returned %+v, Look %+v", stored, s)
		}
		if h.Versions(t) != versions {
			t.Error("a look has written")
		}
	}},
	{"earlier versions", hasHistory, func(t *testing.T, h Harness) {
		wantVersion(t, h, 1, 0, "never written")
		for n := 1; n <= 3; n++ {
			store(t, h, credential(n), preflight(t, h))
		}
		for n := 1; n <= 3; n++ {
			wantVersion(t, h, n, n, "")
		}
		wantVersion(t, h, 4, 0, "never written")
		wantVersion(t, h, 0, 0, "")
		wantVersion(t, h, -1, 0, "")
		h.Delete(t)
		wantVersion(t, h, 3, 0, "deleted")
		wantVersion(t, h, 2, 2, "")
	}},
	{"a destroyed version", func(h Harness) bool { return hasHistory(h) && h.Destroy != nil }, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		stored := store(t, h, credential(2), preflight(t, h))
		h.Destroy(t)
		s := look(t, h)
		if s.Exists || !s.Destroyed || s.Deleted || s.Version != stored.Version || s.Digest != "" {
			t.Errorf("a destroyed version is seen as %+v", s)
		}
		wantVersion(t, h, stored.Version, 0, "destroyed")
		wantVersion(t, h, stored.Version-1, 1, "")
		after := store(t, h, credential(3), preflight(t, h))
		if want(t, h, after, credential(3)); after.Version != stored.Version+1 {
			t.Errorf("version %d came after the destroyed version %d", after.Version, stored.Version)
		}
	}},
	{"a deleted version that a delivery meets", func(h Harness) bool { return hasHistory(h) && h.Delete != nil }, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		before := preflight(t, h)
		h.Delete(t) // after the preflight
		if s := look(t, h); s.Exists || !s.Deleted || s.Destroyed || s.Version != before.Version {
			t.Errorf("a deleted version is seen as %+v", s)
		}
		after := store(t, h, credential(2), before)
		if want(t, h, after, credential(2)); after.Version != before.Version+1 {
			t.Errorf("version %d became %d", before.Version, after.Version)
		}
	}},
	{"a rolled back version", hasHistory, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		old := h.Fields(t)
		store(t, h, credential(2), preflight(t, h))
		before := preflight(t, h)
		h.OutsideWrite(t, old) // as vault kv rollback does
		if s := look(t, h); s.Digest != credential(1).ClientSecret.Digest() || s.Version != before.Version+1 {
			t.Errorf("after the rollback of version %d it is seen as %+v", before.Version, s)
		}
		after := store(t, h, credential(3), before)
		if want(t, h, after, credential(3)); after.Version != before.Version+2 {
			t.Errorf("version %d became %d", before.Version, after.Version)
		}
	}},
	{"only one version is kept", func(h Harness) bool { return hasHistory(h) && h.KeepVersions != nil }, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		h.KeepVersions(t, 1)
		for n := 2; n <= 3; n++ {
			after := store(t, h, credential(n), preflight(t, h))
			if want(t, h, after, credential(n)); after.Version != n {
				t.Errorf("version %d, want %d", after.Version, n)
			}
		}
		wantVersion(t, h, 2, 0, "max_versions")
		wantVersion(t, h, 3, 3, "")
	}},
	{"metadata removed after the preflight", func(h Harness) bool { return hasHistory(h) && h.RemoveMetadata != nil }, func(t *testing.T, h Harness) {
		for _, rewritten := range []bool{false, true} {
			for n := 1; n <= 3; n++ {
				store(t, h, credential(n), preflight(t, h))
			}
			before := preflight(t, h)
			h.RemoveMetadata(t)
			first := 1
			if rewritten {
				h.OutsideWrite(t, map[string]any{"note": "mine"})
				first = 2
			}
			began := time.Now()
			after := store(t, h, credential(4), before)
			if want(t, h, after, credential(4)); after.Version != first {
				t.Errorf("version %d, want %d", after.Version, first)
			}
			if rewritten && h.Fields(t)["note"] != "mine" {
				t.Error("the field of another writer was lost")
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s: a place that began again is not a stale read", took)
			}
			h.RemoveMetadata(t)
			if s := look(t, h); s.Exists || s.Version != 0 || s.Deleted || s.Destroyed {
				t.Errorf("a removed secret is seen as %+v", s)
			}
		}
	}},
	{"metadata removed between write and read-back", func(h Harness) bool { return hasHistory(h) && h.RemoveMetadata != nil && h.AfterNextWrite != nil }, func(t *testing.T, h Harness) {
		for _, versions := range []int{0, 2} {
			for n := range versions {
				store(t, h, credential(n), preflight(t, h))
			}
			before := preflight(t, h)
			h.AfterNextWrite(t, func() {
				h.RemoveMetadata(t)
				h.OutsideWrite(t, map[string]any{"note": "mine"})
			})
			after := store(t, h, credential(3), before)
			if want(t, h, after, credential(3)); h.Fields(t)["note"] != "mine" {
				t.Error("the field of another writer was lost")
			}
			h.RemoveMetadata(t)
		}
	}},
	{"check-and-set is required for the secret", func(h Harness) bool { return h.RequireCAS != nil }, func(t *testing.T, h Harness) {
		h.RequireCAS(t)
		for n := 1; n <= 2; n++ {
			want(t, h, store(t, h, credential(n), preflight(t, h)), credential(n))
		}
	}},
	{"the answer is lost, and the new leader is behind", func(h Harness) bool { return hasHistory(h) && h.Stale != nil && h.LoseNextAnswer != nil }, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		store(t, h, credential(2), preflight(t, h))
		before := preflight(t, h)
		h.Stale(t, 0, 2)
		h.LoseNextAnswer(t, true)
		if _, err := h.Sink.Store(t.Context(), rotation.Delivery{Credential: credential(3), Base: before}); err == nil {
			t.Fatal("confirmed, and not read back")
		} else {
			clean(t, err)
		}
		after := store(t, h, credential(3), before)
		if want(t, h, after, credential(3)); after.Version != before.Version+1 {
			t.Errorf("version %d became %d: it was written twice", before.Version, after.Version)
		}
	}},
	{"an answer about another version", func(h Harness) bool { return hasHistory(h) && replaces(h) }, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		store(t, h, credential(2), preflight(t, h))
		h.AnswerNext(t, Replaced{To: Read, Status: 200, ContentType: jsonType,
			Body: fmt.Sprintf(`{"data":{"data":{%q:"x"},"metadata":{"version":2}}}`, ClientSecretField)})
		if _, err := h.Sink.(rotation.SinkHistory).ReadVersion(t.Context(), 1); err == nil || errors.Is(err, rotation.ErrNoVersion) {
			t.Errorf("an answer about version 2 was taken for version 1: %v", err)
		}
	}},
}
