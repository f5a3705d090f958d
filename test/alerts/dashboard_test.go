package alerts

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// queries are those of the dashboard that have had no data yet.
type queries struct{ left []string }

func dashboardQueries(t *testing.T, dashboard string) *queries {
	t.Helper()
	content, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$job", ".*", "$instance", ".*", "$token", ".*")
	var left []string
	for _, expr := range exprsOf(t, string(content)) {
		expr = strings.TrimSuffix(plain.Replace(expr), " or on () vector(0)") // that is there also without data
		if strings.Contains(expr, "vector(0)") {
			t.Errorf("this query has data also if the daemon gives none: %s", expr)
		}
		left = append(left, expr)
	}
	if len(left) < 20 {
		t.Fatalf("%d queries were found", len(left))
	}
	return &queries{left: left}
}

// askAgainAndAgain asks for those without data every five seconds, until the function that it returns is called.
func (q *queries) askAgainAndAgain(p *prometheus) (stop func()) {
	ended := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(5 * time.Second):
				q.ask(p)
			}
		}
	})
	return func() { close(ended); asking.Wait(); q.ask(p) }
}

func (q *queries) ask(p *prometheus) {
	var left []string
	for _, expr := range q.left {
		if p.count(expr) == 0 {
			left = append(left, expr)
		}
	}
	q.left = left
}

func (q *queries) empty() []string { return q.left }
