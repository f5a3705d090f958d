package rotation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
)

// This file is a world with several replicas in simulated time: Cloudflare, a sink, and a ledger in a Vault that they
// share. Each replica has its own disk and its own clocks. Every port call takes time, so the calls of the replicas
// interleave, and any call can fail, hang, come late or come twice. The world checks at each call what must always be
// true; shared_machine_test.go runs it with random faults.

// cluster is the world outside of the replicas. Its lock is held while a call is carried out.
type cluster struct {
	findings
	mu sync.Mutex

	cf     cfToken // the one service token
	issued []issue // its secrets, the first one first
	sink   rotation.Credential
	// sinkVersion is for check-and-set, as in KV version 2.
	sinkVersion int
	sinkPeer    string // "vault" if the sink is in the Vault of the ledger, else "sink"

	record    []byte // the record of the token
	decoded   rotation.Record
	decodedAt *byte // of which record decoded is
	revision  uint64
	savedAt   time.Time // when it was saved, in true time
	createdAt time.Time // the same by Vault's clock
	jumps     []jump    // of Vault's clock
	copies    map[string]rotation.Issued
	// foreignCopies is set if no replica can open the copies of others.
	foreignCopies bool
	lateCopies    map[string]bool // these came when their rotation might have been over
	claim         time.Duration
	unsafeHold    bool // the sabotage: no replica looks at a hold

	hooks    *hooksModel // nil if the token has no hooks
	sabotage sabotage    // empty for none

	hosts  []*host
	fault  func(p *process, call string) planned // what happens to a call; nil for nothing
	events []told
	logs   bool // for the replay of one scenario
	log    []string

	mayCutOff bool      // an operator has asked for something that may cut consumers off
	unsteady  bool      // a request left its replica long after it was checked: it may cut consumers off, and nothing can prevent that
	blind     bool      // a second rotate cut the sink's secret off, and the ledger did not know that the first was carried out
	believed  time.Time // until when the old secret works, as far as the ledger knows
	lastFault time.Time
	served    map[time.Time]string // slots, and the rotations that served them
}

// lockedSource is a source of random numbers for the goroutines of one host.
type lockedSource struct {
	mu     sync.Mutex
	source rand.Source
}

// Uint64 implements [rand.Source].
func (l *lockedSource) Uint64() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.source.Uint64()
}

// issue is one secret of the service token.
type issue struct {
	secret     string
	rotationID string
	received   bool // a replica has got the answer, and lived until it was sealed
	inSink     bool // it was in the sink at some time
}

// jump is a jump of Vault's clock. offset is by how much it is ahead of the true time from then on.
type jump struct {
	at     time.Time
	offset time.Duration
}

// told is an event, and who published it.
type told struct {
	by string
	event.Event
}

// planned says what happens to one call; the zero value is a call that succeeds.
type planned struct {
	how   string        // see process.call
	for_  time.Duration // how long a stop or a delay lasts
	class rotation.Class
	// answered is set if a rotate request that leaves after a stop gets its answer; else it is left to chance.
	answered bool
}

// host is a machine with a disk on which one process runs at a time.
type host struct {
	*cluster
	name     string
	home     string // another one after the disk was lost
	hash     int    // its place in the preference
	pending  map[string]rotation.Issued
	sealedAt map[string]time.Time
	reserved map[string]bool
	random   *rand.Rand

	wallOffset time.Duration        // of the wall clock
	slept      time.Duration        // for how long the machine was suspended: the monotonic clock stood still
	stopped    time.Time            // until when its process is stopped
	cutOff     map[string]time.Time // by peer, "vault", "cloudflare" or "sink": until when it cannot be reached
	cutSince   time.Time            // when Vault was cut off, or the process stopped, for the last time
	up         *process             // nil while none runs
	starts     int
}

// Errorf notes a problem, also in the log.
func (c *cluster) Errorf(format string, args ...any) {
	c.findings.Errorf(format, args...)
	c.note("PROBLEM", format, args...)
}

// process is one run of rotatord. It implements the ports of its rotator.
type process struct {
	*host
	id      string
	began   time.Time
	dead    bool
	rotator *rotation.Rotator
	token   rotation.Token
	judged  map[string]judgement
	intent  string // the rotation whose intent was saved last
	// turn has a value while the process works on the token. A bubble does not see that the rotator's own lock is waited for,
	// and would stop its clock.
	turn chan struct{}

	memory sync.Mutex       // of the rest: a hook runs beside the work on the token
	writes map[uint64]stamp // before the first try of a save that was ours, by revision
	seen   map[uint64]stamp // when a revision was seen first
	runs   map[runKey]sighting
}

// runKey identifies a run of a hook, and sighting is the first version that a process has seen with it.
type runKey struct {
	hook, process string
	began         time.Time
}

type sighting struct {
	at      stamp
	created time.Time // by Vault's clock; zero if it is not known
}

// judgement is when a late answer was looked at last, and what was found.
type judgement struct {
	at   time.Time
	told bool
}

// stamp is a moment on a host's two clocks.
type stamp struct{ mono, wall time.Time }

const sharedToken = "ci"

// newCluster returns a world with hosts on which nothing runs yet.
func newCluster(replicas int, claim time.Duration, seed uint64) *cluster {
	c := &cluster{
		cf:     cfToken{id: tokenID, clientID: clientID, updatedAt: time.Now().Add(-time.Hour).UTC()},
		copies: map[string]rotation.Issued{}, lateCopies: map[string]bool{}, claim: claim, served: map[time.Time]string{}, sinkVersion: 1, sinkPeer: "vault",
	}
	c.cf.current = fmt.Sprintf("cfast_%048d", 0)
	c.issued = []issue{{secret: c.cf.current, received: true, inSink: true}}
	c.sink = rotation.Credential{ClientID: clientID, ClientSecret: secret.New(c.cf.current)}
	for i := range replicas {
		h := &host{
			cluster: c, name: fmt.Sprintf("replica-%d", i), home: fmt.Sprintf("home-%d", i), hash: i, random: rand.New(&lockedSource{source: rand.NewPCG(seed, uint64(i))}),
			pending: map[string]rotation.Issued{}, sealedAt: map[string]time.Time{}, reserved: map[string]bool{}, cutOff: map[string]time.Time{},
		}
		c.hosts = append(c.hosts, h)
	}
	return c
}

// now returns the time on the host's wall clock.
func (h *host) now() time.Time { return time.Now().Add(h.wallOffset).Round(0) }

// stamp returns the time on both clocks.
func (h *host) stamp() stamp { return stamp{time.Now().Add(-h.slept), h.now()} }

// vaultAt returns what Vault's clock showed at a true time, and the last jump before that.
func (c *cluster) vaultAt(at time.Time) (now time.Time, jumped time.Time) {
	offset := time.Duration(0)
	for _, j := range c.jumps {
		if !j.at.After(at) {
			offset, jumped = j.offset, j.at.Add(j.offset)
		}
	}
	return at.Add(offset), jumped
}

// start starts a process on a host.
func (h *host) start(token rotation.Token) *process {
	h.starts++
	p := &process{
		host: h, id: fmt.Sprintf("%s#%d", h.name, h.starts), began: time.Now(),
		writes: map[uint64]stamp{}, seen: map[uint64]stamp{}, judged: map[string]judgement{},
		runs: map[runKey]sighting{}, turn: make(chan struct{}, 1),
	}
	p.token = token
	p.token.Issuer, p.token.Sinks = p, []rotation.Sink{sharedSink{p}}
	p.rotator = rotation.New(rotation.Options{
		Ledger: p, Pending: p, Copies: copiesOf{p}, Events: p, Owner: p.id, Started: h.now(), Now: h.now,
		Replica: &rotation.Replica{Name: h.name, Process: p.id, Home: h.home, Claim: h.claim},
	})
	h.up = p
	return p
}

// inTurn calls do while nothing else works on the token in this process.
func (p *process) inTurn(do func()) {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	p.awake() // a process that has died may have left its locks locked
	do()
}

// kill ends the process of a host at its next call.
func (h *host) kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.up != nil {
		h.note(h.name, "killed")
		h.up.dead, h.up = true, nil
	}
}

// loseDisk is a new disk for a host whose process has ended.
func (h *host) loseDisk() {
	h.home += "'"
	clear(h.pending)
	clear(h.reserved)
	clear(h.sealedAt)
}

// stop stops the process of a host, as SIGSTOP does. With suspend the monotonic clock stands still too.
func (h *host) stop(d time.Duration, suspend bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped, h.cutSince = time.Now().Add(d), time.Now()
	if suspend {
		h.slept += d
	}
}

// cut cuts a host off from a peer.
func (h *host) cut(peer string, d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cutOff[peer] = time.Now().Add(d)
	if peer == "vault" {
		h.cutSince = time.Now()
	}
}

// note writes a line of the log, if there is one. The lock is held.
func (c *cluster) note(who, format string, args ...any) {
	if c.logs {
		c.log = append(c.log, fmt.Sprintf("%s %-10s %s", time.Now().Format("15:04:05.000"), who, fmt.Sprintf(format, args...)))
	}
}

// sharedTokenOf returns the token of the world.
func sharedTokenOf(grace, every time.Duration) rotation.Token {
	schedule, err := scheduler.Parse("@every "+every.String(), nil)
	if err != nil {
		panic(err)
	}
	return rotation.Token{
		Name: sharedToken, Account: "prod", ID: tokenID, Grace: grace,
		Timetable: scheduler.Timetable{Schedule: schedule, Key: sharedToken},
	}
}

// current returns the record as it is in the ledger. The lock must be held.
func (c *cluster) current() rotation.Record {
	if c.record == nil {
		return rotation.Record{Revision: c.revision}
	}
	if at := &c.record[0]; c.decodedAt != at {
		c.decoded, c.decodedAt = rotation.Record{}, at
		if err := json.Unmarshal(c.record, &c.decoded); err != nil {
			panic(err)
		}
	}
	r := c.decoded
	if r.Work != nil {
		r.Work = new(*r.Work)
	}
	if r.Doubt != nil {
		r.Doubt = new(*r.Doubt)
	}
	r.Revision = c.revision
	return r
}

// view returns the record as it is in the ledger.
func (c *cluster) view() rotation.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current()
}

// awake waits while the process is stopped, and ends it if it was killed.
func (p *process) awake() {
	for {
		p.mu.Lock()
		left, dead := time.Until(p.stopped), p.dead
		p.mu.Unlock()
		if dead {
			panic(crashed{})
		}
		if left <= 0 {
			return
		}
		time.Sleep(left + time.Microsecond)
	}
}

// jitter is so short that it only orders goroutines.
func (p *process) jitter() time.Duration {
	return time.Duration(p.random.IntN(1000)) * time.Microsecond
}

// pass lets time pass, and returns early if ctx ends.
func (p *process) pass(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
	case <-time.After(d + p.jitter()):
	}
	p.awake()
	return ctx.Err()
}

// errUnreached is the cause of a call that got no answer.
var errUnreached = errors.New("no answer")

// call carries out one call to a peer. sent reports whether the call may have been carried out, if it failed.
//
//	before, refused   it fails, and nothing is carried out; refused is an answer
//	after             it is carried out, and the answer is lost
//	late              no answer comes, and it is carried out later
//	twice             it is carried out twice, and the second answer counts
//	crash before, crash after
//	stop before, stop after, suspend before, suspend after: the process is stopped at that moment
//	cut               the peer cannot be reached from then on
func (p *process) call(ctx context.Context, peer, name string, f planned, carryOut func() error) (sent bool, err error) {
	p.awake()
	do := func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		err := carryOut()
		p.note(p.name, "%s: %v", name, err)
		return err
	}
	switch f.how {
	case "cut":
		p.cut(peer, f.for_)
	case "stop before", "suspend before":
		p.stop(f.for_, f.how == "suspend before")
		p.awake()
		if name == "rotate" { // when the process goes on, the request may leave before the timers of its deadlines fire
			if !f.answered && p.random.IntN(3) == 0 {
				f.how = "after"
			}
			ctx = context.WithoutCancel(ctx)
		}
	case "crash before":
		p.kill()
		p.awake()
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if until := p.cutUntil(peer); time.Now().Before(until) {
		if p.random.IntN(2) == 0 { // the request arrives, and its answer does not
			f.how = "after"
		} else {
			f.how = "before"
		}
		_ = p.pass(ctx, min(time.Until(until), 5*time.Second))
	}
	switch f.how {
	case "before":
		return true, errors.Join(errUnreached, p.pass(ctx, time.Duration(p.random.IntN(5000))*time.Millisecond))
	case "refused":
		return false, errUnreached
	case "late":
		time.AfterFunc(f.for_, func() { _ = do() })
		return true, errors.Join(errUnreached, p.pass(ctx, 10*time.Second))
	}
	if p.pass(ctx, p.latency()) != nil { // it is under way
		time.AfterFunc(p.latency(), func() { _ = do() })
		return true, ctx.Err()
	}
	if err = do(); f.how == "twice" {
		err = do()
	}
	switch f.how {
	case "crash after":
		p.kill()
	case "stop after", "suspend after":
		p.stop(f.for_, f.how == "suspend after")
	case "after":
		_ = p.pass(ctx, time.Duration(p.random.IntN(5000))*time.Millisecond)
		return true, errUnreached
	}
	if p.pass(ctx, p.latency()) != nil {
		return true, ctx.Err()
	}
	return true, err
}

func (p *process) cutUntil(peer string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cutOff[peer]
}

// latency is how long a request or an answer is on its way.
func (p *process) latency() time.Duration {
	if p.random.IntN(20) == 0 {
		return time.Duration(p.random.IntN(1500)) * time.Millisecond
	}
	return time.Duration(1+p.random.IntN(60)) * time.Millisecond
}

// planOf asks what happens to a call.
func (p *process) planOf(call string) planned {
	p.awake()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == nil {
		return planned{}
	}
	f := p.fault(p, call)
	if f.how != "" {
		p.note(p.name, "%s: fault %s %s", call, f.how, f.for_)
		p.lastFault = moreRecent(p.lastFault, time.Now().Add(f.for_))
	}
	return f
}

// Load implements [rotation.Ledger].
func (p *process) Load(ctx context.Context, token string) (r rotation.Record, err error) {
	_, err = p.call(ctx, "vault", "load", p.planOf("load"), func() error { r = p.current(); return nil })
	if err == nil {
		p.sees(r)
	}
	return r, err
}

// sees notes that the process has seen a version, and the runs of hooks in it.
func (p *process) sees(r rotation.Record) {
	p.mu.Lock()
	now, created := p.stamp(), time.Time{}
	if p.revision == r.Revision {
		created = p.createdAt
	}
	p.mu.Unlock()
	p.memory.Lock()
	defer p.memory.Unlock()
	if _, known := p.seen[r.Revision]; !known {
		p.seen[r.Revision] = now
	}
	for _, h := range r.OwedHooks() {
		if h.Runner == nil {
			continue
		}
		key := runKey{h.Name, h.Runner.Process, h.Began.UTC()}
		if _, known := p.runs[key]; !known {
			p.runs[key] = sighting{now, created}
		}
	}
}

// RunLeft implements [rotation.SharedLedger] as internal/ledger/shared does.
func (p *process) RunLeft(_ string, h rotation.OwedHook) time.Duration {
	if h.Runner == nil || p.sabotage == startsLate && p.random.IntN(2) == 0 {
		return 0
	}
	held, now := time.Duration(h.Runner.For), p.stamp()
	p.memory.Lock()
	first, known := p.runs[runKey{h.Name, h.Runner.Process, h.Began.UTC()}]
	p.memory.Unlock()
	if !known {
		return held
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left(first, held, now)
}

// left returns how much is left of a time that began with a version of another process. The lock is held.
func (p *process) left(first sighting, held time.Duration, now stamp) time.Duration {
	left := held - now.mono.Sub(first.at.mono)
	if read, since, at, ok := p.vaultReading(); ok && !first.created.IsZero() && !since.After(first.created) && at.mono.After(first.at.mono) {
		left = min(left, first.created.Add(held).Sub(read))
	}
	return left
}

// All implements [rotation.Ledger]. It is answered from memory.
func (p *process) All(context.Context) ([]rotation.Record, error) {
	p.awake()
	r := p.view()
	if r.Token == "" {
		return nil, nil
	}
	p.sees(r)
	return []rotation.Record{r}, nil
}

// Save implements [rotation.Ledger]. If its answer is lost, it reads back, as package kvstore does.
func (p *process) Save(ctx context.Context, r rotation.Record) (rotation.Record, error) {
	before, base := p.stamp(), r.Revision
	r.Revision++
	p.memory.Lock()
	if _, tried := p.writes[r.Revision]; !tried {
		p.writes[r.Revision] = before
	}
	p.memory.Unlock()
	b, err := json.Marshal(r)
	if err != nil {
		return r, err
	}
	save := func() error {
		if p.revision != base {
			if p.revision == r.Revision && string(p.record) == string(b) { // the first answer was lost on the way
				return nil
			}
			return rotation.ErrConflict
		}
		p.checkHold()
		was := p.current()
		if p.sabotage == lostByHold && was.Hold != nil && was.Hold.Process != p.id && r.Hold != nil && r.After != nil {
			r.After = nil
			if b, err = json.Marshal(r); err != nil {
				return err
			}
		}
		p.record, p.revision, p.savedAt = b, r.Revision, time.Now()
		p.createdAt, _ = p.vaultAt(time.Now())
		p.noteSaved(r)
		p.hooks.saved(was, p.current())
		return nil
	}
	sent, err := p.call(ctx, "vault", "save "+string(r.Step), p.planOf("save "+string(r.Step)), save)
	if err != nil && sent && !errors.Is(err, rotation.ErrConflict) {
		if _, readErr := p.call(ctx, "vault", "read back", p.planOf("read back"), func() error {
			if p.revision != r.Revision || string(p.record) != string(b) {
				return errUnreached
			}
			return nil
		}); readErr == nil {
			err = nil
		}
	}
	if err != nil {
		return rotation.Record{}, err
	}
	p.sees(r)
	return r, nil
}

// SaveAll implements [rotation.Ledger].
func (p *process) SaveAll(ctx context.Context, all []rotation.Record) ([]rotation.Record, error) {
	saved := make([]rotation.Record, len(all))
	for i, r := range all {
		one, err := p.Save(ctx, r)
		if err != nil {
			return saved, err
		}
		saved[i] = one
	}
	return saved, nil
}

// checkHold checks that no other replica may work on the token. The lock is held.
func (p *process) checkHold() {
	r := p.current()
	if h := r.Hold; h != nil && h.Process != p.id && h.Home != p.home && time.Since(p.savedAt) < time.Duration(h.For) && !p.unsafeHold {
		p.Errorf("%s has saved the record while it was %s, %s ago for %s", p.name, holdText(h), time.Since(p.savedAt), time.Duration(h.For))
	}
}

// noteSaved notes what the ledger knows now. The lock is held.
func (p *process) noteSaved(r rotation.Record) {
	switch {
	case r.Doubt != nil:
		p.believed = r.Doubt.OldWorksUntil
	case r.Work != nil && !r.Work.GraceEndsAt.IsZero():
		p.believed = r.Work.GraceEndsAt
	}
	if r.Step == rotation.StepIntent {
		p.intent = r.Work.RotationID
	}
	if last := r.Last; last != nil && r.Step == rotation.StepIdle && !p.isManual(last.Trigger) {
		if id, twice := p.served[last.Slot]; twice && id != last.RotationID && !p.mayCutOff {
			p.Errorf("the slot %s was served by %s and by %s", last.Slot, id, last.RotationID)
		}
		p.served[last.Slot] = last.RotationID
	}
}

// isManual reports whether a rotation with that trigger need not serve a slot of its own.
func (c *cluster) isManual(t rotation.Trigger) bool {
	return t == rotation.TriggerManual || t == rotation.TriggerRecovery
}

// HoldLeft implements [rotation.SharedLedger] as internal/ledger/shared does.
func (p *process) HoldLeft(r rotation.Record) time.Duration {
	if r.Hold == nil {
		return 0
	}
	ours, held, now := r.Hold.Process == p.id, time.Duration(r.Hold.For), p.stamp()
	if p.unsafeHold {
		if ours {
			return held
		}
		return 0
	}
	if ours {
		p.memory.Lock()
		began, known := p.writes[r.Revision]
		p.memory.Unlock()
		if !known {
			return 0
		}
		return held - max(now.mono.Sub(began.mono), now.wall.Sub(began.wall))
	}
	p.memory.Lock()
	seen, known := p.seen[r.Revision]
	p.memory.Unlock()
	if !known {
		return held
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.revision != r.Revision {
		return p.left(sighting{at: seen}, held, now)
	}
	return p.left(sighting{seen, p.createdAt}, held, now)
}

// vaultReading returns the last reading of Vault's clock: what it shows at least by now, since when it has not jumped,
// and when it was read.
func (p *process) vaultReading() (now, since time.Time, at stamp, ok bool) {
	every := max(p.claim/6, time.Second)
	read := time.Now().Truncate(every)
	steady := p.began
	if p.cutSince.After(steady) {
		steady = moreRecent(steady, moreRecent(p.cutOff["vault"], p.stopped))
	}
	if read.Before(steady) {
		return now, since, at, false
	}
	shown, jumped := p.vaultAt(read)
	first, _ := p.vaultAt(steady)
	age := time.Since(read)
	at = p.stamp()
	at.mono = at.mono.Add(-age)
	return shown.Add(age), moreRecent(first, jumped), at, true
}

func moreRecent(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// disk carries out a call to the disk of the host.
func (p *process) disk(ctx context.Context, name string, carryOut func() error) error {
	f := p.planOf(name)
	switch f.how {
	case "late", "twice", "cut", "after":
		f.how = ""
	}
	p.awake()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, err := p.call(context.WithoutCancel(ctx), "disk", name, f, carryOut)
	return err
}

// Reserve implements [rotation.Pending].
func (p *process) Reserve(ctx context.Context, key rotation.PendingKey) error {
	return p.disk(ctx, "reserve", func() error { p.reserved[key.RotationID] = true; return nil })
}

// Seal implements [rotation.Pending].
func (p *process) Seal(ctx context.Context, key rotation.PendingKey, issued rotation.Issued) error {
	return p.disk(ctx, "seal", func() error {
		p.pending[key.RotationID], p.sealedAt[key.RotationID] = issued, p.now()
		if i := p.indexOf(issued.ClientSecret); i >= 0 {
			p.issued[i].received = true
		}
		return nil
	})
}

// Open implements [rotation.Pending].
func (p *process) Open(ctx context.Context, id string) (issued rotation.Issued, ok bool, err error) {
	err = p.disk(ctx, "open", func() error { issued, ok = p.pending[id]; return nil })
	return issued, ok && err == nil, err
}

// Erase implements [rotation.Pending].
func (p *process) Erase(ctx context.Context, id string) error {
	return p.disk(ctx, "erase", func() error {
		if issued, there := p.pending[id]; there {
			p.checkErased("erased from the disk of "+p.name, issued)
		}
		delete(p.pending, id)
		delete(p.reserved, id)
		delete(p.sealedAt, id)
		return nil
	})
}

// checkErased checks that no consumer can need an answer that is erased.
func (c *cluster) checkErased(how string, issued rotation.Issued) {
	i := c.indexOf(issued.ClientSecret)
	if i < 0 || c.issued[i].inSink {
		return
	}
	if i == len(c.issued)-1 {
		c.Errorf("the secret in use at Cloudflare (%d) was %s and was never in the sink", i, how)
	} else if held := c.indexOf(c.sink.ClientSecret); held < i {
		c.Errorf("the secret %d was %s and the sink has %d, which is older", i, how, held)
	}
}

// indexOf returns which of the issued secrets it is; -1 if it is none of them.
func (c *cluster) indexOf(s secret.Value) int {
	return slices.IndexFunc(c.issued, func(i issue) bool { return i.secret == s.Reveal() })
}

// copiesOf are the copies in the Vault, as a process reaches them.
type copiesOf struct{ *process }

func (p copiesOf) Copy(ctx context.Context, key rotation.PendingKey) error {
	p.awake()
	issued, sealed := p.pending[key.RotationID]
	if !sealed {
		return errors.New("there is no sealed answer to copy")
	}
	_, err := p.call(ctx, "vault", "copy", p.planOf("copy"), func() error {
		p.copies[key.RotationID] = issued
		if r := p.current(); r.Work == nil || r.Work.RotationID != key.RotationID {
			p.lateCopies[key.RotationID] = true
		}
		return nil
	})
	return err
}

func (p copiesOf) Open(ctx context.Context, id string) (issued rotation.Issued, ok bool, err error) {
	_, err = p.call(ctx, "vault", "open copy", p.planOf("open copy"), func() error {
		issued, ok = p.copies[id]
		if _, own := p.pending[id]; ok && p.foreignCopies && !own {
			return rotation.ErrUnreadable
		}
		return nil
	})
	return issued, ok && err == nil, err
}

func (p copiesOf) Erase(ctx context.Context, id string) error {
	_, err := p.call(ctx, "vault", "erase copy", p.planOf("erase copy"), func() error {
		if issued, there := p.copies[id]; there {
			p.checkErased("erased from Vault", issued)
		}
		delete(p.copies, id)
		return nil
	})
	return err
}

// Publish implements [rotation.Events].
func (p *process) Publish(e event.Event) {
	if p.dead {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, told{p.name, e})
	if _, phase := e.Detail.(event.PhaseEnded); !phase {
		p.note(p.name, "event %T %+v", e.Detail, e.Detail)
	}
}

// runHook runs a hook of the token if it is due, as package app does it. fails is set if what it runs fails.
func (p *process) runHook(ctx context.Context, name string, fails bool, lasts time.Duration) {
	var run *rotation.HookRun
	var err error
	p.inTurn(func() { run, _, err = p.rotator.BeginHook(ctx, p.token, name, time.Minute, false) })
	if err != nil || run == nil {
		return
	}
	end := rotation.HookEnd{Err: p.carryOutHook(ctx, run, fails, lasts), Tokens: 1}
	end.CutOff = errors.Is(end.Err, rotation.ErrNotHeld)
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		if p.inTurn(func() { _, err = p.rotator.EndHook(ctx, p.token, *run, end) }); err == nil {
			return
		}
		_ = p.pass(ctx, wait)
	}
}

// carryOutHook is what a hook does, at a receiver that every replica reaches. A fault that stops the process does so after
// the last check.
func (p *process) carryOutHook(ctx context.Context, run *rotation.HookRun, fails bool, lasts time.Duration) error {
	f := p.planOf("hook")
	if f.how == "twice" || f.how == "late" || f.how == "cut" {
		f.how = "after"
	}
	prepare := p.planOf("hook prepare")
	if !strings.Contains(prepare.how, "stop") && !strings.Contains(prepare.how, "suspend") {
		prepare = planned{}
	}
	if _, err := p.call(ctx, "disk", "hook prepare", prepare, func() error { return nil }); err != nil {
		return err
	}
	if err := p.pass(ctx, lasts/2); err != nil { // it reads its secret, and finds its receiver
		return err
	}
	if err := p.rotator.MayRunHook(*run); err != nil && p.sabotage != startsLate {
		return err
	}
	left := time.Now()
	_, err := p.call(ctx, "receiver", "hook", f, func() error {
		if fails {
			return errHook
		}
		p.hooks.runs(p.current(), *run, time.Since(left) > 10*time.Second && p.sabotage != startsLate)
		return nil
	})
	return errors.Join(err, p.pass(ctx, lasts/2))
}

// issuerCall carries out a call to Cloudflare.
func (p *process) issuerCall(ctx context.Context, name string, f planned, carryOut func() error) error {
	switch f.how {
	case "twice": // Cloudflare has no key by which a request could be sent twice
		f.how = "after"
	case "late":
		f.for_ = min(f.for_, lateBy)
	}
	sent, err := p.call(ctx, "cloudflare", name, f, carryOut)
	if e := (*rotation.IssuerError)(nil); err == nil || errors.As(err, &e) {
		return err
	}
	e := &rotation.IssuerError{Class: rotation.Unknown, Operation: name, Err: err}
	if !sent {
		e.Class = rotation.NotCarriedOut
	}
	if f.how == "refused" && f.class != rotation.Unknown {
		e.Class, e.RetryAfter = f.class, 30*time.Second
	}
	return e
}

// Ready implements [rotation.Issuer].
func (p *process) Ready(ctx context.Context) error {
	return p.issuerCall(ctx, "ready", p.planOf("ready"), func() error { return nil })
}

// Inspect implements [rotation.Issuer].
func (p *process) Inspect(ctx context.Context, id string) (facts rotation.TokenFacts, err error) {
	err = p.issuerCall(ctx, "inspect", p.planOf("inspect"), func() error { facts = p.cf.facts(); return nil })
	return facts, err
}

// SetGrace implements [rotation.Issuer].
func (p *process) SetGrace(ctx context.Context, _ string, grace time.Duration) (facts rotation.TokenFacts, until time.Time, err error) {
	err = p.issuerCall(ctx, "extend", p.planOf("extend"), func() error {
		now := time.Now()
		p.cf.updatedAt = now.UTC()
		if now.Before(p.cf.previousUntil) { // a secret whose grace is over cannot be extended
			p.cf.previousUntil = now.Add(grace)
		}
		facts, until = p.cf.facts(), now.Add(grace+p.wallOffset)
		return nil
	})
	return facts, until, err
}

// Rotate implements [rotation.Issuer]. A fault that stops the process does so after the last check.
func (p *process) Rotate(ctx context.Context, req rotation.RotateRequest) (issued rotation.Issued, err error) {
	p.awake()
	if err := rotation.MaySend(ctx); err != nil {
		return issued, &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "rotate", Err: err}
	}
	id := p.checkSend()
	// A call returns before its request arrives if nothing waits for it any more: then nobody gets this answer.
	answer := make(chan rotation.Issued, 1)
	err = p.issuerCall(ctx, "rotate", p.planOf("rotate"), func() error {
		p.checkRotate(id)
		p.cf.replace(fmt.Sprintf("cfast_%048d", len(p.issued)), req.Grace)
		p.cf.updatedAt = time.Now().UTC()
		p.issued = append(p.issued, issue{secret: p.cf.current, rotationID: id})
		got := rotation.Issued{Credential: rotation.Credential{ClientID: clientID, ClientSecret: secret.New(p.cf.current)}, Facts: p.cf.facts()}
		if req.Grace > 0 {
			got.GraceEndsAt = p.cf.previousUntil.Add(p.wallOffset).UTC()
		}
		select {
		case answer <- got:
		default:
		}
		return nil
	})
	if err != nil {
		return rotation.Issued{}, err
	}
	return <-answer, nil
}

// checkSend checks that a rotate request may leave now, and returns its rotation.
func (p *process) checkSend() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.current()
	if r.Hold == nil || r.Hold.Process != p.id || time.Since(p.savedAt) >= time.Duration(r.Hold.For) {
		p.Errorf("%s: a rotate request was sent without a hold: %s, saved %s ago", p.name, holdText(r.Hold), time.Since(p.savedAt))
	}
	raised := map[string]bool{}
	for _, e := range p.events {
		switch d := e.Detail.(type) {
		case event.RotationEnded:
			raised[d.RotationID] = raised[d.RotationID] || d.Result == event.ResultInDoubt
		case event.Verdict:
			raised[d.RotationID] = true
		}
	}
	for i, was := range p.issued {
		if !was.received && !was.inSink && !raised[was.rotationID] {
			p.Errorf("%s: another rotate request was sent, and no doubt was raised about the lost secret %d of %s", p.name, i, was.rotationID)
		}
	}
	return p.intent
}

func holdText(h *rotation.Hold) string {
	if h == nil {
		return "no hold"
	}
	return "held by " + h.Process
}

// checkRotate checks a rotate request that arrives. The lock is held.
func (p *process) checkRotate(id string) {
	if slices.ContainsFunc(p.issued, func(i issue) bool { return i.rotationID == id }) {
		p.Errorf("rotation %s was requested twice", id)
	}
	r, c := p.current(), &p.cf
	if r.Work == nil || r.Work.RotationID != id || time.Since(r.Work.IntentAt) > 55*time.Second {
		p.unsteady = true
	}
	used := p.sink.ClientSecret.Reveal()
	p.blind = p.blind || used == c.previous && r.OldDiesBy.IsZero()
	if used == c.previous && time.Now().Before(c.previousUntil) && c.tooEarly(p.believed.Add(-30*time.Second)) && !p.mayCutOff && !p.unsteady {
		p.Errorf("%s: rotated again while the sink's secret, which is the previous one, still worked until %s (believed: %s)", p.name, c.previousUntil, p.believed)
	}
}

// sharedSink is the sink as a process reaches it. Its writes are check-and-set, as those of KV version 2 are.
type sharedSink struct{ *process }

func (s sharedSink) Name() string { return "memory:sink" }

func (s sharedSink) stored() rotation.Stored {
	return rotation.Stored{Exists: true, Version: s.sinkVersion, ClientID: s.sink.ClientID, Digest: s.sink.ClientSecret.Digest()}
}

func (s sharedSink) Preflight(ctx context.Context) (st rotation.Stored, err error) {
	_, err = s.call(ctx, s.sinkPeer, "sink preflight", s.planOf("sink preflight"), func() error { st = s.stored(); return nil })
	return st, err
}

// Store writes against the base of the delivery, and after a conflict against what it has read then.
func (s sharedSink) Store(ctx context.Context, d rotation.Delivery) (st rotation.Stored, err error) {
	base := d.Base.Version
	for range 3 {
		if err := rotation.MaySend(ctx); err != nil {
			return st, err
		}
		conflict := false
		write := func() error {
			switch {
			case s.sink.ClientSecret.Equal(d.ClientSecret):
			case s.sinkVersion != base:
				conflict = true
			case d.MayReplace(s.stored()) != nil:
				return rotation.ErrOtherSecret
			default:
				s.checkDelivered(d)
				s.process.sink = d.Credential
				s.sinkVersion++
			}
			st = s.stored()
			return nil
		}
		if _, err = s.call(ctx, s.sinkPeer, "sink store", s.planOf("sink store"), write); err != nil {
			return rotation.Stored{}, err
		}
		if !conflict {
			return st, nil
		}
		base = st.Version
	}
	return rotation.Stored{}, errors.New("another writer is faster")
}

// checkDelivered checks that a delivery does not take a newer secret away. The lock is held.
func (s sharedSink) checkDelivered(d rotation.Delivery) {
	ours, held := s.indexOf(d.ClientSecret), s.indexOf(s.sink.ClientSecret)
	if ours < held && !s.mayCutOff {
		s.Errorf("%s: the secret %d was delivered over %d, which is newer", s.name, ours, held)
	}
	s.issued[ours].inSink = true
}

func (s sharedSink) ReadBack(ctx context.Context) (c rotation.Credential, err error) {
	_, err = s.call(ctx, s.sinkPeer, "sink read back", s.planOf("sink read back"), func() error { c = s.sink; return nil })
	return c, err
}

// sealedOn returns the rotations whose answer is sealed on a host, in order.
func (h *host) sealedOn() []string { return slices.Sorted(maps.Keys(h.pending)) }
