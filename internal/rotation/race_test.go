//go:build race

package rotation_test

// The race detector makes TestMachine ten times slower. A thousand scenarios are enough for it, because nearly
// everything in them runs in one goroutine.
//
// The world of TestSharedMachine is not made for it: its replicas and what strikes them share hosts without a lock, because
// in simulated time they never run at once. make test runs it without the detector.
func init() { machineChecks, sharedChecks = "1000", 0 }
