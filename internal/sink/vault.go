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
	"sync"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/vault"
)

const (
	// sessionMargin is how long the session must last so that a rotation may begin.
	sessionMargin = 10 * time.Second
	// requestsPerSink is the largest number of requests that a rotation sends for one sink, if there is
	// no series of conflicts. Without a fault it is 4 in KV version 2, and 5 in version 1.
	requestsPerSink = 12
)

// Vault is one secret in a KV mount of version 1 or 2. It implements [Sink].
//
// On version 2 every write is check-and-set, so no change of another writer is lost, and mounts with
// cas_required work. Version 1 has no check-and-set: there, a change that another writer makes between
// our read and our write is lost. So in version 1 the read is right before the write, and in version 2 the
// write is against what Preflight has read.
type Vault struct {
	session *vault.Session
	config  *config.VaultSink // of the configuration, and never changed

	base kept[content] // what Preflight has read

	mu       sync.Mutex
	noted    string             // the rotation whose metadata were written last
	reserved *vault.Reservation // since the preflight; nil if there is none
}

// NewVault returns a sink for one path.
func NewVault(session *vault.Session, c config.VaultSink) *Vault {
	return &Vault{session: session, config: &c}
}

// Vault implements [config.SinkKinds].
func (o *opener) Vault(c *config.VaultSink) { o.opened = &Vault{session: o.Deps.Vault, config: c} }

// Name implements [rotation.Sink].
func (v *Vault) Name() string { return config.SinkName(v.config) }

func (v *Vault) stored(c content) rotation.Stored {
	s := rotation.Stored{Exists: c.fields != nil, Version: c.version, WrittenAt: c.written, DeletesAt: c.deletes,
		Deleted: c.fields == nil && c.version > 0 && !c.destroyed, Destroyed: c.destroyed}
	credential := v.credential(c)
	s.ClientID, s.Digest = credential.ClientID, credential.ClientSecret.Digest()
	return s
}

// credential returns our two fields.
func (v *Vault) credential(c content) rotation.Credential {
	return rotation.Credential{ClientID: c.text(v.config.ClientIDField), ClientSecret: secret.New(c.text(v.config.ClientSecretField))}
}

// Preflight implements [rotation.Sink]. In KV version 2 it sends the same request as the
// write, but with a check-and-set that cannot match. The Store that follows needs no further read.
func (v *Vault) Preflight(ctx context.Context) (rotation.Stored, error) {
	v.release() // of a rotation that ended after its preflight
	reserved, err := v.session.ReadyFor(ctx, sessionMargin, requestsPerSink)
	if err != nil {
		return rotation.Stored{}, err
	}
	v.mu.Lock()
	v.reserved = reserved
	v.mu.Unlock()
	kv, now, stored, err := v.preflight(ctx)
	if err == nil && kv == 2 {
		v.base.keep(now)
	}
	return stored, err
}

// release gives back the requests that Preflight has reserved.
func (v *Vault) release() {
	v.mu.Lock()
	held := v.reserved
	v.reserved = nil
	v.mu.Unlock()
	v.session.Release(held)
}

func (v *Vault) preflight(ctx context.Context) (kv int, now content, s rotation.Stored, err error) {
	defer func() {
		if err != nil {
			v.session.ForgetKVVersion(v.config.Mount)
		}
	}()
	if kv, now, err = v.look(ctx); err != nil {
		return kv, now, s, err
	}
	if err := v.textOnly(kv, now); err != nil {
		return kv, now, s, err
	}
	s = v.stored(now)
	if kv == 1 {
		return kv, now, s, v.mayWrite(ctx, kv, now)
	}
	if after, known := v.session.DeleteVersionAfter(ctx, v.config.Mount, v.config.Path); known {
		s.DeleteAfter = after
	} else if s.Exists && s.DeletesAt.After(s.WrittenAt) {
		// A version got its time of deletion when it was written.
		s.DeleteAfter = s.DeletesAt.Sub(s.WrittenAt)
	}
	return kv, now, s, v.probe(ctx, kv, now)
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
	v.session.LookAhead(ctx, v.config.Mount, v.config.Path)
	_, _, _, err := v.preflight(ctx)
	return err
}

// Look implements [rotation.Looker].
func (v *Vault) Look(ctx context.Context) (rotation.Stored, error) {
	now, err := v.lookReady(ctx)
	if err != nil {
		return rotation.Stored{}, err
	}
	return v.stored(now), nil
}

// ReadBack implements [rotation.SinkReader].
func (v *Vault) ReadBack(ctx context.Context) (rotation.Credential, error) {
	now, err := v.lookReady(ctx)
	if err != nil {
		return rotation.Credential{}, err
	}
	return v.credential(now), nil
}

// lookReady is look for a caller who does not know whether there is a session.
func (v *Vault) lookReady(ctx context.Context) (content, error) {
	if err := v.session.Ready(ctx, 0); err != nil {
		return content{}, err
	}
	_, now, err := v.look(ctx)
	return now, err
}

// textOnly refuses a place where one of our fields is not a text. Another program has written it,
// and it would be overwritten.
func (v *Vault) textOnly(kv int, now content) error {
	for _, name := range ownFields(v.config.SinkFields) {
		switch now.fields[name].(type) {
		case nil, string:
		default:
			return fmt.Errorf("the field %s at %s does not hold a text: does another program use it? Correct fields in the configuration, or remove the field",
				name, v.path(kv))
		}
	}
	return nil
}

// path is where the API has the secret.
func (v *Vault) path(kv int) string {
	if kv == 2 {
		return v.config.Mount + "/data/" + v.config.Path
	}
	return v.config.Mount + "/" + v.config.Path
}
