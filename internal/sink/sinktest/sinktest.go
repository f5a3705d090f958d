// Package sinktest is the suite that every sink must pass, on its double and on the real
// service.
package sinktest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// Harness is one empty place for a credential, and what a test can do to it from outside.
// A nil function means that this is not possible for the sink.
type Harness struct {
	Sink rotation.Sink
	// Fields returns what is stored, nil if nothing is.
	Fields func(t *testing.T) map[string]any
	// OutsideWrite replaces all that is stored.
	OutsideWrite func(t *testing.T, fields map[string]any)
	// Delete deletes what is stored, so that it could be brought back.
	Delete func(t *testing.T)
	// Versions counts the writes of the sink.
	Versions func(t *testing.T) int
	// DuringNextWrite runs do between the sink's reading and its writing.
	DuringNextWrite func(t *testing.T, do func())
	// LoseNextAnswer breaks the connection of the next write. The write is carried out if carryOut is
	// true.
	LoseNextAnswer func(t *testing.T, carryOut bool)
	// FailNextAnswer answers the next write with 500, although it was carried out if
	// carryOut is true.
	FailNextAnswer func(t *testing.T, carryOut bool)
	// HoldNextWrite delays the next write. The sink gets no answer. The write arrives when the
	// returned function is called, which returns after it was served.
	HoldNextWrite func(t *testing.T) (arrive func())
	// Deny takes away the right to write.
	Deny func(t *testing.T)
	// DeniedSays is what the error of Preflight then has in it, so that an operator knows what to change.
	DeniedSays string
	// DenyParameters leaves the right to write, and refuses every write for its parameters.
	DenyParameters func(t *testing.T)
	// AnswerNext replaces some of the next answers.
	AnswerNext func(t *testing.T, a Replaced)
	// Stale answers reads, after the first skip, from a state that is one version old: the next n.
	Stale func(t *testing.T, skip, n int)
	// DeleteAfter makes the place delete each later write after some time.
	DeleteAfter func(t *testing.T, after time.Duration)
	// ShortLife is the shortest time that DeleteAfter takes.
	ShortLife time.Duration
	// KV is the version of the KV engine; 0 for another sink.
	KV int
	// Typed says that a field can have another value than a text.
	Typed bool
	// FailReads makes reads fail: after one that succeeds, the next n.
	FailReads func(t *testing.T, n int)

	// WithPrevious returns a sink for the same place that also keeps the previous secret, in the fields
	// PreviousIDField, PreviousSecretField and PreviousEndsField.
	WithPrevious func(t *testing.T) rotation.Sink
	// Destroy destroys the current version, so that it cannot be brought back.
	Destroy func(t *testing.T)
	// RemoveMetadata removes what is stored with its history. The next version is the first.
	RemoveMetadata func(t *testing.T)
	// KeepVersions sets how many versions are kept from now on.
	KeepVersions func(t *testing.T, n int)
	// RequireCAS makes the place refuse writes without check-and-set.
	RequireCAS func(t *testing.T)
	// AfterNextWrite runs do after the next write was carried out, and before it is answered.
	AfterNextWrite func(t *testing.T, do func())
}

// Names of the fields that the harness's sink must be configured with.
const (
	ClientIDField     = "CF_ACCESS_CLIENT_ID"
	ClientSecretField = "CF_ACCESS_CLIENT_SECRET"
)

func credential(n int) rotation.Credential {
	return rotation.Credential{ClientID: "88bf3b6d.access.example.com", ClientSecret: secret.New(fmt.Sprintf("cfast_CANARY%042d", n))}
}

// Run runs the suite. newPlace returns a new place for each test.
func Run(t *testing.T, newPlace func(t *testing.T) Harness) {
	for _, test := range slices.Concat(suite, answers, previous, history) {
		t.Run(test.name, func(t *testing.T) {
			h := newPlace(t)
			if test.needs != nil && !test.needs(h) {
				t.Skip("this is not possible for the sink")
			}
			test.run(t, h)
		})
	}
}

type testCase struct {
	name  string
	needs func(Harness) bool
	run   func(t *testing.T, h Harness)
}

func canReadBack(h Harness) bool {
	_, can := h.Sink.(rotation.SinkReader)
	return can
}

var suite = []testCase{
	{"what it holds can be read back", canReadBack, func(t *testing.T, h Harness) {
		reader := h.Sink.(rotation.SinkReader)
		if c, err := reader.ReadBack(t.Context()); err != nil || c.ClientID != "" || !c.ClientSecret.IsZero() {
			t.Errorf("an empty place holds a credential for %q: %v", c.ClientID, err)
		}
		want := credential(1)
		if _, err := h.Sink.Store(t.Context(), rotation.Delivery{Credential: want, Base: preflight(t, h)}); err != nil {
			t.Fatal(err)
		}
		if c, err := reader.ReadBack(t.Context()); err != nil || c.ClientID != want.ClientID || !c.ClientSecret.Equal(want.ClientSecret) {
			t.Errorf("another credential was read back: %v", err)
		}
		if h.FailReads == nil {
			return
		}
		h.FailReads(t, 1) // the second one from now
		_, _ = reader.ReadBack(t.Context())
		if c, err := reader.ReadBack(t.Context()); err == nil || !c.ClientSecret.IsZero() {
			t.Error("a read that fails is not an error")
		}
	}},
	{"an empty place", nil, func(t *testing.T, h Harness) {
		before := preflight(t, h)
		if before.Exists || before.Digest != "" {
			t.Errorf("an empty place holds %+v", before)
		}
		after := store(t, h, credential(1), before)
		want(t, h, after, credential(1))
		again := preflight(t, h)
		if again != after || !again.Exists {
			t.Errorf("Preflight sees %+v, Store returned %+v", again, after)
		}
	}},
	{"storing again changes nothing", nil, func(t *testing.T, h Harness) {
		after := store(t, h, credential(1), preflight(t, h))
		versions := h.Versions(t)
		if again := store(t, h, credential(1), preflight(t, h)); again != after || h.Versions(t) != versions {
			t.Errorf("storing the same again wrote: %+v, %d versions", again, h.Versions(t))
		}
	}},
	{"what the preflight saw is not a read-back", nil, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		before := preflight(t, h)
		h.OutsideWrite(t, map[string]any{ClientIDField: "x", ClientSecretField: "y", "note": "mine"})
		want(t, h, store(t, h, credential(1), before), credential(1))
		if h.Fields(t)["note"] != "mine" {
			t.Error("the other writer's change was lost")
		}
	}},
	{"one write for one store", nil, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		versions := h.Versions(t)
		after := store(t, h, credential(2), preflight(t, h))
		want(t, h, after, credential(2))
		if n := h.Versions(t) - versions; n != 1 {
			t.Errorf("one store made %d versions", n)
		}
	}},
	{"other fields are kept", nil, func(t *testing.T, h Harness) {
		h.OutsideWrite(t, map[string]any{"note": "mine", "big": json.Number("12345678901234567"), "real": json.Number("0.10"),
			ClientIDField: "old", "nested": map[string]any{"a": []any{"b", nil, true}}})
		before := h.Fields(t) // a store may have changed a number on its own
		want(t, h, store(t, h, credential(1), preflight(t, h)), credential(1))
		after := h.Fields(t)
		for _, name := range []string{"note", "big", "real", "nested"} {
			if before[name] == nil || fmt.Sprint(after[name]) != fmt.Sprint(before[name]) {
				t.Errorf("the field %s was %v and is %v", name, before[name], after[name])
			}
		}
		if len(after) != 6 {
			t.Errorf("the fields are now %v", keys(after))
		}
	}},
	{"another writer writes between preflight and store", nil, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		before := preflight(t, h)
		h.OutsideWrite(t, map[string]any{"note": "mine"})
		want(t, h, store(t, h, credential(2), before), credential(2))
		if h.Fields(t)["note"] != "mine" {
			t.Error("the other writer's change was lost")
		}
	}},
	{"another writer writes between reading and writing", func(h Harness) bool { return h.DuringNextWrite != nil }, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		h.DuringNextWrite(t, func() { h.OutsideWrite(t, map[string]any{"note": "mine"}) })
		want(t, h, store(t, h, credential(2), preflight(t, h)), credential(2))
		if h.Fields(t)["note"] != "mine" {
			t.Error("the other writer's change was lost")
		}
	}},
	{"another writer stores the same meanwhile", func(h Harness) bool { return h.DuringNextWrite != nil }, func(t *testing.T, h Harness) {
		before := preflight(t, h)
		h.DuringNextWrite(t, func() {
			h.OutsideWrite(t, map[string]any{ClientIDField: credential(1).ClientID, ClientSecretField: credential(1).ClientSecret.Reveal()})
		})
		want(t, h, store(t, h, credential(1), before), credential(1))
	}},
	{"a deleted secret", func(h Harness) bool { return h.Delete != nil }, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		h.Delete(t)
		before := preflight(t, h)
		if before.Exists || before.Digest != "" {
			t.Errorf("a deleted secret is seen as %+v", before)
		}
		if h.KV == 2 && before.Version != 1 {
			t.Errorf("a deleted version 1 is seen as version %d: a check-and-set against that cannot match", before.Version)
		}
		want(t, h, store(t, h, credential(2), before), credential(2))
	}},
	{"the answer to a write is lost", func(h Harness) bool { return h.LoseNextAnswer != nil }, func(t *testing.T, h Harness) {
		before := preflight(t, h)
		h.LoseNextAnswer(t, true)
		want(t, h, store(t, h, credential(1), before), credential(1))
		if n := h.Versions(t); n != 1 {
			t.Errorf("%d writes, want the one whose answer was lost", n)
		}
	}},
	{"a write is lost", func(h Harness) bool { return h.LoseNextAnswer != nil }, func(t *testing.T, h Harness) {
		before := preflight(t, h)
		h.LoseNextAnswer(t, false)
		_, err := h.Sink.Store(t.Context(), rotation.Delivery{Credential: credential(1), Base: before})
		if err == nil {
			t.Fatal("a lost write was reported as done")
		}
		clean(t, err)
		if n := h.Versions(t); n != 0 {
			t.Errorf("%d writes: it was written again without reading", n)
		}
		want(t, h, store(t, h, credential(1), before), credential(1))
	}},
	{"a write fails after it was carried out", func(h Harness) bool { return h.FailNextAnswer != nil }, func(t *testing.T, h Harness) {
		before := preflight(t, h)
		h.FailNextAnswer(t, true)
		want(t, h, store(t, h, credential(1), before), credential(1))
		if n := h.Versions(t); n != 1 {
			t.Errorf("%d writes, want the one that was said to have failed", n)
		}
	}},
	{"a write fails", func(h Harness) bool { return h.FailNextAnswer != nil }, func(t *testing.T, h Harness) {
		before := preflight(t, h)
		h.FailNextAnswer(t, false)
		_, err := h.Sink.Store(t.Context(), rotation.Delivery{Credential: credential(1), Base: before})
		if err == nil {
			t.Fatal("a failed write was reported as done")
		}
		clean(t, err)
		if n := h.Versions(t); n != 0 {
			t.Errorf("%d writes: it was written again without reading", n)
		}
		want(t, h, store(t, h, credential(1), before), credential(1))
	}},
	{"a write arrives after the next attempt", func(h Harness) bool { return h.HoldNextWrite != nil }, func(t *testing.T, h Harness) {
		want(t, h, store(t, h, credential(1), preflight(t, h)), credential(1))
		before, versions := preflight(t, h), h.Versions(t)
		arrive := h.HoldNextWrite(t)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := h.Sink.Store(ctx, rotation.Delivery{Credential: credential(2), Base: before})
		if err == nil {
			t.Fatal("a write without an answer was reported as done")
		}
		clean(t, err)
		// The next rotation has come meanwhile: the late write would bring back a dead secret.
		want(t, h, store(t, h, credential(3), preflight(t, h)), credential(3))
		arrive()
		want(t, h, preflight(t, h), credential(3))
		if n := h.Versions(t) - versions; n != 1 {
			t.Errorf("%d versions, want that of the next attempt only", n)
		}
	}},
	{"another writer writes all the time", func(h Harness) bool { return h.DuringNextWrite != nil }, func(t *testing.T, h Harness) {
		n := 0
		var again func()
		again = func() {
			n++
			h.OutsideWrite(t, map[string]any{"note": fmt.Sprint(n)})
			if n < 100 {
				h.DuringNextWrite(t, again)
			}
		}
		h.DuringNextWrite(t, again)
		_, err := h.Sink.Store(t.Context(), rotation.Delivery{Credential: credential(1), Base: preflight(t, h)})
		if err == nil || n >= 100 {
			t.Fatalf("%d conflicts, %v: want an error after a few", n, err)
		}
		clean(t, err)
		if !strings.Contains(err.Error(), "another writer changed") {
			t.Errorf("real conflicts are called %v", err)
		}
		if h.Fields(t)["note"] != fmt.Sprint(n) || h.Versions(t) != 0 {
			t.Errorf("after %d conflicts the note is %v, and the sink wrote %d versions", n, h.Fields(t)["note"], h.Versions(t))
		}
	}},
	{"a newer secret comes while the delivery waits", func(h Harness) bool { return h.DuringNextWrite != nil }, func(t *testing.T, h Harness) {
		want(t, h, store(t, h, credential(1), preflight(t, h)), credential(1))
		var mayWrite error
		ctx := rotation.WithSendCheck(t.Context(), func() error { return mayWrite })
		h.DuringNextWrite(t, func() {
			h.OutsideWrite(t, map[string]any{ClientIDField: credential(3).ClientID, ClientSecretField: credential(3).ClientSecret.Reveal()})
			mayWrite = errors.New("the hold has ended")
		})
		if _, err := h.Sink.Store(ctx, rotation.Delivery{Credential: credential(2), Base: preflight(t, h)}); err == nil {
			t.Error("an older secret was written over a newer one")
		}
		want(t, h, preflight(t, h), credential(3))
	}},
	{"another secret comes while the delivery waits", func(h Harness) bool { return h.DuringNextWrite != nil }, func(t *testing.T, h Harness) {
		want(t, h, store(t, h, credential(1), preflight(t, h)), credential(1))
		d := rotation.Delivery{Credential: credential(2), Base: preflight(t, h), OnlyOver: true}
		h.DuringNextWrite(t, func() {
			h.OutsideWrite(t, map[string]any{ClientIDField: credential(3).ClientID, ClientSecretField: credential(3).ClientSecret.Reveal()})
		})
		if _, err := h.Sink.Store(t.Context(), d); err == nil { // a sink may have another reason, too
			t.Error("a secret that the delivery does not know was written over")
		}
		want(t, h, preflight(t, h), credential(3))
		if _, err := h.Sink.Store(t.Context(), d); !errors.Is(err, rotation.ErrOtherSecret) {
			t.Errorf("the same delivery again: %v", err)
		}
		want(t, h, preflight(t, h), credential(3))
		d.Base = preflight(t, h)
		stored, err := h.Sink.Store(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		want(t, h, stored, credential(2))
		if _, err := h.Sink.Store(t.Context(), d); err != nil {
			t.Errorf("a delivery of what is there: %v", err)
		}
	}},
	{"reading back fails", func(h Harness) bool { return h.FailReads != nil }, func(t *testing.T, h Harness) {
		store(t, h, credential(1), preflight(t, h))
		h.FailReads(t, 1)
		if _, err := h.Sink.Store(t.Context(), rotation.Delivery{Credential: credential(2)}); err == nil {
			t.Fatal("not read back, and yet confirmed")
		} else {
			clean(t, err)
		}
		want(t, h, store(t, h, credential(2), preflight(t, h)), credential(2))
	}},
	{"a denied parameter", func(h Harness) bool { return h.DenyParameters != nil }, func(t *testing.T, h Harness) {
		h.DenyParameters(t)
		_, err := h.Sink.Preflight(t.Context())
		if err == nil || !strings.Contains(err.Error(), "denied_parameters") {
			t.Errorf("Preflight: %v, want an error that names what a policy can forbid", err)
		}
	}},
	{"no right to write", func(h Harness) bool { return h.Deny != nil }, func(t *testing.T, h Harness) {
		h.Deny(t)
		_, err := h.Sink.Preflight(t.Context())
		if err == nil || h.DeniedSays == "" || !strings.Contains(err.Error(), h.DeniedSays) {
			t.Errorf("Preflight: %v, want an error with %q", err, h.DeniedSays)
		}
		if _, err := h.Sink.Store(t.Context(), rotation.Delivery{Credential: credential(1)}); err == nil {
			t.Error("stored without the right to")
		} else {
			clean(t, err)
		}
	}},
	{"a context that has ended", nil, func(t *testing.T, h Harness) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err1 := h.Sink.Preflight(ctx)
		_, err2 := h.Sink.Store(ctx, rotation.Delivery{Credential: credential(1)})
		if err1 == nil || err2 == nil || h.Versions(t) != 0 {
			t.Errorf("Preflight %v, Store %v, %d versions", err1, err2, h.Versions(t))
		}
	}},
}

func preflight(t *testing.T, h Harness) rotation.Stored {
	t.Helper()
	s, err := h.Sink.Preflight(t.Context())
	if err != nil {
		t.Fatalf("Preflight: %v", err)
	}
	return s
}

func store(t *testing.T, h Harness, c rotation.Credential, base rotation.Stored) rotation.Stored {
	t.Helper()
	s, err := h.Sink.Store(t.Context(), rotation.Delivery{Credential: c, Base: base})
	if err != nil {
		t.Fatalf("Store: %v", err)
	}
	return s
}

func want(t *testing.T, h Harness, s rotation.Stored, c rotation.Credential) {
	t.Helper()
	fields := h.Fields(t)
	if s.Digest != c.ClientSecret.Digest() || s.ClientID != c.ClientID || !s.Exists {
		t.Errorf("Store returned %+v", s)
	}
	if fields[ClientIDField] != c.ClientID || fields[ClientSecretField] != c.ClientSecret.Reveal() {
		t.Error("what is stored is not what was delivered")
	}
}

func clean(t *testing.T, err error) {
	t.Helper()
	if strings.Contains(err.Error(), "CANARY") {
		t.Errorf("an error has a secret: %v", err)
	}
}

func keys(m map[string]any) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	return all
}
