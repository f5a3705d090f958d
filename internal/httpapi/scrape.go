package httpapi

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"rotatord/internal/moment"
)

// This file sends /metrics. What is not about tokens is in a registry, as everywhere. What is about tokens is sent piece by
// piece: a registry makes all series of a scrape before it sends the first one. See docs/adr/0034.

const (
	// scrapesAtOnce is how many scrapes are answered at the same time: each holds a snapshot of the tokens.
	scrapesAtOnce = 2
	// scrapeWait is how long another one waits for its turn, and scrapeTime how long a scrape may take after that.
	scrapeWait, scrapeTime = 10 * time.Second, 30 * time.Second
	// scrapeStall is how long a reader may take nothing. It is less than scrapeWait, so that readers that have stopped
	// keep no scrape behind them from being answered.
	scrapeStall = 5 * time.Second
	// piece is how many series are made before they are sent.
	piece = 128
	// maxLabels is how many labels a metric of tokens has at most.
	maxLabels = 4
)

// family is a metric that has series of each token, or is made together with them. A family without series is not sent.
type family struct {
	name, help string
	counter    bool     // it is a gauge otherwise
	labels     []string // sorted
	// write adds the series, sorted by their labels. It adds the same whenever it is called with the same snapshot.
	write func(s *snapshot, out *seriesWriter)
}

// families are sorted by name.
var families = slices.SortedFunc(slices.Values(slices.Concat(gaugesOf, countersOf)), func(a, b *family) int { return strings.Compare(a.name, b.name) })

// values are those of the labels of a family, in the same order.
type values [maxLabels]string

// series is one series of a family.
type series struct {
	value  float64
	labels values
	since  int64 // of a counter: when counting began, in milliseconds since 1970
	// trouble says that it is shown also where only essential series are, if the rule of its family is ifTrouble.
	trouble bool
}

// formats are those that can be sent in pieces: all that Prometheus has ever asked for. The texts of protobuf are not
// among them.
var formats = slices.DeleteFunc(expfmt.DefaultOpenMetricsAcceptedFormats(), func(f expfmt.Format) bool {
	t := f.FormatType()
	return t != expfmt.TypeTextPlain && t != expfmt.TypeOpenMetrics && t != expfmt.TypeProtoDelim
})

// scraper answers /metrics.
type scraper struct {
	metrics *Metrics
	log     *slog.Logger
	now     func() time.Time
	turns   chan struct{}

	mu    sync.Mutex
	spare *scrapeSpace // nil if there is none
	used  time.Time    // when spare was last put there

	free      func()    // gives unused memory back to the system
	freed     time.Time // when that was last done
	isFreeing bool      // it will be done after the scrapes
}

// scrapeSpace is the memory of one scrape. The next one uses it again. One is kept, and not one for each processor, as a
// [sync.Pool] does: with 100,000 tokens it is 17 MB.
type scrapeSpace struct {
	tokens snapshot
	out    *seriesWriter
	zip    *gzip.Writer // nil before it is needed
}

// spareTime is how long a space is kept if no scrape comes. It is longer than from one scrape of Prometheus to the next.
const spareTime = 3 * time.Minute

// The garbage of scrapes of a large fleet is given back once none has come for freeAfter (or freeEvery has passed), and not more often than
// each freeEvery: that costs a collection. Otherwise a fifth more than the daemon needs would stay with it.
const (
	largeScrape = 5000 // tokens
	freeAfter   = 10 * time.Second
	freeEvery   = 10 * time.Minute
)

// takeSpace returns the space that is kept, or a new one.
func (s *scraper) takeSpace() *scrapeSpace {
	s.mu.Lock()
	defer s.mu.Unlock()
	space := s.spare
	if s.spare = nil; space == nil {
		space = &scrapeSpace{out: newSeriesWriter()}
	}
	return space
}

// keepSpace keeps a space for the next scrape, for a time.
func (s *scraper) keepSpace(space *scrapeSpace) {
	large := len(space.tokens.rows) >= largeScrape
	space.tokens.release()
	space.out.release()
	if space.zip != nil {
		space.zip.Reset(nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used.IsZero() { // nothing drops it yet
		s.afterScrapes(spareTime, spareTime, time.Time{}, func() { s.spare, s.used = nil, time.Time{} })
	}
	s.spare, s.used = space, time.Now()
	if large && !s.isFreeing {
		s.isFreeing = true
		wait := max(freeAfter, freeEvery-time.Since(s.freed))
		s.afterScrapes(wait, freeAfter, time.Now().Add(wait+freeEvery), func() { // with a latest time: two servers may scrape in turn all the time
			s.isFreeing, s.freed = false, time.Now()
			go s.free()
		})
	}
}

// afterScrapes calls do, with s.mu held, once no scrape has ended for quiet, but not before wait has passed. From latest on it does
// not wait for that; if latest is zero, it waits however long it takes.
func (s *scraper) afterScrapes(wait, quiet time.Duration, latest time.Time, do func()) {
	time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if left := time.Until(s.used.Add(quiet)); left > 0 && (latest.IsZero() || time.Now().Before(latest)) {
			s.afterScrapes(left, quiet, latest, do)
			return
		}
		do()
	})
}

func newScraper(m *Metrics, log *slog.Logger, now func() time.Time) *scraper {
	return &scraper{metrics: m, log: log, now: now, turns: make(chan struct{}, scrapesAtOnce), free: debug.FreeOSMemory}
}

// ServeHTTP implements [http.Handler]. A reader that is slow keeps nothing waiting but the scrapes behind it, and is cut
// off in the end. The answer to a scrape that fails after it began is cut off, too, so that nobody takes a part of the
// metrics for all of them.
func (s *scraper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	wait := time.NewTimer(scrapeWait)
	defer wait.Stop()
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-r.Context().Done():
		return
	case <-wait.C:
		http.Error(w, fmt.Sprintf("%d scrapes are being answered: try again later", scrapesAtOnce), http.StatusServiceUnavailable)
		return
	}
	w = &boundedWriter{w, http.NewResponseController(w), time.Now().Add(scrapeTime)}
	others, err := s.metrics.registry.Gather()
	if err != nil {
		s.log.Error("the metrics cannot be gathered", "error", err)
		http.Error(w, "the metrics cannot be gathered: "+err.Error(), http.StatusInternalServerError)
		return
	}
	space := s.takeSpace()
	defer s.keepSpace(space)
	space.tokens.read(s.metrics.source, s.metrics.perToken)
	if err := s.send(w, r, others, space); err != nil {
		s.log.Warn("the metrics were not sent to the end", "error", err)
		panic(http.ErrAbortHandler)
	}
}

// boundedWriter ends with an error if the reader takes nothing for scrapeStall, and in any case at end.
type boundedWriter struct {
	http.ResponseWriter
	controller *http.ResponseController // nil for a writer of a test, which has no deadline
	end        time.Time
}

// Write implements [io.Writer].
func (w *boundedWriter) Write(p []byte) (int, error) {
	if w.controller != nil && w.controller.SetWriteDeadline(moment.Min(w.end, time.Now().Add(scrapeStall))) != nil {
		w.controller = nil
	}
	return w.ResponseWriter.Write(p)
}

// send sends all metrics, or those that the request names.
func (s *scraper) send(w http.ResponseWriter, r *http.Request, others []*dto.MetricFamily, space *scrapeSpace) error {
	format := expfmt.NegotiateAccept(r.Header, formats...)
	h := w.Header()
	h.Add("Vary", "Accept")
	h.Add("Vary", "Accept-Encoding")
	h.Set("Content-Type", string(format))
	var to io.Writer = w
	var zip *gzip.Writer
	if acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		if space.zip == nil {
			space.zip, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // series resemble each other: more effort saves little
		}
		zip = space.zip
		zip.Reset(w)
		to = zip
	}
	err := s.write(to, format, others, space, r.URL.Query()["name[]"])
	if zip != nil && err == nil { // else its end would look like that of a whole answer
		err = zip.Close()
	}
	return err
}

// acceptsGzip reports whether the answer may be compressed.
func acceptsGzip(r *http.Request) bool {
	for one := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		coding, parameter, _ := strings.Cut(strings.TrimSpace(one), ";")
		q := strings.Trim(strings.TrimPrefix(strings.ReplaceAll(parameter, " ", ""), "q="), "0.")
		if coding == "gzip" && (parameter == "" || q != "") {
			return true
		}
	}
	return false
}

// write writes all metrics sorted by name; only those in names if there are any.
func (s *scraper) write(to io.Writer, format expfmt.Format, others []*dto.MetricFamily, space *scrapeSpace, names []string) error {
	enc, out := expfmt.NewEncoder(to, format), space.out
	out.to, out.format = to, format.FormatType()
	if s.metrics.essential.Load() {
		out.essentialAt = s.now()
	}
	var failed error
	encode := func(mf *dto.MetricFamily) { failed = cmp.Or(failed, enc.Encode(mf)) }
	wanted := func(name string) bool { return failed == nil && (len(names) == 0 || slices.Contains(names, name)) }
	for _, f := range families {
		for len(others) > 0 && others[0].GetName() < f.name {
			if wanted(others[0].GetName()) {
				encode(others[0])
			}
			others = others[1:]
		}
		if wanted(f.name) {
			failed = out.family(f, &space.tokens)
		}
	}
	for _, mf := range others {
		if wanted(mf.GetName()) {
			encode(mf)
		}
	}
	if closer, ok := enc.(expfmt.Closer); ok && failed == nil { // the last line of OpenMetrics
		failed = closer.Close()
	}
	return failed
}

// seriesWriter encodes families in pieces, and uses the same few structures for all of them. What is sent is what the
// encoders of package expfmt make of the whole family.
type seriesWriter struct {
	to     io.Writer
	format expfmt.FormatType
	// essentialAt is the time if only essential series are shown, and zero otherwise.
	essentialAt time.Time

	of    *family
	rule  rule
	mf    dto.MetricFamily // a piece of the family
	slots [piece]slot
	all   [piece]*dto.Metric
	n     int // slots in use

	counting bool // the length of the family is counted, and nothing is sent
	length   int
	header   int // bytes of the lines that each piece begins with; 0 before the first one
	sums     map[values]float64
	buffer   bytes.Buffer
	err      error
}

// slot is one series of a piece, as the encoders want it.
type slot struct {
	metric  dto.Metric
	label   [maxLabels]dto.LabelPair
	pairs   [maxLabels]*dto.LabelPair // of label
	gauge   dto.Gauge
	counter dto.Counter
	since   timestamppb.Timestamp
	value   float64
	labels  values
}

func newSeriesWriter() *seriesWriter {
	w := &seriesWriter{}
	for i := range w.slots {
		s := &w.slots[i]
		for j := range s.pairs {
			s.pairs[j], s.label[j].Value = &s.label[j], &s.labels[j]
		}
		s.gauge.Value, s.counter.Value, s.counter.CreatedTimestamp = &s.value, &s.value, &s.since
		w.all[i] = &s.metric
	}
	return w
}

// release forgets the scrape, and keeps the space for the next one.
func (w *seriesWriter) release() {
	w.to, w.essentialAt, w.n, w.err, w.sums, w.counting = nil, time.Time{}, 0, nil, nil, false
	for i := range w.slots {
		w.slots[i].labels = values{}
	}
}

// family writes one family.
func (w *seriesWriter) family(f *family, tokens *snapshot) error {
	w.of, w.rule, w.header, w.length = f, always, 0, 0
	if !w.essentialAt.IsZero() {
		w.rule = essential[f.name]
	}
	kind := dto.MetricType_GAUGE
	if f.counter {
		kind = dto.MetricType_COUNTER
	}
	w.mf = dto.MetricFamily{Name: &f.name, Help: &f.help, Type: &kind}
	for i := range w.slots {
		s := &w.slots[i]
		for j := range f.labels {
			s.pairs[j].Name = &f.labels[j]
		}
		s.metric.Label, s.metric.Gauge, s.metric.Counter = s.pairs[:len(f.labels)], nil, nil
		if f.counter {
			s.metric.Counter = &s.counter
		} else {
			s.metric.Gauge = &s.gauge
		}
	}
	if w.format == expfmt.TypeProtoDelim {
		w.counting = true
		w.pass(tokens)
		w.counting = false
		if w.length == 0 {
			return w.err
		}
		w.beginMessage()
	}
	w.pass(tokens)
	return w.err
}

// beginMessage writes the length of a message and what comes before its series. The pieces of the series follow: encoded
// messages of protobuf that are joined are one message.
func (w *seriesWriter) beginMessage() {
	head, err := proto.Marshal(&w.mf)
	w.err = cmp.Or(w.err, err)
	w.buffer.Reset()
	w.buffer.Write(protowire.AppendVarint(w.buffer.AvailableBuffer(), uint64(len(head)+w.length)))
	w.buffer.Write(head)
	w.flushBuffer(0)
	w.mf.Name, w.mf.Help, w.mf.Type = nil, nil, nil
}

// pass lets the family write all its series.
func (w *seriesWriter) pass(tokens *snapshot) {
	if w.rule == together {
		w.sums = make(map[values]float64)
	}
	w.of.write(tokens, w)
	for _, labels := range slices.SortedFunc(maps.Keys(w.sums), func(a, b values) int { return slices.Compare(a[:], b[:]) }) {
		w.put(series{value: w.sums[labels], labels: labels})
	}
	w.sums = nil
	w.flush()
}

// add adds a series, unless only essential ones are shown and it is none.
func (w *seriesWriter) add(s series) {
	switch {
	case w.sums != nil:
		s.labels[slices.Index(w.of.labels, "token")] = ""
		w.sums[s.labels] += s.value
	case w.rule == always || w.rule.shows(&s, w.essentialAt):
		w.put(s)
	}
}

func (w *seriesWriter) put(s series) {
	if w.err != nil {
		return
	}
	slot := &w.slots[w.n]
	slot.value, slot.labels = s.value, s.labels
	slot.counter.CreatedTimestamp = nil
	if s.since != 0 {
		at := time.UnixMilli(s.since)
		slot.since.Seconds, slot.since.Nanos = at.Unix(), int32(at.Nanosecond())
		slot.counter.CreatedTimestamp = &slot.since
	}
	if w.n++; w.n == piece {
		w.flush()
	}
}

// flush sends the series in the slots.
func (w *seriesWriter) flush() {
	if w.n == 0 || w.err != nil {
		return
	}
	w.mf.Metric = w.all[:w.n]
	defer func() { w.n, w.mf.Metric = 0, nil }()
	if w.counting {
		name, help, kind := w.mf.Name, w.mf.Help, w.mf.Type
		w.mf.Name, w.mf.Help, w.mf.Type = nil, nil, nil
		w.length += proto.Size(&w.mf)
		w.mf.Name, w.mf.Help, w.mf.Type = name, help, kind
		return
	}
	w.buffer.Reset()
	switch w.format {
	case expfmt.TypeProtoDelim:
		encoded, err := proto.MarshalOptions{}.MarshalAppend(w.buffer.AvailableBuffer(), &w.mf)
		w.buffer.Write(encoded)
		w.err = err
	case expfmt.TypeOpenMetrics:
		_, w.err = expfmt.MetricFamilyToOpenMetrics(&w.buffer, &w.mf)
	default:
		_, w.err = expfmt.MetricFamilyToText(&w.buffer, &w.mf)
	}
	sent := w.header
	if w.header == 0 && w.format != expfmt.TypeProtoDelim {
		w.header = headerOf(w.buffer.Bytes())
	}
	w.flushBuffer(sent)
}

// flushBuffer sends the buffer from one byte on.
func (w *seriesWriter) flushBuffer(from int) {
	if w.err == nil {
		_, w.err = w.to.Write(w.buffer.Bytes()[from:])
	}
}

// headerOf returns how many bytes the lines have that say what the metric is. Each piece has them, and one is enough.
func headerOf(text []byte) (n int) {
	for line := range bytes.Lines(text) {
		if line[0] != '#' {
			break
		}
		n += len(line)
	}
	return n
}
