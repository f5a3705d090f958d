//go:build linux

package statedir_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/durable/disktest"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// onDisks runs a test on each kind of disk.
func onDisks(t *testing.T, kib int, test func(t *testing.T, d *disktest.Disk, o statedir.Options)) {
	for kind, kib := range map[string]int{disktest.Tmpfs: kib, disktest.Ext4: 4<<10 + kib} {
		t.Run(kind, func(t *testing.T) {
			d := disktest.New(t, kind, kib)
			test(t, d, statedir.Options{Dir: filepath.Join(d.Dir, "state")})
		})
	}
}

// TestDiskFull fills the disk before each write of a rotation, one at a time.
func TestDiskFull(t *testing.T) {
	for n := range rotationSteps(t, nil) {
		onDisks(t, 700, func(t *testing.T, d *disktest.Disk, o statedir.Options) {
			j := open(t, o)
			steps := rotationSteps(t, j)
			for _, step := range steps[:n] {
				if err := step.do(); err != nil {
					t.Fatalf("%s: %v", step.name, err)
				}
			}
			step := steps[n]
			before, err := j.Ledger.Load(t.Context(), "ci")
			if err != nil {
				t.Fatal(err)
			}
			d.Fill()
			began := time.Now()
			err = step.do()
			if step.needsRoom != errors.Is(err, syscall.ENOSPC) || !step.needsRoom && err != nil {
				t.Errorf("%s on a full disk: %v", step.name, err)
			}
			if at, lastErr := j.LastWrite(); (lastErr == nil) != (err == nil) || at.Before(began) {
				t.Errorf("%s on a full disk: the last write is said to have ended at %v with %v", step.name, at, lastErr)
			}
			// Nothing is lost, in this process or in one that starts now.
			for range 2 {
				if got, loadErr := j.Ledger.Load(t.Context(), "ci"); loadErr != nil || err != nil && got.Revision != before.Revision {
					t.Errorf("%s on a full disk: the ledger has revision %d after %d, %v", step.name, got.Revision, before.Revision, loadErr)
				}
				_, sealed, openErr := j.Pending.Open(t.Context(), "R")
				if want := n >= 2 && n <= 4 || n == 5 && err != nil; openErr != nil || sealed != want {
					t.Errorf("%s on a full disk: the secret is there: %t, %v", step.name, sealed, openErr)
				}
				_ = j.Close()
				j = open(t, o)
			}
			// Once there is space, the rotation goes on.
			d.Free()
			rest := rotationSteps(t, j)[n:]
			if err == nil {
				rest = rest[1:]
			}
			for _, step := range rest {
				if err := step.do(); err != nil {
					t.Errorf("%s after the disk was full: %v", step.name, err)
				}
			}
			if r, err := j.Ledger.Load(t.Context(), "ci"); err != nil || r.Step != rotation.StepIdle || r.Failures != len(steps)-1 {
				t.Errorf("in the end: %+v, %v", r, err)
			}
			if left, err := os.ReadDir(filepath.Join(o.Dir, "pending")); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// writeStep is one write of a rotation.
type writeStep struct {
	name      string
	needsRoom bool
	do        func() error
}

// rotationSteps returns the writes of a rotation, in the order of the protocol. Each record is larger than
// the one before, so a page that happens to be free is not enough.
func rotationSteps(t *testing.T, j *statedir.Dir) []writeStep {
	key := rotation.PendingKey{RotationID: "R", Token: "ci", TokenID: "uuid"}
	n := 0
	save := func(step rotation.Step) writeStep {
		n++
		size := n
		return writeStep{"saving " + string(step), true, func() error {
			r, err := j.Ledger.Load(t.Context(), "ci")
			if err != nil {
				return err
			}
			r.Format, r.Token, r.Step, r.Failures = rotation.RecordFormat, "ci", step, 6
			r.LastError = strings.Repeat("x", size*16<<10)
			if r.Work = nil; step != rotation.StepIdle {
				r.Work = &rotation.Work{RotationID: "R"}
			}
			_, err = j.Ledger.Save(t.Context(), r)
			return err
		}}
	}
	return []writeStep{
		{"reserving", true, func() error { return j.Pending.Reserve(t.Context(), key) }},
		save(rotation.StepIntent),
		{"sealing", false, func() error { return j.Pending.Seal(t.Context(), key, issued) }},
		save(rotation.StepSealed), save(rotation.StepStored),
		{"erasing", false, func() error { return j.Pending.Erase(t.Context(), "R") }},
		save(rotation.StepIdle),
	}
}

// TestFiftySealsOnAFullDisk tests the promise of Reserve: fifty rotations have reserved space, the disk fills
// up, and fifty answers arrive at once.
func TestFiftySealsOnAFullDisk(t *testing.T) {
	onDisks(t, 1200, func(t *testing.T, d *disktest.Disk, o statedir.Options) {
		j := open(t, o)
		id := func(i int) string { return fmt.Sprint("R", i) }
		for i := range 50 {
			if err := j.Pending.Reserve(t.Context(), rotation.PendingKey{RotationID: id(i), Token: fmt.Sprint("ci-", i)}); err != nil {
				t.Fatal(err)
			}
		}
		d.Fill()
		if err := j.Pending.Reserve(t.Context(), rotation.PendingKey{RotationID: "ONEMORE", Token: "ci"}); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the disk is not full: %v", err)
		}
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: id(i), Token: fmt.Sprint("ci-", i)}, issued); err != nil {
					t.Errorf("%s: %v", id(i), err)
				}
			})
		}
		all.Wait()
		_ = j.Close()
		j = open(t, o) // on the full disk
		for i := range 50 {
			if got, ok, err := j.Pending.Open(t.Context(), id(i)); err != nil || !ok || !got.ClientSecret.Equal(issued.ClientSecret) {
				t.Errorf("%s: %t, %v", id(i), ok, err)
			}
			if err := j.Pending.Erase(t.Context(), id(i)); err != nil {
				t.Errorf("%s: %v", id(i), err)
			}
		}
	})
}

// TestFirstStartOnAFullDisk: nothing is left that a second start takes for damage.
func TestFirstStartOnAFullDisk(t *testing.T) {
	onDisks(t, 200, func(t *testing.T, d *disktest.Disk, o statedir.Options) {
		d.Fill()
		if _, err := statedir.Open(o); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v", err)
		}
		d.Free()
		open(t, o)
	})
}

func TestReadOnlyFileSystem(t *testing.T) {
	onDisks(t, 300, func(t *testing.T, d *disktest.Disk, o statedir.Options) {
		d.ReadOnly(true)
		if _, err := statedir.Open(o); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "state directory") {
			t.Errorf("a first start: %v", err)
		}
		d.ReadOnly(false)
		j := open(t, o)
		if _, err := j.Ledger.Save(t.Context(), rotation.Record{Token: "ci"}); err != nil {
			t.Fatal(err)
		}
		if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "R", Token: "ci"}, issued); err != nil {
			t.Fatal(err)
		}
		_ = j.Close()
		d.ReadOnly(true)
		if _, err := statedir.Open(o); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "journal.db") {
			t.Errorf("a later start: %v", err)
		}
		// A command that only reads can do so.
		in, err := statedir.Inspect(o.Dir)
		if err != nil || in.LedgerErr != nil || len(in.Sealed) != 1 {
			t.Errorf("%+v, %v", in, err)
		}
		if err := statedir.Drop(o.Dir, "R"); !errors.Is(err, syscall.EROFS) {
			t.Errorf("Drop: %v", err)
		}
		d.ReadOnly(false)
		if _, ok, err := open(t, o).Pending.Open(t.Context(), "R"); err != nil || !ok {
			t.Errorf("%t, %v", ok, err)
		}
	})
}

// TestPowerCut cuts the power of a disk while a process writes to it, again and again, in the same directory.
// Everything that the process was told was done must be there.
func TestPowerCut(t *testing.T) {
	if dir := os.Getenv("STATEDIR_TEST_POWER"); dir != "" {
		writeUntilTheEnd(t, dir)
	}
	if testing.Short() {
		t.Skip("starts and stops processes")
	}
	d := disktest.New(t, disktest.Ext4, 16<<10)
	dir := filepath.Join(d.Dir, "state")
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	seen := 0
	for round := range 12 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPowerCut$")
		cmd.Env = append(os.Environ(), "STATEDIR_TEST_POWER="+dir)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		delay, cut := time.Duration(200+random.IntN(400))*time.Millisecond, make(chan error, 1)
		saved, sealed, opened := map[string]int{}, map[string]bool{}, false
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			// Noted before the next line begins; the last word about each name counts.
			verb, rest, _ := strings.Cut(lines.Text(), " ")
			name, number, _ := strings.Cut(rest, " ")
			switch verb {
			case "error":
				t.Errorf("round %d: the directory cannot be opened: %s", round, rest)
			case "opened": // a busy machine can need longer for that than the delay
				opened = true
				go func() { time.Sleep(delay); cut <- d.CutPower() }()
			case "saved":
				saved[name], _ = strconv.Atoi(number)
			case "sealed":
				sealed[name] = true
			case "erasing":
				delete(sealed, name)
			}
		}
		if !opened {
			cut <- nil
		}
		if err := errors.Join(<-cut, cmd.Wait()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		d.Restore()
		j := open(t, statedir.Options{Dir: dir})
		for token, revision := range saved {
			if r, err := j.Ledger.Load(t.Context(), token); err != nil || r.Revision < uint64(revision) {
				t.Errorf("round %d: %s is at revision %d, and %d was confirmed: %v", round, token, r.Revision, revision, err)
			}
		}
		for id := range sealed {
			if got, ok, err := j.Pending.Open(t.Context(), id); err != nil || !ok || !got.ClientSecret.Equal(issued.ClientSecret) {
				t.Errorf("round %d: the seal of %s was confirmed: %t, %v", round, id, ok, err)
			}
		}
		all, err := j.Pending.Sealed()
		for _, s := range all {
			err = errors.Join(err, s.Damage, j.Pending.Erase(t.Context(), s.RotationID))
		}
		if err := errors.Join(err, j.Close()); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		seen += len(saved) + len(sealed)
	}
	if seen < 24 {
		t.Errorf("only %d writes were confirmed in all, so this proves little", seen)
	}
}

// writeUntilTheEnd is the process whose disk loses its power. It prints what it was told.
func writeUntilTheEnd(t *testing.T, dir string) {
	j, err := statedir.Open(statedir.Options{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("opened")
	var all sync.WaitGroup
	for worker := range 3 {
		all.Go(func() {
			for i := 0; ; i++ {
				token, id := fmt.Sprint("token-", worker), fmt.Sprintf("R%d-%d-%d", os.Getpid(), worker, i)
				key := rotation.PendingKey{RotationID: id, Token: token}
				if j.Pending.Reserve(t.Context(), key) != nil || j.Pending.Seal(t.Context(), key, issued) != nil {
					return
				}
				fmt.Println("sealed", id)
				r, err := j.Ledger.Load(t.Context(), token)
				if err != nil {
					return
				}
				r.Format, r.Token, r.LastError = rotation.RecordFormat, token, strings.Repeat("x", i%4000)
				if r, err = j.Ledger.Save(t.Context(), r); err != nil {
					return
				}
				fmt.Println("saved", token, r.Revision)
				if i%2 == 0 {
					fmt.Println("erasing", id)
					if j.Pending.Erase(t.Context(), id) != nil {
						return
					}
				}
			}
		})
	}
	all.Wait()
	os.Exit(0)
}
