package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/failpoint"
	"rotatord/internal/moment"
)

// fresh is the strategy of service tokens that rotatord creates: the first one of an entry with a Creation
// and, for replace, one for each rotation. The rotation does not touch what consumers use until then, so a
// doubt about the request never cuts a consumer off. The doubt is resolved by the name: it shows whether a
// service token was created. The lost secret of that service token is not needed.
type fresh struct{}

func (fresh) traits() traits { return traits{name: Fresh, leavesCurrentInUse: true, creates: true} }

// NewName returns the name of the service token that the rotation creates; empty if it creates none.
func (w *Work) NewName() string { return w.CreateName }

// plan names the service token that is to be created. The first one has exactly the name that the
// configuration gives. One that replaces another gets a different name, so that the two can be told apart.
func (fresh) plan(t Token, r Record, w Work) Work {
	if t.Uncreated(r) {
		w.CreateName = t.Create.Name
		return w
	}
	name := t.Name
	if t.Create != nil {
		name = t.Create.Name
	} else if r.Facts.Name != "" {
		name = r.Facts.Name
		if last := r.Last; last != nil { // the last rotation may have added its suffix
			name = strings.TrimSuffix(name, suffix(last.RotationID))
		}
	}
	if base := []rune(name); len(base) > maxBase {
		name = string(base[:maxBase])
	}
	w.CreateName = name + suffix(w.RotationID)
	return w
}

// maxBase bounds a name, in characters: with its suffix it is shorter than a configured one may be.
const maxBase = 240

// suffix returns the end of the name of a service token that replaces another one.
func suffix(rotationID string) string {
	return "-" + strings.ToLower(rotationID[:min(len(rotationID), 10)])
}

// errAdopted ends an attempt that found the service token which it was to create.
var errAdopted = errors.New("a service token of that name was adopted")

// prepare proves that the request will not create a second service token with the same name. It returns
// errAdopted if the service token exists already and was adopted.
func (f fresh) prepare(ctx context.Context, e *entry) error {
	name, create := e.record.Work.CreateName, e.token.Create
	if create == nil || e.record.TokenID != "" {
		return nil // no other service token has the name that a replacement gets
	}
	found, err := f.find(ctx, e, name)
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return nil
	case !create.Adopt:
		return fmt.Errorf("a service token named %q exists already (%s), and no second one is created: write id: %s in place of create, "+
			"or adopt: true to take it over, or choose another name", name, listIDs(found), found[0].ID)
	case len(found) > 1:
		return fmt.Errorf("%d service tokens are named %q (%s), and it is not known which to adopt: write the id of one in place of create",
			len(found), name, listIDs(found))
	}
	e.observe(e.record.adopted(found[0]))
	return errAdopted
}

// adopted takes over a service token that exists. Its secret is not known: it is rotated in its first
// slot, as for any other service token that exists.
func (r Record) adopted(facts TokenFacts) Record {
	r.TokenID, r.Facts = facts.ID, facts
	return r
}

// adopt ends the attempt with the service token that it found.
func (a *attempt) adopt(ctx context.Context) error {
	if err := a.release(ctx); err != nil {
		return err
	}
	a.tell(event.Adoption{TokenID: a.record.TokenID})
	return nil
}

// request creates the service token. It lives as long as configured, or as long as the one that it
// replaces.
func (fresh) request(ctx context.Context, e *entry) (Issued, error) {
	lifetime := cmp.Or(e.token.RenewFor, e.record.Facts.Duration)
	if e.token.Create != nil {
		lifetime = e.token.Create.Duration
	}
	return e.token.Creator.Create(ctx, CreateRequest{Name: e.record.Work.CreateName, Duration: lifetime})
}

// identify finds the ID of the service token by its name: an answer that was cut off may have the secret
// and not the ID.
func (f fresh) identify(ctx context.Context, e *entry, issued Issued) error {
	work := e.record.Work
	if work.TokenID != "" {
		return nil
	}
	found, err := f.find(ctx, e, work.CreateName)
	if err != nil {
		return fmt.Errorf("asking for the ID of the service token that was created: %w", err)
	}
	for _, facts := range found {
		if facts.ClientID == issued.ClientID {
			e.observe(e.record.withWork(func(w *Work) { w.TokenID, w.After = facts.ID, facts }))
			return nil
		}
	}
	return fmt.Errorf("there is no service token %q with the client ID of the answer yet", work.CreateName)
}

// finish makes the new service token the one in use. The service token that it replaces is deleted when
// the grace is over.
func (fresh) finish(t Token, r Record) Record {
	work, promised := r.Work, false
	end := r.Last.At
	if work.Grace > 0 { // on the issuer's clock too, since ours may have been behind
		if created := work.After.CreatedAt.UTC(); created.After(end) && created.Sub(end) <= MaxGrace { // else no clock shows it
			end = created
		}
		end = end.Add(time.Duration(work.Grace))
	}
	r.Replaced = slices.Clone(r.Replaced)
	for i, old := range r.Replaced { // one that was kept because it was found in a sink
		if old.ClientID != "" && work.foundBefore(old.ClientID) {
			r.Replaced[i] = old.deletedAt(end, work.Grace > 0)
			promised = true
		}
	}
	if old := r.TokenID; old != "" && old != work.TokenID {
		r.Replaced = append(r.Replaced, Replaced{TokenID: old, ClientID: r.Facts.clientOf(old), At: end, Promised: work.Grace > 0})
		promised = true
	}
	if r.revokes() && work.Grace == 0 { // a thief of the old secret may have those before it
		for i, old := range r.Replaced {
			r.Replaced[i] = old.deletedAt(end, false)
		}
	}
	if promised && work.Grace > 0 {
		r = r.previousWorksUntil(end)
	} else if promised {
		r = r.previousWorksUntil(time.Time{})
	}
	r.TokenID, r.Renewal, r.Facts = work.TokenID, Renewal{}, work.After
	r.Facts.ID = work.TokenID
	return r
}

// foundBefore reports whether a sink held that client ID before the rotation.
func (w *Work) foundBefore(clientID string) bool {
	for _, stored := range w.BeforeSink {
		if stored.ClientID == clientID {
			return true
		}
	}
	return false
}

// clientOf returns the client ID if the facts are about that service token; otherwise empty.
func (f TokenFacts) clientOf(id string) string {
	if f.ID != id {
		return ""
	}
	return f.ClientID
}

// look asks whether the service token was created.
func (f fresh) look(ctx context.Context, e *entry, _ bool) (Evidence, error) {
	created, err := f.findCreated(ctx, e)
	return Evidence{Created: created, Looked: err == nil, Unread: err != nil && !errors.Is(err, ErrGone)}, err
}

// findCreated returns the service token that the request in doubt has created; nil if there is none.
func (f fresh) findCreated(ctx context.Context, e *entry) (*TokenFacts, error) {
	name := e.record.Work.CreateName
	found, err := f.find(ctx, e, name)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	if len(found) > 1 {
		return nil, fmt.Errorf("%d service tokens are named %q (%s), although at most one was created: delete those that are not used",
			len(found), name, listIDs(found))
	}
	e.observe(e.record.shownCarriedOut(true))
	return &found[0], nil
}

// confirm looks for the service token before a person's decision ends the doubt. A service token that may
// still be created, or that exists but cannot be seen, would be left behind: its name is not searched for
// again.
func (f fresh) confirm(ctx context.Context, e *entry) (*TokenFacts, error) {
	d, name := e.record.Doubt, e.record.Work.CreateName
	overAt := d.Since.Add(underWayFor(time.Duration(e.record.Work.Grace)))
	if !d.Answered() && e.now().Before(overAt) {
		return nil, fmt.Errorf("%w: the request to create %q may still be under way until %s. What consumers use still works: wait until then, and look with rotatord resolve %s",
			ErrUnfit, name, overAt.Format(time.RFC3339), e.token.Name)
	}
	created, err := f.findCreated(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be seen whether %q was created, and what consumers use still works: %w. Look again with rotatord resolve %s", ErrUnfit, name, err, e.token.Name)
	}
	return created, nil
}

func (fresh) judge(r Record, e Evidence, now time.Time) Verdict {
	d := r.Doubt
	overAt := d.Since.Add(underWayFor(time.Duration(r.Work.Grace)))
	switch {
	case d.Sealed && d.Reason == ReasonOddAnswer && e.Created != nil && e.Created.ID == r.Work.TokenID && e.Created.ClientID == r.Work.After.ClientID:
		// Cloudflare has what the answer said: whatever was odd about it, the secret is the first one.
		return Verdict{Resolved: true, Deliver: true, CarriedOut: true, Reason: ReasonCreatedAndSealed}
	case d.Reason == ReasonOddAnswer && now.Before(overAt):
		return Verdict{Reason: ReasonUnderWay, CarriedOut: e.Created != nil, Again: overAt}
	case d.deliverable() && (r.Order == nil || !r.Order.RevokeNow):
		return Verdict{Reason: ReasonUnfamiliarKept, Again: now.Add(doubtRecheck)}
	case now.Before(overAt):
		return Verdict{Reason: ReasonUnderWay, CarriedOut: e.Created != nil, Again: overAt}
	case e.Created != nil:
		return Verdict{Resolved: true, CarriedOut: true, Reason: ReasonCreatedAndLost}
	case !e.Looked:
		return Verdict{Reason: ReasonCannotLook, Again: now.Add(underWayTime)}
	default:
		return Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonNotCreated}
	}
}

// gone searches by name while it is not known yet which service token the answer is about.
func (f fresh) gone(ctx context.Context, e *entry) (bool, TokenFacts, error) {
	work := e.record.Work
	if work.TokenID != "" {
		return e.isGone(ctx, work.TokenID)
	}
	found, err := f.find(ctx, e, work.CreateName)
	if err != nil || len(found) == 0 {
		return err == nil, TokenFacts{}, err
	}
	issued, ok, err := e.pending.Open(ctx, work.RotationID)
	ours := func(facts TokenFacts) bool { return facts.ClientID == issued.ClientID }
	return err == nil && ok && !slices.ContainsFunc(found, ours), TokenFacts{}, err
}

func (fresh) keep(t Token, r Record, facts TokenFacts, now time.Time) Record {
	if r.Work.TokenID == "" {
		return r
	}
	facts.ID = r.Work.TokenID
	return r.createdKept(t, facts, now)
}

// createdKept records a created service token whose secret was lost. The first one of an entry is still
// useful: a rotation will give it a secret. One that was to replace another is deleted, and one that
// cannot be rotated is deleted too.
func (r Record) createdKept(t Token, created TokenFacts, now time.Time) Record {
	if r.TokenID == "" && !t.Replace {
		return r.adopted(created)
	}
	r.Replaced = slices.Clone(r.Replaced)
	if grace := time.Duration(r.Work.Grace); grace > 0 {
		for i, old := range r.Replaced { // the lost secret may have taken its place in a sink until now
			if old.ClientID != "" && r.Work.foundBefore(old.ClientID) {
				r.Replaced[i] = old.deletedAt(moment.Max(old.At, now.Add(grace)), true)
			}
		}
	}
	r.Replaced = append(r.Replaced, Replaced{TokenID: created.ID, ClientID: created.ClientID, At: now})
	return r
}

// find asks which service tokens have that name. It leaves out those that will be deleted because their
// secret was lost.
func (fresh) find(ctx context.Context, e *entry, name string) ([]TokenFacts, error) {
	failpoint.Reach("find.before")
	found, err := e.token.Creator.Find(ctx, name)
	failpoint.Reach("find.after")
	found = slices.DeleteFunc(found, func(f TokenFacts) bool {
		return slices.ContainsFunc(e.record.Replaced, func(r Replaced) bool { return r.TokenID == f.ID })
	})
	return found, err
}

func listIDs(all []TokenFacts) string {
	var ids []string
	for _, f := range all {
		ids = append(ids, f.ID)
	}
	return strings.Join(ids, ", ")
}
