package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/failpoint"
	"rotatord/internal/moment"
)

// This file holds the chores of a token, which are done beside its rotations. The service token is renewed
// before it ends, and service tokens that were replaced are deleted. Chores are done while no rotation is
// in progress, except a renewal that cannot wait any longer. Each chore may be repeated, so it needs no
// steps of its own.

// Renewal is what is known about the renewals that failed in a row, and about the last one that succeeded.
type Renewal struct {
	At        time.Time `json:"at,omitzero"` // of the last renewal that succeeded
	Failures  int       `json:"failures,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	LastError string    `json:"last_error,omitempty"`
}

// NextChore returns when the next chore of a token is due; the zero time if there is none. Like [NextDue]
// it depends only on its arguments.
func NextChore(t Token, r Record) (next time.Time) {
	if r.Step != StepIdle {
		return renewsMeanwhile(t, r)
	}
	for _, old := range r.Replaced {
		next = moment.MinNonZero(next, moment.Max(old.At, old.NotBefore))
	}
	return moment.MinNonZero(next, RenewsAt(t, r))
}

// RenewsAt returns when to renew the service token, or the first of the two of a pair; the zero time for
// never.
func RenewsAt(t Token, r Record) (next time.Time) {
	for _, facts := range r.ServiceTokens() {
		if at := t.renewAt(facts); !at.IsZero() {
			next = moment.MinNonZero(next, moment.Max(at, r.Renewal.NotBefore))
		}
	}
	return next
}

// renewsMeanwhile returns when to renew the service token while a rotation is in progress, which can take
// weeks; zero for never. During a doubt the service token is not renewed until it is known whether the
// request was carried out. A renewal moves updated_at, and updated_at may still show whether the request
// was carried out.
func renewsMeanwhile(t Token, r Record) (next time.Time) {
	switch {
	case r.Step == StepSealed || r.Step == StepStored:
		// This rotation replaces the service token that consumers use, or others have changed it.
		if r.Work.strategy().traits().creates || r.Work.Overtaken != nil {
			return time.Time{}
		}
	case r.Step == StepInDoubt && (r.Doubt.CarriedOut || r.Doubt.Answered()) && !r.Work.LeavesCurrentInUse():
	default:
		return time.Time{}
	}
	for _, facts := range r.ServiceTokens() {
		if at := t.renewMeanwhileAt(facts); !at.IsZero() {
			next = moment.MinNonZero(next, moment.Max(at, r.Renewal.NotBefore))
		}
	}
	return next
}

// renewAt returns when to renew a service token; zero for never.
func (t Token) renewAt(f TokenFacts) time.Time {
	if t.RenewBefore == 0 || f.ID == "" || f.ExpiresAt.IsZero() || f.Duration == forever {
		return time.Time{}
	}
	return f.ExpiresAt.Add(-t.RenewBefore)
}

// renewMeanwhileAt returns renewAt for the time while a rotation is in progress: when a quarter of
// RenewBefore is left.
func (t Token) renewMeanwhileAt(f TokenFacts) time.Time {
	at := t.renewAt(f)
	if at.IsZero() {
		return at
	}
	return at.Add(t.RenewBefore * 3 / 4)
}

// forever is the duration of a service token that does not end.
const forever = "forever"

// runChores does the chores that are due by now, and reports whether there were any.
func (e *entry) runChores(ctx context.Context) (did bool, err error) {
	next := NextChore(e.token, e.record)
	if next.IsZero() || next.After(e.now()) {
		return false, nil
	}
	if err := e.mustHold(ctx); err != nil {
		return true, err
	}
	if e.record.Step == StepIdle {
		return true, errors.Join(e.deleteReplaced(ctx), e.renew(ctx))
	}
	// A rotation is in progress. A peer that hangs must not delay it.
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return true, e.renew(ctx)
}

// deleteReplaced deletes the replaced service tokens whose time to be deleted has come.
func (e *entry) deleteReplaced(ctx context.Context) error {
	var left []Replaced
	var errs []error
	now := e.now().UTC()
	for _, old := range e.record.Replaced {
		if moment.Max(old.At, old.NotBefore).After(now) {
			left = append(left, old)
			continue
		}
		old, err := e.deleteOne(ctx, old)
		if err != nil && ctx.Err() != nil { // the daemon stops, and nothing has failed
			left = append(left, old)
			errs = append(errs, ctx.Err())
			continue
		}
		e.tell(event.Deletion{TokenID: old.TokenID, Err: err})
		if err != nil {
			left = append(left, old.failed(err, now))
			errs = append(errs, fmt.Errorf("deleting the service token %s that was replaced: %w", old.TokenID, err))
		}
	}
	return errors.Join(errors.Join(errs...), e.become(ctx, e.record.withReplaced(left)))
}

// deleteOne deletes a service token that was replaced, unless a sink holds its credential, because
// consumers read the sinks. A sink can hold a credential that the ledger does not expect there: the answer
// could not be sealed and was delivered from memory, or a person put the credential back. It returns old
// with what is known about it now.
func (e *entry) deleteOne(ctx context.Context, old Replaced) (Replaced, error) {
	if old.TokenID == e.record.TokenID {
		return old, errors.New("this service token is in use")
	}
	if old.ClientID == "" {
		gone, facts, err := e.isGone(ctx, old.TokenID)
		if gone || err != nil {
			return old, err
		}
		old = old.withClientID(facts.ClientID)
	}
	for _, sink := range e.token.Sinks {
		bounded, cancel := context.WithTimeout(ctx, storeTimeout)
		stored, err := sink.Preflight(bounded)
		cancel()
		switch {
		case err != nil:
			return old, fmt.Errorf("sink %s does not say whether consumers still find it there: %w", sink.Name(), err)
		case stored.ClientID == old.ClientID:
			return old, fmt.Errorf("sink %s still holds it, and it is not deleted until a rotation has written another one", sink.Name())
		}
	}
	if old.Promised {
		if err := e.token.Issuer.Ready(ctx); err != nil { // ErrClock among others
			return old, err
		}
	}
	if err := e.recorded(ctx, event.RequestLeaving{Operation: "delete", TokenID: old.TokenID}); err != nil {
		return old, err
	}
	failpoint.Reach("delete.before")
	defer failpoint.Reach("delete.after")
	return old, e.token.Creator.Delete(ctx, old.TokenID)
}

// renew renews the service tokens that are about to end. It never shortens the life of a service token.
func (e *entry) renew(ctx context.Context) error {
	var errs []error
	due, now, next := false, e.now().UTC(), e.record
	for _, facts := range e.record.ServiceTokens() {
		at := e.token.renewAt(facts)
		if e.record.Step != StepIdle {
			at = e.token.renewMeanwhileAt(facts)
		}
		if at.IsZero() || moment.Max(at, next.Renewal.NotBefore).After(now) {
			continue
		}
		due = true
		ctx := ctx
		if facts.ExpiresAt.Sub(now) <= EmergencyAhead {
			ctx = WithUrgency(ctx, UrgencyEmergency)
		}
		renewal := renewal{entry: e, record: next, id: facts.ID}
		err := renewal.run(ctx)
		switch next = renewal.record; {
		case err == nil:
			next = next.renewed(now)
		case ctx.Err() != nil: // the daemon stops, and nothing has failed
			errs = append(errs, err)
		default:
			next = next.renewalFailed(err, next.nextRenewal(e.token, err, e.now().UTC()))
			errs = append(errs, fmt.Errorf("renewing the service token %s: %w", facts.ID, err))
		}
	}
	if !due {
		return nil
	}
	return errors.Join(errors.Join(errs...), e.become(ctx, next))
}

// nextRenewal returns when to try a failed renewal again. The two service tokens of a pair have one wait,
// so the first end decides.
func (r Record) nextRenewal(t Token, cause error, now time.Time) time.Time {
	failures, atEnd := r.Renewal.Failures+1, EmergencyWait
	if e, isIssuers := errors.AsType[*IssuerError](cause); !isIssuers || e.Class == Refused { // a person has to change something first
		atEnd = refusedWait
	}
	end := time.Time{}
	for _, facts := range r.ServiceTokens() {
		if !t.renewAt(facts).IsZero() {
			end = moment.MinNonZero(end, facts.ExpiresAt)
		}
	}
	if errors.Is(cause, errStillNear) { // it was renewed, so it will not end before the renewed time
		return now.Add(min(choreBackOff(failures), max(end.Sub(now)/2, atEnd)))
	}
	return now.Add(renewalBackOff(failures, end.Sub(now), atEnd))
}

// renewal is the renewal of one service token. record has what is known after it.
type renewal struct {
	*entry
	record Record
	id     string
}

// facts returns what is known about the service token.
func (w *renewal) facts() TokenFacts { return w.record.FactsOf(w.id) }

// run renews the service token. It reads the service token first: a listing may be hours old, and since
// then a person may have given the service token more time, or an unlimited life.
func (w *renewal) run(ctx context.Context) (err error) {
	defer func() {
		if err == nil || ctx.Err() == nil {
			w.tell(event.Renewal{TokenID: w.id, ExpiresAt: w.facts().ExpiresAt, Err: err})
		}
	}()
	now, err := w.token.Issuer.Inspect(ctx, w.id)
	if err != nil {
		return err
	}
	w.look(now)
	facts := w.facts()
	if at := w.token.renewAt(facts); at.IsZero() || at.After(w.now()) {
		return nil
	}
	if d, isDuration := w.token.renewFor(); isDuration && !w.now().Add(d).After(facts.ExpiresAt) {
		return fmt.Errorf("renewing it for %s would shorten its life, which lasts until %s: give it a longer renew_for", d, facts.ExpiresAt.Format(time.RFC3339))
	}
	renewed, err := w.token.Renewer.Renew(ctx, w.id, w.token.RenewFor)
	if err != nil {
		if classOf(err) == Unknown { // it may have moved updated_at
			w.record = w.record.updatedAtVoid(w.id)
		}
		return err
	}
	before := facts.ExpiresAt
	w.record = w.record.renewalSeen(w.id, renewed)
	facts = w.facts()
	if !facts.ExpiresAt.After(before) {
		return fmt.Errorf("it was renewed, and still ends at %s", facts.ExpiresAt.Format(time.RFC3339))
	}
	if at := w.token.renewAt(facts); !at.IsZero() && !at.After(w.now()) { // it would be renewed without end
		return fmt.Errorf("it was renewed, and ends at %s, %w: make that shorter, or renew_for longer",
			facts.ExpiresAt.Format(time.RFC3339), errStillNear)
	}
	return nil
}

// look records what Cloudflare shows of the service token before the renewal.
func (w *renewal) look(now TokenFacts) {
	if work := w.record.Work; work != nil && work.TokenID == w.id { // our own request has changed it since
		if w.record.Step == StepSealed && work.changedByOthers(now) {
			w.record = w.record.changeSeen(now.UpdatedAt.UTC())
		}
		w.record = w.record.withServiceToken(w.id, now)
		return
	}
	next, news := w.record.withServiceToken(w.id, now).noticed(w.token, w.facts(), now, w.now().UTC())
	if w.record = next; news != nil {
		w.Rotator.tell(w.token.Name, event.Actor{Cause: event.ByOutside}, news)
	}
}

// errStillNear is in the error of a renewal that succeeded but has to be repeated soon.
var errStillNear = errors.New("which is within renew_before again")

// renewFor returns how long a renewal lasts. ok is false if no duration is configured: then a renewal
// lasts a year.
func (t Token) renewFor() (d time.Duration, ok bool) {
	if t.RenewFor == "" {
		return 0, false
	}
	d, err := time.ParseDuration(t.RenewFor)
	return d, err == nil
}
