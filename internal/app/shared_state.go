package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rotatord/internal/httpapi"
	"rotatord/internal/kvstore"
	"rotatord/internal/ledger"
	"rotatord/internal/ledger/shared"
	"rotatord/internal/ledger/transfer"
	"rotatord/internal/moment"
	"rotatord/internal/pending"
	"rotatord/internal/replica"
	"rotatord/internal/rotation"
)

// This file opens the ledger that several replicas share. It is in Vault, which may be away when the daemon starts:
// then the daemon lives, is not ready, and tries again until it knows its tokens. From then on it learns what the
// other replicas save.

const (
	// joinRetry is how long the first retry waits after the ledger could not be read; the wait doubles up to
	// joinRetryMax.
	joinRetry    = 500 * time.Millisecond
	joinRetryMax = 5 * time.Second
	// learnRetry is when records are read again that could not be read.
	learnRetry = time.Second
	// unreadableEvery is how often records are read again that cannot be used.
	unreadableEvery = 15 * time.Second
	// mostRest is the longest rest after all records were read.
	mostRest = 3 * time.Second
	// lateEvery is how often the sealed answers on the disk are compared with the ledger.
	lateEvery = 15 * time.Second
)

// sharing is what a replica has beside what every daemon has.
type sharing struct {
	app     *App
	replica rotation.Replica
	where   string // the mount and the prefix of the shared ledger
	kv      kvstore.KV
	ledger  sharedLedger
	room    room
	copies  sharedCopies

	beginning     context.Context // ends when this replica stops to begin anything
	stopBeginning context.CancelFunc

	joined chan struct{} // closed when the tokens are known to the ledger
	wake   chan struct{} // something has changed for which join waits
	news   chan struct{} // changed is not empty
	late   chan struct{} // records were read, so that late answers are to be looked at again

	inventories sync.Mutex // held while an entry of an account is written

	mu       sync.Mutex
	err      error           // why the ledger cannot be read now; nil if it can
	changed  map[string]bool // what others have changed and this replica has not read yet; nameAll for all
	joinedAt time.Time       // when all records were read first; zero before that
	unread   time.Time       // since when changed is not empty; zero while it is

	// Only lateAnswers uses these, by rotation.
	classified map[string]uint64 // late answers, with the revision of the record that they were compared with
	superseded map[string]bool   // late answers that a later secret has replaced, which was told

	// Only join and run use it.
	toldUnreadable map[string]string // why records cannot be used, as it was logged, by token

	sealedHere atomic.Pointer[map[string]bool] // the answers on the disk, by rotation
	keptLate   atomic.Pointer[[]lateAnswer]    // those of them that came too late and are kept
}

// sharedLedger is the ledger of several replicas.
type sharedLedger interface {
	ledger.Ledger
	rotation.SharedLedger
	// Refresh reads records again, and RefreshAll all of them. The result is in no particular order.
	Refresh(ctx context.Context, tokens []string) ([]rotation.Record, error)
	RefreshAll(ctx context.Context) ([]rotation.Record, error)
	// Unreadable returns the tokens whose record could not be used when it was read last, and why.
	Unreadable() map[string]error
	// Synced returns when all records were read last; zero if they never were.
	Synced() time.Time
}

// sharedCopies are the copies of sealed answers.
type sharedCopies interface {
	rotation.Copies
	// Files returns all copies.
	Files(ctx context.Context) ([]pending.File, error)
}

// share opens what a replica has. It connects to nothing.
func (a *App) share() error {
	c := a.config.State.Shared
	name, err := c.Name()
	if err != nil {
		return err
	}
	s := newSharing(a, rotation.Replica{Name: name, Process: rand.Text(), Home: a.state.home, Claim: c.Claim})
	s.connect(kvstore.New(a.session, c.Mount, c.Prefix), a.state.sealed, a.listener.Addr().String())
	s.copies = shared.NewCopies(s.kv, a.state.sealed, name)
	s.where = c.Mount + "/" + c.Prefix
	a.sharing = s
	return nil
}

func newSharing(a *App, self rotation.Replica) *sharing {
	beginning, stop := context.WithCancel(context.Background())
	return &sharing{
		app: a, replica: self, beginning: beginning, stopBeginning: stop,
		joined: make(chan struct{}), wake: make(chan struct{}, 1), news: make(chan struct{}, 1), late: make(chan struct{}, 1),
		err: errors.New("it was not read yet"), changed: make(map[string]bool), classified: make(map[string]uint64), superseded: make(map[string]bool),
		toldUnreadable: make(map[string]string),
	}
}

// join makes the tokens known to the ledger, and tries again until it has done so or ctx ends. Then it learns what
// other replicas save until ctx ends.
func (s *sharing) join(ctx context.Context) {
	told := ""
	for wait := joinRetry; ; wait = min(2*wait, joinRetryMax) {
		err := s.tryJoin(ctx)
		if ctx.Err() != nil {
			return
		}
		s.setErr(err)
		if err == nil {
			break
		}
		if text := err.Error(); text != told {
			told = text
			s.app.log.Warn("the shared ledger cannot be used yet, so nothing is rotated here; it is tried again", "replica", s.replica.Name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			wait = joinRetry
		case <-time.After(wait):
		}
	}
	s.mu.Lock()
	s.joinedAt = s.app.now().UTC()
	s.mu.Unlock()
	close(s.joined)
	s.room.Nudge()
	s.app.log.Info("the shared ledger is read", "replica", s.replica.Name)
	s.app.outages.note("ledger", true)
	s.run(ctx)
}

// tryJoin reads the ledger, and makes all tokens known to it.
func (s *sharing) tryJoin(ctx context.Context) error {
	if err := s.room.MayBegin(); err != nil {
		return err
	}
	if err := transfer.Usable(ctx, s.kv); err != nil { // after this replica's entry was written: an export looks for it
		return err
	}
	records, err := s.readAll(ctx)
	if err != nil {
		return err
	}
	unfinished := ledger.Unfinished(records)
	if err := s.app.state.adopt(func(rotationID string) bool { _, ok := unfinished[rotationID]; return ok }); err != nil {
		return err
	}
	s.setUnreadable()
	return s.app.adoptLedger(ctx, func(ctx context.Context) error {
		return s.app.engine.joinLedger(ctx, s.beginning, s.ledger.Unreadable())
	})
}

// readAll reads all records. A single record that cannot be used does not fail it: it is shown with its token.
func (s *sharing) readAll(ctx context.Context) ([]rotation.Record, error) {
	before := s.ledger.Synced()
	if _, err := s.ledger.RefreshAll(ctx); err != nil && s.ledger.Synced().Equal(before) {
		return nil, err
	}
	return s.ledger.All(ctx)
}

// isJoined reports whether the tokens are known to the ledger.
func (s *sharing) isJoined() bool {
	select {
	case <-s.joined:
		return true
	default:
		return false
	}
}

// waitJoined waits until the tokens are known to the ledger, and returns false if ctx ends before. A daemon that is
// alone does not wait.
func (s *sharing) waitJoined(ctx context.Context) bool {
	if s == nil {
		return true
	}
	select {
	case <-s.joined:
		return true
	case <-ctx.Done():
		return false
	}
}

// errNotJoined says why nothing can be done with the ledger; nil if it can.
func (s *sharing) errNotJoined() error {
	if s == nil || s.isJoined() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("the shared ledger was not read yet, so this replica does nothing: %w", s.err)
}

func (s *sharing) setErr(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// note notes what other replicas have changed: names of tokens, of [nameAll] or of [namePauses]. It returns at once.
func (s *sharing) note(names []string) {
	s.mu.Lock()
	for _, name := range names {
		s.changed[name] = true
	}
	if len(s.changed) > 0 && s.unread.IsZero() {
		s.unread = s.app.now().UTC()
	}
	s.mu.Unlock()
	signal(s.news)
}

// hasChanged reports whether others have changed what a name stands for, and this replica has not read it yet.
func (s *sharing) hasChanged(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed[name]
}

// Names that stand for more than one token. They are not valid names of tokens.
const (
	nameAll    = replica.Everything
	namePauses = "pauses/"
)

// signal wakes what waits for a channel.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run learns what other replicas save until ctx ends.
func (s *sharing) run(ctx context.Context) {
	var retry <-chan time.Time
	var rest time.Time // nothing is read before
	again := time.NewTicker(unreadableEvery)
	defer again.Stop()
	for account := range accountsOf(s.app.InForce()) { // it may have been listed before
		s.note([]string{inventoryName(account)})
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.news:
		case <-retry:
		case <-again.C:
			s.note(slices.Collect(maps.Keys(s.ledger.Unreadable()))) // an operator may have repaired one
		}
		retry = nil
		if moment.Sleep(ctx, time.Until(rest)) != nil {
			return
		}
		began, all := time.Now(), s.hasChanged(nameAll)
		err := s.learn(ctx)
		if all { // while another replica changes very much, Vault gets time for other requests
			rest = time.Now().Add(min(time.Since(began), mostRest))
		}
		s.setErr(err)
		if err != nil {
			retry = time.After(learnRetry)
		}
		signal(s.late)
	}
}

// learn reads what other replicas have changed, and shows it to the engine.
func (s *sharing) learn(ctx context.Context) error {
	s.mu.Lock()
	changed := s.changed
	s.changed = make(map[string]bool)
	s.mu.Unlock()
	if len(changed) == 0 {
		return nil
	}
	began := s.app.now().UTC()
	err := s.read(ctx, changed)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		maps.Copy(s.changed, changed) // they are read again after a while
	case len(s.changed) > 0: // they came meanwhile
		s.unread = began
	default:
		s.unread = time.Time{}
	}
	return err
}

func (s *sharing) read(ctx context.Context, changed map[string]bool) error {
	var errs []error
	if changed[namePauses] || changed[nameAll] {
		if err := s.app.engine.rotator.LoadPauses(ctx); err != nil {
			errs = append(errs, err)
		} else {
			s.app.engine.replan(rotation.AllTokens)
		}
	}
	for name := range changed {
		if account, is := strings.CutPrefix(name, inventoryName("")); is {
			errs = append(errs, s.learnInventory(ctx, account))
		}
	}
	if changed[nameAll] {
		for account := range accountsOf(s.app.InForce()) {
			errs = append(errs, s.learnInventory(ctx, account))
		}
	}
	if changed[nameAll] {
		records, err := s.readAll(ctx)
		s.app.engine.learn(records)
		if err == nil {
			err = s.sweepCopies(ctx, records)
		}
		errs = append(errs, err)
	} else {
		errs = append(errs, s.readSome(ctx, changed))
	}
	s.setUnreadable()
	return errors.Join(errs...)
}

// setUnreadable shows which records cannot be used, and tells of each once.
func (s *sharing) setUnreadable() {
	unreadable := s.ledger.Unreadable()
	s.app.engine.setUnreadable(unreadable)
	for name, err := range unreadable {
		if s.toldUnreadable[name] != err.Error() {
			s.app.log.Error("a record of the shared ledger cannot be used, so nothing is done for its token", "token", name, "error", err)
			s.toldUnreadable[name] = err.Error()
		}
	}
	maps.DeleteFunc(s.toldUnreadable, func(name, _ string) bool { return unreadable[name] == nil })
}

// readSome reads the records of tokens that are configured. A single record that cannot be used does not fail it.
func (s *sharing) readSome(ctx context.Context, changed map[string]bool) error {
	var names []string
	for name := range changed {
		if _, configured := s.app.engine.view(name); configured {
			names = append(names, name)
		}
	}
	records, err := s.ledger.Refresh(ctx, names)
	s.app.engine.learn(records)
	unreadable := s.ledger.Unreadable()
	got := make(map[string]bool, len(records))
	for _, r := range records {
		got[r.Token] = true
	}
	if !slices.ContainsFunc(names, func(name string) bool { return !got[name] && unreadable[name] == nil }) {
		return nil
	}
	return err
}

// ready returns the conditions of /readyz that only a replica has.
func (s *sharing) ready() []httpapi.Check {
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	mayBegin := s.room.MayBegin()
	return []httpapi.Check{
		{Name: "shared ledger", OK: s.isJoined() && err == nil, Detail: fmt.Sprintf("the shared ledger cannot be read: %v", err)},
		{Name: "replica", OK: mayBegin == nil, Detail: fmt.Sprintf("replica %s begins nothing: %v", s.replica.Name, mayBegin)},
	}
}

// asReplica returns what the rotator knows of this replica; nil if the daemon is alone.
func (s *sharing) asReplica() *rotation.Replica {
	if s == nil {
		return nil
	}
	return &s.replica
}

// sealedCopies returns where copies of sealed answers are; nil if the daemon is alone.
func (s *sharing) sealedCopies() rotation.Copies {
	if s == nil {
		return nil
	}
	return s.copies
}
