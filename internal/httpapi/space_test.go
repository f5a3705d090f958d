package httpapi

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// TestScrapesShareTheirSpace: however many scrapes there are, one space is kept for the next one, and none when no scrape has come for
// some time.
func TestScrapesShareTheirSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScraper(NewMetrics(Build{}), slog.New(slog.DiscardHandler), time.Now)
		scrape := func() {
			r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			r.Header.Set("Accept-Encoding", "gzip")
			s.ServeHTTP(discarding{httptest.NewRecorder()}, r)
		}
		kept := func() *scrapeSpace {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.spare
		}
		scrape()
		first := kept()
		if first == nil || first.zip == nil {
			t.Fatal("the first scrape keeps no space")
		}
		for range 10 {
			time.Sleep(spareTime - time.Second)
			if scrape(); kept() != first {
				t.Fatal("a later scrape takes another space")
			}
		}
		one, other := s.takeSpace(), s.takeSpace()
		if one != first || other == first || kept() != nil {
			t.Error("two scrapes at once have the same space, or the one that was kept is not used")
		}
		s.keepSpace(other)
		s.keepSpace(one)
		time.Sleep(2 * spareTime)
		synctest.Wait()
		if kept() != nil {
			t.Error("the space is kept although no scrape comes")
		}
		scrape()
		if time.Sleep(2 * spareTime); kept() != nil {
			t.Error("the space of a later scrape is kept although no other comes")
		}
	})
}

// TestGarbageOfLargeScrapesIsGivenBack: once after scrapes that come one after the other, once in ten minutes at most, and never after
// those of a small fleet.
func TestGarbageOfLargeScrapesIsGivenBack(t *testing.T) {
	for tokens, want := range map[int]int{largeScrape: 2, largeScrape - 1: 0} {
		synctest.Test(t, func(t *testing.T) {
			s := newScraper(NewMetrics(Build{}), slog.New(slog.DiscardHandler), time.Now)
			freed := make(chan time.Time, 100)
			s.free = func() { freed <- time.Now() }
			began := time.Now()
			for range 10 { // for five seconds, and then again for five within the ten minutes
				space := s.takeSpace()
				space.tokens.rows = make([]row, tokens)
				s.keepSpace(space)
				if time.Sleep(time.Second); time.Since(began) == 5*time.Second {
					time.Sleep(time.Minute)
				}
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if len(freed) != want {
				t.Fatalf("%d tokens: memory was given back %d times, want %d", tokens, len(freed), want)
			}
			if want == 0 {
				return
			}
			first, second := <-freed, <-freed
			if first.Sub(began) != 4*time.Second+freeAfter || second.Sub(first) != freeEvery {
				t.Errorf("memory was given back after %s, and again after %s", first.Sub(began), second.Sub(first))
			}
		})
	}
}

// TestGarbageIsGivenBackBetweenManyScrapes: servers that scrape so often that there is always a scrape within ten seconds do not keep the
// memory from being given back.
func TestGarbageIsGivenBackBetweenManyScrapes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScraper(NewMetrics(Build{}), slog.New(slog.DiscardHandler), time.Now)
		freed := make(chan time.Time, 100)
		s.free = func() { freed <- time.Now() }
		for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(7500 * time.Millisecond) {
			space := s.takeSpace()
			space.tokens.rows = make([]row, largeScrape)
			s.keepSpace(space)
		}
		synctest.Wait()
		if n := len(freed); n < 2 || n > 6 {
			t.Errorf("memory was given back %d times in an hour of scrapes, want 2 to 6", n)
		}
		time.Sleep(time.Hour)
	})
}

// discarding is a response of which only the header is kept.
type discarding struct{ http.ResponseWriter }

func (discarding) Write(p []byte) (int, error) { return io.Discard.Write(p) }
