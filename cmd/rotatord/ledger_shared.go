package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/config"
	"rotatord/internal/kvstore"
	"rotatord/internal/ledger/shared"
	"rotatord/internal/ledger/transfer"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
	"rotatord/internal/vault"
)

// login says how a command that runs beside no daemon logs in to Vault.
type login struct {
	allowed     bool   // it may use up something, such as one use of a secret_id
	tokenFile   string // a token of the operator, in place of vault.auth; empty for none
	credentials string // the directory of a unit's credentials: see [credentialsFlag]
}

// flags adds the flags about the login to a command.
func (l *login) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&l.allowed, "login", false, "with state.shared: log in to Vault by AppRole, which spends one use of the secret_id")
	cmd.Flags().StringVar(&l.tokenFile, "vault-token-file", "", "with state.shared: `file` with a Vault token to use in place of vault.auth")
	_ = cmd.MarkFlagFilename("vault-token-file")
	credentialsFlag(cmd, &l.credentials)
}

// sharedLedger is the shared ledger of a configuration, opened for one command.
type sharedLedger struct {
	session *vault.Session
	store   kvstore.KV
	ledger  transfer.Ledger
	config  *config.Shared
	dir     string // the state directory of this machine
}

// errLoginCosts is in the error about a login that would use up something.
var errLoginCosts = errors.New("logging in to Vault")

// openShared logs in to Vault and opens the shared ledger that the configuration names. The caller closes it.
func openShared(ctx context.Context, c *config.Config, l login) (*sharedLedger, error) {
	if _, err := systemPlaces().relocate(c, l.credentials); err != nil {
		return nil, err
	}
	v := *c.Vault
	if l.tokenFile != "" {
		v.Auth = &config.TokenAuth{Source: config.SecretSource{File: l.tokenFile}}
	}
	if costs := v.Auth.Consumes(); costs != "" && !l.allowed {
		return nil, fmt.Errorf("%w uses up %s: allow it with --login, or name a file with your own Vault token with --vault-token-file", errLoginCosts, costs)
	}
	session, err := vault.New(v, nil, nil)
	if err != nil {
		return nil, err
	}
	if err := session.LogInOnce(ctx); err != nil {
		return nil, fmt.Errorf("no session with Vault: %w", err)
	}
	s := &sharedLedger{session: session, config: c.State.Shared, dir: c.State.Dir, store: kvstore.New(session, c.State.Shared.Mount, c.State.Shared.Prefix)}
	s.ledger = wholeLedger{shared.Open(shared.Options{KV: s.store, Replica: "rotatord ledger"})}
	return s, nil
}

// wholeLedger is a shared ledger of which all records can be read, or none: nothing must be forgotten in a move.
type wholeLedger struct{ *shared.Ledger }

// All reads every record. It is an error if one of them cannot be used.
func (l wholeLedger) All(ctx context.Context) ([]rotation.Record, error) { return l.RefreshAll(ctx) }

// close ends the session, if this command has created it.
func (s *sharedLedger) close() {
	ctx, cancel := context.WithTimeout(context.Background(), cleanUpTime)
	defer cancel()
	_ = s.session.Revoke(ctx) // it ends with its lease
}

// cleanUpTime is how long a command may take to tidy up after it was interrupted.
const cleanUpTime = 10 * time.Second

func (s *sharedLedger) name() string {
	return fmt.Sprintf("the ledger in Vault at %s/%s", s.config.Mount, s.config.Prefix)
}

// sharedPlace is the shared ledger as a [ledgerPlace].
type sharedPlace struct {
	*sharedLedger
	watch *transfer.Watch
}

func newSharedPlace(s *sharedLedger, stderr io.Writer) sharedPlace {
	return sharedPlace{s, &transfer.Watch{Waits: func(names []string, longest time.Duration) {
		fmt.Fprintf(stderr, "looking for up to %s whether one of these replicas lives: %s\n", longest.Round(time.Second), strings.Join(names, ", "))
	}}}
}

func (p sharedPlace) exportedAt(ctx context.Context) (time.Time, error) {
	mark, err := transfer.ReadMark(ctx, p.store)
	if err != nil || mark.State != transfer.Exported {
		return time.Time{}, err
	}
	return mark.At, nil
}

// alone returns an error if a replica lives.
func (p sharedPlace) alone(ctx context.Context) error {
	living, err := p.watch.Living(ctx, p.store)
	if err == nil && len(living) > 0 {
		err = fmt.Errorf("%s is in use by living replica(s): %s: stop all of them first", p.name(), strings.Join(living, ", "))
	}
	return err
}

func (p sharedPlace) takeOut(ctx context.Context, at time.Time, save saveLedger) (string, error) {
	if err := p.alone(ctx); err != nil {
		return "", err
	}
	before, err := transfer.ReadMark(ctx, p.store)
	switch {
	case err != nil:
		return "", err
	case before.State == transfer.Importing:
		return "", fmt.Errorf("%s is out of use: %s: repeat that first", p.name(), before)
	}
	mark, err := before.Replace(ctx, p.store, transfer.Mark{State: transfer.Exported, At: at, By: who()})
	if err != nil {
		return "", err
	}
	if err = p.alone(ctx); err == nil { // one may have started before the mark was there
		err = p.saveAll(ctx, save)
	}
	if err != nil {
		return "", errors.Join(err, p.unmark(ctx, mark, before))
	}
	return fmt.Sprintf("no replica uses that ledger any more; the entry %s/%s/%s says so", p.config.Mount, p.config.Prefix, transfer.MarkPath), nil
}

func (p sharedPlace) saveAll(ctx context.Context, save saveLedger) error {
	records, err := p.ledger.All(ctx)
	if err != nil {
		return fmt.Errorf("reading %s: %w", p.name(), err)
	}
	pauses, err := p.ledger.LoadPauses(ctx)
	if err != nil {
		return fmt.Errorf("reading the pauses of %s: %w", p.name(), err)
	}
	return save(records, pauses)
}

// unmark puts back the mark that was there before this command, also after the command was interrupted.
func (p sharedPlace) unmark(ctx context.Context, mark, before transfer.Mark) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	if _, err := mark.Replace(ctx, p.store, before); err != nil {
		return fmt.Errorf("%s is still marked as out of use: to put it into use again, remove that with vault kv metadata delete -mount=%s %s/%s: %w",
			p.name(), p.config.Mount, p.config.Prefix, transfer.MarkPath, err)
	}
	return nil
}

func (p sharedPlace) bringIn(ctx context.Context, in incoming, write func(transfer.Ends) (began bool, err error)) error {
	if err := p.alone(ctx); err != nil {
		return err
	}
	before, err := transfer.ReadMark(ctx, p.store)
	if err != nil {
		return err
	}
	sum, err := sumOf(in.Content)
	if err != nil {
		return err
	}
	want := transfer.Mark{State: transfer.Importing, At: in.At, By: who(), File: sum, OutOfUse: before.State == transfer.Exported || before.OutOfUse}
	if before.State == transfer.Importing && before.File != sum && !before.OutOfUse {
		return fmt.Errorf("%s is out of use, and this is another file: %s: repeat that one. If that file is lost, put what is there into use with "+
			"vault kv metadata delete -mount=%s %s/%s", p.name(), before, p.config.Mount, p.config.Prefix, transfer.MarkPath)
	}
	mark, err := before.Replace(ctx, p.store, want)
	if err != nil {
		return err
	}
	began := false
	if err = p.alone(ctx); err == nil {
		began, err = write(transfer.Ends{Target: p.ledger, OutOfUse: want.OutOfUse})
	}
	switch {
	case err != nil && !began:
		return errors.Join(err, p.unmark(ctx, mark, before))
	case err != nil:
		return err
	}
	_, err = mark.Replace(ctx, p.store, transfer.Mark{})
	if err != nil {
		err = fmt.Errorf("all is written, and %s is still marked as out of use: repeat the import: %w", p.name(), err)
	}
	return err
}

// sealed returns the copies, and what is sealed in the state directory of this machine's replica.
func (p sharedPlace) sealed(ctx context.Context) ([]string, error) {
	copies, err := p.store.List(ctx, copiesDir)
	if err != nil {
		return nil, err
	}
	onDisk, err := statedir.Sealed(p.dir)
	all := slices.Concat(copies, onDisk)
	slices.Sort(all)
	return slices.Compact(all), err
}

// copiesDir is where copies of sealed answers are below the prefix.
const copiesDir = "pending"

// sumOf identifies the content of a file.
func sumOf(c transfer.Content) (string, error) {
	b, err := c.Encode()
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// who names this process, for people.
func who() string {
	host, err := os.Hostname()
	if err != nil {
		host = "an unknown host"
	}
	return fmt.Sprintf("uid %d on %s", os.Geteuid(), host)
}
