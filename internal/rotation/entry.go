package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/failpoint"
)

// entry is a token that is opened for work: it is locked, its record is loaded, and times
// that only a wrong clock can have written are taken out of it.
//
// A record is a value that is never changed. Every change is a transition (transition.go):
// a pure function that returns the next record. The entry adopts it in one of two ways:
//
//   - become, for decisions and steps: the next record is saved first and adopted then. If
//     it cannot be saved, nothing has happened.
//   - observe, for what was seen of the world or has happened in it, such as an answer or a
//     grace that was extended. It is true whether or not it can be saved. The next become
//     saves it.
type entry struct {
	*Rotator
	token  Token
	record Record
	lock   *sync.Mutex
	// With several replicas: working is set while this one works on the token, beside while it does so beside a
	// rotation. Then a save takes or renews the hold.
	working, beside bool
	release         func()      // gives back the room in the record of events; nil if none is kept
	actor           event.Actor // in whose name the token is opened; the zero Actor if the context does not say
}

// open waits for the token and opens it. The caller closes the entry, after an error too.
// With an error the record is what could be loaded.
func (r *Rotator) open(ctx context.Context, t Token) (*entry, error) {
	e := &entry{Rotator: r, token: t, lock: r.lockOf(t.Name)}
	e.actor, _ = event.ActorFrom(ctx)
	e.lock.Lock()
	var err error
	e.record, err = r.load(ctx, t)
	return e, err
}

// openPatiently opens the token for an operator: if another replica works on it, it waits for that one as it would
// for work in this process.
func (r *Rotator) openPatiently(ctx context.Context, t Token) (*entry, error) {
	e, err := r.open(ctx, t)
	for began := time.Now(); errors.Is(err, ErrHeld) && time.Since(began) < r.replica.Claim; {
		select {
		case <-ctx.Done():
			return e, err
		case <-time.After(heldPoll):
		}
		e.record, err = r.load(ctx, t)
	}
	return e, err
}

// heldPoll is how often an operator's command looks whether another replica is done.
const heldPoll = 250 * time.Millisecond

// tryOpen opens the token as open does, but returns nil if the token is being worked on.
func (r *Rotator) tryOpen(ctx context.Context, t Token) (*entry, error) {
	e := &entry{Rotator: r, token: t, lock: r.lockOf(t.Name)}
	e.actor, _ = event.ActorFrom(ctx)
	if !e.lock.TryLock() {
		return nil, nil
	}
	var err error
	if e.record, err = r.load(ctx, t); errors.Is(err, ErrHeld) {
		e.close()
		return nil, nil
	}
	return e, err
}

// close ends the work on the token, and gives back its hold.
func (e *entry) close() {
	if e.release != nil {
		e.release()
	}
	e.remember()
	e.giveBack()
	e.lock.Unlock()
}

// tell publishes what happened to the token.
func (e *entry) tell(d event.Detail) { e.Rotator.tell(e.token.Name, e.by(e.record.Order), d) }

// by returns who or what caused the work in progress. order is the order that this work carries out; nil
// if there is none.
func (e *entry) by(order *Order) event.Actor {
	switch {
	case e.actor.Cause != "":
		return e.actor
	case e.record.Work != nil:
		return causeOf(e.record.Work.Trigger, order)
	default:
		return event.Daemon
	}
}

// causeOf returns who or what caused a rotation with that trigger. order is the order that the rotation
// carries out; nil if there is none.
func causeOf(t Trigger, order *Order) event.Actor {
	switch t {
	case TriggerSchedule, TriggerCatchUp:
		return event.Actor{Cause: event.BySchedule}
	case TriggerRetry:
		return event.Actor{Cause: event.ByRetry}
	case TriggerRecovery:
		return event.Actor{Cause: event.ByRecovery}
	case TriggerManual:
		switch {
		case order == nil:
			return event.Operator("")
		case !order.AfterOutside:
			return event.Operator(order.By)
		}
	}
	return event.Daemon
}

// become saves next, then adopts it, and reports that the step is durable.
func (e *entry) become(ctx context.Context, next Record) error {
	point := "ledger." + cmp.Or(string(next.Step), "idle")
	failpoint.Reach(point + ".before")
	err := e.save(ctx, next.stamped(e.token))
	failpoint.Reach(point + ".after")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLedger, err)
	}
	e.saved(e.record)
	return nil
}

// save saves and adopts a record as become does, for a change that is not a step of a rotation. It
// publishes no event.
func (e *entry) save(ctx context.Context, next Record) error {
	next = next.heldBy(e.holder(next))
	saved, err := e.ledger.Save(ctx, next)
	if err != nil {
		return err
	}
	e.record = next.savedAs(saved.Revision)
	return nil
}

// saveBatch is records of different tokens that are saved together.
type saveBatch struct {
	records []Record
	after   []func(saved Record, ok bool) // by index of records
}

// add adds a record. after is called once the batch was saved, with the record as it was saved; ok is false if it was not.
func (b *saveBatch) add(record Record, after func(saved Record, ok bool)) {
	b.records, b.after = append(b.records, record), append(b.after, after)
}

// saveAll saves a batch, and calls what follows for each of its records, in their order. What a saved one shows is true,
// and has to be told now, also if others could not be saved: the next look finds nothing new in it.
func (r *Rotator) saveAll(ctx context.Context, b saveBatch) error {
	saved, err := r.ledger.SaveAll(ctx, b.records)
	for i, after := range b.after {
		if saved != nil && saved[i].Revision > 0 {
			after(saved[i], true)
		} else {
			after(Record{}, false)
		}
	}
	return err
}

// observe adopts next without saving it.
func (e *entry) observe(next Record) { e.record = next }

// erase removes the sealed answer of a rotation, or what was reserved for it.
func (e *entry) erase(ctx context.Context, rotationID string) error {
	failpoint.Reach("erase.before")
	err := e.pending.Erase(ctx, rotationID)
	failpoint.Reach("erase.after")
	return err
}

// load reads a token's record and refuses one that this code must not work on.
func (r *Rotator) load(ctx context.Context, t Token) (Record, error) {
	record, err := r.ledger.Load(ctx, t.Name)
	if err != nil {
		return Record{}, fmt.Errorf("%w: loading the record of %s: %w", ErrLedger, t.Name, err)
	}
	if err := r.heldByOther(t, record); err != nil {
		return record, err
	}
	record, healed, changed, err := fit(t, record, r.now())
	r.tellHealed(t, healed)
	if err != nil || !changed {
		return record, err
	}
	// Save it at once: slots are counted from this time on. Without the save they would be counted from a
	// later time at each opening.
	saved, err := r.ledger.Save(ctx, record)
	if err != nil {
		return record, fmt.Errorf("%w: saving the record of %s: %w", ErrLedger, t.Name, err)
	}
	return saved, nil
}

// fit refuses a record that does not fit the token. It removes the times that only a wrong clock can have
// written; healed says in words which. changed reports whether the record has to be saved.
func fit(t Token, record Record, now time.Time) (_ Record, healed []string, changed bool, err error) {
	if err := fits(t, record); err != nil {
		return record, nil, false, err
	}
	before := record.Anchor
	record, healed = record.healed(t, now)
	return record, healed, len(healed) > 0 || !record.Anchor.Equal(before), nil
}

// fits refuses a record that does not fit the token.
func fits(t Token, record Record) error {
	if record.Step != StepIdle && !t.MatchesRotation(record) {
		return fmt.Errorf("the ledger has an unfinished rotation (%s) of service token %s under the name %s, "+
			"which the configuration now gives to %s: set its id back until that rotation is done, or use another name. "+
			"If that service token was deleted, set it back and end the rotation with rotatord resolve %s --drop",
			record.Step, record.Work.TokenID, t.Name, t.ID, t.Name)
	}
	return nil
}

// tellHealed publishes which times from a wrong clock were removed from a record, if there were any.
func (r *Rotator) tellHealed(t Token, what []string) {
	if len(what) > 0 {
		r.tell(t.Name, event.Daemon, event.Healed{What: what})
	}
}
