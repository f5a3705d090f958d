//go:build race

package rotation_test

// The race detector makes random scenarios ten times slower. A part of them is enough for it, because nearly
// everything in them runs in one goroutine. All but those of TestMachine are run in full by make test, without it.
//
// The world of TestSharedMachine is not made for it: its replicas and what strikes them share hosts without a lock, because
// in simulated time they never run at once. make test runs it without the detector.
func init() {
	machineChecks, sharedChecks = "1000", 0
	restoreChecks, replaceChecks = 300, "15"
	hookWorlds, strandedChecks, longTimes = 150, "15", false
}
