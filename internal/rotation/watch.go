package rotation

import (
	"context"
	"errors"
	"slices"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/secret"
)

// This file compares what a sink holds between rotations with what was written to it. The caller looks at
// each sink on a slow cycle and decides when a result is sure enough to be recorded. What to do about it is
// in restore.go.
//
// The ledger changes only if a look shows something else than the look before it. A look that was under way
// during a rotation, or during another change of what the sink should hold, counts for nothing.

// Written is what was last written to a sink, or what an operator has accepted there.
type Written struct {
	Digest   secret.Digest `json:"digest"`
	ClientID string        `json:"client_id,omitempty"` // empty if it is not known
	Version  int           `json:"version,omitempty"`   // 0 where the sink has no versions
	At       time.Time     `json:"at,omitzero"`
	// Accepted is set if another person or program has written it, and an operator took it as right.
	Accepted bool `json:"accepted,omitempty"`
}

// same reports whether the same was written at the same time.
func (w Written) same(other Written) bool {
	return w.Digest == other.Digest && w.ClientID == other.ClientID && w.Version == other.Version && w.At.Equal(other.At)
}

// FindingKind says what is wrong with a sink. It is a label of metrics.
type FindingKind string

// The kinds of findings.
const (
	FoundChanged      FindingKind = "changed"       // the sink holds a secret that we never wrote
	FoundRolledBack   FindingKind = "rolled_back"   // it holds a secret from before the last write
	FoundDeleted      FindingKind = "deleted"       // what it holds was deleted, and may be brought back
	FoundDestroyed    FindingKind = "destroyed"     // what it held cannot be brought back
	FoundGone         FindingKind = "gone"          // there is nothing in its place, and no history
	FoundNoSecret     FindingKind = "no_secret"     // the field of the client secret is missing or is not a text
	FoundNeverWritten FindingKind = "never_written" // the sink was added after the last rotation
	FoundUnreadable   FindingKind = "unreadable"    // it could not be read several times in a row
)

// FindingKinds are all kinds of findings, those first that harm consumers most.
var FindingKinds = []FindingKind{
	FoundGone, FoundDestroyed, FoundDeleted, FoundNoSecret, FoundRolledBack, FoundChanged, FoundNeverWritten, FoundUnreadable,
}

// Finding is what the watch has found in a sink in place of what was written. The zero Finding is a sink that
// holds what was written.
type Finding struct {
	Kind  FindingKind `json:"kind"`
	Since time.Time   `json:"since"` // when it was found
	// Digest, ClientID, Version and WrittenAt are what the sink holds, as far as it says so.
	Digest    secret.Digest `json:"digest,omitempty"`
	ClientID  string        `json:"client_id,omitempty"`
	Version   int           `json:"version,omitempty"`
	WrittenAt time.Time     `json:"written_at,omitzero"`
	Error     string        `json:"error,omitempty"` // why it cannot be read
}

// Same reports whether two findings say the same. When it was found, and the text of an error, do not count.
func (f Finding) Same(other Finding) bool {
	return f.Kind == other.Kind && f.Digest == other.Digest && f.ClientID == other.ClientID
}

// maxEarlier is how many digests of earlier secrets a record has.
const maxEarlier = 10

// Watched reports whether there is something to compare with: the token was rotated, and no rotation is in
// progress.
func (r Record) Watched() bool { return r.Step == StepIdle && (r.Last != nil || len(r.Written) > 0) }

// currentDigest returns the digest of the secret that all sinks should hold; empty if they should hold
// different ones.
func (r Record) currentDigest() (digest secret.Digest) {
	first := true
	for _, w := range r.Written {
		if !first && w.Digest != digest {
			return ""
		}
		digest, first = w.Digest, false
	}
	if first && r.Last != nil {
		digest = r.Last.Digest
	}
	return digest
}

// shouldHold returns what a sink should hold. known is false if the ledger does not know that it was written.
func (r Record) shouldHold(sink string) (_ Written, known bool) {
	if w, known := r.Written[sink]; known {
		return w, true
	}
	return Written{Digest: r.currentDigest(), ClientID: r.FactsOf(r.TokenID).ClientID}, false
}

// Compare returns what is wrong with a sink that holds s; the zero Finding if nothing is, or if there is nothing
// to compare with. Versions are not compared: they start again if the history of a place was removed.
func (r Record) Compare(sink string, s Stored) Finding {
	kind := r.findingKind(sink, s)
	switch {
	case kind == "":
		return Finding{}
	case !s.Exists:
		return Finding{Kind: kind, Version: s.Version}
	}
	return Finding{Kind: kind, Digest: s.Digest, ClientID: s.ClientID, Version: s.Version, WrittenAt: s.WrittenAt.UTC()}
}

// findingKind returns what is wrong with a sink that holds s; empty if nothing is.
func (r Record) findingKind(sink string, s Stored) FindingKind {
	want, known := r.shouldHold(sink)
	switch {
	case !r.Watched():
		return ""
	case s.Exists && s.Digest == want.Digest && (want.ClientID == "" || s.ClientID == want.ClientID):
		return ""
	case !known && len(r.Written) > 0:
		return FoundNeverWritten
	case s.Destroyed:
		return FoundDestroyed
	case !s.Exists && s.Version > 0:
		return FoundDeleted
	case !s.Exists && !known: // the ledger is from a version that did not note what was written
		return FoundNeverWritten
	case !s.Exists:
		return FoundGone
	case s.Digest == "":
		return FoundNoSecret
	case slices.Contains(r.Earlier, s.Digest):
		return FoundRolledBack
	case !r.Outside.IsZero() && r.Findings[sink].Kind == "":
		// It is known that others have rotated the token, and the sink probably holds their secret.
		return ""
	}
	return FoundChanged
}

// MayPutBack reports whether nothing in the record speaks against writing our secret back. Otherwise what a sink holds may be
// the right secret, or no copy of ours is left.
func (r Record) MayPutBack() bool {
	switch r.Restoring.Refused {
	case RestoreNotProven, RestoreOutside, RestoreAccepted, RestoreGone:
		return false
	}
	restores := r.Order != nil && r.Order.Restores
	moved := !r.OwnUpdatedAt.IsZero() && r.Facts.UpdatedAt.After(r.OwnUpdatedAt)
	return r.Outside.IsZero() && !restores && !moved
}

// Unreadable returns the finding about a sink that cannot be read.
func Unreadable(err error) Finding { return Finding{Kind: FoundUnreadable, Error: err.Error()} }

// Look is what a look at a sink has shown.
type Look struct {
	Sink string
	// Before is the record from before the look.
	Before Record
	// Err says why the sink could not be read, several times in a row; nil if it could.
	Err    error
	Stored Stored // what it holds, if Err is nil
}

// finding returns what the look shows beside the record.
func (l Look) finding(r Record) Finding {
	if l.Err != nil {
		return Unreadable(l.Err)
	}
	return r.Compare(l.Sink, l.Stored)
}

// RecordLook records what a look at a sink has shown, if that is new, and returns the record. It does not wait
// for a token that is being worked on; it returns a zero Record then. It changes nothing if the token was
// rotated since l.Before, or is being rotated.
func (r *Rotator) RecordLook(ctx context.Context, t Token, l Look) (Record, error) {
	e, err := r.tryOpen(ctx, t)
	if e == nil {
		return Record{}, nil
	}
	defer e.close()
	if err != nil || !e.record.Watched() || !e.record.sameWrites(l.Before, l.Sink) {
		return e.record, err
	}
	next, changed := e.record.looked(t, l, l.finding(e.record), r.now().UTC())
	if !changed {
		return e.record, nil
	}
	before := e.record
	if err := e.save(ctx, next); err != nil {
		return e.record, err
	}
	e.tellLooked(before, l)
	return e.record, nil
}

// sameWrites reports whether nothing was written to a sink between two records, so that a look between them is
// about what both expect.
func (r Record) sameWrites(before Record, sink string) bool {
	return r.sameRotation(before) && r.Written[sink].same(before.Written[sink])
}

// sameRotation reports whether no rotation was in progress at the time of an earlier record, and none has ended
// since.
func (r Record) sameRotation(before Record) bool {
	if before.Step != StepIdle || (before.Last == nil) != (r.Last == nil) {
		return false
	}
	return r.Last == nil || r.Last.RotationID == before.Last.RotationID
}

// tellLooked publishes what a look has shown that is new. before is the record from before it was noted.
func (e *entry) tellLooked(before Record, l Look) {
	was, now := before.Findings[l.Sink], e.record.Findings[l.Sink]
	want, _ := e.record.shouldHold(l.Sink)
	switch {
	case was.Same(now):
	case now.Kind == "":
		e.tellOutside(event.SinkFinding{Sink: l.Sink, Was: string(was.Kind), Since: was.Since})
	default:
		e.tellOutside(event.SinkFinding{
			Sink: l.Sink, Finding: string(now.Kind), Was: string(was.Kind), Since: now.Since,
			Digest: string(now.Digest), Want: string(want.Digest), Version: now.Version, WrittenAt: now.WrittenAt, Err: l.Err,
		})
	}
	if at := e.record.Deletes[l.Sink]; at.After(e.now()) && !at.Equal(before.Deletes[l.Sink]) {
		next := e.token.neededUntil(e.record.Anchor, e.now(), 0)
		if next.IsZero() || at.Before(next) {
			e.tell(event.VersionDeletion{Sink: l.Sink, DeletesAt: at, NeededUntil: next})
		}
	}
}

// tellOutside publishes what others have done to the token.
func (e *entry) tellOutside(d event.Detail) {
	e.Rotator.tell(e.token.Name, event.Actor{Cause: event.ByOutside}, d)
}

// lookAgain looks at all sinks for an operator, and records the result at once. It returns how many sinks do
// not hold what was written, and an error about those that could not be read.
func (e *entry) lookAgain(ctx context.Context) (wrong int, err error) {
	var failed []error
	next, looks := e.record, []Look{}
	for _, sink := range e.token.Sinks {
		stored, err := lookBriefly(ctx, sink)
		if err != nil {
			failed = append(failed, sinkError(sink, err))
			continue
		}
		l := Look{Sink: sink.Name(), Before: e.record, Stored: stored}
		looks = append(looks, l)
		next, _ = next.looked(e.token, l, l.finding(e.record), e.now().UTC())
	}
	before := e.record
	if err := e.become(ctx, next); err != nil {
		return 0, err
	}
	for _, l := range looks {
		e.tellLooked(before, l)
	}
	return len(e.record.Findings), errors.Join(failed...)
}

// lookBriefly looks at a sink within a bound.
func lookBriefly(ctx context.Context, sink Sink) (Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return lookAt(ctx, sink)
}
