//go:build race

package statedir_test

// The race detector makes opening a directory ten times slower, and one goroutine has no races.
func init() { raceDetector = true }
