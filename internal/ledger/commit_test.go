package ledger

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"rotatord/internal/rotation"
)

// grouped has saves wait while a transaction is written. release ends that transaction, and returns how many more were
// written until all saves have returned.
func grouped(t *testing.T, l *Local, saves []func()) (transactions int) {
	t.Helper()
	begun, hold := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		_ = l.update(func(*bbolt.Tx) (func() error, error) { close(begun); <-hold; return nil, rotation.ErrConflict })
	})
	<-begun
	for _, save := range saves {
		all.Go(save)
	}
	for l.changes.Waiting() < len(saves) {
		time.Sleep(time.Millisecond) // until all of them wait
	}
	before := lastTransaction(t, l)
	close(hold)
	all.Wait()
	return lastTransaction(t, l) - before
}

// lastTransaction returns the number of the last transaction that was written.
func lastTransaction(t *testing.T, l *Local) (id int) {
	t.Helper()
	if err := l.db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return id
}

func openNew(t *testing.T) *Local {
	t.Helper()
	l, err := OpenLocal(filepath.Join(t.TempDir(), FileName), LocalOptions{Timeout: time.Second, New: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// TestSavesShareATransaction: n saves that wait for one transaction are one more, whatever n is, and all are there when
// they return. One that is refused, or that cannot be written, fails alone.
func TestSavesShareATransaction(t *testing.T) {
	for _, n := range []int{8, 32} {
		l := openNew(t)
		saves := make([]func(), n)
		for i := range n {
			saves[i] = func() {
				name := fmt.Sprint("token-", i)
				if _, err := l.Save(t.Context(), rotation.Record{Format: rotation.RecordFormat, Token: name}); err != nil {
					t.Error(err)
				}
				if r, err := l.Load(t.Context(), name); err != nil || r.Revision != 1 {
					t.Errorf("%s after its save: %+v, %v", name, r, err)
				}
			}
		}
		if got := grouped(t, l, saves); got != 1 {
			t.Errorf("%d saves are %d transactions", n, got)
		}
		refused, failed, paused, together := errors.New("?"), errors.New("?"), errors.New("?"), errors.New("?")
		saves = append(saves[:0],
			func() {
				_, refused = l.Save(t.Context(), rotation.Record{Token: "token-0", Revision: 7})
			},
			func() { // bbolt has no empty key
				_, failed = l.Save(t.Context(), rotation.Record{})
			},
			func() { _, paused = l.SetPause(t.Context(), "token-1", &rotation.Pause{Since: time.Now()}) },
			func() {
				_, together = l.SaveAll(t.Context(), []rotation.Record{{Token: "token-1", Revision: 1}, {Token: "token-2", Revision: 1}})
			},
		)
		grouped(t, l, saves)
		if !errors.Is(refused, rotation.ErrConflict) || failed == nil || errors.Is(failed, rotation.ErrConflict) || paused != nil || together != nil {
			t.Errorf("refused: %v; cannot be written: %v; pause: %v; two records: %v", refused, failed, paused, together)
		}
		if _, err := l.All(t.Context()); err != nil { // compares the ledger with its tally
			t.Error(err)
		}
	}
}

// TestOneRecordTwice: two saves of one record that wait together are a save and a conflict, and so are two in one call.
func TestOneRecordTwice(t *testing.T) {
	l := openNew(t)
	var mu sync.Mutex
	var errs []error
	save := func() {
		_, err := l.Save(t.Context(), rotation.Record{Token: "ci"})
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	}
	grouped(t, l, []func(){save, save})
	if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), rotation.ErrConflict) {
		t.Errorf("two saves of one record: %v", errs)
	}
	if _, err := l.SaveAll(t.Context(), []rotation.Record{{Token: "cd"}, {Token: "cd"}}); !errors.Is(err, rotation.ErrConflict) {
		t.Errorf("twice in one call: %v", err)
	}
	if all, err := l.All(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestAFailedTransactionFailsAll: a transaction that the disk refuses is the error of each save in it, and is not tried
// again: it may count.
func TestAFailedTransactionFailsAll(t *testing.T) {
	l := openNew(t)
	tries := 0
	broken := &change{prepare: func(tx *bbolt.Tx) (func() error, error) {
		tries++
		return func() error { return tx.Bucket(metaBucket).Put([]byte("x"), nil) }, nil
	}}
	other := &change{prepare: broken.prepare}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l.commit([]*change{broken, other})
	if _, err := l.LastWrite(); err == nil || broken.err == nil || other.err == nil || tries != 0 {
		t.Errorf("the last write: %v; the changes: %v, %v, tried %d times", err, broken.err, other.err, tries)
	}
}

// TestSaveWritesNoListOfFreePages: after all records were written again at once, as many pages are free. A save writes its own pages and
// not the list of those.
func TestSaveWritesNoListOfFreePages(t *testing.T) {
	var written []int64
	for _, n := range []int{2_000, 8_000} {
		l := openNew(t)
		all := make([]rotation.Record, n)
		for i := range all {
			all[i] = rotation.Record{Token: fmt.Sprintf("token-%05d", i), Step: rotation.StepIdle, LastError: strings.Repeat("x", 1500)}
		}
		for range 2 {
			saved, err := l.SaveAll(t.Context(), all)
			if err != nil {
				t.Fatal(err)
			}
			all = saved
		}
		before := l.db.Stats()
		if _, err := l.Save(t.Context(), all[n/2]); err != nil {
			t.Fatal(err)
		}
		after := l.db.Stats()
		if free := after.FreePageN; free < n/4 {
			t.Fatalf("%d pages are free, which proves nothing", free)
		}
		diff := after.TxStats.Sub(&before.TxStats)
		written = append(written, diff.GetPageAlloc())
	}
	if written[1] > written[0]+int64(8<<10) {
		t.Errorf("a save writes %d bytes of pages with 2,000 records and %d with 8,000", written[0], written[1])
	}
}
