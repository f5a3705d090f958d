package statedir_test

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
)

func hash(b []byte) [sha256.Size]byte { return sha256.Sum256(b) }

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// format1 returns a copy of a state directory that a rotatord of format 1 left: one token idle, one with a
// secret that waits for its sink, one in doubt with an answer in quarantine, and a reservation that no
// rotation needs.
func format1(t *testing.T) string {
	t.Helper()
	dir := stateDir(t)
	for _, name := range []string{"journal.db", "identity.age"} {
		write(t, filepath.Join(dir, name), read(t, filepath.Join("testdata", "format1", name)))
	}
	return dir
}

// The sealed secrets of that directory.
const (
	sealedID, sealedSecret = "SEALEDSEALEDSEALEDSEALEDSE", "cfast_FIXTUREfixtureFIXTUREfixtureFIXTURE01cafe0001"
	doubtID, doubtSecret   = "DOUBTDOUBTDOUBTDOUBTDOUBTD", "FIXTURE-a-secret-of-a-third-format"
)

// wantMigrated checks that everything of that directory is there.
func wantMigrated(t *testing.T, j *statedir.Dir) {
	t.Helper()
	all, err := j.Ledger.All(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("%d records, %v", len(all), err)
	}
	for _, r := range all {
		if r.Format != rotation.RecordFormat || r.Revision != 1 {
			t.Errorf("%s has format %d and revision %d", r.Token, r.Format, r.Revision)
		}
	}
	doubt, idle, sealed := all[0], all[1], all[2]
	if idle.Token != "idle" || idle.Step != rotation.StepIdle || idle.Last == nil || idle.Last.RotationID != "IDLEIDLEIDLEIDLEIDLEIDLEID" || idle.MovedCount != 1 {
		t.Errorf("the idle token: %+v", idle)
	}
	if sealed.Step != rotation.StepSealed || sealed.Work.RotationID != sealedID || sealed.Work.TokenID != sealed.TokenID ||
		sealed.Work.Digest != secret.New(sealedSecret).Digest() {
		t.Errorf("the sealed token: %+v", sealed)
	}
	if doubt.Step != rotation.StepInDoubt || !doubt.Doubt.Sealed || doubt.Work.RotationID != doubtID {
		t.Errorf("the token in doubt: %+v", doubt)
	}
	for id, want := range map[string]string{sealedID: sealedSecret, doubtID: doubtSecret} {
		if got, ok, err := j.Pending.Open(t.Context(), id); err != nil || !ok || !got.ClientSecret.Equal(secret.New(want)) {
			t.Errorf("the secret of %s: %t, %v", id, ok, err)
		}
	}
	waiting, err := j.Pending.Sealed()
	var keys []rotation.PendingKey
	for _, s := range waiting {
		keys = append(keys, s.PendingKey)
		if s.At.IsZero() || time.Since(s.At) < 0 || s.Damage != nil {
			t.Errorf("%+v", s)
		}
	}
	want := []rotation.PendingKey{{RotationID: doubtID, Token: "doubt", TokenID: doubt.TokenID}, {RotationID: sealedID, Token: "sealed", TokenID: sealed.TokenID}}
	if diff := cmp.Diff(want, keys); err != nil || diff != "" {
		t.Errorf("what waits: %v %s", err, diff)
	}
}

func TestMigration(t *testing.T) {
	o := statedir.Options{Dir: format1(t)}
	before, err := statedir.ReadLedger(t.Context(), o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to migrate
		j := open(t, o)
		wantMigrated(t, j)
		_ = j.Close()
	}
	after, err := statedir.ReadLedger(t.Context(), o.Dir)
	if diff := cmp.Diff(before, after); err != nil || diff != "" {
		t.Errorf("%v, the ledger (-before +after): %s", err, diff)
	}
	db, err := bbolt.Open(filepath.Join(o.Dir, "journal.db"), 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_ = db.View(func(tx *bbolt.Tx) error {
		if format := string(tx.Bucket([]byte("meta")).Get([]byte("format"))); format != "3" || tx.Bucket([]byte("pending")) != nil {
			t.Errorf("the file has format %s, or still holds the sealed answers", format)
		}
		return nil
	})
}

// TestMigrationCutShort creates each state that a crash can leave: the files are written one after the other,
// each whole or not at all, and then the transaction.
func TestMigrationCutShort(t *testing.T) {
	done := format1(t)
	if err := open(t, statedir.Options{Dir: done}).Close(); err != nil {
		t.Fatal(err)
	}
	for n, names := range [][]string{{}, {doubtID}, {doubtID, sealedID}} {
		o := statedir.Options{Dir: format1(t)}
		for _, name := range names {
			write(t, filepath.Join(o.Dir, "pending", name), read(t, filepath.Join(done, "pending", name)))
		}
		write(t, filepath.Join(o.Dir, "pending", ".new-1"), []byte("half a file"))
		chmod(t, filepath.Join(o.Dir, "pending"), 0o700)
		wantMigrated(t, open(t, o))
		if _, err := os.Stat(filepath.Join(o.Dir, "pending", ".new-1")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("with %d files: half a file is still there: %v", n, err)
		}
	}
}

// TestMigrationNeedsTheIdentity: secrets that wait in the old format are not forgotten when the identity is
// missing.
func TestMigrationNeedsTheIdentity(t *testing.T) {
	o := statedir.Options{Dir: format1(t)}
	identity := filepath.Join(o.Dir, "identity.age")
	saved := read(t, identity)
	remove(t, identity)
	if _, err := statedir.Open(o); err == nil {
		t.Fatal("it was opened without its identity")
	}
	write(t, identity, saved)
	wantMigrated(t, open(t, o))
}
