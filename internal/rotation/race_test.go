//go:build race

package rotation_test

// The race detector makes TestMachine ten times slower, and finds nothing more there, because only one
// goroutine runs at a time.
func init() { machineChecks = "1000" }
