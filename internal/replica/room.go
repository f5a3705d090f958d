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
	"rotatord/internal/moment"
	"rotatord/internal/rotation"
)

const (
	// listEvery is how often new replicas are looked for, and those that write nothing are read.
	listEvery = 5 * time.Second
	// usableEvery is how often it is asked whether the ledger may be used, while nothing has happened.
	usableEvery = 24 * time.Second
	// sweepEvery is how often everything is read again, whatever was told.
	sweepEvery = 6 * time.Hour
	// newerEvery is how often that happens because of a replica whose entry cannot be read.
	newerEvery = time.Minute
	// forgetDead is how long after its last entry a replica is forgotten, and forgetLeft if it has said that it stops.
	forgetDead, forgetLeft = 24 * time.Hour, time.Hour
	// noticeDelay gathers changes that come together.
	noticeDelay = 100 * time.Millisecond
	// noticeEvery is how often the entry is written at most because of changes.
	noticeEvery = time.Second
	// jumpToldFrom is from which size on a jump of Vault's clock is told.
	jumpToldFrom = time.Second
	// atOnce is how many requests are under way at the same time.
	atOnce = 16
	// busyFor is for how long others are looked for each second after one was found: they often start together.
	busyFor = 30 * time.Second
	// maxReplicas is how many other replicas are known at most.
	maxReplicas = 100
	// keptVersions is how many versions of its entry a replica lets Vault keep.
	keptVersions = 2
)

// Options are what a Room needs. KV, Self and Now are required. Functions return at once, except Usable.
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
	// Joined reports whether this replica knows the ledger. Until then it comes first for nothing; [Room.Nudge] tells the
	// others when that changes. nil: it does.
	Joined func() bool
	// Throttled returns for how long Cloudflare has asked this process to send nothing, by account. nil: it has not.
	Throttled func() map[string]time.Duration
	// Throttle is called with what Cloudflare has asked of another replica.
	Throttle func(account string, d time.Duration)
	// Changed is called with the names of what other replicas have changed, or [Everything].
	Changed func(names []string)
	// Living is called when other replicas live or may begin than before, or when this one may begin and could not
	// before.
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
	writing  chan struct{} // has an element while the own entry is written

	mu       sync.Mutex
	own      own
	others   map[string]*other
	looked   bool      // the others were read once
	heardAt  time.Time // when all of them were last read, on the monotonic clock; zero before that
	swept    time.Time // when everything was read again last, on the monotonic clock
	aside    error     // why this replica begins nothing; nil if it may
	told     cause     // what of that was told
	foundAt  time.Time // when an entry was last found that was not known, or this replica began, on the monotonic clock
	oddList  string    // what was logged of the list of entries
	unheard  bool
	usable   error     // what Usable has returned
	usableAt time.Time // when, on the monotonic clock; zero before the first time
	jumpedAt time.Time // when Vault's clock was last seen to jump, on the monotonic clock
	clockErr error     // why the own clock cannot be trusted
}

// own is what a replica knows of its own entry. Room.mu guards it.
type own struct {
	version  int // of the entry
	known    bool
	leaving  bool
	notices  notices
	offset   time.Duration // of the own wall clock from Vault's
	wroteAt  time.Time     // when it was last written, on the monotonic clock; zero before that
	wroteAs  time.Time     // the same on the wall clock
	namesake namesake
}

// other is what is known of another replica. Room.mu guards it.
type other struct {
	entry   entry
	version int           // 0: it could not be read yet
	created time.Time     // by Vault's clock
	seenAt  time.Time     // when its entry was last seen to have changed, on the monotonic clock
	readAt  time.Time     // when it was last read
	quiet   time.Duration // for how long it was read since then and had not changed
	sweptAt time.Time     // when everything was last read again because its entry is of a newer format
	odd     string        // why it cannot be read, as it was logged
	living  bool
}

// silent reports whether it writes nothing any more. Only time in which its entry could be read counts: while nothing can
// be read, nobody dies, and when that is over, the others get the time to write.
func (o *other) silent() bool {
	return o.version > 0 && o.quiet >= deadAfter(time.Duration(o.entry.Claim))
}

// snapshot is what is asked again and again.
type snapshot struct {
	living   int      // how many, without this one
	eligible []string // those that may begin, sorted, this one included
	mayBegin error
	wroteAt  time.Time // when the own entry was last written, on the monotonic clock
	wroteAs  time.Time // the same on the wall clock
}

var (
	errStarting = errors.New("it has not found the other replicas yet")
	errJoining  = errors.New("it has not read the shared ledger yet")
)

// New returns a room. It sends nothing.
func New(o Options) *Room {
	if o.Sealed == nil {
		o.Sealed = func(string) bool { return false }
	}
	if o.Usable == nil {
		o.Usable = func(context.Context) error { return nil }
	}
	if o.Joined == nil {
		o.Joined = func() bool { return true }
	}
	if o.Throttled == nil {
		o.Throttled = func() map[string]time.Duration { return nil }
	}
	if o.Throttle == nil {
		o.Throttle = func(string, time.Duration) {}
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
		o: o, clock: &Clock{}, began: o.Now(), wake: make(chan struct{}, 1), writing: make(chan struct{}, 1),
		others: make(map[string]*other), aside: errStarting,
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
	for tries := 1; !r.start(ctx, tries); tries++ {
		if moment.Sleep(ctx, min(time.Second, Beat(r.o.Self.Claim))) != nil {
			return
		}
	}
	r.mu.Lock()
	r.foundAt = time.Now()
	r.mu.Unlock()
	loops.Go(func() { r.beat(ctx) })
	r.lookAround(ctx)
}

// startTries is how often a replica tries to read the entries of all others before it begins without knowing some.
const startTries = 5

// start writes the own entry for the first time and reads all others. It returns false if that has to be repeated.
func (r *Room) start(ctx context.Context, tries int) bool {
	done := r.tellUnheard(r.write(ctx)) == nil && r.list(ctx) && (r.read(ctx, true) || tries >= startTries)
	r.mu.Lock()
	r.looked, r.swept = done, time.Now()
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
			if moment.Sleep(ctx, max(noticeDelay, noticeEvery-time.Since(r.snapshot.Load().wroteAt))) != nil {
				return
			}
		}
		cutOff := r.cutOff() != nil
		err := r.tellUnheard(r.write(ctx))
		if err == nil && cutOff { // the others have gone on without this one
			r.list(ctx)
			r.read(ctx, true)
		}
		r.update()
		wait := every
		if err != nil {
			wait = min(time.Second, every)
		}
		timer.Reset(wait)
	}
}

// lookAround reads the entries of the others regularly, and more often while replicas start: they begin as soon as they may, and until the
// others know them, two of them try to claim the same tokens.
func (r *Room) lookAround(ctx context.Context) {
	listed := time.Now()
	for {
		every, again := look(r.o.Self.Claim), listEvery
		if r.isBusy() {
			every, again = beatMin, 0
		}
		if moment.Sleep(ctx, every) != nil {
			return
		}
		all := time.Since(listed) >= again-every/2 && r.list(ctx)
		if all {
			listed = time.Now()
		}
		r.read(ctx, all)
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

// isBusy reports whether a replica was found a short time ago, this one included.
func (r *Room) isBusy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.foundAt) < busyFor
}

// Notice tells the other replicas soon that something was written: a token's record, or what else they know a name for.
func (r *Room) Notice(name string) {
	r.mu.Lock()
	r.own.notices.add(name, time.Now())
	r.mu.Unlock()
	signal(r.wake)
}

// Nudge writes the entry soon, because what its functions return has changed.
func (r *Room) Nudge() { signal(r.wake) }

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
	seen := !r.own.wroteAt.IsZero()
	r.mu.Unlock()
	r.update()
	if !seen { // no other replica knows this one
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

// cutOff returns an error if the others count this replica as dead by now: it was suspended, or Vault cannot be written. The
// monotonic clock may stand still while a machine is suspended, so the wall clock counts too. If that was set forward, nothing begins
// until the next entry has shown whether it is right.
func (r *Room) cutOff() error {
	s := r.snapshot.Load()
	if age := max(time.Since(s.wroteAt), r.o.Now().Round(0).Sub(s.wroteAs)); age >= deadAfter(r.o.Self.Claim) {
		return fmt.Errorf("its entry in Vault was not written for %s, so the other replicas count it as dead: it was suspended, or Vault cannot be written", age.Round(time.Second))
	}
	return nil
}

// Share returns how many replicas live, this one included; at least 1.
func (r *Room) Share() int { return r.snapshot.Load().living + 1 }

// update works out who lives and whether this replica may begin, and tells what has changed.
func (r *Room) update() {
	r.mu.Lock()
	news, died := r.census()
	r.vote(time.Now())
	next := &snapshot{wroteAt: r.own.wroteAt, wroteAs: r.own.wroteAs}
	for name, o := range r.others {
		if o.living {
			next.living++
			if o.entry.Aside == "" {
				next.eligible = append(next.eligible, name)
			}
		}
	}
	why, err := r.whyAside()
	if next.mayBegin = err; err == nil {
		next.eligible = append(next.eligible, r.o.Self.Name)
	}
	slices.Sort(next.eligible)
	if (err == nil) != (r.aside == nil) {
		signal(r.wake) // the others have to know
	}
	r.aside = err
	if r.told != why {
		if why != "" || r.told != "" && !r.own.leaving {
			news = append(news, event.StandAside{Why: text(err)})
		}
		r.told = why
	}
	before := r.snapshot.Swap(next)
	r.mu.Unlock()
	for _, n := range news {
		r.o.Tell(n)
	}
	if died {
		r.o.Changed([]string{Everything})
	}
	if before.living != next.living || !slices.Equal(before.eligible, next.eligible) || before.mayBegin != nil && next.mayBegin == nil {
		r.o.Living()
	}
}

// census works out which of the others live, and whether one has died: it may have saved what it could not tell. r.mu
// must be held.
func (r *Room) census() (news []event.Detail, died bool) {
	for _, name := range slices.Sorted(maps.Keys(r.others)) {
		o := r.others[name]
		alive := o.version > 0 && !o.entry.Leaving && !o.silent()
		switch {
		case alive && !o.living:
			news = append(news, event.ReplicaSeen{Replica: name, Living: true})
		case !alive && o.living && o.entry.Leaving:
			news = append(news, event.ReplicaSeen{Replica: name, Leaving: true})
		case !alive && o.living:
			news = append(news, event.ReplicaSeen{Replica: name, Since: r.o.Now().Add(-time.Since(o.seenAt)).UTC()})
			died = true
		}
		o.living = alive
	}
	return news, died
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// cause is why a replica stands aside, if an operator is told of it.
type cause string

const (
	causeName   cause = "name"
	causeLedger cause = "ledger"
	causeClock  cause = "clock"
)

// whyAside returns why this replica begins nothing; nil if it may. r.mu must be held.
func (r *Room) whyAside() (cause, error) {
	namesake := r.own.namesake
	switch {
	case r.own.leaving:
		return "", errors.New("it stops")
	case namesake.lives:
		return causeName, r.nameErr()
	case !namesake.since.IsZero():
		return "", r.nameErr()
	case !r.looked:
		return "", errStarting
	case r.usable != nil:
		return causeLedger, r.usable
	case r.clockErr != nil:
		return causeClock, r.clockErr
	}
	return "", nil
}
