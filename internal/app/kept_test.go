package app

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// TestRecovering: the number of unfinished rotations that were not continued yet is counted, and not looked for, and is
// right whichever way a token goes.
func TestRecovering(t *testing.T) {
	e := newEngine(time.Now, nil, nil)
	want := func(n int) {
		t.Helper()
		if got := e.recovering(); got != n {
			t.Errorf("%d, want %d", got, n)
		}
	}
	for i := range 4 {
		k := keep(scheduled{record: rotation.Record{Step: rotation.StepSealed}, condition: condition{active: 2}})
		e.tokens[fmt.Sprint(i)] = k
		e.setUnrecovered(k, true)
	}
	want(4)
	e.setUnrecovered(e.tokens["0"], true)
	want(4)
	e.release("0")
	want(3)
	e.release("0")
	want(3)
	e.mu.Lock()
	e.drop("1")
	e.drop("none")
	e.mu.Unlock()
	want(2)
	e.learn([]rotation.Record{{Token: "2", Revision: 1}})
	want(1)
}

// TestKept: what the engine knows of a token is the same after it was kept.
func TestKept(t *testing.T) {
	at := time.Date(2026, 1, 5, 4, 0, 0, 0, time.UTC)
	want := scheduled{
		token: rotation.Token{Name: "ci", Account: "prod", ID: "id", Grace: time.Hour},
		record: rotation.Record{Token: "ci", Revision: 3, Anchor: at, Last: &rotation.Done{RotationID: "R1", At: at}, Written: map[string]rotation.Written{"vault": {Version: 2, At: at}},
			Work: &rotation.Work{BeforeSink: map[string]rotation.Stored{"vault": {Exists: true, Version: 1}}}},
		due:       rotation.Due{At: at, Slot: at, Trigger: rotation.TriggerSchedule},
		condition: condition{chore: at, active: 2, unrecorded: 1, gone: true, waiting: true, since: at},
	}
	if got := keep(want).scheduled(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

// TestKeptIsSmall: a token that was listed, and waits for its slot, costs less than a third of what a copy of it does.
func TestKeptIsSmall(t *testing.T) {
	const n = 2000
	at := time.Date(2026, 1, 5, 4, 0, 0, 0, time.UTC)
	var before, after runtime.MemStats
	all := make([]*kept, n)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range all {
		id := fmt.Sprintf("5eed0000-0000-4000-8000-%012d", i)
		all[i] = keep(scheduled{
			token: rotation.Token{Name: "ci", ID: id, Timetable: scheduler.Timetable{Key: "ci"}},
			record: rotation.Record{Format: rotation.RecordFormat, Revision: 2, Token: "ci", TokenID: id, Account: "prod", Anchor: at, Schedule: "0 4 * * 1 UTC",
				Facts: rotation.TokenFacts{ID: id, ClientID: fmt.Sprintf("%032d.access", i), Name: "ci", Enabled: true, Duration: "8760h", CreatedAt: at, ExpiresAt: at, UpdatedAt: at}},
			due: rotation.Due{At: at, Slot: at, Begin: at, Close: at, Trigger: rotation.TriggerSchedule, Reason: "schedule"},
		})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / n
	if whole := uint64(reflect.TypeFor[scheduled]().Size()); each > whole/3 {
		t.Errorf("%d bytes for each token, and its copy has %d", each, whole)
	}
	t.Log(each, "bytes")
	runtime.KeepAlive(slices.Clone(all))
}
