package main

import (
	"os"
	"runtime/debug"
)

// gcPercent is the share of the memory in use to which garbage may grow. Most of that memory is what is known of the tokens, and stays, so
// Go's usual 100 would double what a daemon or a check needs. More collections are the price: about a tenth more of the
// processor for each rotation, and nothing while the daemon waits.
const gcPercent = 30

// collectEarly sets gcPercent, unless the environment has GOGC, and returns what sets the value from before.
func collectEarly() (undo func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(gcPercent)
	return func() { debug.SetGCPercent(before) }
}
