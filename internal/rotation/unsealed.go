package rotation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"rotatord/internal/secret"
)

// This file holds answers that could not be sealed because the disk failed in the one moment in which
// it must not. Such an answer is delivered from memory, since the sinks are the only other safe place.
// It stays in memory so that the next attempt can seal it.

// receivedAnswer is an answer in memory, and the rotation that it belongs to.
type receivedAnswer struct {
	key    PendingKey
	issued Issued
}

func (r *Rotator) keepUnsealed(key PendingKey, issued Issued) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unsealed[key.RotationID] = receivedAnswer{key, issued}
}

func (r *Rotator) dropUnsealed(rotationID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unsealed, rotationID)
}

// Unsealed returns how many received secrets are only in memory, because the disk refused them. It is
// almost always 0.
func (r *Rotator) Unsealed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.unsealed)
}

func (r *Rotator) unsealedAnswer(rotationID string) (Issued, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer, ok := r.unsealed[rotationID]
	return answer.issued, ok
}

// SealUnsealed tries again to seal the answers that are only in memory, before the process ends. Call
// it when no token is worked on any more. The error names each rotation whose secret will be lost with the
// process.
func (r *Rotator) SealUnsealed(ctx context.Context) error {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.unsealed))
	r.mu.Unlock()
	var failed []error
	for _, answer := range all {
		if err := r.pending.Seal(ctx, answer.key, answer.issued); err != nil {
			failed = append(failed, fmt.Errorf("the secret of rotation %s of %s: %w", answer.key.RotationID, answer.key.Token, err))
			continue
		}
		r.dropUnsealed(answer.key.RotationID)
	}
	return errors.Join(failed...)
}

// deliverUnsealed delivers an answer from memory. Before that it records how the answer can be told from
// others: if the process dies, the sinks have the only copies of it. If the ledger cannot be written
// either, the rotation will be in doubt then.
func (a *attempt) deliverUnsealed(ctx context.Context, issued Issued, sealErr error) error {
	err := fmt.Errorf("sealing the answer: %w", sealErr)
	if _, invalid := validate(a.record.Work.Before, issued); invalid != nil || a.record.Work.replayed(issued) {
		return a.stall(ctx, "seal", errors.Join(err, invalid))
	}
	next := a.record.answeredUnsealed(issued)
	a.observe(next)
	_ = a.become(ctx, next)
	if undelivered := a.deliver(ctx, issued.Credential).err; undelivered != nil {
		a.extendOld(ctx)
		err = errors.Join(err, undelivered)
	} else {
		a.observe(a.record.deliveredUnsealed())
	}
	return a.stall(ctx, "seal", err)
}

// readBack returns the answer of a rotation that was delivered from memory, as a sink holds it. An
// error says that a sink which may hold it cannot be read now.
func (a *attempt) readBack(ctx context.Context) (issued Issued, ok bool, err error) {
	work := a.record.Work
	if work.Digest == "" { // the ledger could not be written before the delivery, or there was none
		return a.foundInSink(ctx)
	}
	var unread []error
	for _, sink := range a.token.Sinks {
		c, can, err := readSink(ctx, sink)
		switch {
		case !can:
		case err != nil:
			unread = append(unread, fmt.Errorf("sink %s may hold the only copy of the new secret and cannot be read: %w", sink.Name(), err))
		case c.ClientSecret.Digest() == work.Digest:
			return Issued{Credential: c, Facts: work.After, GraceEndsAt: work.GraceEndsAt}, true, nil
		}
	}
	return issued, false, errors.Join(unread...)
}

// foundInSink returns the answer of a rotation that may have been delivered from memory while the ledger
// could not be written: a sink has held another whole secret of the same client since the intent, and
// Cloudflare shows that the request was carried out. An error says that Cloudflare cannot be asked now.
func (a *attempt) foundInSink(ctx context.Context) (issued Issued, ok bool, err error) {
	work := a.record.Work
	if work.Before.ClientID == "" { // the service token was to be created
		return issued, false, nil
	}
	for _, sink := range a.token.Sinks {
		before, known := work.BeforeSink[sink.Name()]
		if !known {
			continue
		}
		c, can, err := readSink(ctx, sink)
		if !can || err != nil || c.ClientID != work.Before.ClientID || c.ClientSecret.Digest() == before.Digest || !secret.WellFormed(c.ClientSecret) {
			continue
		}
		facts, err := a.token.Issuer.Inspect(ctx, work.TokenID)
		switch class := classOf(err); {
		case err == nil && movedWith(work, facts):
			end := work.IntentAt.Add(time.Duration(work.Grace))
			if work.Grace == 0 {
				end = time.Time{}
			}
			return Issued{Credential: c, Facts: facts, GraceEndsAt: end}, true, nil
		case err != nil && (class == Unknown || class == NotCarriedOut || class == Throttled):
			return issued, false, fmt.Errorf("sink %s holds a secret that may be the new one, and Cloudflare could not be asked: %w", sink.Name(), err)
		}
	}
	return issued, false, nil
}

// readSink returns the credential that a sink holds. can is false if the sink cannot be read in this way.
func readSink(ctx context.Context, sink Sink) (c Credential, can bool, err error) {
	reader, can := sink.(SinkReader)
	if !can {
		return Credential{}, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	c, err = reader.ReadBack(ctx)
	return c, true, err
}
