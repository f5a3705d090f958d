//go:build !failpoint

package failpoint

import "time"

// Reach is called when a point is reached.
func Reach(string) {}

// Off reports whether a step must be left out.
func Off(string) bool { return false }

// Bound returns a time limit, or the one that a test sets.
func Bound(_ string, d time.Duration) time.Duration { return d }
