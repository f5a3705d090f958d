package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"rotatord/internal/config"
	"rotatord/internal/ledger"
	"rotatord/internal/ledger/shared"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// recoverShared looks at the copies of sealed secrets in Vault, or with --state-dir at the secrets in the directory
// of a replica. The shared ledger says what is needed.
func recoverShared(ctx context.Context, stdout, stderr io.Writer, o recoverOptions) error {
	c, err := loadConfig(o.config, stderr)
	if err != nil {
		return err
	}
	if c.State.Shared == nil {
		return usagef("%s has no state.shared: the sealed secrets are in the state directory, so give --state-dir %s in place of --config", o.config, c.State.Dir)
	}
	opened, err := openShared(ctx, c, o.login)
	if err != nil {
		return err
	}
	defer opened.close()
	records, ledgerErr := opened.ledger.All(ctx)
	if ledgerErr != nil {
		ledgerErr = fmt.Errorf("the shared ledger cannot be read: %w", ledgerErr)
	}
	copies := shared.NewCopies(opened.store, nil, "")
	switch {
	case o.drop != "" && o.dir != "":
		if ledgerErr != nil && !o.unfinished {
			return fmt.Errorf("%w: with --unfinished the secret is dropped anyway", ledgerErr)
		}
		return dropSealed(stderr, o, func(dir, rotationID string) error { return statedir.DropShared(dir, rotationID, records) })
	case o.drop != "":
		return dropCopy(ctx, stderr, o, newSharedPlace(opened, stderr), copies, records, ledgerErr)
	}
	var in *statedir.Inspection
	at := onReplica
	if o.dir != "" {
		in, err = statedir.Inspect(o.dir)
	} else {
		at = inVault
		in, err = inspectCopies(ctx, copies)
		if err == nil && o.reveal != "" && o.identity == "" {
			o.defaultIdentity, err = identityFileOf(c)
		}
	}
	if err != nil {
		return err
	}
	in.Know(records, ledgerErr)
	return show(stdout, stderr, o, in, describe(in, at))
}

func inspectCopies(ctx context.Context, copies *shared.Copies) (*statedir.Inspection, error) {
	files, err := copies.Files(ctx)
	if err != nil {
		return nil, err
	}
	return statedir.InspectFiles(files), nil
}

// identityFileOf returns the file of the identity that the configuration names.
func identityFileOf(c *config.Config) (string, error) {
	switch source := c.State.Identity; {
	case source.File != "":
		return source.File, nil
	case source.Env != "":
		return "", errors.New("state.identity is an environment variable of the daemon: name a file with the identity with --identity")
	}
	return statedir.IdentityFile(c.State.Dir), nil
}

// dropCopy deletes a copy for good. It refuses while a replica lives, which would erase the copy by itself or may be
// about to deliver it, and if an unfinished rotation needs it.
func dropCopy(ctx context.Context, stderr io.Writer, o recoverOptions, p sharedPlace, copies *shared.Copies, records []rotation.Record, ledgerErr error) error {
	if err := p.alone(ctx); err != nil {
		return fmt.Errorf("%w; a living replica erases a copy by itself when it is not needed any more", err)
	}
	if !o.unfinished {
		if ledgerErr != nil {
			return fmt.Errorf("%w: with --unfinished the copy is dropped anyway", ledgerErr)
		}
		if r, needed := ledger.Unfinished(records)[o.drop]; needed {
			return fmt.Errorf("rotation %s of %s is unfinished and may need its copy: %s. If that cannot be, add --unfinished: unless a replica has the answer on its disk, the token will be in doubt, and gets another secret",
				o.drop, r.Token, inVault.start)
		}
	}
	all, err := copies.Files(ctx)
	if err != nil {
		return err
	}
	for _, f := range all {
		if f.RotationID != o.drop {
			continue
		}
		if err := copies.Erase(ctx, o.drop); err != nil {
			return err
		}
		fmt.Fprintf(stderr, "the copy of the sealed secret of rotation %s is deleted\n", o.drop)
		return nil
	}
	return fmt.Errorf("there is no copy for rotation %s", o.drop)
}
