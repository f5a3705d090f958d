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
	// Heals is set if nobody gave it, but a rotation by somebody else is made up for.
	Heals bool `json:"heals,omitempty"`
}

// trigger is that of the rotations that carry it out.
func (o *Order) trigger() Trigger {
	if o.Heals {
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

// order returns a token's record with an order in it. A doubt does not stand in the way of one
// that revokes: the old secret is to die, whatever became of the request.
func (a *attempt) order(ctx context.Context, o Overrides, by string, after time.Duration) error {
	o = o.all()
	if a.record.Step == StepInDoubt && o.RevokeNow {
		verdict := Verdict{Resolved: true, Reason: ReasonOperatorRotateNow}
		if a.record.Work.Makes != "" {
			a.made, _ = a.lookForMade(ctx)
		}
		a.decide(verdict)
		if err := a.settle(ctx, verdict); err != nil {
			return err
		}
	}
	given := &Order{Since: a.now().Add(after).UTC(), By: by, Overrides: o, Left: 1}
	if a.token.Paired() && o.RevokeNow {
		given.Left = 2 // the one in use is rotated when it no longer is
	}
	a.record.Order = given
	if a.record.Step == StepIdle {
		a.record.NotBefore = time.Time{} // it is not kept waiting by what failed before
	}
	return a.save(ctx, a.record.Step)
}

// Ordered is what became of one token when all of an account were ordered to be rotated.
type Ordered struct {
	Token string
	// Record is the token's as it then stands; Err says why it could not be ordered.
	Record Record
	Err    error
}

// OrderAll orders many tokens to be rotated, durably, and returns at once: they are due from
// then on, those with the least grace first. One that has an order which is not carried out
// keeps it, so that giving the same order twice goes on with the first.
func (r *Rotator) OrderAll(ctx context.Context, tokens []Token, o Overrides, by string) []Ordered {
	all := make([]Ordered, 0, len(tokens))
	tokens = slices.Clone(tokens)
	slices.SortStableFunc(tokens, func(a, b Token) int {
		return cmp.Or(cmp.Compare(a.Grace, b.Grace), cmp.Compare(a.Name, b.Name))
	})
	for i, t := range tokens {
		record, err := r.orderOne(ctx, t, o, by, time.Duration(i)*time.Microsecond)
		all = append(all, Ordered{Token: t.Name, Record: record, Err: err})
	}
	return all
}

// orderOne orders one token; after says how far behind the first it comes, so that the order
// among them outlives a restart.
func (r *Rotator) orderOne(ctx context.Context, t Token, o Overrides, by string, after time.Duration) (Record, error) {
	defer r.lock(t.Name)()
	record, err := r.load(ctx, t)
	if err != nil {
		return record, err
	}
	if record.Order != nil && !record.Order.Heals && (record.Order.RevokeNow || !o.RevokeNow) {
		return record, nil
	}
	a := &attempt{Rotator: r, token: t, record: record.clone(), began: r.now()}
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
