package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rotatord/internal/failpoint"
)

// This file holds service tokens that rotatord makes: the first one of an entry with a
// Creation, and of strategy replace one for each rotation. They go through the same steps as
// a rotate, with one create request in its place. What consumers use meanwhile is not touched,
// so a doubt about such a request never cuts anybody off, and it is settled by the name: what
// was made can be found by it, and its lost secret is of use to nobody.

// Replaced is a service token whose place another one took.
type Replaced struct {
	TokenID string `json:"token_id"`
	// ClientID is by which it is recognized in a sink; empty if that is not known yet.
	ClientID string    `json:"client_id,omitempty"`
	At       time.Time `json:"at"` // when it is to be deleted: at the end of the grace
	// Promised is set if consumers were promised it until then: a clock that is wrong does not end
	// that.
	Promised bool `json:"promised,omitempty"`
	// Failures counts the deletions that failed in a row, NotBefore is when the next may be
	// tried, and LastError says what went wrong.
	Failures  int       `json:"failures,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	LastError string    `json:"last_error,omitempty"`
}

// LedgerHasID reports whether the ledger, and not the configuration, knows which service token it is.
func (t Token) LedgerHasID() bool { return t.Create != nil || t.Replace }

// Uncreated reports whether the service token is still to be made, for the first time.
func (t Token) Uncreated(r Record) bool { return t.Create != nil && r.TokenID == "" }

// Origin is what the configuration names a token by that is not a pair.
func (t Token) Origin() string {
	if t.Create != nil {
		return "made as " + t.Create.Name
	}
	return t.ID
}

// MatchesRecord reports whether r is a record of the service token, or one of the two, that t is about.
func (t Token) MatchesRecord(r Record) bool {
	return t.Owns(r.TokenID) || t.LedgerHasID() && r.Origin == t.Origin()
}

// MatchesRotation reports whether the rotation in hand that r holds is one of t.
func (t Token) MatchesRotation(r Record) bool {
	if t.LedgerHasID() {
		return t.MatchesRecord(r)
	}
	return t.Owns(r.Work.TokenID)
}

// ServiceToken is the UUID that a rotation works on, given what the ledger knows; empty if it
// is yet to be made. Of a pair it is the one that stands first.
func (t Token) ServiceToken(r Record) string {
	if t.LedgerHasID() {
		return r.TokenID
	}
	return t.ID
}

// makes is the name of the service token that the rotation which begins now is to make; empty
// if it is to rotate one. The first has exactly the name that the configuration gives. Those
// that take its place have one of their own each, so that they can be told apart.
func (a *attempt) makes(rotationID string) string {
	t := a.token
	switch {
	case t.Uncreated(a.record):
		return t.Create.Name
	case !t.Replace:
		return ""
	}
	name := t.Name
	if t.Create != nil {
		name = t.Create.Name
	} else if a.record.Facts.Name != "" {
		name = a.record.Facts.Name
		if last := a.record.Last; last != nil { // which gave it the suffix that it has, if it has one
			name = strings.TrimSuffix(name, suffix(last.RotationID))
		}
	}
	if base := []rune(name); len(base) > maxBase {
		name = string(base[:maxBase])
	}
	return name + suffix(rotationID)
}

// maxBase bounds a name, in characters: with its suffix it is below what a configured one may have.
const maxBase = 240

// suffix is that of the name of a service token which a rotation puts in another one's place.
func suffix(rotationID string) string {
	return "-" + strings.ToLower(rotationID[:min(len(rotationID), 10)])
}

// find asks which service tokens have that name. Those whose secret was lost, and which are yet to
// be deleted, are left out.
func (a *attempt) find(ctx context.Context, name string) ([]TokenFacts, error) {
	failpoint.Reach("find.before")
	found, err := a.token.Creator.Find(ctx, name)
	failpoint.Reach("find.after")
	found = slices.DeleteFunc(found, func(f TokenFacts) bool {
		return slices.ContainsFunc(a.record.Replaced, func(r Replaced) bool { return r.TokenID == f.ID })
	})
	return found, err
}

// errAdopted ends an attempt that found the service token which it was to make.
var errAdopted = errors.New("a service token of that name was adopted")

// mayMake proves that making the service token makes no second one. It returns errAdopted if
// it is there and was taken over.
func (a *attempt) mayMake(ctx context.Context) error {
	work, create := a.record.Work, a.token.Create
	if create == nil || a.record.TokenID != "" {
		return nil // the name that a replacement gets is nobody else's
	}
	found, err := a.find(ctx, work.CreateName)
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return nil
	case !create.Adopt:
		return fmt.Errorf("a service token named %q is there already (%s), and none is made beside it: write id: %s in place of create, "+
			"or adopt: true to take it over, or choose another name", work.CreateName, listIDs(found), found[0].ID)
	case len(found) > 1:
		return fmt.Errorf("%d service tokens are named %q (%s), and it is not known which to adopt: write the id of one in place of create",
			len(found), work.CreateName, listIDs(found))
	}
	a.record.TokenID, a.record.Facts = found[0].ID, found[0]
	return errAdopted
}

func listIDs(all []TokenFacts) string {
	var ids []string
	for _, f := range all {
		ids = append(ids, f.ID)
	}
	return strings.Join(ids, ", ")
}

// adopt ends the attempt with the service token that it found. Its secret is not known: like
// that of any other token that exists, it is rotated in its first slot.
func (a *attempt) adopt(ctx context.Context) error {
	if err := a.release(ctx); err != nil {
		return err
	}
	a.tell(Adopted{Token: a.token.Name, TokenID: a.record.TokenID})
	return nil
}

// request sends the one request of a rotation.
func (a *attempt) request(ctx context.Context) (Issued, error) {
	work := a.record.Work
	if work.CreateName == "" {
		return a.token.Issuer.Rotate(ctx, RotateRequest{TokenID: work.TokenID, ClientID: work.Before.ClientID, Grace: time.Duration(work.Grace)})
	}
	return a.token.Creator.Create(ctx, CreateRequest{Name: work.CreateName, Duration: a.lifetime()})
}

// lifetime is how long a service token lives that is made now: as configured, or as long as
// the one whose place it takes.
func (a *attempt) lifetime() string {
	if a.token.Create != nil {
		return a.token.Create.Duration
	}
	return cmp.Or(a.token.RenewFor, a.record.Facts.Duration)
}

// identifyMade notes which service token was made, where that is not known yet. An answer that was
// cut off may have the secret and not the ID; the name tells it.
func (a *attempt) identifyMade(ctx context.Context, issued Issued) error {
	work := a.record.Work
	if work.TokenID != "" {
		return nil
	}
	found, err := a.find(ctx, work.CreateName)
	if err != nil {
		return fmt.Errorf("asking for the ID of the service token that was made: %w", err)
	}
	for _, f := range found {
		if f.ClientID == issued.ClientID {
			work.TokenID, work.After = f.ID, f
			return nil
		}
	}
	return fmt.Errorf("there is no service token %q with the client ID of the answer yet", work.CreateName)
}

// takePlace ends a rotation that has made a service token: consumers now find that one. The
// one whose place it took is deleted when the grace is over.
func (a *attempt) takePlace() {
	work, promised := a.record.Work, false
	at := a.record.Last.At
	if work.Grace > 0 { // on the issuer's clock too, since ours may have been behind
		if made := work.After.CreatedAt.UTC(); made.After(at) && made.Sub(at) <= MaxGrace { // else no clock shows it
			at = made
		}
		at = at.Add(time.Duration(work.Grace))
	}
	for i := range a.record.Replaced { // one that was kept because it was found in a sink
		if r := &a.record.Replaced[i]; r.ClientID != "" && work.found(r.ClientID) {
			r.At, r.NotBefore, r.Promised = at, time.Time{}, work.Grace > 0
			promised = true
		}
	}
	if old := a.record.TokenID; old != "" && old != work.TokenID {
		a.record.Replaced = append(a.record.Replaced, Replaced{TokenID: old, ClientID: a.record.Facts.clientOf(old), At: at, Promised: work.Grace > 0})
		promised = true
	}
	if o := a.record.Order; o != nil && o.RevokeNow && work.Grace == 0 { // whoever has the old secret may have those before it
		for i := range a.record.Replaced {
			r := &a.record.Replaced[i]
			r.At, r.NotBefore, r.Promised = at, time.Time{}, false
		}
	}
	if promised {
		a.record.Last.GraceEndsAt = time.Time{}
		if work.Grace > 0 {
			a.record.Last.GraceEndsAt = at
		}
	}
	a.record.TokenID, a.record.Renewal = work.TokenID, Renewal{}
}

// found reports whether a sink held that client ID before the rotation.
func (w *Work) found(clientID string) bool {
	for _, stored := range w.BeforeSink {
		if stored.ClientID == clientID {
			return true
		}
	}
	return false
}

// clientOf is the client ID if the facts are those of that service token, else empty.
func (f TokenFacts) clientOf(id string) string {
	if f.ID != id {
		return ""
	}
	return f.ClientID
}

// lookForMade asks whether the service token of a doubt was made.
func (a *attempt) lookForMade(ctx context.Context) (found *TokenFacts, err error) {
	work := a.record.Work
	all, err := a.find(ctx, work.CreateName)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	if len(all) > 1 {
		return nil, fmt.Errorf("%d service tokens are named %q (%s), although one at most was made: delete those that nobody uses",
			len(all), work.CreateName, listIDs(all))
	}
	a.record.Doubt.CarriedOut = true
	return &all[0], nil
}

// seekMade does so before a doubt ends by an operator's word. What may yet be made, or may be there
// and cannot be seen, would be left behind with a name that nobody looks for any more.
func (a *attempt) seekMade(ctx context.Context) (err error) {
	d := a.record.Doubt
	if settled := d.Since.Add(settleFor(time.Duration(a.record.Work.Grace))); !d.Answered() && a.now().Before(settled) {
		return fmt.Errorf("%w: the request to make %q may still be under way until %s. What consumers use works on: wait until then, and look with rotatord resolve %s",
			ErrUnfit, a.record.Work.CreateName, settled.Format(time.RFC3339), a.token.Name)
	}
	if a.made, err = a.lookForMade(ctx); err != nil {
		return fmt.Errorf("%w: it cannot be seen whether %q was made, and what consumers use works on: %w. Look again with rotatord resolve %s", ErrUnfit, a.record.Work.CreateName, err, a.token.Name)
	}
	return nil
}

// keepMade makes of a service token whose secret was lost what is of most use: the first of its
// entry is kept, and gets a secret by a rotation; one that was to take another's place is
// deleted, and so is one that cannot be rotated.
func (a *attempt) keepMade(made TokenFacts) {
	if a.record.TokenID == "" && !a.token.Replace {
		a.record.TokenID, a.record.Facts = made.ID, made
		return
	}
	a.record.Replaced = append(a.record.Replaced, Replaced{TokenID: made.ID, ClientID: made.ClientID, At: a.now().UTC()})
}

// judgeMade decides about a doubt whose request was to make a service token.
func judgeMade(r Record, e Evidence, now time.Time) Verdict {
	d := r.Doubt
	settled := d.Since.Add(settleFor(time.Duration(r.Work.Grace)))
	switch {
	case d.Sealed && d.Reason == ReasonOddAnswer && e.Created != nil && e.Created.ID == r.Work.TokenID && e.Created.ClientID == r.Work.After.ClientID:
		// Cloudflare has what the answer said: whatever spoke against it, the secret is the first one.
		return Verdict{Resolved: true, Deliver: true, CarriedOut: true, Reason: ReasonCreatedAndSealed}
	case d.Reason == ReasonOddAnswer && now.Before(settled):
		return Verdict{Reason: ReasonUnderWay, CarriedOut: e.Created != nil, Again: settled}
	case d.deliverable() && (r.Order == nil || !r.Order.RevokeNow):
		return Verdict{Reason: ReasonUnfamiliarKept, Again: now.Add(doubtRecheck)}
	case now.Before(settled):
		return Verdict{Reason: ReasonUnderWay, CarriedOut: e.Created != nil, Again: settled}
	case e.Created != nil:
		return Verdict{Resolved: true, CarriedOut: true, Reason: ReasonCreatedAndLost}
	case !e.Looked:
		return Verdict{Reason: ReasonCannotLook, Again: now.Add(settleTime)}
	default:
		return Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonNotCreated}
	}
}
