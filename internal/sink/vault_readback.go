package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"time"

	"rotatord/internal/failpoint"
	"rotatord/internal/moment"
	"rotatord/internal/vault"
)

const (
	// staleBound is how long readBack waits for a node of Vault that is behind. The pauses between
	// its reads grow from firstStalePause to lastStalePause.
	staleBound      = 10 * time.Second
	firstStalePause = 50 * time.Millisecond
	lastStalePause  = time.Second
)

// errStale is in the error of a read that shows an older state than the one that Vault has
// confirmed.
var errStale = errors.New("a stale read")

// readBack reads what is stored after a write, or after a write that its check-and-set has refused.
// before is what was read before the write; w and writeErr are its answer. A standby, a replica or a
// cache may answer from an older state. Then readBack reads again, and does not take the old state for
// a change by another writer.
func (v *Vault) readBack(ctx context.Context, kv int, before content, w written, writeErr error, fields []assignment) (content, error) {
	if failpoint.Off("read_back") { // a test shows what reading back is for
		return trusted(before, fields), nil
	}
	wait := firstStalePause
	var seen error // why the last answer was stale
	for deadline := time.Now().Add(staleBound); ; wait = min(2*wait, lastStalePause) {
		after, err := v.read(ctx, kv, w.index)
		if err == nil {
			if have(after.text, fields) {
				return after, nil
			}
			if err = stale(kv, before, after, w, writeErr); err == nil {
				return after, nil
			}
			err = fmt.Errorf("%s: %w", v.path(kv), err)
		} else if vault.StatusOf(err) == http.StatusPreconditionFailed {
			err = fmt.Errorf("%w: %w: the node that answered does not have the write yet", err, errStale)
		}
		if !errors.Is(err, errStale) {
			if seen != nil && ctx.Err() != nil { // why it was stale says more than that time ran out
				err = fmt.Errorf("%w; it did not catch up in time: %w", seen, err)
			}
			return content{}, err
		}
		seen = err
		if time.Now().Add(wait).After(deadline) {
			return content{}, fmt.Errorf("%w; it did not catch up within %s", err, staleBound)
		}
		if ended := moment.Sleep(ctx, wait); ended != nil {
			return content{}, fmt.Errorf("%w; it did not catch up in time: %w", err, ended)
		}
	}
}

// trusted is what is stored if every write is carried out.
func trusted(before content, fields []assignment) content {
	after := content{version: before.version + 1, written: time.Now(), fields: maps.Clone(before.fields)}
	if after.fields == nil {
		after.fields = make(map[string]any, len(fields))
	}
	for _, f := range fields {
		after.fields[f.name] = f.value
	}
	return after
}

// stale returns why a read is older than what Vault has confirmed; nil if it is not.
func stale(kv int, before, after content, w written, writeErr error) error {
	const from = "from a standby, a replica or a cache"
	switch {
	case kv == 1:
		if writeErr == nil && reflect.DeepEqual(before.fields, after.fields) {
			return fmt.Errorf("it shows the fields from before the write, which Vault has confirmed: %w %s", errStale, from)
		}
	case after.version > 0 && after.version <= before.version && after.written.After(before.written) && !after.written.Equal(w.written):
		// The metadata were removed, and another writer began again with version 1.
	case after.version == 0 && before.version > 0 && writeErr != nil && conflict(writeErr):
		// They were removed, and nothing was written since; or this is a stale read after all, and then the
		// check-and-set of the next write does not match.
	case writeErr == nil && after.version < w.version:
		return fmt.Errorf("it shows version %d, but version %d was written: %w %s", after.version, w.version, errStale, from)
	case after.version < before.version:
		return fmt.Errorf("it shows version %d, but version %d was read before: %w %s", after.version, before.version, errStale, from)
	case writeErr != nil && conflict(writeErr) && after.version == before.version:
		return fmt.Errorf("it shows version %d, and Vault's check-and-set says that another version is the current one: %w %s", after.version, errStale, from)
	}
	return nil
}
