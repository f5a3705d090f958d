package app

import (
	"context"
	"errors"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/pending"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
	"rotatord/internal/vault"
)

// state is everything that must survive the daemon. The App knows its parts only by what it needs of
// them, so a part can have another place: a ledger that several daemons share is a line in openState.
type state struct {
	ledger  ledger
	pending sealedSecrets
	disk    stateDisk
	// secretID keeps the secret ID of Vault that was delivered wrapped.
	secretID vault.Keeper
	close    func() error
}

// ledger stores a record for each token, and what is paused.
type ledger interface {
	rotation.Ledger
	rotation.Pauses
}

// sealedSecrets keeps issued secrets until every sink has confirmed them.
type sealedSecrets interface {
	rotation.Pending
	// Sealed lists the secrets that are on the disk.
	Sealed() ([]pending.Sealed, error)
}

// stateDisk says whether the state can be written.
type stateDisk interface {
	// Present returns an error if the ledger was deleted or replaced under the daemon.
	Present() error
	// Prove writes what a rotation writes before its request, and leaves nothing. It returns why a
	// rotation could not begin.
	Prove(ctx context.Context) error
	// LastWrite returns when the state was last written, or when that was last tried, and the error.
	LastWrite() (time.Time, error)
}

// openState opens the state directory.
func openState(c config.State) (*state, error) {
	if c.Shared != nil {
		return nil, errors.New("state.shared: a ledger that several replicas share is not supported yet: remove it")
	}
	o := statedir.Options{Dir: c.Dir, Recipients: c.Recipients}
	if source := c.Identity; !source.IsZero() {
		o.Identity = func() (string, error) {
			v, err := source.ReadAs(context.Background(), config.AgeIdentity)
			return v.Reveal(), err
		}
	}
	d, err := statedir.Open(o)
	if err != nil {
		return nil, err
	}
	return &state{ledger: d.Ledger, pending: d.Pending, disk: d, secretID: d.SecretID(), close: d.Close}, nil
}
