//go:build !failpoint

package failpoint

// Reach is called when a point is reached.
func Reach(string) {}

// Off reports whether a step is to be left out.
func Off(string) bool { return false }
