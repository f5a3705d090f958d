package statedir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"rotatord/internal/durable"
	"rotatord/internal/ledger"
	"rotatord/internal/ownpath"
	"rotatord/internal/pending"
	"rotatord/internal/smallfile"
)

// This file opens the state directory of a replica, whose ledger is elsewhere: it has the sealed secrets, the
// identity and the lock. Neither kind of start takes a directory of the other kind for its own: two ledgers for
// the same tokens would rotate them twice.

// sharedMarkName is a file that says that the ledger of this directory is elsewhere. It exists from the first
// start as a replica on, until a daemon finds a ledger in the directory again.
const sharedMarkName = "ledger-is-shared"

const sharedMarkText = `This state directory belongs to a replica of rotatord: its ledger is shared by several, and is not here
(state.shared in the configuration). No daemon begins a ledger of its own here: see docs/replicas.md.
`

// homeName is the file that has the identity of the directory of a replica.
const homeName = "replica-home"

// home returns the identity of the directory, and gives it one at first.
func home(dir string) (string, error) {
	path := filepath.Join(dir, homeName)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := durable.WriteFile(path, []byte(rand.Text()+"\n"), 0o600); err != nil {
			return "", fmt.Errorf("the state directory: %w", err)
		}
	}
	if _, err := ownpath.RegularFile(path, ownpath.Check); err != nil {
		return "", err
	}
	text, err := smallfile.Read(context.Background(), path, smallfile.MaxSecret)
	id := strings.TrimSpace(string(text))
	if err == nil && !validHome.MatchString(id) {
		err = fmt.Errorf("%s is not what rotatord writes there: remove it, and this replica gets another identity", path)
	}
	return id, err
}

var validHome = regexp.MustCompile(`^[A-Z0-9]{16,64}$`)

// OpenShared opens the state directory of a replica, or creates it. It refuses one that has a ledger with
// content. The Dir has no Ledger. Call [pending.Store.Adopt] once it is known which rotations are unfinished.
func OpenShared(o Options) (*Dir, error) {
	if o.LockTimeout == 0 {
		o.LockTimeout = lockTimeout
	}
	if err := prepareDir(o.Dir); err != nil {
		return nil, err
	}
	if err := checkNoLedger(o.Dir, ownpath.Check); err != nil {
		return nil, err
	}
	d := &Dir{path: o.Dir}
	if err := d.openShared(o); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Dir) openShared(o Options) (err error) {
	for name, text := range map[string]string{markName: markText, sharedMarkName: sharedMarkText} {
		path := filepath.Join(o.Dir, name)
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if err := durable.WriteFile(path, []byte(text), 0o600); err != nil {
				return fmt.Errorf("the state directory: %w", err)
			}
		}
		if _, err := ownpath.RegularFile(path, ownpath.Check); err != nil {
			return err
		}
	}
	// The lock is all that keeps out a second daemon.
	if d.lock, err = lockFile(filepath.Join(o.Dir, markName), o.LockTimeout); err != nil {
		return err
	}
	if d.Home, err = home(o.Dir); err != nil {
		return err
	}
	sealedDir := filepath.Join(o.Dir, pending.DirName)
	if err := durable.Mkdir(sealedDir); err != nil {
		return fmt.Errorf("the directory of the sealed secrets: %w", err)
	}
	d.Pending, err = pending.Open(pending.Options{
		Dir: sealedDir, Identity: o.Identity, IdentityFile: IdentityFile(o.Dir), Recipients: o.Recipients, Usable: d.Present,
	})
	return errors.Join(err, durable.CleanDir(o.Dir))
}

// checkNoLedger refuses a directory that has a ledger with content.
func checkNoLedger(dir string, check func(path string) error) error {
	path := filepath.Join(dir, ledger.FileName)
	state, err := ledger.Examine(path, ledger.InspectTimeout, check)
	if err != nil || state != ledger.Used {
		return err
	}
	used, err := hasContent(path)
	if err == nil && used {
		err = fmt.Errorf("%s has content, and the configuration has state.shared: the replica would begin another ledger for the same tokens. "+
			"Move it: rotatord ledger export --state-dir %s, then rotatord ledger import rotatord-ledger.jsonl. "+
			"If the shared ledger has all of it already, move the file away", path, dir)
	}
	return err
}

// hasContent reports whether a ledger file holds a record or a pause.
func hasContent(path string) (used bool, err error) {
	err = ledger.View(path, func(s ledger.Snapshot) error {
		records, err := s.Records()
		if err != nil {
			return err
		}
		pauses, err := s.Pauses()
		used = len(records)+len(pauses) > 0
		return err
	})
	return used, err
}

// IsShared reports whether a directory belongs to a replica.
func IsShared(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, sharedMarkName))
	return err == nil
}

// checkNotShared refuses a directory of a replica for a daemon that is alone. A directory that has a ledger with
// content again is one of its own.
func checkNotShared(dir string) error {
	if !IsShared(dir) {
		return nil
	}
	path := filepath.Join(dir, ledger.FileName)
	if state, err := ledger.Examine(path, ledger.InspectTimeout, ownpath.AsOwner(dir)); err == nil && state == ledger.Used {
		used, err := hasContent(path)
		if err != nil || used {
			return err
		}
	}
	return fmt.Errorf("the state directory %s belongs to a replica, whose ledger is shared, and the configuration has no state.shared: write state.shared again. "+
		"To use a ledger in this directory, stop all replicas and move the shared one: rotatord ledger export --config FILE, with state.shared, "+
		"then rotatord ledger import rotatord-ledger.jsonl, without it. If there never was anything to keep, remove %s", dir, filepath.Join(dir, sharedMarkName))
}

// unmarkShared notes that the directory has a ledger of its own.
func unmarkShared(dir string) error { return durable.Remove(filepath.Join(dir, sharedMarkName)) }

// present returns an error if the directory of a replica was deleted or replaced while it is open.
func (d *Dir) present() error {
	path := filepath.Join(d.path, markName)
	opened, err := d.lock.Stat()
	if err != nil {
		return err
	}
	now, err := os.Lstat(path)
	if err == nil && !os.SameFile(opened, now) {
		err = errors.New("it was replaced by another file")
	}
	if err != nil {
		return fmt.Errorf("the state directory was changed under the running daemon: %s: %w: restart the daemon", path, err)
	}
	return nil
}
