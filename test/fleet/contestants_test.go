package fleet

import (
	"testing"
	"time"
)

// contestant rotates the secrets of a world.
type contestant interface {
	start(t *testing.T)
	// kill sends SIGKILL to everything that runs now. A daemon is started again after
	// downtime.
	kill()
	// answered is called just before an answer of Cloudflare leaves, if the contestant is to
	// be killed when it has the answer only in memory.
	answered(credential int)
	// interruptsWrite is called before a write is passed on to Vault. It returns true if the write must
	// not be passed on: the contestant writes first after the answer, and was killed.
	interruptsWrite(credential int) bool
	// stop lets it finish what it is doing.
	stop(t *testing.T)
	// alarms counts how often it reported a fault.
	alarms() int
}

// downtime is how long a killed contestant stays away.
const downtime = 500 * time.Millisecond
