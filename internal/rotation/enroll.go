package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"rotatord/internal/event"
)

// Enroll adds a token to the ledger before it is scheduled, and returns its record. The slots of a token
// that was never seen are counted from now on: it is not rotated at once, but in its first slot after now.
// A rotation in progress is due at once.
//
// If the configuration now gives the name to another service token, the name gets a new record. But if a
// rotation of the former service token is unfinished, Enroll returns an error: its secret would be
// delivered to the wrong place.
func (r *Rotator) Enroll(ctx context.Context, t Token) (Record, error) {
	return r.EnrollIf(ctx, t, func() bool { return true })
}

// ErrReplaced says that a token was not enrolled, because a later configuration has another one of that name, or none.
var ErrReplaced = errors.New("a later configuration replaces the token")

// EnrollIf does what Enroll does while the configuration still has the token, and returns [ErrReplaced] else. isConfigured is asked after the record
// was read: if the later token is enrolled after that, the revision of the record refuses the save of this one, or that one replaces it.
func (r *Rotator) EnrollIf(ctx context.Context, t Token, isConfigured func() bool) (Record, error) {
	l := r.lockOf(t.Name)
	l.Lock()
	defer l.Unlock()
	record, err := r.ledger.Load(ctx, t.Name)
	if !isConfigured() {
		return Record{}, ErrReplaced
	}
	if err != nil {
		return Record{}, fmt.Errorf("%w: loading the record of %s: %w", ErrLedger, t.Name, err)
	}
	enrolled, missed, changed, err := r.enroll(t, record)
	if err != nil || !changed {
		return enrolled, err
	}
	saved, err := r.ledger.Save(ctx, enrolled)
	if errors.Is(err, ErrConflict) && r.replica != nil { // another replica enrolls it or works on it, and the engine learns of that
		return r.ledger.Load(ctx, t.Name)
	}
	if err == nil {
		r.tellMissed(t.Name, missed)
	}
	return saved, err
}

// EnrollAll enrolls many tokens in few transactions, and returns their records in the order of tokens. If
// it fails, some of them may be enrolled. Nothing else works on them meanwhile. So a claim, without replicas, is of a process
// that has ended before a request left: the claims of all tokens are given up in the same transactions.
func (r *Rotator) EnrollAll(ctx context.Context, tokens []Token) ([]Record, error) {
	records := make([]Record, len(tokens))
	err := r.EnrollEach(ctx, tokens, func(Record) {}, func(i int, record Record) { records[i] = record })
	if err != nil {
		return nil, err
	}
	return records, nil
}

// EnrollEach does what EnrollAll does, without having all records in memory. loaded is called with the record of each token
// as the ledger had it, and done with the index of the token in tokens, once the token is enrolled. Neither may use the
// ledger.
func (r *Rotator) EnrollEach(ctx context.Context, tokens []Token, loaded func(Record), done func(i int, record Record)) error {
	load, err := r.storedRecords(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLedger, err)
	}
	for first := 0; first < len(tokens); first += batchSize {
		batch := enrollment{rotator: r, tokens: tokens[first:min(first+batchSize, len(tokens))]}
		if batch.records, err = load(batch.tokens); err != nil {
			return fmt.Errorf("%w: %w", ErrLedger, err)
		}
		for _, record := range batch.records {
			loaded(record)
		}
		if err := batch.enroll(ctx); err != nil {
			return err
		}
		for i, record := range batch.records {
			done(first+i, record)
		}
	}
	return nil
}

// enrollment is a batch of tokens that are enrolled together.
type enrollment struct {
	rotator *Rotator
	tokens  []Token
	records []Record // of tokens
	changed []int    // of records, those to be saved
	missed  []event.Missed
	givenUp []string // the rotations whose claims are given up
}

// enroll makes the tokens known to the ledger.
func (e *enrollment) enroll(ctx context.Context) error {
	e.missed = make([]event.Missed, len(e.tokens))
	for i, t := range e.tokens {
		stored := e.records[i]
		claimed := stored.Step == StepClaimed && e.rotator.replica == nil && t.MatchesRotation(stored)
		if claimed {
			e.givenUp = append(e.givenUp, stored.Work.RotationID)
			stored = stored.released()
		}
		var change bool
		var err error
		if e.records[i], e.missed[i], change, err = e.rotator.enroll(t, stored); err != nil {
			return fmt.Errorf("token %s: %w", t.Name, err)
		}
		if change || claimed {
			e.changed = append(e.changed, i)
		}
	}
	if err := e.save(ctx); err != nil {
		return err
	}
	e.eraseGivenUp(ctx)
	return nil
}

// eraseGivenUp erases what was reserved for claims that are given up, once the ledger says so. They share the syncs of the
// disk. The next start removes a reservation that is left after a crash, or because the disk refuses: health checks show that.
func (e *enrollment) eraseGivenUp(ctx context.Context) {
	var erasing errgroup.Group
	erasing.SetLimit(64)
	for _, rotationID := range e.givenUp {
		erasing.Go(func() error { return e.rotator.pending.Erase(ctx, rotationID) })
	}
	_ = erasing.Wait()
}

func (e *enrollment) save(ctx context.Context) error {
	var changed saveBatch
	var unsaved []int
	for _, at := range e.changed {
		changed.add(e.records[at], func(saved Record, ok bool) {
			if !ok {
				unsaved = append(unsaved, at)
				return
			}
			e.records[at] = saved
			e.rotator.tellMissed(saved.Token, e.missed[at])
		})
	}
	err := e.rotator.saveAll(ctx, changed)
	e.changed = unsaved
	switch {
	case errors.Is(err, ErrConflict) && e.rotator.replica != nil: // another replica enrolls them too
		return e.saveEach(ctx)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrLedger, err)
	}
	return nil
}

// saveEach enrolls each of the tokens that are not saved yet by itself. Those that another replica has enrolled stay as
// they are. Replicas that start together with many new tokens come here for most of them, so several are under way at
// the same time.
func (e *enrollment) saveEach(ctx context.Context) error {
	saving, ctx := errgroup.WithContext(ctx)
	saving.SetLimit(16)
	for _, at := range e.changed {
		saving.Go(func() (err error) {
			e.records[at], err = e.rotator.Enroll(ctx, e.tokens[at])
			return err
		})
	}
	return saving.Wait()
}

// enrolled returns the record that a token has when it begins to be scheduled. It also returns the slots
// that were given up, the times from a wrong clock that were removed, and whether the record has to be
// saved.
//
// heals is false for a replica, whose clock is compared with those of the others only later.
func enrolled(t Token, stored Record, p Pause, now time.Time, heals bool) (_ Record, missed event.Missed, healed []string, changed bool, err error) {
	record, err := stored, fits(t, stored)
	if heals {
		record, healed, changed, err = fit(t, stored, now)
	}
	if err != nil {
		return record, event.Missed{}, nil, false, err
	}
	if record.Revision == 0 || !t.MatchesRecord(record) {
		return newRecord(t, record, now), event.Missed{}, healed, true, nil
	}
	record, configured := record.configured(t, now)
	if record.Step != StepIdle && record.Step != StepInDoubt && !record.NotBefore.IsZero() {
		// A rotation in progress does not wait for its back-off after a restart: a restart often follows a
		// repair, and a crash has used up some of the grace.
		return record.retriedAt(time.Time{}), event.Missed{}, healed, true, nil
	}
	record, missed, late := record.caughtUp(t, p, now)
	return record, missed, healed, changed || configured || late, nil
}

// enroll calls enrolled for this time, and publishes which times from a wrong clock were removed.
func (r *Rotator) enroll(t Token, stored Record) (record Record, missed event.Missed, changed bool, err error) {
	if r.replica != nil && stored.Step != StepIdle && t.MatchesRotation(stored) {
		return stored, event.Missed{}, false, nil // another replica may be working on it
	}
	record, missed, healed, changed, err := enrolled(t, stored, r.PauseOf(t.Name), r.now(), r.replica == nil)
	r.tellHealed(t, healed)
	return record, missed, changed, err
}
