package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// fullDisk is a ledger whose writes fail after a while until there is space.
type fullDisk struct {
	*memoryLedger
	space          bool
	writes, atOnce int
	most           int
}

var errNoSpace = errors.New("no space left on device")

func (l *fullDisk) Save(ctx context.Context, r rotation.Record) (rotation.Record, error) {
	l.mu.Lock()
	l.atOnce++
	l.writes, l.most = l.writes+1, max(l.most, l.atOnce)
	l.mu.Unlock()
	time.Sleep(time.Millisecond)
	l.mu.Lock()
	space := l.space
	l.atOnce--
	l.mu.Unlock()
	if !space {
		return r, errNoSpace
	}
	return l.memoryLedger.Save(ctx, r)
}

// free gives the disk space again.
func (l *fullDisk) free() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.space = true
}

// counted are the writes so far, and the most of them at once.
func (l *fullDisk) counted() (writes, most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes, l.most
}

func (l *fullDisk) SaveAll(context.Context, []rotation.Record) ([]rotation.Record, error) {
	return nil, errNoSpace
}

// lines is a log that counts the lines which say that a token is not scheduled.
type lines struct{ atomic.Int64 }

func (l *lines) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("is not scheduled yet")) {
		l.Add(1)
	}
	return len(line), nil
}

// TestReloadWhileTheDiskIsFull: a reload that adds thousands of tokens while the disk is full keeps to a few writes at
// once, tells of each token once an hour, and schedules all of them once there is space.
func TestReloadWhileTheDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 500
		ledger := &fullDisk{memoryLedger: newMemoryLedger()}
		var told lines
		a := &App{log: slog.New(slog.NewTextHandler(&told, nil)), now: time.Now}
		events := event.NewStream(time.Now, nil, event.NewLog(a.log))
		a.engine = newEngine(time.Now, a.log, events)
		a.engine.rotator = rotation.New(rotation.Options{Ledger: ledger, Started: time.Now(), Saved: a.engine.show})
		tokens := restingTokens(n)
		if err := a.engine.replaceTokens(tokens, nil); err != nil {
			t.Fatal(err)
		}
		a.engine.enrollReloaded(t.Context(), tokens)
		time.Sleep(5 * retryCeiling)
		synctest.Wait()
		if writes, most := ledger.counted(); most > enrollsAtOnce || writes < 4*n {
			t.Errorf("%d writes, %d at once", writes, most)
		}
		if told := told.Load(); told != n {
			t.Errorf("the log says %d times that a token is not scheduled", told)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if told := told.Load(); told != 2*n {
			t.Errorf("after an hour the log says it %d times", told)
		}
		ledger.free()
		time.Sleep(2 * retryCeiling)
		a.engine.workers.Wait()
		for _, token := range tokens {
			if s, ok := a.engine.view(token.Name); !ok || s.enrolling || s.record.Revision == 0 {
				t.Fatalf("%s is not scheduled", token.Name)
			}
		}
	})
}

// TestASecondReloadWhileTheDiskIsFull: what a reload could not make known to the ledger is not written after a later reload that changed it again or
// removed it: the ledger would have the record of a service token that the configuration does not name any more, and forget the grace of the other one.
func TestASecondReloadWhileTheDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := &fullDisk{memoryLedger: newMemoryLedger()}
		var told lines
		a := &App{log: slog.New(slog.NewTextHandler(&told, nil)), now: time.Now}
		a.engine = newEngine(time.Now, a.log, event.NewStream(time.Now, nil, event.NewLog(a.log)))
		a.engine.rotator = rotation.New(rotation.Options{Ledger: ledger, Started: time.Now(), Saved: a.engine.show})
		reload := func(tokens []rotation.Token, removed ...string) {
			if err := a.engine.replaceTokens(tokens, removed); err != nil {
				t.Fatal(err)
			}
			a.engine.enrollReloaded(t.Context(), tokens)
		}
		first := restingTokens(2)
		first[0].ID = "a mistake"
		reload(first)
		time.Sleep(retryCeiling / 3)
		second := restingTokens(1)
		reload(second, first[1].Name)
		time.Sleep(retryCeiling * 5 / 6) // the first reload has tried again, and the second one is next
		ledger.free()
		time.Sleep(2 * time.Hour)
		a.engine.workers.Wait()
		record, err := ledger.Load(t.Context(), second[0].Name)
		if s, _ := a.engine.view(second[0].Name); err != nil || record.TokenID != second[0].ID || s.enrolling || s.record.Revision != record.Revision {
			t.Errorf("the ledger has %s in revision %d (%v), and the engine %s in revision %d", record.TokenID, record.Revision, err, s.record.TokenID, s.record.Revision)
		}
		if removed, err := ledger.Load(t.Context(), first[1].Name); err != nil || removed.Revision != 0 {
			t.Errorf("a token that was removed has a record (%v)", err)
		}
		if n := told.Load(); n != 3 {
			t.Errorf("the log says %d times that a token is not scheduled", n)
		}
	})
}
