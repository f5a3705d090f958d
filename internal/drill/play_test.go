package drill

import (
	"testing"
	"time"

	"rotatord/internal/status"
)

func TestRests(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		token  status.Token
		waited time.Duration
		want   bool
	}{
		"nothing to come":             {status.Token{State: "idle", Reason: "never"}, 0, true},
		"the next slot":               {status.Token{State: "idle", Reason: "slot", Next: now.Add(time.Hour)}, 0, true},
		"a slot that is due":          {status.Token{State: "idle", Reason: "slot", Next: now}, 0, false},
		"due, and kept waiting":       {status.Token{State: "idle", Reason: "slot", Next: now}, queued + 1, true},
		"to be created":               {status.Token{State: "idle", Reason: "create"}, 0, false},
		"claimed":                     {status.Token{State: "claimed", Reason: "unfinished", Next: now.Add(time.Hour)}, 0, false},
		"sealed, and continued":       {status.Token{State: "sealed", Reason: "unfinished"}, 0, false},
		"sealed, and tried later":     {status.Token{State: "sealed", Reason: "unfinished", Next: now.Add(time.Hour)}, 0, true},
		"a claim that was just freed": {status.Token{State: "idle", Reason: "unfinished"}, queued + 1, false},
	} {
		if got := rests(test.token, test.waited); got != test.want {
			t.Errorf("%s: %t, want %t", name, got, test.want)
		}
	}
}
