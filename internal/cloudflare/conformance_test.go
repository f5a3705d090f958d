package cloudflare_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/cloudflare/openapitest"
	"rotatord/internal/rotation"
)

// TestClientAgainstTheSimulator holds every request of ours, and every answer, against
// Cloudflare's own OpenAPI document.
func TestClientAgainstTheSimulator(t *testing.T) {
	simulator := cfsim.New(cfsim.Options{SeedTokens: 250})
	server := httptest.NewServer(simulator)
	t.Cleanup(server.Close)
	var o told
	c := client(t, server.URL+cfsim.BasePath, cloudflare.Options{Observer: &o, WrapTransport: func(rt http.RoundTripper) http.RoundTripper {
		return openapitest.Transport(t, rt)
	}})

	all, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]rotation.TokenFacts{}
	for _, f := range all {
		seen[f.ID] = f
	}
	if len(all) != 250 || len(seen) != 250 || o.requests["list 200"] != 3 {
		t.Errorf("listed %d tokens, %d of them different, in %d requests", len(all), len(seen), o.requests["list 200"])
	}

	id := cfsim.SeedTokenID(7)
	before, err := c.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	truth, _ := simulator.Token(id)
	if before.ID != id || before.ClientID != truth.ClientID || before.Name != "seeded-0007" || !before.Enabled ||
		before.ExpiresAt.IsZero() || before.UpdatedAt.IsZero() || seen[id].ClientID != before.ClientID {
		t.Errorf("inspected %+v", before)
	}

	for _, grace := range []time.Duration{0, time.Second, time.Hour} {
		issued, err := c.Rotate(t.Context(), rotation.RotateRequest{TokenID: id, Grace: grace})
		if err != nil {
			t.Fatal(err)
		}
		truth, _ := simulator.Token(id)
		if issued.ClientSecret.Digest() != truth.CurrentDigest || issued.ClientID != truth.ClientID || !issued.Facts.UpdatedAt.After(before.UpdatedAt) {
			t.Errorf("with grace %s: %+v", grace, issued)
		}
		if kept := truth.PreviousExpiresAt.Sub(truth.UpdatedAt); grace > 0 && (kept < grace || kept > grace+3*time.Second) {
			t.Errorf("the previous secret works for another %s, want at least %s and hardly more", kept, grace)
		}
		if grace > 0 && truth.PreviousExpiresAt.After(issued.GraceEndsAt) {
			t.Errorf("it works until %s, and we believe only until %s", truth.PreviousExpiresAt, issued.GraceEndsAt)
		}
		if grace == 0 && !issued.GraceEndsAt.IsZero() {
			t.Errorf("without grace it ends at %s", issued.GraceEndsAt)
		}
	}
	// The last rotation's grace of an hour is moved, both ways, and nothing is rotated.
	for _, grace := range []time.Duration{48 * time.Hour, time.Minute} {
		facts, until, err := c.SetGrace(t.Context(), id, grace)
		if err != nil {
			t.Fatal(err)
		}
		truth, _ := simulator.Token(id)
		if kept := truth.PreviousExpiresAt.Sub(truth.UpdatedAt); kept < grace || kept > grace+3*time.Second || truth.PreviousExpiresAt.After(until) {
			t.Errorf("extended by %s: the previous secret works for another %s, and we believe until %s", grace, kept, until)
		}
		if facts.ID != id || !facts.UpdatedAt.Equal(truth.UpdatedAt.Truncate(10*time.Microsecond)) || facts.Name != truth.Name || !facts.Enabled {
			t.Errorf("extended: %+v, and in truth %+v", facts, truth)
		}
	}
	if n := simulator.Stats().Rotations[id]; n != 3 {
		t.Errorf("%d rotations for three requests", n)
	}

	for name, call := range map[string]func() error{
		"get":    func() error { _, err := c.Inspect(t.Context(), tokenID); return err },
		"update": func() error { _, _, err := c.SetGrace(t.Context(), tokenID, time.Hour); return err },
		"rotate": func() error { _, err := c.Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID}); return err },
	} {
		if e, ok := errors.AsType[*rotation.IssuerError](call()); !ok || e.Class != rotation.Refused || e.Status != 404 || e.Operation != name {
			t.Errorf("%s of a token that does not exist: %v", name, e)
		}
	}
}
