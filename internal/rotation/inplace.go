package rotation

import (
	"context"
	"errors"
	"time"

	"rotatord/internal/moment"
)

// inPlace is the strategy of a single service token: it gets a new secret. Its old secret becomes the
// previous one, which Cloudflare accepts until the end of the grace. A second request during that time
// would revoke it.
type inPlace struct{}

func (inPlace) traits() traits { return traits{name: InPlace} }

func (inPlace) plan(t Token, r Record, w Work) Work {
	w.TokenID = t.ServiceToken(r)
	return w
}

func (inPlace) prepare(ctx context.Context, e *entry) error {
	facts, err := e.knownFacts(ctx, e.record.Work.TokenID)
	if err == nil {
		e.observe(e.record.beforeKnown(facts))
	}
	return err
}

func (inPlace) request(ctx context.Context, e *entry) (Issued, error) {
	work := e.record.Work
	return e.token.Issuer.Rotate(ctx, RotateRequest{TokenID: work.TokenID, ClientID: work.Before.ClientID, Grace: time.Duration(work.Grace)})
}

func (inPlace) identify(context.Context, *entry, Issued) error { return nil }

func (inPlace) finish(_ Token, r Record) Record {
	r.Facts = r.Work.Before.updatedBy(r.Work.After)
	return r
}

// look asks Cloudflare what the rotate request has changed. It does not ask if that does not matter to
// consumers, or if an inventory has shown it recently.
func (inPlace) look(ctx context.Context, e *entry, asked bool) (Evidence, error) {
	work := e.record.Work
	if facts := e.record.listedSince(e.now()); facts != nil && !asked {
		return Evidence{Facts: facts}, nil
	}
	if work.Grace == 0 {
		return Evidence{}, nil
	}
	facts, err := e.token.Issuer.Inspect(ctx, work.TokenID)
	if err != nil {
		return Evidence{Unread: !errors.Is(err, ErrGone)}, err
	}
	e.observe(e.record.factsSeen(facts).shownCarriedOut(movedWith(work, facts)))
	return Evidence{Facts: &facts}, nil
}

// judge decides about a doubt by this rule: never rotate again while the old secret may still be the one
// that works. Rotating would make a lost secret the previous one and cut the old one off.
func (inPlace) judge(r Record, e Evidence, now time.Time) Verdict {
	if r.Work.Grace == 0 {
		// Either nothing was carried out, and the rotation is still wanted; or the old secret ended with
		// the request, and only another rotation brings one that works.
		return Verdict{Resolved: true, Deliver: r.Doubt.deliverable(), Reason: ReasonOldSecretRevoked}
	}
	carriedOut := r.Doubt.CarriedOut || r.Doubt.Answered() || e.Facts != nil && movedWith(r.Work, *e.Facts)
	switch {
	case !r.OldDiesBy.IsZero():
		return judgeLostReissue(r, e, carriedOut, now)
	case carriedOut:
		return judgeCarriedOut(r, e, now)
	}
	return judgeUnknown(r, e, now)
}

func (inPlace) confirm(context.Context, *entry) (*TokenFacts, error) { return nil, nil }

func (inPlace) gone(ctx context.Context, e *entry) (bool, TokenFacts, error) {
	return e.isGone(ctx, e.record.Work.TokenID)
}

func (inPlace) keep(_ Token, r Record, facts TokenFacts, _ time.Time) Record {
	r.Facts = facts
	return r
}

// knownFacts returns what is known of a service token, and asks Cloudflare if that is too little.
func (e *entry) knownFacts(ctx context.Context, id string) (TokenFacts, error) {
	facts := e.record.knownAs(e.token, id)
	if facts.ID == id && facts.ClientID != "" && !facts.UpdatedAt.IsZero() {
		return facts, nil
	}
	facts, err := e.token.Issuer.Inspect(ctx, id)
	if err == nil {
		e.observe(e.record.withFactsAs(e.token, id, facts))
	}
	return facts, err
}

// isGone reports whether Cloudflare no longer has the service token of that ID.
func (e *entry) isGone(ctx context.Context, id string) (bool, TokenFacts, error) {
	facts, err := e.token.Issuer.Inspect(ctx, id)
	if errors.Is(err, ErrGone) {
		return true, TokenFacts{}, nil
	}
	return false, facts, err
}

// listedSince returns what an inventory has recently shown of a service token in doubt; nil if it has
// shown nothing.
func (r Record) listedSince(now time.Time) *TokenFacts {
	d := r.Doubt
	if d.ListedAt.IsZero() || now.Sub(d.ListedAt) >= doubtRecheck || r.Facts.ID != r.Work.TokenID {
		return nil
	}
	return new(r.Facts)
}

// judgeLostReissue decides about a reissue. If its request was carried out, it revoked the secret that
// consumers use, which was the previous one: only another rotation brings them one that works. So the
// reissue in doubt waits only until it is known whether it was carried out.
func judgeLostReissue(r Record, e Evidence, carriedOut bool, now time.Time) Verdict {
	d, grace := r.Doubt, time.Duration(r.Work.Grace)
	// A reissue starts with half of a grace left, so waiting for half of it would outlast the old secret.
	overAt := d.Since.Add(min(underWayTime, grace/4))
	switch {
	case carriedOut:
		return Verdict{Resolved: true, Deliver: d.deliverable(), CarriedOut: true, Reason: ReasonOldSecretRevoked}
	case now.Before(overAt):
		return Verdict{Reason: ReasonUnderWay, Again: moment.Min(overAt, now.Add(recheckWait(grace)))}
	case e.unmoved(r):
		return Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonUpdatedAtUnchanged}
	case e.Unread && now.Before(moment.Min(overAt.Add(unreadPatience), d.OldWorksUntil)):
		return Verdict{Reason: ReasonOldSecretWorks, Again: now.Add(recheckWait(grace))}
	}
	return Verdict{Resolved: true, Reason: ReasonGraceEnding}
}

// judgeCarriedOut decides about a request that was carried out and whose secret is lost, while the old secret
// still works. The old secret is extended, until an operator decides or doubtStretch graces are over.
func judgeCarriedOut(r Record, e Evidence, now time.Time) Verdict {
	d, grace := r.Doubt, time.Duration(r.Work.Grace)
	decideAt, reissueAt := r.Work.IntentAt.Add(doubtStretch*grace), d.OldWorksUntil.Add(-reissueMargin(grace))
	decided := !now.Before(decideAt) // the time is over, so the daemon decides and not an operator
	if !e.CannotExtend && !(decided && now.Before(reissueAt)) {
		if by := extendBy(grace, d.OldWorksUntil, r.Work.IntentAt, d.Extensions > 0, now); by > 0 {
			// Again counts if the extension is done and the next one is due: with a grace of a few seconds it is.
			return Verdict{Extend: by, CarriedOut: true, Reason: ReasonOldSecretWorks, Again: now.Add(minBackOff)}
		}
	}
	if reissueAt = moment.Min(reissueAt, decideAt); !now.Before(reissueAt) {
		return Verdict{Resolved: true, Deliver: d.deliverable(), CarriedOut: true, Reason: ReasonGraceEnding}
	}
	extendAt := surelyUntil(grace, d.OldWorksUntil, r.Work.IntentAt).Add(-grace * 3 / 4)
	again := moment.Min(now.Add(doubtRecheck), extendAt)
	if e.Unread || e.CannotExtend || !again.After(now) {
		again = now.Add(recheckWait(grace))
	}
	return Verdict{CarriedOut: true, Reason: ReasonOldSecretWorks, Again: moment.Min(again, reissueAt)}
}

// judgeUnknown decides about a request while it is not known whether it was carried out, and the old
// secret may still work. The old secret is not extended: if the request was not carried out, "the previous
// secret" is an older one. That one should have ended by now, and must not be revived.
func judgeUnknown(r Record, e Evidence, now time.Time) Verdict {
	d, grace := r.Doubt, time.Duration(r.Work.Grace)
	overAt, reissueAt := d.Since.Add(underWayFor(grace)), d.OldWorksUntil.Add(-reissueMargin(grace))
	recheckAt := now.Add(recheckWait(grace))
	switch {
	case now.Before(overAt): // a request that is still under way could undo a reissue
		return Verdict{Reason: ReasonUnderWay, Again: moment.Min(overAt, recheckAt)}
	case e.unmoved(r):
		return Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonUpdatedAtUnchanged}
	case now.Before(reissueAt) && (e.Unread || e.CannotExtend):
		return Verdict{Reason: ReasonOldSecretWorks, Again: moment.Min(recheckAt, reissueAt)}
	case now.Before(reissueAt):
		return Verdict{Reason: ReasonOldSecretWorks, Again: moment.Min(now.Add(doubtRecheck), reissueAt)}
	case e.Unread && now.Before(d.OldWorksUntil):
		// While Cloudflare cannot be reached, a rotation is not possible either. Once it can be reached,
		// it shows whether the old secret may be extended instead.
		return Verdict{Reason: ReasonOldSecretWorks, Again: moment.Min(recheckAt, d.OldWorksUntil)}
	}
	return Verdict{Resolved: true, Reason: ReasonGraceEnding}
}
