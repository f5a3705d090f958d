package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"rotatord/internal/audit"
	"rotatord/internal/ownpath"
)

// record checks the record of events from outside, because a daemon may write it. Without a record nothing is rotated.
func (e *examination) record() {
	const subject = "audit.file"
	path := e.Config.Audit.File
	if path == "" {
		return
	}
	dir := filepath.Dir(path)
	found, err := e.inspect(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.recordMissing(subject, path)
		return
	case errors.Is(err, fs.ErrPermission):
		e.add(Warning, RecordNotSeen, subject, path+" was not looked at: this user may not read it", "run doctor as root or as the daemon's user")
		return
	case err != nil:
		e.add(Bad, RecordUnusable, subject, err.Error(), "move it away, or name another path in audit.file: nothing is rotated that cannot be recorded")
		return
	}
	for _, p := range audit.Paths(path) {
		if err := ownpath.AsOwner(path)(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			e.add(Bad, RecordOpen, subject, "the daemon refuses it: "+err.Error(), fmt.Sprintf("chmod 0700 %s; chmod 0600 %s", dir, strings.Join(audit.Paths(path)[1:], " ")))
			return
		}
	}
	if found.Problem != "" {
		e.add(Bad, RecordDamaged, subject, found.Problem, "rotatord audit verify names each line; docs/audit.md, \"What to do about a damaged record\"")
		return
	}
	if d := e.disk(dir); e.recordSpace(subject, dir, d) {
		return
	}
	if len(found.Damaged) > 0 {
		e.add(Warning, RecordDamaged, subject, "it was damaged before, and a new chain has begun: "+strings.Join(found.Damaged, ", "),
			"find out who or what did it, and move that file to where you keep it: docs/audit.md, \"What to do about a damaged record\"")
		return
	}
	last := "it has no line yet"
	if !found.Head.IsZero() {
		last = fmt.Sprintf("the last line is number %d, of %s, and fits the head", found.Head.Seq, shown(found.LastAt))
	}
	e.add(Good, RecordGood, subject, path+" can be written; "+last, "")
}

// recordSpace reports the lack of room, and returns whether there is one.
func (e *examination) recordSpace(subject, dir string, d disk) bool {
	switch {
	case !d.known:
		return false
	case !d.writable:
		e.add(Bad, RecordUnusable, subject, "this user may not write to "+dir, "give it to the daemon's user; doctor must run as that user")
	case d.free < noSpace:
		e.add(Bad, RecordLow, subject, fmt.Sprintf("%s: %d KiB are free", dir, d.free>>10), "free some space: nothing is rotated that cannot be recorded")
	default:
		return false
	}
	return true
}

// recordMissing checks where the daemon would begin the record.
func (e *examination) recordMissing(subject, path string) {
	dir := filepath.Dir(path)
	for _, above := range []string{dir, filepath.Dir(dir)} {
		info, err := os.Stat(above)
		d := e.disk(above)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err == nil && info.IsDir() && (d.writable || !d.known):
			e.add(Good, RecordMissing, subject, path+" does not exist yet: the daemon begins it at its first start", "")
		default:
			e.add(Bad, RecordUnusable, subject, path+" does not exist, and this user may not create it", "create "+dir+" with mode 0700 for the daemon's user")
		}
		return
	}
	if strings.HasPrefix(dir, e.Config.State.Dir+"/") { // the state directory is not there either, and that is told
		e.add(Good, RecordMissing, subject, path+" does not exist yet: the daemon begins it at its first start", "")
		return
	}
	e.add(Bad, RecordUnusable, subject, dir+" does not exist, and neither does its parent", "create it with mode 0700 for the daemon's user")
}
