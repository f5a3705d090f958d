package rotation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"rotatord/internal/event"
)

// This file tries a new secret after every sink has it, and before the rotation is
// done. A rotation whose secret is refused there stays in progress: the old secret, which consumers
// may still have, is extended, and nothing is rotated until the new one is accepted or an operator has
// decided.

// Verification is what is known of a new secret that is tried.
type Verification struct {
	Since  time.Time `json:"since,omitzero"` // when it was first tried without success
	Probes int       `json:"probes,omitempty"`
	Last   Probe     `json:"last,omitempty"`
	Error  string    `json:"error,omitempty"` // what the last probe was answered
	// Accepted is set if an operator has taken the secret as good.
	Accepted bool `json:"accepted,omitempty"`
}

// Refused reports whether the secret was refused where consumers will use it, for longer than
// the edge may take to know it.
func (v Verification) Refused(within time.Duration, now time.Time) bool {
	return v.Last == ProbeBad && !v.Accepted && !v.Since.IsZero() && now.Sub(v.Since) >= within
}

// unproven says why the secret is not proven to work; empty if it is, or was not to be.
func (v Verification) unproven() string {
	if v.Probes == 0 {
		return ""
	}
	if v.Accepted {
		return "an operator took it as good: " + v.Error
	}
	return v.Error
}

const (
	firstProbeWait   = time.Second
	longestProbeWait = 10 * time.Second // while the edge may not know the secret yet
	// maxProbeBackOff is the longest wait for an application that refuses a new secret.
	maxProbeBackOff = 5 * time.Minute
)

// refusedWait returns how long to wait until an application that refuses a new secret is asked again. It doubles, and
// counts from the first refusal: the failures of the delivery before say nothing about the application.
func (v Verification) refusedWait(within time.Duration, now time.Time) time.Duration {
	wait := min(max(now.Sub(v.Since)-within, minBackOff), maxProbeBackOff)
	return wait - rand.N(wait/4)
}

// verify tries the new secret, and reports whether the rotation may end. A refusal is not a failure while
// the edge may not know the secret yet: the secret is tried again after a short wait.
func (a *attempt) verify(ctx context.Context) (verified bool, err error) {
	work := a.record.Work
	v := work.Verification
	if o := a.record.Order; a.token.Prober == nil || v.Accepted || o != nil && o.RevokeNow && work.IntentAt.Before(o.Since) {
		return true, nil // or another rotation follows, whether this secret is good or not
	}
	ctx = context.WithoutCancel(ctx)
	issued, ok, err := a.pending.Open(ctx, work.RotationID)
	switch {
	case errors.Is(err, ErrUnreadable) && v.Last != ProbeBad: // it cannot be tried any more, and every sink has it
		a.observe(a.record.probed(v.untried(err)))
		return true, nil
	case err != nil:
		a.extendOld(ctx)
		return false, a.stall(ctx, "journal", err)
	case !ok: // it was erased already: the process ended between that and the end of the rotation
		return true, nil
	}
	var probe Probe
	probeErr := a.phase(event.PhaseVerify, func() (err error) {
		bounded, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		probe, err = a.token.Prober.Probe(bounded, issued.Credential)
		return err
	})
	if probe == ProbeGood {
		a.observe(a.record.probed(Verification{}))
		a.tell(event.Probe{RotationID: work.RotationID, Result: event.ProbeGood})
		return true, nil
	}
	if probeErr == nil {
		probeErr = errors.New("the probe proved nothing")
	}
	return a.notVerified(ctx, probe, probeErr)
}

// notVerified continues an attempt whose probe did not find the new secret good.
func (a *attempt) notVerified(ctx context.Context, probe Probe, probeErr error) (verified bool, err error) {
	now, work := a.now().UTC(), a.record.Work
	v := work.Verification.failed(probe, probeErr, now)
	a.observe(a.record.probed(v))
	if wait := min(firstProbeWait<<min(v.Probes-1, 10), longestProbeWait); now.Add(wait).Sub(v.Since) <= a.token.VerifyWithin {
		return false, a.become(ctx, a.record.retriedAt(now.Add(wait)))
	}
	a.tell(event.Probe{RotationID: work.RotationID, Result: probe.Result(), Err: probeErr})
	if probe == ProbeUnknown || !work.LeavesCurrentInUse() && !now.Before(work.IntentAt.Add(MaxGrace)) {
		return true, nil // nothing shows that it is bad, or no old secret can be kept any longer
	}
	a.extendOld(ctx)
	err = fmt.Errorf("the new secret is in every sink, and is refused where it was tried: %w", probeErr)
	return false, a.stallUntil(ctx, "verify", err, now.Add(v.refusedWait(a.token.VerifyWithin, now)))
}
