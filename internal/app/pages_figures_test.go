package app_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

var pagesTokens = flag.Int("pages.tokens", 300, "how many tokens the daemon of TestPagesOfDaemon has")

// TestPagesOfDaemon measures the pages of a whole daemon over HTTP. "Made" is an answer for which the look at the fleet is made,
// and "kept" one right after it. The figures in docs/status-page.md are from:
//
//	go test -v -run TestPagesOfDaemon ./internal/app -pages.tokens 10000
func TestPagesOfDaemon(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs a daemon with many tokens")
	}
	w := newWorld(t)
	for i := range *pagesTokens {
		w.token(fmt.Sprintf("token-%05d", i), fmt.Sprintf("%d %d * * %d", i%60, i/60%24, i%7), "24h")
	}
	d := w.run(w.config()) // its stop does not search for secrets: with so many tokens that takes minutes, and other tests do it
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := d.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	w.eventually("the plan is shown", func() bool {
		_, body := d.get("/")
		return strings.Contains(body, "rotations</b> until")
	})
	rounds := 5
	if testing.Verbose() {
		rounds = 30
	}
	for _, path := range []string{"/", "/?sort=name&page=3", "/tokens/token-00123"} {
		var made, kept []time.Duration
		size := 0
		for range rounds {
			for _, list := range []*[]time.Duration{&made, &kept} {
				start := time.Now()
				code, body := d.get(path)
				*list = append(*list, time.Since(start))
				if size = max(size, len(body)); code != http.StatusOK || size > 200_000 {
					t.Fatalf("%s: %d, %d bytes", path, code, size)
				}
			}
			time.Sleep(5 * slices.Max(made)) // what was made is kept for four times as long as it took
		}
		slices.Sort(made)
		slices.Sort(kept)
		t.Logf("%d tokens, %s: %d KB; made: median %v, at most %v; kept: median %v, at most %v", *pagesTokens, path, size/1000,
			made[rounds/2], made[rounds-1], kept[rounds/2], kept[rounds-1])
	}
}
