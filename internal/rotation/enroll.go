package rotation

import (
	"context"
	"fmt"
	"slices"
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
	record, err := r.ledger.Load(ctx, t.Name)
	if err != nil {
		return Record{}, fmt.Errorf("%w: loading the record of %s: %w", ErrLedger, t.Name, err)
	}
	enrolled, missed, changed, err := r.enrolled(t, record)
	if err != nil || !changed {
		return enrolled, err
	}
	saved, err := r.ledger.Save(ctx, enrolled)
	if err == nil && r.observer != nil && missed.Count+missed.Frozen > 0 {
		r.observer.Observe(missed)
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
	records := make([]Record, len(tokens))
	var changed []int
	var passed []SlotsMissed
	save := func() error {
		batch := make([]Record, len(changed))
		for i, at := range changed {
			batch[i] = records[at]
		}
		saved, err := r.ledger.SaveAll(ctx, batch)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLedger, err)
		}
		for i, at := range changed {
			records[at] = saved[i]
		}
		for _, missed := range passed {
			r.observer.Observe(missed)
		}
		changed, passed = changed[:0], passed[:0]
		return nil
	}
	for i, t := range tokens {
		record, missed, change, err := r.enrolled(t, byName[t.Name])
		if err != nil {
			return nil, fmt.Errorf("token %s: %w", t.Name, err)
		}
		if records[i] = record; change {
			changed = append(changed, i)
		}
		if r.observer != nil && missed.Count+missed.Frozen > 0 {
			passed = append(passed, missed)
		}
		if len(changed) == enrollBatch {
			if err := save(); err != nil {
				return nil, err
			}
		}
	}
	return records, save()
}

// enrollBatch is how many records are saved in one transaction.
const enrollBatch = 1000

// enrolled returns the record of a token as it is when the token begins to be scheduled,
// the slots that were given up, and whether anything of it has to be saved.
func (r *Rotator) enrolled(t Token, stored Record) (record Record, missed SlotsMissed, changed bool, err error) {
	record, healed, err := r.fit(t, stored)
	if err != nil {
		return record, SlotsMissed{}, false, err
	}
	if record.Revision == 0 || !t.MatchesRecord(record) {
		origin := ""
		if t.LedgerHasID() {
			origin = t.Origin()
		}
		return Record{
			Format: RecordFormat, Revision: record.Revision,
			Token: t.Name, TokenID: t.ID, Account: t.Account, Origin: origin, Replaced: replacedBy(t, t.ID, record.Replaced),
			Abandoned: record.Abandoned,
			Anchor:    r.now().UTC().Truncate(time.Second), Schedule: scheduleOf(t),
		}, SlotsMissed{}, true, nil
	}
	rescheduled := reschedule(t, &record, r.now())
	if t.LedgerHasID() && record.Origin != t.Origin() { // it was rotated before, and is replaced from now on
		record.Origin, rescheduled = t.Origin(), true
	}
	if kept := replacedBy(t, record.TokenID, record.Replaced); len(kept) < len(record.Replaced) {
		record.Replaced, rescheduled = kept, true
	}
	a := &attempt{Rotator: r, token: t, record: record, began: r.now()}
	if record.Step != StepIdle && record.Step != StepInDoubt && !record.NotBefore.IsZero() {
		// Whoever restarts the daemon has mended something, or a crash has cost time that a
		// grace does not have: what is in hand does not wait for its back-off.
		a.record.NotBefore = time.Time{}
		return a.record, SlotsMissed{}, true, nil
	}
	missed, changed = a.catchUp()
	return a.record, missed, changed || healed || rescheduled, nil
}

// replacedBy is what is to be deleted once inUse has the place: not what the configuration names
// again.
func replacedBy(t Token, inUse string, replaced []Replaced) []Replaced {
	return slices.DeleteFunc(slices.Clone(replaced), func(r Replaced) bool {
		return r.TokenID == inUse || !t.LedgerHasID() && t.Owns(r.TokenID)
	})
}

// reschedule notes that a token has another schedule than before. The new one is counted from
// now on: that it would have had slots since the last rotation is no reason to rotate at
// once. @every is counted from the last rotation whatever was there before.
func reschedule(t Token, r *Record, now time.Time) bool {
	schedule := scheduleOf(t)
	if r.Schedule == schedule {
		return false
	}
	if now = now.UTC().Truncate(time.Second); r.Schedule != "" && t.Timetable.Schedule.Interval() == 0 && now.After(r.Anchor) {
		r.Anchor, r.CatchUpAt = now, time.Time{}
		if r.Step == StepIdle {
			r.NotBefore = time.Time{}
		}
	}
	r.Schedule = schedule
	return true
}

func scheduleOf(t Token) string {
	return t.Timetable.Schedule.String() + " in " + t.Timetable.Schedule.Location().String()
}

// load reads a token's record and refuses one that this code must not work on.
func (r *Rotator) load(ctx context.Context, t Token) (Record, error) {
	record, err := r.ledger.Load(ctx, t.Name)
	if err != nil {
		return Record{}, fmt.Errorf("%w: loading the record of %s: %w", ErrLedger, t.Name, err)
	}
	record, healed, err := r.fit(t, record)
	if err != nil || !healed {
		return record, err
	}
	// At once: slots are counted from now on, and not from each time anew that it is looked at.
	saved, err := r.ledger.Save(ctx, record)
	if err != nil {
		return record, fmt.Errorf("%w: saving the record of %s: %w", ErrLedger, t.Name, err)
	}
	return saved, nil
}

// fit refuses a record that does not fit the token, and takes out of it what a wrong clock
// has left: healed, if there was any.
func (r *Rotator) fit(t Token, record Record) (_ Record, healed bool, err error) {
	if record.Step != StepIdle && !t.MatchesRotation(record) {
		return record, false, fmt.Errorf("the ledger holds an unfinished rotation (%s) of service token %s under the name %s, "+
			"which the configuration now gives to %s: set its id back until that rotation is done, or use another name. "+
			"If that service token was deleted, set it back and end the rotation with rotatord resolve %s --drop",
			record.Step, record.Work.TokenID, t.Name, t.ID, t.Name)
	}
	before := record.Anchor
	record, what := heal(t, record, r.now())
	if len(what) > 0 && r.observer != nil {
		r.observer.Observe(ClockHealed{Token: t.Name, What: what})
	}
	return record, len(what) > 0 || !record.Anchor.Equal(before), nil
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
