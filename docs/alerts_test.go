package docs_test

import (
	"path/filepath"
	"regexp"
	"slices"
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
	for _, rule := range rules {
		n := slices.IndexFunc(rows, func(row []string) bool { return row[0] == rule[1] })
		switch {
		case n < 0:
			t.Errorf("%s has no row: run make alerts-e2e PAGE=docs/alerts.md", rule[1])
		case len(rows[n]) != 4 || !measured.MatchString(rows[n][2]) || !measured.MatchString(rows[n][3]):
			t.Errorf("the row of %s is %q", rule[1], rows[n])
		}
	}
	for _, row := range rows {
		if !slices.ContainsFunc(rules, func(rule []string) bool { return rule[1] == row[0] }) {
			t.Errorf("%s is not an alert", row[0])
		}
	}
}
