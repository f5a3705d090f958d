package main

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/forecast"
	"rotatord/internal/scheduler"
)

// manyTokens have 10,080 schedules between them, a freeze that defers and one that skips.
func manyTokens(t testing.TB, n int) []config.Token {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	parse := func(expression string) *scheduler.Schedule {
		s, err := scheduler.Parse(expression, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	freezes := []scheduler.Freeze{
		{Name: "weekend", Schedule: parse("0 18 * * 5"), Duration: 56 * time.Hour},
		{Name: "easter", From: time.Date(2027, 3, 26, 0, 0, 0, 0, berlin), To: time.Date(2027, 3, 30, 0, 0, 0, 0, berlin), Skip: true},
	}
	schedules := map[string]*scheduler.Schedule{}
	tokens := make([]config.Token, n)
	for i := range tokens {
		expression := fmt.Sprintf("%d %d * * %d", i%60, i/60%24, i%7)
		if schedules[expression] == nil {
			schedules[expression] = parse(expression)
		}
		tokens[i] = config.Token{
			Name: fmt.Sprintf("token-%06d", i), ID: fmt.Sprintf("5eed0000-0000-4000-8000-%012x", i), Schedule: schedules[expression],
			Grace: 4 * time.Hour, Jitter: 10 * time.Minute, Freezes: freezes,
		}
	}
	return tokens
}

// BenchmarkPlan is a plan over 100,000 tokens, printed.
func BenchmarkPlan(b *testing.B) {
	c := &config.Config{Tokens: manyTokens(b, 100_000)}
	c.State.Dir = b.TempDir()
	now := time.Date(2027, 3, 20, 12, 0, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		p, _, err := makePlan(context.Background(), c, login{}, forecast.Range{Now: now, Count: 1, Limit: maxPlanned})
		if err != nil || len(p) < len(c.Tokens) {
			b.Fatalf("%d entries: %v", len(p), err)
		}
		if err := printPlan(io.Discard, p); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(p)), "entries")
	}
}
