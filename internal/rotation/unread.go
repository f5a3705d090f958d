package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/event"
)

// This file extends old secrets while a shared ledger cannot be read.
//
// A ledger in Vault is away together with Vault, and consumers go on with the old secret meanwhile. The replica that has
// begun the rotation extends it from what it remembers. It must not do so if another replica has changed anything since:
// an operator there may have revoked the old secret. So the service token at Cloudflare must look as this replica has
// left it.

// remember keeps what is known of an unfinished rotation of this process, or forgets it.
func (e *entry) remember() {
	if e.replica == nil || e.record.Revision == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if begun := e.record.Work != nil && e.record.Work.Replica == e.replica.Name; begun || e.record.Lost != nil {
		e.unfinished[e.token.Name] = e.record
	} else {
		delete(e.unfinished, e.token.Name)
	}
}

func (r *Rotator) remembered(token string) (Record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	record, ok := r.unfinished[token]
	return record, ok
}

// recall adds to a record that was loaded what this process has changed at Cloudflare while the ledger was away. The
// next save saves it.
func (e *entry) recall() {
	if known, ok := e.remembered(e.token.Name); ok {
		e.observe(e.record.touchedMeanwhile(known))
	}
}

// extendUnread extends the old secret of an unfinished rotation of this process while the ledger cannot be read. cause
// says why it cannot.
func (e *entry) extendUnread(ctx context.Context, cause error) {
	known, ok := e.remembered(e.token.Name)
	if !ok || errors.Is(cause, ErrHeld) || errors.Is(cause, ErrConflict) || ctx.Err() != nil {
		return
	}
	old, ok := known.oldSecret(e.token)
	if !ok {
		return
	}
	by := old.extendBy(e.now())
	if by == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	facts, err := e.token.Issuer.Inspect(ctx, old.tokenID)
	if err == nil && (old.updatedAt.IsZero() || !facts.UpdatedAt.Equal(old.updatedAt)) {
		err = errors.New("the service token was changed at Cloudflare since, and the ledger cannot be asked by whom")
	}
	var until time.Time
	if err == nil {
		facts, until, err = e.token.Issuer.SetGrace(ctx, old.tokenID, by)
	}
	if err != nil {
		err = fmt.Errorf("extending the grace of the old secret while the ledger cannot be read: %w", err)
	} else {
		e.mu.Lock()
		e.unfinished[e.token.Name] = known.touched(facts).oldExtended(until.UTC())
		e.mu.Unlock()
		e.recall() // if the record could be loaded
	}
	e.tell(event.GraceExtension{RotationID: old.rotationID, Until: until, Err: err})
}
