//go:build race

package scheduler_test

// The race detector makes following slots through the years ten times slower, and one
// goroutine has no races.
func init() { raceDetector = true }
