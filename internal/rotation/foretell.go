package rotation

import "time"

// This file tells what follows from a record if all goes well, for forecasts. It takes the same
// transitions as a rotation. Only the answer is made up: it has no secret.

// Foretell returns the record after the rotation that is due begins at that time and succeeds at
// once, or the one in progress does. The service token that a rotation would create has the ID
// "to be created".
func Foretell(t Token, r Record, due Due, at time.Time) Record {
	at = at.UTC()
	if r.Work == nil {
		slot, missed, frozen := r.serves(due, r.passed(t, at), false, at)
		r = r.claimed(strategyFor(t, r).plan(t, r, Work{
			Trigger: due.Trigger, Slot: slot, Missed: missed, Frozen: frozen, Began: at, Grace: Grace(r.grace(t)),
		})).intending(at)
	}
	work := r.Work
	issued := Issued{Facts: TokenFacts{ID: work.TokenID}}
	switch {
	case work.strategy().traits().creates:
		issued.Facts.ID = "to be created"
	case !work.LeavesCurrentInUse():
		if issued.GraceEndsAt = r.GraceEnd(); !issued.GraceEndsAt.After(at) {
			issued.GraceEndsAt = at.Add(t.Grace)
		}
	}
	r, _ = r.beforeKnown(r.FactsOf(work.TokenID)).answered(issued, at).done(t, at)
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
	record, _, _, _, err := enrolled(t, stored, p, now)
	return record, err
}
