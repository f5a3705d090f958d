package moment_test

import (
	"testing"
	"time"

	"rotatord/internal/moment"
)

func TestMinAndMax(t *testing.T) {
	var never time.Time
	early := time.Date(2026, 11, 28, 4, 0, 0, 0, time.UTC)
	late := early.Add(time.Hour)
	for name, test := range map[string]struct{ got, want time.Time }{
		"min":                     {moment.Min(late, early), early},
		"min of one":              {moment.Min(late), late},
		"min with never":          {moment.Min(early, never, late), never},
		"min of non-zero":         {moment.MinNonZero(never, late, early), early},
		"min of non-zero, never":  {moment.MinNonZero(never, never), never},
		"min of non-zero, of one": {moment.MinNonZero(late, never), late},
		"max":                     {moment.Max(early, late), late},
		"max with never":          {moment.Max(never, early, never), early},
		"max of never":            {moment.Max(never, never), never},
	} {
		if !test.got.Equal(test.want) {
			t.Errorf("%s: %s, want %s", name, test.got, test.want)
		}
	}
}
