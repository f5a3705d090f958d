package pending

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"filippo.io/age"

	"rotatord/internal/ageplugin"
	"rotatord/internal/durable"
	"rotatord/internal/smallfile"
)

// This file is about an identity that a program holds (AGE-PLUGIN-...), such as one in a TPM. The program seals one key, the working
// key, which is in the state directory as ciphertext. It is asked when the daemon starts, and never while an answer of Cloudflare waits to be
// sealed: a device that is away or wants a touch cannot lose a secret. The working key seals and opens everything else, and is what
// other replicas name as this one's public key.

// LockedName is the file of the working key in a state directory.
const LockedName = "identity-locked.age"

// lockedFile returns the path of the working key of the directory in which an identity file is or would be.
func lockedFile(identityFile string) string {
	return filepath.Join(filepath.Dir(identityFile), LockedName)
}

// unlock returns the working key. It makes one on the first start, but not while there are sealed secrets that only a lost
// one can open. If the directory has an identity that is not locked, that becomes the working key, so what it sealed can be opened.
func unlock(o Options, holder *ageplugin.Identity) (*age.X25519Identity, error) {
	path := lockedFile(o.IdentityFile)
	identity, err := openLocked(path, holder)
	if !errors.Is(err, fs.ErrNotExist) {
		return identity, err
	}
	text, _, err := IdentityText(o.IdentityFile)
	if err == nil {
		err = checkOwn(o.IdentityFile)
	}
	switch {
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	default:
		if err := mayCreate(path, o.Dir); err != nil {
			return nil, err
		}
		if _, text, err = newIdentity("# the working key"); err != nil {
			return nil, err
		}
	}
	defer clear(text)
	locked, err := encrypt(text, []age.Recipient{holder.Recipient()})
	if err != nil {
		return nil, fmt.Errorf("locking the age identity: %w", err)
	}
	plain, err := decrypt(locked, holder) // before anything depends on it
	if err != nil {
		return nil, fmt.Errorf("the age identity was locked, and could not be unlocked again: %w", err)
	}
	clear(plain)
	if err := durable.WriteFile(path, locked, 0o600); err != nil {
		return nil, fmt.Errorf("locking the age identity: %w", err)
	}
	return openLocked(path, holder)
}

// openLocked asks the program to open the working key.
func openLocked(path string, holder *ageplugin.Identity) (*age.X25519Identity, error) {
	locked, err := smallfile.Read(context.Background(), path, smallfile.MaxSecret)
	if err == nil {
		err = checkOwn(path)
	}
	if err != nil {
		return nil, fmt.Errorf("the locked age identity: %w", err)
	}
	return decryptLocked(path, locked, holder)
}

func decryptLocked(path string, locked []byte, holder *ageplugin.Identity) (*age.X25519Identity, error) {
	plain, err := decrypt(locked, holder)
	if SealedToOthers(err) {
		return nil, fmt.Errorf("%s is locked by another identity than state.identity names: put that one back", path)
	} else if err != nil {
		return nil, fmt.Errorf("unlocking %s: %w", path, err)
	}
	defer clear(plain)
	return parseIdentity(path, string(plain))
}

// identityIn returns the identity in the text of state.identity. If a program holds it, the identity file says in which directory
// the working key is.
func identityIn(text, identityFile string) (*age.X25519Identity, error) {
	holder, err := ageplugin.Find(text)
	if err != nil {
		return nil, fmt.Errorf("the configured age identity: %w", err)
	}
	if holder == nil {
		return parseIdentity("the configured age identity", text)
	}
	path := lockedFile(identityFile)
	locked, err := smallfile.Read(context.Background(), path, smallfile.MaxSecret)
	if err != nil {
		return nil, fmt.Errorf("the locked age identity: %w", err)
	}
	return decryptLocked(path, locked, holder)
}
