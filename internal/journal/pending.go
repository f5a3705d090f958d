package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// identityFile is where the identity is kept that the daemon makes for itself.
const identityFile = "identity.age"

// reservation is about the size of a sealed answer. A rotation writes it before it asks
// for the secret, so that a full disk shows then, and so that the file is likely to have
// room for the answer: bbolt reuses the pages that the reservation leaves behind. It is no
// guarantee, since rotations of other tokens draw on the same pages.
const reservation = 2048

// envelope is what stands in the pending bucket under a rotation ID.
type envelope struct {
	Format   int       `json:"format"`
	At       time.Time `json:"at"`
	Reserved []byte    `json:"reserved,omitempty"` // padding
	Age      []byte    `json:"age,omitempty"`      // ciphertext of a sealedAnswer
}

// sealedAnswer is what is encrypted. It is the only place where a secret is marshalled.
type sealedAnswer struct {
	ClientID     string              `json:"client_id"`
	ClientSecret string              `json:"client_secret"`
	Facts        rotation.TokenFacts `json:"facts"`
	GraceEndsAt  time.Time           `json:"grace_ends_at,omitzero"`
}

// Sealed is one pending secret, without the secret.
type Sealed struct {
	RotationID string
	At         time.Time
}

// Reserve implements [rotation.Pending].
func (j *Journal) Reserve(_ context.Context, key rotation.PendingKey) error {
	return j.put(key.RotationID, envelope{Format: Format, At: j.now().UTC(), Reserved: make([]byte, reservation)})
}

// Seal implements [rotation.Pending].
func (j *Journal) Seal(_ context.Context, key rotation.PendingKey, issued rotation.Issued) error {
	plain, err := json.Marshal(sealedAnswer{
		ClientID: issued.ClientID, ClientSecret: issued.ClientSecret.Reveal(),
		Facts: issued.Facts, GraceEndsAt: issued.GraceEndsAt,
	})
	if err != nil {
		return err
	}
	defer clear(plain)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, j.identity.Recipient())
	if err != nil {
		return fmt.Errorf("sealing: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return fmt.Errorf("sealing: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("sealing: %w", err)
	}
	return j.put(key.RotationID, envelope{Format: Format, At: j.now().UTC(), Age: sealed.Bytes()})
}

// Open implements [rotation.Pending].
func (j *Journal) Open(_ context.Context, rotationID string) (rotation.Issued, bool, error) {
	var e envelope
	err := j.db.View(func(tx *bbolt.Tx) (err error) {
		e, err = decodeEnvelope(rotationID, tx.Bucket(pendingBucket).Get([]byte(rotationID)))
		return err
	})
	if err != nil || e.Age == nil {
		return rotation.Issued{}, false, err
	}
	r, err := age.Decrypt(bytes.NewReader(e.Age), j.identity)
	if err != nil {
		return rotation.Issued{}, false, fmt.Errorf("opening the sealed secret of rotation %s: %w", rotationID, err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		return rotation.Issued{}, false, fmt.Errorf("opening the sealed secret of rotation %s: %w", rotationID, err)
	}
	defer clear(plain)
	var a sealedAnswer
	if err := json.Unmarshal(plain, &a); err != nil {
		// The decoder's error may quote what it read.
		return rotation.Issued{}, false, fmt.Errorf("the sealed secret of rotation %s is not in the format of this version", rotationID)
	}
	return rotation.Issued{
		Credential:  rotation.Credential{ClientID: a.ClientID, ClientSecret: secret.New(a.ClientSecret)},
		Facts:       a.Facts,
		GraceEndsAt: a.GraceEndsAt,
	}, true, nil
}

// Erase implements [rotation.Pending].
func (j *Journal) Erase(_ context.Context, rotationID string) error {
	return j.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(pendingBucket).Delete([]byte(rotationID))
	})
}

// Sealed lists the secrets that wait to be confirmed by a sink. Reservations are not
// among them.
func (j *Journal) Sealed() ([]Sealed, error) {
	var all []Sealed
	err := j.db.View(func(tx *bbolt.Tx) error { return forEachSealed(tx, func(s Sealed) { all = append(all, s) }) })
	return all, err
}

func forEachSealed(tx *bbolt.Tx, do func(Sealed)) error {
	return tx.Bucket(pendingBucket).ForEach(func(k, v []byte) error {
		e, err := decodeEnvelope(string(k), v)
		if err == nil && e.Age != nil {
			do(Sealed{RotationID: string(k), At: e.At})
		}
		return err
	})
}

func (j *Journal) put(rotationID string, e envelope) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return j.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(pendingBucket).Put([]byte(rotationID), b)
	})
}

func decodeEnvelope(rotationID string, b []byte) (e envelope, err error) {
	if b == nil {
		return e, nil
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("the pending entry of rotation %s cannot be read: %w", rotationID, err)
	}
	if e.Format > Format {
		return e, fmt.Errorf("the pending entry of rotation %s has format version %d and this rotatord reads up to %d: "+
			"use the version that wrote it", rotationID, e.Format, Format)
	}
	return e, nil
}

// loadIdentity reads the identity, or makes it on first start. It is never made anew
// while there are secrets that only the lost one can open.
func (j *Journal) loadIdentity(o Options) (*age.X25519Identity, error) {
	if o.Identity != nil {
		text, err := o.Identity()
		if err != nil {
			return nil, fmt.Errorf("the configured age identity: %w", err)
		}
		return parseIdentity("the configured age identity", text)
	}
	path := filepath.Join(o.Dir, identityFile)
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if mode := info.Mode().Perm(); mode&0o007 != 0 {
			return nil, fmt.Errorf("%s is open to every user (mode %04o): run chmod 0600 %s", path, mode, path)
		}
		return parseIdentity(path, string(b))
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("reading the age identity: %w", err)
	}
	sealed, err := j.Sealed()
	if err != nil {
		return nil, err
	}
	if len(sealed) > 0 {
		return nil, fmt.Errorf("%s is gone, and %d sealed secrets wait that only it can open: restore it from a backup. "+
			"A new identity is not made, since it could not open them", path, len(sealed))
	}
	return makeIdentity(o.Dir, path)
}

func parseIdentity(where, text string) (*age.X25519Identity, error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		identity, err := age.ParseX25519Identity(line)
		if err != nil {
			return nil, fmt.Errorf("%s is not an age X25519 identity (AGE-SECRET-KEY-1..., as age-keygen prints it)", where)
		}
		return identity, nil
	}
	return nil, fmt.Errorf("%s is empty", where)
}

// makeIdentity writes a new identity so that either the whole file is there after a
// crash, or none.
func makeIdentity(dir, path string) (*age.X25519Identity, error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("# made by rotatord; it opens the sealed secrets in this directory\n# public key: %s\n%s\n", identity.Recipient(), identity)
	f, err := os.CreateTemp(dir, ".identity-*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("making the age identity: %w", err)
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making the age identity: %w", err), os.Remove(f.Name()))
	}
	return identity, nil
}
