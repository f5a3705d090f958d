package fleet

import (
	"testing"
	"time"
)

// contestant rotates the secrets of a world.
type contestant interface {
	start(t *testing.T)
	// kill sends SIGKILL to all that runs now. What is a daemon is started again after
	// downtime.
	kill()
	// answered is called just before an answer of Cloudflare leaves, if the contestant is to
	// be killed when it has it in memory and nowhere else.
	answered(credential int)
	// interruptsWrite is asked before a write is passed on to Vault, and reports that it is
	// not to be: a contestant whose first step after the answer is that write was killed.
	interruptsWrite(credential int) bool
	// stop lets it finish what it is doing.
	stop(t *testing.T)
	// alarms are the times that it said that something went wrong.
	alarms() int
}

// downtime is how long a killed contestant stays away.
const downtime = 500 * time.Millisecond
