package shared

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"rotatord/internal/kvstore"
	"rotatord/internal/pending"
	"rotatord/internal/rotation"
)

// Sealer seals and opens copies. [*pending.Store] is one.
type Sealer interface {
	SealCopy(ctx context.Context, rotationID string) (ciphertext []byte, at time.Time, found bool, err error)
	OpenCopy(rotationID string, ciphertext []byte) (rotation.Issued, error)
}

// Copies keeps copies of sealed answers beside the ledger. It implements [rotation.Copies] and is safe for concurrent
// use.
//
// A copy is sealed to the identity of the replica that makes it and to its recipients. A replica that has neither
// cannot open it.
type Copies struct {
	kv     kvstore.KV
	sealer Sealer
	by     string
}

var _ rotation.Copies = (*Copies)(nil)

// NewCopies returns the copies in a store. by is the name of this replica, for people.
func NewCopies(kv kvstore.KV, sealer Sealer, by string) *Copies { return &Copies{kv, sealer, by} }

// sealedCopy is the content of the entry of a copy.
type sealedCopy struct {
	Format     int       `json:"format"`
	RotationID string    `json:"rotation_id"`
	Token      string    `json:"token"`
	TokenID    string    `json:"token_id"`
	SealedAt   time.Time `json:"sealed_at"`
	By         string    `json:"by"`
	Age        []byte    `json:"age"` // the ciphertext
}

// Rotation IDs become names of entries. rotatord itself gives a rotation 26 letters and digits.
var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)

func pathOfCopy(rotationID string) (string, error) {
	if !validID.MatchString(rotationID) {
		return "", fmt.Errorf("%q is not a rotation ID: it must consist of letters and digits", rotationID)
	}
	return dirPending + "/" + rotationID, nil
}

// Copy implements [rotation.Copies]. It sends two requests, and one if there is a copy already.
func (c *Copies) Copy(ctx context.Context, key rotation.PendingKey) error {
	path, err := pathOfCopy(key.RotationID)
	if err != nil {
		return err
	}
	e, err := c.kv.Get(ctx, path)
	if err != nil {
		return fmt.Errorf("looking for a copy of the sealed answer: %w", err)
	}
	if e.Version > 0 {
		if _, err := c.open(key.RotationID, e); err == nil {
			return nil
		}
	}
	ciphertext, at, found, err := c.sealer.SealCopy(ctx, key.RotationID)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("there is no sealed answer of rotation %s on this disk to copy", key.RotationID)
	}
	_, err = c.kv.Put(ctx, path, sealedCopy{Format, key.RotationID, key.Token, key.TokenID, at.UTC(), c.by, ciphertext}, e.Version)
	if err != nil {
		return fmt.Errorf("copying the sealed answer to Vault: %w", err)
	}
	return nil
}

// Open implements [rotation.Copies]. It sends one request.
func (c *Copies) Open(ctx context.Context, rotationID string) (rotation.Issued, bool, error) {
	path, err := pathOfCopy(rotationID)
	if err != nil {
		return rotation.Issued{}, false, err
	}
	e, err := c.kv.Get(ctx, path)
	if errors.Is(err, kvstore.ErrDeleted) {
		err = fmt.Errorf("%w: %w", rotation.ErrUnreadable, err)
	}
	if err != nil || e.Version == 0 {
		return rotation.Issued{}, false, err
	}
	issued, err := c.open(rotationID, e)
	return issued, err == nil, err
}

func (c *Copies) open(rotationID string, e kvstore.Entry) (rotation.Issued, error) {
	s, err := c.decode(rotationID, e)
	if err != nil {
		return rotation.Issued{}, err
	}
	issued, err := c.sealer.OpenCopy(rotationID, s.Age)
	if pending.SealedToOthers(err) {
		return rotation.Issued{}, fmt.Errorf("the copy by replica %s is not sealed to this replica. Add the public key of this replica to its state.recipients, or give all replicas one state.identity; "+
			"whoever has the identity of %s reads it with rotatord recover: %w", s.By, s.By, err)
	}
	return issued, err
}

// decode returns the content of the entry of a copy.
func (c *Copies) decode(rotationID string, e kvstore.Entry) (s sealedCopy, err error) {
	var about struct {
		Format json.RawMessage `json:"format"`
	}
	if err = json.Unmarshal(e.Data, &about); err == nil {
		err = checkFormat(about.Format)
	}
	if err == nil {
		err = json.Unmarshal(e.Data, &s)
	}
	switch {
	case err != nil:
	case s.RotationID != rotationID:
		err = fmt.Errorf("it belongs to rotation %q", s.RotationID)
	case len(s.Age) == 0:
		err = errors.New("it is empty")
	}
	if err != nil {
		return s, fmt.Errorf("the copy of the sealed answer of rotation %s in Vault (%s, version %d): %w: %w",
			rotationID, c.kv.At(dirPending+"/"+rotationID), e.Version, rotation.ErrUnreadable, err)
	}
	return s, nil
}

// Erase implements [rotation.Copies]. It sends one request.
func (c *Copies) Erase(ctx context.Context, rotationID string) error {
	path, err := pathOfCopy(rotationID)
	if err == nil {
		err = c.kv.Remove(ctx, path)
	}
	if err != nil {
		return fmt.Errorf("erasing the copy of the sealed answer of rotation %s: %w", rotationID, err)
	}
	return nil
}

// Files returns all copies, as the files of a state directory are: see [pending.ReadAll]. One that is damaged says so.
func (c *Copies) Files(ctx context.Context) ([]pending.File, error) {
	names, err := c.kv.List(ctx, dirPending)
	if err != nil {
		return nil, err
	}
	all, gone := make([]pending.File, len(names)), make([]bool, len(names))
	err = forEach(len(names), func(i int) error {
		id := names[i]
		e, err := c.kv.Get(ctx, dirPending+"/"+id)
		if err != nil && !errors.Is(err, kvstore.ErrDeleted) {
			return err
		}
		var s sealedCopy
		if err == nil {
			if gone[i] = e.Version == 0; gone[i] { // erased since it was listed
				return nil
			}
			s, err = c.decode(id, e)
		}
		all[i] = pending.NewFile(rotation.PendingKey{RotationID: id, Token: s.Token, TokenID: s.TokenID}, s.SealedAt, s.Age)
		all[i].Damage = err
		return nil
	})
	if err != nil {
		return nil, err
	}
	var files []pending.File
	for i := range all {
		if !gone[i] {
			files = append(files, all[i])
		}
	}
	return files, nil
}
