package boltfile_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"rotatord/internal/ledger/boltfile"
)

// write creates a file with n values in each of some commits, and returns its content.
func write(t testing.TB, commits, n int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 1024, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for c := range commits {
		err := db.Update(func(tx *bbolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte("values"))
			if err != nil {
				return err
			}
			small, err := tx.CreateBucketIfNotExists([]byte("small"))
			if err != nil {
				return err
			}
			for i := range n {
				// Values of all sizes, so that some overflow their page.
				if err := bucket.Put(fmt.Appendf(nil, "key-%05d", i), make([]byte, (i*37+c)%1500)); err != nil {
					return err
				}
			}
			if c%3 == 2 {
				for i := range n / 2 {
					if err := bucket.Delete(fmt.Appendf(nil, "key-%05d", i)); err != nil {
						return err
					}
				}
			}
			return small.Put([]byte("commit"), fmt.Append(nil, c))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGoodFiles: no file that bbolt itself has written is refused.
func TestGoodFiles(t *testing.T) {
	for commits := range 9 {
		for _, n := range []int{0, 1, 5, 300} {
			info, err := boltfile.Check(write(t, commits, n))
			if err != nil || info.Transactions != uint64(commits) {
				t.Errorf("%d commits of %d values: %+v, %v", commits, n, info, err)
			}
		}
	}
}

func TestDamage(t *testing.T) {
	good := write(t, 4, 40)
	if _, err := boltfile.Check(good); err != nil {
		t.Fatal(err)
	}
	for _, length := range []int{0, 1, 79, 80, 1023, 1024, 1103, 1104, 2048, 4096, len(good) / 2} {
		if _, err := boltfile.Check(good[:length]); err == nil || !strings.Contains(err.Error(), "truncated") {
			t.Errorf("%d bytes of %d: %v", length, len(good), err)
		}
	}
	for name, tc := range map[string]struct {
		damage func([]byte)
		want   string
	}{
		"no magic":            {func(b []byte) { b[16] ^= 1 }, "no root at byte 0"},
		"another version":     {func(b []byte) { b[20] = 3 }, "version 3"},
		"the first root":      {func(b []byte) { b[16+32] ^= 1 }, "root at byte 0 has a wrong checksum"},
		"the second root":     {func(b []byte) { b[1024+16+32] ^= 1 }, "root at byte 1024 has a wrong checksum"},
		"a root of long ago":  {func(b []byte) { copy(b[:1024], write(t, 0, 0)) }, "the last change may be missing"},
		"a page out of place": {func(b []byte) { binary.NativeEndian.PutUint64(b[2048:], 9) }, "page"},
	} {
		b := append([]byte(nil), good...)
		tc.damage(b)
		if _, err := boltfile.Check(b); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOverwrittenPages replaces each page by each other page.
func TestOverwrittenPages(t *testing.T) {
	good := write(t, 3, 30)
	pages := len(good) / 1024
	found := 0
	for from := range pages {
		for to := range pages {
			b := append([]byte(nil), good...)
			copy(b[to*1024:][:1024], good[from*1024:][:1024])
			if _, err := boltfile.Check(b); err != nil {
				found++
			} else if from != to && (from+to)%8 == 0 {
				mustRead(t, b)
			}
		}
	}
	if found < pages {
		t.Errorf("damage was found %d times on %d pages", found, pages)
	}
}

// mustRead lets bbolt read all of a file that was accepted. A fault would end the process.
func mustRead(t testing.TB, b []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatalf("accepted, and bbolt refuses it: %v", err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error {
			return bucket.ForEach(func(k, v []byte) error { _ = string(k) + string(v); return nil })
		})
	})
	if err != nil {
		t.Errorf("accepted, and bbolt cannot read it: %v", err)
	}
	for err := range checked(db) {
		t.Errorf("accepted, and bbolt's own check says: %v", err)
	}
}

// checked returns what bbolt's own check finds.
func checked(db *bbolt.DB) func(func(error) bool) {
	return func(yield func(error) bool) {
		_ = db.View(func(tx *bbolt.Tx) error {
			for err := range tx.Check() {
				if !yield(err) {
					return errors.New("enough")
				}
			}
			return nil
		})
	}
}

// TestFlippedBits flips bits in every page. A file that is still accepted must be readable.
func TestFlippedBits(t *testing.T) {
	good := write(t, 3, 30)
	random := rand.New(rand.NewPCG(1, 2))
	refused, accepted := 0, 0
	for at := 0; at < len(good); at += 1 + random.IntN(8) {
		b := append([]byte(nil), good...)
		b[at] ^= 1 << random.IntN(8)
		if _, err := boltfile.Check(b); err != nil {
			refused++
		} else if accepted++; accepted%50 == 0 { // most are in values and free pages
			mustRead(t, b)
		}
	}
	if refused < 100 || accepted < 100 {
		t.Errorf("%d flips were refused and %d accepted", refused, accepted)
	}
}

// FuzzCheck changes eight bytes anywhere in a good file: the check must end, whatever it finds.
func FuzzCheck(f *testing.F) {
	good := write(f, 3, 30)
	f.Add(uint32(0), uint64(0))
	f.Add(uint32(2048), ^uint64(0)) // the header of a page
	f.Add(uint32(2060), uint64(1)<<31)
	f.Fuzz(func(t *testing.T, at uint32, bits uint64) {
		b := append([]byte(nil), good...)
		place := b[int(at)%(len(b)-8):]
		binary.NativeEndian.PutUint64(place, binary.NativeEndian.Uint64(place)^bits)
		_, err := boltfile.Check(b)
		if bits == 0 && err != nil {
			t.Errorf("a good file: %v", err)
		}
	})
}
