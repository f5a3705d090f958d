// Package audit keeps the record of events: who did what, when, why, and what came of it. It is a file of one JSON
// object a line, which are chained by their hashes.
//
// # Guarantees
//
//   - A request that changes or ends a secret leaves only after its line is on the disk ([Recorder.Record]), and only if
//     there is room for the lines that will say what came of it ([Recorder.Reserve]). So with a full disk nothing is
//     sent that could not be recorded to its end. Requests that wait at the same time share one fsync.
//   - A disk that does not answer keeps a request for at most [Patience]; then the request is given up, and what comes
//     late does not bring it back. Head, counters and notices are read from memory, whatever the disk does.
//   - All other lines are written at once and are on the disk a second later. A crash of the process loses none of them.
//     A crash of the machine can lose those of its last second.
//   - Each line has the hash of the line before it, also across files. [Verify] names each line that was changed,
//     removed, inserted, moved or repeated. The end of the record is compared with the head, which is kept beside it
//     and which log and metrics carry to other machines.
//   - A record that is missing, cut or damaged does not stop the daemon. A new chain begins, and that is told. What
//     another program appends is kept beside the record, and is not in the chain.
//   - Nothing in a line is a secret: no event has one, and texts from elsewhere are scrubbed. Lines, files and what is
//     kept in memory are bounded.
//
// # What it cannot do
//
// Whoever may write the file may write another one, with hashes that fit, and another head. Against root of the machine
// only a head that has left the machine helps: a record that does not have that line was replaced.
package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rotatord/internal/durable"
	"rotatord/internal/event"
	"rotatord/internal/ownpath"
)

// Options say where the record is and how it is kept. File is required.
type Options struct {
	File    string
	MaxSize int64         // a file that has that many bytes is full; 0: never
	MaxAge  time.Duration // a file whose first line is older is full; 0: never
	Keep    int           // how many full files are kept; 0: all
	Now     func() time.Time
}

const (
	fileMode = 0o600
	// room is what is reserved for the lines of one request and of its outcome.
	room = 64 << 10
	// chunk is how much is allocated at once while the disk has plenty of room.
	chunk = 1 << 20
	// maxWaiting bounds the lines in memory that the disk has not taken, in bytes.
	maxWaiting = 1 << 20
	// syncAfter is how long a line that nothing waits for may be in memory of the kernel only, and retryAfter is how
	// long after a failure it is tried again.
	syncAfter  = time.Second
	retryAfter = 5 * time.Second
)

// Recorder writes the record. It is safe for concurrent use. Create it with [Open].
type Recorder struct {
	o Options

	// sync is held by whoever makes lines durable or changes the file. It is taken before mu. Both are held while the
	// disk works, so nothing that must answer at once may take them.
	sync     turn
	mu       sync.Mutex
	syncData func(*os.File) error // durable.SyncData, but for tests
	late     durable.Unended      // the steps that were given up and have not ended

	file      *os.File // nil: it could not be opened yet, see start
	headFile  *os.File
	headIsNew bool // the file of the head was not there at the start
	closed    bool

	head     Head  // the last line, on the disk or not
	synced   Head  // the last line on the disk
	size     int64 // the end of what is written
	end      int64 // the end of what was ever written to this file: what is behind it, another program has written
	durable  int64 // the end of what is on the disk
	reserved int64 // the end of what is allocated
	first    uint64
	firstAt  time.Time
	facts    facts

	waiting      []pendingLine // the lines after synced
	written      int           // how many of them are written
	waitingBytes int

	rooms map[string]int // by token: how many requests have room for their lines
	open  int            // how many requests that are

	gap   event.AuditGap // events that could not be taken
	lost  atomic.Uint64  // all of them since the start
	syncs atomic.Uint64
	err   error // why the last write failed; nil if it did not
	timer *time.Timer

	shown   atomic.Pointer[Head] // synced, for who must not wait
	news    sync.Mutex           // held for notices alone
	notices []event.Detail
}

// pendingLine is a line that is not on the disk yet.
type pendingLine struct {
	line Line
	text []byte
}

// Open opens the record, or begins it. A disk that cannot be written now is not an error: [Recorder.Prove] and each
// request say so, and it is tried again. An error is a place that the record must not be in.
func Open(o Options) (*Recorder, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Recorder{o: o, rooms: make(map[string]int), sync: newTurn(), syncData: durable.SyncData}
	r.sync.take()
	defer r.sync.give()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.start(); errors.Is(err, errPlace) || errors.Is(err, fs.ErrPermission) {
		r.closeFiles()
		return nil, err
	}
	return r, nil
}

// errPlace is in an error about a place where no record can be.
var errPlace = errors.New("audit.file")

// Subscriber returns what takes the events of a stream. It must be queued, since it writes to a disk.
func (r *Recorder) Subscriber() *event.Subscriber {
	var left []event.Kind
	for _, d := range event.Definitions() {
		if d.Unrecorded {
			left = append(left, d.Kind)
		}
	}
	return event.NewSubscriber("record", event.Ignore(left...),
		event.Ignore(event.Record...), // the recorder writes those itself
		event.Ignore(event.Stopped),   // and this one when it is closed
		event.All(r.take))
}

// take records an event that nothing waits for. If lines come faster than once a second makes them durable, it does so
// now.
func (r *Recorder) take(e event.Event) {
	if _, err := r.append(e, nil); err != nil {
		return // it is counted
	}
	r.mu.Lock()
	many := r.waitingBytes > maxWaiting/2 && r.err == nil
	r.mu.Unlock()
	if many {
		_ = r.Sync()
	}
}

// Dropped counts events that the queue before the recorder has dropped, because the disk did not answer.
func (r *Recorder) Dropped(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gap.Events == 0 {
		r.gap.Since = r.o.Now()
	}
	r.gap.Events += uint64(n)
	r.lost.Add(uint64(n))
	r.gap.Err = errSlow
}

var errSlow = errors.New("the disk did not answer for too long")

// Reserve keeps room on the disk for the lines of one request about a token, and of its outcome, until release is
// called. An error means that they could not be recorded, so that the request must not leave. It waits for the disk until
// ctx ends, and at most for [Patience].
func (r *Recorder) Reserve(ctx context.Context, token string) (release func(), err error) {
	err = r.within(ctx, func(*step) error { return r.keepRoom(token) }, func() { r.giveRoom(token) })
	if err != nil {
		return nil, err
	}
	var once sync.Once
	return func() { once.Do(func() { r.giveRoom(token) }) }, nil
}

func (r *Recorder) keepRoom(token string) error {
	if err := r.writable(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.started(); err != nil {
		return err
	}
	if err := r.reserve(int64(r.open+1) * room); err != nil {
		return r.failed(err)
	}
	r.rooms[token]++
	r.open++
	return nil
}

// giveRoom gives the room of one request back. If the disk does not answer, that is done once it does.
func (r *Recorder) giveRoom(token string) {
	give := func() {
		r.open--
		if r.rooms[token]--; r.rooms[token] == 0 {
			delete(r.rooms, token)
		}
		r.mu.Unlock()
	}
	if r.mu.TryLock() {
		give()
	} else {
		go func() { r.mu.Lock(); give() }()
	}
}

// Record writes an event and returns once it is on the disk. An error means that it may not be, and that what it tells
// of must not be done. It waits for the disk until ctx ends, and at most for [Patience].
func (r *Recorder) Record(ctx context.Context, e event.Event) error {
	return r.within(ctx, func(s *step) error {
		seq, err := r.append(e, s)
		if err != nil {
			return err
		}
		return r.syncTo(seq, false)
	}, nil)
}

// Prove returns why a request could not be recorded now; nil if it could.
func (r *Recorder) Prove(ctx context.Context) error {
	err := r.within(ctx, func(*step) error { return r.syncTo(r.last(), true) }, nil)
	if err != nil {
		return err
	}
	release, err := r.Reserve(ctx, "")
	if err == nil {
		release()
	}
	return err
}

// Sync makes all lines durable that there are.
func (r *Recorder) Sync() error { return r.syncTo(r.last(), false) }

// last returns the number of the last line, on the disk or not.
func (r *Recorder) last() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.head.Seq
}

// Path returns where the record is.
func (r *Recorder) Path() string { return r.o.File }

// Stats are counters for metrics.
type Stats struct {
	Seq   uint64 // the number of the last line that is on the disk
	Lost  uint64 // events since the start that could not be recorded
	Syncs uint64 // fsyncs since the start
}

// Stats returns the counters.
func (r *Recorder) Stats() Stats {
	return Stats{Seq: r.Head().Seq, Lost: r.lost.Load(), Syncs: r.syncs.Load()}
}

// Head returns the last line that is on the disk.
func (r *Recorder) Head() Head {
	if head := r.shown.Load(); head != nil {
		return *head
	}
	return Head{}
}

// Notices returns what the recorder has to tell since the last call: it is in the record already.
func (r *Recorder) Notices() []event.Detail {
	r.news.Lock()
	defer r.news.Unlock()
	all := r.notices
	r.notices = nil
	return all
}

// notice has Notices tell of d.
func (r *Recorder) notice(d event.Detail) {
	r.news.Lock()
	defer r.news.Unlock()
	r.notices = append(r.notices, d)
}

// Close records that the daemon has stopped, makes all lines durable and closes the files. Later events are lost.
func (r *Recorder) Close() error {
	_, err := r.append(event.New(r.o.Now(), "", event.Daemon, event.DaemonEnd{}), nil)
	if err == nil {
		err = r.Sync()
	}
	r.sync.take()
	defer r.sync.give()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	if r.closed = true; r.timer != nil {
		r.timer.Stop()
	}
	if r.headFile != nil {
		_ = r.headFile.Sync() // it is written without one
	}
	r.closeFiles()
	return err
}

func (r *Recorder) closeFiles() {
	for _, f := range []*os.File{r.file, r.headFile} {
		if f != nil {
			_ = f.Close()
		}
	}
	r.file, r.headFile = nil, nil
}

// append writes the line of an event. It does not wait for the disk to make it durable. Nothing is written if the step
// that it is a part of was given up meanwhile; s is nil if it is a part of none.
func (r *Recorder) append(e event.Event, s *step) (seq uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.givenUp() {
		return 0, errGivenUp
	}
	defer r.wake(syncAfter)
	if err := r.started(); err != nil {
		r.lose(e.At, err)
		return 0, err
	}
	if r.gap.Events > 0 {
		gap := event.New(r.o.Now(), "", event.Daemon, r.gap)
		if r.add(lineOf(gap), "") == nil {
			r.notice(r.gap)
			r.gap = event.AuditGap{}
		}
	}
	if err := r.add(lineOf(e), e.Token); err != nil {
		r.lose(e.At, err)
		return 0, err
	}
	r.flush() // what fails is tried again by whoever waits for it
	return r.head.Seq, nil
}

// add gives a line its place in the chain.
func (r *Recorder) add(l Line, token string) error {
	l.Seq, l.Prev = r.head.Seq+1, r.head.Hash
	text, hash := l.encode()
	if err := r.fits(len(text), token); err != nil {
		return err
	}
	r.waiting = append(r.waiting, pendingLine{l, text})
	r.waitingBytes += len(text)
	r.head = Head{l.Seq, hash}
	return nil
}

// fits returns an error if a line would take the room that is kept for requests, or if too many lines wait.
func (r *Recorder) fits(size int, token string) error {
	bound := maxWaiting + r.open*room
	if r.waitingBytes+size > bound {
		return cmp.Or(r.err, errors.New("too many lines wait for the disk"))
	}
	if r.rooms[token] > 0 && token != "" {
		return nil
	}
	if err := r.reserve(int64(r.open)*room + int64(size)); err != nil {
		return r.failed(err)
	}
	return nil
}

// lose counts an event of that time that is not recorded.
func (r *Recorder) lose(at time.Time, err error) {
	r.lost.Add(1)
	if r.gap.Events == 0 {
		r.gap.Since = at
	}
	r.gap.Events++
	r.gap.Err = err
}

// reserve allocates room for that many bytes more than what is written and waits.
func (r *Recorder) reserve(more int64) error {
	end := r.size + more
	for _, l := range r.waiting[r.written:] {
		end += int64(len(l.text))
	}
	if end <= r.reserved {
		return nil
	}
	from, to := max(r.reserved, r.size), end
	if plenty(filepath.Dir(r.o.File)) { // else an attempt that fails could take the last blocks of the disk
		to = (end/chunk + 1) * chunk
	}
	err := allocate(r.file, from, to)
	if err == nil {
		r.reserved = to
	}
	return err
}

// flush writes the lines that are not written yet. After an error it begins there the next time: what was written of
// a line is written again.
func (r *Recorder) flush() error {
	if err := r.alone(); err != nil {
		return r.failed(err)
	}
	for r.written < len(r.waiting) {
		text := r.waiting[r.written].text
		n, err := r.file.WriteAt(text, r.size)
		r.end = max(r.end, r.size+int64(n))
		if err != nil {
			return r.failed(err)
		}
		r.size += int64(len(text))
		r.written++
	}
	return nil
}

// failed notes why the record cannot be written.
func (r *Recorder) failed(err error) error {
	r.err = fmt.Errorf("the record of events cannot be written: %w. Nothing that changes a secret is sent until it can be: look at the disk of %s", err, r.o.File)
	return r.err
}

// writable tries a write that failed again.
func (r *Recorder) writable() error {
	r.mu.Lock()
	failing := r.err != nil
	r.mu.Unlock()
	if failing {
		return r.Sync()
	}
	return nil
}

// wake makes what is written durable after a while. One timer serves all lines until they are.
func (r *Recorder) wake(after time.Duration) {
	if r.timer != nil || r.closed {
		return
	}
	r.timer = time.AfterFunc(after, func() {
		err := r.Sync()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.timer = nil
		switch {
		case err != nil:
			r.wake(retryAfter)
		case len(r.waiting) > 0: // they came meanwhile
			r.wake(syncAfter)
		}
	})
}

// syncTo returns once the line of that number is on the disk. Who waits meanwhile is served by the same fsync. With
// look it also finds out whether the file is there if that line is on the disk already.
func (r *Recorder) syncTo(seq uint64, look bool) error {
	r.sync.take()
	defer r.sync.give()
	runtime.Gosched() // what is ready to write its line does so, and is served by the same fsync
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.synced.Seq >= seq && r.err == nil && r.file != nil && !look {
		return nil
	}
	if r.closed {
		return errClosed
	}
	if r.file == nil {
		if err := r.start(); err != nil {
			return err
		}
	}
	if err := r.present(); err != nil {
		return err
	}
	if err := r.flush(); err != nil {
		return err
	}
	f, target, n, end, full := r.file, r.head, len(r.waiting), r.size, r.isFull()
	if !full { // events go on to be written meanwhile; a file that is full must come to its end
		r.mu.Unlock()
	}
	r.syncs.Add(1)
	err := r.syncData(f)
	if !full {
		r.mu.Lock()
	}
	if err != nil {
		// It is not known which of the lines are on the disk: all are written again.
		r.written, r.size = 0, r.durable
		return r.failed(err)
	}
	for _, l := range r.waiting[:n] {
		r.waitingBytes -= len(l.text)
	}
	r.waiting = slices.Clone(r.waiting[n:])
	r.written -= n
	r.durable, r.synced, r.err = end, target, nil
	r.keepHead()
	if r.isFull() && len(r.waiting) == 0 {
		r.turnFile() // if it fails, the file goes on, and it is tried again with the next line
	}
	return nil
}

var errClosed = errors.New("the record of events is closed")

// keepHead writes the head beside the record. It needs no fsync: an older one is not wrong.
func (r *Recorder) keepHead() {
	head := r.synced
	r.shown.Store(&head)
	if r.headFile != nil {
		_, _ = r.headFile.WriteAt(encodeHead(r.synced), 0)
	}
}

// started returns an error if there is no file to write to.
func (r *Recorder) started() error {
	switch {
	case r.closed:
		return errClosed
	case r.file == nil:
		return cmp.Or(r.err, errors.New("the record of events is not open"))
	}
	return nil
}

// present finds out that the file was removed, replaced or cut while it was written. Then a new chain begins with the
// lines that are not on the disk yet.
func (r *Recorder) present() error {
	there, err := os.Lstat(r.o.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r.failed(err)
	}
	damage := ""
	ours, statErr := r.file.Stat()
	switch {
	case err != nil:
		damage = "the file was removed while the daemon wrote it"
	case statErr != nil:
		return r.failed(statErr)
	case !os.SameFile(there, ours):
		damage = "the file was replaced while the daemon wrote it"
	case ours.Size() < r.size:
		damage = fmt.Sprintf("the file was cut to %d bytes while the daemon wrote it, and had %d", ours.Size(), r.size)
	default:
		r.compareFacts(there)
		return nil
	}
	_ = r.file.Close()
	r.file = nil
	if err := r.openHead(); err != nil { // its directory may have been moved away with it
		return r.failed(err)
	}
	return r.begin(damage, r.synced, r.head.Seq+1)
}

// place makes the directory of the record, checks that the record may be there, and opens the file of the head.
func (r *Recorder) place() error {
	dir := filepath.Dir(r.o.File)
	if err := durable.Mkdir(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: the directory %s does not exist, and neither does its parent: create it for the daemon's user", errPlace, dir)
		}
		return err
	}
	for _, path := range Paths(r.o.File) {
		if err := ownpath.Check(path); err != nil {
			return fmt.Errorf("%w: %w", errPlace, err)
		}
	}
	if info, err := os.Lstat(r.o.File); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s exists and is not a regular file: move it away or choose another path", errPlace, r.o.File)
	}
	return r.openHead()
}

// openHead opens the file of the head, which is kept beside the record, unless the one that is open is there.
func (r *Recorder) openHead() error {
	dir, path := filepath.Dir(r.o.File), headPath(r.o.File)
	there, err := os.Lstat(path)
	isNew := errors.Is(err, fs.ErrNotExist)
	if r.headFile != nil {
		if ours, statErr := r.headFile.Stat(); err == nil && statErr == nil && os.SameFile(there, ours) {
			return nil
		}
		_ = r.headFile.Close()
		r.headFile = nil
	}
	if err := durable.Mkdir(dir); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return err
	}
	if err := lock(f); err != nil {
		_ = f.Close()
		return fmt.Errorf("%w: another process writes %s: is a second rotatord running?", errPlace, r.o.File)
	}
	if isNew {
		r.headIsNew = true
		if err := durable.SyncDir(dir); err != nil {
			_ = f.Close()
			return err
		}
	}
	r.headFile = f
	return nil
}
