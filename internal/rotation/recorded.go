package rotation

import (
	"context"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/failpoint"
)

// This file is the gate in front of each request that changes or ends a secret: it leaves only after the record of
// events has it. What extends a grace or renews a service token ends no secret and passes without the gate: a full disk
// must not cut consumers off.

// keepRoom keeps room in the record of events for a request and its outcome, until the token is closed.
func (e *entry) keepRoom(ctx context.Context) error {
	if e.recorder == nil || e.release != nil {
		return nil
	}
	release, err := e.recorder.Reserve(ctx, e.token.Name)
	if err == nil {
		e.release = release
	}
	return err
}

// recorded returns nil once the record of events has the request that is about to leave. Its error says that nothing
// was sent.
func (e *entry) recorded(ctx context.Context, d event.RequestLeaving) error {
	if e.recorder == nil {
		return nil
	}
	err := e.keepRoom(ctx)
	if err == nil {
		failpoint.Reach("record.before")
		err = e.recorder.Record(ctx, event.New(e.now(), e.token.Name, e.by(e.record.Order), d))
		failpoint.Reach("record.after")
	}
	if err != nil {
		return &IssuerError{Class: NotCarriedOut, Operation: d.Operation, Err: err}
	}
	return nil
}

// recordedInTime is recorded for the request of the rotation in progress. A disk that does not answer is waited for until
// the request could no longer leave.
func (e *entry) recordedInTime(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, max(e.record.Work.Deadline.Sub(e.now()), 0))
	defer cancel()
	return e.recorded(bounded, e.record.leaving())
}

// leaving describes the request of the rotation in progress.
func (r Record) leaving() event.RequestLeaving {
	work := r.Work
	d := event.RequestLeaving{Operation: "rotate", RotationID: work.RotationID, Trigger: string(work.Trigger), TokenID: work.TokenID,
		Creates: work.NewName(), Slot: work.Slot, Grace: time.Duration(work.Grace)}
	if d.Creates != "" {
		d.Operation = "create"
	}
	return d
}
