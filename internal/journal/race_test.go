//go:build race

package journal_test

// The race detector makes opening a journal ten times slower, and one goroutine has no races.
func init() { raceDetector = true }
