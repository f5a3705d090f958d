package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/failpoint"
)

// This file holds what is done for a token beside its rotations: the service token itself is
// renewed before it ends, and those whose place others took are deleted. It is done while no
// rotation is in hand, but for a renewal that cannot wait any longer. Each may be repeated, so neither needs steps of its own.

// Renewal is what is known of renewals that fail, and of the last that did not.
type Renewal struct {
	At        time.Time `json:"at,omitzero"` // of the last that succeeded
	Failures  int       `json:"failures,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	LastError string    `json:"last_error,omitempty"`
}

// maxChoreBackOff is the longest wait after a chore that failed: it is tried again for as long
// as it takes.
const maxChoreBackOff = time.Hour

func choreBackOff(failures int) time.Duration {
	return min(BackOff(failures)<<min(max(failures-8, 0), 3), maxChoreBackOff)
}

// After the end of a service token that could not be renewed it is tried every few seconds for lateRenewal,
// and then every lateRenewalWait: all its consumers are locked out.
const (
	lateRenewal     = 10 * time.Minute
	lateRenewalWait = 30 * time.Second
)

// renewalBackOff is how long to wait after a renewal that failed, of a service token that ends in left. The
// closer the end, the denser the tries; soon is the wait at the end itself.
func renewalBackOff(failures int, left, soon time.Duration) time.Duration {
	wait := choreBackOff(failures)
	switch {
	case left < -lateRenewal:
		return min(wait, lateRenewalWait)
	case left <= EmergencyAhead:
		return min(wait, soon)
	}
	return min(wait, max(left/8, soon))
}

// NextChore is when there is something to be done for a token beside its rotations; the zero
// time if there is nothing. Like [NextDue] it depends on its arguments alone.
func NextChore(t Token, r Record) time.Time {
	if r.Step != StepIdle {
		return renewsMeanwhile(t, r)
	}
	next := time.Time{}
	for _, replaced := range r.Replaced {
		next = sooner(next, later(replaced.At, replaced.NotBefore))
	}
	if at := RenewsAt(t, r); !at.IsZero() {
		next = sooner(next, at)
	}
	return next
}

// RenewsAt is when the service token, or one of the two of a pair, is to be renewed; the zero
// time if never.
func RenewsAt(t Token, r Record) (next time.Time) {
	for _, facts := range []TokenFacts{r.Facts, r.Spare} {
		if at := t.renewAt(facts); !at.IsZero() {
			next = sooner(next, later(at, r.Renewal.NotBefore))
		}
	}
	return next
}

// renewsMeanwhile is when the service token is to be renewed while a rotation is in progress, which can take
// weeks: when a quarter of renew_before is left. Zero if never. While nobody knows whether the request of a doubt
// was carried out it is not renewed, because that moves updated_at, which may yet show it.
func renewsMeanwhile(t Token, r Record) (next time.Time) {
	switch {
	case r.Step == StepSealed || r.Step == StepStored:
		if r.Work.CreateName != "" || r.Work.Overtaken != nil { // what consumers find is replaced, or changed by others
			return time.Time{}
		}
	case r.Step == StepInDoubt && (r.Doubt.CarriedOut || r.Doubt.Answered()) && !r.Work.LeavesCurrentInUse():
	default:
		return time.Time{}
	}
	for _, facts := range []TokenFacts{r.Facts, r.Spare} {
		if at := t.renewAt(facts); !at.IsZero() {
			next = sooner(next, later(at.Add(t.RenewBefore*3/4), r.Renewal.NotBefore))
		}
	}
	return next
}

// renewAt is when a service token is to be renewed; zero if never.
func (t Token) renewAt(f TokenFacts) time.Time {
	if t.RenewBefore == 0 || f.ID == "" || f.ExpiresAt.IsZero() || f.Duration == forever {
		return time.Time{}
	}
	return f.ExpiresAt.Add(-t.RenewBefore)
}

// forever is the duration of a service token that does not end.
const forever = "forever"

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// chores does what is to be done by now, and reports whether there was any.
func (a *attempt) chores(ctx context.Context) (any bool, err error) {
	next := NextChore(a.token, a.record)
	if next.IsZero() || next.After(a.now()) {
		return false, nil
	}
	if a.record.Step != StepIdle {
		return true, a.renewMeanwhile(ctx)
	}
	return true, errors.Join(a.deleteReplaced(ctx), a.renew(ctx))
}

// deleteReplaced deletes the service tokens whose time has come.
func (a *attempt) deleteReplaced(ctx context.Context) error {
	var left []Replaced
	var errs []error
	now := a.now().UTC()
	for _, old := range a.record.Replaced {
		if later(old.At, old.NotBefore).After(now) {
			left = append(left, old)
			continue
		}
		err := a.deleteOne(ctx, &old)
		if err != nil && ctx.Err() != nil { // the daemon stops: nobody's failure
			left = append(left, old)
			errs = append(errs, ctx.Err())
			continue
		}
		a.tell(ReplacedDeleted{Token: a.token.Name, TokenID: old.TokenID, Err: err})
		if err != nil {
			old.Failures++
			old.NotBefore, old.LastError = now.Add(choreBackOff(old.Failures)), err.Error()
			left = append(left, old)
			errs = append(errs, fmt.Errorf("deleting the service token %s that was replaced: %w", old.TokenID, err))
		}
	}
	before := a.record
	a.record.Replaced = left
	return errors.Join(errors.Join(errs...), a.saveOr(ctx, before))
}

// deleteOne deletes a service token that was replaced, unless a sink holds it: consumers read the
// sinks, and what stands there may have got there in another way than the ledger knows. It came
// from an answer that could not be sealed, or somebody put it back.
func (a *attempt) deleteOne(ctx context.Context, old *Replaced) error {
	if old.TokenID == a.record.TokenID {
		return errors.New("it is the one that is in use")
	}
	if old.ClientID == "" {
		facts, err := a.token.Issuer.Inspect(ctx, old.TokenID)
		switch {
		case errors.Is(err, ErrGone):
			return nil
		case err != nil:
			return err
		}
		old.ClientID = facts.ClientID
	}
	for _, sink := range a.token.Sinks {
		bounded, cancel := context.WithTimeout(ctx, storeTimeout)
		stored, err := sink.Preflight(bounded)
		cancel()
		switch {
		case err != nil:
			return fmt.Errorf("sink %s does not say whether consumers still find it there: %w", sink.Name(), err)
		case stored.ClientID == old.ClientID:
			return fmt.Errorf("sink %s still holds it, and it is kept until a rotation has written another one", sink.Name())
		}
	}
	if old.Promised {
		if err := a.token.Issuer.Ready(ctx); err != nil { // ErrClock among others
			return err
		}
	}
	failpoint.Reach("delete.before")
	defer failpoint.Reach("delete.after")
	return a.token.Creator.Delete(ctx, old.TokenID)
}

// renew renews what is about to end. It never shortens the life of a service token.
func (a *attempt) renew(ctx context.Context) error {
	var errs []error
	before := a.record
	changed, now, ahead := false, a.now().UTC(), time.Duration(0)
	if a.record.Step != StepIdle {
		ahead = a.token.RenewBefore * 3 / 4
	}
	for _, facts := range []*TokenFacts{&a.record.Facts, &a.record.Spare} {
		if at := a.token.renewAt(*facts); at.IsZero() || later(at.Add(ahead), a.record.Renewal.NotBefore).After(now) {
			continue
		}
		changed = true
		ctx := ctx
		if facts.ExpiresAt.Sub(now) <= EmergencyAhead {
			ctx = WithUrgency(ctx, UrgencyEmergency)
		}
		if err := a.renewOne(ctx, facts); err != nil && ctx.Err() != nil { // the daemon stops: nobody's failure
			errs = append(errs, err)
		} else if err != nil {
			a.record.Renewal.Failures++
			a.record.Renewal.LastError = err.Error()
			a.record.Renewal.NotBefore = a.nextRenewal(err)
			errs = append(errs, fmt.Errorf("renewing the service token %s: %w", facts.ID, err))
		} else {
			a.record.Renewal = Renewal{At: now}
		}
	}
	if !changed {
		return nil
	}
	err := a.save(ctx, a.record.Step)
	if err != nil {
		a.record = before
	}
	return errors.Join(errors.Join(errs...), err)
}

// renewMeanwhile renews while a rotation is in progress. A peer that hangs must not hold that up.
func (a *attempt) renewMeanwhile(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	a.record = a.record.clone() // so that renew can go back to what it was
	return a.renew(ctx)
}

// nextRenewal is when a renewal that failed is tried again. One wait counts for both of a pair, so the one
// that ends first decides.
func (a *attempt) nextRenewal(cause error) time.Time {
	now, soon := a.now().UTC(), EmergencyWait
	if e, isIssuers := errors.AsType[*IssuerError](cause); !isIssuers || e.Class == Refused { // a person has to change something first
		soon = refusedWait
	}
	end := a.record.Facts.ExpiresAt
	if spare := a.record.Spare; !a.token.renewAt(spare).IsZero() {
		end = sooner(spare.ExpiresAt, end)
	}
	if errors.Is(cause, errStillNear) { // it lives on for as long as a renewal lasts
		return now.Add(min(choreBackOff(a.record.Renewal.Failures), max(end.Sub(now)/2, soon)))
	}
	return now.Add(renewalBackOff(a.record.Renewal.Failures, end.Sub(now), soon))
}

// renewOne renews one service token. What is known of it is looked at first, since a listing
// may be hours old and somebody may have given it more time, or made it eternal.
func (a *attempt) renewOne(ctx context.Context, facts *TokenFacts) (err error) {
	defer func() {
		if err == nil || ctx.Err() == nil {
			a.tell(Renewed{Token: a.token.Name, TokenID: facts.ID, ExpiresAt: facts.ExpiresAt, Err: err})
		}
	}()
	now, err := a.token.Issuer.Inspect(ctx, facts.ID)
	if err != nil {
		return err
	}
	inHand := a.record.Work != nil && a.record.Work.TokenID == facts.ID
	switch {
	case inHand: // our own request has changed it since
		if a.record.Step == StepSealed {
			a.noteChange(now)
		}
		*facts = now
	default:
		if news := a.notice(facts, now); news != nil {
			a.tell(news)
		}
	}
	if at := a.token.renewAt(*facts); at.IsZero() || at.After(a.now()) {
		return nil
	}
	if d, isDuration := a.token.renewFor(); isDuration && !a.now().Add(d).After(facts.ExpiresAt) {
		return fmt.Errorf("renewing it for %s would shorten its life, which lasts until %s: give it a longer renew_for", d, facts.ExpiresAt.Format(time.RFC3339))
	}
	renewed, err := a.token.Renewer.Renew(ctx, facts.ID, a.token.RenewFor)
	if err != nil {
		if classOf(err) == Unknown {
			facts.UpdatedAt = time.Time{} // it may have moved
		}
		return err
	}
	before := facts.ExpiresAt
	*facts = facts.updatedBy(renewed)
	if inHand {
		a.record.Work.TouchedAt = later(a.record.Work.TouchedAt, renewed.UpdatedAt)
	}
	if !facts.ExpiresAt.After(before) {
		return fmt.Errorf("it was renewed, and still ends at %s", facts.ExpiresAt.Format(time.RFC3339))
	}
	if at := a.token.renewAt(*facts); !at.IsZero() && !at.After(a.now()) { // it would be renewed without end
		return fmt.Errorf("it was renewed, and ends at %s, %w: make that shorter, or renew_for longer",
			facts.ExpiresAt.Format(time.RFC3339), errStillNear)
	}
	return nil
}

// errStillNear is in the error of a renewal that succeeded, and has to be repeated soon.
var errStillNear = errors.New("which is within renew_before again")

// renewFor is how long a renewal lasts; without a duration that is a year.
func (t Token) renewFor() (d time.Duration, ok bool) {
	if t.RenewFor == "" {
		return 0, false
	}
	d, err := time.ParseDuration(t.RenewFor)
	return d, err == nil
}
