package pending_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"rotatord/internal/pending"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// TestNoted: what is noted is what is on the disk, through reservations, seals and erasures, and after a restart. It is
// known without a look at the disk.
func TestNoted(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	d := open(t, o)
	compare := func(when string, n int) {
		t.Helper()
		onDisk, err := d.Pending.Sealed()
		if err != nil {
			t.Fatal(err)
		}
		describe := func(all []pending.Sealed) (texts []string) {
			for _, s := range all {
				texts = append(texts, fmt.Sprint(s.PendingKey, s.At.UnixMilli(), s.Damage))
			}
			slices.SortFunc(texts, cmp.Compare[string])
			return texts
		}
		if want, got := describe(onDisk), describe(d.Pending.Noted()); len(got) != n || !slices.Equal(got, want) {
			t.Errorf("%s: noted %v, on the disk %v, want %d", when, got, want, n)
		}
	}
	key := func(i int) rotation.PendingKey {
		return rotation.PendingKey{RotationID: fmt.Sprint("R", i), Token: fmt.Sprint("token-", i), TokenID: "uuid"}
	}
	for i := range 4 {
		if err := d.Pending.Reserve(t.Context(), key(i)); err != nil {
			t.Fatal(err)
		}
	}
	compare("reserved", 0)
	for i := range 5 { // one of them without a reservation
		for range 2 {
			if err := d.Pending.Seal(t.Context(), key(i), issued); err != nil {
				t.Fatal(err)
			}
		}
	}
	compare("sealed", 5)
	for _, id := range []string{"R1", "R1", "R9"} {
		if err := d.Pending.Erase(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	compare("erased", 4)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(o.Dir, pending.DirName)
	damaged := read(t, filepath.Join(dir, "R2"))
	write(t, filepath.Join(dir, "R2"), damaged[:len(damaged)/2])
	d = open(t, o)
	compare("after a restart", 4)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if n := len(d.Pending.Noted()); n != 4 {
		t.Errorf("%d are noted without a look at the disk", n)
	}
}
