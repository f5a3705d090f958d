package rotation

import (
	"sync"
	"time"

	"rotatord/internal/event"
)

// Options are what a Rotator needs. All fields but Pauses, Events, Record, Saved and Now are required.
type Options struct {
	Ledger  Ledger
	Pending Pending
	Pauses  Pauses           // nil: pauses are forgotten at a restart
	Events  Events           // nil: events go nowhere
	Record  Recorder         // nil: requests leave without a line in a record of events
	Saved   func(Record)     // is called for each durable step of a rotation; it must not block. nil: not called
	Now     func() time.Time // nil: time.Now
	Owner   string           // names this process in claims
	Started time.Time        // slots due before it are caught up, not on time

	// Replica is set if the Ledger is a [SharedLedger] that other replicas use too; nil for a daemon that is alone.
	Replica *Replica
	Copies  Copies // nil: sealed answers are only on the disk of the replica that got them
}

// Rotator runs the protocol. It is safe for concurrent use; calls for one token wait for
// each other.
type Rotator struct {
	ledger   Ledger
	pending  Pending
	events   Events
	recorder Recorder
	saved    func(Record)
	now      func() time.Time
	owner    string
	started  time.Time

	replica *Replica     // nil: this daemon is alone
	shared  SharedLedger // the ledger, if it is not alone
	copies  Copies       // nil: there are none

	mu       sync.Mutex
	locks    map[string]*sync.Mutex    // by token
	unsealed map[string]receivedAnswer // answers whose seal failed, by rotation ID
	extended map[string]movedEnd       // where this process has moved the ends of old secrets, by rotation ID
	asked    map[string]asked          // what operators asked for, by rotation ID
	// unfinished are rotations of this process that were not done when it worked on them last, by token; only with several
	// replicas.
	unfinished map[string]Record

	pauseStore Pauses
	savePause  sync.Mutex // held while pauses are saved
	pauseMu    sync.Mutex
	pauses     map[string]Pause // by token; never changed, but replaced
}

// New returns a Rotator.
func New(o Options) *Rotator {
	r := &Rotator{
		ledger: o.Ledger, pending: o.Pending, events: o.Events, recorder: o.Record, saved: o.Saved, now: o.Now, pauseStore: o.Pauses,
		owner: o.Owner, started: o.Started,
		locks: make(map[string]*sync.Mutex), unsealed: make(map[string]receivedAnswer), extended: make(map[string]movedEnd), asked: make(map[string]asked),
		unfinished: make(map[string]Record),
	}
	if o.Replica != nil {
		r.replica, r.copies = o.Replica, o.Copies
		r.shared = o.Ledger.(SharedLedger) // see Options.Replica
	}
	if r.pauseStore == nil {
		r.pauseStore = &memoryPauses{}
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.saved == nil {
		r.saved = func(Record) {}
	}
	return r
}

// lockOf returns the lock of a token. Only the holder of the lock works on the token.
func (r *Rotator) lockOf(token string) *sync.Mutex {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.locks[token]
	if !ok {
		l = new(sync.Mutex)
		r.locks[token] = l
	}
	return l
}

// tell publishes what happened to a token.
func (r *Rotator) tell(token string, by event.Actor, d event.Detail) {
	if r.events != nil {
		r.events.Publish(event.New(r.now(), token, by, d))
	}
}

// tellMissed tells of slots that were consumed without a rotation, if there are any.
func (r *Rotator) tellMissed(token string, missed event.Missed) {
	if missed.Count > 0 || missed.Frozen > 0 {
		r.tell(token, event.Daemon, missed)
	}
}
