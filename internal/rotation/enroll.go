package rotation

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Enroll makes a token known to the ledger before it is scheduled, and returns its
// record. A token that was never seen is counted from now on: it is not rotated at
// once, but in its first slot after now. A rotation in hand is due at once.
//
// A name that now stands for another service token starts afresh, but not while a
// rotation of the former one is unfinished: its secret would be delivered to the wrong
// place. That is an error.
func (r *Rotator) Enroll(ctx context.Context, t Token) (Record, error) {
	defer r.lock(t.Name)()
	record, err := r.load(ctx, t)
	if err != nil {
		return record, err
	}
	if record.Revision > 0 && t.Owns(record.TokenID) {
		if record.Step == StepIdle || record.Step == StepInDoubt || record.NotBefore.IsZero() {
			return record, nil
		}
		// Whoever restarts the daemon has mended something, or a crash has cost time that a
		// grace does not have: what is in hand does not wait for its back-off.
		record.NotBefore = time.Time{}
		return r.ledger.Save(ctx, record)
	}
	now := r.now().UTC().Truncate(time.Second)
	return r.ledger.Save(ctx, Record{
		Format: RecordFormat, Revision: record.Revision,
		Token: t.Name, TokenID: t.ID, Account: t.Account, Anchor: now,
	})
}

// Learn records what an inventory has seen of a token, and returns its record. While a
// rotation is in hand its own view of the token counts, and Learn changes nothing. Nor
// does it wait for one that is being worked on, which would hold up all other tokens of
// the account; it returns a zero Record then.
func (r *Rotator) Learn(ctx context.Context, t Token, facts TokenFacts) (Record, error) {
	l := r.lockOf(t.Name)
	if !l.TryLock() {
		return Record{}, nil
	}
	defer l.Unlock()
	record, err := r.load(ctx, t)
	if err != nil || record.Step != StepIdle {
		return record, err
	}
	known := &record.Facts
	if t.Paired() && facts.ID != record.TokenID {
		known = &record.Spare
	}
	if *known == facts {
		return record, nil
	}
	*known = facts
	return r.ledger.Save(ctx, record)
}

// load reads a token's record and refuses one that this code must not work on.
func (r *Rotator) load(ctx context.Context, t Token) (Record, error) {
	record, err := r.ledger.Load(ctx, t.Name)
	if err != nil {
		return Record{}, fmt.Errorf("%w: loading the record of %s: %w", ErrLedger, t.Name, err)
	}
	if record.Step != StepIdle && !t.Owns(record.Work.TokenID) {
		return record, fmt.Errorf("the ledger holds an unfinished rotation (%s) of service token %s under the name %s, "+
			"which the configuration now gives to %s: set its id back until that rotation is done, or use another name",
			record.Step, record.Work.TokenID, t.Name, t.ID)
	}
	return record, nil
}

// lock keeps everybody else from a token until the returned function is called.
func (r *Rotator) lock(token string) (unlock func()) {
	l := r.lockOf(token)
	l.Lock()
	return l.Unlock
}

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
