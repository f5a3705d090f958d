package rotation

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/moment"
)

// This file holds what an inventory shows: what a service token is like at Cloudflare, and whether
// another person or program has rotated it.

// ownChange is the time within which a change counts as our own: answers and clocks are seconds apart.
const ownChange = 2 * time.Minute

// outsideOnce is the time in which at most one rotation by others is answered: two daemons that rotate the
// same service token must not chase each other.
const outsideOnce = 24 * time.Hour

// RecordListing records what an inventory has seen of a token, and returns its record. While a rotation is
// in progress, RecordListing changes nothing: what the rotation has seen of the token counts. It does not
// wait for a token that is being worked on, because all other tokens of the account would wait too; it
// returns a zero Record then.
//
// A listing that was under way during a rotation does not undo what the rotation showed.
func (r *Rotator) RecordListing(ctx context.Context, t Token, facts TokenFacts) (Record, error) {
	e, err := r.tryOpen(ctx, t)
	if e == nil {
		return Record{}, nil
	}
	defer e.close()
	if err != nil || !r.IsListingNews(t, e.record, facts) {
		return e.record, err
	}
	next, news := e.record.listed(t, facts.notOlderThan(e.record.knownAs(t, facts.ID)), r.now().UTC())
	if err = e.save(ctx, next); err == nil && news != nil {
		r.tell(t.Name, event.Actor{Cause: event.ByOutside}, news)
	}
	return e.record, err
}

// Listed is what an inventory has seen of a token: facts of its service token, or of the two of a pair.
type Listed struct {
	Token Token
	Facts []TokenFacts
}

// RecordListings does what RecordListing does, for many tokens in few transactions. It calls changed with each record that it
// has changed. Only one batch is in memory at a time. A record that cannot be read does not stop the others.
func (r *Rotator) RecordListings(ctx context.Context, all iter.Seq[Listed], changed func(Record)) error {
	var errs []error
	batch := make([]Listed, 0, batchSize)
	record := func() {
		saved, unsaved, err := r.recordListed(ctx, batch)
		if errors.Is(err, ErrConflict) { // a reload, or another replica, has changed one of them meanwhile
			var alone []Record
			alone, err = r.recordEach(ctx, unsaved)
			saved = append(saved, alone...)
		}
		for _, one := range saved {
			changed(one)
		}
		errs = append(errs, err)
		clear(batch)
		batch = batch[:0]
	}
	for one := range all {
		if batch = append(batch, one); len(batch) == batchSize {
			record()
		}
	}
	if len(batch) > 0 {
		record()
	}
	return errors.Join(errs...)
}

// recordListed records a batch in one transaction. It returns the records that it has changed, and what it has not
// recorded because of err.
func (r *Rotator) recordListed(ctx context.Context, batch []Listed) (changed []Record, unsaved []Listed, err error) {
	var next saveBatch
	var errs []error
	now := r.now().UTC()
	for _, one := range batch {
		e, err := r.tryOpen(ctx, one.Token)
		if e == nil {
			continue
		}
		defer e.close()
		if err != nil {
			errs, unsaved = append(errs, err), append(unsaved, one)
			continue
		}
		record, told, isNews := r.shownBy(one, e.record, now)
		if !isNews {
			continue
		}
		next.add(record.heldBy(e.holder(record)), func(saved Record, ok bool) {
			if !ok {
				unsaved = append(unsaved, one)
				return
			}
			changed = append(changed, saved)
			for _, news := range told {
				r.tell(saved.Token, event.Actor{Cause: event.ByOutside}, news)
			}
		})
	}
	err = r.saveAll(ctx, next)
	return changed, unsaved, errors.Join(append(errs, err)...)
}

// shownBy returns a record with what an inventory has seen of its token, and what to tell of that once it is saved. isNews
// is false if the record has it all.
func (r *Rotator) shownBy(one Listed, record Record, now time.Time) (_ Record, told []event.Detail, isNews bool) {
	for _, facts := range one.Facts {
		if !r.IsListingNews(one.Token, record, facts) {
			continue
		}
		var news event.Detail
		isNews = true
		record, news = record.listed(one.Token, facts.notOlderThan(record.knownAs(one.Token, facts.ID)), now)
		if news != nil {
			told = append(told, news)
		}
	}
	return record, told, isNews
}

// recordEach records a batch one by one.
func (r *Rotator) recordEach(ctx context.Context, batch []Listed) (changed []Record, err error) {
	var errs []error
	for _, one := range batch {
		for _, facts := range one.Facts {
			record, err := r.RecordListing(ctx, one.Token, facts)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", one.Token.Name, err))
			} else if record.Revision > 0 {
				changed = append(changed, record)
			}
		}
	}
	return changed, errors.Join(errs...)
}

// IsListingNews reports whether RecordListing would record these facts in a record: no rotation is in progress, and the
// record does not have them yet.
func (r *Rotator) IsListingNews(t Token, record Record, facts TokenFacts) bool {
	if record.Step != StepIdle || !t.isListedAs(facts.ID, record) {
		return false
	}
	known := record.knownAs(t, facts.ID)
	facts = facts.notOlderThan(known)
	return known != facts && !facts.onlyUsedSince(known)
}

// isListedAs reports whether the listing of that service token is about t. It is not if another service
// token has taken its place since.
func (t Token) isListedAs(id string, r Record) bool {
	if t.Partner != "" {
		return t.Owns(id)
	}
	return id == t.ServiceToken(r)
}

// notOlderThan returns f without an updated_at that is earlier than a known one: the listing is older, or
// its times are coarser.
func (f TokenFacts) notOlderThan(known TokenFacts) TokenFacts {
	f.UpdatedAt = moment.Max(f.UpdatedAt, known.UpdatedAt)
	return f
}

// usedStep is by how much the time of the last use must move so that it is worth a write to the ledger. Service tokens are
// used all the time, and a fleet of them would be written with each listing.
const usedStep = 6 * time.Hour

// onlyUsedSince reports whether f shows nothing more than that the service token was used again, a short time after the
// known use.
func (f TokenFacts) onlyUsedSince(known TokenFacts) bool {
	step := f.LastSeenAt.Sub(known.LastSeenAt)
	known.LastSeenAt = f.LastSeenAt
	return f == known && step >= 0 && step < usedStep
}

// RecordListingOfDoubt shows a doubt what an inventory has seen of its service token, and returns the
// record. The doubt is then looked at at once, without a request of its own. listed is when the inventory
// began: one that began while the request could still be under way proves nothing. It proves nothing about
// a service token that was to be created either, because that one is found by its name.
func (r *Rotator) RecordListingOfDoubt(ctx context.Context, t Token, facts TokenFacts, listed time.Time) (Record, error) {
	e, err := r.tryOpen(ctx, t)
	if e == nil {
		return Record{}, nil
	}
	defer e.close()
	if err != nil || e.record.Step != StepInDoubt {
		return e.record, err
	}
	d, work := e.record.Doubt, e.record.Work
	if work.LeavesCurrentInUse() || work.Grace == 0 || facts.ID != work.TokenID || listed.Before(d.Since.Add(underWayTime)) || !listed.After(d.ListedAt) {
		return e.record, nil
	}
	next := e.record.shownCarriedOut(movedWith(work, facts)).doubtListed(facts, listed.UTC(), r.now().UTC())
	err = e.save(ctx, next)
	return e.record, err
}
