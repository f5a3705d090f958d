package scheduler_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/scheduler"
)

// setClock is a wall clock that can be set.
type setClock struct{ offset atomic.Int64 }

func (c *setClock) now() time.Time { return time.Now().Round(0).Add(time.Duration(c.offset.Load())) }

func (c *setClock) set(by time.Duration) { c.offset.Add(int64(by)) }

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wall setClock
		wall.set(1000 * time.Hour) // what it shows to begin with does not matter
		c := scheduler.NewClock(wall.now)
		want := func(step, drift time.Duration) {
			t.Helper()
			if got := c.Drift(); got != drift {
				t.Errorf("drift %s, want %s", got, drift)
			}
			if got := c.Step(); got != step {
				t.Errorf("step %s, want %s", got, step)
			}
			if got := c.Drift(); got != drift {
				t.Errorf("after Step the drift is %s, want %s", got, drift)
			}
		}
		want(0, 0)
		time.Sleep(36 * time.Hour)
		want(0, 0)
		wall.set(3 * time.Hour)
		time.Sleep(time.Minute)
		want(3*time.Hour, 3*time.Hour)
		time.Sleep(time.Minute)
		want(0, 3*time.Hour)
		wall.set(-5 * time.Hour)
		want(-5*time.Hour, -2*time.Hour)
		wall.set(time.Hour) // two that are seen together
		time.Sleep(time.Second)
		wall.set(time.Hour)
		want(2*time.Hour, 0)
		for range 100 { // slowly
			wall.set(time.Second)
			time.Sleep(time.Minute)
			want(time.Second, c.Drift())
		}
		want(0, 100*time.Second)
	})
}

// TestClockOfTheSystem goes with the monotonic clock, unless another process sets it just now.
func TestClockOfTheSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scheduler.NewClock(nil)
		time.Sleep(time.Hour)
		if c.Step() != 0 || c.Drift() != 0 {
			t.Errorf("step %s, drift %s", c.Step(), c.Drift())
		}
	})
}

// TestQueueSeesTheWallClock: timers do not notice that the wall clock is set, but the queue
// does so within half a minute.
func TestQueueSeesTheWallClock(t *testing.T) {
	const look = 30 * time.Second
	for _, test := range []struct {
		name string
		step time.Duration // after ten minutes and ten seconds
		want []string      // when each entry fires: on the bubble's clock since the start, and on the wall clock
	}{
		{"not set", 0, []string{"a 10m0s 10m0s", "b 1h0m0s 1h0m0s", "c 2h0m0s 2h0m0s"}},
		// The queue looks each half minute from the last firing on.
		{"forward over one", time.Hour, []string{"a 10m0s 10m0s", "b 10m30s 1h10m30s", "c 1h0m0s 2h0m0s"}},
		{"forward over all", 5 * time.Hour, []string{"a 10m0s 10m0s", "b 10m30s 5h10m30s", "c 10m30s 5h10m30s"}},
		{"forward to shortly before", 49*time.Minute + 45*time.Second, []string{"a 10m0s 10m0s", "b 10m30s 1h0m15s", "c 1h10m15s 2h0m0s"}},
		{"back", -5 * time.Hour, []string{"a 10m0s 10m0s", "b 6h0m0s 1h0m0s", "c 7h0m0s 2h0m0s"}},
		{"back by a little", -time.Second, []string{"a 10m0s 10m0s", "b 1h0m1s 1h0m0s", "c 2h0m1s 2h0m0s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var wall setClock
				wall.set(-12345 * time.Hour)
				start, shown := time.Now(), wall.now()
				q := scheduler.NewQueue(wall.now)
				q.Set("c", shown.Add(2*time.Hour))
				q.Set("b", shown.Add(time.Hour))
				q.Set("a", shown.Add(10*time.Minute))
				ctx, cancel := context.WithCancel(t.Context())
				var got []string
				var last time.Time
				longest := time.Duration(0)
				done := make(chan struct{})
				go func() {
					defer close(done)
					q.Run(ctx, func(key string, at time.Time) {
						got = append(got, fmt.Sprintf("%s %s %s", key, time.Since(start), wall.now().Sub(shown)))
						if at.After(wall.now()) {
							t.Errorf("%s fires before %s", key, at)
						}
					}, func() {
						if !last.IsZero() {
							longest = max(longest, time.Since(last))
						}
						last = time.Now()
					})
				}()
				time.Sleep(10*time.Minute + 10*time.Second)
				wall.set(test.step)
				time.Sleep(8 * time.Hour)
				synctest.Wait()
				cancel()
				<-done
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if longest > look {
					t.Errorf("it gave no sign of life for %s", longest)
				}
			})
		})
	}
}

// TestQueueFiresInOrderAfterAStep: what became due together fires in the order of its times.
func TestQueueFiresInOrderAfterAStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wall setClock
		q := scheduler.NewQueue(wall.now)
		var want, got []string
		for i := range 100 {
			q.Set(fmt.Sprint(99-i), wall.now().Add(time.Duration(100-i)*time.Minute))
			want = append(want, fmt.Sprint(i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			q.Run(ctx, func(key string, _ time.Time) { got = append(got, key) }, nil)
		}()
		synctest.Wait()
		wall.set(3 * time.Hour)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		cancel()
		<-done
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}
