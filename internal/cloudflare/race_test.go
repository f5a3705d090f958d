//go:build race

package cloudflare

// The race detector makes bursts ten times slower, and the random traffic shows it all races.
func init() { raceDetector = true }
