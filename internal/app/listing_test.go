package app

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// restingTokens are tokens of one account that are not due for long.
func restingTokens(n int) (tokens []rotation.Token) {
	schedule := parsed("@every 1000h", "UTC")
	for i := range n {
		name := fmt.Sprintf("token-%05d", i)
		tokens = append(tokens, rotation.Token{Name: name, Account: "prod", ID: fmt.Sprint("uuid-", i), Timetable: scheduler.Timetable{Schedule: schedule, Key: name}})
	}
	return tokens
}

// listedFleet is an account with n tokens, and what a listing shows of them.
func listedFleet(t *testing.T, n int) (a *App, ledger *memoryLedger, list func(change func(i int, f *rotation.TokenFacts))) {
	t.Helper()
	ledger = newMemoryLedger()
	a = &App{log: slog.New(slog.DiscardHandler), now: time.Now, config: &config.Config{}}
	a.engine = newEngine(time.Now, a.log, nil)
	a.engine.rotator = rotation.New(rotation.Options{Ledger: ledger, Started: time.Now(), Saved: a.engine.show})
	tokens := restingTokens(n)
	facts := make([]rotation.TokenFacts, n)
	for i, t := range tokens {
		a.config.Tokens = append(a.config.Tokens, config.Token{Name: t.Name, Account: t.Account, ID: t.ID, Schedule: t.Timetable.Schedule})
		facts[i] = rotation.TokenFacts{ID: t.ID, Name: t.Name, Enabled: true}
	}
	if err := a.engine.enroll(t.Context(), tokens); err != nil {
		t.Fatal(err)
	}
	return a, ledger, func(change func(i int, f *rotation.TokenFacts)) {
		for i := range facts {
			change(i, &facts[i])
		}
		a.recordListing(t.Context(), "prod", listing{Listing: cloudflare.Listing{Tokens: facts}, whole: true, began: time.Now()})
	}
}

// TestListingWritesWhatIsNew: a listing that shows something new of n tokens is n/1000 transactions, and none if nothing is
// new, or only that they were used again within six hours.
func TestListingWritesWhatIsNew(t *testing.T) {
	for _, n := range []int{1500, 6000} {
		a, ledger, list := listedFleet(t, n)
		used := time.Now().UTC()
		for _, step := range []struct {
			what                string
			change              func(i int, f *rotation.TokenFacts)
			transactions, saves int
		}{
			{"the first listing", func(int, *rotation.TokenFacts) {}, (n + 999) / 1000, n},
			{"nothing new", func(int, *rotation.TokenFacts) {}, 0, 0},
			{"first use", func(_ int, f *rotation.TokenFacts) { f.LastSeenAt = used }, (n + 999) / 1000, n},
			{"used again", func(_ int, f *rotation.TokenFacts) { f.LastSeenAt = used.Add(6*time.Hour - 1) }, 0, 0},
			{"used after six hours", func(_ int, f *rotation.TokenFacts) { f.LastSeenAt = used.Add(6 * time.Hour) }, (n + 999) / 1000, n},
			{"one is disabled", func(i int, f *rotation.TokenFacts) { f.Enabled = i != 7 }, 1, 1},
		} {
			ledger.transactions, ledger.saves = 0, 0
			list(step.change)
			if ledger.transactions != step.transactions || ledger.saves != step.saves {
				t.Errorf("%d tokens, %s: %d saves in %d transactions, want %d in %d", n, step.what, ledger.saves, ledger.transactions, step.saves, step.transactions)
			}
		}
		if s, _ := a.engine.view("token-00007"); s.record.Facts.Enabled || s.record.Facts.LastSeenAt.IsZero() {
			t.Errorf("the engine knows %+v", s.record.Facts)
		}
	}
}

// TestListingAfterAConflict: a reload changes a record while a listing is recorded. The others of the batch are recorded,
// too.
func TestListingAfterAConflict(t *testing.T) {
	a, ledger, list := listedFleet(t, 3)
	var log strings.Builder
	a.log = slog.New(slog.NewTextHandler(&log, nil))
	a.engine.log = a.log
	ledger.failing = rotation.ErrConflict
	list(func(int, *rotation.TokenFacts) {})
	for i := range 3 {
		if s, _ := a.engine.view(fmt.Sprintf("token-%05d", i)); !s.record.Facts.Enabled {
			t.Errorf("token %d was not recorded: %+v", i, s.record)
		}
	}
	if log.Len() > 0 {
		t.Error("it was logged:", log.String())
	}
	ledger.failing = errors.New("no space")
	list(func(_ int, f *rotation.TokenFacts) { f.Name += " again" })
	if n := strings.Count(log.String(), "the ledger could not be written"); n != 1 {
		t.Errorf("a disk that is full was logged %d times:\n%s", n, &log)
	}
	list(func(_ int, f *rotation.TokenFacts) {})
	if s, _ := a.engine.view("token-00000"); !strings.HasSuffix(s.record.Facts.Name, "again") {
		t.Error("the next listing does not record what the last one could not")
	}
}
