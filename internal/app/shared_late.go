package app

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"rotatord/internal/pending"
	"rotatord/internal/rotation"
)

// This file looks after sealed answers beside the rotations: those that came after another replica had taken the token
// over, copies that nothing needs any more, and space that was reserved for answers that never come.

// lateAnswers classifies late answers until ctx ends: regularly, and when records have changed. It may have to wait for
// Cloudflare.
func (s *sharing) lateAnswers(ctx context.Context) {
	if !s.waitJoined(ctx) {
		return
	}
	regularly := time.NewTicker(lateEvery)
	defer regularly.Stop()
	for {
		s.judgeLate(ctx)
		select {
		case <-ctx.Done():
			return
		case <-s.late:
		case <-regularly.C:
			s.dropReservations()
		}
	}
}

// judgeLate classifies the sealed answers on the disk whose rotation is not in progress in the ledger: they came after
// another replica had taken the token over, or their rotation is over.
func (s *sharing) judgeLate(ctx context.Context) {
	sealed, err := s.app.state.pending.Sealed()
	if err != nil {
		s.app.log.Error("the sealed secrets cannot be listed", "error", err)
		return
	}
	s.noteSealed(sealed)
	if s.room.MayBegin() != nil {
		return
	}
	for _, answer := range sealed {
		seen, ok := s.app.engine.view(answer.Token)
		if !ok || seen.enrolling || seen.active > 0 || seen.record.Work != nil && seen.record.Work.RotationID == answer.RotationID ||
			slices.Contains(seen.record.Abandoned, answer.RotationID) || s.classified[answer.RotationID] == seen.record.Revision {
			continue
		}
		err := s.app.engine.judgeLate(ctx, answer, s.superseded)
		if err == nil {
			s.classified[answer.RotationID] = seen.record.Revision
		} else if ctx.Err() == nil {
			s.app.log.Warn("a late answer could not be classified; it is tried again", "token", answer.Token, "rotation", answer.RotationID, "error", err)
		}
	}
	maps.DeleteFunc(s.classified, func(id string, _ uint64) bool { return !s.hasSealed(id) })
	maps.DeleteFunc(s.superseded, func(id string, _ bool) bool { return !s.hasSealed(id) })
	s.noteLate(sealed)
}

// reservationMinAge is how old a reservation must be to be dropped. A request and its late answer take less.
const reservationMinAge = 10 * time.Minute

// dropReservations removes reservations of rotations that another replica has ended: this one never gets their answer.
func (s *sharing) dropReservations() {
	err := s.app.state.dropReservations(time.Now().Add(-reservationMinAge), func(key rotation.PendingKey) bool {
		seen, ok := s.app.engine.view(key.Token)
		return !ok || seen.enrolling || seen.active > 0 || seen.record.Work != nil && seen.record.Work.RotationID == key.RotationID
	})
	if err != nil {
		s.app.log.Warn("space that was reserved for answers could not be given back; it is tried again", "error", err)
	}
}

// noteSealed notes which answers are on the disk.
func (s *sharing) noteSealed(sealed []pending.Sealed) {
	here := make(map[string]bool, len(sealed))
	for _, answer := range sealed {
		here[answer.RotationID] = true
	}
	s.sealedHere.Store(&here)
}

// hasSealed reports whether the answer of a rotation is on the disk, from memory.
func (s *sharing) hasSealed(rotationID string) bool {
	here := s.sealedHere.Load()
	return here != nil && (*here)[rotationID]
}

// judgeLate lets the rotator classify a sealed answer whose rotation is not in progress, and plans the token again. It
// adds to superseded what was found to be.
func (e *engine) judgeLate(ctx context.Context, answer pending.Sealed, superseded map[string]bool) error {
	_, err := e.runCommand(answer.Token, func(t rotation.Token) (rotation.Record, error) {
		result, record, err := e.rotator.JudgeLate(ctx, t, answer.RotationID, answer.At, superseded[answer.RotationID])
		if err == nil && result == rotation.LateSuperseded {
			superseded[answer.RotationID] = true
		}
		return record, err
	})
	if errors.Is(err, rotation.ErrHeld) {
		return nil // it is looked at again when the record has changed
	}
	return err
}

// A copy is not removed as nobody's before it is so old: the rotation that it is of may be newer than what was read of
// the ledger.
const copyMinAge = time.Hour

// sweepCopies removes copies that no rotation needs. One may be left by a request that was still under way when its
// rotation ended. One replica does it for all.
func (s *sharing) sweepCopies(ctx context.Context, records []rotation.Record) error {
	if s.copies == nil || s.room.MayBegin() != nil || s.room.Wait("pending/", rotation.Record{}) > 0 {
		return nil
	}
	files, err := s.copies.Files(ctx)
	if err != nil {
		return err
	}
	byName := make(map[string]rotation.Record, len(records))
	for _, r := range records {
		byName[r.Token] = r
	}
	for _, f := range files {
		record, known := byName[f.Token]
		needed := record.Work != nil && record.Work.RotationID == f.RotationID || slices.Contains(record.Abandoned, f.RotationID)
		if !known || needed || f.Damage != nil || s.app.now().Sub(f.At) < copyMinAge {
			continue
		}
		if err := s.copies.Erase(ctx, f.RotationID); err != nil {
			return err
		}
		s.app.log.Info("removed the copy of a sealed answer that no rotation needs", "token", f.Token, "rotation", f.RotationID)
	}
	return nil
}
