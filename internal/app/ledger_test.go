package app

import (
	"context"
	"sync"

	"rotatord/internal/rotation"
)

// memoryLedger is a ledger of many tokens in memory that counts what is asked of it.
type memoryLedger struct {
	saving func(rotation.Record) // called with each record before it is saved; nil for nothing

	mu           sync.Mutex
	records      map[string]rotation.Record
	loads, saves int
	transactions int
	failing      error // of the next call of SaveAll; then it is nil again
}

func newMemoryLedger() *memoryLedger {
	return &memoryLedger{records: make(map[string]rotation.Record)}
}

func (l *memoryLedger) Load(_ context.Context, token string) (rotation.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loads++
	return unshared(l.records[token]), nil
}

func (l *memoryLedger) Save(ctx context.Context, r rotation.Record) (rotation.Record, error) {
	l.mu.Lock()
	l.transactions++
	l.mu.Unlock()
	return l.save(ctx, r)
}

func (l *memoryLedger) save(ctx context.Context, r rotation.Record) (rotation.Record, error) {
	if err := ctx.Err(); err != nil {
		return r, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.records[r.Token].Revision != r.Revision {
		return r, rotation.ErrConflict
	}
	if l.saving != nil {
		l.saving(r)
	}
	l.saves++
	r.Revision++
	l.records[r.Token] = unshared(r)
	return r, nil
}

func (l *memoryLedger) SaveAll(ctx context.Context, all []rotation.Record) ([]rotation.Record, error) {
	if len(all) == 0 {
		return nil, nil
	}
	l.mu.Lock()
	l.transactions++
	err := l.failing
	l.failing = nil
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	saved := make([]rotation.Record, len(all))
	for i, r := range all {
		one, err := l.save(ctx, r)
		if err != nil {
			return saved, err
		}
		saved[i] = one
	}
	return saved, nil
}

func (l *memoryLedger) All(context.Context) (all []rotation.Record, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		all = append(all, unshared(r))
	}
	return all, nil
}

func (l *memoryLedger) counts() (loads, saves int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.loads, l.saves
}
