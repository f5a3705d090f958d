package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
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

func (l *fullDisk) SaveAll(context.Context, []rotation.Record) ([]rotation.Record, error) {
	return nil, errNoSpace
}

// TestReloadWhileTheDiskIsFull: a reload that adds thousands of tokens while the disk is full keeps to a few writes at
// once, tells of each token once an hour, and schedules all of them once there is space.
func TestReloadWhileTheDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 500
		ledger := &fullDisk{memoryLedger: newMemoryLedger()}
		var log strings.Builder
		a := &App{log: slog.New(slog.NewTextHandler(&log, nil)), now: time.Now}
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
		if ledger.most > enrollsAtOnce || ledger.writes < 4*n {
			t.Errorf("%d writes, %d at once", ledger.writes, ledger.most)
		}
		if lines := strings.Count(log.String(), "is not scheduled yet"); lines != n {
			t.Errorf("the log says %d times that a token is not scheduled", lines)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if lines := strings.Count(log.String(), "is not scheduled yet"); lines != 2*n {
			t.Errorf("after an hour the log says it %d times", lines)
		}
		ledger.mu.Lock()
		ledger.space = true
		ledger.mu.Unlock()
		time.Sleep(2 * retryCeiling)
		a.engine.workers.Wait()
		for _, token := range tokens {
			if s, ok := a.engine.view(token.Name); !ok || s.enrolling || s.record.Revision == 0 {
				t.Fatalf("%s is not scheduled", token.Name)
			}
		}
	})
}
