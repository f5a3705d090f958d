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

// heldAnswer is a received answer that is in memory alone.
type heldAnswer struct {
	key    PendingKey
	issued Issued
}

func (r *Rotator) hold(key PendingKey, issued Issued) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[key.RotationID] = heldAnswer{key, issued}
}

func (r *Rotator) letGo(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, id)
}

// Unsealed returns how many received secrets are in memory alone, because the disk refused
// them. It is 0 in all but the worst moments.
func (r *Rotator) Unsealed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.held)
}

func (r *Rotator) isHeld(id string) (Issued, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer, ok := r.held[id]
	return answer.issued, ok
}

// noteDelivery notes, before a secret that could not be sealed is delivered from memory, how it can be
// told from others. Should the process die, the sinks have the only copies of it. If the ledger cannot
// be written either, the rotation will be in doubt then.
func (a *attempt) noteDelivery(ctx context.Context, issued Issued) {
	work := a.record.Work
	work.Digest, work.After = issued.ClientSecret.Digest(), issued.Facts
	work.GraceEndsAt = later(work.GraceEndsAt, issued.GraceEndsAt.UTC())
	_ = a.save(ctx, StepIntent)
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
		reader, can := sink.(SinkReader)
		if !can {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, storeTimeout)
		c, err := reader.ReadBack(bounded)
		cancel()
		switch {
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
	for _, sink := range a.token.Sinks {
		reader, can := sink.(SinkReader)
		before, known := work.BeforeSink[sink.Name()]
		if !can || !known || work.CreateName != "" || work.Before.ClientID == "" {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, storeTimeout)
		c, err := reader.ReadBack(bounded)
		cancel()
		if err != nil || c.ClientID != work.Before.ClientID || c.ClientSecret.Digest() == before.Digest || !secret.WellFormed(c.ClientSecret) {
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

// SealHeld tries once more to seal what is in memory alone, before the process ends. Call
// it when nothing is worked on any more. The error names each rotation whose secret will be
// lost with the process.
func (r *Rotator) SealHeld(ctx context.Context) error {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.held))
	r.mu.Unlock()
	var failed []error
	for _, answer := range all {
		if err := r.pending.Seal(ctx, answer.key, answer.issued); err != nil {
			failed = append(failed, fmt.Errorf("the secret of rotation %s of %s: %w", answer.key.RotationID, answer.key.Token, err))
			continue
		}
		r.letGo(answer.key.RotationID)
	}
	return errors.Join(failed...)
}
