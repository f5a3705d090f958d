//go:build !failpoint

package failpoint

import "time"

// Reach is called when a point is reached.
func Reach(string) {}

// Off reports whether a step is to be left out.
func Off(string) bool { return false }

// Bound returns a time limit, or what a test has in its place.
func Bound(_ string, d time.Duration) time.Duration { return d }
