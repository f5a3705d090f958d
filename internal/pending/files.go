package pending

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"filippo.io/age"

	"rotatord/internal/durable"
	"rotatord/internal/rotation"
	"rotatord/internal/smallfile"
)

// Sealed describes one sealed secret, without the secret.
type Sealed struct {
	rotation.PendingKey // without names if they are not known
	// At is when it was sealed.
	At time.Time
	// Damage is nil, or says why it cannot be opened.
	Damage error
}

// File is a sealed secret with its ciphertext.
type File struct {
	Sealed
	ciphertext []byte
}

// NewFile returns a sealed secret that is not in a file of its own.
func NewFile(key rotation.PendingKey, at time.Time, ciphertext []byte) File {
	return File{Sealed{PendingKey: key, At: at}, ciphertext}
}

// Open decrypts the secret.
func (f File) Open(identities []age.Identity) (rotation.Issued, error) {
	if f.Damage != nil {
		return rotation.Issued{}, fmt.Errorf("the sealed secret of rotation %s: %w", f.RotationID, f.Damage)
	}
	return unseal(f.RotationID, f.ciphertext, identities...)
}

// Write creates the file of an answer that is sealed already.
func (f File) Write(dir string) error {
	path, err := pathOf(dir, f.RotationID)
	if err != nil {
		return err
	}
	return writeSealed(path, f.PendingKey, f.At, f.ciphertext)
}

// List returns the sealed secrets in a directory: those that wait to be confirmed by a sink, and those
// that no rotation needs any more. Reservations are not among them.
func List(dir string) ([]Sealed, error) {
	var all []Sealed
	err := forEach(dir, func(path string, p parsed, damage error) error {
		if p.state == stateReserved && damage == nil {
			return nil
		}
		all = append(all, sealedOf(path, p, damage))
		return nil
	})
	return all, err
}

// ReadAll returns the same secrets as [List], with their ciphertexts. A file that may not be read is an
// error.
func ReadAll(dir string) ([]File, error) {
	var all []File
	err := forEach(dir, func(path string, p parsed, damage error) error {
		if p.state == stateReserved && damage == nil {
			return nil
		}
		if errors.Is(damage, fs.ErrPermission) {
			return damage
		}
		all = append(all, File{sealedOf(path, p, damage), p.ciphertext})
		return nil
	})
	return all, err
}

// Remove deletes the sealed secret of a rotation for good. refuse is called first with what the file
// contains; if it returns an error, the file stays.
func Remove(dir, rotationID string, refuse func(Sealed) error) error {
	path, err := pathOf(dir, rotationID)
	if err != nil {
		return err
	}
	p, damage := readFile(path)
	if errors.Is(damage, fs.ErrNotExist) {
		return fmt.Errorf("nothing is sealed for rotation %s", rotationID)
	}
	if err := refuse(sealedOf(path, p, damage)); err != nil {
		return err
	}
	return durable.Remove(path)
}

// Rotation IDs become file names. rotatord itself gives a rotation 26 letters and digits.
var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)

func pathOf(dir, rotationID string) (string, error) {
	if !validID.MatchString(rotationID) {
		return "", fmt.Errorf("%q is not a rotation ID: it must consist of letters and digits", rotationID)
	}
	return filepath.Join(dir, rotationID), nil
}

// sealedOf describes a file. If the file is too damaged to say when it was sealed, the time is when the
// file was last written.
func sealedOf(path string, p parsed, damage error) Sealed {
	if p.at.IsZero() {
		if info, err := os.Stat(path); err == nil {
			p.at = info.ModTime().UTC()
		}
	}
	return Sealed{PendingKey: p.key, At: p.at, Damage: damage}
}

// forEach calls do for each file in the directory whose name is a rotation ID. damage says why the
// content cannot be used.
func forEach(dir string, do func(path string, p parsed, damage error) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the directory of the sealed secrets: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !validID.MatchString(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		p, damage := readFile(path)
		if errors.Is(damage, fs.ErrNotExist) {
			continue // erased since the directory was read
		}
		if err := do(path, p, damage); err != nil {
			return err
		}
	}
	return nil
}

// maxFile limits the size of a file. A sealed secret has 8 KiB, and a little more for each recipient.
const maxFile = 16 << 20

// readFile returns the content of a file. The error says why the content cannot be used.
func readFile(path string) (parsed, error) {
	b, err := smallfile.Read(context.Background(), path, maxFile)
	if err != nil {
		return parsed{key: rotation.PendingKey{RotationID: filepath.Base(path)}}, err
	}
	p, err := parse(filepath.Base(path), b)
	if err == nil && p.state == stateDamaged {
		err = errDamaged
	}
	return p, err
}
