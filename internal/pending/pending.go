// Package pending keeps issued secrets on the local disk, sealed with age, until every sink has
// confirmed them. Each sealed answer is a file of its own.
//
// Guarantees, on a file system that overwrites in place (ext4, XFS; not btrfs or ZFS):
//
//   - When [Store.Seal] returns nil, the secret survives a crash of the process and of the machine.
//   - A Seal after a [Store.Reserve] needs no free space. If the disk fills up between the two, the
//     answer is still sealed, however many rotations are between the two at once.
//   - A secret is on the disk only as age ciphertext. Whoever has the directory but not the identity
//     learns which tokens exist and when they were rotated, but not a secret.
//   - A damaged file is an error that says so; it is never taken for an answer, and never for a
//     rotation without an answer. See layout.go for the limit.
package pending

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"

	"rotatord/internal/durable"
	"rotatord/internal/rotation"
	"rotatord/internal/smallfile"
)

// The names in a state directory.
const (
	DirName      = "pending"      // the directory of the sealed secrets
	IdentityName = "identity.age" // the identity that the daemon creates for itself
)

// Store is an open directory of sealed secrets. It implements [rotation.Pending] and is safe for
// concurrent use.
type Store struct {
	dir        string
	files      *durable.Dir // the same; rotations at the same time share its syncs
	identity   *age.X25519Identity
	recipients []age.Recipient // whom secrets are sealed to, the identity included
	usable     func() error

	closed atomic.Bool
	spare  spare
	writes durable.LastWrite

	mu    sync.Mutex
	noted map[string]Sealed // what [Store.Noted] returns, by rotation
}

// Options say where sealed secrets are and what seals them.
type Options struct {
	// Dir is the directory of the sealed secrets. It exists.
	Dir string
	// Identity returns an age identity, as age-keygen prints it. nil: the identity is in IdentityFile,
	// which is created if there is nothing yet that it would have to open.
	Identity     func() (string, error)
	IdentityFile string
	// Recipients are further age recipients (age1...). Whoever has the identity of one of them can
	// open every sealed secret.
	Recipients []string
	// Unfinished reports whether a rotation in the ledger is unfinished. Only such a rotation can still
	// use its reservation or its sealed answer. nil: the ledger is not read yet, and [Store.Adopt] is called
	// when it is.
	Unfinished func(rotationID string) bool
	// Usable returns why no rotation may begin, for example because the ledger is gone. It is asked
	// before each reservation.
	Usable func() error
}

// Open opens a directory of sealed secrets, and tidies up what a process left that died. It refuses an
// identity that cannot open the secrets of unfinished rotations.
func Open(o Options) (*Store, error) {
	s := &Store{dir: o.Dir, files: durable.NewDir(o.Dir), usable: o.Usable}
	s.spare.fill()
	err := s.open(o)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open(o Options) (err error) {
	if s.identity, err = loadIdentity(o); err != nil {
		return err
	}
	if s.recipients, err = parseRecipients(s.identity, o.Recipients); err != nil {
		return err
	}
	if o.Unfinished == nil {
		return s.tidyUp(func(string) bool { return true })
	}
	return s.Adopt(o.Unfinished)
}

// Adopt compares the sealed secrets with the ledger, before the first rotation of this process: see
// [Options.Unfinished]. It removes reservations that nothing can use any more, and refuses an identity that cannot
// open the secrets of unfinished rotations.
func (s *Store) Adopt(isUnfinished func(rotationID string) bool) error {
	if err := s.tidyUp(isUnfinished); err != nil {
		return err
	}
	return s.checkIdentity(isUnfinished)
}

// PublicKey returns the age recipient (age1...) of the identity that opens sealed secrets.
func (s *Store) PublicKey() string { return s.identity.Recipient().String() }

// Recipients returns the age recipients (age1...) that secrets are sealed to, that of the identity included.
func (s *Store) Recipients() (all []string) {
	for _, r := range s.recipients {
		all = append(all, fmt.Sprint(r))
	}
	return all
}

// tidyUp removes reservations that no unfinished rotation can use any more, ends seals that were cut
// short when the answer was already on the disk, and removes temporary files.
func (s *Store) tidyUp(isUnfinished func(rotationID string) bool) error {
	noted := make(map[string]Sealed)
	err := forEach(s.dir, func(path string, p parsed, damage error) error {
		if damage != nil || p.state != stateReserved {
			noted[filepath.Base(path)] = sealedOf(path, p, damage)
		}
		switch {
		case damage != nil:
		case p.state == stateReserved && !isUnfinished(p.key.RotationID):
			return os.Remove(path)
		case p.state == stateCutShort:
			return finishSeal(path, p)
		}
		return nil
	})
	if err = errors.Join(err, durable.CleanDir(s.dir), durable.SyncDir(s.dir)); err != nil {
		return fmt.Errorf("tidying up the sealed secrets: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted = noted
	return nil
}

// DropReservations removes the reservations that were made before a time and that keep does not want. An answer that
// comes later is sealed without one, if the disk has space.
func (s *Store) DropReservations(before time.Time, keep func(rotation.PendingKey) bool) error {
	if s.closed.Load() {
		return errClosed
	}
	return forEach(s.dir, func(path string, p parsed, damage error) error {
		if damage != nil || p.state != stateReserved || keep(p.key) {
			return nil
		}
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.ModTime().Before(before) {
			return nil
		}
		if err == nil {
			err = s.writes.Remove(func() error { return durable.Remove(path) })
		}
		return err
	})
}

var errClosed = errors.New("the sealed secrets are closed")

// Close ends the use of the store. Every later call fails, with one exception: if an answer arrives
// late, in a process that could not wait for it, Seal still writes it to its reservation. That is
// harmless for another process that has opened the directory by then.
func (s *Store) Close() error {
	s.closed.Store(true)
	return s.spare.drop()
}

// LastWrite returns when an answer or a reservation was last written, or when that was last tried, and
// the error. The time is zero if nothing was written since the store was opened.
func (s *Store) LastWrite() (time.Time, error) { return s.writes.Get() }

// Reserve implements [rotation.Pending]. The space belongs to the rotation: Seal overwrites it in place.
func (s *Store) Reserve(_ context.Context, key rotation.PendingKey) error {
	path, err := s.path(key.RotationID)
	if err != nil {
		return err
	}
	if err = s.usable(); err == nil {
		if _, statErr := os.Lstat(path); statErr == nil {
			err = fmt.Errorf("rotation %s has it already", key.RotationID)
		} else {
			err = s.writeReservation(path, key)
		}
	}
	if err != nil {
		return fmt.Errorf("reserving space for the answer: %w", err)
	}
	return nil
}

func (s *Store) writeReservation(path string, key rotation.PendingKey) error {
	file, err := layOut(key, bodySpace(len(s.recipients)), frame("mark", []byte(reserved)), nil)
	if err != nil {
		return err
	}
	return s.writes.Do(func() error { return s.files.WriteFile(filepath.Base(path), file, 0o600) })
}

// proofName is the file that Prove writes. It is not a valid rotation ID, and the next start removes
// what a crash leaves of it.
const proofName = durable.Prefix + "proof"

// Prove reserves space for an answer and gives it back. It returns why a rotation could not begin. It
// counts as a write: see [Store.LastWrite].
func (s *Store) Prove(context.Context) error {
	if s.closed.Load() {
		return errClosed
	}
	path := filepath.Join(s.dir, proofName)
	err := s.writeReservation(path, rotation.PendingKey{})
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("there is no space for an answer: %w", err)
	}
	return nil
}

// Seal implements [rotation.Pending]. If the same answer is sealed already, Seal makes it durable again,
// in case the first call failed halfway. It refuses a different answer for the same rotation.
func (s *Store) Seal(_ context.Context, key rotation.PendingKey, issued rotation.Issued) error {
	path, err := pathOf(s.dir, key.RotationID)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(answerOf(issued))
	if err != nil {
		return err
	}
	defer clear(plain)
	ciphertext, err := encrypt(plain, s.recipients)
	var at time.Time
	if err == nil {
		err = s.writes.Do(func() error {
			return s.spare.use(func() (err error) {
				at, err = s.seal(path, key, plain, ciphertext)
				return err
			})
		})
	}
	if err != nil {
		return fmt.Errorf("sealing: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted[key.RotationID] = Sealed{PendingKey: key, At: at}
	return nil
}

// seal writes an answer, and returns since when it is sealed.
func (s *Store) seal(path string, key rotation.PendingKey, plain, ciphertext []byte) (time.Time, error) {
	at := time.Now()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) && s.closed.Load() {
		return time.Time{}, errClosed
	}
	if errors.Is(err, fs.ErrNotExist) {
		return at, writeSealed(path, key, at, ciphertext)
	}
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	b, err := smallfile.ReadFrom(f, path, maxFile, info.Size())
	if err != nil {
		return time.Time{}, err
	}
	p, err := parse(key.RotationID, b)
	if err != nil {
		return time.Time{}, err
	}
	switch p.state {
	case stateReserved:
		return at, overwrite(f, at, ciphertext)
	case stateDamaged:
		return at, writeSealed(path, key, at, ciphertext)
	}
	before, err := decrypt(p.ciphertext, s.identity)
	if err != nil {
		return time.Time{}, fmt.Errorf("rotation %s has a sealed answer already: %w", key.RotationID, err)
	}
	defer clear(before)
	if !bytes.Equal(before, plain) {
		return time.Time{}, fmt.Errorf("rotation %s has another sealed answer already", key.RotationID)
	}
	return p.at, overwrite(f, p.at, p.ciphertext)
}

// overwrite writes an answer into its reserved space. A larger answer makes the file longer, if the disk
// has space.
func overwrite(f *os.File, at time.Time, ciphertext []byte) error {
	if _, err := f.WriteAt(bodyOf(at, ciphertext), bodyAt); err != nil {
		return err
	}
	if err := durable.SyncData(f); err != nil {
		return err
	}
	if _, err := f.WriteAt(markOf(at), markAt); err != nil {
		return err
	}
	return durable.SyncData(f)
}

// finishSeal ends a seal that was cut short. It writes the body again, because that may not be durable
// yet.
func finishSeal(path string, p parsed) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(overwrite(f, p.at, p.ciphertext), f.Close())
}

// writeSealed creates a file that is sealed from the start.
func writeSealed(path string, key rotation.PendingKey, at time.Time, ciphertext []byte) error {
	file, err := layOut(key, 0, markOf(at), bodyOf(at, ciphertext))
	if err != nil {
		return err
	}
	return durable.WriteFile(path, file, 0o600)
}

// Open implements [rotation.Pending].
func (s *Store) Open(_ context.Context, rotationID string) (rotation.Issued, bool, error) {
	path, err := s.path(rotationID)
	if err != nil {
		return rotation.Issued{}, false, err
	}
	p, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && p.state == stateReserved {
		return rotation.Issued{}, false, nil
	}
	if errors.Is(err, errDamaged) {
		err = fmt.Errorf("%w: %w", rotation.ErrUnreadable, err)
	}
	if err != nil {
		return rotation.Issued{}, false, fmt.Errorf("the sealed secret of rotation %s: %w", rotationID, err)
	}
	issued, err := unseal(rotationID, p.ciphertext, s.identity)
	return issued, err == nil, err
}

// Erase implements [rotation.Pending].
func (s *Store) Erase(_ context.Context, rotationID string) error {
	path, err := s.path(rotationID)
	if err != nil {
		return err
	}
	if err := s.writes.Remove(func() error { return s.files.Remove(filepath.Base(path)) }); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.noted, rotationID)
	return nil
}

// Sealed returns the sealed secrets: see [List].
func (s *Store) Sealed() ([]Sealed, error) { return List(s.dir) }

// Noted returns the sealed secrets in no order, as this process found them at its start and changed them since then. It does
// not look at the disk, so a file that was damaged meanwhile does not say so.
func (s *Store) Noted() []Sealed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.AppendSeq(make([]Sealed, 0, len(s.noted)), maps.Values(s.noted))
}

// path returns the file of a rotation. It is an error if the store is closed.
func (s *Store) path(rotationID string) (string, error) {
	path, err := pathOf(s.dir, rotationID)
	if err == nil && s.closed.Load() {
		err = errClosed
	}
	return path, err
}
