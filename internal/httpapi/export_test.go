package httpapi

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// EssentialMetrics are the metrics that have a rule.
func EssentialMetrics() []string { return slices.Sorted(maps.Keys(essential)) }

// ScrapesAtOnce is how many scrapes are answered at the same time.
const ScrapesAtOnce = scrapesAtOnce

// Piece is how many series are made before they are sent.
const Piece = piece

// Scraper answers /metrics.
func (m *Metrics) Scraper() http.Handler {
	return newScraper(m, slog.New(slog.DiscardHandler), time.Now)
}

// Gatherer returns what is sent to Prometheus.
func (m *Metrics) Gatherer() prometheus.Gatherer {
	return prometheus.GathererFunc(func() (all []*dto.MetricFamily, _ error) {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept", string(expfmt.FmtProtoDelim))
		w := httptest.NewRecorder()
		m.Scraper().ServeHTTP(w, r)
		decoder := expfmt.NewDecoder(bytes.NewReader(w.Body.Bytes()), expfmt.FmtProtoDelim)
		for {
			family := &dto.MetricFamily{}
			err := decoder.Decode(family)
			if errors.Is(err, io.EOF) {
				return all, nil
			}
			if err != nil {
				return nil, err
			}
			all = append(all, family)
		}
	})
}
