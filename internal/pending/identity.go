package pending

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"rotatord/internal/ageplugin"
	"rotatord/internal/durable"
	"rotatord/internal/ownpath"
	"rotatord/internal/smallfile"
)

// createdHere begins the identity file that the daemon creates.
const createdHere = "# made by rotatord"

// CreatedIdentity reports whether the file at path is an age identity that rotatord created. An
// operator may also provide one, even before the first start.
func CreatedIdentity(path string) bool {
	text, err := smallfile.Read(context.Background(), path, smallfile.MaxSecret)
	defer clear(text)
	return err == nil && strings.HasPrefix(string(text), createdHere)
}

// ReadIdentities reads an age identity file: the daemon's own, or the file of another recipient. If a program holds the identity, it
// opens the working key in the state directory dir.
func ReadIdentities(path, dir string) ([]age.Identity, error) {
	b, err := smallfile.ReadOrPipe(context.Background(), path, smallfile.MaxSecret)
	if err != nil {
		return nil, fmt.Errorf("the age identity: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if strings.HasPrefix(text, "age-encryption.org/") || strings.HasPrefix(text, "-----BEGIN AGE ENCRYPTED FILE-----") {
		return nil, fmt.Errorf("%s is encrypted itself: decrypt it with age --decrypt, and name the file that comes out", path)
	}
	holder, err := ageplugin.Find(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if holder != nil {
		if dir == "" {
			return nil, fmt.Errorf("%s is held by a program, which opens %s in the state directory of its daemon: give that directory too (--state-dir)", path, LockedName)
		}
		identity, err := identityIn(text, filepath.Join(dir, IdentityName))
		return []age.Identity{identity}, err
	}
	// age's error may contain what it read.
	identities, err := age.ParseIdentities(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s is not an age identity file (lines of AGE-SECRET-KEY-1..., as age-keygen prints them)", path)
	}
	return identities, nil
}

// loadIdentity returns the configured identity, or the one in the identity file. It creates the file on
// the first start, but not while there are sealed secrets that only a lost identity can open.
func loadIdentity(o Options) (*age.X25519Identity, error) {
	if o.Identity != nil {
		text, err := o.Identity()
		if err != nil {
			return nil, fmt.Errorf("the configured age identity: %w", err)
		}
		holder, err := ageplugin.Find(text)
		switch {
		case err != nil:
			return nil, fmt.Errorf("the configured age identity: %w", err)
		case holder != nil:
			return unlock(o, holder)
		}
		return parseIdentity("the configured age identity", text)
	}
	path := o.IdentityFile
	b, err := smallfile.Read(context.Background(), path, smallfile.MaxSecret)
	switch {
	case err == nil:
		if err := checkOwn(path); err != nil {
			return nil, err
		}
		return parseIdentity(path, string(b))
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("the age identity: %w", err)
	}
	if err := mayCreate(path, o.Dir); err != nil {
		return nil, err
	}
	return createIdentity(path)
}

// mayCreate returns an error if there are sealed secrets that only the lost identity in the file at path can open.
func mayCreate(path, dir string) error {
	sealed, err := List(dir)
	if err == nil && len(sealed) > 0 {
		err = fmt.Errorf("%s is gone, and %d sealed secrets wait that only it can open: restore it from a backup. "+
			"rotatord does not create a new identity, because that could not open them", path, len(sealed))
	}
	return err
}

// checkOwn returns an error if other users can read or change a file of the state directory that has a key in it.
func checkOwn(path string) error {
	return errors.Join(ownpath.Check(path), ownpath.Private(path, 0o600))
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

// parseRecipients returns the recipients that secrets are sealed to: the identity first, then the
// others.
func parseRecipients(identity *age.X25519Identity, others []string) ([]age.Recipient, error) {
	recipients := []age.Recipient{identity.Recipient()}
	for i, text := range others {
		// age's error may contain the text, which may be a secret key.
		recipient, err := age.ParseX25519Recipient(text)
		if err != nil {
			return nil, fmt.Errorf("recipient %d of the sealed secrets is not an age X25519 recipient (age1...)", i+1)
		}
		recipients = append(recipients, recipient)
	}
	return recipients, nil
}

// createIdentity writes a new identity to a file.
func createIdentity(path string) (*age.X25519Identity, error) {
	identity, text, err := newIdentity(createdHere + "; it opens the sealed secrets in this directory")
	if err != nil {
		return nil, err
	}
	defer clear(text)
	if err := durable.WriteFile(path, text, 0o600); err != nil {
		return nil, fmt.Errorf("creating the age identity: %w", err)
	}
	return identity, nil
}

// newIdentity returns an identity and the text of its file, which begins with a comment.
func newIdentity(comment string) (*age.X25519Identity, []byte, error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, nil, err
	}
	return identity, fmt.Appendf(nil, "%s\n# public key: %s\n%s\n", comment, identity.Recipient(), identity), nil
}

// checkIdentity returns an error if the identity cannot open secrets that unfinished rotations wait for:
// with that identity the daemon would give those secrets up as lost.
func (s *Store) checkIdentity(isUnfinished func(rotationID string) bool) error {
	foreign := 0
	err := forEach(s.dir, func(_ string, p parsed, damage error) error {
		if damage == nil && p.state == stateSealed && isUnfinished(p.key.RotationID) {
			if _, err := decrypt(p.ciphertext, s.identity); SealedToOthers(err) {
				foreign++
			}
		}
		return nil
	})
	if err == nil && foreign > 0 {
		err = fmt.Errorf("%d sealed secrets wait that another age identity has to open: put back the one that the daemon had "+
			"when they were sealed (state.identity, or %s in the state directory). If it is lost for good, read them with the key of one of state.recipients "+
			"(rotatord recover --reveal), or give them up (rotatord recover --drop ID --unfinished): their tokens will be in doubt, and get other secrets",
			foreign, IdentityName)
	}
	return err
}

// SealedToOthers reports whether an error says that a secret is sealed to other identities.
func SealedToOthers(err error) bool {
	_, ok := errors.AsType[*age.NoIdentityMatchError](err)
	return ok
}
