//go:build race

package httpapi_test

// The race detector has pools lose some of what they are given.
func init() { raceDetector = true }
