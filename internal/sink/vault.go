// Package sink writes credentials to the places where consumers read them.
//
// Guarantees of every sink, which the suite in sinktest checks:
//
//   - Store returns nil only after it has read the credential back and found it equal.
//   - What else is stored beside the credential stays.
//   - If the answer to a write is lost, the sink reads what is stored, and does not write again
//     without reading.
//   - No error contains a secret.
package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/vault"
)

const (
	// sessionMargin is how long the session must last so that a rotation may begin.
	sessionMargin = 10 * time.Second
	// maxConflicts is how many writes by others in a row are merged before Store gives up.
	// conflictPause is how long it waits after each of them.
	maxConflicts  = 8
	conflictPause = 50 * time.Millisecond
	// requestsPerSink is the largest number of requests that a rotation sends for one sink, if there is
	// no series of conflicts. Without a fault it is 7.
	requestsPerSink = 12
)

// Vault is one secret in a KV mount of version 1 or 2. It implements [rotation.Sink].
//
// On version 2 every write is check-and-set, so no change of another writer is lost, and mounts with
// cas_required work. Version 1 has no check-and-set: there, a change that another writer makes between
// our read and our write is lost.
type Vault struct {
	session *vault.Session
	config  config.VaultSink
}

// NewVault returns a sink for one path.
func NewVault(session *vault.Session, c config.VaultSink) *Vault {
	return &Vault{session: session, config: c}
}

// Vault implements [config.SinkKinds].
func (o *opener) Vault(c *config.VaultSink) { o.opened = NewVault(o.Deps.Vault, *c) }

// Name implements [rotation.Sink].
func (v *Vault) Name() string { return config.SinkName(&v.config) }

func (v *Vault) stored(c content) rotation.Stored {
	s := rotation.Stored{Exists: c.fields != nil, Version: c.version, WrittenAt: c.written, DeletesAt: c.deletes,
		Deleted: c.fields == nil && c.version > 0 && !c.destroyed, Destroyed: c.destroyed}
	s.ClientID, _ = c.fields[v.config.ClientIDField].(string)
	value, _ := c.fields[v.config.ClientSecretField].(string)
	s.Digest = secret.New(value).Digest()
	return s
}

// Preflight implements [rotation.Sink]. In KV version 2 it sends the same request as the
// write, but with a check-and-set that cannot match.
func (v *Vault) Preflight(ctx context.Context) (rotation.Stored, error) {
	if err := v.session.ReadyFor(ctx, sessionMargin, requestsPerSink); err != nil {
		return rotation.Stored{}, err
	}
	kv, now, err := v.look(ctx)
	if err != nil {
		return rotation.Stored{}, err
	}
	if err := v.textOnly(kv, now); err != nil {
		return rotation.Stored{}, err
	}
	s := v.stored(now)
	if kv == 1 {
		return s, v.mayWrite(ctx, kv, now)
	}
	if after, known := v.session.DeleteVersionAfter(ctx, v.config.Mount, v.config.Path); known {
		s.DeleteAfter = after
	} else if s.Exists && s.DeletesAt.After(s.WrittenAt) {
		// A version got its time of deletion when it was written.
		s.DeleteAfter = s.DeletesAt.Sub(s.WrittenAt)
	}
	return s, v.probe(ctx, kv, now)
}

// LookAhead implements [Sink]. It does not try a session that is good for a limited number of requests:
// each of them is for a rotation.
func (v *Vault) LookAhead(ctx context.Context) error {
	if err := v.session.CheckSeal(ctx); err != nil {
		return errors.Join(ErrNotTried, err)
	}
	if err := v.session.Ready(ctx, sessionMargin); err != nil {
		return errors.Join(ErrNotTried, err)
	}
	if limited, err := v.session.Limited(ctx); limited || err != nil {
		return errors.Join(ErrNotTried, err)
	}
	_, err := v.Preflight(ctx)
	return err
}

// Look implements [rotation.Looker].
func (v *Vault) Look(ctx context.Context) (rotation.Stored, error) {
	if err := v.session.Ready(ctx, 0); err != nil {
		return rotation.Stored{}, err
	}
	_, now, err := v.look(ctx)
	if err != nil {
		return rotation.Stored{}, err
	}
	return v.stored(now), nil
}

// look asks for the KV version of the mount and for what is stored. It asks for the version each
// time: a mount can be upgraded to version 2 at any time, and the paths of version 1 do not work
// after that.
func (v *Vault) look(ctx context.Context) (kv int, now content, err error) {
	v.session.ForgetKVVersion(v.config.Mount)
	if kv, err = v.session.KVVersion(ctx, v.config.Mount); err != nil {
		return 0, content{}, err
	}
	now, err = v.read(ctx, kv, "")
	return kv, now, err
}

// textOnly refuses a place where one of our two fields is not a text. Another program has written it,
// and it would be overwritten.
func (v *Vault) textOnly(kv int, now content) error {
	for _, name := range []string{v.config.ClientIDField, v.config.ClientSecretField} {
		switch now.fields[name].(type) {
		case nil, string:
		default:
			return fmt.Errorf("the field %s at %s does not hold a text: does another program use it? Correct fields in the configuration, or remove the field",
				name, v.path(kv))
		}
	}
	return nil
}

// Store implements [rotation.Sink]. It reads again and does not use the base: so the
// check-and-set of the write is against the fields that it keeps.
func (v *Vault) Store(ctx context.Context, d rotation.Delivery) (stored rotation.Stored, err error) {
	defer func() {
		if err != nil {
			v.session.ForgetKVVersion(v.config.Mount)
		}
	}()
	if err := v.session.Ready(ctx, 0); err != nil {
		return rotation.Stored{}, err
	}
	kv, err := v.session.KVVersion(ctx, v.config.Mount)
	if err != nil {
		return rotation.Stored{}, err
	}
	now, err := v.read(ctx, kv, "")
	if err != nil {
		return rotation.Stored{}, err
	}
	for range maxConflicts {
		if v.holds(now, d.Credential) {
			return v.stored(now), nil
		}
		w, writeErr := v.write(ctx, kv, now, d.Credential)
		if writeErr != nil && refused(writeErr) && !conflict(writeErr) {
			return rotation.Stored{}, fmt.Errorf("writing %s: %w", v.path(kv), writeErr)
		}
		// What is stored now decides, whatever the answer was, and also if none came.
		after, readErr := v.readBack(ctx, kv, now, w, writeErr, d.Credential)
		if readErr != nil {
			return rotation.Stored{}, errors.Join(writeErr, fmt.Errorf("reading back: %w", readErr))
		}
		if v.holds(after, d.Credential) {
			return v.stored(after), nil
		}
		if writeErr != nil && !conflict(writeErr) {
			// The write may still arrive. Its check-and-set matches only if nothing else was written,
			// so the next attempt can begin with a read like this one.
			return rotation.Stored{}, fmt.Errorf("writing %s: %w", v.path(kv), writeErr)
		}
		if w.version > 0 && after.version == w.version {
			return rotation.Stored{}, fmt.Errorf("%s does not hold what was written: Vault says that it wrote version %d, and version %d reads back with other fields",
				v.path(kv), w.version, after.version)
		}
		if err := pause(ctx, conflictPause); err != nil {
			return rotation.Stored{}, err
		}
		now = after
	}
	return rotation.Stored{}, fmt.Errorf("another writer changed %s %d times in a row, each time between reading and writing it", v.path(kv), maxConflicts)
}

func (v *Vault) holds(c content, want rotation.Credential) bool {
	value, _ := c.fields[v.config.ClientSecretField].(string)
	return c.fields[v.config.ClientIDField] == want.ClientID && secret.New(value).Equal(want.ClientSecret)
}

// path is where the API has the secret.
func (v *Vault) path(kv int) string {
	if kv == 2 {
		return v.config.Mount + "/data/" + v.config.Path
	}
	return v.config.Mount + "/" + v.config.Path
}

// read reads what is stored. The answer must not be older than the write with this index; empty if there
// is none.
func (v *Vault) read(ctx context.Context, kv int, index string) (content, error) {
	answer, err := v.session.Send(ctx, vault.Request{Path: v.path(kv), Index: index})
	if err != nil {
		return content{}, fmt.Errorf("reading %s: %w", v.path(kv), err)
	}
	c, err := readAnswer(kv, answer)
	if err != nil {
		return content{}, fmt.Errorf("reading %s: %w", v.path(kv), err)
	}
	return c, nil
}

// written is what the answer to a write says; zero if no answer came, or if it says nothing.
type written struct {
	version int    // 0 in KV version 1
	index   string // see [vault.Answer]
}

// write writes our two fields together with the other ones that are stored.
func (v *Vault) write(ctx context.Context, kv int, now content, c rotation.Credential) (written, error) {
	answer, err := v.session.Send(ctx, vault.Request{Path: v.path(kv), Body: v.body(kv, now, c, now.version)})
	if err != nil {
		return written{}, err
	}
	version, err := writeAnswer(kv, answer)
	if err != nil {
		return written{}, err
	}
	return written{version, answer.Index}, nil
}

// body returns the body of a request that writes c and keeps the other fields.
func (v *Vault) body(kv int, now content, c rotation.Credential, cas int) map[string]any {
	fields := maps.Clone(now.fields)
	if fields == nil {
		fields = make(map[string]any, 2)
	}
	fields[v.config.ClientIDField] = c.ClientID
	fields[v.config.ClientSecretField] = c.ClientSecret.Reveal()
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

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
