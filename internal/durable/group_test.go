package durable

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestGroup: whatever comes when, each item is in exactly one run that began after it came, and no two runs overlap. Items
// that come during a run share the next one.
func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[*time.Time]
		var all sync.WaitGroup
		runs, running := 0, false
		for i := range 200 {
			all.Go(func() {
				time.Sleep(time.Duration(i%40) * 7 * time.Millisecond)
				came, began := time.Now(), new(time.Time)
				g.Do(began, func(items []*time.Time) {
					if running {
						t.Error("two runs at once")
					}
					running = true
					runs++
					start := time.Now()
					time.Sleep(50 * time.Millisecond)
					for _, item := range items {
						if !item.IsZero() {
							t.Error("an item is in two runs")
						}
						*item = start
					}
					running = false
				})
				if began.Before(came) {
					t.Errorf("the run began at %s, and the item came at %s", began, came)
				}
			})
		}
		all.Wait()
		if runs > 9 { // 273 ms of arrivals, and a last run
			t.Errorf("%d runs", runs)
		}
		alone := new(time.Time)
		g.Do(alone, func(items []*time.Time) { *items[0] = time.Now() })
		if !alone.Equal(time.Now()) {
			t.Error("one that is alone waits")
		}
	})
}

// TestGroupLetsOthersGoFirst: who finds no run in progress does not run alone if others are about to come.
func TestGroupLetsOthersGoFirst(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that the order of goroutines is known, but for now and then
	var g Group[int]
	const times = 60
	runs := 0
	for range times {
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				if i < 3 {
					runtime.Gosched() // it comes the second time that it may go
				}
				if err := g.Do(i, func([]int) { runs++ }); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	if runs > times*3/2 {
		t.Errorf("four callers needed %.1f runs", float64(runs)/times)
	}
}

// TestGroupSurvivesAPanic: the panic is that of the caller whose run it was. Others that shared the run are not told that it
// has succeeded, and later ones go on.
func TestGroupSurvivesAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		release := make(chan struct{})
		go g.Do(1, func([]int) { <-release })
		synctest.Wait()
		var ends []any
		var mu sync.Mutex
		for range 2 {
			go func() {
				var err error
				defer func() {
					mu.Lock()
					defer mu.Unlock()
					ends = append(ends, cmp.Or[any](recover(), err))
				}()
				err = g.Do(2, func([]int) { panic("broken") })
			}()
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		if len(ends) != 2 || !slices.Contains(ends, any("broken")) || !slices.Contains(ends, any(ErrPanicked)) {
			t.Errorf("the two that shared a run which panicked have got %v", ends)
		}
		ran := false
		if err := g.Do(3, func([]int) { ran = true }); err != nil || !ran {
			t.Errorf("nothing runs any more: %v", err)
		}
	})
}

// TestDirSharesSyncs: files that are written at the same time share the sync of their directory. Each is there before
// the sync begins that its caller waits for, and an error of the sync is that of all who share it.
func TestDirSharesSyncs(t *testing.T) {
	dir := t.TempDir()
	d := NewDir(dir)
	syncs, hold, held := 0, make(chan struct{}), make(chan struct{})
	var fails error
	d.sync = func(path string) error {
		if syncs++; syncs == 1 {
			close(held)
			<-hold
			return nil
		}
		entries, err := os.ReadDir(path)
		if err == nil && len(entries) != 11 {
			t.Errorf("%d files are there when the directory is synced", len(entries))
		}
		return errors.Join(err, fails)
	}
	var all sync.WaitGroup
	all.Go(func() {
		if err := d.WriteFile("first", []byte("x"), 0o600); err != nil {
			t.Error(err)
		}
	})
	<-held
	fails = errors.New("the disk is gone")
	for i := range 10 {
		all.Go(func() {
			if err := d.WriteFile(fmt.Sprint(i), []byte("x"), 0o600); !errors.Is(err, fails) {
				t.Errorf("file %d: %v", i, err)
			}
		})
	}
	for d.syncs.Waiting() < 10 {
		time.Sleep(time.Millisecond)
	}
	close(hold)
	all.Wait()
	if syncs != 2 {
		t.Errorf("%d syncs", syncs)
	}
	d.sync = SyncDir
	if err := errors.Join(d.Remove("first"), d.Remove("first")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "first")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it is still there:", err)
	}
}
