//go:build race

package rotation_test

// The race detector makes the machine ten times slower and finds nothing more in what one
// goroutine does.
func init() { machineChecks = "1000" }
