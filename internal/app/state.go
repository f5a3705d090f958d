package app

import (
	"context"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/pending"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
	"rotatord/internal/vault"
)

// state is everything that must survive the daemon. The App knows its parts only by what it needs of
// them, so a part can have another place: [App.share] opens a ledger that several replicas share.
type state struct {
	ledger  tokenLedger
	pending sealedSecrets
	sealed  *pending.Store // the same, for what only a replica needs
	// dropReservations removes old reservations that nothing needs: see [pending.Store.DropReservations].
	dropReservations func(before time.Time, keep func(rotation.PendingKey) bool) error
	disk             stateDisk
	// adopt compares the sealed secrets with a ledger that was not open when the directory was opened.
	adopt func(isUnfinished func(rotationID string) bool) error
	home  string // identifies the state directory of a replica; empty without one
	// secretID keeps the secret ID of Vault that was delivered wrapped.
	secretID vault.Keeper
	close    func() error
}

// tokenLedger stores a record for each token, and what is paused.
type tokenLedger interface {
	rotation.Ledger
	rotation.Pauses
}

// sealedSecrets keeps issued secrets until every sink has confirmed them.
type sealedSecrets interface {
	rotation.Pending
	// Sealed lists the secrets that are on the disk. Noted lists them without a look at it.
	Sealed() ([]pending.Sealed, error)
	Noted() []pending.Sealed
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

// openState opens the state directory, and the ledger if that is in it.
func openState(c config.State) (*state, error) {
	o := statedir.Options{Dir: c.Dir, Recipients: c.Recipients}
	if source := c.Identity; !source.IsZero() {
		o.Identity = func() (string, error) {
			v, err := source.ReadAs(context.Background(), config.AgeIdentity)
			return v.Reveal(), err
		}
	}
	open := statedir.Open
	if c.Shared != nil {
		open = statedir.OpenShared
	}
	d, err := open(o)
	if err != nil {
		return nil, err
	}
	s := &state{pending: d.Pending, disk: d, adopt: d.Pending.Adopt, sealed: d.Pending, dropReservations: d.Pending.DropReservations, home: d.Home, secretID: d.SecretID(), close: d.Close}
	if d.Ledger != nil {
		s.ledger = d.Ledger
	}
	return s, nil
}
