package scheduler_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rotatord/internal/scheduler"
)

// Whatever was set, moved and removed before: what is left fires once, in order, when it is due.
func TestQueueKeepsOrder(t *testing.T) {
	rapid.Check(t, keepsOrder)
}

func keepsOrder(t *rapid.T) {
	start := time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
	now := start
	q := scheduler.NewQueue(func() time.Time { return now })
	want := map[string]time.Time{}
	for range rapid.IntRange(0, 200).Draw(t, "changes") {
		key := fmt.Sprint("token-", rapid.IntRange(0, 60).Draw(t, "key"))
		if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
			q.Remove(key)
			delete(want, key)
		} else {
			want[key] = start.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "at")) * time.Second)
			q.Set(key, want[key])
		}
	}
	if q.Len() != len(want) {
		t.Fatalf("%d keys wait, want %d", q.Len(), len(want))
	}
	for _, elapsed := range []time.Duration{50 * time.Second, 100 * time.Second} {
		now = start.Add(elapsed)
		want["first"] = start.Add(-time.Second)
		q.Set("first", want["first"]) // wakes Run, which then need not wait for its timer
		ctx, cancel := context.WithCancel(context.Background())
		beats := 0
		var order []time.Time
		q.Run(ctx, func(key string, at time.Time) {
			if set, ok := want[key]; !ok || !at.Equal(set) || at.After(now) {
				t.Errorf("at %s %s fired for %s, and was set to %s", now, key, at, set)
			}
			delete(want, key)
			order = append(order, at)
		}, func() {
			if beats++; beats == 2 { // all that is due has fired
				cancel()
			}
		})
		for key, at := range want {
			if !at.After(now) {
				t.Errorf("at %s %s has not fired for %s", now, key, at)
			}
		}
		if q.Len() != len(want) || !slices.IsSortedFunc(order, time.Time.Compare) {
			t.Errorf("fired in the order %v; %d keys left, want %d", order, q.Len(), len(want))
		}
	}
}
