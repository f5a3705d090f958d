package rotation

import (
	"context"
	"errors"
	"fmt"

	"rotatord/internal/event"
)

// delivery is the result of one round over all sinks.
type delivery struct {
	err error // nil if every sink has the secret
	// overtaken is set if sinks hold a later secret than ours. Then ours is not delivered to them. seen is
	// what Cloudflare shows of the service token in that case.
	overtaken *Overtaken
	seen      TokenFacts
	failed    bool // a sink failed for another reason
}

// deliver writes to every sink, also after one has failed.
func (a *attempt) deliver(ctx context.Context, c Credential) (d delivery) {
	var failed []error
	for _, sink := range a.token.Sinks {
		err := a.deliverTo(ctx, sink, c, &d)
		if !errors.Is(err, errOvertaken) { // then nothing was written, and nothing is wrong with the sink
			a.tell(event.SinkWrite{Sink: sink.Name(), Err: err})
			d.failed = d.failed || err != nil
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("sink %s: %w", sink.Name(), err))
		}
	}
	d.err = errors.Join(failed...)
	return d
}

func (a *attempt) deliverTo(ctx context.Context, sink Sink, c Credential, d *delivery) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	base, known := a.record.Work.BeforeSink[sink.Name()]
	// In the attempt that did the preflight, what the preflight read is still good; the sink merges what
	// others have written since. A later attempt reads again.
	if !known || !a.claimed {
		now, err := lookAt(ctx, sink)
		if err != nil {
			return err
		}
		if known && now.Digest != base.Digest && now.Digest != c.ClientSecret.Digest() {
			if err := a.requireLatest(ctx, sink.Name(), now, d); err != nil {
				return err
			}
		}
		base = now
	}
	stored, err := sink.Store(ctx, c, base)
	if err != nil {
		return err
	}
	if stored.Digest != c.ClientSecret.Digest() || stored.ClientID != c.ClientID {
		return errors.New("the sink confirmed a credential that is not the delivered one")
	}
	a.observe(a.record.deletionSeen(sink.Name(), stored))
	a.warnOfDeletion(sink.Name(), stored)
	return nil
}

// lookAt returns what a sink holds, for a delivery that is tried again.
func lookAt(ctx context.Context, sink Sink) (Stored, error) {
	if l, ok := sink.(Looker); ok {
		return l.Look(ctx)
	}
	return sink.Preflight(ctx)
}
