package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// keyValues is a ledger as a key-value store has it: SaveAll saves one record after another, and stops at an error.
type keyValues struct {
	records map[string]rotation.Record
	saving  func(token string) error // called before each save; nil for nothing
	saves   map[string]int           // by token

	mu sync.Mutex // replicas that enroll save several tokens at the same time
}

func (l *keyValues) Load(_ context.Context, token string) (rotation.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.records[token], nil
}

func (l *keyValues) Save(_ context.Context, r rotation.Record) (rotation.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.saving != nil {
		if err := l.saving(r.Token); err != nil {
			return rotation.Record{}, err
		}
	}
	if l.records[r.Token].Revision != r.Revision {
		return rotation.Record{}, rotation.ErrConflict
	}
	r.Revision++
	l.records[r.Token] = r
	l.saves[r.Token]++
	return r, nil
}

func (l *keyValues) SaveAll(ctx context.Context, all []rotation.Record) ([]rotation.Record, error) {
	saved := make([]rotation.Record, len(all))
	for i, r := range all {
		var err error
		if saved[i], err = l.Save(ctx, r); err != nil {
			return saved, err
		}
	}
	return saved, nil
}

func (l *keyValues) All(context.Context) ([]rotation.Record, error) {
	return slices.Collect(maps.Values(l.records)), nil
}

func (l *keyValues) HoldLeft(rotation.Record) time.Duration              { return 0 }
func (l *keyValues) RunLeft(string, rotation.OwedHook) time.Duration     { return 0 }
func (l *keyValues) OracleTrusted(context.Context, string) (bool, error) { return true, nil }

// published counts what was told, by token.
type published struct {
	mu sync.Mutex
	n  map[string]int
}

func (p *published) Publish(e event.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Detail.(type) {
	case event.OutsideRotation, event.Missed:
		p.n[e.Token]++
	}
}

// TestBatchSavedInPart: of a batch of eight records, the fifth cannot be saved: another replica has changed it, or the
// ledger fails. What the saved ones show is told once, whether the batch is tried again or not, and so is what the others
// show once they are saved.
func TestBatchSavedInPart(t *testing.T) {
	const n, failed = 8, 4
	errAway := errors.New("the ledger is away")
	for _, test := range []struct {
		name  string
		tells bool // the operation has something to tell of each token
		// do does to all tokens what is tested. It returns for which tokens the caller has learned of a saved record.
		do func(ctx context.Context, r *rotation.Rotator, tokens []rotation.Token) (learned []string, err error)
	}{
		{"a listing", true, func(ctx context.Context, r *rotation.Rotator, tokens []rotation.Token) (learned []string, err error) {
			var seen []rotation.Listed
			for _, token := range tokens {
				seen = append(seen, rotation.Listed{Token: token, Facts: []rotation.TokenFacts{{ID: token.ID, Name: "x", Enabled: true, UpdatedAt: clock("16 03:00:00")}}})
			}
			err = r.RecordListings(ctx, slices.Values(seen), func(record rotation.Record) { learned = append(learned, record.Token) })
			return learned, err
		}},
		{"an enrollment", true, func(ctx context.Context, r *rotation.Rotator, tokens []rotation.Token) (learned []string, err error) {
			records, err := r.EnrollAll(ctx, tokens)
			for _, record := range records {
				learned = append(learned, record.Token)
			}
			return learned, err
		}},
		{"catching up", true, func(ctx context.Context, r *rotation.Rotator, tokens []rotation.Token) ([]string, error) {
			records, err := r.CatchUpAll(ctx, tokens)
			return slices.Collect(maps.Keys(records)), err
		}},
		{"an order", false, func(ctx context.Context, r *rotation.Rotator, tokens []rotation.Token) (learned []string, err error) {
			for _, ordered := range r.OrderAll(ctx, tokens, rotation.Overrides{}, "ops") {
				if err = errors.Join(err, ordered.Err); ordered.Err == nil && ordered.Record.Order != nil {
					learned = append(learned, ordered.Token)
				}
			}
			return learned, err
		}},
	} {
		for _, cause := range []error{rotation.ErrConflict, errAway} {
			t.Run(fmt.Sprint(test.name, ", ", cause), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ledger, told, shown := &keyValues{records: map[string]rotation.Record{}, saves: map[string]int{}}, &published{n: map[string]int{}}, map[string]int{}
					newRotator := func() *rotation.Rotator {
						return rotation.New(rotation.Options{
							Ledger: ledger, Events: told, Started: time.Now(), Saved: func(r rotation.Record) { told.mu.Lock(); defer told.mu.Unlock(); shown[r.Token]++ },
							Replica: &rotation.Replica{Name: "a", Process: "a-1", Claim: time.Minute},
						})
					}
					tokens := newWorld(t).manyTokens(n, func(token *rotation.Token) {
						token.Timetable.Schedule, token.Timetable.Window, token.Timetable.SkipMissed = mustParse(t, "0 4 * * *"), time.Hour, true
					})
					r := newRotator()
					if _, err := r.EnrollAll(t.Context(), tokens); err != nil {
						t.Fatal(err)
					}
					var before []rotation.Listed
					for _, token := range tokens {
						before = append(before, rotation.Listed{Token: token, Facts: []rotation.TokenFacts{{ID: token.ID, Name: "x", Enabled: true, UpdatedAt: clock("10 03:00:00")}}})
					}
					if err := r.RecordListings(t.Context(), slices.Values(before), func(rotation.Record) {}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(14*24*time.Hour + 6*time.Hour)
					r = newRotator()
					clear(told.n)
					clear(shown)
					clear(ledger.saves)

					once := true
					ledger.saving = func(token string) error {
						if token != tokens[failed].Name || !once {
							return nil
						}
						once = false
						if !errors.Is(cause, rotation.ErrConflict) {
							return cause
						}
						other := ledger.records[token] // another replica has saved something else
						other.Failures, other.Revision = 1, other.Revision+1
						ledger.records[token] = other
						return nil
					}
					learned, _ := test.do(t.Context(), r, tokens)
					for i, token := range tokens {
						saved := ledger.saves[token.Name]
						if i < failed && saved != 1 {
							t.Fatalf("%s was saved %d times", token.Name, saved)
						}
						if test.tells && told.n[token.Name] != saved {
							t.Errorf("%s was saved %d times, and told of %d times", token.Name, saved, told.n[token.Name])
						}
						if !test.tells && shown[token.Name] != saved {
							t.Errorf("%s was saved %d times, and shown %d times", token.Name, saved, shown[token.Name])
						}
						if saved > 0 && learned != nil && !slices.Contains(learned, token.Name) {
							t.Errorf("%s was saved, and the caller has not learned of it", token.Name)
						}
					}
					for range 3 {
						if _, err := test.do(t.Context(), r, tokens); err != nil {
							t.Fatal(err)
						}
					}
					for _, token := range tokens {
						if got := told.n[token.Name]; test.tells && got != 1 {
							t.Errorf("%s was told of %d times in the end", token.Name, got)
						}
						if got := ledger.saves[token.Name]; got != 1 {
							t.Errorf("%s was saved %d times in the end", token.Name, got)
						}
					}
				})
			})
		}
	}
}
