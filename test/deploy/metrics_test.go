package deploy

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// metric is one row of docs/metrics.md.
type metric struct {
	kind   string
	labels []string
}

// metricTable reads the contract from docs/metrics.md: the metrics, and the values of
// those labels that have a fixed set.
func metricTable(t *testing.T) (metrics map[string]metric, values map[string][]string) {
	t.Helper()
	metrics, values = map[string]metric{}, map[string][]string{}
	quoted := regexp.MustCompile("`([a-z_]+)`")
	names := func(cell string) []string {
		var found []string
		for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
			found = append(found, m[1])
		}
		return found
	}
	section := ""
	for line := range strings.Lines(readFile(t, "docs/metrics.md")) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(heading)
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		if section != "The table" && section != "Label values" {
			continue
		}
		name := names(cells[0])
		if len(name) != 1 {
			t.Fatalf("not one name in %q", cells[0])
		}
		switch section {
		case "The table":
			if len(cells) != 5 {
				t.Fatalf("%d columns, want 5: %s", len(cells), line)
			}
			if _, twice := metrics[name[0]]; twice {
				t.Errorf("%s is there twice", name[0])
			}
			metrics[name[0]] = metric{strings.TrimSpace(cells[1]), names(cells[2])}
		case "Label values":
			values[name[0]] = names(cells[1])
		}
	}
	if len(metrics) < 27 || len(values) < 4 {
		t.Fatalf("%d metrics and %d labels in docs/metrics.md: was its form changed?", len(metrics), len(values))
	}
	return metrics, values
}

func TestMetricNames(t *testing.T) {
	metrics, _ := metricTable(t)
	for name, m := range metrics {
		if !strings.HasPrefix(name, "rotatord_") {
			t.Errorf("%s: wrong prefix", name)
		}
		switch m.kind {
		case "counter":
			if !strings.HasSuffix(name, "_total") {
				t.Errorf("the counter %s does not end in _total", name)
			}
		case "gauge", "histogram":
			if strings.HasSuffix(name, "_total") {
				t.Errorf("%s ends in _total and is a %s", name, m.kind)
			}
		default:
			t.Errorf("%s is a %q", name, m.kind)
		}
	}
}

// checkExpr parses a PromQL expression and returns what in it contradicts
// docs/metrics.md: metrics, labels and label values that do not exist.
func checkExpr(expr string, metrics map[string]metric, values map[string][]string, recorded map[string]bool) []string {
	parsed, err := parser.ParseExpr(expr)
	if err != nil {
		return []string{err.Error()}
	}
	var faults []string
	known := map[string]bool{"job": true, "instance": true, "le": true, "trouble": true} // trouble is of recording rules
	for _, m := range metrics {
		for _, l := range m.labels {
			known[l] = true
		}
	}
	grouping := func(names []string) {
		for _, name := range names {
			if !known[name] {
				faults = append(faults, fmt.Sprintf("no metric has the label %s", name))
			}
		}
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.AggregateExpr:
			if !node.Without { // a target may have more labels, such as pod
				grouping(node.Grouping)
			}
		case *parser.BinaryExpr:
			if node.VectorMatching != nil {
				grouping(node.VectorMatching.MatchingLabels)
				grouping(node.VectorMatching.Include)
			}
		case *parser.VectorSelector:
			if recorded[node.Name] || node.Name == "ALERTS" { // Prometheus's own: what is pending or firing
				break
			}
			m, ok := metrics[node.Name]
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				if name, found := strings.CutSuffix(node.Name, suffix); found && !ok {
					m, ok = metrics[name]
					ok = ok && m.kind == "histogram"
				}
			}
			if !ok {
				faults = append(faults, fmt.Sprintf("%s is not in docs/metrics.md", node.Name))
				break
			}
			for _, matcher := range node.LabelMatchers {
				name := matcher.Name
				if name == "__name__" || name == "job" || name == "instance" {
					continue
				}
				if !slices.Contains(m.labels, name) {
					faults = append(faults, fmt.Sprintf("%s has no label %s", node.Name, name))
				}
				if fixed := values[name]; fixed != nil && !slices.ContainsFunc(fixed, matcher.Matches) {
					faults = append(faults, fmt.Sprintf("%s never has %s", node.Name, matcher))
				}
			}
		}
		return nil
	})
	return faults
}

func TestCheckExpr(t *testing.T) {
	metrics, values := metricTable(t)
	for _, expr := range []string{
		`rotatord_no_such_metric > 0`,
		`rotatord_token_enabled_count`,
		`rotatord_pending_secrets{token="x"}`,
		`rotatord_token_state{state="in doubt"}`,
		`sum by (tokn) (rotatord_token_enabled)`,
		`up{job="rotatord"} == 0`,
		`rotatord_pending_secrets >`,
	} {
		if faults := checkExpr(expr, metrics, values, nil); len(faults) == 0 {
			t.Errorf("%s: no fault was found", expr)
		}
	}
	for _, expr := range []string{
		`rate(rotatord_rotation_duration_seconds_bucket{job="x",result="success"}[5m])`,
		`rotatord_token_state{state=~"claimed|intent"} == 1`,
	} {
		if faults := checkExpr(expr, metrics, values, nil); len(faults) != 0 {
			t.Errorf("%s: %q", expr, faults)
		}
	}
}

// Prose, too, must not name a metric that does not exist.
func TestDocumentsNameRealMetrics(t *testing.T) {
	metrics, _ := metricTable(t)
	files := []string{filepath.Join(root, "docs/metrics.md"), filepath.Join(root, "docs/runbook.md")}
	err := filepath.WalkDir(filepath.Join(root, "deploy"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	recorded := map[string]bool{} // the middle of the names that recording rules give
	for name := range recordedNames(t) {
		recorded[strings.Split(name, ":")[1]] = true
	}
	word := regexp.MustCompile(`\brotatord_[a-z_]+`)
	seen := map[string]bool{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range word.FindAllString(string(content), -1) {
			base := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, "")
			_, exact := metrics[name]
			if !exact && metrics[base].kind != "histogram" && !recorded[name] {
				t.Errorf("%s names %s, which docs/metrics.md does not know", file, name)
			}
			seen[name] = true
		}
	}
	for name := range maps.Keys(metrics) {
		if !seen[name] {
			t.Errorf("%s was not found in docs/metrics.md itself: this test shows nothing", name)
		}
	}
}
