package httpapi_test

import (
	"fmt"
	"testing"

	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/rotation"
)

// countedAll are metrics of n tokens to each of which everything has happened that is counted by token.
func countedAll(n int) *httpapi.Metrics {
	m := newMetrics()
	for i := range n {
		name := fmt.Sprint("token-", i)
		m.Known(name)
		for _, d := range []event.Detail{
			event.RotationEnded{Trigger: string(rotation.TriggerManual), Result: event.ResultSuccess}, event.Missed{Count: 2, Frozen: 1},
			event.OutsideRotation{}, event.Renewal{}, event.Probe{Result: event.ProbeGood},
		} {
			tell(m, name, d)
		}
	}
	return m
}

// seriesByToken returns how many series each token has.
func seriesByToken(t *testing.T, m *httpapi.Metrics) map[string]int {
	t.Helper()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]int{}
	for _, family := range families {
		for _, one := range family.Metric {
			for _, l := range one.Label {
				if l.GetName() == "token" {
					series[l.GetValue()]++
				}
			}
		}
	}
	return series
}

// TestForgetForgetsAll: no series of a token is left after it was removed, and all of another one are.
func TestForgetForgetsAll(t *testing.T) {
	m := countedAll(2)
	before := seriesByToken(t, m)
	if before["token-0"] != before["token-1"] || before["token-0"] < 10 {
		t.Fatalf("the tokens have %v series", before)
	}
	m.Forget("token-0")
	m.Forget("unknown")
	if after := seriesByToken(t, m); len(after) != 1 || after["token-1"] != before["token-1"] {
		t.Errorf("series after one token was forgotten: %v; before: %v", after, before)
	}
	m.Known("token-0") // it is configured again
	if after := seriesByToken(t, m)["token-0"]; after != 7 {
		t.Errorf("a token that is configured again has %d series", after)
	}
}

// TestCountersTakeNoMemory: a counter that is zero takes no memory of its own. What a token takes does not depend on how
// many results there are.
func TestCountersTakeNoMemory(t *testing.T) {
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprint("token-", i)
	}
	m := newMetrics()
	allocated := testing.AllocsPerRun(10, func() {
		for _, name := range names {
			m.Forget(name)
			m.Known(name)
		}
	})
	if allocated > float64(2*len(names)) {
		t.Errorf("%.0f allocations for %d tokens", allocated, len(names))
	}
}

// BenchmarkForget removes half of the tokens, as a reload does.
func BenchmarkForget(b *testing.B) {
	for _, n := range []int{1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				m := countedAll(n)
				b.StartTimer()
				for i := range n / 2 {
					m.Forget(fmt.Sprint("token-", i))
				}
			}
		})
	}
}

// BenchmarkKnown makes the counters of many tokens.
func BenchmarkKnown(b *testing.B) {
	names := make([]string, 10000)
	for i := range names {
		names[i] = fmt.Sprint("token-", i)
	}
	b.ReportAllocs()
	for b.Loop() {
		m := newMetrics()
		for _, name := range names {
			m.Known(name)
		}
	}
}
