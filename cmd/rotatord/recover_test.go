package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"rotatord/internal/config"
	"rotatord/internal/ledger/shared"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
)

// makeState is a program that makes the state directory of a daemon that died, for scripts:
//
//	ci     waits to be delivered (rotation WAITING), and has an answer that nobody needs
//	       any more (UNNEEDED)
//	grid   is in doubt, with an answer of an unknown format that shows two secrets (DOUBT)
//	idle   has nothing sealed
//
// Beside it stand break-glass.age, the identity of a further recipient, and stranger.age,
// which is none.
func makeState() {
	if err := writeState(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func writeState(dir string) error {
	var breakGlass *age.X25519Identity
	for _, name := range []string{"stranger.age", "break-glass.age"} {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(dir), name), []byte(identity.String()+"\n"), 0o600); err != nil {
			return err
		}
		breakGlass = identity
	}
	j, err := statedir.Open(statedir.Options{Dir: dir, Recipients: []string{breakGlass.Recipient().String()}})
	if err != nil {
		return err
	}
	defer j.Close()
	ctx := context.Background()
	for _, s := range []struct{ token, tokenID, rotationID, value string }{
		{"ci", "5eed0000-0000-4000-8000-000000000001", "UNNEEDED", "cfast_unneededUNNEEDEDunneededUNNEEDEDunneeded00000000"},
		{"ci", "5eed0000-0000-4000-8000-000000000001", "WAITING", "cfast_waitingWAITINGwaitingWAITINGwaitingWAITI00000000"},
		{"grid", "5eed0000-0000-4000-8000-000000000002", "DOUBT", "of-a-third-format"},
	} {
		key := rotation.PendingKey{RotationID: s.rotationID, Token: s.token, TokenID: s.tokenID}
		err := j.Pending.Reserve(ctx, key)
		if err == nil {
			issued := rotation.Issued{Credential: rotation.Credential{ClientID: s.token + ".access", ClientSecret: secret.New(s.value)}}
			if s.token == "grid" {
				issued.Others = []rotation.Credential{{ClientSecret: secret.New("another-one")}}
			}
			err = j.Pending.Seal(ctx, key, issued)
		}
		if err != nil {
			return err
		}
	}
	for _, r := range []rotation.Record{
		{Token: "ci", Step: rotation.StepSealed, Work: &rotation.Work{RotationID: "WAITING", TokenID: "5eed0000-0000-4000-8000-000000000001"}},
		{Token: "grid", Step: rotation.StepInDoubt, Work: &rotation.Work{RotationID: "DOUBT", TokenID: "5eed0000-0000-4000-8000-000000000002"},
			Doubt: &rotation.Doubt{Since: time.Now(), Reason: rotation.ReasonUnfamiliarSecret, Detail: "neither of the two known formats", Sealed: true}},
		{Token: "idle"},
	} {
		r.Format, r.Account = rotation.RecordFormat, "prod"
		if r.Work != nil {
			r.TokenID = r.Work.TokenID
		}
		if _, err := j.Ledger.Save(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// makeCopies is a program that does in Vault what a replica does that cannot deliver: it copies the sealed secrets of
// the directory that makestate has made, and writes its records to the shared ledger of a configuration.
func makeCopies() {
	if err := copyState(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func copyState(ctx context.Context, dir, configPath string) error {
	c, err := config.Load(configPath)
	if err != nil {
		return err
	}
	opened, err := openShared(ctx, c, login{})
	if err != nil {
		return err
	}
	defer opened.close()
	d, err := statedir.Open(statedir.Options{Dir: dir, Recipients: c.State.Recipients})
	if err != nil {
		return err
	}
	defer d.Close()
	records, err := d.Ledger.All(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		r.Revision = 0
		if _, err := opened.ledger.Save(ctx, r); err != nil {
			return err
		}
	}
	sealed, err := d.Pending.Sealed()
	if err != nil {
		return err
	}
	copies := shared.NewCopies(opened.store, d.Pending, "a")
	for _, s := range sealed {
		if err := copies.Copy(ctx, s.PendingKey); err != nil {
			return err
		}
	}
	return nil
}
