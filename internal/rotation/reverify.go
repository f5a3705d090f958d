package rotation

import (
	"context"
	"errors"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/secret"
)

// This file repeats the verification of the secret in use (verify.every). It rotates nothing: a refusal is told,
// and a person decides.

// RefusedInUse says that the secret in use is refused where it is tried.
type RefusedInUse struct {
	Since  time.Time     `json:"since"` // of the first refusal
	Digest secret.Digest `json:"digest,omitempty"`
	Error  string        `json:"error"` // what the last request was answered
}

// ReadInUse reads the secret in use from the first sink that can be read and holds what was written to it. wrong
// names a sink that holds something else, which the watch has to look at; empty if none was seen. The zero
// Credential means that no sink gave it, and err says why.
func ReadInUse(ctx context.Context, t Token, r Record) (c Credential, wrong string, err error) {
	var failed []error
	for _, sink := range t.Sinks {
		c, can, err := readSink(ctx, sink)
		switch {
		case !can:
			continue
		case err != nil:
			failed = append(failed, sinkError(sink, err))
			continue
		}
		want, _ := r.shouldHold(sink.Name())
		if c.ClientSecret.IsZero() || want.Digest != "" && c.ClientSecret.Digest() != want.Digest {
			wrong = sink.Name()
			continue
		}
		return c, wrong, nil
	}
	return Credential{}, wrong, errors.Join(failed...)
}

// RecordProbe records what trying the secret in use has shown, if that is new: since when it is refused; nil if it
// is accepted. before is the record from before it was read. It does not wait for a token that is being worked
// on; it returns a zero Record then.
func (r *Rotator) RecordProbe(ctx context.Context, t Token, before Record, refused *RefusedInUse) (Record, error) {
	e, err := r.tryOpen(ctx, t)
	if e == nil {
		return Record{}, nil
	}
	defer e.close()
	known := e.record.RefusedInUse
	if err != nil || e.record.Step != StepIdle || !e.record.sameRotation(before) || (known == nil) == (refused == nil) {
		return e.record, err
	}
	if err := e.save(ctx, e.record.refusedInUse(refused)); err != nil {
		return e.record, err
	}
	if refused != nil {
		e.tell(event.InUseProbe{Since: refused.Since, Error: refused.Error})
	} else {
		e.tell(event.InUseProbe{Since: known.Since})
	}
	return e.record, nil
}
