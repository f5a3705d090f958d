package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rotatord/internal/event"
)

// This file decides about late answers: sealed answers on the disk of this replica whose rotation is not in progress in
// the ledger any more, because another replica has taken the token over meanwhile.
//
// Cloudflare accepts no key that makes a request harmless when it comes twice. So a replica that was stopped between its
// last look at the clock and its request may rotate after another replica has rotated again. What Cloudflare shows then
// decides whose secret is the latest one.

// LateResult is what became of a late answer.
type LateResult string

// The results.
const (
	LateInProgress LateResult = "in_progress" // it belongs to the rotation in progress, or must wait for another one
	LateOver       LateResult = "over"        // nothing needs it any more: it was erased
	LateDelivered  LateResult = "delivered"   // it is the latest secret: it is delivered by the next attempt
	LateSuperseded LateResult = "superseded"  // a later secret took its place: it is kept until that one has stood for a while
)

// JudgeLate decides about a sealed answer on this disk that was sealed at that time. told says that it was found
// superseded before. It returns the record of the token after that.
//
// A superseded answer is erased once a rotation that began after it is done and its grace is over. Until then its secret
// might be the previous one that consumers still use.
func (r *Rotator) JudgeLate(ctx context.Context, t Token, rotationID string, sealedAt time.Time, told bool) (LateResult, Record, error) {
	e, err := r.open(ctx, t)
	defer e.close()
	if err != nil {
		return LateInProgress, e.record, err
	}
	record := e.record
	switch last := record.Last; {
	case record.Work != nil, slices.Contains(record.Abandoned, rotationID):
		return LateInProgress, record, nil
	case last != nil && last.RotationID == rotationID:
		return LateOver, record, e.erase(ctx, rotationID)
	}
	issued, ok, err := e.pending.Open(ctx, rotationID)
	switch {
	case errors.Is(err, ErrUnreadable): // it cannot be delivered, and is kept as long as others are
	case err != nil || !ok:
		return LateInProgress, record, err
	default:
		if record.isStray(t, rotationID, issued) {
			if err := e.become(ctx, record.strayKept(t, issued.Facts, e.now().UTC())); err != nil {
				return LateInProgress, e.record, err
			}
		}
		latest, facts, err := e.isLatest(ctx, issued)
		if err != nil {
			return LateInProgress, record, fmt.Errorf("asking Cloudflare whether the late answer of %s is the latest secret: %w", t.Name, err)
		}
		if latest {
			return e.deliverLate(ctx, rotationID, facts, issued)
		}
	}
	if record.supersedes(sealedAt, e.now()) {
		return LateOver, e.record, e.erase(ctx, rotationID)
	}
	if !told {
		e.tell(event.LateAnswer{RotationID: rotationID})
	}
	return LateSuperseded, e.record, nil
}

// deliverLate makes a late answer that has the latest secret the answer of a rotation in progress.
func (e *entry) deliverLate(ctx context.Context, rotationID string, facts TokenFacts, issued Issued) (LateResult, Record, error) {
	e.working = true
	if err := e.become(ctx, e.record.lateAdopted(rotationID, e.owner, e.replicaName(), facts, issued, e.now().UTC())); err != nil {
		return LateInProgress, e.record, err
	}
	e.tell(event.LateAnswer{RotationID: rotationID, Delivered: true})
	return LateDelivered, e.record, nil
}

// isLatest reports whether Cloudflare shows that an answer is that of the last rotation of the service token in use.
func (e *entry) isLatest(ctx context.Context, issued Issued) (bool, TokenFacts, error) {
	id := e.record.TokenID
	if id == "" || issued.Facts.ID != id || issued.Facts.UpdatedAt.IsZero() || !issued.Facts.UpdatedAt.After(e.record.OwnUpdatedAt) {
		return false, TokenFacts{}, nil
	}
	if _, err := validate(e.record.FactsOf(id), issued); err != nil {
		return false, TokenFacts{}, nil
	}
	facts, err := e.token.Issuer.Inspect(ctx, id)
	return err == nil && facts.UpdatedAt.Equal(issued.Facts.UpdatedAt), facts, err
}

// isStray reports whether a late answer is about a service token that its rotation has created, as the name shows, and
// that the ledger does not know.
func (r Record) isStray(t Token, rotationID string, issued Issued) bool {
	id, name := issued.Facts.ID, issued.Facts.Name
	created := strings.HasSuffix(name, suffix(rotationID)) || t.Create != nil && name == t.Create.Name && r.TokenID == ""
	return t.LedgerHasID() && created && id != "" && id != r.TokenID &&
		!slices.ContainsFunc(r.Replaced, func(old Replaced) bool { return old.TokenID == id })
}

// lateMargin is by how much the clocks of two replicas may differ.
const lateMargin = time.Minute

// supersedes reports whether a rotation that began after that time is done, and no consumer can use an older secret any
// more.
func (r Record) supersedes(sealedAt, now time.Time) bool {
	return r.Last != nil && r.Last.AskedAt.After(sealedAt.Add(lateMargin)) && !r.GraceEnd().After(now)
}
