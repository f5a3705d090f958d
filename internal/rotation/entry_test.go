package rotation

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// failing is a ledger that fails as long as err is set.
type failing struct {
	Ledger
	stored Record
	err    error
}

func (f *failing) Load(context.Context, string) (Record, error) { return f.stored, nil }

func (f *failing) Save(_ context.Context, r Record) (Record, error) {
	if f.err != nil {
		return Record{}, f.err
	}
	r.Revision++
	f.stored = r
	return r, nil
}

// TestEntryAdoptsWhatIsSaved: a step that cannot be saved has not happened. What was seen of the world has,
// and is saved with the next step. A failure counts in memory, because the caller schedules by it.
func TestEntryAdoptsWhatIsSaved(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	token := Token{Name: "ci", Account: "prod", ID: "A"}
	ledger := &failing{stored: Record{Format: RecordFormat, Revision: 3, Token: "ci", Account: "prod", TokenID: "A", Anchor: now}}
	var steps []Step
	r := New(Options{Ledger: ledger, Now: func() time.Time { return now }, Saved: func(r Record) { steps = append(steps, r.Step) }})
	e, err := r.open(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	before := e.record

	ledger.err = errors.New("no space left on device")
	if err := e.become(t.Context(), e.record.claimed(Work{RotationID: "R"})); !errors.Is(err, ErrLedger) {
		t.Errorf("a claim that cannot be saved: %v", err)
	}
	if diff := cmp.Diff(before, e.record); diff != "" || len(steps) > 0 {
		t.Errorf("the claim was adopted, and told as %v:\n%s", steps, diff)
	}
	a := &attempt{entry: e}
	if err := a.becomeFailed(t.Context(), e.record.failed(failure{reason: "claim", err: ledger.err, next: now.Add(time.Minute)})); !errors.Is(err, ErrLedger) {
		t.Errorf("a failure that cannot be saved: %v", err)
	}
	if e.record.Failures != 1 || !e.record.NotBefore.Equal(now.Add(time.Minute)) || ledger.stored.Failures != 0 {
		t.Errorf("%d failures, next try at %s; the ledger has %d", e.record.Failures, e.record.NotBefore, ledger.stored.Failures)
	}
	e.observe(e.record.deletionSeen("vault", Stored{Exists: true, DeletesAt: now.Add(time.Hour)}))

	ledger.err = nil
	if err := e.become(t.Context(), e.record.claimed(Work{RotationID: "R"})); err != nil {
		t.Fatal(err)
	}
	if got := ledger.stored; got.Step != StepClaimed || got.Deletes["vault"].IsZero() || got.Failures != 1 || got.Revision != 4 {
		t.Errorf("the ledger has %+v", got)
	}
	if e.record.Revision != 4 || len(steps) != 1 || steps[0] != StepClaimed {
		t.Errorf("revision %d, told %v", e.record.Revision, steps)
	}
}
