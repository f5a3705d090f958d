package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"rotatord/internal/event"
	"rotatord/internal/ownpath"
)

// This file notices what other programs do to the file while it is written.

// alone makes sure that the file ends where the last line ends, before more is written. What another program has appended
// is kept beside the record and cut off. A file that is too short is an error: a write behind its end would leave a hole;
// present begins a new one.
func (r *Recorder) alone() error {
	info, err := r.file.Stat()
	if err != nil {
		return nil // the write says more
	}
	switch size := info.Size(); {
	case size < r.size:
		return errors.New("the file was cut")
	case size > r.end:
		return r.cutForeign(size)
	}
	return nil
}

// cutForeign cuts off what another program has appended.
func (r *Recorder) cutForeign(size int64) error {
	bytes := size - r.end
	d := event.AuditTouched{File: r.o.File, Bytes: bytes, Kept: r.keepAside("foreign", r.file, r.head.Seq, r.end, size),
		What: fmt.Sprintf("%d bytes that rotatord has not written were at the end of %s", bytes, r.o.File)}
	if err := r.file.Truncate(r.end); err != nil {
		return err
	}
	// With the bytes behind the end, the blocks are gone that were allocated there.
	if r.reserved = r.end; r.open > 0 {
		if err := r.reserve(int64(r.open) * room); err != nil {
			_ = r.failed(err) // who needs the room finds out; lines are written while there is any
		}
	}
	_ = r.add(lineOf(event.New(r.o.Now(), "", event.Daemon, d)), "") // if there is no room for it, it is still told
	r.notice(d)
	return nil
}

// facts are what a file has beside its content, as far as it says who may read and change it.
type facts struct {
	mode     fs.FileMode
	uid, gid int
}

func factsOf(f *os.File) facts {
	info, err := f.Stat()
	if err != nil {
		return facts{}
	}
	uid, gid := ownpath.OwnerOf(info)
	return facts{info.Mode(), uid, gid}
}

// compareFacts tells if mode or owner of the file was changed since the last time.
func (r *Recorder) compareFacts(info fs.FileInfo) {
	uid, gid := ownpath.OwnerOf(info)
	before, now := r.facts, facts{info.Mode(), uid, gid}
	if r.facts = now; now == before || before == (facts{}) {
		return
	}
	what := fmt.Sprintf("the owner of %s was changed from %d:%d to %d:%d", r.o.File, before.uid, before.gid, now.uid, now.gid)
	if now.mode != before.mode {
		what = fmt.Sprintf("the mode of %s was changed from %v to %v", r.o.File, before.mode, now.mode)
	}
	d := event.AuditTouched{File: r.o.File, What: what}
	_ = r.add(lineOf(event.New(r.o.Now(), "", event.Daemon, d)), "")
	r.notice(d)
}
