//go:build race

package admission

// The race detector makes the bursts ten times slower, and finds what there is in the random traffic.
func init() { raceDetector = true }
