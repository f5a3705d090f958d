//go:build race

package packed_test

// The race detector has pools lose some of what they are given.
func init() { raceDetector = true }
