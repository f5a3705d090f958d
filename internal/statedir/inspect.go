package statedir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"

	"rotatord/internal/ledger"
	"rotatord/internal/pending"
	"rotatord/internal/rotation"
)

// ErrInUse is in the error about a state directory that another process has open.
var ErrInUse = ledger.ErrInUse

// This file works on a state directory that no daemon has open. Only Drop and DropUnfinished write.

// IdentityFile returns the path of the identity of a state directory, unless another one is configured.
func IdentityFile(dir string) string { return filepath.Join(dir, pending.IdentityName) }

// ReadLedger returns the records of the ledger, for commands that run while no daemon does. It changes
// nothing. It is an error if there is no ledger, or if a daemon has it open.
func ReadLedger(ctx context.Context, dir string) (all []rotation.Record, err error) {
	err = ledger.View(filepath.Join(dir, ledger.FileName), func(s ledger.Snapshot) (err error) { all, err = s.Records(); return err })
	return all, errors.Join(err, ctx.Err())
}

// ReadPauses returns what is paused, by token, as ReadLedger does the records.
func ReadPauses(ctx context.Context, dir string) (all map[string]rotation.Pause, err error) {
	err = ledger.View(filepath.Join(dir, ledger.FileName), func(s ledger.Snapshot) (err error) { all, err = s.Pauses(); return err })
	if err == nil {
		err = ctx.Err()
	}
	return all, err
}

// Inspection is the content of a state directory.
type Inspection struct {
	// Sealed are all sealed secrets, whether a rotation still needs them or not.
	Sealed []pending.Sealed
	// InHand are the records that have a rotation in progress, by the rotation's ID.
	InHand map[string]rotation.Record
	// Abandoned are the names of the tokens whose rotation was given up with its answer sealed, by the
	// rotation's ID.
	Abandoned map[string]string
	// LedgerErr is nil, or says why the ledger could not be read. Then InHand and Abandoned are
	// unknown.
	LedgerErr error

	files map[string]pending.File
}

// Inspect reads a state directory, or a copy of one, and changes nothing. It works without a ledger. It
// is an error if a daemon has the directory open.
func Inspect(dir string) (*Inspection, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("the state directory: %w", err)
	}
	in := &Inspection{files: make(map[string]pending.File)}
	in.LedgerErr = ledger.View(filepath.Join(dir, ledger.FileName), func(s ledger.Snapshot) error {
		records, err := s.Records()
		if err != nil {
			return err
		}
		in.InHand, in.Abandoned = ledger.Unfinished(records), abandoned(records)
		sealed, err := s.Sealed()
		for _, a := range sealed {
			in.add(pending.NewFile(a.Key, a.At, bytes.Clone(a.Ciphertext)))
		}
		return err
	})
	if errors.Is(in.LedgerErr, ledger.ErrInUse) {
		return nil, in.LedgerErr
	}
	files, err := pending.ReadAll(filepath.Join(dir, pending.DirName))
	for _, f := range files {
		in.add(f)
	}
	return in, err
}

// InspectFiles does the same for sealed secrets that are not in a state directory, such as copies in Vault. It
// reads nothing.
func InspectFiles(files []pending.File) *Inspection {
	in := &Inspection{files: make(map[string]pending.File)}
	for _, f := range files {
		in.add(f)
	}
	return in
}

// Know sets what the ledger knows of the sealed secrets, where that is not in the directory. err is nil, or says
// why it could not be read.
func (in *Inspection) Know(records []rotation.Record, err error) {
	in.InHand, in.Abandoned, in.LedgerErr = nil, nil, err
	if err == nil {
		in.InHand, in.Abandoned = ledger.Unfinished(records), abandoned(records)
	}
}

// add adds a sealed secret. A migration that was cut short leaves the same secret in the ledger and in
// a file.
func (in *Inspection) add(f pending.File) {
	if _, known := in.files[f.RotationID]; !known {
		in.files[f.RotationID] = f
		in.Sealed = append(in.Sealed, f.Sealed)
	}
}

// Open decrypts one of the sealed secrets.
func (in *Inspection) Open(rotationID string, identities []age.Identity) (rotation.Issued, error) {
	f, ok := in.files[rotationID]
	if !ok {
		return rotation.Issued{}, fmt.Errorf("nothing is sealed for rotation %s", rotationID)
	}
	return f.Open(identities)
}

// Drop deletes one sealed secret for good. It refuses while a daemon runs, and if an unfinished rotation
// needs the secret and can still use it. Without a ledger, no rotation is known to need it.
//
// The directory of a replica is refused: see [DropShared].
func Drop(dir, rotationID string) error { return drop(dir, rotationID, nil, false) }

// DropShared does the same as Drop in the directory of a replica. records are those of the shared ledger.
func DropShared(dir, rotationID string, records []rotation.Record) error {
	return drop(dir, rotationID, ledger.Unfinished(records), false)
}

// DropUnfinished does the same as Drop, even if an unfinished rotation needs the secret. The next daemon
// finds the secret missing, and the token is then in doubt. This is for a secret that no identity can
// open any more, or whose token is no longer configured.
func DropUnfinished(dir, rotationID string) error { return drop(dir, rotationID, nil, true) }

// drop is Drop. known are the rotations in progress in the shared ledger; nil if it was not asked.
func drop(dir, rotationID string, known map[string]rotation.Record, unfinishedToo bool) error {
	remove := func(unfinished map[string]rotation.Record) error {
		return pending.Remove(filepath.Join(dir, pending.DirName), rotationID, func(s pending.Sealed) error {
			if r, needed := unfinished[rotationID]; needed && s.Damage == nil && !unfinishedToo {
				return errNeeded(r)
			}
			return nil
		})
	}
	// A daemon cannot start while the ledger is open here.
	err := ledger.View(filepath.Join(dir, ledger.FileName), func(s ledger.Snapshot) error {
		if s.Format() == 1 {
			return errors.New("the ledger is of an older version: start the daemon once, so that it is migrated")
		}
		records, err := s.Records()
		if err != nil {
			return err
		}
		return remove(ledger.Unfinished(records))
	})
	if errors.Is(err, fs.ErrNotExist) {
		unlock, err := lockMark(dir) // the ledger may have been deleted under a running daemon
		if err != nil {
			return err
		}
		defer unlock()
		if IsShared(dir) && known == nil && !unfinishedToo {
			return errors.New("this directory belongs to a replica, and only the shared ledger knows which rotations need their sealed secrets: " +
				"add --config FILE, with state.shared, so that it is asked; or --unfinished, if that does not matter")
		}
		return remove(known)
	}
	return err
}

// errNeeded says what ends a rotation whose sealed secret must not be dropped.
func errNeeded(r rotation.Record) error {
	how := "start the daemon and let it deliver"
	switch {
	case r.Step == rotation.StepInDoubt:
		how = "start the daemon and decide with rotatord resolve " + r.Token
	case r.Work.Overtaken != nil:
		how = fmt.Sprintf("start the daemon and decide with rotatord resolve %s --drop, --deliver or --rotate-now", r.Token)
	}
	return fmt.Errorf("rotation %s is unfinished and needs its sealed secret: %s. If that cannot be (nothing can open it, or %s is no longer configured), "+
		"add --unfinished: the token will be in doubt, and gets another secret", r.Work.RotationID, how, r.Token)
}

// abandoned returns the names of the tokens that gave a rotation up, by the rotation's ID.
func abandoned(records []rotation.Record) map[string]string {
	all := make(map[string]string)
	for _, r := range records {
		for _, id := range r.Abandoned {
			all[id] = r.Token
		}
	}
	return all
}
