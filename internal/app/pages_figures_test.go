package app_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/audit"
	"rotatord/internal/event"
)

var (
	pagesTokens = flag.Int("pages.tokens", 300, "how many tokens the daemon of TestPagesOfDaemon has")
	pagesRounds = flag.Int("pages.rounds", 3, "how often TestPagesOfDaemon asks for each page")
	pagesRecord = flag.Int("pages.record", 1, "how many MiB of lines its record of events has")
	pagesFirst  = flag.Int("pages.first", 0, "how often it asks for the first page after a quiet time, of 45 s each")
)

// TestPagesOfDaemon measures the pages of a whole daemon over HTTP, while they are looked at. The figures in docs/status-page.md
// are from:
//
//	go test -v -run TestPagesOfDaemon ./internal/app -pages.tokens 10000 -pages.rounds 100 -pages.record 64 -pages.first 5
func TestPagesOfDaemon(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs a daemon with many tokens")
	}
	w := newWorld(t)
	for i := range *pagesTokens {
		w.token(fmt.Sprintf("token-%05d", i), fmt.Sprintf("%d %d * * %d", i%60, i/60%24, i%7), "24h")
	}
	w.fillRecord(int64(*pagesRecord) << 20)
	d := w.run(w.config()) // its stop does not search for secrets: with so many tokens that takes minutes, and other tests do it
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := d.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	for end := time.Now().Add(patience * time.Duration(1+*pagesTokens/10_000)); ; time.Sleep(100 * time.Millisecond) {
		ready, _ := d.get("/readyz")
		if _, body := d.get("/"); ready == http.StatusOK && strings.Contains(body, "rotations</b> until") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the tokens are not known, or the plan is not shown")
		}
	}
	measure := func(name, path string, rounds int, pause time.Duration) {
		var took []time.Duration
		size := 0
		for range rounds {
			time.Sleep(pause)
			start := time.Now()
			res, body := d.ask(path)
			took = append(took, time.Since(start))
			if size = max(size, len(body)); res.StatusCode != http.StatusOK || size > 200_000 && !strings.HasPrefix(path, "/api/") {
				t.Fatalf("%s: %d, %d bytes", path, res.StatusCode, size)
			}
		}
		if slices.Sort(took); rounds > 0 {
			t.Logf("%d tokens, %s: %d KB; median %v, of 95 %% %v, longest %v", *pagesTokens, name, size/1000,
				took[rounds/2].Round(10*time.Microsecond), took[rounds*95/100].Round(10*time.Microsecond), took[rounds-1].Round(10*time.Microsecond))
		}
	}
	measure("/ after a quiet time", "/", *pagesFirst, 45*time.Second)
	for _, path := range []string{"/", "/?sort=name&page=3", "/?q=0012&sort=expires", "/tokens/token-00123", "/api/v1/tokens/token-00123", "/api/v1/tokens?limit=100"} {
		measure(path, path, *pagesRounds, 130*time.Millisecond) // at another moment of the second of a look each time
	}
	measure("/api/v1/status", "/api/v1/status", min(*pagesRounds, 5), time.Second)
}

// fillRecord writes a record of events with that many bytes, of tokens in turn.
func (w *world) fillRecord(size int64) {
	w.t.Helper()
	path := filepath.Join(w.stateDir(), "audit", "audit.jsonl")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	r, err := audit.Open(audit.Options{File: path})
	if err != nil {
		w.t.Fatal(err)
	}
	s := r.Subscriber()
	for n := 0; ; n++ {
		token := w.tokens[n%len(w.tokens)].Name
		s.Handle(event.New(time.Now(), token, event.Actor{Cause: event.BySchedule}, event.RotationEnded{RotationID: fmt.Sprint("R", n), Trigger: "schedule", Result: event.ResultSuccess, Slot: time.Now()}))
		if n%1000 != 0 {
			continue
		}
		if err := r.Sync(); err != nil {
			w.t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() >= size {
			break
		}
	}
	if err := r.Close(); err != nil {
		w.t.Fatal(err)
	}
}
