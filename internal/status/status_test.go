package status_test

import (
	"testing"
	"time"

	"rotatord/internal/secret"
	"rotatord/internal/status"
)

func TestDistance(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		from time.Duration
		want string
	}{
		{0, "now"},
		{400 * time.Millisecond, "now"},
		{-400 * time.Millisecond, "now"},
		{600 * time.Millisecond, "in 1 s"},
		{59 * time.Second, "in 59 s"},
		{59*time.Second + 700*time.Millisecond, "in 1 min 0 s"},
		{90 * time.Second, "in 1 min 30 s"},
		{time.Hour, "in 1 h 0 min"},
		{47*time.Hour + 59*time.Minute, "in 47 h 59 min"},
		{48 * time.Hour, "in 2 d"},
		{365 * 24 * time.Hour, "in 365 d"},
		{-time.Second, "1 s ago"},
		{-61 * time.Second, "1 min 1 s ago"},
		{-25 * time.Hour, "25 h 0 min ago"},
		{-100 * time.Hour, "4 d ago"},
	} {
		if got := status.Distance(now.Add(c.from), now); got != c.want {
			t.Errorf("%s from now: %q, want %q", c.from, got, c.want)
		}
	}
	if got := status.Distance(time.Time{}, now); got != "–" {
		t.Errorf("no time: %q", got)
	}
}

// TestScrubbed puts a secret into each text that comes from elsewhere.
func TestScrubbed(t *testing.T) {
	const canary = "cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef"
	given := []status.Token{
		{Name: "a", LastError: "error " + canary, Doubt: &status.Doubt{Reason: "outcome_unknown", Detail: "detail " + canary}},
		{Name: "b", LastError: "plain"},
	}
	got := status.Scrubbed(given)
	if got[0].LastError != "error "+secret.Redacted || got[0].Doubt.Detail != "detail "+secret.Redacted || got[0].Doubt.Reason != "outcome_unknown" {
		t.Errorf("scrubbed: %+v %+v", got[0], got[0].Doubt)
	}
	if got[1].LastError != "plain" || got[1].Doubt != nil {
		t.Errorf("what was clean: %+v", got[1])
	}
	if given[0].LastError != "error "+canary || given[0].Doubt.Detail != "detail "+canary {
		t.Error("the argument was changed")
	}
	if none := status.Scrubbed(nil); none == nil || len(none) != 0 {
		t.Errorf("nothing scrubbed is %#v, want an empty list", none)
	}
}
