package rotation

import (
	"context"
	"fmt"
	"time"
)

// pair is the strategy of two service tokens behind one logical credential, both allowed by the same
// Access policy. Each rotation renews the one that is not in use, the spare, and then switches the
// sinks to it. The one in use is never touched, so no crash, lost answer or second request can cut a
// consumer off.
type pair struct{}

func (pair) traits() traits { return traits{name: Pair, leavesCurrentInUse: true, alternates: true} }

// plan does not know yet which of the two is the spare: prepare asks the sinks.
func (pair) plan(t Token, r Record, w Work) Work {
	w.TokenID, w.Spare = t.ServiceToken(r), true
	return w
}

// prepare decides which of the pair is rotated: the one whose credential no sink holds. What the sinks
// hold counts more than what the ledger remembers, since consumers read the sinks. If they hold neither,
// the service token of the last rotation is in use; before the first rotation it is the one that the
// configuration names first.
func (pair) prepare(ctx context.Context, e *entry) error {
	byClient := make(map[string]string, 2) // service tokens by client ID
	for _, id := range []string{e.token.ID, e.token.Partner} {
		facts, err := e.knownFacts(ctx, id)
		if err != nil {
			return err
		}
		byClient[facts.ClientID] = id
	}
	inUse, foundIn := "", ""
	for _, sink := range e.token.Sinks {
		id, known := byClient[e.record.Work.BeforeSink[sink.Name()].ClientID]
		switch {
		case !known:
		case inUse == "":
			inUse, foundIn = id, sink.Name()
		case inUse != id:
			return fmt.Errorf("both service tokens of the pair are in use: %s holds %s and %s holds %s, and neither may be rotated: "+
				"write the same credential to both sinks", foundIn, inUse, sink.Name(), id)
		}
	}
	if inUse == "" {
		inUse = e.record.TokenID
	}
	e.observe(e.record.spareChosen(e.token, inUse))
	facts, err := e.knownFacts(ctx, e.record.Work.TokenID)
	if err == nil {
		e.observe(e.record.beforeKnown(facts))
	}
	return err
}

// spareChosen notes which service token is in use. The rotation works on the other one.
func (r Record) spareChosen(t Token, inUse string) Record {
	if t.Owns(r.TokenID) && inUse != r.TokenID {
		r.Facts, r.Spare = r.Spare, r.Facts
	}
	r.TokenID = inUse
	return r.withWork(func(w *Work) { w.TokenID = t.other(inUse) })
}

func (pair) request(ctx context.Context, e *entry) (Issued, error) { return inPlace{}.request(ctx, e) }

func (pair) identify(context.Context, *entry, Issued) error { return nil }

// finish makes the spare the one in use. The other one works until it is rotated; its rotation waits for
// the end of the promised grace.
func (pair) finish(t Token, r Record) Record {
	r.Spare, r.TokenID = r.Facts, r.Work.TokenID
	r.Facts = r.Work.Before.updatedBy(r.Work.After)
	return r.previousWorksUntil(r.Last.At.Add(t.Grace))
}

// look reads nothing: consumers do not use the spare, so its secret does not matter to them.
func (pair) look(context.Context, *entry, bool) (Evidence, error) { return Evidence{}, nil }

// judge orders another rotation of the spare when no request can be under way any more; a late request
// would replace the new secret.
func (pair) judge(r Record, _ Evidence, now time.Time) Verdict {
	overAt := r.Doubt.Since.Add(underWayFor(time.Duration(r.Work.Grace)))
	switch {
	case r.Doubt.deliverable():
		return Verdict{Reason: ReasonUnfamiliarKept, Again: now.Add(doubtRecheck)}
	case now.Before(overAt):
		return Verdict{Reason: ReasonUnderWay, Again: overAt}
	}
	return Verdict{Resolved: true, Reason: ReasonSpare}
}

func (pair) confirm(context.Context, *entry) (*TokenFacts, error) { return nil, nil }

func (pair) gone(ctx context.Context, e *entry) (bool, TokenFacts, error) {
	return e.isGone(ctx, e.record.Work.TokenID)
}

func (pair) keep(_ Token, r Record, facts TokenFacts, _ time.Time) Record {
	r.Spare = facts
	return r
}

// Owns reports whether id is the service token of t, or one of its two.
func (t Token) Owns(id string) bool { return id != "" && (id == t.ID || id == t.Partner) }

// other returns the other service token of a pair.
func (t Token) other(id string) string {
	if id == t.ID {
		return t.Partner
	}
	return t.ID
}

// isSpare reports whether that service token of t is the spare of a pair.
func (r Record) isSpare(t Token, id string) bool { return t.Partner != "" && id != r.TokenID }

// knownAs returns what is known of that service token of t. The facts have another ID, or none, if
// nothing is known of it.
func (r Record) knownAs(t Token, id string) TokenFacts {
	if r.isSpare(t, id) {
		return r.Spare
	}
	return r.Facts
}

// withFactsAs replaces what is known of that service token of t.
func (r Record) withFactsAs(t Token, id string, facts TokenFacts) Record {
	if r.isSpare(t, id) {
		r.Spare = facts
	} else {
		r.Facts = facts
	}
	return r
}

// ServiceTokens returns what is known of the service token, or of the two of a pair: the one in use first.
func (r Record) ServiceTokens() []TokenFacts {
	known := make([]TokenFacts, 0, 2)
	for _, facts := range []TokenFacts{r.Facts, r.Spare} {
		if facts.ID != "" {
			known = append(known, facts)
		}
	}
	return known
}

// FactsOf returns what is known of that service token; zero if nothing is.
func (r Record) FactsOf(tokenID string) TokenFacts {
	for _, facts := range r.ServiceTokens() {
		if facts.ID == tokenID {
			return facts
		}
	}
	return TokenFacts{}
}

// withServiceToken replaces what is known of the service token of that ID.
func (r Record) withServiceToken(id string, facts TokenFacts) Record {
	isFacts, isSpare := id == r.Facts.ID, id == r.Spare.ID
	if isFacts {
		r.Facts = facts
	}
	if isSpare { // both, if an edit of the configuration has left it in both places
		r.Spare = facts
	}
	return r
}

// withoutSpare forgets the spare of a pair that is a single token now, and reports whether there was one. It
// would be renewed for ever.
func (r Record) withoutSpare(t Token) (_ Record, changed bool) {
	if t.Partner != "" || r.Spare.ID == "" {
		return r, false
	}
	r.Spare = TokenFacts{}
	return r, true
}

// updatedAtForgotten forgets when the service token of the rotation was last changed, if only our own
// request can have changed it since. Otherwise our own change would look like a change by another person
// or program.
func (r Record) updatedAtForgotten() Record {
	work := r.Work
	for _, facts := range r.ServiceTokens() {
		if facts.ID == work.TokenID && facts.UpdatedAt.Equal(work.Before.UpdatedAt) {
			r = r.updatedAtVoid(facts.ID)
		}
	}
	return r
}
