package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"rotatord/internal/ownpath"
)

const (
	// Less than lowSpace is a warning. With less than noSpace there is soon no space for an answer.
	lowSpace = 100 << 20
	noSpace  = 4 << 20
)

// disk has the known facts about a directory, other than its mode.
type disk struct {
	known    bool
	writable bool
	free     uint64
	// volatile names a file system that may not survive a restart; copies names one on which
	// overwriting needs space.
	volatile, copies string
}

// state checks the state directory from outside, because a daemon may have it open.
func (e *examination) state() {
	const subject = "state.dir"
	dir := e.Config.State.Dir
	info, err := e.stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.parent(subject, dir)
		return
	case errors.Is(err, fs.ErrPermission) && e.euid() != 0:
		e.add(Warning, StateNotSeen, subject, dir+" was not looked at: this user may not enter it", "run doctor as root or as the daemon's user; "+
			"systemd keeps the state directory of a dynamic user where only root and the service may enter")
		return
	case err != nil:
		e.add(Bad, StateUnusable, subject, err.Error(), "let the daemon's user reach it; doctor must run as that user")
		return
	case !info.IsDir():
		e.add(Bad, StateUnusable, subject, dir+" is not a directory", "name a directory, or remove the file")
		return
	case info.Mode().Perm()&0o007 != 0:
		e.add(Bad, StateOpen, subject, fmt.Sprintf("%s has mode %04o: others may enter it, and the daemon refuses that", dir, info.Mode().Perm()),
			"chmod 0700 "+dir)
		return
	}
	if owner, _, err := ownpath.Owner(dir); err == nil && e.User != nil && owner != e.User.UID && owner != 0 {
		e.add(Bad, StateUnusable, subject, fmt.Sprintf("%s belongs to uid %d, and the daemon runs as uid %d", dir, owner, e.User.UID),
			fmt.Sprintf("chown -R %d %s", e.User.UID, dir))
		return
	}
	if e.StateErr != nil {
		e.add(Bad, StateRefused, subject, "the daemon refuses it: "+e.StateErr.Error(), "docs/runbook.md, \"The ledger is lost\", has a line for each reason")
		return
	}
	e.space(subject, dir, e.disk(dir))
}

// parent checks the directory in which the daemon would create its state directory.
func (e *examination) parent(subject, dir string) {
	above := filepath.Dir(dir)
	switch info, err := os.Stat(above); {
	case e.ofUnit() && above == "/var/lib":
		e.add(Good, StateMissing, subject, dir+" does not exist yet: systemd creates it for the service's user at the first start of the unit (StateDirectory=)", "")
	case err == nil && info.IsDir() && e.disk(above).writable:
		e.add(Warning, StateMissing, subject, dir+" does not exist", "nothing, if the daemon never ran here: it creates the directory")
	default:
		e.add(Warning, StateMissing, subject, dir+" does not exist, and this user may not create it",
			"create it with mode 0700 for the daemon's user, or let systemd do that")
	}
}

func (e *examination) space(subject, dir string, d disk) {
	free := fmt.Sprintf("%d MiB are free", d.free>>20)
	switch {
	case !d.known:
		e.add(Good, StateGood, subject, dir+" is there; this system tells nothing more about it", "")
	case !d.writable:
		e.add(Bad, StateUnusable, subject, "this user may not write to "+dir, "give it to the daemon's user; doctor must run as that user")
	case d.free < noSpace:
		e.add(Bad, StateLow, subject, dir+": "+free, "free some space: no rotation begins without it")
	case d.free < lowSpace:
		e.add(Warning, StateLow, subject, dir+": "+free, "free some space")
	case d.volatile != "":
		e.add(Warning, StateVolatile, subject, fmt.Sprintf("%s is on %s, which may not survive a restart: a pending secret would be lost", dir, d.volatile),
			"use a disk that survives a restart")
	case d.copies != "":
		e.add(Good, StateGood, subject, fmt.Sprintf("%s can be written, and %s. On %s overwriting needs space: keep some free", dir, free, d.copies),
			"")
	default:
		e.add(Good, StateGood, subject, dir+" can be written, and "+free, "")
	}
}
