package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// gcPercent is the share of the memory in use to which garbage may grow. Most of that memory is what is known of the tokens, and stays, so
// Go's usual 100 would double what a daemon or a check needs.
const gcPercent = 30

// A collection looks at the stack of each goroutine, so it is dear while many rotations are in progress, and a small heap would then be
// collected twenty times a second: a quarter of the processor. While there are busyGoroutines, garbage may grow to busyGarbage.
// A daemon at rest has a few dozen, and so has one that only lists or is scraped. A heap of which gcPercent is more than busyGarbage, of
// about 50,000 tokens, is collected as ever.
const (
	busyGoroutines = 200
	busyGarbage    = 32 << 20
)

// collectEarly sets gcPercent, unless the environment has GOGC, and returns what sets the value from before.
func collectEarly() (undo func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(gcPercent)
	return func() { debug.SetGCPercent(before) }
}

// collectByLoad does what collectEarly does, and collects less often while many rotations are in progress.
func collectByLoad() (undo func()) {
	undo = collectEarly()
	if os.Getenv("GOGC") != "" {
		return undo
	}
	c := &collector{undo: undo, percent: gcPercent}
	c.watch()
	return c.stop
}

// collector sets after each collection how far the heap may grow until the next one. Go's runtime collects every two minutes
// if nothing else makes it, so what many rotations have used is given back after that.
type collector struct {
	undo func() // goes back to what was before

	mu      sync.Mutex
	stopped bool
	percent int
}

// watch has adjust called after the next collection.
func (c *collector) watch() {
	type mark struct{ _ *byte } // a pointer, so that it is not put together with other small objects
	runtime.AddCleanup(new(mark), func(c *collector) { c.adjust() }, c)
}

func (c *collector) adjust() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	percent := percentFor(liveHeap(), runtime.NumGoroutine())
	if percent != c.percent { // setting it stops the program for a moment
		c.percent = percent
		debug.SetGCPercent(percent)
	}
	c.watch()
}

func (c *collector) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	c.undo()
}

// percentFor returns how far a heap may grow of which so many bytes are in use, with so many goroutines. It is gcPercent or more, in
// steps, so that it seldom changes.
func percentFor(live uint64, goroutines int) int {
	if goroutines < busyGoroutines || live == 0 {
		return gcPercent
	}
	const step = 20
	percent := busyGarbage * 100 / max(live, 4<<20) / step * step
	return max(gcPercent, int(percent))
}

// liveHeap returns how many bytes the last collection has found in use.
func liveHeap() uint64 {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return live[0].Value.Uint64()
}
