//go:build race

package rotation_test

// The race detector makes TestMachine ten times slower. A thousand scenarios are enough for it, because nearly
// everything in them runs in one goroutine.
func init() { machineChecks, sharedChecks = "1000", 100 }
