package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/scheduler"
)

// BenchmarkLateness is how long after its time a token fires, on the real clock, when 10,000
// of them are due within one second. An iteration takes more than that second, so what counts
// are the figures at the end.
func BenchmarkLateness(b *testing.B) {
	const n = 10_000
	spread := func(i int) time.Duration { return time.Duration(i) * time.Second / n }
	together := func(int) time.Duration { return 0 }
	for _, c := range []struct {
		name    string
		after   func(i int) time.Duration
		working bool // on a goroutine of its own, which sets the next time too
	}{
		{"spread", spread, false}, {"spread/working", spread, true},
		{"together", together, false}, {"together/working", together, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			var late []time.Duration
			for b.Loop() {
				late = append(late, fireAll(n, c.after, c.working)...)
			}
			report(b, late)
		})
	}
}

// fireAll lets n keys fire in a while, and returns how late each was.
func fireAll(n int, after func(i int) time.Duration, working bool) []time.Duration {
	q := scheduler.NewQueue(nil)
	daily := scheduler.Timetable{Schedule: mustParse("0 4 * * *")}
	start := time.Now().Round(0).Add(500 * time.Millisecond)
	for i := range n {
		q.Set(fmt.Sprint("token-", i), start.Add(after(i)))
	}
	ctx, cancel := context.WithCancel(context.Background())
	late := make([]time.Duration, n)
	var fired atomic.Int64
	work := func(at time.Time) {
		i := fired.Add(1)
		late[i-1] = time.Since(at)
		if int(i) == n {
			cancel()
		}
	}
	var workers sync.WaitGroup
	q.Run(ctx, func(name string, at time.Time) {
		if !working {
			work(at)
			return
		}
		workers.Go(func() {
			work(at)
			q.Set(name, daily.Next(start.Add(time.Hour)).Begin)
		})
	}, nil)
	workers.Wait()
	return late
}

// report gives percentiles of how late firings were. None may be early.
func report(b *testing.B, late []time.Duration) {
	slices.Sort(late)
	if late[0] < 0 {
		b.Fatalf("fired %s early", -late[0])
	}
	for _, p := range []struct {
		unit string
		d    time.Duration
	}{
		{"p50-µs", late[len(late)/2]}, {"p99-µs", late[len(late)*99/100]}, {"max-µs", late[len(late)-1]},
	} {
		b.ReportMetric(float64(p.d.Nanoseconds())/1000, p.unit)
	}
	b.ReportMetric(0, "ns/op") // says nothing: the clock decides
}

// BenchmarkChanges is how late 1,000 tokens a second fire while another goroutine adds, moves
// and removes entries, 100,000 of them, as fast as it can. When it does so in a queue of its
// own, it takes the same share of the machine, but not the lock: the difference is ours.
func BenchmarkChanges(b *testing.B) {
	const n = 100_000
	b.Run("none", func(b *testing.B) { changes(b, n, nil) })
	b.Run("elsewhere", func(b *testing.B) {
		changes(b, n, func(*scheduler.Queue) *scheduler.Queue { return scheduler.NewQueue(nil) })
	})
	b.Run("here", func(b *testing.B) { changes(b, n, func(q *scheduler.Queue) *scheduler.Queue { return q }) })
}

func changes(b *testing.B, n int, where func(*scheduler.Queue) *scheduler.Queue) {
	const stream = 1000
	q := scheduler.NewQueue(nil)
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("token-", i)
		q.Set(names[i], time.Now().Add(time.Hour))
	}
	start := time.Now().Round(0).Add(100 * time.Millisecond)
	for i := range stream {
		q.Set(fmt.Sprint("stream-", i), start.Add(time.Duration(i)*time.Second/stream))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	var late []time.Duration
	var changed int
	var running sync.WaitGroup
	if where != nil {
		changing := where(q)
		running.Go(func() {
			random := rand.New(rand.NewPCG(4, 4))
			for ; ctx.Err() == nil; changed++ {
				name := names[random.IntN(n)]
				if random.IntN(3) == 0 {
					changing.Remove(name)
				} else { // some of them fire meanwhile
					changing.Set(name, time.Now().Add(time.Duration(random.Int64N(int64(time.Hour)))))
				}
			}
		})
	}
	for b.Loop() {
		q.Run(ctx, func(name string, at time.Time) {
			late = append(late, time.Since(at))
			if name[0] == 's' {
				q.Set(name, at.Add(time.Second))
			}
		}, nil)
	}
	running.Wait()
	if len(late) < 2*stream {
		b.Fatalf("%d firings in three seconds", len(late))
	}
	report(b, late)
	b.ReportMetric(float64(changed)/3, "changes/s")
	b.ReportMetric(float64(len(late))/3, "firings/s")
}
