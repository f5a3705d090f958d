package shared

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"rotatord/internal/kvstore"
	"rotatord/internal/moment"
	"rotatord/internal/rotation"
)

const (
	// maxConflicts is how many writes of others in a row SetPause gives way to, and conflictPause the longest pause
	// after one.
	maxConflicts  = 10
	conflictPause = 100 * time.Millisecond
)

// pausesEntry is the content of the entry of the pauses.
type pausesEntry struct {
	Format int                       `json:"format"`
	Pauses map[string]rotation.Pause `json:"pauses"`
}

// LoadPauses implements [rotation.Pauses]. It sends one request.
func (l *Ledger) LoadPauses(ctx context.Context) (map[string]rotation.Pause, error) {
	all, _, err := l.loadPauses(ctx)
	return all, err
}

// SetPause implements [rotation.Pauses]. It sends two requests, and two more for each write of another replica that
// comes between them.
func (l *Ledger) SetPause(ctx context.Context, token string, p *rotation.Pause) (map[string]rotation.Pause, error) {
	for conflicts := 0; ; conflicts++ {
		all, version, err := l.loadPauses(ctx)
		if err != nil {
			return nil, err
		}
		all = rotation.WithPause(all, token, p)
		err = l.savePauses(ctx, all, version)
		if err == nil || !errors.Is(err, rotation.ErrConflict) {
			return all, err
		}
		if conflicts == maxConflicts {
			return nil, err
		}
		if err := moment.Sleep(ctx, rand.N(conflictPause)); err != nil {
			return nil, err
		}
	}
}

// SavePauses implements [ledger.Ledger].
func (l *Ledger) SavePauses(ctx context.Context, all map[string]rotation.Pause) error {
	if l.closed.Load() {
		return errClosed
	}
	l.mu.Lock()
	version := l.pauses.Version
	l.mu.Unlock()
	return l.savePauses(ctx, all, version)
}

// loadPauses returns what is paused, and the version of its entry.
func (l *Ledger) loadPauses(ctx context.Context) (all map[string]rotation.Pause, version int, err error) {
	err = untilFresh(ctx, func() (err error) { all, version, err = l.readPauses(ctx); return err })
	return all, version, err
}

func (l *Ledger) readPauses(ctx context.Context) (map[string]rotation.Pause, int, error) {
	if l.closed.Load() {
		return nil, 0, errClosed
	}
	e, err := l.o.KV.Get(ctx, pathPauses)
	if err != nil {
		return nil, 0, err
	}
	at := l.o.KV.At(pathPauses)
	l.mu.Lock()
	seen := l.pauses
	l.mu.Unlock()
	if seen.Version > 0 {
		if err := notOlder("what is paused", at, seen.Version, seen.CreatedAt, e); err != nil {
			return nil, 0, err
		}
	}
	all, err := decodePauses(e)
	if _, newer := errors.AsType[*newerError](err); newer {
		return nil, 0, fmt.Errorf("what is paused cannot be read in Vault (%s, version %d): %w", at, e.Version, err)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("what is paused cannot be read in Vault (%s, version %d): %w. Something else than rotatord wrote it: vault kv rollback -version=%d %s puts back the version before it. "+
			"If there is none, vault kv metadata delete %s ends all pauses", at, e.Version, err, e.Version-1, at, at)
	}
	l.learnPauses(e)
	return all, e.Version, nil
}

func decodePauses(e kvstore.Entry) (map[string]rotation.Pause, error) {
	if e.Version == 0 {
		return make(map[string]rotation.Pause), nil
	}
	var f struct {
		Format json.RawMessage           `json:"format"`
		Pauses map[string]rotation.Pause `json:"pauses"`
	}
	if err := json.Unmarshal(e.Data, &f); err != nil {
		return nil, errors.New("it is not what rotatord writes there")
	}
	if err := checkFormat(f.Format); err != nil {
		return nil, err
	}
	if f.Pauses == nil {
		return nil, errors.New("it has no pauses")
	}
	return f.Pauses, nil
}

func (l *Ledger) savePauses(ctx context.Context, all map[string]rotation.Pause, version int) error {
	if all == nil {
		all = make(map[string]rotation.Pause)
	}
	e, err := l.o.KV.Put(ctx, pathPauses, pausesEntry{Format, all}, version)
	if errors.Is(err, kvstore.ErrConflict) {
		return fmt.Errorf("%w: %w", rotation.ErrConflict, err)
	}
	if l.writes.Note(err) != nil {
		return err
	}
	l.learnPauses(e)
	if e.Version == 1 {
		l.limit(ctx, pathPauses)
	}
	l.o.Saved(rotation.AllTokens, uint64(e.Version))
	return nil
}

// learnPauses notes which version of the pauses was seen last.
func (l *Ledger) learnPauses(e kvstore.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Version > l.pauses.Version || e.CreatedAt.After(l.pauses.CreatedAt) {
		l.pauses = kvstore.Entry{Version: e.Version, CreatedAt: e.CreatedAt}
	}
}
