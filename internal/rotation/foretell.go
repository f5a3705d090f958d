package rotation

import (
	"cmp"
	"time"
)

// This file says what follows from a record if all goes well, for forecasts. It takes the same
// transitions as a rotation. Only the answer is invented: it has no secret.

// Foretell returns the record after the due rotation, which begins at that time and succeeds at once. If a
// rotation is in progress, that one succeeds at once. A service token that a rotation would create has an
// invented ID, and those that it replaces are deleted.
func Foretell(t Token, r Record, due Due, at time.Time) Record {
	at = at.UTC()
	requested := r.Step == StepInDoubt || r.Step == StepSealed || r.Step == StepStored
	promised := r.GraceEnd()
	var work Work
	if r.Work != nil {
		work = *r.Work
	} else {
		slot, missed, frozen := r.serves(due, r.passed(t, at), false, at)
		s := strategyFor(t, r)
		work = s.plan(t, r, Work{
			Trigger: due.Trigger, Slot: slot, Missed: missed, Frozen: frozen, Began: at, Grace: Grace(r.grace(t)), IntentAt: at,
		})
		if s.traits().alternates { // a real rotation asks the sinks; they have what the ledger says
			work = *r.claimed(work).spareChosen(t, cmp.Or(r.TokenID, t.ID)).Work
		}
	}
	if !requested {
		promised = time.Time{}
	}
	r, _ = r.foretold(work, promised, at).done(t, at)
	return r
}

// GiveUpMissed returns the record without the slots that were missed by that time, if the configuration
// says that they are not made up for, and reports whether there were any.
func GiveUpMissed(t Token, r Record, now time.Time) (_ Record, changed bool) {
	r, _, changed = r.missedGivenUp(t, now)
	return r, changed
}

// CatchUpRecord returns the record of a token that is found at that time, as [Rotator.CatchUp] would save it.
func CatchUpRecord(t Token, r Record, p Pause, now time.Time) Record {
	r, _, _ = r.caughtUp(t, p, now)
	return r
}

// EnrollRecord returns the record of a token that begins to be scheduled at that time, as
// [Rotator.Enroll] would save it. It returns an error if the record has an unfinished rotation of
// another service token.
func EnrollRecord(t Token, stored Record, p Pause, now time.Time) (Record, error) {
	record, _, _, _, err := enrolled(t, stored, p, now, true)
	return record, err
}
