package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"rotatord/internal/durable"
	"rotatord/internal/ownpath"
	"rotatord/internal/smallfile"
)

// identityFile is where the identity is kept that the daemon makes for itself.
const identityFile = "identity.age"

// identityMadeHere is how an identity begins that the daemon has made.
const identityMadeHere = "# made by rotatord"

// loadIdentity reads the identity, or makes it on first start. It is never made anew
// while there are secrets that only the lost one can open.
func loadIdentity(o Options, pending string) (*age.X25519Identity, error) {
	if o.Identity != nil {
		text, err := o.Identity()
		if err != nil {
			return nil, fmt.Errorf("the configured age identity: %w", err)
		}
		return parseIdentity("the configured age identity", text)
	}
	path := filepath.Join(o.Dir, identityFile)
	b, err := smallfile.Read(context.Background(), path, smallfile.MaxSecret)
	switch {
	case err == nil:
		if err := errors.Join(ownpath.Check(path), refuseOpenToAll("", path, "0600")); err != nil {
			return nil, err
		}
		return parseIdentity(path, string(b))
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("the age identity: %w", err)
	}
	sealed, err := listSealed(pending)
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

// parseRecipients returns whom secrets are sealed to: the identity, and others.
func parseRecipients(identity *age.X25519Identity, others []string) ([]age.Recipient, error) {
	recipients := []age.Recipient{identity.Recipient()}
	for i, text := range others {
		// The error may quote what may be a secret key.
		recipient, err := age.ParseX25519Recipient(text)
		if err != nil {
			return nil, fmt.Errorf("recipient %d of the sealed secrets is not an age X25519 recipient (age1...)", i+1)
		}
		recipients = append(recipients, recipient)
	}
	return recipients, nil
}

// makeIdentity writes a new identity so that either the whole file is there after a
// crash, or none.
func makeIdentity(dir, path string) (*age.X25519Identity, error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(identityMadeHere+"; it opens the sealed secrets in this directory\n# public key: %s\n%s\n", identity.Recipient(), identity)
	if err := durable.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("making the age identity: %w", err)
	}
	return identity, nil
}
