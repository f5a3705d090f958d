package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"testing"
	"time"
)

func TestPercentFor(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name       string
		live       uint64
		goroutines int
		want       int
	}{
		{"at rest", 8 * mib, 60, gcPercent},
		{"busy and tiny", mib, 700, 800},
		{"busy and small", 24 * mib, 700, 120},
		{"busy, of 10,000 tokens", 40 * mib, 700, 80},
		{"busy and large", 200 * mib, 700, gcPercent},
		{"busy, and no collection yet", 0, 700, gcPercent},
	} {
		if got := percentFor(c.live, c.goroutines); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	for live := uint64(1); live < math.MaxInt32; live *= 2 {
		percent := percentFor(live, math.MaxInt)
		if garbage := live * uint64(percent) / 100; percent < gcPercent || percent > gcPercent && garbage > busyGarbage {
			t.Errorf("to %d bytes in use come %d of garbage", live, garbage)
		}
	}
}

// TestCollectByLoad: collections are set by what goes on, again after each collection, until the end.
func TestCollectByLoad(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	percent := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	becomes := func(what string, ok func(uint64) bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !ok(percent()); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: it is %d", what, percent())
			}
			runtime.GC()
		}
	}
	undo := collectByLoad()
	for range 2 {
		becomes("at rest", func(p uint64) bool { return p == gcPercent })
		var busy sync.WaitGroup
		end := make(chan struct{})
		for range busyGoroutines {
			busy.Go(func() { <-end })
		}
		if liveHeap() < busyGarbage {
			becomes("busy", func(p uint64) bool { return p > gcPercent })
		}
		close(end)
		busy.Wait()
	}
	becomes("at rest again", func(p uint64) bool { return p == gcPercent })
	undo()
	for range 3 {
		runtime.GC()
	}
	if got := percent(); got != 100 {
		t.Errorf("after its end it is %d", got)
	}
}
