package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/moment"
)

// Order is an operator's command to rotate a token. It is tried until it is done, also after failures and
// restarts. It is for secrets that may have leaked.
type Order struct {
	Since time.Time `json:"since"`
	By    string    `json:"by,omitempty"` // the operator, by the user that the kernel names
	Overrides
	// Left is how many rotations are still to be done: one, or two for a pair whose secret in use must
	// end.
	Left int `json:"left"`
	// AfterOutside is set if the daemon gave the order itself, after a rotation by another person or
	// program.
	AfterOutside bool `json:"heals,omitempty"`
	// Restores is set beside AfterOutside if sinks no longer hold the secret and no copy of it is left.
	Restores bool `json:"restores,omitempty"`
}

// trigger returns the trigger of the rotations that carry out the order.
func (o *Order) trigger() Trigger {
	if o.AfterOutside {
		return TriggerRecovery
	}
	return TriggerManual
}

// grace returns how long the previous secret works after the rotation that begins now.
func (r Record) grace(t Token) time.Duration {
	if r.revokes() {
		return 0
	}
	return t.Grace
}

// newOrder returns an operator's order, given at that time.
func newOrder(t Token, r Record, o Overrides, by string, at time.Time) Order {
	left := 1
	if o.RevokeNow && strategyFor(t, r).traits().alternates {
		left = 2 // the second rotation renews the one that is in use now
	}
	return Order{Since: at.UTC(), By: by, Overrides: o.all(), Left: left}
}

// order orders a rotation. An order that revokes ends a doubt, and gives up a secret that was overtaken:
// the old secret must end, whether the request was carried out or not.
func (e *entry) order(ctx context.Context, o Overrides, by string, after time.Duration) error {
	if e.record.Step == StepSealed && e.record.Work.Overtaken != nil && o.RevokeNow {
		if err := e.abandon(ctx, Verdict{Resolved: true, Reason: ReasonLeakOrder}, TokenFacts{}, false); err != nil {
			return err
		}
	}
	next := e.record
	if e.record.Step == StepInDoubt && o.RevokeNow {
		if created, err := e.record.Work.strategy().confirm(ctx, e); err != nil {
			next = e.record.withoutBackOff() // it ends by itself, and the order is carried out then
		} else if err := e.resolveAs(ctx, Verdict{Resolved: true, Reason: ReasonOperatorRotateNow}, created); err != nil {
			return err
		} else {
			next = e.record
		}
	}
	return e.become(ctx, next.ordered(newOrder(e.token, next, o, by, e.now().Add(after))))
}

// Ordered is the result for one token of an order for all tokens of an account.
type Ordered struct {
	Token string
	// Record is the token's record after the order; Err says why it could not be ordered.
	Record Record
	Err    error
}

// OrderAll orders many tokens to be rotated, durably, and returns at once: they are due from then on,
// those with the shortest grace first. A token with a pending order keeps it; the new order only adds its
// overrides. So the same order given twice does not rotate twice. While some tokens of an order are not
// rotated yet, the tokens that it has rotated are not ordered again either.
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
	for first := 0; first < len(tokens); first += batchSize {
		last := min(first+batchSize, len(tokens))
		alone := r.orderBatch(ctx, tokens[first:last], all[first:last], o, by, first, since)
		for _, i := range alone {
			all[first+i].Record, all[first+i].Err = r.orderOne(ctx, tokens[first+i], o, by, orderOffset(first+i))
		}
	}
	return all
}

// orderedSince returns when the first pending order like o was given to one of these tokens; the zero time
// if there is none.
func (r *Rotator) orderedSince(ctx context.Context, tokens []Token, o Overrides) (since time.Time) {
	records, err := r.ledger.All(ctx)
	if err != nil {
		return time.Time{} // loading one of them reports it
	}
	asked := make(map[string]bool, len(tokens))
	for _, t := range tokens {
		asked[t.Name] = true
	}
	for _, record := range records {
		if asked[record.Token] && record.hasOrder(o) {
			since = moment.MinNonZero(since, record.Order.Since)
		}
	}
	return since
}

// hasDone reports whether a token was rotated since then in the way that o asks for.
func (t Token) hasDone(r Record, o Overrides, since time.Time) bool {
	return !since.IsZero() && r.Order == nil && r.Step == StepIdle && r.Last != nil && !r.Last.AskedAt.Before(since) &&
		(!o.RevokeNow || r.Last.GraceEndsAt.IsZero() || strategyFor(t, r).traits().alternates)
}

// orderOffset returns how much later than the first token the i-th token is ordered. It preserves the
// sequence of tokens that are ordered together over a restart.
func orderOffset(i int) time.Duration { return time.Duration(i) * time.Microsecond }

// orderBatch orders in one transaction the tokens that need no look at Cloudflare or a sink. It returns
// the indexes of the others: they need a look, are being worked on, or could not be saved together. offset
// is how many tokens came before these.
func (r *Rotator) orderBatch(ctx context.Context, tokens []Token, out []Ordered, o Overrides, by string, offset int,
	since time.Time) (alone []int) {
	var given saveBatch
	for i, t := range tokens {
		e, err := r.tryOpen(ctx, t)
		if e == nil {
			alone = append(alone, i)
			continue
		}
		defer e.close()
		switch {
		case err != nil, e.record.Step == StepInDoubt, e.record.Step == StepSealed, e.record.hasOrder(o):
			alone = append(alone, i)
		case t.hasDone(e.record, o, since):
			out[i].Record = e.record
		default:
			order := newOrder(t, e.record, o, by, r.now().Add(orderOffset(offset+i)))
			given.add(e.record.ordered(order), func(saved Record, ok bool) {
				if !ok { // another writer came between, perhaps: alone it says what is wrong
					alone = append(alone, i)
					return
				}
				out[i].Record = saved
				r.saved(saved)
			})
		}
	}
	_ = r.saveAll(ctx, given)
	return alone
}

// hasOrder reports whether the token has a pending order already that an order with these overrides only
// adds to.
func (r Record) hasOrder(o Overrides) bool {
	return r.Order != nil && !r.Order.AfterOutside && (r.Order.RevokeNow || !o.RevokeNow)
}

// orderOne orders one token. after is how much later than the first token it is ordered.
func (r *Rotator) orderOne(ctx context.Context, t Token, o Overrides, by string, after time.Duration) (Record, error) {
	e, err := r.openPatiently(ctx, t)
	defer e.close()
	if err != nil {
		return e.record, err
	}
	before := e.record
	switch {
	case !before.hasOrder(o):
		err = e.order(ctx, o, by, after)
	case before.Order.with(o) != before.Order.Overrides:
		err = e.become(ctx, before.orderWidened(o))
	}
	if err != nil {
		return before, err
	}
	return e.record, nil
}

// CancelOrders takes back the orders that are not carried out, in few transactions, and returns the records that it
// changed. What is in progress is finished.
func (r *Rotator) CancelOrders(ctx context.Context, tokens []Token) ([]Record, error) {
	var changed []Record
	var errs []error
	for batch := range slices.Chunk(tokens, batchSize) {
		saved, alone := r.cancelBatch(ctx, batch)
		changed = append(changed, saved...)
		for _, t := range alone {
			record, err := r.cancelOrder(ctx, t)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", t.Name, err))
			} else if record.Revision > 0 {
				changed = append(changed, record)
			}
		}
	}
	return changed, errors.Join(errs...)
}

// cancelBatch takes back orders in one transaction. It returns the records that it changed, and the tokens that are left:
// they are being worked on, could not be opened, or could not be saved together.
func (r *Rotator) cancelBatch(ctx context.Context, tokens []Token) (saved []Record, alone []Token) {
	var cancelled saveBatch
	for _, t := range tokens {
		e, err := r.tryOpen(ctx, t)
		if e == nil {
			alone = append(alone, t)
			continue
		}
		defer e.close()
		switch {
		case err != nil:
			alone = append(alone, t)
		case e.record.Order != nil:
			cancelled.add(e.record.orderCancelled(), func(record Record, ok bool) {
				if !ok { // another writer came between, perhaps
					alone = append(alone, t)
					return
				}
				r.saved(record)
				saved = append(saved, record)
			})
		}
	}
	_ = r.saveAll(ctx, cancelled)
	return saved, alone
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
	e, err := r.openPatiently(ctx, t)
	defer e.close()
	if err != nil || e.record.Order == nil {
		return Record{}, err
	}
	err = e.become(ctx, e.record.orderCancelled())
	return e.record, err
}
