package sinktest

import (
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// This part of the suite is about the previous secret beside the new one.

// Names of the fields for the previous secret that the sink of WithPrevious must be configured with.
const (
	PreviousIDField     = "CF_ACCESS_PREVIOUS_CLIENT_ID"
	PreviousSecretField = "CF_ACCESS_PREVIOUS_CLIENT_SECRET"
	PreviousEndsField   = "CF_ACCESS_PREVIOUS_EXPIRES_AT"
)

func keepsPrevious(h Harness) bool { return h.WithPrevious != nil }

// graceEnd is the end of a grace as a sink shows it.
const graceEnd = "2026-12-24T18:00:00Z"

// replacing is a delivery of the secret n whose rotation has replaced the secret old.
func replacing(t *testing.T, h Harness, n, old int) rotation.Delivery {
	t.Helper()
	ends, err := time.Parse(time.RFC3339, graceEnd)
	if err != nil {
		t.Fatal(err)
	}
	return rotation.Delivery{Credential: credential(n), Base: preflight(t, h), RotationID: "R", At: ends.Add(-time.Hour), By: "host:1",
		Replaces: credential(old).ClientSecret.Digest(), GraceEndsAt: ends.Add(300 * time.Millisecond).In(time.FixedZone("", 3600))}
}

func deliver(t *testing.T, h Harness, d rotation.Delivery) rotation.Stored {
	t.Helper()
	s, err := h.Sink.Store(t.Context(), d)
	if err != nil {
		t.Fatalf("Store: %v", err)
	}
	want(t, h, s, d.Credential)
	return s
}

// wantPrevious compares the fields of the previous secret; old is 0 for none.
func wantPrevious(t *testing.T, h Harness, old int) {
	t.Helper()
	id, value, ends := "", "", ""
	if old != 0 {
		id, value, ends = credential(old).ClientID, credential(old).ClientSecret.Reveal(), graceEnd
	}
	fields := h.Fields(t)
	for name, want := range map[string]string{PreviousIDField: id, PreviousSecretField: value, PreviousEndsField: ends} {
		if got, ok := fields[name].(string); !ok || got != want {
			t.Errorf("%s does not have what it must have for the previous secret %d (a text: %t, %d bytes)", name, old, ok, len(got))
		}
	}
}

var previous = []testCase{
	{"the previous secret", keepsPrevious, func(t *testing.T, h Harness) {
		h.OutsideWrite(t, map[string]any{"note": "mine"})
		deliver(t, h, rotation.Delivery{Credential: credential(1), Base: preflight(t, h)})
		h.Sink = h.WithPrevious(t)
		versions := h.Versions(t)
		d := replacing(t, h, 2, 1)
		stored := deliver(t, h, d)
		wantPrevious(t, h, 1)

		// The same delivery again, also with a base of its own and after the grace was extended.
		d.GraceEndsAt = d.GraceEndsAt.Add(time.Hour)
		for range 2 {
			if again := deliver(t, h, d); again != stored {
				t.Errorf("the same delivery again: %+v became %+v", stored, again)
			}
			d.Base = preflight(t, h)
		}
		wantPrevious(t, h, 1)
		if n := h.Versions(t) - versions; n != 1 {
			t.Errorf("%d writes, want 1", n)
		}

		// The grace was ended while the secret waits for another sink.
		d.Replaces, d.GraceEndsAt = "", time.Time{}
		deliver(t, h, d)
		wantPrevious(t, h, 0)
		if h.Fields(t)["note"] != "mine" {
			t.Error("the field of another writer was lost")
		}
	}},
	{"the previous secret, rotation after rotation", keepsPrevious, func(t *testing.T, h Harness) {
		h.Sink = h.WithPrevious(t)
		deliver(t, h, rotation.Delivery{Credential: credential(1), Base: preflight(t, h)})
		for n := 2; n < 5; n++ {
			deliver(t, h, replacing(t, h, n, n-1))
			wantPrevious(t, h, n-1)
		}
		d := replacing(t, h, 5, 4)
		d.Replaces, d.GraceEndsAt = "", time.Time{} // grace 0
		deliver(t, h, d)
		wantPrevious(t, h, 0)
	}},
	{"another secret is not the previous one", keepsPrevious, func(t *testing.T, h Harness) {
		h.Sink = h.WithPrevious(t)
		deliver(t, h, rotation.Delivery{Credential: credential(1), Base: preflight(t, h)})
		deliver(t, h, replacing(t, h, 2, 1))
		h.OutsideWrite(t, map[string]any{ClientIDField: credential(9).ClientID, ClientSecretField: credential(9).ClientSecret.Reveal()})
		deliver(t, h, replacing(t, h, 3, 2))
		wantPrevious(t, h, 0)
	}},
	{"the previous secret when another writer writes meanwhile", keepsPrevious, func(t *testing.T, h Harness) {
		h.Sink = h.WithPrevious(t)
		deliver(t, h, rotation.Delivery{Credential: credential(1), Base: preflight(t, h)})
		d := replacing(t, h, 2, 1)
		fields := h.Fields(t)
		fields["note"] = "mine"
		h.OutsideWrite(t, fields)
		deliver(t, h, d)
		wantPrevious(t, h, 1)
		if h.Fields(t)["note"] != "mine" {
			t.Error("the field of another writer was lost")
		}
	}},
	{"the previous secret when the answer is lost", func(h Harness) bool { return keepsPrevious(h) && h.LoseNextAnswer != nil }, func(t *testing.T, h Harness) {
		h.Sink = h.WithPrevious(t)
		deliver(t, h, rotation.Delivery{Credential: credential(1), Base: preflight(t, h)})
		d := replacing(t, h, 2, 1)
		h.LoseNextAnswer(t, true)
		deliver(t, h, d)
		wantPrevious(t, h, 1)
		d = replacing(t, h, 3, 2)
		h.LoseNextAnswer(t, false)
		if _, err := h.Sink.Store(t.Context(), d); err == nil {
			t.Fatal("a lost write was reported as done")
		} else {
			clean(t, err)
		}
		wantPrevious(t, h, 1)
		deliver(t, h, d)
		wantPrevious(t, h, 2)
	}},
	{"a previous field that is not a text", func(h Harness) bool { return keepsPrevious(h) && h.Typed }, func(t *testing.T, h Harness) {
		h.Sink = h.WithPrevious(t)
		h.OutsideWrite(t, map[string]any{PreviousSecretField: map[string]any{"a": "b"}})
		if _, err := h.Sink.Preflight(t.Context()); err == nil {
			t.Error("the field of another program would be overwritten")
		}
	}},
}
