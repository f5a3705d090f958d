package sink

import (
	"context"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// ReadBack implements [rotation.SinkReader].
func (v *Vault) ReadBack(ctx context.Context) (rotation.Credential, error) {
	if err := v.session.Ready(ctx, 0); err != nil {
		return rotation.Credential{}, err
	}
	kv, err := v.session.KVVersion(ctx, v.config.Mount)
	if err != nil {
		return rotation.Credential{}, err
	}
	now, err := v.read(ctx, kv, "")
	if err != nil {
		return rotation.Credential{}, err
	}
	var c rotation.Credential
	c.ClientID, _ = now.fields[v.config.ClientIDField].(string)
	value, _ := now.fields[v.config.ClientSecretField].(string)
	c.ClientSecret = secret.New(value)
	return c, nil
}
