package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"rotatord/internal/durable"
	"rotatord/internal/event"
)

// This file finds out what is there of the record when it is opened, and begins files.

// start opens the record as it is found, and continues its chain or begins a new one.
func (r *Recorder) start() error {
	if err := r.place(); errors.Is(err, errPlace) {
		r.err = err
		return err
	} else if err != nil {
		return r.failed(err)
	}
	head, headErr := readHead(r.headFile)
	if r.synced.Seq > head.Seq { // of this process, which has opened the record before
		head = r.synced
	}
	found, err := scan(r.o.File, head)
	if err != nil {
		return r.failed(err)
	}
	all, err := files(r.o.File)
	if err != nil {
		return r.failed(err)
	}
	if headErr == nil && head.IsZero() && len(all) == 1 && found.size > 0 && found.highest == 0 {
		r.err = fmt.Errorf("%w: %s has no line of a record of events, and nothing beside it says that it was one: choose another path, or move the file away", errPlace, r.o.File)
		return r.err
	}
	before := scanned{}
	if found.first == 0 {
		if before, err = lastOf(all, head); err != nil {
			return r.failed(err)
		}
	}
	damage := r.damageOf(found, before, head, headErr)
	next := max(head.Seq, r.head.Seq, found.highest, found.last.Seq, before.highest, before.last.Seq) + 1
	switch {
	case damage != "":
		return r.begin(damage, max2(head, max2(found.last, before.last)), next)
	case found.first != 0:
		return r.goOn(found)
	case before.first != 0:
		return r.turn(before.last, all, "")
	}
	return r.begin("", Head{}, 1)
}

func max2(a, b Head) Head {
	if b.Seq > a.Seq {
		return b
	}
	return a
}

// lastOf returns what the last full file holds; zero if there is none.
func lastOf(all []file, head Head) (scanned, error) {
	if len(all) < 2 || all[len(all)-2].damaged {
		return scanned{}, nil
	}
	return scan(all[len(all)-2].path, head)
}

// damageOf says what is wrong with the record as it was found; empty if its chain goes on. An unfinished end behind
// the head is what a crash leaves, and not damage.
func (r *Recorder) damageOf(found, before scanned, head Head, headErr error) string {
	last := max2(found.last, before.last)
	switch {
	case headErr != nil:
		return headErr.Error()
	case found.bad != "" && (found.first == 0 || head.Seq > found.last.Seq):
		return fmt.Sprintf("line %d of %s: %s", found.badLine, r.o.File, found.bad)
	case last.Seq < head.Seq && !found.exists:
		return fmt.Sprintf("%s is not there, and had the lines up to number %d", r.o.File, head.Seq)
	case last.Seq < head.Seq:
		return fmt.Sprintf("%s ends at number %d, and had the lines up to number %d", r.o.File, last.Seq, head.Seq)
	case !last.IsZero() && r.headIsNew:
		return fmt.Sprintf("%s is not there, so it is not known where the record ended", headPath(r.o.File))
	}
	return ""
}

// goOn opens the file as it was found, without its unfinished end.
func (r *Recorder) goOn(found scanned) error {
	f, err := os.OpenFile(r.o.File, os.O_RDWR, 0)
	if err != nil {
		return r.failed(err)
	}
	var torn *event.AuditTorn
	if found.size > found.good {
		torn = &event.AuditTorn{File: r.o.File, Bytes: found.size - found.good, Kept: r.keepAside("torn", f, found.last.Seq, found.good, found.size)}
		if err := f.Truncate(found.good); err != nil {
			_ = f.Close()
			return r.failed(err)
		}
	}
	r.adopt(f, found.last, found.good, found.good, found.first, found.firstAt)
	if torn != nil {
		r.tellHere(*torn)
	}
	return nil
}

// keepAside keeps bytes that are no lines of the record beside it, at most the first MiB of them, and returns where; empty
// if that failed. last is the number of the line before them.
func (r *Recorder) keepAside(what string, f *os.File, last uint64, from, to int64) string {
	const most = 1 << 20
	aside := make([]byte, min(to-from, most))
	n, err := f.ReadAt(aside, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	path := free(fmt.Sprintf("%s.%s-%d", r.o.File, what, last+1))
	if err := durable.WriteFile(path, aside[:n], fileMode); err != nil {
		return ""
	}
	return path
}

// begin begins a new chain in a new file. What is there is moved aside. next is the number of its first line.
func (r *Recorder) begin(damage string, before Head, next uint64) error {
	kept := ""
	if info, err := os.Lstat(r.o.File); err == nil && info.Size() > 0 {
		first := next
		if found, err := scan(r.o.File, Head{}); err == nil && found.first != 0 {
			first = found.first
		}
		kept = free(numbered(r.o.File, first) + damagedSuffix)
	}
	d := event.AuditChain{File: r.o.File, Damage: damage, Head: before.String(), Kept: kept}
	l := lineOf(event.New(r.o.Now(), "", event.Daemon, d))
	l.Seq = next
	if err := r.create(l, kept); err != nil {
		return err
	}
	if damage != "" {
		r.notice(d)
	}
	return nil
}

// free returns a path that does not exist yet: the one that is asked for, or that with -2, -3 and so on.
func free(path string) string {
	unused := path
	for n := 2; ; n++ {
		if _, err := os.Lstat(unused); err != nil {
			return unused
		}
		unused = fmt.Sprintf("%s-%d", path, n)
	}
}

// isFull reports whether a new file should begin.
func (r *Recorder) isFull() bool {
	full := r.o.MaxSize > 0 && r.durable >= r.o.MaxSize
	old := r.o.MaxAge > 0 && !r.firstAt.IsZero() && r.o.Now().Sub(r.firstAt) >= r.o.MaxAge
	return (full || old) && r.head.Seq > r.first
}

// turnFile gives the file, of which all lines are on the disk, the name of a full one, and begins a new one.
func (r *Recorder) turnFile() {
	all, err := files(r.o.File)
	if err != nil {
		return
	}
	name := free(numbered(r.o.File, r.first))
	all = append(all[:len(all)-1], file{path: name, first: r.first}, all[len(all)-1])
	_ = r.turn(r.synced, all, name)
}

// turn continues the chain in a new file. all are the files with the full one before it. aside is the name that the
// file that was written gets; empty if there is none.
func (r *Recorder) turn(head Head, all []file, aside string) error {
	full := all[:len(all)-1]
	keepFrom := 0
	if r.o.Keep > 0 {
		keepFrom = max(len(full)-r.o.Keep, 0)
	}
	d := event.AuditFile{File: r.o.File, Before: filepath.Base(full[len(full)-1].path), Head: head.String(), KeptFrom: full[keepFrom].first}
	l := lineOf(event.New(r.o.Now(), "", event.Daemon, d))
	l.Seq, l.Prev = head.Seq+1, head.Hash
	if err := r.create(l, aside); err != nil {
		return err
	}
	r.notice(d)
	for _, old := range full[:keepFrom] { // what cannot be removed now is removed with the next file
		_ = os.Remove(old.path)
	}
	return nil
}

// create makes a new file with its first line durable, moves the file that is there aside, and puts the new file in its
// place. If that fails, the file before it is where it was. aside is empty if no file is there.
func (r *Recorder) create(l Line, aside string) error {
	next := r.o.File + ".next"
	f, err := os.OpenFile(next, os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return r.failed(err)
	}
	text, hash := l.encode()
	end := int64(len(text)) + int64(r.open)*room // those requests keep their room
	err = allocate(f, 0, end)
	if err == nil {
		_, err = f.WriteAt(text, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = r.exchange(next, aside)
	}
	if err != nil {
		return r.failed(errors.Join(err, f.Close(), os.Remove(next)))
	}
	if r.file != nil {
		_ = r.file.Close()
	}
	r.adopt(f, Head{l.Seq, hash}, int64(len(text)), end, l.Seq, l.At)
	return nil
}

// exchange moves the file that is there aside, and puts a new one in its place.
func (r *Recorder) exchange(next, aside string) error {
	if aside != "" {
		if err := os.Rename(r.o.File, aside); err != nil {
			return err
		}
	}
	if err := os.Rename(next, r.o.File); err != nil {
		if aside != "" {
			err = errors.Join(err, os.Rename(aside, r.o.File))
		}
		return err
	}
	return durable.SyncDir(filepath.Dir(r.o.File))
}

// adopt takes an open file, of which everything is on the disk, as the one that is written. Lines that wait follow its
// last line.
func (r *Recorder) adopt(f *os.File, head Head, size, reserved int64, first uint64, firstAt time.Time) {
	lines := r.waiting
	r.waiting, r.written, r.waitingBytes = nil, 0, 0
	r.file, r.head, r.synced, r.err = f, head, head, nil
	r.size, r.end, r.durable, r.reserved, r.first, r.firstAt = size, size, size, reserved, first, firstAt
	r.facts = factsOf(f)
	r.headIsNew = false
	r.keepHead()
	for _, l := range lines {
		if err := r.add(l.line, l.line.Token); err != nil {
			r.lose(l.line.At, err)
		}
	}
}

// tellHere adds what the recorder has to tell of itself.
func (r *Recorder) tellHere(d event.Detail) {
	if r.add(lineOf(event.New(r.o.Now(), "", event.Daemon, d)), "") == nil {
		_ = r.flush()
	}
	r.notice(d)
}
