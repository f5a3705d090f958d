package sink

import (
	"context"
	"fmt"

	"rotatord/internal/rotation"
	"rotatord/internal/vault"
)

// ReadVersion implements [rotation.SinkHistory]. KV version 1 keeps no earlier versions. In version 2 how many
// are kept depends on max_versions, and each may have been deleted or destroyed.
func (v *Vault) ReadVersion(ctx context.Context, version int) (rotation.Credential, error) {
	if err := v.session.Ready(ctx, 0); err != nil {
		return rotation.Credential{}, err
	}
	kv, err := v.session.KVVersion(ctx, v.config.Mount)
	if err != nil {
		return rotation.Credential{}, err
	}
	if kv != 2 || version < 1 {
		return rotation.Credential{}, fmt.Errorf("%w: %s has version %d of KV, which keeps only what was written last", rotation.ErrNoVersion, v.path(kv), kv)
	}
	c, err := v.readVersion(ctx, version)
	if err != nil {
		v.session.ForgetKVVersion(v.config.Mount)
		return rotation.Credential{}, fmt.Errorf("reading version %d of %s: %w", version, v.path(kv), err)
	}
	return v.credential(c), nil
}

func (v *Vault) readVersion(ctx context.Context, version int) (content, error) {
	answer, err := v.session.Send(ctx, vault.Request{Path: v.path(2), Version: version})
	if err != nil {
		return content{}, err
	}
	c, err := readAnswer(2, answer)
	switch {
	case err != nil:
		return content{}, err
	case c.version == 0:
		return content{}, fmt.Errorf("it was never written, or is older than max_versions keeps: %w", rotation.ErrNoVersion)
	case c.version != version: // a proxy that drops the query
		return content{}, notVaults(answer, fmt.Sprintf("with version %d", c.version))
	case c.destroyed:
		return content{}, fmt.Errorf("it was destroyed: %w", rotation.ErrNoVersion)
	case c.fields == nil:
		return content{}, fmt.Errorf("it was deleted (vault kv undelete brings it back): %w", rotation.ErrNoVersion)
	}
	return c, nil
}
