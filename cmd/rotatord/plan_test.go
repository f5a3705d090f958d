package main

import (
	"context"
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
	"rotatord/internal/forecast"
	"rotatord/internal/scheduler"
)

const planTokenID = "f174e90a-fafe-4643-bbbc-4a0ed4fc8415"

// planToken is a token that rotates at four in the morning, UTC.
func planToken(t testing.TB, change ...func(*config.Token)) *config.Token {
	t.Helper()
	c := &config.Token{Name: "ci", ID: planTokenID, Grace: time.Hour, Schedule: parsed(t, "0 4 * * *")}
	for _, f := range change {
		f(c)
	}
	return c
}

func parsed(t testing.TB, expression string) *scheduler.Schedule {
	t.Helper()
	s, err := scheduler.Parse(expression, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// forecastFor returns the forecast for some tokens, without a ledger.
func forecastFor(t testing.TB, tokens []config.Token, r forecast.Range) forecast.Forecast {
	t.Helper()
	r.Limit = 1000
	p, err := forecast.Of(context.Background(), plannedTokens(&config.Config{Tokens: tokens}), forecast.State{}, r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// noon is when the plans of these tests are made.
var noon = time.Date(2027, time.June, 1, 12, 0, 0, 0, time.UTC)

func at(day, hour int) time.Time { return time.Date(2027, time.June, day, hour, 0, 0, 0, time.UTC) }

// TestPlanIsDocumented holds docs/plan.md to the codes and the fields that there are.
func TestPlanIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/plan.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllSubmatch(doc, -1) {
		documented = append(documented, string(row[1]))
	}
	want := []string{
		forecast.WarnGrace, forecast.WarnFreeze, forecast.WarnMerges, forecast.WarnWindow, forecast.WarnMissed, forecast.WarnSkips, forecast.WarnExpired, forecast.WarnOverdue, forecast.WarnPaused, forecast.WarnDoubt, forecast.WarnInProgress,
		forecast.WarnReissue, forecast.WarnOrdered, forecast.WarnCreate, forecast.WarnFailing, forecast.WarnNever, forecast.WarnEstimate, forecast.WarnLedger,
	}
	for field := range reflect.TypeFor[shownPlan]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		want = append(want, name)
	}
	slices.Sort(want)
	slices.Sort(documented)
	if diff := cmp.Diff(want, documented); diff != "" {
		t.Errorf("what there is (-) and docs/plan.md (+) differ:\n%s", diff)
	}
}

// TestPlanIsBounded holds that what cannot be shown ends soon, and with a word on what to do.
func TestPlanIsBounded(t *testing.T) {
	c := &config.Config{Tokens: []config.Token{*planToken(t, func(c *config.Token) { c.Schedule, c.Grace = parsed(t, "* * * * *"), 0 })}}
	c.State.Dir = t.TempDir()
	_, _, err := makePlan(context.Background(), c, login{}, forecast.Range{Now: noon, Until: noon.AddDate(10, 0, 0), Limit: 1000})
	if err == nil || !isUsage(err) || !strings.Contains(err.Error(), "more than 1000 entries: shorten") {
		t.Errorf("ten years of minutes: %v", err)
	}
	// An interval far away does not cost what lies before it, and a list of what a freeze passes
	// over is no longer than the list of rotations.
	c.Tokens[0].Freezes = []scheduler.Freeze{{Name: "long", From: noon.AddDate(8, 0, 0), To: noon.AddDate(8, 1, 0), Skip: true}}
	begun := time.Now()
	p, _, err := makePlan(context.Background(), c, login{}, forecast.Range{Now: noon, From: noon.AddDate(8, 0, 0), Count: 2, Limit: 1000})
	if err != nil || len(p) != 4 {
		t.Fatalf("%d entries, want two that are skipped and two rotations: %v", len(p), err)
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	if want := noon.AddDate(8, 1, 0); !p[2].Starts.Equal(want) {
		t.Errorf("the first rotation begins at %s, want %s", p[2].Starts, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := makePlan(ctx, c, login{}, forecast.Range{Now: noon, Count: 1, Limit: 1000}); !errors.Is(err, context.Canceled) {
		t.Errorf("after an interrupt: %v", err)
	}
}

// TestPlanFitsAScreen holds that a line with a usual name and a freeze has 160 columns at most.
func TestPlanFitsAScreen(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	schedule, err := scheduler.Parse("30 4 * * 1-5", berlin)
	if err != nil {
		t.Fatal(err)
	}
	c := planToken(t, func(c *config.Token) {
		c.Name, c.Schedule, c.Jitter, c.Window, c.Grace = "ci-deploy", schedule, 10*time.Minute, 6*time.Hour, 4*time.Hour
		c.Freezes = []scheduler.Freeze{{Name: "release", From: at(2, 0), To: at(2, 10)}}
	})
	var b strings.Builder
	if err := printPlan(&b, forecastFor(t, []config.Token{*c}, forecast.Range{Now: noon, Count: 3})); err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(strings.Lines(b.String()))
	if len(lines) != 4 || !strings.Contains(lines[1], "freeze release") {
		t.Errorf("not the lines that were to be measured:\n%s", b.String())
	}
	for _, line := range lines {
		if len(line) > 161 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}
