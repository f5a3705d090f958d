package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"

	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// fleet are the metrics of n tokens in all states, with labels that need an escape. odd says that some have what few have.
func fleet(n int, odd bool) (*httpapi.Metrics, *fakeSource) {
	m, source := newMetrics(), &fakeSource{checks: checks()}
	for i := range n {
		t := healthy()
		t.Name, t.Account, t.Schedule = fmt.Sprintf("token-%05d", i), fmt.Sprint("account-", i%3), fmt.Sprintf(`%d 4 * * "1\"`, i%5)
		m.Known(t.Name)
		if odd {
			spoil(&t, i)
			tell(m, t.Name, event.RotationEnded{Trigger: string(triggers[i%len(triggers)]), Result: event.Results[i%len(event.Results)]})
			if i%2 == 0 {
				tell(m, t.Name, event.Missed{Count: i, Frozen: 1})
				tell(m, t.Name, event.Renewal{Err: []error{nil, context.Canceled}[i/2%2]})
				tell(m, t.Name, event.Probe{Result: event.ProbeBad})
				tell(m, t.Name, event.OutsideRotation{})
			}
		}
		source.tokens = append(source.tokens, t)
	}
	m.ConfigLoaded(now)
	m.Show(source, noSession, noDrift)
	return m, source
}

// spoil gives a token something of what few have.
func spoil(t *httpapi.TokenStatus, i int) {
	t.State, t.Strategy, t.Unread = status.States[i%len(status.States)], []string{"rotate", "pair", "replace"}[i%3], i%11 == 3
	t.Enabled, t.Known, t.Gone, t.Verifies = i%2 == 0, i%5 > 0, i%7 == 0, i%3 > 0
	t.Failures, t.LastCause, t.Replaced = i%3, []string{"sealed", ""}[i%2], i%4
	if i%4 == 1 {
		full := busy().tokens[0]
		t.Doubt, t.Pause, t.Order, t.Verification = full.Doubt, full.Pause, full.Order, full.Verification
		t.Outside, t.ReissueOwed, t.CutOffAt, t.LastSeen = full.Outside, full.ReissueOwed, full.CutOffAt, time.Time{}
		t.Deletions = append(full.Deletions, status.Deletion{Sink: "vault:a\nb", At: now})
	}
	if i%6 == 2 {
		full := withFindings().tokens[0]
		t.Findings, t.RestoredAt, t.Hooks, t.RefusedInUse = full.Findings, full.RestoredAt, full.Hooks, full.RefusedInUse
		t.LastSeen, t.GraceEnd = time.Now().Add(-8*24*time.Hour), time.Time{}
	}
}

// accepts are what can be asked for: the text, both versions of OpenMetrics, protobuf, and what Prometheus sends.
var accepts = []string{
	"", "text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0", "application/openmetrics-text;version=0.0.1", string(expfmt.FmtProtoDelim),
	"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
}

func scrape(handler http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

// TestStreamIsWhatTheRegistryGives: what is streamed is, byte for byte, what the library makes of the same metrics.
func TestStreamIsWhatTheRegistryGives(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 1, httpapi.Piece - 1, httpapi.Piece, 3*httpapi.Piece + 7}
	if racedetector.On { // all of them run without it
		sizes = []int{1}
	}
	for _, n := range sizes {
		for _, odd := range []bool{false, true} {
			m, source := fleet(n, odd)
			for _, only := range []bool{false, true} {
				m.Essential(only)
				reference := promhttp.HandlerFor(httpapi.Reference(m, source), promhttp.HandlerOpts{EnableOpenMetrics: true, DisableCompression: true})
				for _, accept := range accepts {
					// What the process itself says of itself differs from one moment to the next.
					var path strings.Builder
					path.WriteString("/metrics?")
					for _, name := range names(t, m, source) {
						path.WriteString("name[]=" + name + "&")
					}
					want, got := scrape(reference, path.String(), "Accept", accept), scrape(m.Scraper(), path.String(), "Accept", accept)
					if want.Code != http.StatusOK || got.Code != http.StatusOK || want.Header().Get("Content-Type") != got.Header().Get("Content-Type") {
						t.Fatalf("%d %q, want %d %q", got.Code, got.Header(), want.Code, want.Header())
					}
					if !bytes.Equal(want.Body.Bytes(), got.Body.Bytes()) {
						t.Fatalf("%d tokens, odd %v, essential %v, %q:\n%s", n, odd, only, accept, firstDifference(got.Body.String(), want.Body.String()))
					}
				}
			}
		}
	}
}

// names returns the metrics of the daemon.
func names(t *testing.T, m *httpapi.Metrics, source httpapi.Source) (all []string) {
	t.Helper()
	families, err := httpapi.Reference(m, source).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if strings.HasPrefix(family.GetName(), "rotatord_") {
			all = append(all, family.GetName())
		}
	}
	return append(all, "no_such_metric")
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d: %q, want %q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// TestWholeScrape: without names everything is sent, also what the library says of the process.
func TestWholeScrape(t *testing.T) {
	t.Parallel()
	m, _ := fleet(3, true)
	body := scrape(m.Scraper(), "/metrics", "Accept", accepts[2]).Body.String()
	for _, want := range []string{"# TYPE go_goroutines gauge\n", "# TYPE process_cpu_seconds counter\n", "# TYPE rotatord_vault_session", `rotatord_token_paused{token="token-00002"} 0`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in:\n%s", want, body)
		}
	}
	if !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("it does not end as OpenMetrics does: %q", body[max(0, len(body)-80):])
	}
	before := ""
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			if name, _, _ = strings.Cut(name, " "); name <= before && !strings.HasPrefix(before, name) { // a counter is sorted with its suffix
				t.Errorf("%s comes after %s", name, before)
			}
			before = name
		}
	}
}

func TestScrapeIsCompressed(t *testing.T) {
	t.Parallel()
	m, _ := fleet(2*httpapi.Piece, true)
	handler := m.Scraper()
	path := "/metrics?name[]=rotatord_token_state&name[]=rotatord_rotations_total"
	plain := scrape(handler, path)
	for accept, want := range map[string]bool{"gzip": true, "zstd, gzip;q=0.5": true, "": false, "gzip;q=0": false, "gzip; q=0.0": false, "br": false} {
		for range 2 { // a compressor is used again
			w := scrape(handler, path, "Accept-Encoding", accept)
			if got := w.Header().Get("Content-Encoding") == "gzip"; got != want {
				t.Errorf("%q: compressed %v", accept, got)
				continue
			}
			var body io.Reader = w.Body
			if want {
				zip, err := gzip.NewReader(body)
				if err != nil {
					t.Fatal(err)
				}
				body = zip
			}
			if text, err := io.ReadAll(body); err != nil || !bytes.Equal(text, plain.Body.Bytes()) {
				t.Errorf("%q: %d bytes, %v, want %d", accept, len(text), err, plain.Body.Len())
			}
		}
	}
}

// stuck is a reader that takes nothing until it is told to go on.
type stuck struct {
	*httptest.ResponseRecorder
	began, goOn chan struct{}
}

func (w *stuck) Write(p []byte) (int, error) {
	select {
	case w.began <- struct{}{}:
	default:
	}
	<-w.goOn
	return w.ResponseRecorder.Write(p)
}

// TestSlowReaderHoldsNoLock: while readers take nothing, events are counted; a further scrape waits for its turn; and
// what the readers get in the end is what was there when they began.
func TestSlowReaderHoldsNoLock(t *testing.T) {
	t.Parallel()
	m, _ := fleet(3*httpapi.Piece, false)
	handler := m.Scraper()
	readers := make([]*stuck, httpapi.ScrapesAtOnce)
	done := make(chan struct{})
	for i := range readers {
		readers[i] = &stuck{httptest.NewRecorder(), make(chan struct{}, 1), make(chan struct{})}
		go func() {
			handler.ServeHTTP(readers[i], httptest.NewRequest(http.MethodGet, "/metrics?name[]=rotatord_rotations_total", nil))
			done <- struct{}{}
		}()
		<-readers[i].began
	}
	tell(m, "token-00200", event.RotationEnded{Trigger: string(rotation.TriggerSchedule), Result: event.ResultSuccess})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil).WithContext(ctx))
	if w.Body.Len() > 0 {
		t.Errorf("%d scrapes at once", len(readers)+1)
	}
	for _, r := range readers {
		close(r.goOn)
		<-done
	}
	for _, r := range readers {
		if strings.Contains(r.Body.String(), "} 1\n") {
			t.Error("a scrape shows what happened after it began")
		}
	}
	if body := scrape(handler, "/metrics?name[]=rotatord_rotations_total").Body.String(); !strings.Contains(body, "} 1\n") {
		t.Error("the event was not counted")
	}
}

// stopped is a reader that takes nothing until its deadline.
type stopped struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (w *stopped) SetWriteDeadline(at time.Time) error { w.deadline = at; return nil }

func (w *stopped) Write([]byte) (int, error) {
	time.Sleep(time.Until(w.deadline))
	return 0, os.ErrDeadlineExceeded
}

// slow is a reader that takes a piece a second.
type slow struct{ stopped }

func (w *slow) Write(p []byte) (int, error) {
	if time.Sleep(time.Second); time.Now().After(w.deadline) {
		return 0, os.ErrDeadlineExceeded
	}
	return len(p), nil
}

// TestStoppedReadersAreCutOff: readers that have stopped, whatever their number, keep a scrape behind them from being
// answered only for a moment. One that is slow has more time, and then is cut off too.
func TestStoppedReadersAreCutOff(t *testing.T) {
	t.Parallel()
	m, _ := fleet(40*httpapi.Piece, false)
	synctest.Test(t, func(t *testing.T) {
		handler := m.Scraper()
		began := time.Now()
		cutOff := func(w http.ResponseWriter, after time.Duration) {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler { //nolint:errorlint // it is compared by net/http, too
					t.Errorf("the handler ended with %v", p)
				}
				if took := time.Since(began); took != after {
					t.Errorf("cut off after %s, want %s", took, after)
				}
			}()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics?name[]=rotatord_token_state", nil))
		}
		var readers sync.WaitGroup
		for range httpapi.ScrapesAtOnce {
			readers.Go(func() { cutOff(&stopped{ResponseRecorder: httptest.NewRecorder()}, 5*time.Second) })
		}
		synctest.Wait()
		if w := scrape(handler, "/metrics"); w.Code != http.StatusOK || time.Since(began) > 5*time.Second {
			t.Errorf("%d after %s", w.Code, time.Since(began))
		}
		readers.Wait()
		began = time.Now()
		cutOff(&slow{stopped{ResponseRecorder: httptest.NewRecorder()}}, 31*time.Second)
	})
}

// broken is a connection that breaks after some bytes.
type broken struct {
	*httptest.ResponseRecorder
	left int
}

func (w *broken) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return w.ResponseRecorder.Write(p)
}

// TestBrokenScrapeIsCutOff: an answer that is not whole does not end like a whole one, and the next scrape has its turn.
func TestBrokenScrapeIsCutOff(t *testing.T) {
	t.Parallel()
	m, _ := fleet(3*httpapi.Piece, false)
	handler := m.Scraper()
	for range 2 * httpapi.ScrapesAtOnce {
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler { //nolint:errorlint // it is compared by net/http, too
					t.Errorf("the handler ended with %v", p)
				}
			}()
			handler.ServeHTTP(&broken{httptest.NewRecorder(), 100_000}, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		}()
	}
	if w := scrape(handler, "/metrics"); w.Code != http.StatusOK || w.Body.Len() < 200_000 {
		t.Errorf("%d, %d bytes", w.Code, w.Body.Len())
	}
}

// nobody takes everything and keeps nothing.
type nobody struct{ header http.Header }

func (w nobody) Header() http.Header         { return w.header }
func (w nobody) Write(p []byte) (int, error) { return len(p), nil }
func (w nobody) WriteHeader(int)             {}

// TestScrapeAllocatesTheSame: a scrape of four times as many tokens does not allocate more. The library's encoder of
// OpenMetrics allocates for each piece, and none allocates for a series.
func TestScrapeAllocatesTheSame(t *testing.T) {
	if racedetector.On {
		t.Skip("pools lose what they are given")
	}
	for _, only := range []bool{false, true} {
		for _, accept := range accepts[:5] {
			var allocated [2]float64
			allowed := 1000. // the garbage collector may empty a pool; one allocation for each token would be 3,000
			if strings.HasPrefix(accept, "application/openmetrics") {
				allowed += 2 * 3000 * 25 / httpapi.Piece
			}
			for i, n := range []int{1000, 4000} {
				m, _ := fleet(n, false)
				m.Essential(only)
				handler := m.Scraper()
				r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
				r.Header.Set("Accept", accept)
				allocated[i] = testing.AllocsPerRun(5, func() { handler.ServeHTTP(nobody{http.Header{}}, r) })
			}
			if allocated[1] > allocated[0]+allowed {
				t.Errorf("essential %v, %q: %.0f allocations for 1,000 tokens, %.0f for 4,000", only, accept, allocated[0], allocated[1])
			}
		}
	}
}

// TestScrapeTakesLittle: what a scrape holds is small for each token, also if no space of an earlier one is left.
func TestScrapeTakesLittle(t *testing.T) {
	if racedetector.On {
		t.Skip("pools lose what they are given")
	}
	const n = 10_000
	m, _ := fleet(n, false)
	handler := m.Scraper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	handler.ServeHTTP(nobody{http.Header{}}, r) // what is made once
	runtime.GC()
	runtime.GC() // pools are empty
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	handler.ServeHTTP(nobody{http.Header{}}, r)
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / n; each > 300 {
		t.Errorf("%d bytes for each token", each)
	} else {
		t.Logf("%d bytes for each token", each)
	}
}
