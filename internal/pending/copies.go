package pending

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"rotatord/internal/rotation"
)

// This file seals and opens answers that are kept in another place than this directory.

// maxCopy is the largest ciphertext that OpenCopy decrypts, in bytes.
const maxCopy = 1 << 20

// SealCopy returns the sealed answer of a rotation, sealed again to the recipients that are configured now, and when
// it was sealed first. false: nothing is sealed for that rotation.
func (s *Store) SealCopy(_ context.Context, rotationID string) (ciphertext []byte, at time.Time, found bool, err error) {
	path, err := s.path(rotationID)
	if err != nil {
		return nil, time.Time{}, false, err
	}
	p, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && p.state == stateReserved {
		return nil, time.Time{}, false, nil
	}
	if errors.Is(err, errDamaged) {
		err = fmt.Errorf("%w: %w", rotation.ErrUnreadable, err)
	}
	if err != nil {
		return nil, time.Time{}, false, fmt.Errorf("the sealed secret of rotation %s: %w", rotationID, err)
	}
	plain, err := decrypt(p.ciphertext, s.identity)
	if err != nil {
		return nil, time.Time{}, false, fmt.Errorf("opening the sealed secret of rotation %s: %w: %w", rotationID, rotation.ErrUnreadable, err)
	}
	defer clear(plain)
	if ciphertext, err = encrypt(plain, s.recipients); err != nil {
		return nil, time.Time{}, false, fmt.Errorf("sealing a copy for rotation %s: %w", rotationID, err)
	}
	return ciphertext, p.at, true, nil
}

// OpenCopy opens what a SealCopy of this process or of another replica has returned. rotation.ErrUnreadable is in the
// error if it is damaged, or sealed to other identities.
func (s *Store) OpenCopy(rotationID string, ciphertext []byte) (rotation.Issued, error) {
	if s.closed.Load() {
		return rotation.Issued{}, errClosed
	}
	if len(ciphertext) > maxCopy {
		return rotation.Issued{}, fmt.Errorf("opening the sealed secret of rotation %s: %w: it has %d bytes", rotationID, rotation.ErrUnreadable, len(ciphertext))
	}
	return unseal(rotationID, ciphertext, s.identity)
}
