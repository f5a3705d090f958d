package rotation

import (
	"context"
	"fmt"
	"time"

	"rotatord/internal/event"
)

// Enroll makes a token known to the ledger before it is scheduled, and returns its
// record. A token that was never seen is counted from now on: it is not rotated at
// once, but in its first slot after now. A rotation in progress is due at once.
//
// A name that is now given to another service token starts afresh, but not while a
// rotation of the former one is unfinished: its secret would be delivered to the wrong
// place. That is an error.
func (r *Rotator) Enroll(ctx context.Context, t Token) (Record, error) {
	l := r.lockOf(t.Name)
	l.Lock()
	defer l.Unlock()
	record, err := r.ledger.Load(ctx, t.Name)
	if err != nil {
		return Record{}, fmt.Errorf("%w: loading the record of %s: %w", ErrLedger, t.Name, err)
	}
	enrolled, missed, changed, err := r.enroll(t, record)
	if err != nil || !changed {
		return enrolled, err
	}
	saved, err := r.ledger.Save(ctx, enrolled)
	if err == nil {
		r.tellMissed(t.Name, missed)
	}
	return saved, err
}

// EnrollAll does the same for many tokens, in few transactions, and returns their records in
// the order of tokens. If it fails some may be enrolled.
func (r *Rotator) EnrollAll(ctx context.Context, tokens []Token) ([]Record, error) {
	stored, err := r.ledger.All(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLedger, err)
	}
	byName := make(map[string]Record, len(stored))
	for _, record := range stored {
		byName[record.Token] = record
	}
	batch := enrollment{rotator: r, records: make([]Record, len(tokens)), missed: make(map[string]event.Missed)}
	for i, t := range tokens {
		record, missed, change, err := r.enroll(t, byName[t.Name])
		if err != nil {
			return nil, fmt.Errorf("token %s: %w", t.Name, err)
		}
		if batch.records[i] = record; change {
			batch.changed = append(batch.changed, i)
		}
		batch.missed[t.Name] = missed
		if len(batch.changed) == batchSize {
			if err := batch.save(ctx); err != nil {
				return nil, err
			}
		}
	}
	return batch.records, batch.save(ctx)
}

// enrollment is what one EnrollAll has come to.
type enrollment struct {
	rotator *Rotator
	records []Record
	changed []int                   // of records, those to be saved
	missed  map[string]event.Missed // by token, what is to be told once all is saved
}

func (e *enrollment) save(ctx context.Context) error {
	batch := make([]Record, len(e.changed))
	for i, at := range e.changed {
		batch[i] = e.records[at]
	}
	saved, err := e.rotator.ledger.SaveAll(ctx, batch)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLedger, err)
	}
	for i, at := range e.changed {
		e.records[at] = saved[i]
	}
	for _, at := range e.changed {
		token := e.records[at].Token
		e.rotator.tellMissed(token, e.missed[token])
	}
	e.changed = e.changed[:0]
	return nil
}

// enrolled returns the record of a token as it is when the token begins to be scheduled,
// the slots that were given up, what a wrong clock had left in it, and whether it has to be saved.
func enrolled(t Token, stored Record, p Pause, now time.Time) (_ Record, missed event.Missed, healed []string, changed bool, err error) {
	record, healed, changed, err := fit(t, stored, now)
	if err != nil {
		return record, event.Missed{}, nil, false, err
	}
	if record.Revision == 0 || !t.MatchesRecord(record) {
		return newRecord(t, record, now), event.Missed{}, healed, true, nil
	}
	record, configured := record.configured(t, now)
	if record.Step != StepIdle && record.Step != StepInDoubt && !record.NotBefore.IsZero() {
		// A restart often follows a repair, and a crash has used up some of the grace: a rotation
		// in progress does not wait for its back-off.
		return record.retriedAt(time.Time{}), event.Missed{}, healed, true, nil
	}
	record, missed, late := record.caughtUp(t, p, now)
	return record, missed, healed, changed || configured || late, nil
}

// enroll does so at this time, and tells what a wrong clock had left in the record.
func (r *Rotator) enroll(t Token, stored Record) (record Record, missed event.Missed, changed bool, err error) {
	record, missed, healed, changed, err := enrolled(t, stored, r.PauseOf(t.Name), r.now())
	r.tellHealed(t, healed)
	return record, missed, changed, err
}
