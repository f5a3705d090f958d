package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Order is an operator's word that a token is to be rotated, and that this is kept at until it
// is done: over failures, and over restarts. It is for secrets that somebody else may have.
type Order struct {
	Since time.Time `json:"since"`
	By    string    `json:"by,omitempty"` // who gave it, as the kernel names them
	Overrides
	// Left is how many rotations are still to be done: one, or for a pair whose secret in use
	// must die one for each.
	Left int `json:"left"`
	// AfterOutside is set if nobody gave it, but a rotation by somebody else is made up for.
	AfterOutside bool `json:"heals,omitempty"`
}

// trigger is that of the rotations that carry it out.
func (o *Order) trigger() Trigger {
	if o.AfterOutside {
		return TriggerRecovery
	}
	return TriggerManual
}

// grace is how long the previous secret works after the rotation that begins now.
func (a *attempt) grace() time.Duration {
	if a.record.Order != nil && a.record.Order.RevokeNow {
		return 0
	}
	return a.token.Grace
}

// carriedOut notes that a rotation has done what an order asks for.
func (a *attempt) carriedOut(work *Work) {
	o := a.record.Order
	if o == nil || work.IntentAt.Before(o.Since) || o.RevokeNow && work.Grace != 0 {
		return
	}
	left := *o
	if left.Left--; left.Left > 0 {
		a.record.Order = &left
	} else {
		a.record.Order = nil
	}
}

// order returns a token's record with an order in it. Neither a doubt nor a secret that was overtaken
// stands in the way of one that revokes: the old secret is to die, whatever became of the request.
func (a *attempt) order(ctx context.Context, o Overrides, by string, after time.Duration) error {
	if a.record.Step == StepSealed && a.record.Work.Overtaken != nil && o.RevokeNow {
		if err := a.abandon(ctx, Verdict{Resolved: true, Reason: ReasonLeakOrder}, false); err != nil {
			return err
		}
	}
	if a.record.Step == StepInDoubt && o.RevokeNow {
		verdict := Verdict{Resolved: true, Reason: ReasonOperatorRotateNow}
		if a.record.Work.CreateName != "" && a.seekMade(ctx) != nil {
			a.record.NotBefore = time.Time{} // it ends by itself, and the order is carried out then
		} else {
			a.decide(verdict)
			if err := a.settle(ctx, verdict); err != nil {
				return err
			}
		}
	}
	a.give(o, by, after)
	return a.save(ctx, a.record.Step)
}

// give puts an order into the record.
func (a *attempt) give(o Overrides, by string, after time.Duration) {
	o = o.all()
	given := &Order{Since: a.now().Add(after).UTC(), By: by, Overrides: o, Left: 1}
	if a.token.Paired() && o.RevokeNow {
		given.Left = 2 // the one in use is rotated when it no longer is
	}
	a.record.Order = given
	switch {
	case a.record.Step == StepIdle:
		a.record.NotBefore = time.Time{} // it is not kept waiting by what failed before
	case a.record.Step == StepStored && o.RevokeNow && a.record.Work.Verification.Probes > 0:
		// A secret that is refused would keep the old one alive, which is to die.
		a.record.Work.Verification.Accepted, a.record.NotBefore = true, time.Time{}
	case o.RevokeNow && a.record.Step != StepInDoubt: // it waits for this rotation alone, which is tried at once
		a.record.NotBefore = time.Time{}
	}
}

// Ordered is what became of one token when all of an account were ordered to be rotated.
type Ordered struct {
	Token string
	// Record is the token's as it then stands; Err says why it could not be ordered.
	Record Record
	Err    error
}

// widen lets the order that a token has override more. It stays the same order.
func (a *attempt) widen(ctx context.Context, o Overrides) error {
	order := *a.record.Order
	order.Overrides = order.with(o)
	a.record.Order = &order
	return a.save(ctx, a.record.Step)
}

// OrderAll orders many tokens to be rotated, durably, and returns at once: they are due from
// then on, those with the least grace first. One that has an order which is not carried out
// keeps it, so that giving the same order twice goes on with the first; it overrides what either
// does. While some of an order are left, those that it has rotated are not ordered again either.
func (r *Rotator) OrderAll(ctx context.Context, tokens []Token, o Overrides, by string) []Ordered {
	tokens = slices.Clone(tokens)
	slices.SortStableFunc(tokens, func(a, b Token) int {
		return cmp.Or(cmp.Compare(a.Grace, b.Grace), cmp.Compare(a.Name, b.Name))
	})
	all := make([]Ordered, len(tokens))
	for i, t := range tokens {
		all[i].Token = t.Name
	}
	since := r.orderedSince(ctx, tokens, o)
	for first := 0; first < len(tokens); first += enrollBatch {
		last := min(first+enrollBatch, len(tokens))
		alone := r.orderBatch(ctx, tokens[first:last], all[first:last], o, by, first, since)
		for _, i := range alone {
			all[first+i].Record, all[first+i].Err = r.orderOne(ctx, tokens[first+i], o, by, nth(first+i))
		}
	}
	return all
}

// orderedSince is when those of the orders like o were given, among these tokens, that are not all
// carried out; the zero time if there are none.
func (r *Rotator) orderedSince(ctx context.Context, tokens []Token, o Overrides) (since time.Time) {
	records, err := r.ledger.All(ctx)
	if err != nil {
		return time.Time{} // whoever loads one of them says so
	}
	asked := make(map[string]bool, len(tokens))
	for _, t := range tokens {
		asked[t.Name] = true
	}
	for _, record := range records {
		if asked[record.Token] && record.keeps(o) {
			since = sooner(since, record.Order.Since)
		}
	}
	return since
}

// hasDone reports whether a token was rotated as o asks for since then.
func (t Token) hasDone(r Record, o Overrides, since time.Time) bool {
	return !since.IsZero() && r.Order == nil && r.Step == StepIdle && r.Last != nil && !r.Last.AskedAt.Before(since) &&
		(!o.RevokeNow || t.Paired() || r.Last.GraceEndsAt.IsZero())
}

// nth is how far behind the first of those that are ordered together one of them comes, so that
// the order among them outlives a restart.
func nth(i int) time.Duration { return time.Duration(i) * time.Microsecond }

// orderBatch orders what needs no look at the world in one transaction, and returns which do, or
// are being worked on, or could not be saved together. offset is how many came before.
func (r *Rotator) orderBatch(ctx context.Context, tokens []Token, out []Ordered, o Overrides, by string, offset int,
	since time.Time) (alone []int) {
	var batch []Record
	var which []int
	for i, t := range tokens {
		l := r.lockOf(t.Name)
		if !l.TryLock() {
			alone = append(alone, i)
			continue
		}
		defer l.Unlock()
		record, err := r.load(ctx, t)
		switch {
		case err != nil, record.Step == StepInDoubt, record.Step == StepSealed, record.keeps(o):
			alone = append(alone, i)
		case t.hasDone(record, o, since):
			out[i].Record = record
		default:
			a := &attempt{Rotator: r, token: t, record: record.clone(), began: r.now()}
			a.give(o, by, nth(offset+i))
			batch, which = append(batch, a.record), append(which, i)
		}
	}
	saved, err := r.ledger.SaveAll(ctx, batch)
	if err != nil { // somebody else came between, perhaps
		return append(alone, which...)
	}
	for n, i := range which {
		out[i].Record = saved[n]
		(&attempt{Rotator: r}).tell(Reached{saved[n].clone()})
	}
	return alone
}

// keeps reports whether there is an order already that one with these overrides goes on with.
func (r Record) keeps(o Overrides) bool {
	return r.Order != nil && !r.Order.AfterOutside && (r.Order.RevokeNow || !o.RevokeNow)
}

// orderOne orders one token, as the one that comes that long after the first.
func (r *Rotator) orderOne(ctx context.Context, t Token, o Overrides, by string, after time.Duration) (Record, error) {
	defer r.lock(t.Name)()
	record, err := r.load(ctx, t)
	if err != nil {
		return record, err
	}
	a := &attempt{Rotator: r, token: t, record: record.clone(), began: r.now()}
	if record.keeps(o) {
		if had := record.Order; had.with(o) == had.Overrides {
			return record, nil
		}
		if err := a.widen(ctx, o); err != nil {
			return record, err
		}
		return a.record, nil
	}
	if err := a.order(ctx, o, by, after); err != nil {
		return record, err
	}
	return a.record, nil
}

// CancelOrders takes back the orders that are not carried out, and returns the records that it
// changed. What is in hand is finished.
func (r *Rotator) CancelOrders(ctx context.Context, tokens []Token) ([]Record, error) {
	var changed []Record
	var errs []error
	for _, t := range tokens {
		record, err := r.cancelOrder(ctx, t)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t.Name, err))
		} else if record.Revision > 0 {
			changed = append(changed, record)
		}
	}
	return changed, errors.Join(errs...)
}

// ErrNoOrder is in the error of CancelOrder if there is no order that could be taken back.
var ErrNoOrder = errors.New("no rotation was ordered")

// CancelOrder takes back the order of one token. What is in progress is finished.
func (r *Rotator) CancelOrder(ctx context.Context, t Token) (Record, error) {
	record, err := r.cancelOrder(ctx, t)
	if err == nil && record.Revision == 0 {
		if record, err = r.ledger.Load(ctx, t.Name); err == nil {
			err = fmt.Errorf("%w for %s, so there is nothing to take back: rotatord status %s", ErrNoOrder, t.Name, t.Name)
		}
	}
	return record, err
}

// cancelOrder returns a zero Record if there was no order.
func (r *Rotator) cancelOrder(ctx context.Context, t Token) (Record, error) {
	defer r.lock(t.Name)()
	record, err := r.load(ctx, t)
	if err != nil || record.Order == nil {
		return Record{}, err
	}
	a := &attempt{Rotator: r, token: t, record: record.clone(), began: r.now()}
	a.record.Order = nil
	err = a.save(ctx, a.record.Step)
	return a.record, err
}
