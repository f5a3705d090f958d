package scheduler

import (
	"strings"
	"testing"
	"time"

	"github.com/robfig/cron/v3"
	"pgregory.net/rapid"
)

// The next reading is the one that robfig/cron steps to.
func TestFieldsAgreeWithRobfig(t *testing.T) {
	one := func(values ...string) *rapid.Generator[string] { return rapid.SampledFrom(values) }
	generators := []*rapid.Generator[string]{
		one("*", "0", "59", "*/7", "1-5,40", "30"), one("*", "0", "23", "*/5", "2-4", "12"),
		one("*", "1", "29", "31", "*/10", "30-31", "?"), one("*", "2", "*/3", "4,6,9,11", "12"), one("*", "0", "1-5", "*/2", "6", "?"),
	}
	first, last := time.Date(1999, time.January, 1, 0, 0, 0, 0, time.UTC), time.Date(2101, time.January, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		var expression []string
		for _, g := range generators {
			expression = append(expression, g.Draw(t, "field"))
		}
		parsed, err := parser.Parse(strings.Join(expression, " "))
		if err != nil {
			t.Fatal(err)
		}
		spec := parsed.(*cron.SpecSchedule)
		r := time.Unix(0, rapid.Int64Range(first.UnixNano(), last.UnixNano()).Draw(t, "reading")).UTC()
		if rapid.Bool().Draw(t, "whole minute") {
			r = r.Truncate(time.Minute)
		}
		for range 20 {
			got, want := fieldsOf(spec).next(r), spec.Next(r)
			if !got.Equal(want) {
				t.Fatalf("%s after %s: %s, robfig/cron has %s", expression, r, got, want)
			}
			if r = got; r.IsZero() {
				break
			}
		}
	})
}
