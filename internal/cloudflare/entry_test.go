package cloudflare

import (
	"encoding/json"
	"fmt"
	"testing"

	"rotatord/internal/racedetector"
)

// entryJSON is an entry of a listing as Cloudflare sends it.
func entryJSON(i int) json.RawMessage {
	return fmt.Appendf(nil, `{"id":"%032x","client_id":"%032x.access","name":"token-%06d","duration":"8760h","created_at":"2026-01-02T03:04:05Z",`+
		`"updated_at":"2026-03-02T03:04:05Z","expires_at":"2027-01-02T03:04:05Z","last_seen_at":"2026-11-02T03:04:05Z"}`, i, i, i)
}

// TestEntriesAreDecodedOnce: a listing of 100,000 entries is most of what a start has to do, and each was decoded twice.
func TestEntriesAreDecodedOnce(t *testing.T) {
	if racedetector.On {
		t.Skip("what is allocated differs under the race detector")
	}
	const n = 1000
	var entries []json.RawMessage
	for i := range n {
		entries = append(entries, entryJSON(i))
	}
	var listing Listing
	each := testing.AllocsPerRun(5, func() {
		listing = Listing{Odd: map[string]string{}, names: map[string]string{}}
		seen := map[string]bool{}
		for _, raw := range entries {
			listing.add(raw, seen)
		}
	}) / n
	if len(listing.Tokens) != n || len(listing.Odd) > 0 {
		t.Fatalf("%d tokens, and %v", len(listing.Tokens), listing.Odd)
	}
	if each > 14 {
		t.Errorf("%.1f allocations for each entry: is it decoded more than once?", each)
	}
	t.Logf("%.1f allocations for each entry", each)
}

// BenchmarkListing reads the entries of one page.
func BenchmarkListing(b *testing.B) {
	var entries []json.RawMessage
	for i := range 1000 {
		entries = append(entries, entryJSON(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		listing, seen := Listing{Odd: map[string]string{}, names: map[string]string{}}, map[string]bool{}
		for _, raw := range entries {
			listing.add(raw, seen)
		}
	}
}
