package pending_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
)

// sector is the least that a disk writes as a whole.
const sector = 512

// The regions of a sealed secret's file.
const markAt, bodyAt = 4096, 8192

// sizeable returns an answer that takes several sectors.
func sizeable() rotation.Issued {
	large := issued
	large.Facts.Name = strings.Repeat("name ", 300)
	return large
}

// reservedAndSealed returns the content of a file after Reserve and after Seal.
func reservedAndSealed(t *testing.T, j *statedir.Dir, dir, id string) (before, after []byte) {
	t.Helper()
	key := rotation.PendingKey{RotationID: id, Token: "ci", TokenID: "uuid"}
	if err := j.Pending.Reserve(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	before = read(t, filepath.Join(dir, "pending", id))
	if err := j.Pending.Seal(t.Context(), key, sizeable()); err != nil {
		t.Fatal(err)
	}
	after = read(t, filepath.Join(dir, "pending", id))
	return before, after
}

// allocated returns how many bytes of the disk a file takes.
func allocated(info os.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Blocks * 512 }

// TestSealIsInPlace checks what a full disk requires: a seal needs no space. The file is neither replaced nor
// longer, and no part of it is a hole.
func TestSealIsInPlace(t *testing.T) {
	dir := stateDir(t)
	j := open(t, statedir.Options{Dir: dir})
	path := filepath.Join(dir, "pending", "R")
	key := rotation.PendingKey{RotationID: "R", Token: "ci", TokenID: "uuid"}
	if err := j.Pending.Reserve(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	reserved, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if blocks := allocated(reserved); blocks < reserved.Size() {
		t.Errorf("%d bytes are allocated for %d", blocks, reserved.Size())
	}
	for page := range slices.Chunk(read(t, path), sector) {
		if len(bytes.Trim(page, "\x00")) == 0 {
			t.Error("a part of the reservation is zeros, which a file system may leave out")
		}
	}
	if err := j.Pending.Reserve(t.Context(), key); err == nil {
		t.Error("space was reserved twice")
	}
	if err := j.Pending.Seal(t.Context(), key, issued); err != nil {
		t.Fatal(err)
	}
	sealed, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(reserved, sealed) || sealed.Size() != reserved.Size() || allocated(sealed) != allocated(reserved) {
		t.Errorf("the seal took space: %d and %d bytes", allocated(reserved), allocated(sealed))
	}
	entries, err := os.ReadDir(filepath.Join(dir, "pending"))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestTornSeal interrupts a seal at every sector, in the order of writing and in random orders, as a disk
// with a cache may. Only whole answers may be found, and nothing may be an error.
func TestTornSeal(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	before, after := reservedAndSealed(t, j, o.Dir, "R")
	path := filepath.Join(o.Dir, "pending", "R")
	var changed []int // sectors of the body that the seal writes
	for at := bodyAt; at < len(after); at += sector {
		if !bytes.Equal(before[at:at+sector], after[at:at+sector]) {
			changed = append(changed, at)
		}
	}
	if len(changed) < 4 {
		t.Fatalf("only %d sectors change", len(changed))
	}
	try := func(what string, torn []byte, want bool) {
		t.Helper()
		write(t, path, torn)
		got, ok, err := j.Pending.Open(t.Context(), "R")
		if err != nil || ok != want || ok && !got.ClientSecret.Equal(issued.ClientSecret) {
			t.Errorf("%s: found %t, %v", what, ok, err)
		}
		if all, err := j.Pending.Sealed(); err != nil || (len(all) == 1) != want {
			t.Errorf("%s: Sealed: %v, %v", what, all, err)
		}
	}
	random := rand.New(rand.NewPCG(7, 11))
	for range 100 {
		random.Shuffle(len(changed), func(a, b int) { changed[a], changed[b] = changed[b], changed[a] })
		torn := bytes.Clone(before)
		for n, at := range changed {
			try("before the body was whole", torn, false)
			copy(torn[at:], after[at:at+sector])
			if n+1 == len(changed) {
				try("the body is whole", torn, true)
			}
		}
	}
	// The mark is written after the body is durable. It may be torn, too.
	for cut := range 100 {
		torn := bytes.Clone(after)
		copy(torn[markAt+cut:bodyAt], before[markAt+cut:bodyAt])
		try("a torn mark", torn, true)
	}
	// In the middle of a sector, in case such a disk exists.
	for cut := bodyAt + 1; cut < bodyAt+sector; cut += 7 {
		torn := bytes.Clone(before)
		copy(torn[bodyAt:cut], after[bodyAt:cut])
		try("a torn sector", torn, false)
	}
}

// TestCutShortSealIsFinished opens a directory in which the body was written and the mark was not. The answer
// counts, and damage to it is noticed from then on.
func TestCutShortSealIsFinished(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	before, after := reservedAndSealed(t, j, o.Dir, "R")
	_ = j.Close()
	path := filepath.Join(o.Dir, "pending", "R")
	torn := bytes.Clone(after)
	copy(torn[markAt:bodyAt], before[markAt:bodyAt])
	write(t, path, torn)
	j = open(t, o)
	if got, ok, err := j.Pending.Open(t.Context(), "R"); err != nil || !ok || !got.ClientSecret.Equal(issued.ClientSecret) {
		t.Fatalf("%t, %v", ok, err)
	}
	if !bytes.Equal(read(t, path)[markAt:], after[markAt:]) {
		t.Error("the seal was not finished")
	}
}

// TestRottenSeal damages sealed files everywhere. What can still be opened must be right. What cannot be
// opened must be an error that does not affect other secrets.
func TestRottenSeal(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	_, after := reservedAndSealed(t, j, o.Dir, "R")
	key := rotation.PendingKey{RotationID: "OTHER", Token: "cd"}
	if err := j.Pending.Seal(t.Context(), key, issued); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(o.Dir, "pending", "R")
	right, damaged := 0, 0
	try := func(what string, b []byte) {
		t.Helper()
		write(t, path, b)
		got, ok, err := j.Pending.Open(t.Context(), "R")
		switch {
		case err != nil && (strings.Contains(err.Error(), "damaged since it was sealed") || strings.Contains(err.Error(), "use the version that wrote it")):
			damaged++
		case err == nil && ok && got.ClientSecret.Equal(issued.ClientSecret):
			right++
		default:
			t.Errorf("%s: found %t, %v", what, ok, err)
		}
		all, err := j.Pending.Sealed()
		if err != nil || len(all) != 2 || all[0].RotationID != "OTHER" || all[0].Damage != nil || all[1].RotationID != "R" || all[1].At.IsZero() {
			t.Fatalf("%s: Sealed: %+v, %v", what, all, err)
		}
	}
	random := rand.New(rand.NewPCG(3, 5))
	for at := 0; at < len(after); at += 1 + random.IntN(20) {
		b := bytes.Clone(after)
		b[at] ^= 1 << random.IntN(8)
		try("a flipped bit", b)
	}
	if right < 100 || damaged < 100 {
		t.Errorf("%d could be opened and %d were damaged", right, damaged)
	}
	for length := 0; length < bodyAt+1000; length += 97 {
		try("truncated", after[:length])
	}
	for at := 0; at < len(after); at += sector {
		b := bytes.Clone(after)
		clear(b[at : at+sector])
		try("a sector of zeros", b)
	}
	write(t, path, after)
	write(t, filepath.Join(o.Dir, "pending", "COPY"), after)
	if _, _, err := j.Pending.Open(t.Context(), "COPY"); err == nil || !strings.Contains(err.Error(), "give it its name back") {
		t.Errorf("a copy under another name: %v", err)
	}
}

// TestSealAgain: sealing the same answer again is harmless, and never replaces another answer.
func TestSealAgain(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	_, after := reservedAndSealed(t, j, o.Dir, "R")
	key := rotation.PendingKey{RotationID: "R", Token: "ci", TokenID: "uuid"}
	if err := j.Pending.Seal(t.Context(), key, sizeable()); err != nil || !bytes.Equal(read(t, filepath.Join(o.Dir, "pending", "R")), after) {
		t.Errorf("the same answer again: %v", err)
	}
	another := issued
	another.ClientSecret = secret.New("another")
	if err := j.Pending.Seal(t.Context(), key, another); err == nil || !strings.Contains(err.Error(), "another sealed answer already") {
		t.Errorf("another answer: %v", err)
	}
	if got, ok, err := j.Pending.Open(t.Context(), "R"); err != nil || !ok || !got.ClientSecret.Equal(issued.ClientSecret) {
		t.Errorf("%t, %v", ok, err)
	}
	// The new answer is worth more than a damaged file.
	b := bytes.Clone(after)
	b[bodyAt+40] ^= 1
	write(t, filepath.Join(o.Dir, "pending", "R"), b)
	if err := j.Pending.Seal(t.Context(), key, issued); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := j.Pending.Open(t.Context(), "R"); err != nil || !ok {
		t.Errorf("%t, %v", ok, err)
	}
}

// TestSealAfterClose: an answer arrives after its process has closed the directory.
func TestSealAfterClose(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	reserved, not := rotation.PendingKey{RotationID: "R", Token: "ci"}, rotation.PendingKey{RotationID: "NOT", Token: "ci"}
	if _, err := j.Ledger.Save(t.Context(), rotation.Record{Token: "ci", Step: rotation.StepIntent, Work: &rotation.Work{RotationID: "R"}}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Pending.Reserve(t.Context(), reserved), j.Close()); err != nil {
		t.Fatal(err)
	}
	other := open(t, o)
	if err := j.Pending.Seal(t.Context(), reserved, issued); err != nil {
		t.Errorf("the answer was lost: %v", err)
	}
	if got, ok, err := other.Pending.Open(t.Context(), "R"); err != nil || !ok || !got.ClientSecret.Equal(issued.ClientSecret) {
		t.Errorf("%t, %v", ok, err)
	}
	_, _, openErr := j.Pending.Open(t.Context(), "R")
	for what, err := range map[string]error{
		"Reserve": j.Pending.Reserve(t.Context(), not), "Seal": j.Pending.Seal(t.Context(), not, issued), "Erase": j.Pending.Erase(t.Context(), "R"), "Open": openErr,
	} {
		if err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestLargeAnswer(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	key := rotation.PendingKey{RotationID: "R", Token: "ci"}
	large := issued
	large.ClientSecret = secret.New(strings.Repeat("long", 10_000))
	if err := j.Pending.Reserve(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := j.Pending.Seal(t.Context(), key, large); err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	if got, ok, err := open(t, o).Pending.Open(t.Context(), "R"); err != nil || !ok || !got.ClientSecret.Equal(large.ClientSecret) {
		t.Errorf("%t, %v", ok, err)
	}
}

// TestSweep checks what is tidied up when a directory is opened, and what is not.
func TestSweep(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	for _, id := range []string{"FORGOTTEN", "NEEDED", "ORPHAN", "WAITING"} {
		if err := j.Pending.Reserve(t.Context(), rotation.PendingKey{RotationID: id, Token: "ci"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"ORPHAN", "WAITING"} {
		if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: id, Token: "ci"}, issued); err != nil {
			t.Fatal(err)
		}
	}
	for token, id := range map[string]string{"a": "NEEDED", "b": "WAITING"} {
		if _, err := j.Ledger.Save(t.Context(), rotation.Record{Token: token, Step: rotation.StepIntent, Work: &rotation.Work{RotationID: id}}); err != nil {
			t.Fatal(err)
		}
	}
	_ = j.Close()
	pending := filepath.Join(o.Dir, "pending")
	write(t, filepath.Join(pending, ".new-123"), []byte("half"))
	write(t, filepath.Join(pending, "an operator's note.txt"), []byte("do not touch"))
	open(t, o)
	var left []string
	entries, err := os.ReadDir(pending)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got := strings.Join(left, " "); err != nil || got != "NEEDED ORPHAN WAITING an operator's note.txt" {
		t.Errorf("left: %s, %v", got, err)
	}
}

func TestRecipients(t *testing.T) {
	breakGlass, _ := age.GenerateX25519Identity()
	second, _ := age.GenerateX25519Identity()
	o := statedir.Options{Dir: stateDir(t), Recipients: []string{breakGlass.Recipient().String(), second.Recipient().String()}}
	j := open(t, o)
	_, _ = reservedAndSealed(t, j, o.Dir, "R")
	if _, ok, err := j.Pending.Open(t.Context(), "R"); err != nil || !ok {
		t.Errorf("the daemon's own identity: %t, %v", ok, err)
	}
	_ = j.Close()
	in, err := statedir.Inspect(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, identity := range []age.Identity{breakGlass, second} {
		if got, err := in.Open("R", []age.Identity{identity}); err != nil || !got.ClientSecret.Equal(issued.ClientSecret) {
			t.Errorf("recipient %d: %v", i, err)
		}
	}
	stranger, _ := age.GenerateX25519Identity()
	if _, err := in.Open("R", []age.Identity{stranger}); err == nil {
		t.Error("a stranger opened it")
	}
	o.Recipients = []string{breakGlass.String()}
	if _, err := statedir.Open(o); err == nil || strings.Contains(strings.ToUpper(err.Error()), "AGE-SECRET-KEY") {
		t.Errorf("a secret key as recipient: %v", err)
	}
}

func TestLastWrite(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	if at, err := j.LastWrite(); !at.IsZero() || err != nil {
		t.Errorf("before the first write: %v, %v", at, err)
	}
	began := time.Now()
	saved, err := j.Ledger.Save(t.Context(), rotation.Record{Token: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	good, err := j.LastWrite()
	if good.Before(began) || err != nil {
		t.Errorf("after a write: %v, %v", good, err)
	}
	saved.Revision = 99
	if _, err := j.Ledger.Save(t.Context(), saved); !errors.Is(err, rotation.ErrConflict) {
		t.Fatal(err)
	}
	if at, err := j.LastWrite(); err != nil || at != good {
		t.Errorf("after a conflict: %v, %v", at, err)
	}
	if err := os.RemoveAll(filepath.Join(o.Dir, "pending")); err != nil {
		t.Fatal(err)
	}
	if err := j.Pending.Reserve(t.Context(), rotation.PendingKey{RotationID: "R"}); err == nil {
		t.Fatal("no space was reserved")
	}
	if at, err := j.LastWrite(); err == nil || !at.After(good) {
		t.Errorf("after a write that failed: %v, %v", at, err)
	}
	// A record that could be written does not show that there is space for an answer.
	saved.Revision = 1
	if _, err := j.Ledger.Save(t.Context(), saved); err != nil {
		t.Fatal(err)
	}
	if _, err := j.LastWrite(); err == nil {
		t.Error("the failure is forgotten")
	}
	if err := os.Mkdir(filepath.Join(o.Dir, "pending"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := j.Pending.Reserve(t.Context(), rotation.PendingKey{RotationID: "R"}); err != nil {
		t.Fatal(err)
	}
	if _, err := j.LastWrite(); err != nil {
		t.Errorf("after it was mended: %v", err)
	}
}
