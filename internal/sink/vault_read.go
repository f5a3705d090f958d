package sink

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"rotatord/internal/rotation"
	"rotatord/internal/vault"
)

// This file reads what is stored with as few requests as possible. It remembers two things: the KV version of
// the mount, until an answer does not prove it; and what Preflight has read, until the write.

// takeBase returns what Preflight has read, if it is what the delivery has as its base.
func (v *Vault) takeBase(of rotation.Stored) (content, bool) {
	base, ok := v.base.take()
	if !ok {
		return content{}, false
	}
	seen := v.stored(base)
	return base, seen.Version == of.Version && seen.Digest == of.Digest && seen.WrittenAt.Equal(of.WrittenAt)
}

// baseFor returns what a write is against. In KV version 2 that is what Preflight has read, without a
// request. If it has the credential already, it is read again: Store confirms only what it has read back.
func (v *Vault) baseFor(ctx context.Context, d rotation.Delivery) (kv int, now content, err error) {
	now, ok := v.takeBase(d.Base)
	if ok && v.credential(now).ClientSecret.Equal(d.ClientSecret) {
		ok = false
	}
	if ok {
		return 2, now, nil
	}
	return v.look(ctx)
}

// look reads what is stored, by the rules of the KV version that the mount was known to have. A mount can be
// upgraded to version 2 at any time, or be replaced by another one. So an answer counts only if it proves
// the version; otherwise Vault is asked for the version again. An answer that shows nothing, or an
// error, proves neither.
func (v *Vault) look(ctx context.Context) (kv int, now content, err error) {
	kv, known := v.session.KnownKVVersion(v.config.Mount)
	if !known || kv == 1 && reserved(v.config.Path) {
		return v.lookAsking(ctx)
	}
	now, err = v.read(ctx, kv, "")
	switch {
	case err == nil && (now.fields != nil || now.version > 0):
		return kv, now, nil
	case err != nil && !contradicts(err):
		return kv, content{}, err
	}
	v.session.ForgetKVVersion(v.config.Mount)
	asked, askErr := v.session.KVVersion(ctx, v.config.Mount)
	switch {
	case askErr != nil:
		return 0, content{}, errors.Join(err, askErr)
	case asked == kv:
		return kv, now, err
	}
	now, err = v.read(ctx, asked, "")
	return asked, now, err
}

// lookAsking asks for the KV version of the mount before it reads.
func (v *Vault) lookAsking(ctx context.Context) (kv int, now content, err error) {
	v.session.ForgetKVVersion(v.config.Mount)
	if kv, err = v.session.KVVersion(ctx, v.config.Mount); err != nil {
		return 0, content{}, err
	}
	now, err = v.read(ctx, kv, "")
	return kv, now, err
}

// contradicts reports whether an error may be the answer of a mount of another KV version, or of another
// policy: one that Vault or another server has given, and not that it cannot answer now.
func contradicts(err error) bool {
	if _, odd := errors.AsType[*foreign](err); odd {
		return true
	}
	status := vault.StatusOf(err)
	return refused(err) && status != http.StatusPreconditionFailed
}

// reserved reports whether a path of KV version 1 is one of the paths of the API of version 2. After an
// upgrade such a path would be answered, and with something else than what is stored there.
func reserved(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return slices.Contains([]string{"config", "data", "metadata", "delete", "undelete", "destroy", "subkeys"}, first)
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
