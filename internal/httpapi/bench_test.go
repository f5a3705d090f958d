package httpapi_test

import (
	"fmt"
	"testing"
	"time"

	"rotatord/internal/httpapi"
)

// BenchmarkScrape gathers the metrics of a thousand tokens.
func BenchmarkScrape(b *testing.B) {
	source := &fakeSource{}
	for i := range 1000 {
		source.tokens = append(source.tokens, httpapi.TokenStatus{
			Name: fmt.Sprintf("token-%04d", i), Account: "prod", State: "idle", Schedule: "0 4 * * 1", Strategy: "rotate", Known: true, Enabled: true,
			Next: now.Add(time.Hour), LastSuccess: now, Expiry: now.Add(1000 * time.Hour), GraceEnd: now.Add(time.Hour), LastSeen: now,
		})
	}
	m := newMetrics()
	m.Show(source, noSession, noDrift)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Gatherer().Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
