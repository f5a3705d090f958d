// Package sink delivers credentials to where consumers read them.
//
// Guarantees of every sink: Store returns nil only after the credential was read back and
// found equal; what else is stored beside it stays; a write whose answer was lost is
// settled by reading and not by writing again; no error contains a secret. The suite in
// sinktest holds each sink to them.
package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/vault"
)

const (
	// sessionMargin is how long the session must last for a rotation to begin.
	sessionMargin = 10 * time.Second
	// maxConflicts is how many writes by others in a row are merged before giving up
	// until the next attempt, and conflictPause how long to wait for each.
	maxConflicts  = 8
	conflictPause = 50 * time.Millisecond
)

// Vault is one secret in a KV mount of version 1 or 2. It implements [rotation.Sink].
//
// On version 2 every write is check-and-set, so nobody's write is lost, and mounts with
// cas_required work. Version 1 has no check-and-set: a write by somebody else in the
// moment between our reading and our writing is lost there, and only there.
type Vault struct {
	session *vault.Session
	config  config.VaultSink
}

// NewVault returns a sink for one path.
func NewVault(session *vault.Session, c config.VaultSink) *Vault {
	return &Vault{session: session, config: c}
}

// Name implements [rotation.Sink].
func (v *Vault) Name() string { return "vault:" + v.config.Mount + "/" + v.config.Path }

// content is a secret as it was read: all its fields, and its version.
type content struct {
	fields  map[string]any // nil if there is nothing, or if the latest version is deleted
	version int            // of KV version 2; also of a deleted latest version
}

func (v *Vault) stored(c content) rotation.Stored {
	s := rotation.Stored{Exists: c.fields != nil, Version: c.version}
	s.ClientID, _ = c.fields[v.config.ClientIDField].(string)
	value, _ := c.fields[v.config.ClientSecretField].(string)
	s.Digest = secret.New(value).Digest()
	return s
}

// Preflight implements [rotation.Sink].
func (v *Vault) Preflight(ctx context.Context) (rotation.Stored, error) {
	if err := v.session.Ready(ctx, sessionMargin); err != nil {
		return rotation.Stored{}, err
	}
	// Asked anew for each rotation. A mount can be upgraded to version 2 at any time, and by
	// the rules of version 1 every secret in it would then seem absent, and none be writable.
	v.session.ForgetKVVersion(v.config.Mount)
	kv, err := v.session.KVVersion(ctx, v.config.Mount)
	if err != nil {
		return rotation.Stored{}, err
	}
	now, err := v.read(ctx, kv)
	if err != nil {
		return rotation.Stored{}, err
	}
	return v.stored(now), v.writable(ctx, kv, now)
}

// writable asks Vault whether the token may write here. It is the only proof there is
// without writing.
func (v *Vault) writable(ctx context.Context, kv int, now content) error {
	path := v.path(kv)
	answer, err := v.session.Write(ctx, "sys/capabilities-self", map[string]any{"paths": []string{path}})
	if err != nil {
		return fmt.Errorf("asking what the token may do at %s: %w", path, err)
	}
	var have []string
	if answer != nil {
		list, _ := answer.Data[path].([]any)
		for _, c := range list {
			if name, ok := c.(string); ok {
				have = append(have, name)
			}
		}
	}
	// Which of the two Vault asks for depends on whether there is something already.
	need := "create"
	if now.fields != nil || now.version > 0 {
		need = "update"
	}
	if slices.Contains(have, "root") || slices.Contains(have, need) {
		return nil
	}
	return fmt.Errorf("the policy does not allow %s at %s (it allows: %s): add to it\n  path %q { capabilities = [\"create\", \"read\", \"update\"] }",
		need, path, strings.Join(have, ", "), path)
}

// Store implements [rotation.Sink]. It reads again rather than trust the base: the write is
// then check-and-set against the very fields that it keeps.
func (v *Vault) Store(ctx context.Context, c rotation.Credential, _ rotation.Stored) (stored rotation.Stored, err error) {
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
	for range maxConflicts {
		now, err := v.read(ctx, kv)
		if err != nil {
			return rotation.Stored{}, err
		}
		if v.holds(now, c) {
			return v.stored(now), nil
		}
		writeErr := v.write(ctx, kv, now, c)
		if writeErr != nil && refused(writeErr) && !conflict(writeErr) {
			return rotation.Stored{}, fmt.Errorf("writing %s: %w", v.path(kv), writeErr)
		}
		// Whatever the answer was, or if none came: what is there now decides.
		after, err := v.read(ctx, kv)
		if err != nil {
			return rotation.Stored{}, errors.Join(writeErr, fmt.Errorf("reading back: %w", err))
		}
		if v.holds(after, c) {
			return v.stored(after), nil
		}
		if writeErr != nil && !conflict(writeErr) {
			// It may still arrive. Its check-and-set will fit only if nothing else was
			// written, so the next attempt can begin with a reading like this one.
			return rotation.Stored{}, fmt.Errorf("writing %s: %w", v.path(kv), writeErr)
		}
		if err := pause(ctx); err != nil {
			return rotation.Stored{}, err
		}
	}
	return rotation.Stored{}, fmt.Errorf("%s was changed by somebody else %d times in a row while it was to be written", v.path(kv), maxConflicts)
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

func (v *Vault) read(ctx context.Context, kv int) (content, error) {
	answer, err := v.session.Read(ctx, v.path(kv))
	if err != nil {
		return content{}, fmt.Errorf("reading %s: %w", v.path(kv), err)
	}
	if answer == nil {
		return content{}, nil
	}
	if kv == 1 {
		return content{fields: answer.Data}, nil
	}
	var c content
	c.fields, _ = answer.Data["data"].(map[string]any) // null if the version is deleted
	metadata, _ := answer.Data["metadata"].(map[string]any)
	number, _ := metadata["version"].(json.Number)
	version, err := number.Int64()
	if err != nil {
		return content{}, fmt.Errorf("reading %s: the answer has no version: is %s/ a KV mount of version 2?", v.path(kv), v.config.Mount)
	}
	c.version = int(version)
	return c, nil
}

// write puts our two fields among those that are there.
func (v *Vault) write(ctx context.Context, kv int, now content, c rotation.Credential) error {
	fields := maps.Clone(now.fields)
	if fields == nil {
		fields = make(map[string]any, 2)
	}
	fields[v.config.ClientIDField] = c.ClientID
	fields[v.config.ClientSecretField] = c.ClientSecret.Reveal()
	body := fields
	if kv == 2 {
		body = map[string]any{"data": fields, "options": map[string]any{"cas": now.version}}
	}
	_, err := v.session.Write(ctx, v.path(kv), body)
	return err
}

// refused reports whether Vault answered that it did not write.
func refused(err error) bool {
	status := vault.StatusOf(err)
	return status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests
}

// conflict reports whether somebody else wrote since we read.
func conflict(err error) bool {
	return vault.StatusOf(err) == http.StatusBadRequest && strings.Contains(err.Error(), "check-and-set")
}

func pause(ctx context.Context) error {
	timer := time.NewTimer(conflictPause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
