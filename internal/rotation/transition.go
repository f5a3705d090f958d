package rotation

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"rotatord/internal/moment"
)

// This file holds the transitions of a rotation, in the order of the protocol. A transition is
// a pure function: it returns the record that follows and changes nothing. Transitions beside
// rotations are in transition_token.go, those of the watch, of an overtaken secret and of hooks in files of
// that name, those of one strategy in its file, and those that undo what a wrong clock has done in heal.go. No other file writes a field of a record, or of
// anything that a record points to; TestOnlyTransitionsWriteRecords checks that.

// withWork returns r with a changed copy of its rotation in progress.
func (r Record) withWork(change func(w *Work)) Record {
	work := *r.Work
	change(&work)
	r.Work = &work
	return r
}

// withDoubt returns r with a changed copy of its doubt.
func (r Record) withDoubt(change func(d *Doubt)) Record {
	doubt := *r.Doubt
	change(&doubt)
	r.Doubt = &doubt
	return r
}

// stamped returns r as it is written to the ledger for that token.
func (r Record) stamped(t Token) Record {
	r.Format, r.Token, r.Account = RecordFormat, t.Name, t.Account
	if t.LedgerHasID() {
		r.Origin = t.Origin()
	} else if !t.Owns(r.TokenID) {
		r.TokenID = t.ID
	}
	return r
}

// savedAs returns r as the ledger has it now.
func (r Record) savedAs(revision uint64) Record {
	r.Revision = revision
	return r
}

// heldBy returns r with the hold of the replica that works on it; nil for none.
func (r Record) heldBy(h *Hold) Record {
	r.Hold = h
	return r
}

// copied notes that a copy of the sealed answer is where every replica finds it.
func (r Record) copied() Record { return r.withWork(func(w *Work) { w.Copied = true }) }

// answerFound returns the record of a doubt whose answer is there after all: as it was when the answer came.
func (r Record) answerFound() Record {
	if until := r.Doubt.OldWorksUntil; !until.IsZero() { // it may have been moved during the doubt
		r = r.graceEnds(until)
	}
	r.Step, r.Doubt = StepIntent, nil
	return r
}

// oldExtended notes until when the old secret works after it was extended while the ledger was away.
func (r Record) oldExtended(until time.Time) Record {
	if r.ExtendsLost() {
		return r.lostExtended(until)
	}
	return r.graceEnds(until)
}

// touchedMeanwhile returns r with our own last extension of the old secret, which known has if the ledger was away.
func (r Record) touchedMeanwhile(known Record) Record {
	work, lost := r.Work, r.Lost
	switch {
	case work != nil && known.Work != nil && work.RotationID == known.Work.RotationID && known.Work.TouchedAt.After(work.TouchedAt):
		until := known.Work.GraceEndsAt
		r = r.graceEnds(moment.Max(work.GraceEndsAt, until)).withWork(func(w *Work) { w.TouchedAt = known.Work.TouchedAt })
		if r.Step == StepInDoubt { // another replica has taken over meanwhile
			r = r.doubtWorksUntil(moment.Max(r.Doubt.OldWorksUntil, until))
		}
	case work == nil && lost != nil && known.Lost != nil && lost.RotationID == known.Lost.RotationID && known.Facts.UpdatedAt.After(r.Facts.UpdatedAt):
		r.Lost = known.Lost
		if !r.OldDiesBy.IsZero() {
			r.OldDiesBy = known.Lost.Until
		}
	default:
		return r
	}
	r.Facts.UpdatedAt = moment.Max(r.Facts.UpdatedAt, known.Facts.UpdatedAt)
	return r
}

// lateAdopted returns the record of a token whose latest secret is in a late answer: it is delivered as the answer of a
// rotation in progress. It serves no slot.
func (r Record) lateAdopted(rotationID, owner, replica string, facts TokenFacts, issued Issued, now time.Time) Record {
	r.Step = StepSealed
	r.Work = &Work{RotationID: rotationID, TokenID: facts.ID, Owner: owner, Replica: replica, Trigger: TriggerRecovery, Slot: r.Anchor,
		Began: now, Deadline: now, IntentAt: issued.Facts.UpdatedAt, SealedAt: now, Before: r.Facts}
	if !issued.GraceEndsAt.IsZero() {
		r.Work.Grace = Grace(max(issued.GraceEndsAt.Sub(issued.Facts.UpdatedAt), 0))
	}
	return r.withWork(func(w *Work) { w.noteAnswer(issued) })
}

// strayKept records a service token that a late request has created. The first one of an entry is still useful: a
// rotation will give it a secret. Another one is deleted.
func (r Record) strayKept(t Token, created TokenFacts, now time.Time) Record {
	if r.TokenID == "" && !t.Replace {
		return r.adopted(created)
	}
	r.Replaced = append(slices.Clone(r.Replaced), Replaced{TokenID: created.ID, ClientID: created.ClientID, At: now})
	return r
}

// claimed begins a rotation.
func (r Record) claimed(w Work) Record {
	r.Step, r.Work = StepClaimed, &w
	return r
}

// released gives up a claim whose request never left. It counts no failure.
func (r Record) released() Record {
	r.Step, r.Work = StepIdle, nil
	return r
}

// beforeRequest notes what the sinks hold before the request leaves.
func (r Record) beforeRequest(sinks map[string]Stored) Record {
	for name, stored := range sinks {
		r = r.deletionSeen(name, stored)
	}
	return r.withWork(func(w *Work) { w.BeforeSink = sinks })
}

// beforeKnown notes what the service token is like before the request leaves.
func (r Record) beforeKnown(facts TokenFacts) Record {
	return r.withWork(func(w *Work) { w.Before = facts })
}

// deletionSeen notes when a sink will delete by itself what it holds.
func (r Record) deletionSeen(sink string, s Stored) Record {
	at := s.DeletesAt
	if !s.Exists {
		at = time.Time{}
	}
	if r.Deletes[sink].Equal(at) {
		return r
	}
	deletes := maps.Clone(r.Deletes)
	if deletes == nil {
		deletes = make(map[string]time.Time, 1)
	}
	if deletes[sink] = at.UTC(); at.IsZero() {
		delete(deletes, sink)
	}
	r.Deletes = deletes
	return r
}

// intending returns the record that says: from now on the request may have left.
func (r Record) intending(now time.Time) Record {
	r.Step = StepIntent
	return r.withWork(func(w *Work) { w.IntentAt = now })
}

// answered notes what the issuer answered, once the answer is sealed.
func (r Record) answered(issued Issued, now time.Time) Record {
	return r.withWork(func(w *Work) {
		w.SealedAt = now
		w.noteAnswer(issued)
		w.TokenID = cmp.Or(w.TokenID, issued.Facts.ID)
	})
}

// foretold returns the record of a rotation that is claimed, and answered at once, in a forecast. promised
// is the end of the grace that an earlier request has set; zero if no request has set one. It does what
// claimed, intending, beforeKnown and answered do, with one copy of the work instead of four: they were a
// quarter of the time of a forecast.
func (r Record) foretold(w Work, promised, now time.Time) Record {
	w.Before, w.After = r.FactsOf(w.TokenID), TokenFacts{ID: w.TokenID}
	switch {
	case w.strategy().traits().creates:
		if w.After.ID = "to be created"; r.TokenID == w.After.ID {
			w.After.ID = "to be created next"
		}
	case w.LeavesCurrentInUse():
	case promised.After(now):
		w.GraceEndsAt = promised
	default:
		w.GraceEndsAt = now.Add(time.Duration(w.Grace))
	}
	w.TokenID, w.SealedAt = cmp.Or(w.TokenID, w.After.ID), now
	r.Replaced = nil // deleted by then
	return r.claimed(w)
}

// answeredUnsealed notes an answer that is delivered from memory because the disk refused it.
func (r Record) answeredUnsealed(issued Issued) Record {
	r.Step = StepIntent
	return r.withWork(func(w *Work) { w.noteAnswer(issued) })
}

func (w *Work) noteAnswer(issued Issued) {
	w.Digest, w.After = issued.ClientSecret.Digest(), issued.Facts
	w.GraceEndsAt = moment.Max(w.GraceEndsAt, issued.GraceEndsAt.UTC())
}

// deliveredUnsealed notes that every sink has a secret that could not be sealed.
func (r Record) deliveredUnsealed() Record {
	return r.withWork(func(w *Work) { w.Delivered = true })
}

// sealed returns the record of a rotation whose answer is sealed and valid.
func (r Record) sealed() Record {
	r.Step = StepSealed
	return r
}

// stored returns the record of a rotation whose secret is in every sink.
func (r Record) stored() Record {
	r.Step = StepStored
	return r
}

// probed notes what requests with the new secret have shown.
func (r Record) probed(v Verification) Record {
	return r.withWork(func(w *Work) { w.Verification = v })
}

// failed returns v after one more probe that did not find the secret good.
func (v Verification) failed(probe Probe, err error, now time.Time) Verification {
	v.Probes++
	v.Last, v.Error = probe, err.Error()
	if v.Since.IsZero() {
		v.Since = now
	}
	return v
}

// untried returns v for a secret that cannot be tried any more.
func (v Verification) untried(err error) Verification {
	v.Probes++
	v.Error = err.Error()
	return v
}

// accepted takes a new secret as good that is refused where it is tried.
func (r Record) accepted(now time.Time) Record {
	r.NotBefore = now
	return r.withWork(func(w *Work) { w.Verification.Accepted = true })
}

// done ends a rotation that has succeeded. healed says in words which times were removed from the record,
// because the clock was put back since the claim.
func (r Record) done(t Token, now time.Time) (_ Record, healed []string) {
	work := r.Work
	switch {
	case !work.Slot.After(r.Anchor):
	case work.Slot.Sub(now) <= maxAnchorAhead:
		r.Anchor = work.Slot
	default: // the clock was put back by days: what was consumed stays consumed
		healed = append(healed, "a slot was served at "+work.Slot.Format(time.RFC3339))
		r.Anchor = moment.Max(r.Anchor, now.Truncate(time.Second))
	}
	r.Last = &Done{
		RotationID: work.RotationID, Trigger: work.Trigger, Slot: work.Slot,
		At: now, Digest: work.Digest, GraceEndsAt: work.GraceEndsAt, AskedAt: work.IntentAt, Replica: work.Replica,
		Unverified: work.Verification.unproven(),
	}
	renewed := r.FactsOf(work.TokenID)
	r = work.strategy().finish(t, r).withAnswerFacts(renewed).withOracle(work)
	r = r.idle().withoutDebts().orderCarriedOut(work).watchedAgain(t).withOwnUpdatedAt(work).owesHooks(t, now)
	r, what := r.healed(t, now)
	return r, append(healed, what...)
}

// withAnswerFacts puts into the facts what our own requests have changed since the rotate request.
// before is what was known of the service token until now.
func (r Record) withAnswerFacts(before TokenFacts) Record {
	work := r.Work
	if r.Renewal.At.After(work.IntentAt) && before.ExpiresAt.After(r.Facts.ExpiresAt) {
		r.Facts.ExpiresAt, r.Facts.Duration = before.ExpiresAt, before.Duration
	}
	r.Facts.UpdatedAt = moment.Max(r.Facts.UpdatedAt, work.TouchedAt)
	return r
}

// withOracle counts whether updated_at has moved with a confirmed rotation.
func (r Record) withOracle(w *Work) Record {
	switch {
	case w.Before.UpdatedAt.IsZero() || w.After.UpdatedAt.IsZero():
	case unchanged(w.Before, w.After):
		r.StillCount++
	case w.After.UpdatedAt.Sub(w.IntentAt).Abs() < movedWithin:
		// It moved with the rotation, and not with an edit since we last looked.
		r.MovedCount++
	}
	return r
}

// idle ends the rotation in progress, and clears the count of failures.
func (r Record) idle() Record {
	r.Step, r.Work, r.Doubt = StepIdle, nil, nil
	r.Failures, r.LastError, r.LastCause, r.LastSink = 0, "", "", ""
	r.NotBefore, r.CatchUpAt, r.NextTrigger = time.Time{}, time.Time{}, ""
	return r
}

// withoutDebts returns the record of a token whose consumers have a good secret: no reissue is owed, and
// the answers that were given up are not needed any more.
func (r Record) withoutDebts() Record {
	r.OldDiesBy, r.Outside, r.Lost, r.Abandoned = time.Time{}, time.Time{}, nil, nil
	return r
}

// failure is what an attempt that failed leaves in the record.
type failure struct {
	reason string // where, for errors that do not say their cause
	err    error
	next   time.Time // when to try again
	// silent is set if it is not the token's failure, such as a rate limit.
	silent bool
}

// failed notes a failure. The step stays.
func (r Record) failed(f failure) Record {
	if !f.silent {
		r.Failures++
	}
	r.NotBefore, r.LastError, r.LastSink = f.next, f.err.Error(), SinkOf(f.err)
	r.LastCause = CauseOr(f.err, f.reason)
	return r
}

// failedLike copies the count of failures and the time of the next try from a record that could not be
// saved, because the caller schedules by them.
func (r Record) failedLike(unsaved Record) Record {
	r.Failures, r.NotBefore = unsaved.Failures, unsaved.NotBefore
	r.LastError, r.LastCause, r.LastSink = unsaved.LastError, unsaved.LastCause, unsaved.LastSink
	return r
}

// retriedAt puts the next attempt at that time.
func (r Record) retriedAt(at time.Time) Record {
	r.NotBefore = at
	return r
}

// inDoubt returns the record of a rotation that may or may not have been carried out.
func (r Record) inDoubt(d Doubt) Record {
	r.Step, r.Doubt = StepInDoubt, &d
	return r
}

// shownCarriedOut notes whether Cloudflare has shown that the request in doubt was carried out.
func (r Record) shownCarriedOut(shown bool) Record {
	if !shown || r.Doubt.CarriedOut {
		return r
	}
	return r.withDoubt(func(d *Doubt) { d.CarriedOut = true })
}

// factsSeen notes what the service token of a doubt is like now.
func (r Record) factsSeen(facts TokenFacts) Record {
	r.Facts = facts
	return r
}

// doubtListed notes what an inventory has shown of a service token in doubt.
func (r Record) doubtListed(facts TokenFacts, listed, now time.Time) Record {
	r.Facts, r.NotBefore = facts, now
	return r.withDoubt(func(d *Doubt) { d.ListedAt = listed })
}

// decided notes a verdict about the doubt.
func (r Record) decided(v Verdict, now time.Time) Record {
	return r.withDoubt(func(d *Doubt) { d.Decision, d.DecidedAt = v.Reason, now })
}

// doubtExtended notes until when the old secret works after it was extended during a doubt.
func (r Record) doubtExtended(until time.Time) Record {
	return r.withDoubt(func(d *Doubt) { d.OldWorksUntil, d.Extensions = until, d.Extensions+1 })
}

// doubtWorksUntil corrects until when the old secret works.
func (r Record) doubtWorksUntil(until time.Time) Record {
	if r.Doubt.OldWorksUntil.Equal(until) {
		return r
	}
	return r.withDoubt(func(d *Doubt) { d.OldWorksUntil = until })
}

// resolved ends a doubt as the verdict says. The next rotation does not wait for a back-off. Its slot was
// tried before. created is the service token that the request in doubt has created, nil if there is none.
func (r Record) resolved(t Token, v Verdict, created *TokenFacts, now time.Time) Record {
	if v.Deliver {
		r.Step = StepSealed
		if until := r.Doubt.OldWorksUntil; !until.IsZero() && !r.Work.GraceEndsAt.IsZero() { // it may have been moved during the doubt
			r = r.graceEnds(until)
		}
	} else {
		if created != nil {
			r = r.createdKept(t, *created, now)
		}
		if !v.NotCarriedOut {
			r = r.owesReissue(now).updatedAtForgotten()
		}
		if r.Work.Copied { // the copy is erased when a later rotation is done
			r.Abandoned = append(slices.Clone(r.Abandoned), r.Work.RotationID)
		}
		r.Step, r.Work = StepIdle, nil
	}
	r.Doubt, r.NotBefore, r.NextTrigger = nil, now, v.trigger()
	return r
}

// owesReissue notes that the secret of the rotation in doubt is lost, or may be, and that another
// rotation must make up for it.
func (r Record) owesReissue(now time.Time) Record {
	doubt, work := r.Doubt, r.Work
	switch {
	case work.LeavesCurrentInUse():
	case r.Lost == nil:
		r.Lost = &Lost{RotationID: work.RotationID, At: work.IntentAt, Since: now, Grace: work.Grace, Until: doubt.OldWorksUntil}
		if (doubt.CarriedOut || doubt.Answered()) && r.OldDiesBy.IsZero() {
			r.OldDiesBy = doubt.OldWorksUntil
		}
	case r.Lost.CutOff.IsZero(): // the second one in a row
		lost := *r.Lost
		lost.CutOff = work.IntentAt
		r.Lost = &lost
	}
	return r
}

// touched notes our own change of a service token, other than a rotation.
func (r Record) touched(facts TokenFacts) Record {
	r.Facts = r.Facts.updatedBy(facts)
	if r.Work == nil {
		return r
	}
	return r.withWork(func(w *Work) { w.TouchedAt = facts.UpdatedAt })
}

// maybeTouched notes that a failed request of ours may have changed the service token.
func (r Record) maybeTouched() Record {
	r.Facts.UpdatedAt = time.Time{}
	return r
}

// graceEnds notes until when the old secret works while the new one is delivered.
func (r Record) graceEnds(until time.Time) Record {
	if r.Work.GraceEndsAt.Equal(until) {
		return r
	}
	return r.withWork(func(w *Work) { w.GraceEndsAt = until })
}

// mayExtendBy notes that an operator extends the old secret of the rotation in progress by this long.
func (r Record) mayExtendBy(grace time.Duration) Record {
	if r.Work.ExtendedBy >= Grace(grace) {
		return r
	}
	return r.withWork(func(w *Work) { w.ExtendedBy = Grace(grace) })
}

// endMoved notes that an operator has moved the end of the old secret. A doubt is decided again at once.
func (r Record) endMoved(end, now time.Time) Record {
	if r.Step != StepInDoubt {
		return r.graceEnds(end)
	}
	return r.retriedAt(now).doubtWorksUntil(end)
}

// lostExtended notes until when the old secret works while a reissue is owed.
func (r Record) lostExtended(until time.Time) Record {
	lost := *r.Lost
	lost.Until = until
	lost.Extensions++
	r.Lost = &lost
	if !r.OldDiesBy.IsZero() {
		r.OldDiesBy = until
	}
	return r
}

// givenUp ends the rotation in progress without delivering its secret. seen is what Cloudflare shows of
// the service token now, as far as it was asked. served says that the slot needs no other rotation.
// The answer stays sealed until a later rotation is done.
func (r Record) givenUp(t Token, v Verdict, seen TokenFacts, served bool, now time.Time) Record {
	work := r.Work
	gone := work.Overtaken != nil && work.Overtaken.Gone
	r.Abandoned = append(slices.Clone(r.Abandoned), work.RotationID)
	if !gone {
		r = work.strategy().keep(t, r, work.lastSeen(seen), now)
	}
	if served && work.Slot.After(r.Anchor) && work.Slot.Sub(now) <= maxAnchorAhead {
		r.Anchor = work.Slot
	}
	if o := work.Overtaken; served && o != nil { // what the sinks hold is right
		r = r.overtakenAccepted(*o, now)
	}
	if o := work.Overtaken; served && o != nil && len(o.Sinks) < len(t.Sinks) {
		r.Outside = o.ChangedAt // another sink still has a secret that has ended or will end
	}
	r = r.idle()
	switch {
	case served || gone: // consumers have another secret, or no rotation of it can succeed
		r.OldDiesBy, r.Lost = time.Time{}, nil
	default:
		r.NextTrigger = v.trigger()
	}
	return r
}

// lastSeen returns what is known about the service token of a rotation that is given up.
func (w *Work) lastSeen(seen TokenFacts) TokenFacts {
	facts := w.Before.updatedBy(w.After)
	if seen.ID == w.TokenID {
		facts = seen
	}
	facts.UpdatedAt = moment.Max(facts.UpdatedAt, w.ChangedAt)
	return facts
}
