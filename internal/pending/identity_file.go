package pending

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"rotatord/internal/durable"
	"rotatord/internal/smallfile"
)

// This file moves the identity of a state directory to another place. An identity opens only what is beside it if
// both are in the hands of one thief.

// CreateIdentity writes a new identity to a file, which must not exist, with mode 0600. It returns the public key.
func CreateIdentity(path string) (publicKey string, err error) {
	identity, text, err := newIdentity("# made by rotatord identity create; it opens sealed secrets: keep a copy where you keep such keys")
	if err != nil {
		return "", err
	}
	defer clear(text)
	if err := durable.CreateFile(path, text, 0o600); err != nil {
		return "", fmt.Errorf("creating the age identity: %w", err)
	}
	return identity.Recipient().String(), nil
}

// IdentityText reads an identity file of a daemon: its whole text and the public key of the identity in it.
func IdentityText(path string) (text []byte, publicKey string, err error) {
	text, err = smallfile.ReadOrPipe(context.Background(), path, smallfile.MaxSecret)
	if err != nil {
		return nil, "", fmt.Errorf("the age identity: %w", err)
	}
	identity, err := parseIdentity(path, string(text))
	if err != nil {
		return nil, "", err
	}
	return text, identity.Recipient().String(), nil
}

// CopyIdentity writes the identity of one file to another one with mode 0600, durably, and returns its public key. The other file
// may be there already if it has the same identity. The first one stays.
func CopyIdentity(from, to string) (publicKey string, err error) {
	text, publicKey, err := IdentityText(from)
	if err != nil {
		return "", err
	}
	defer clear(text)
	switch err := durable.CreateFile(to, text, 0o600); {
	case errors.Is(err, fs.ErrExist):
		if _, there, err := IdentityText(to); err != nil || there != publicKey {
			return "", fmt.Errorf("%s exists and is another identity, which other secrets may need: name another file, or move it away", to)
		}
	case err != nil:
		return "", fmt.Errorf("copying the age identity: %w", err)
	}
	if _, written, err := IdentityText(to); err != nil || written != publicKey { // what the next start reads
		return "", fmt.Errorf("%s does not hold the identity after it was written: do not use it", to)
	}
	return publicKey, nil
}

// RemoveIdentity removes the identity of a state directory, if kept is the text of the same identity in its new place, or of one
// that a program holds and that has locked it. It reports whether there was one.
func RemoveIdentity(path, kept string) (removed bool, err error) {
	text, publicKey, err := IdentityText(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	clear(text)
	other, err := identityIn(kept, path)
	if err != nil {
		return false, err
	}
	if other.Recipient().String() != publicKey {
		return false, fmt.Errorf("%s is not the identity that state.identity names: secrets may be sealed that only it can open. "+
			"Copy it with rotatord identity copy, and let state.identity name the copy", path)
	}
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s is not a file of its own: look at it and remove it yourself", path)
	}
	return true, durable.Remove(path)
}

// PublicKeyOf returns the public key of the identity in the text of state.identity. identityFile is the path of the identity of the
// state directory, which need not exist.
func PublicKeyOf(text, identityFile string) (string, error) {
	identity, err := identityIn(text, identityFile)
	if err != nil {
		return "", err
	}
	return identity.Recipient().String(), nil
}
