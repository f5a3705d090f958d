package rotation

import (
	"context"
	"fmt"
)

// A pair is two service tokens behind one logical credential, both allowed by the same
// Access policy. Each rotation renews the one that is not in use and then switches the
// sinks to it. The one in use is never touched, so no crash, lost answer or second rotate
// can cut anybody off.

// Paired reports whether t is a pair.
func (t Token) Paired() bool { return t.Partner != "" }

// Owns reports whether id is the service token of t, or one of its two.
func (t Token) Owns(id string) bool { return id != "" && (id == t.ID || id == t.Partner) }

// other is the service token of a pair that id is not.
func (t Token) other(id string) string {
	if id == t.ID {
		return t.Partner
	}
	return t.ID
}

// chooseSpare decides which of the pair is rotated: the one whose credential no sink holds.
// What the sinks hold counts more than what the ledger remembers, since consumers read the
// sinks. Where they hold neither, the one in use is that of the last rotation, and before
// the first the one that stands first in the configuration.
func (a *attempt) chooseSpare(ctx context.Context) error {
	byClient := make(map[string]string, 2) // service tokens by client ID
	for _, id := range []string{a.token.ID, a.token.Partner} {
		facts, err := a.knownFacts(ctx, id)
		if err != nil {
			return err
		}
		byClient[facts.ClientID] = id
	}
	inUse, foundIn := "", ""
	for _, sink := range a.token.Sinks {
		id, known := byClient[a.record.Work.BeforeSink[sink.Name()].ClientID]
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
		inUse = a.record.TokenID
	}
	if a.token.Owns(a.record.TokenID) && inUse != a.record.TokenID {
		a.record.Facts, a.record.Spare = a.record.Spare, a.record.Facts
	}
	a.record.TokenID = inUse
	a.record.Work.TokenID, a.record.Work.Spare = a.token.other(inUse), true
	return nil
}

// knownFacts returns where the record keeps the facts of a service token, and asks for them
// if it has none yet.
func (a *attempt) knownFacts(ctx context.Context, id string) (*TokenFacts, error) {
	facts := &a.record.Facts
	if a.token.Paired() && id != a.record.TokenID {
		facts = &a.record.Spare
	}
	if facts.ID != id || facts.ClientID == "" || facts.UpdatedAt.IsZero() {
		asked, err := a.token.Issuer.Inspect(ctx, id)
		if err != nil {
			return nil, err
		}
		*facts = asked
	}
	return facts, nil
}

// switchToSpare ends a rotation of a pair: consumers now find the one that was the spare.
// The other keeps working until it is rotated, which the promised grace holds off.
func (a *attempt) switchToSpare() {
	a.record.Spare = a.record.Facts
	a.record.TokenID = a.record.Work.TokenID
	a.record.Last.GraceEndsAt = a.record.Last.At.Add(a.token.Grace)
}
