//go:build race

package admission

// The race detector makes bursts ten times slower, and the random traffic shows it all races.
func init() { raceDetector = true }
