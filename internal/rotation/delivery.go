package rotation

import (
	"context"
	"errors"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/moment"
	"rotatord/internal/secret"
)

// round is the result of one delivery to all sinks.
type round struct {
	err error // nil if every sink has the secret
	// overtaken is set if sinks hold a later secret than ours. Then ours is not delivered to them. seen is
	// what Cloudflare shows of the service token in that case.
	overtaken *Overtaken
	seen      TokenFacts
	failed    bool // a sink failed for another reason
}

// deliver writes to every sink, also after one has failed.
func (a *attempt) deliver(ctx context.Context, c Credential) (d round) {
	var failed []error
	for _, sink := range a.token.Sinks {
		err := a.mustHold(ctx)
		if err == nil {
			err = a.deliverTo(ctx, sink, c, &d)
		}
		if !errors.Is(err, errOvertaken) { // then nothing was written, and nothing is wrong with the sink
			a.tell(event.SinkWrite{Sink: sink.Name(), Err: err})
			d.failed = d.failed || err != nil
		}
		if err != nil {
			failed = append(failed, sinkError(sink, err))
		}
	}
	d.err = errors.Join(failed...)
	return d
}

// maxLooks is how often one delivery looks at a sink in which another secret turns up.
const maxLooks = 3

func (a *attempt) deliverTo(ctx context.Context, sink Sink, c Credential, d *round) error {
	ctx, cancel := context.WithTimeout(ctx, a.storeBound())
	defer cancel()
	base, known := a.record.Work.BeforeSink[sink.Name()]
	var stored Stored
	// In the attempt that did the preflight, what the preflight read is still good; the sink merges what
	// others have written since, but for another secret. A later attempt reads again.
	err := ErrOtherSecret
	if known && a.claimed {
		stored, err = sink.Store(WithSendCheck(ctx, a.maySend), a.delivery(sink, c, base))
	}
	for range maxLooks {
		if !errors.Is(err, ErrOtherSecret) {
			break
		}
		now, lookErr := lookAt(ctx, sink)
		if lookErr != nil {
			return lookErr
		}
		if known && now.Digest != base.Digest && now.Digest != c.ClientSecret.Digest() {
			if err := a.requireLatest(ctx, sink.Name(), now, d); err != nil {
				return err
			}
		}
		stored, err = sink.Store(WithSendCheck(ctx, a.maySend), a.delivery(sink, c, now))
	}
	if err != nil {
		return err
	}
	if stored.Digest != c.ClientSecret.Digest() || stored.ClientID != c.ClientID {
		return errors.New("the sink confirmed a credential that is not the delivered one")
	}
	a.observe(a.record.deletionSeen(sink.Name(), stored).wroteTo(sink.Name(), stored, a.now().UTC()))
	a.warnOfDeletion(sink.Name(), stored)
	return nil
}

// storeBound returns how long one sink may take. With a short grace, sinks that do not answer are left in time to extend
// the old secret. The grace counts and not its known end, which may be later than the real one.
func (a *attempt) storeBound() time.Duration {
	bound := storeTimeout
	if a.replica != nil { // a delivery must not go on when another replica may take over
		bound = max(min(bound, a.holdLeft()), minStoreTime)
	}
	if !a.record.overlaps() {
		return bound
	}
	return min(bound, max(time.Duration(a.record.Work.Grace)/3/time.Duration(len(a.token.Sinks)), minStoreTime))
}

// delivery returns what a sink gets.
func (a *attempt) delivery(sink Sink, c Credential, base Stored) Delivery {
	work := a.record.Work
	d := Delivery{Credential: c, Base: base, OnlyOver: true, RotationID: work.RotationID, At: moment.Max(work.SealedAt, work.IntentAt), By: work.Owner}
	d.Replaces, d.GraceEndsAt = a.record.replacedIn(sink.Name(), a.now())
	return d
}

// replacedIn returns which secret of a sink the rotation in progress has replaced, and until when the
// replaced secret works at least; zero if it does not work any more. The digest is empty too if the sink held
// another secret than that of the last rotation: it is not known whether that one ever worked. Before the
// first rotation the sink is believed.
func (r Record) replacedIn(sink string, now time.Time) (digest secret.Digest, until time.Time) {
	work, before := r.Work, r.Work.BeforeSink[sink]
	clientID := work.Before.ClientID
	switch {
	case work.LeavesCurrentInUse():
		if work.Grace > 0 && r.TokenID != "" { // what is replaced works for a grace after the commit, which comes later than this
			until = moment.Max(work.SealedAt, work.IntentAt).Add(time.Duration(work.Grace))
		}
		clientID = r.FactsOf(r.TokenID).ClientID
	case r.overlaps():
		until = work.GraceEndsAt
	}
	// There were other rotations since the last one that was delivered, or after the one in progress.
	others := !r.Outside.IsZero() || len(r.Abandoned) > 0 || !work.ChangedAt.IsZero() || work.Overtaken != nil
	switch known := !others && before.ClientID == clientID && (r.Last == nil || r.Last.Digest == before.Digest); {
	case !until.After(now):
		return "", time.Time{}
	case !known:
		return "", until
	}
	return before.Digest, until
}

// lookAt returns what a sink holds, for a delivery that is tried again.
func lookAt(ctx context.Context, sink Sink) (Stored, error) {
	if l, ok := sink.(Looker); ok {
		return l.Look(ctx)
	}
	return sink.Preflight(ctx)
}
