package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"filippo.io/age"

	"rotatord/internal/durable"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/smallfile"
)

// sealedAnswer is what is encrypted. It is the only place where a secret is marshalled.
type sealedAnswer struct {
	ClientID     string              `json:"client_id"`
	ClientSecret string              `json:"client_secret"`
	Facts        rotation.TokenFacts `json:"facts"`
	GraceEndsAt  time.Time           `json:"grace_ends_at,omitzero"`
	Objection    string              `json:"objection,omitempty"`
	Others       []sealedOther       `json:"others,omitempty"`
}

// sealedOther is one more secret that the same answer showed.
type sealedOther struct {
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret"`
}

func sealed(issued rotation.Issued) sealedAnswer {
	a := sealedAnswer{
		ClientID: issued.ClientID, ClientSecret: issued.ClientSecret.Reveal(),
		Facts: issued.Facts, GraceEndsAt: issued.GraceEndsAt, Objection: issued.Objection,
	}
	for _, other := range issued.Others {
		a.Others = append(a.Others, sealedOther{other.ClientID, other.ClientSecret.Reveal()})
	}
	return a
}

func (a sealedAnswer) issued() rotation.Issued {
	issued := rotation.Issued{
		Credential: rotation.Credential{ClientID: a.ClientID, ClientSecret: secret.New(a.ClientSecret)},
		Facts:      a.Facts, GraceEndsAt: a.GraceEndsAt, Objection: a.Objection,
	}
	for _, other := range a.Others {
		issued.Others = append(issued.Others, rotation.Credential{ClientID: other.ClientID, ClientSecret: secret.New(other.ClientSecret)})
	}
	return issued
}

// Sealed is one pending secret, without the secret.
type Sealed struct {
	rotation.PendingKey // without names if they are not known
	// At is when it was sealed.
	At time.Time
	// Damage is nil, or says why it cannot be opened.
	Damage error
}

// Rotation IDs become names of files. What a rotation is given is 26 letters and digits.
var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)

func (j *Journal) path(rotationID string) (string, error) {
	if !validID.MatchString(rotationID) {
		return "", fmt.Errorf("%q is no rotation ID: it must be letters and digits", rotationID)
	}
	return filepath.Join(j.pending, rotationID), nil
}

// Reserve implements [rotation.Pending]. The room is the rotation's own: Seal overwrites it
// in place.
func (j *Journal) Reserve(_ context.Context, key rotation.PendingKey) error {
	path, err := j.path(key.RotationID)
	if err != nil {
		return err
	}
	if j.closed.Load() {
		return errClosed
	}
	if err := j.Present(); err != nil { // what is written to a ledger that was deleted is lost
		return fmt.Errorf("reserving room for the answer: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("reserving room for the answer: rotation %s has it already", key.RotationID)
	}
	file, err := layOut(key, bodyRoom(len(j.recipients)), frame("mark", []byte(reserved)), nil)
	if err == nil {
		err = j.wrote(writeAnswer, durable.WriteFile(path, file, 0o600))
	}
	if err != nil {
		return fmt.Errorf("reserving room for the answer: %w", err)
	}
	return nil
}

// Seal implements [rotation.Pending]. Sealing the same answer once more makes it durable
// once more, in case the first time failed half way; another answer is refused.
func (j *Journal) Seal(_ context.Context, key rotation.PendingKey, issued rotation.Issued) error {
	path, err := j.path(key.RotationID)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(sealed(issued))
	if err != nil {
		return err
	}
	defer clear(plain)
	ciphertext, err := encrypt(plain, j.recipients)
	if err == nil {
		err = j.wrote(writeAnswer, j.spare.use(func() error { return j.seal(path, key, plain, ciphertext) }))
	}
	if err != nil {
		return fmt.Errorf("sealing: %w", err)
	}
	return nil
}

func (j *Journal) seal(path string, key rotation.PendingKey, plain, ciphertext []byte) error {
	at := j.now()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) && j.closed.Load() {
		return errClosed
	}
	if errors.Is(err, fs.ErrNotExist) {
		return writeSealed(path, key, at, ciphertext)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	p, err := parse(key.RotationID, b)
	if err != nil {
		return err
	}
	switch p.state {
	case stateReserved:
		return overwrite(f, at, ciphertext)
	case stateDamaged:
		return writeSealed(path, key, at, ciphertext)
	}
	before, err := decrypt(p.ciphertext, j.identity)
	if err != nil {
		return fmt.Errorf("rotation %s has a sealed answer already: %w", key.RotationID, err)
	}
	defer clear(before)
	if !bytes.Equal(before, plain) {
		return fmt.Errorf("rotation %s has another sealed answer already", key.RotationID)
	}
	return overwrite(f, p.at, p.ciphertext)
}

// overwrite puts an answer into the room that is reserved for it. An answer that is larger
// makes the file longer, if the disk has room.
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

// writeSealed makes a file that is sealed from the start.
func writeSealed(path string, key rotation.PendingKey, at time.Time, ciphertext []byte) error {
	file, err := layOut(key, 0, markOf(at), bodyOf(at, ciphertext))
	if err != nil {
		return err
	}
	return durable.WriteFile(path, file, 0o600)
}

// Open implements [rotation.Pending].
func (j *Journal) Open(_ context.Context, rotationID string) (rotation.Issued, bool, error) {
	path, err := j.path(rotationID)
	if err == nil && j.closed.Load() {
		err = errClosed
	}
	if err != nil {
		return rotation.Issued{}, false, err
	}
	p, err := readPending(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && p.state == stateReserved {
		return rotation.Issued{}, false, nil
	}
	if err == nil && p.state == stateDamaged {
		err = fmt.Errorf("%w: %w", rotation.ErrUnreadable, errRotten)
	}
	if err != nil {
		return rotation.Issued{}, false, fmt.Errorf("the sealed secret of rotation %s: %w", rotationID, err)
	}
	issued, err := unseal(rotationID, p.ciphertext, j.identity)
	return issued, err == nil, err
}

// Erase implements [rotation.Pending].
func (j *Journal) Erase(_ context.Context, rotationID string) error {
	path, err := j.path(rotationID)
	if err != nil {
		return err
	}
	if j.closed.Load() {
		return errClosed
	}
	return j.wrote(eraseAnswer, durable.Remove(path))
}

// Sealed lists the secrets that wait to be confirmed by a sink, and those that wait for
// nobody any more. Reservations are not among them.
func (j *Journal) Sealed() ([]Sealed, error) { return listSealed(j.pending) }

func listSealed(dir string) ([]Sealed, error) {
	var all []Sealed
	err := forEachPending(dir, func(path string, p pendingFile, damage error) error {
		if p.state == stateReserved && damage == nil {
			return nil
		}
		all = append(all, sealedOf(path, p, damage))
		return nil
	})
	return all, err
}

// sealedOf describes a file. What is too damaged to say when it was sealed has been so at
// the latest since it was last written.
func sealedOf(path string, p pendingFile, damage error) Sealed {
	if p.at.IsZero() {
		if info, err := os.Stat(path); err == nil {
			p.at = info.ModTime().UTC()
		}
	}
	return Sealed{PendingKey: p.key, At: p.at, Damage: damage}
}

// forEachPending calls do for each file in the directory that has the name of a rotation.
func forEachPending(dir string, do func(path string, p pendingFile, damage error) error) error {
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
		p, damage := readPending(path)
		if errors.Is(damage, fs.ErrNotExist) {
			continue // erased since
		}
		if damage == nil && p.state == stateDamaged {
			damage = errRotten
		}
		if err := do(path, p, damage); err != nil {
			return err
		}
	}
	return nil
}

// maxPending bounds the file of a sealed secret. One has 8 KiB and a little for each recipient.
const maxPending = 16 << 20

func readPending(path string) (pendingFile, error) {
	b, err := smallfile.Read(context.Background(), path, maxPending)
	if err != nil {
		return pendingFile{key: rotation.PendingKey{RotationID: filepath.Base(path)}}, err
	}
	return parse(filepath.Base(path), b)
}

// sweep tidies up what a process that died left: files that are not whole, reservations
// that no unfinished rotation can use any more, and seals that were cut short when the
// answer was on disk already.
func (j *Journal) sweep() error {
	records, err := j.All(context.Background())
	if err != nil {
		return err
	}
	inHand := unfinished(records)
	err = forEachPending(j.pending, func(path string, p pendingFile, damage error) error {
		_, needed := inHand[p.key.RotationID]
		switch {
		case damage != nil:
		case p.state == stateReserved && !needed:
			return os.Remove(path)
		case p.state == stateCutShort:
			return finishSeal(path, p)
		}
		return nil
	})
	err = errors.Join(err, durable.CleanDir(filepath.Dir(j.pending)), durable.CleanDir(j.pending))
	if err = errors.Join(err, durable.SyncDir(j.pending)); err != nil {
		return fmt.Errorf("tidying up the sealed secrets: %w", err)
	}
	return nil
}

// checkIdentity refuses an identity that cannot open what waits to be delivered: with it the
// daemon would give those secrets up as lost.
func (j *Journal) checkIdentity() error {
	records, err := j.All(context.Background())
	if err != nil {
		return err
	}
	inHand := unfinished(records)
	foreign := 0
	err = forEachPending(j.pending, func(_ string, p pendingFile, damage error) error {
		if _, waits := inHand[p.key.RotationID]; waits && damage == nil && p.state == stateSealed {
			if _, err := decrypt(p.ciphertext, j.identity); isForeign(err) {
				foreign++
			}
		}
		return nil
	})
	if err == nil && foreign > 0 {
		err = fmt.Errorf("%d sealed secrets wait that another age identity has to open: put back the one that the daemon had "+
			"when they were sealed (state.identity, or %s in the state directory). If it is lost for good, read them with the key of one of state.recipients "+
			"(rotatord recover --reveal), or give them up (rotatord recover --drop ID --unfinished): their tokens will be in doubt, and other secrets are made",
			foreign, identityFile)
	}
	return err
}

// isForeign reports whether something was sealed to somebody else.
func isForeign(err error) bool {
	_, ok := errors.AsType[*age.NoIdentityMatchError](err)
	return ok
}

// finishSeal ends a seal that was cut short. The body is written once more, since it may
// not be durable yet.
func finishSeal(path string, p pendingFile) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(overwrite(f, p.at, p.ciphertext), f.Close())
}

// unfinished returns the records that have a rotation in hand, by its ID.
func unfinished(records []rotation.Record) map[string]rotation.Record {
	inHand := make(map[string]rotation.Record)
	for _, r := range records {
		if r.Work != nil {
			inHand[r.Work.RotationID] = r
		}
	}
	return inHand
}

func encrypt(plain []byte, recipients []age.Recipient) ([]byte, error) {
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipients...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return sealed.Bytes(), nil
}

func decrypt(ciphertext []byte, identities ...age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(ciphertext), identities...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// unseal decrypts an answer.
func unseal(rotationID string, ciphertext []byte, identities ...age.Identity) (rotation.Issued, error) {
	plain, err := decrypt(ciphertext, identities...)
	if err != nil {
		return rotation.Issued{}, fmt.Errorf("opening the sealed secret of rotation %s: %w: %w", rotationID, rotation.ErrUnreadable, err)
	}
	defer clear(plain)
	var a sealedAnswer
	if err := json.Unmarshal(plain, &a); err != nil {
		// The decoder's error may quote what it read.
		return rotation.Issued{}, fmt.Errorf("%w: the sealed secret of rotation %s is not in the format of this version", rotation.ErrUnreadable, rotationID)
	}
	return a.issued(), nil
}
