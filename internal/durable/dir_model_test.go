package durable

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"
)

// slowDisk is a disk that keeps, when a sync of the directory has succeeded, the names that were there when that sync
// began, and no others. A crash at any moment leaves exactly those.
type slowDisk struct {
	mu   sync.Mutex
	kept map[string]bool
	// syncs counts those that ended, and failed those of them that failed.
	syncs, failed int
}

var errDisk = errors.New("input/output error")

func (d *slowDisk) sync(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond) // callers come meanwhile
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.syncs++; rand.IntN(4) == 0 {
		d.failed++
		return errDisk
	}
	d.kept = make(map[string]bool, len(entries))
	for _, e := range entries {
		d.kept[e.Name()] = true
	}
	return nil
}

func (d *slowDisk) keeps(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kept[name]
}

// TestNothingIsAcknowledgedTooEarly: while many callers share the syncs of a directory and every fourth sync fails, a
// crash right after a call that returned nil finds what the call has done. So a caller that came during a sync was not
// served by that one, and a sync that failed has served nobody.
func TestNothingIsAcknowledgedTooEarly(t *testing.T) {
	var disk slowDisk
	d := NewDir(t.TempDir())
	d.sync = disk.sync
	var refused, acknowledged int
	var mu sync.Mutex
	var all sync.WaitGroup
	for writer := range 8 {
		all.Go(func() {
			for i := range 40 {
				name := fmt.Sprintf("%d-%d", writer, i)
				err := d.WriteFile(name, []byte("x"), 0o600)
				if err == nil && !disk.keeps(name) {
					t.Errorf("%s was acknowledged, and a crash would lose it", name)
				}
				if err != nil && !errors.Is(err, errDisk) {
					t.Errorf("%s: %v", name, err)
				}
				if err == nil && i%4 == 0 {
					if err := d.Remove(name); err == nil && disk.keeps(name) {
						t.Errorf("the removal of %s was acknowledged, and a crash would undo it", name)
					}
				}
				mu.Lock()
				if err != nil {
					refused++
				} else {
					acknowledged++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if refused < disk.failed || refused == 0 || acknowledged == 0 || disk.syncs >= 8*40 {
		t.Errorf("%d calls were refused and %d acknowledged, in %d syncs of which %d failed", refused, acknowledged, disk.syncs, disk.failed)
	}
}
