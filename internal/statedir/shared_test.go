package statedir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

func openShared(t *testing.T, o statedir.Options) *statedir.Dir {
	t.Helper()
	d, err := statedir.OpenShared(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// TestSharedHasNoLedger: the directory of a replica has everything but a ledger, and only one process at a time.
func TestSharedHasNoLedger(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t), LockTimeout: 50 * time.Millisecond}
	d := openShared(t, o)
	if d.Ledger != nil {
		t.Error("there is a ledger")
	}
	home := d.Home
	if other := openShared(t, statedir.Options{Dir: stateDir(t)}); len(home) < 16 || other.Home == home {
		t.Errorf("the identities of two directories: %q, %q", home, other.Home)
	}
	if _, err := os.Lstat(filepath.Join(o.Dir, "journal.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("journal.db: %v", err)
	}
	if _, err := statedir.OpenShared(o); !errors.Is(err, statedir.ErrInUse) {
		t.Errorf("a second process: %v", err)
	}
	if at, err := d.LastWrite(); !at.IsZero() || err != nil {
		t.Errorf("the last write: %v, %v", at, err)
	}
	if err := errors.Join(d.Prove(t.Context()), d.Present()); err != nil {
		t.Error(err)
	}
	if at, err := d.LastWrite(); at.IsZero() || err != nil {
		t.Errorf("the last write: %v, %v", at, err)
	}
	key := rotation.PendingKey{RotationID: "R", Token: "ci"}
	if err := errors.Join(d.Pending.Reserve(t.Context(), key), d.Pending.Seal(t.Context(), key, issued)); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = openShared(t, o)
	if d.Home != home {
		t.Errorf("the identity of the directory was %q and is %q", home, d.Home)
	}
	if got, ok, err := d.Pending.Open(t.Context(), "R"); err != nil || !ok || !got.ClientSecret.Equal(issued.ClientSecret) {
		t.Errorf("%t, %v", ok, err)
	}
	if err := os.RemoveAll(o.Dir); err != nil {
		t.Fatal(err)
	}
	if err := d.Present(); err == nil || !strings.Contains(err.Error(), "under the running daemon") {
		t.Errorf("after the directory was deleted: %v", err)
	}
	if err := d.Pending.Reserve(t.Context(), rotation.PendingKey{RotationID: "S", Token: "ci"}); err == nil {
		t.Error("a rotation may begin without a directory")
	}
}

// TestOneKindOfLedger: neither kind of daemon takes a directory of the other kind for its own.
func TestOneKindOfLedger(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	local := open(t, o)
	_ = local.Close()
	_ = openShared(t, o).Close() // the ledger is empty

	_, err := statedir.Open(o)
	if err == nil || !strings.Contains(err.Error(), "belongs to a replica") || !strings.Contains(err.Error(), "rotatord ledger export") {
		t.Fatalf("a directory of a replica without state.shared: %v", err)
	}
	if refused := statedir.Refusal(o.Dir); refused == nil || refused.Error() != err.Error() {
		t.Errorf("another process is told: %v", refused)
	}

	o.Dir = stateDir(t)
	local = open(t, o)
	if _, err := local.Ledger.Save(t.Context(), rotation.Record{Format: rotation.RecordFormat, Token: "ci"}); err != nil {
		t.Fatal(err)
	}
	if _, err := statedir.OpenShared(o); !errors.Is(err, statedir.ErrInUse) {
		t.Errorf("while a daemon has it: %v", err)
	}
	_ = local.Close()
	_, err = statedir.OpenShared(o)
	if err == nil || !strings.Contains(err.Error(), "rotatord ledger export --state-dir "+o.Dir) || !strings.Contains(err.Error(), "rotatord ledger import") {
		t.Fatalf("a ledger with content: %v", err)
	}
	journal := filepath.Join(o.Dir, "journal.db")
	if err := os.Rename(journal, journal+".moved"); err != nil { // as an export does
		t.Fatal(err)
	}
	_ = openShared(t, o).Close()
	if err := os.Rename(journal+".moved", journal); err != nil { // as an import does
		t.Fatal(err)
	}
	_ = open(t, o).Close()
	if err := os.Remove(journal); err != nil {
		t.Fatal(err)
	}
	if _, err := statedir.Open(o); err == nil || strings.Contains(err.Error(), "replica") {
		t.Errorf("a ledger that was lost after it was moved back: %v", err)
	}
}

// TestDropReservations: only old reservations that nothing needs are removed, and no sealed answer.
func TestDropReservations(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	d := openShared(t, o)
	for _, id := range []string{"OLD", "KEPT", "YOUNG", "SEALED"} {
		if err := d.Pending.Reserve(t.Context(), rotation.PendingKey{RotationID: id, Token: "ci"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "SEALED", Token: "ci"}, issued); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(o.Dir, "pending", "*"))
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if old := time.Now().Add(-time.Hour); !strings.Contains(file, "YOUNG") {
			if err := os.Chtimes(file, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = d.Pending.DropReservations(time.Now().Add(-time.Minute), func(key rotation.PendingKey) bool { return key.RotationID == "KEPT" })
	left, globErr := filepath.Glob(filepath.Join(o.Dir, "pending", "*"))
	if all := strings.Join(left, " "); err != nil || globErr != nil || len(left) != 3 || strings.Contains(all, "OLD") {
		t.Errorf("left: %s, %v", all, err)
	}
	if _, ok, err := d.Pending.Open(t.Context(), "SEALED"); err != nil || !ok {
		t.Errorf("%t, %v", ok, err)
	}
}

// TestSharedIdentity: that an identity cannot open what waits is found when the ledger is known.
func TestSharedIdentity(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	d := openShared(t, o)
	for _, id := range []string{"R", "S"} {
		key := rotation.PendingKey{RotationID: id, Token: "ci"}
		if err := d.Pending.Reserve(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if id == "R" {
			if err := d.Pending.Seal(t.Context(), key, issued); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = d.Close()
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	o.Identity = func() (string, error) { return other.String(), nil }
	d = openShared(t, o)
	if got := d.Pending.Recipients(); d.Pending.PublicKey() != other.Recipient().String() || len(got) != 1 || got[0] != other.Recipient().String() {
		t.Errorf("%s, %q", d.Pending.PublicKey(), got)
	}
	if err := d.Pending.Adopt(func(string) bool { return false }); err != nil {
		t.Errorf("a secret that no rotation needs: %v", err)
	}
	if err := d.Pending.Adopt(func(string) bool { return true }); err == nil || !strings.Contains(err.Error(), "another age identity") {
		t.Errorf("a secret that a rotation needs: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(o.Dir, "pending"))
	if err != nil || len(left) != 1 {
		t.Errorf("the reservation that nothing can use is still there: %v, %v", left, err)
	}
}

// TestDropInDirectoryOfReplica: only the shared ledger knows what is needed.
func TestDropInDirectoryOfReplica(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	d := openShared(t, o)
	for _, id := range []string{"R", "S", "U"} {
		key := rotation.PendingKey{RotationID: id, Token: "ci"}
		if err := errors.Join(d.Pending.Reserve(t.Context(), key), d.Pending.Seal(t.Context(), key, issued)); err != nil {
			t.Fatal(err)
		}
	}
	records := []rotation.Record{{Token: "ci", Step: rotation.StepSealed, Work: &rotation.Work{RotationID: "R"}}}
	if err := statedir.DropShared(o.Dir, "S", records); !errors.Is(err, statedir.ErrInUse) {
		t.Errorf("beside a replica: %v", err)
	}
	_ = d.Close()
	if err := statedir.SharedRefusal(o.Dir); err != nil {
		t.Errorf("a replica is refused: %v", err)
	}
	if err := statedir.Drop(o.Dir, "S"); err == nil || !strings.Contains(err.Error(), "add --config FILE, with state.shared") {
		t.Errorf("without the ledger: %v", err)
	}
	if err := statedir.DropShared(o.Dir, "R", records); err == nil || !strings.Contains(err.Error(), "needs its sealed secret") {
		t.Errorf("a secret that is needed: %v", err)
	}
	if err := errors.Join(statedir.DropShared(o.Dir, "S", records), statedir.DropShared(o.Dir, "U", nil), statedir.DropUnfinished(o.Dir, "R")); err != nil {
		t.Error(err)
	}
	in, err := statedir.Inspect(o.Dir)
	if err != nil || len(in.Sealed) > 0 {
		t.Errorf("%v, %v", in.Sealed, err)
	}
}
