package pending

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"filippo.io/age"

	"rotatord/internal/durable"
	"rotatord/internal/ownpath"
	"rotatord/internal/secret"
	"rotatord/internal/smallfile"
)

// Box keeps one secret that is not an answer of Cloudflare, such as the secret ID with which the daemon logs in to Vault.
// It is sealed to the daemon's identity alone: other recipients can open answers, and need nothing else.
type Box struct {
	store *Store
	path  string
}

// Box returns the box that is the file path, which need not exist.
func (s *Store) Box(path string) Box { return Box{s, path} }

// Keep replaces the content. When it returns nil, the content survives a crash of the process and of the machine.
func (b Box) Keep(v secret.Value) error {
	if b.store.closed.Load() {
		return errClosed
	}
	sealed, err := encrypt([]byte(v.Reveal()), []age.Recipient{b.store.identity.Recipient()})
	if err == nil {
		err = b.store.writes.Do(func() error { return durable.WriteFile(b.path, sealed, 0o600) })
	}
	if err != nil {
		return fmt.Errorf("keeping %s: %w", filepath.Base(b.path), err)
	}
	return nil
}

// Kept returns the content, and the zero Value if there is none. Another file in its place, and a file that other users
// may read or that the identity cannot open, are errors.
func (b Box) Kept() (secret.Value, error) {
	sealed, err := smallfile.Read(context.Background(), b.path, smallfile.MaxSecret)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return secret.Value{}, nil
	case err == nil:
		err = errors.Join(ownpath.Check(b.path), ownpath.Private(b.path, 0o600))
	}
	if err != nil {
		return secret.Value{}, err
	}
	plain, err := decrypt(sealed, b.store.identity)
	if _, other := errors.AsType[*age.NoIdentityMatchError](err); other {
		return secret.Value{}, fmt.Errorf("%s is sealed to another age identity", b.path)
	} else if err != nil {
		return secret.Value{}, fmt.Errorf("%s is damaged", b.path) // age's error may contain what it read
	}
	defer clear(plain)
	return secret.New(string(plain)), nil
}
