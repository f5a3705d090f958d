package rotation

import (
	"context"
	"time"
)

// This file holds what an inventory teaches: what a service token is like at Cloudflare, and
// whether somebody else has rotated it.

// What says that a change was our own, or about as old as our own last one: answers and clocks
// are seconds apart.
const ownChange = 2 * time.Minute

// healOnce is the time in which a rotation by somebody else is made up for once at most: two
// that rotate the same service token must not chase each other.
const healOnce = 24 * time.Hour

// RecordListing records what an inventory has seen of a token, and returns its record. While a
// rotation is in hand its own view of the token counts, and RecordListing changes nothing. Nor
// does it wait for one that is being worked on, which would hold up all other tokens of
// the account; it returns a zero Record then.
//
// A listing that was under way while the token was rotated does not undo what that showed.
func (r *Rotator) RecordListing(ctx context.Context, t Token, facts TokenFacts) (Record, error) {
	l := r.lockOf(t.Name)
	if !l.TryLock() {
		return Record{}, nil
	}
	defer l.Unlock()
	record, err := r.load(ctx, t)
	if err != nil || record.Step != StepIdle {
		return record, err
	}
	a := &attempt{Rotator: r, token: t, record: record, began: r.now()}
	known := &a.record.Facts
	switch {
	case facts.ID == t.ServiceToken(record) && !t.Paired():
	case !t.Owns(facts.ID) || !t.Paired(): // its place was taken since it was listed
		return record, nil
	case facts.ID != record.TokenID:
		known = &a.record.Spare
	}
	if facts.UpdatedAt.Before(known.UpdatedAt) { // it is older, or its times are coarser
		facts.UpdatedAt = known.UpdatedAt
	}
	if *known == facts {
		return record, nil
	}
	news := a.notice(known, facts)
	saved, err := r.ledger.Save(ctx, a.record)
	if err == nil && news != nil {
		a.tell(news)
	}
	return saved, err
}

// notice takes in what a service token is like now. It returns an event if that shows a change
// that was not our own. Which one it was cannot be seen: Cloudflare shows that something was
// changed, and when. If nothing that it shows is different, the secret was.
func (a *attempt) notice(known *TokenFacts, now TokenFacts) Event {
	before := *known
	*known = now
	switch {
	case before.UpdatedAt.IsZero() || !now.UpdatedAt.After(before.UpdatedAt):
		return nil
	case a.ours(now.UpdatedAt):
		return nil
	case now.LastSeenAt.After(before.LastSeenAt) && now.LastSeenAt.Sub(now.UpdatedAt).Abs() <= time.Second:
		return nil // it was used, and nobody says that this does not move it
	case before.Name != now.Name, before.Enabled != now.Enabled, before.Duration != "" && before.Duration != now.Duration,
		!before.ExpiresAt.Equal(now.ExpiresAt):
		return ChangedOutside{Token: a.token.Name, TokenID: now.ID, At: now.UpdatedAt}
	case a.record.StillCount > 0:
		// On this account a rotation was seen to leave updated_at alone, so its moving says nothing.
		return ChangedOutside{Token: a.token.Name, TokenID: now.ID, At: now.UpdatedAt}
	}
	news := RotatedOutside{Token: a.token.Name, TokenID: now.ID, At: now.UpdatedAt}
	a.record.Outside = now.UpdatedAt.UTC()
	if now := a.now().UTC(); a.token.RotateAfterOutside && !a.record.owed() && a.record.Order == nil && now.Sub(a.record.OutsideAnswered) > healOnce {
		// Consumers read a secret that is, or soon will be, dead. Our own promise of a grace is void
		// with it. A pause or a freeze holds this up: somebody may be at work by hand.
		a.record.Order = &Order{Since: now, By: "rotatord", AfterOutside: true, Overrides: Overrides{Grace: true}, Left: 1}
		a.record.NotBefore, a.record.OutsideAnswered = time.Time{}, now
		news.RotatesAgain = true
	}
	return news
}

// ours reports whether a change at that time was our own: a rotation or a renewal whose answer
// did not show updated_at.
func (a *attempt) ours(at time.Time) bool {
	if last := a.record.Last; last != nil && (at.Sub(last.AskedAt).Abs() < ownChange || at.Sub(last.At).Abs() < ownChange) {
		return true
	}
	return at.Sub(a.record.Renewal.At).Abs() < ownChange
}

// RecordListingOfDoubt shows a doubt what an inventory has seen of its service token, and returns the record.
// The doubt is then looked at at once, without a request of its own. listed is when the
// inventory began: one that began while the request could still be under way says nothing. Of a
// service token that was to be made it says nothing either, since that is found by its name.
func (r *Rotator) RecordListingOfDoubt(ctx context.Context, t Token, facts TokenFacts, listed time.Time) (Record, error) {
	l := r.lockOf(t.Name)
	if !l.TryLock() {
		return Record{}, nil
	}
	defer l.Unlock()
	record, err := r.load(ctx, t)
	if err != nil || record.Step != StepInDoubt {
		return record, err
	}
	record = record.clone()
	d, work := record.Doubt, record.Work
	if work.LeavesCurrentInUse() || work.Grace == 0 || facts.ID != work.TokenID || listed.Before(d.Since.Add(settleTime)) || !listed.After(d.ListedAt) {
		return record, nil
	}
	d.CarriedOut = d.CarriedOut || movedWith(work, facts)
	d.ListedAt, record.Facts, record.NotBefore = listed.UTC(), facts, r.now().UTC()
	return r.ledger.Save(ctx, record)
}

// listed are the facts that an inventory has shown of a doubt not long ago; nil if none has.
func (a *attempt) listed() *TokenFacts {
	d := a.record.Doubt
	if d.ListedAt.IsZero() || a.now().Sub(d.ListedAt) >= doubtRecheck || a.record.Facts.ID != a.record.Work.TokenID {
		return nil
	}
	return new(a.record.Facts)
}
