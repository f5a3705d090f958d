package docs_test

import (
	"path/filepath"
	"regexp"
	"testing"
)

// TestAlertsPage checks that each alert of the rules has a row of alerts.md in which it has fired and has cleared.
func TestAlertsPage(t *testing.T) {
	rules := regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(read(t, filepath.Join(root, "deploy/prometheus/rotatord.rules.yaml")), -1)
	if len(rules) < 50 {
		t.Fatalf("%d alerts were found", len(rules))
	}
	rows := tables(t, "docs/alerts.md", "One run")
	measured := regexp.MustCompile(`^(\d+m)?\d+s$`)
	seen := map[string]bool{}
	for _, row := range rows {
		if len(row) != 4 || !measured.MatchString(row[2]) || !measured.MatchString(row[3]) {
			t.Errorf("this row does not say when the alert has fired and has cleared: %q", row)
		}
		seen[row[0]] = true
	}
	for _, rule := range rules {
		if !seen[rule[1]] {
			t.Errorf("%s has no row: run make alerts-e2e PAGE=docs/alerts.md", rule[1])
		}
		delete(seen, rule[1])
	}
	for name := range seen {
		t.Errorf("%s has a row, and is not an alert", name)
	}
}
