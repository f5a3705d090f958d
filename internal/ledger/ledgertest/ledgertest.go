// Package ledgertest is the suite that every kind of ledger passes. It tests the contract of
// ledger.Ledger, and no more: how a kind stores its records is tested by that kind.
package ledgertest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/ledger"
	"rotatord/internal/rotation"
)

// Kind is a kind of ledger.
type Kind struct {
	// New returns a function that opens one and the same ledger, which is empty at first. The suite
	// closes what it opens.
	New func(t *testing.T) (open func() ledger.Ledger)
	// Atomic says that SaveAll saves all records or none. Without it, it may save any of them before it returns
	// an error.
	Atomic bool
	// Shared says that several processes may have the ledger open at once.
	Shared bool
}

// Run runs the suite.
func Run(t *testing.T, k Kind) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Kind)
	}{
		{"save is check-and-set", testSave},
		{"what was saved survives", testDurable},
		{"save all", testSaveAll},
		{"what moved", testOracle},
		{"pauses", testPauses},
		{"one pause", testSetPause},
		{"concurrent writers lose nothing", testConcurrent},
		{"prove", testProve},
		{"closed", testClosed},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, k) })
	}
}

// open opens the ledger until the end of the test.
func open(t *testing.T, openLedger func() ledger.Ledger) ledger.Ledger {
	t.Helper()
	l := openLedger()
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func record(token string) rotation.Record {
	return rotation.Record{
		Format: rotation.RecordFormat, Token: token, TokenID: "uuid-of-" + token, Account: "prod", Step: rotation.StepIdle,
		Anchor: time.Date(2026, 11, 28, 4, 0, 0, 0, time.UTC), LastError: "it failed: \"ü\"",
	}
}

func save(t *testing.T, l ledger.Ledger, r rotation.Record) rotation.Record {
	t.Helper()
	saved, err := l.Save(t.Context(), r)
	if err != nil {
		t.Fatalf("saving %s at revision %d: %v", r.Token, r.Revision, err)
	}
	return saved
}

func load(t *testing.T, l ledger.Ledger, token string) rotation.Record {
	t.Helper()
	r, err := l.Load(t.Context(), token)
	if err != nil {
		t.Fatalf("loading %s: %v", token, err)
	}
	return r
}

func testSave(t *testing.T, k Kind) {
	l := open(t, k.New(t))
	if r := load(t, l, "ci"); r.Revision != 0 || r.Token != "" {
		t.Errorf("a token without a record has %+v", r)
	}
	first := record("ci")
	saved := save(t, l, first)
	first.Revision = 1
	if diff := cmp.Diff(first, saved); diff != "" {
		t.Errorf("the first save (-want +got):\n%s", diff)
	}
	second := saved
	second.Failures = 7
	second = save(t, l, second)
	if second.Revision != 2 {
		t.Errorf("the second save has revision %d", second.Revision)
	}
	missing := record("cd")
	missing.Revision = 1
	for name, r := range map[string]rotation.Record{"an old revision": saved, "no revision": record("ci"), "a revision of a missing record": missing} {
		if _, err := l.Save(t.Context(), r); !errors.Is(err, rotation.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(second, load(t, l, "ci")); diff != "" {
		t.Errorf("after conflicts (-want +got):\n%s", diff)
	}
	if r := load(t, l, "cd"); r.Revision != 0 {
		t.Errorf("a conflict created %+v", r)
	}
}

func testDurable(t *testing.T, k Kind) {
	openLedger := k.New(t)
	l := open(t, openLedger)
	var want []rotation.Record
	for i := range 20 {
		r := save(t, l, record(fmt.Sprintf("token-%02d", i)))
		r.LastError = strings.Repeat("long ", 400*i)
		want = append(want, save(t, l, r))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, openLedger).All(t.Context())
	slices.SortFunc(got, func(a, b rotation.Record) int { return strings.Compare(a.Token, b.Token) })
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func testSaveAll(t *testing.T, k Kind) {
	l := open(t, k.New(t))
	if none, err := l.SaveAll(t.Context(), nil); err != nil || none != nil {
		t.Errorf("of nothing: %v, %v", none, err)
	}
	saved, err := l.SaveAll(t.Context(), []rotation.Record{record("a"), record("b"), record("c")})
	if err != nil || len(saved) != 3 {
		t.Fatalf("%+v, %v", saved, err)
	}
	for i, token := range []string{"a", "b", "c"} {
		if diff := cmp.Diff(saved[i], load(t, l, token)); diff != "" || saved[i].Revision != 1 {
			t.Errorf("%s has revision %d (-returned +loaded):\n%s", token, saved[i].Revision, diff)
		}
	}
	for i := range saved {
		saved[i].Failures = 7
	}
	saved[1].Revision = 0 // a conflict
	inPart, err := l.SaveAll(t.Context(), saved)
	if !errors.Is(err, rotation.ErrConflict) || inPart != nil && len(inPart) != len(saved) {
		t.Errorf("with an old revision: %+v, %v", inPart, err)
	}
	a, b, c := load(t, l, "a"), load(t, l, "b"), load(t, l, "c")
	for i, now := range []rotation.Record{a, b, c} {
		var want rotation.Record // what SaveAll has to return
		if now.Failures != 0 {
			want = now
		}
		var got rotation.Record
		if inPart != nil {
			got = inPart[i]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("of %s, after a conflict in the middle (-want +got):\n%s", now.Token, diff)
		}
	}
	if b.Failures != 0 || k.Atomic && (a.Failures != 0 || c.Failures != 0) {
		t.Errorf("after a conflict in the middle: %d, %d, %d", a.Failures, b.Failures, c.Failures)
	}
}

func testPauses(t *testing.T, k Kind) {
	openLedger := k.New(t)
	l := open(t, openLedger)
	if all, err := l.LoadPauses(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("at first: %v, %v", all, err)
	}
	for _, want := range []map[string]rotation.Pause{
		{"ci": {Since: time.Date(2026, 11, 28, 4, 0, 0, 0, time.UTC), By: "ops", Reason: "deploy"}, rotation.AllTokens: {By: "ops"}},
		{},
		{"cd": {By: "other"}},
	} {
		if err := l.SavePauses(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, openLedger)
		got, err := l.LoadPauses(t.Context())
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
}

// testSetPause changes one pause after another, each with what the others have set.
func testSetPause(t *testing.T, k Kind) {
	openLedger := k.New(t)
	first := open(t, openLedger)
	second := first
	if k.Shared {
		second = open(t, openLedger)
	}
	if _, err := second.LoadPauses(t.Context()); err != nil { // and it does not learn of the next pause
		t.Fatal(err)
	}
	want := map[string]rotation.Pause{}
	for _, step := range []struct {
		by    ledger.Ledger
		token string
		p     *rotation.Pause
	}{
		{first, "ci", &rotation.Pause{Since: time.Date(2026, 11, 28, 4, 0, 0, 0, time.UTC), By: "ops", Reason: "deploy"}},
		{second, rotation.AllTokens, &rotation.Pause{Since: time.Date(2026, 11, 28, 5, 0, 0, 0, time.UTC)}},
		{first, "ci", &rotation.Pause{Since: time.Date(2026, 11, 28, 6, 0, 0, 0, time.UTC)}},
		{second, "ci", nil},
		{second, "never paused", nil},
		{first, rotation.AllTokens, nil},
	} {
		want = rotation.WithPause(want, step.token, step.p)
		got, err := step.by.SetPause(t.Context(), step.token, step.p)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		loaded, err := first.LoadPauses(t.Context())
		if diff := cmp.Diff(want, loaded); err != nil || diff != "" {
			t.Errorf("loaded: %v (-want +got):\n%s", err, diff)
		}
	}
}

func testConcurrent(t *testing.T, k Kind) {
	const writers, each = 6, 8
	openLedger := k.New(t)
	shared := open(t, openLedger)
	var all sync.WaitGroup
	for range writers {
		l := shared
		if k.Shared {
			l = open(t, openLedger)
		}
		all.Go(func() {
			for done := 0; done < each; {
				r, err := l.Load(t.Context(), "ci")
				if err == nil {
					r.Format, r.Token, r.Failures = rotation.RecordFormat, "ci", r.Failures+1
					_, err = l.Save(t.Context(), r)
				}
				switch {
				case err == nil:
					done++
				case !errors.Is(err, rotation.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if r := load(t, shared, "ci"); r.Failures != writers*each || r.Revision != writers*each {
		t.Errorf("%d writes left %d, at revision %d", writers*each, r.Failures, r.Revision)
	}
}

func testProve(t *testing.T, k Kind) {
	l := open(t, k.New(t))
	want := save(t, l, record("ci"))
	began := time.Now()
	if err := l.Prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if at, err := l.LastWrite(); err != nil || at.Before(began) {
		t.Errorf("the last write was at %v, %v", at, err)
	}
	if all, err := l.All(t.Context()); err != nil || len(all) != 1 || !cmp.Equal(all[0], want) {
		t.Errorf("the proof changed the ledger: %+v, %v", all, err)
	}
}

// testOracle: what was saved counts at once, and also after the ledger was opened again.
func testOracle(t *testing.T, k Kind) {
	openLedger := k.New(t)
	l := open(t, openLedger)
	trusts := func(l ledger.Ledger, account string, want bool) {
		t.Helper()
		if got, err := l.OracleTrusted(t.Context(), account); err != nil || got != want {
			t.Errorf("trusted on %s: %t, %v", account, got, err)
		}
	}
	first := save(t, l, record("ci"))
	trusts(l, "prod", false)
	first.MovedCount = 1
	first = save(t, l, first)
	trusts(l, "prod", true)
	trusts(l, "other", false)
	still := record("cd")
	still.StillCount = 1
	still = save(t, l, still)
	trusts(l, "prod", false)
	still.StillCount, still.Account = 0, "other"
	if _, err := l.SaveAll(t.Context(), []rotation.Record{still}); err != nil {
		t.Fatal(err)
	}
	trusts(l, "prod", true)
	late := still
	late.Account, late.StillCount = "prod", 3
	if _, err := l.Save(t.Context(), late); !errors.Is(err, rotation.ErrConflict) {
		t.Errorf("an old revision: %v", err)
	}
	trusts(l, "prod", true)
	if !k.Shared {
		_ = l.Close()
	}
	trusts(open(t, openLedger), "prod", true)
}

func testClosed(t *testing.T, k Kind) {
	l := open(t, k.New(t))
	saved := save(t, l, record("ci"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, loadErr := l.Load(t.Context(), "ci")
	_, saveErr := l.Save(t.Context(), saved)
	_, allErr := l.All(t.Context())
	_, pausesErr := l.LoadPauses(t.Context())
	_, pauseErr := l.SetPause(t.Context(), "ci", nil)
	for name, err := range map[string]error{
		"Load": loadErr, "Save": saveErr, "All": allErr, "LoadPauses": pausesErr, "SetPause": pauseErr,
		"SavePauses": l.SavePauses(t.Context(), nil), "Prove": l.Prove(t.Context()),
	} {
		if err == nil {
			t.Errorf("%s works on a closed ledger", name)
		}
	}
}
