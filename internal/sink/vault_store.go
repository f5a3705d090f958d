package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/vault"
)

const (
	// maxConflicts is how many writes by others in a row are merged before Store gives up.
	// conflictPause is the pause before the next read. Between a read and the write against it there is none.
	maxConflicts  = 8
	conflictPause = 50 * time.Millisecond
)

// Store implements [rotation.Sink]. In KV version 2 it writes against what Preflight has read, if the
// delivery has that as its base, and reads again only after a conflict. The check-and-set of the write is
// always against the fields that it keeps.
func (v *Vault) Store(ctx context.Context, d rotation.Delivery) (stored rotation.Stored, err error) {
	defer func() {
		if err != nil {
			v.session.ForgetKVVersion(v.config.Mount)
			return
		}
		v.release()
	}()
	if err := v.session.Ready(ctx, 0); err != nil {
		return rotation.Stored{}, err
	}
	kv, now, err := v.baseFor(ctx, d)
	if err != nil {
		return rotation.Stored{}, err
	}
	for range maxConflicts {
		fields := wanted(v.config.SinkFields, now.text, d)
		if have(now.text, fields) {
			v.note(ctx, kv, now, d)
			return v.stored(now), nil
		}
		if err := d.MayReplace(v.stored(now)); err != nil {
			return rotation.Stored{}, err
		}
		if err := rotation.MaySend(ctx); err != nil { // after a conflict, what is stored may be newer than ours
			return rotation.Stored{}, err
		}
		w, writeErr := v.write(ctx, kv, now, fields)
		if writeErr != nil && refused(writeErr) && !conflict(writeErr) {
			return rotation.Stored{}, fmt.Errorf("writing %s: %w", v.path(kv), writeErr)
		}
		// What is stored now decides, whatever the answer was, and also if none came.
		after, readErr := v.readBack(ctx, kv, now, w, writeErr, fields)
		if readErr != nil {
			return rotation.Stored{}, errors.Join(writeErr, fmt.Errorf("reading back: %w", readErr))
		}
		if have(after.text, fields) {
			v.note(ctx, kv, after, d)
			return v.stored(after), nil
		}
		if writeErr != nil && !conflict(writeErr) {
			// The write may still arrive. Its check-and-set matches only if nothing else was written,
			// so the next attempt can begin with a read like this one.
			return rotation.Stored{}, fmt.Errorf("writing %s: %w", v.path(kv), writeErr)
		}
		if w.version > 0 && after.version == w.version && !after.written.After(w.written) {
			return rotation.Stored{}, fmt.Errorf("%s does not hold what was written: Vault says that it wrote version %d, and version %d reads back with other fields",
				v.path(kv), w.version, after.version)
		}
		if err := ctx.Err(); err != nil {
			return rotation.Stored{}, err
		}
		now = after // without a pause, in which a busy writer would write again
	}
	return rotation.Stored{}, fmt.Errorf("another writer changed %s %d times in a row, each time between reading and writing it", v.path(kv), maxConflicts)
}

// written is what the answer to a write says; zero if no answer came, or if it says nothing.
type written struct {
	version int       // 0 in KV version 1
	written time.Time // by Vault's clock; zero in KV version 1
	index   string    // see [vault.Answer]
}

// write writes our fields together with the other ones that are stored.
func (v *Vault) write(ctx context.Context, kv int, now content, fields []assignment) (written, error) {
	answer, err := v.session.Send(ctx, vault.Request{Path: v.path(kv), Body: v.body(kv, now, fields, now.version)})
	if err != nil {
		return written{}, err
	}
	w, err := writeAnswer(kv, answer)
	if err != nil {
		return written{}, err
	}
	w.index = answer.Index
	return w, nil
}

// body returns the body of a request that writes our fields and keeps the other ones.
func (v *Vault) body(kv int, now content, ours []assignment, cas int) map[string]any {
	fields := maps.Clone(now.fields)
	if fields == nil {
		fields = make(map[string]any, len(ours))
	}
	for _, a := range ours {
		fields[a.name] = a.value
	}
	if kv == 2 {
		return map[string]any{"data": fields, "options": map[string]any{"cas": cas}}
	}
	return fields
}

// refused reports whether Vault answered that it did not write.
func refused(err error) bool {
	status := vault.StatusOf(err)
	return status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests
}

// conflict reports whether another writer wrote since we read, or whether we read an old state.
func conflict(err error) bool {
	return vault.StatusOf(err) == http.StatusBadRequest && strings.Contains(err.Error(), "check-and-set parameter did not match")
}
