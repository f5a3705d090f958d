package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"rotatord/internal/rotation"
)

// transactions is the ledger of a world, and counts what is written together.
type transactions struct {
	*world
	n      int
	refuse bool // what is more than one record
}

func (c *transactions) Save(ctx context.Context, r rotation.Record) (rotation.Record, error) {
	c.n++
	return c.world.Save(ctx, r)
}

func (c *transactions) SaveAll(ctx context.Context, all []rotation.Record) ([]rotation.Record, error) {
	if len(all) == 0 {
		return nil, nil
	}
	if c.n++; c.refuse {
		return nil, errors.New("another writer came between")
	}
	return c.world.SaveAll(ctx, all)
}

// manyEnrolled returns n tokens that are enrolled, and a process that counts its transactions from then on.
func manyEnrolled(w *world, n int) ([]rotation.Token, *rotation.Rotator, *transactions) {
	w.t.Helper()
	tokens := w.manyTokens(n, func(*rotation.Token) {})
	if _, err := w.start().EnrollAll(w.t.Context(), tokens); err != nil {
		w.t.Fatal(err)
	}
	counted := &transactions{world: w}
	return tokens, rotation.New(rotation.Options{Ledger: counted, Pending: w, Pauses: w, Events: w, Owner: "counted", Started: w.now(), Now: w.now}), counted
}

// TestOrdersAreFewTransactions: to order all tokens of an account, and to take those orders back, is as many transactions
// for four times as many tokens.
func TestOrdersAreFewTransactions(t *testing.T) {
	for _, n := range []int{100, 400} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				tokens, r, written := manyEnrolled(w, n)
				for _, one := range r.OrderAll(w.t.Context(), tokens, rotation.Overrides{RevokeNow: true}, "ops") {
					if one.Err != nil || one.Record.Order == nil {
						t.Fatal(one.Err)
					}
				}
				changed, err := r.CancelOrders(w.t.Context(), tokens)
				if err != nil || len(changed) != n {
					t.Fatalf("%d of %d orders are taken back: %v", len(changed), n, err)
				}
				for _, record := range changed {
					if record.Order != nil || record.Revision == 0 {
						t.Fatalf("%+v", record)
					}
				}
				if did := written.n; did != 2 {
					t.Errorf("%d orders, given and taken back, are %d transactions, want 2", n, did)
				}
			})
		})
	}
}

// TestClaimsOfADeadProcessAreOneTransaction: a process that was killed while it worked on many tokens leaves many claims. The
// next one gives them up at once, and leaves nothing that was reserved for them.
func TestClaimsOfADeadProcessAreOneTransaction(t *testing.T) {
	for _, n := range []int{100, 400} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				tokens, r, written := manyEnrolled(w, n)
				for _, token := range tokens {
					record, err := w.Load(w.t.Context(), token.Name)
					if err != nil {
						t.Fatal(err)
					}
					id := "rotation-of-" + token.Name
					record.Step, record.Work = rotation.StepClaimed, &rotation.Work{RotationID: id, TokenID: token.ID, Began: w.now(), Slot: w.now()}
					if _, err := w.Save(w.t.Context(), record); err != nil {
						t.Fatal(err)
					}
					if err := w.Reserve(w.t.Context(), rotation.PendingKey{RotationID: id, Token: token.Name, TokenID: token.ID}); err != nil {
						t.Fatal(err)
					}
				}
				records, err := r.EnrollAll(w.t.Context(), tokens)
				if err != nil {
					t.Fatal(err)
				}
				for _, record := range records {
					if record.Step != rotation.StepIdle || record.Work != nil {
						t.Fatalf("%+v", record)
					}
				}
				if did := written.n; did != 1 || len(w.reserved) > 0 {
					t.Errorf("%d claims: %d transactions, %d reservations are left", n, did, len(w.reserved))
				}
			})
		})
	}
}

// TestCancelledWhileAnotherWrites: if the orders cannot be taken back together, each is taken back alone.
func TestCancelledWhileAnotherWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		tokens, r, written := manyEnrolled(w, 3)
		r.OrderAll(w.t.Context(), tokens, rotation.Overrides{}, "ops")
		written.refuse = true
		if changed, err := r.CancelOrders(w.t.Context(), tokens); err != nil || len(changed) != 3 {
			t.Errorf("%d orders are taken back: %v", len(changed), err)
		}
	})
}
