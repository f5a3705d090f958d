// Package replica knows the other daemons that share a ledger: which of them live, which comes first for a token, and
// what they have changed.
//
// Each replica writes an entry about itself again and again, and reads those of the others. There is no leader and
// nothing to elect. What this package says decides who begins first, and never who may: that is decided by the
// hold in a token's record, which is written by check-and-set. So an error here costs time and no secret.
//
// Guarantees:
//
//   - What a replica has told with [Room.Notice], all living replicas learn within ten seconds, while Vault answers. A
//     replica that may have missed something reads everything again.
//   - A replica counts as living while its entry changes, as seen on the monotonic clock of the one that looks. Wall
//     clocks do not matter.
//   - A replica whose wall clock differs by more than half a minute from that of most others and Vault stands aside: it
//     begins nothing. So does the later one of two processes with one name.
//   - All that is asked is answered from memory, at once.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/kvstore"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

const (
	// listEvery is how often new replicas are looked for.
	listEvery = 10 * time.Second
	// sweepEvery is how often everything is read again, whatever was told.
	sweepEvery = 6 * time.Hour
	// forgetAfter is how long after its last entry a replica is forgotten.
	forgetAfter = 24 * time.Hour
	// requestTime bounds one request.
	requestTime = 10 * time.Second
	// noticeDelay gathers changes that come together.
	noticeDelay = 100 * time.Millisecond
	// noticeEvery is how often the entry is written at most because of changes.
	noticeEvery = time.Second
	// jumpToldFrom is from which size on a jump of Vault's clock is told.
	jumpToldFrom = time.Second
	// atOnce is how many requests are under way at the same time.
	atOnce = 16
)

// Options are what a Room needs. All but Sealed, Usable and the callbacks are required.
type Options struct {
	KV      kvstore.KV
	Self    rotation.Replica
	Version string // of rotatord
	Listen  string // where this replica answers HTTP
	// Identity is the public key with which it opens sealed answers, and Recipients those that it seals to.
	Identity   string
	Recipients []string
	// Now is the wall clock.
	Now func() time.Time

	// Sealed reports whether this replica has the answer of a rotation on its disk. nil: it has none.
	Sealed func(rotationID string) bool
	// Usable returns why the shared ledger must not be used now, because it is moved elsewhere. nil: it may be.
	Usable func(context.Context) error
	// Changed is called with the names of what other replicas have changed, or [Everything].
	Changed func(names []string)
	// Living is called when other replicas live than before, or when this one may begin and could not before.
	Living func()
	// Tell is called with what an operator should know, once and not again while it is so. nil: nobody is told.
	Tell func(event.Detail)
	// Log gets what has no event. nil: nothing is logged.
	Log *slog.Logger
}

// Room is where replicas find each other. Use [New], then Run.
type Room struct {
	o     Options
	clock *Clock
	began time.Time // on the wall clock

	wake     chan struct{}
	snapshot atomic.Pointer[snapshot]
	writing  sync.Mutex // held while the own entry is written

	mu      sync.Mutex
	own     own
	others  map[string]*other
	looked  bool      // the others were read once
	swept   time.Time // when everything was read again last, on the monotonic clock
	aside   error     // why this replica begins nothing, as it was told
	odd     map[string]string
	unheard bool
	usable  error // what Usable has returned
}

// own is what a replica knows of its own entry. Room.mu guards it.
type own struct {
	version   int // of the entry
	known     bool
	leaving   bool
	after     string
	seq       uint64
	changes   []change
	offset    time.Duration // of the own wall clock from Vault's
	wroteAt   time.Time     // when it was last written, on the monotonic clock; zero before that
	twin      string        // the process of another daemon with our name; empty if there is none
	twinFirst bool          // it began before us, so that we stand aside
	twinAt    time.Time     // when its entry was last seen to change
	waitUntil time.Time     // until when an earlier process with our name may still run
}

// other is what is known of another replica. Room.mu guards it.
type other struct {
	entry   entry
	version int
	created time.Time // by Vault's clock
	seenAt  time.Time // when it was written, on the monotonic clock
	seq     uint64    // how many of its changes were passed on
	living  bool
}

// snapshot is what is asked again and again.
type snapshot struct {
	living   []string // those that may begin, sorted
	mayBegin error
	wroteAt  time.Time // when the own entry was last written, on the monotonic clock
}

var errStarting = errors.New("it has not found the other replicas yet")

// New returns a room. It sends nothing.
func New(o Options) *Room {
	if o.Sealed == nil {
		o.Sealed = func(string) bool { return false }
	}
	if o.Usable == nil {
		o.Usable = func(context.Context) error { return nil }
	}
	if o.Changed == nil {
		o.Changed = func([]string) {}
	}
	if o.Living == nil {
		o.Living = func() {}
	}
	if o.Tell == nil {
		o.Tell = func(event.Detail) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Room{
		o: o, clock: &Clock{tolerance: o.Self.Claim / 20}, began: o.Now(), wake: make(chan struct{}, 1),
		others: make(map[string]*other), odd: make(map[string]string), aside: errStarting,
	}
	r.snapshot.Store(&snapshot{mayBegin: errStarting})
	return r
}

// Clock returns what is known of Vault's clock.
func (r *Room) Clock() *Clock { return r.clock }

// Run writes this replica's entry and reads those of the others until ctx ends.
func (r *Room) Run(ctx context.Context) {
	var loops sync.WaitGroup
	defer loops.Wait()
	for !r.start(ctx) {
		if !sleep(ctx, min(time.Second, Beat(r.o.Self.Claim))) {
			return
		}
	}
	loops.Go(func() { r.beat(ctx) })
	r.lookAround(ctx)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// start writes the own entry for the first time and reads all others. It returns false if that has to be repeated.
func (r *Room) start(ctx context.Context) bool {
	if r.tellUnheard(r.write(ctx)) != nil {
		r.update()
		return false
	}
	done := r.list(ctx) && r.read(ctx)
	r.mu.Lock()
	if r.looked, r.swept = done, time.Now(); done {
		r.aside = nil // nothing has to be told of the start
		signal(r.wake)
	}
	r.mu.Unlock()
	r.update()
	return done
}

// beat writes the own entry regularly, and soon after a change.
func (r *Room) beat(ctx context.Context) {
	every := Beat(r.o.Self.Claim)
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.wake:
			if !sleep(ctx, max(noticeDelay, noticeEvery-time.Since(r.snapshot.Load().wroteAt))) {
				return
			}
		}
		cutOff := r.cutOff() != nil
		err := r.tellUnheard(r.write(ctx))
		if err == nil && cutOff { // the others have gone on without this one
			r.list(ctx)
			r.read(ctx)
		}
		r.update()
		wait := every
		if err != nil {
			wait = min(time.Second, every)
		}
		timer.Reset(wait)
	}
}

// lookAround reads the entries of the others regularly.
func (r *Room) lookAround(ctx context.Context) {
	listed := time.Now()
	for sleep(ctx, look(r.o.Self.Claim)) {
		if time.Since(listed) >= listEvery-look(r.o.Self.Claim)/2 && r.list(ctx) {
			listed = time.Now()
		}
		r.read(ctx)
		r.mu.Lock()
		sweep := time.Since(r.swept) >= sweepEvery
		if sweep {
			r.swept = time.Now()
		}
		r.mu.Unlock()
		if sweep {
			r.o.Changed([]string{Everything})
		}
		r.update()
	}
}

// Notice tells the other replicas soon that something was written.
func (r *Room) Notice(name string) {
	r.mu.Lock()
	now := r.o.Now().UTC()
	r.own.seq++
	r.own.changes = append(r.own.changes, change{name, now})
	if n := len(r.own.changes) - keptChanges; n > 0 {
		r.own.changes = slices.Clone(r.own.changes[n:])
	}
	r.mu.Unlock()
	signal(r.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Leave tells the others that this replica stops: from then on it comes first for nothing. It may be repeated, to tell
// of the last changes.
func (r *Room) Leave(ctx context.Context) error {
	r.mu.Lock()
	r.own.leaving = true
	known := r.own.known
	r.mu.Unlock()
	r.update()
	if !known { // no other replica has seen this one
		return nil
	}
	return r.write(ctx)
}

// MayBegin returns why this replica must not begin anything now; nil if it may.
func (r *Room) MayBegin() error {
	if err := r.snapshot.Load().mayBegin; err != nil {
		return err
	}
	return r.cutOff()
}

// cutOff returns an error if the others count this replica as dead by now: it was suspended, or Vault cannot be written.
func (r *Room) cutOff() error {
	if age := time.Since(r.snapshot.Load().wroteAt); age >= deadAfter(r.o.Self.Claim) {
		return fmt.Errorf("its entry in Vault was not written for %s, so the other replicas count it as dead: it was suspended, or Vault cannot be written", age.Round(time.Second))
	}
	return nil
}

// Share returns how many replicas live, this one included; at least 1.
func (r *Room) Share() int {
	living := r.snapshot.Load().living
	if slices.Contains(living, r.o.Self.Name) {
		return len(living)
	}
	return len(living) + 1 // it may have work to finish
}

// update works out who lives and whether this replica may begin, and tells what has changed.
func (r *Room) update() {
	r.mu.Lock()
	var news []event.Detail
	living := make([]string, 0, len(r.others)+1)
	now := time.Now()
	died := false
	for name, o := range r.others {
		alive := !o.entry.Leaving && now.Sub(o.seenAt) < deadAfter(time.Duration(o.entry.Claim))
		switch {
		case alive && !o.living:
			news = append(news, event.ReplicaSeen{Replica: name, Living: true})
		case !alive && o.living && o.entry.Leaving:
			news = append(news, event.ReplicaSeen{Replica: name, Leaving: true})
		case !alive && o.living:
			news = append(news, event.ReplicaSeen{Replica: name, Since: r.o.Now().Add(-now.Sub(o.seenAt)).UTC()})
			died = true // it may have saved what it could not tell any more
		}
		if o.living = alive; alive && o.entry.Aside == "" {
			living = append(living, name)
		}
	}
	before := r.snapshot.Load()
	next := &snapshot{mayBegin: r.whyAside(now), wroteAt: r.own.wroteAt}
	if next.mayBegin == nil {
		living = append(living, r.o.Self.Name)
	}
	slices.Sort(living)
	next.living = living
	r.snapshot.Store(next)
	if text(next.mayBegin) != text(r.aside) {
		r.aside = next.mayBegin
		if !r.own.leaving {
			news = append(news, event.StandAside{Why: text(next.mayBegin)})
		}
		signal(r.wake) // the others have to know
	}
	r.mu.Unlock()
	for _, n := range news {
		r.o.Tell(n)
	}
	if died {
		r.o.Changed([]string{Everything})
	}
	if !slices.Equal(before.living, living) || before.mayBegin != nil && next.mayBegin == nil {
		r.o.Living()
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// whyAside returns why this replica begins nothing; nil if it may. r.mu must be held.
func (r *Room) whyAside(now time.Time) error {
	switch {
	case r.own.leaving:
		return errors.New("it stops")
	case r.own.twin != "" && r.own.twinFirst:
		return fmt.Errorf("another process has the name %s too, and began earlier: give each replica a name of its own (state.shared.replica), and restart this one", r.o.Self.Name)
	case !r.looked:
		return errStarting
	case now.Before(r.own.waitUntil):
		return fmt.Errorf("an earlier process with the name %s may still run, since it did not say that it stops: it is waited for, until %s at most",
			r.o.Self.Name, r.o.Now().Add(r.own.waitUntil.Sub(now)).UTC().Format(time.RFC3339))
	case r.usable != nil:
		return r.usable
	}
	return r.clockFault()
}

// View returns what is known of all replicas.
func (r *Room) View() status.Replicas {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, wall := time.Now(), r.o.Now()
	self := status.Replica{
		Name: r.o.Self.Name, Living: !r.own.leaving && !r.own.wroteAt.IsZero(), Leaving: r.own.leaving, Since: r.began.UTC(), Version: r.o.Version,
		ClockKnown: r.own.known, ClockOffset: r.own.offset.Seconds(), StandsAside: text(r.aside),
	}
	if !r.own.wroteAt.IsZero() {
		self.SeenAt = wall.Add(-now.Sub(r.own.wroteAt)).UTC()
	}
	view := status.Replicas{Name: r.o.Self.Name, Replicas: []status.Replica{self}}
	for _, name := range slices.Sorted(maps.Keys(r.others)) {
		o := r.others[name]
		view.Replicas = append(view.Replicas, status.Replica{
			Name: name, Living: o.living, Leaving: o.entry.Leaving, Since: o.entry.Started.UTC(), SeenAt: wall.Add(-now.Sub(o.seenAt)).UTC(),
			Version: o.entry.Version, ClockKnown: true, ClockOffset: o.entry.Wall.Sub(o.created).Seconds(), StandsAside: o.entry.Aside,
		})
	}
	slices.SortFunc(view.Replicas, func(a, b status.Replica) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	return view
}
