package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"rotatord/internal/durable"
	"rotatord/internal/journal/boltfile"
	"rotatord/internal/ownpath"
	"rotatord/internal/rotation"
	"rotatord/internal/smallfile"
)

// This file holds what is done with a state directory that no daemon has open. Nothing of it
// writes, but Drop.

// inspectTimeout is how long to wait for a process that is just letting go.
const inspectTimeout = 100 * time.Millisecond

// ReadLedger reads the ledger without changing anything, for commands that run beside no
// daemon. It is an error if there is no ledger, or if a daemon has it open.
func ReadLedger(ctx context.Context, dir string) ([]rotation.Record, error) {
	var all []rotation.Record
	err := readOnly(dir, func(tx *bbolt.Tx, format int) (err error) {
		all, err = readLedger(tx, format)
		return err
	})
	return all, errors.Join(err, ctx.Err())
}

// readOnly calls do with the ledger. fs.ErrNotExist is in the error if there is none, or if
// nothing was ever written to it.
func readOnly(dir string, do func(tx *bbolt.Tx, format int) error) error {
	path := filepath.Join(dir, fileName)
	if info, err := os.Stat(path); err != nil {
		return fmt.Errorf("there is no ledger to read: %w", err)
	} else if !info.Mode().IsRegular() {
		return errDamaged(path, errors.New("it is "+ownpath.Kind(info.Mode())+" and no file"))
	} else if info.Size() == 0 {
		return errDamaged(path, errors.New("it is empty"))
	}
	err := withSharedLock(path, inspectTimeout, func(db *bbolt.DB, info boltfile.Info) error {
		if info.Transactions == 0 {
			return fmt.Errorf("there is no ledger to read: %s is new: %w", path, fs.ErrNotExist)
		}
		return db.View(func(tx *bbolt.Tx) error {
			format, err := formatOf(tx)
			if err != nil {
				return err
			}
			return do(tx, format)
		})
	})
	if errors.Is(err, errBusy) {
		return fmt.Errorf("%s is %w by a running daemon", path, errBusy)
	}
	return err
}

// Inspection is what is in a state directory.
type Inspection struct {
	// Sealed are all sealed secrets, whether a rotation still needs them or not.
	Sealed []Sealed
	// InHand are the records with an unfinished rotation, by its ID.
	InHand map[string]rotation.Record
	// Abandoned are the names of the tokens whose rotation was given up with its answer sealed, by its ID.
	Abandoned map[string]string
	// LedgerErr is nil, or why the ledger could not be read and InHand is unknown.
	LedgerErr error

	ciphertexts map[string][]byte
}

// Inspect reads a state directory, or a copy of one, without changing anything. It makes do
// without a ledger, and is an error while a daemon has the directory open.
func Inspect(dir string) (*Inspection, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("the state directory: %w", err)
	}
	in := &Inspection{ciphertexts: make(map[string][]byte)}
	in.LedgerErr = readOnly(dir, func(tx *bbolt.Tx, format int) error {
		records, err := readLedger(tx, format)
		if err != nil {
			return err
		}
		in.InHand, in.Abandoned = unfinished(records), abandoned(records)
		if format == 1 {
			return in.addBucket(tx)
		}
		return nil
	})
	if errors.Is(in.LedgerErr, errBusy) {
		return nil, in.LedgerErr
	}
	err := forEachPending(filepath.Join(dir, pendingDir), func(path string, p pendingFile, damage error) error {
		if _, known := in.ciphertexts[p.key.RotationID]; known || p.state == stateReserved && damage == nil {
			return nil // of format 1, and of a migration that was cut short
		}
		if errors.Is(damage, fs.ErrPermission) {
			return damage
		}
		in.ciphertexts[p.key.RotationID] = p.ciphertext
		in.Sealed = append(in.Sealed, sealedOf(path, p, damage))
		return nil
	})
	return in, err
}

// addBucket adds the sealed secrets of format 1, which stood in the ledger's file.
func (in *Inspection) addBucket(tx *bbolt.Tx) error {
	sealed, err := readSealed1(tx)
	for _, s := range sealed {
		in.ciphertexts[s.key.RotationID] = append([]byte(nil), s.ciphertext...)
		in.Sealed = append(in.Sealed, Sealed{PendingKey: s.key, At: s.at})
	}
	return err
}

// Open decrypts one of the sealed secrets.
func (in *Inspection) Open(rotationID string, identities []age.Identity) (rotation.Issued, error) {
	for _, s := range in.Sealed {
		if s.RotationID != rotationID {
			continue
		}
		if s.Damage != nil {
			return rotation.Issued{}, fmt.Errorf("the sealed secret of rotation %s: %w", rotationID, s.Damage)
		}
		return unseal(rotationID, in.ciphertexts[rotationID], identities...)
	}
	return rotation.Issued{}, fmt.Errorf("nothing is sealed for rotation %s", rotationID)
}

// IdentityFile is where a state directory has its identity, unless another one is configured.
func IdentityFile(dir string) string { return filepath.Join(dir, identityFile) }

// ReadIdentities reads an age identity file: that of a state directory, or that of one of
// the other recipients.
func ReadIdentities(path string) ([]age.Identity, error) {
	b, err := smallfile.ReadOrPipe(context.Background(), path, smallfile.MaxSecret)
	if err != nil {
		return nil, fmt.Errorf("the age identity: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if strings.HasPrefix(text, "age-encryption.org/") || strings.HasPrefix(text, "-----BEGIN AGE ENCRYPTED FILE-----") {
		return nil, fmt.Errorf("%s is encrypted itself: decrypt it with age --decrypt, and name the file that comes out", path)
	}
	// age's error may describe what it read.
	identities, err := age.ParseIdentities(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s is no age identity file (lines of AGE-SECRET-KEY-1..., as age-keygen prints them)", path)
	}
	return identities, nil
}

// Drop deletes one sealed secret for good. It refuses while a daemon runs, and if an
// unfinished rotation needs the secret, unless that is damaged and cannot help it any more.
// Without a ledger nothing is known to need it.
func Drop(dir, rotationID string) error { return dropSealed(dir, rotationID, false) }

// DropUnfinished does so although an unfinished rotation needs the secret. The next daemon finds it
// missing, and takes the token for in doubt. It is for a secret that nothing can open any more, or
// whose token is no longer configured.
func DropUnfinished(dir, rotationID string) error { return dropSealed(dir, rotationID, true) }

func dropSealed(dir, rotationID string, unfinishedToo bool) error {
	if !validID.MatchString(rotationID) {
		return fmt.Errorf("%q is no rotation ID: it must be letters and digits", rotationID)
	}
	path := filepath.Join(dir, pendingDir, rotationID)
	drop := func(needed *rotation.Record) error {
		p, damage := readPending(path)
		switch {
		case errors.Is(damage, fs.ErrNotExist):
			return fmt.Errorf("nothing is sealed for rotation %s", rotationID)
		case damage == nil && needed != nil && p.state != stateDamaged && !unfinishedToo:
			return errNeeded(*needed)
		}
		return durable.Remove(path)
	}
	// A daemon cannot start while the ledger is open here.
	err := readOnly(dir, func(tx *bbolt.Tx, format int) error {
		if format == 1 {
			return errors.New("the journal is of an older version: start the daemon once, so that it is migrated")
		}
		records, err := readLedger(tx, format)
		if err != nil {
			return err
		}
		if record, needed := unfinished(records)[rotationID]; needed {
			return drop(&record)
		}
		return drop(nil)
	})
	if errors.Is(err, fs.ErrNotExist) {
		unlock, err := lockMark(dir) // a daemon may run whose ledger was deleted under it
		if err != nil {
			return err
		}
		defer unlock()
		return drop(nil)
	}
	return err
}

// errNeeded says what ends a rotation whose sealed secret is not dropped.
func errNeeded(r rotation.Record) error {
	how := "start the daemon and let it deliver"
	switch {
	case r.Step == rotation.StepInDoubt:
		how = "start the daemon and decide with rotatord resolve " + r.Token
	case r.Work.Overtaken != nil:
		how = fmt.Sprintf("start the daemon and decide with rotatord resolve %s --drop, --deliver or --rotate-now", r.Token)
	}
	return fmt.Errorf("rotation %s is unfinished and needs its sealed secret: %s. If that cannot be (nothing can open it, or %s is no longer configured), "+
		"add --unfinished: the token will be in doubt, and another secret is made for it", r.Work.RotationID, how, r.Token)
}

// abandoned are the names of the tokens that have given a rotation up, by its ID.
func abandoned(records []rotation.Record) map[string]string {
	all := make(map[string]string)
	for _, r := range records {
		for _, id := range r.Abandoned {
			all[id] = r.Token
		}
	}
	return all
}
