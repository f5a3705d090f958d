package main

import (
	"fmt"
	"io"
	"testing"
	"time"

	"rotatord/internal/status"
)

// BenchmarkStatus shows what 10,000 tokens cost in each form of status, of which a hundred are in trouble.
func BenchmarkStatus(b *testing.B) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var o status.Overview
	for i := range 10000 {
		o.Tokens = append(o.Tokens, status.Token{Name: fmt.Sprintf("token-%05d", i), Account: "prod", State: "idle", Next: now.Add(time.Hour), Known: true, Enabled: i%100 != 0})
	}
	o = status.NewOverview(&shownDaemon{}, o.Tokens, now)
	for name, do := range map[string]func() error{
		"one line": func() error { return write(io.Discard, overviewText(o, false, now)) },
		"all":      func() error { return write(io.Discard, overviewText(o, true, now)) },
		"json":     func() error { return status.WriteJSON(io.Discard, o) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
