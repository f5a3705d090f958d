package httpapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkScrape sends the metrics of a thousand tokens and of four thousand.
func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{1000, 4000} {
		for _, only := range []bool{false, true} {
			for name, accept := range map[string]string{"text": accepts[1], "openmetrics": accepts[2], "protobuf": accepts[4]} {
				b.Run(fmt.Sprintf("%d/essential=%v/%s", n, only, name), func(b *testing.B) {
					m, _ := fleet(n, false)
					m.Essential(only)
					handler := m.Scraper()
					r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
					r.Header.Set("Accept", accept)
					b.ReportAllocs()
					for b.Loop() {
						handler.ServeHTTP(nobody{http.Header{}}, r)
					}
				})
			}
		}
	}
}
