package rotation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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

// Held returns how many received secrets are in memory alone, because the disk refused
// them. It is 0 in all but the worst moments.
func (r *Rotator) Held() int {
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
