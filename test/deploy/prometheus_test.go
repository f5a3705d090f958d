package deploy

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"rotatord/deploy/prometheus"
)

type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

// rules returns the alerts and the recording rules that are shipped.
func rules(t *testing.T) (alerts []rule, recorded []rule) {
	t.Helper()
	var file ruleFile
	decoder := yaml.NewDecoder(strings.NewReader(readFile(t, "deploy/prometheus/rotatord.rules.yaml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		for _, r := range group.Rules {
			if r.Alert != "" {
				alerts = append(alerts, r)
			} else {
				recorded = append(recorded, r)
			}
		}
	}
	if len(alerts) == 0 {
		t.Fatal("no alerts")
	}
	return alerts, recorded
}

// recordedNames are the series of the recording rules.
func recordedNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	_, recording := rules(t)
	for _, r := range recording {
		names[r.Record] = true
	}
	return names
}

func TestPromtoolCheckRules(t *testing.T) {
	promtool := tool(t, "promtool")
	if out, err := run(t, promtool, "check", "rules", filepath.Join(root, "deploy/prometheus/rotatord.rules.yaml")); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}

// ruleTests are the unit tests of the alerts, which promtool runs.
func ruleTests(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "deploy/prometheus/*.test.yaml"))
	if err != nil || len(files) < 2 {
		t.Fatalf("found %q (%v)", files, err)
	}
	return files
}

func TestPromtoolTestRules(t *testing.T) {
	t.Parallel() // with what waits, and not file by file: each keeps a processor busy, with GOGC for a third less time
	promtool := tool(t, "promtool")
	for _, file := range ruleTests(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			if out, err := run(t, "env", "GOGC=400", promtool, "test", "rules", file); err != nil {
				t.Errorf("promtool test rules: %v\n%s", err, out)
			}
		})
	}
}

// Every alert is seen firing, and seen silent, in the unit tests that promtool runs.
func TestEveryAlertIsTested(t *testing.T) {
	firing, silent := map[string]bool{}, map[string]bool{}
	for _, path := range ruleTests(t) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Tests []struct {
				AlertRuleTest []struct {
					Alertname string      `yaml:"alertname"`
					ExpAlerts []yaml.Node `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		if err := yaml.Unmarshal(content, &file); err != nil {
			t.Fatal(err)
		}
		for _, test := range file.Tests {
			for _, c := range test.AlertRuleTest {
				if len(c.ExpAlerts) > 0 {
					firing[c.Alertname] = true
				} else {
					silent[c.Alertname] = true
				}
			}
		}
	}
	alerts, _ := rules(t)
	exists := map[string]bool{}
	for _, a := range alerts {
		exists[a.Alert] = true
		if !firing[a.Alert] {
			t.Errorf("%s: no test in which it fires", a.Alert)
		}
		if !silent[a.Alert] {
			t.Errorf("%s: no test in which it does not fire", a.Alert)
		}
	}
	// promtool takes a test of an alert that does not exist for a silent one.
	for _, names := range []map[string]bool{firing, silent} {
		for name := range names {
			if !exists[name] {
				t.Errorf("%s is tested and does not exist", name)
			}
		}
	}
}

func TestAlerts(t *testing.T) {
	metrics, values := metricTable(t)
	alerts, recording := rules(t)
	recorded, names := recordedNames(t), map[string]bool{}
	for _, r := range recording {
		for _, fault := range checkExpr(r.Expr, metrics, values, recorded) {
			t.Errorf("%s: %s", r.Record, fault)
		}
	}
	for _, a := range alerts {
		if names[a.Alert] {
			t.Errorf("%s: a second alert of this name", a.Alert)
		}
		names[a.Alert] = true
		for _, fault := range checkExpr(a.Expr, metrics, values, recorded) {
			t.Errorf("%s: %s", a.Alert, fault)
		}
		if s := a.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", a.Alert, s)
		}
		for _, key := range []string{"summary", "description"} {
			if len(a.Annotations[key]) < 20 {
				t.Errorf("%s: the %s %q tells nobody anything", a.Alert, key, a.Annotations[key])
			}
		}
		if got, want := a.Annotations["runbook_url"], prometheus.RunbookURL+"#"+strings.ToLower(a.Alert); got != want {
			t.Errorf("%s: runbook_url %q, want %q", a.Alert, got, want)
		}
		for _, expr := range queriesOf(a) {
			for _, fault := range checkExpr(expr, metrics, values, recorded) {
				t.Errorf("%s: a query in its annotations: %s", a.Alert, fault)
			}
		}
	}
	for name := range recorded {
		used := false
		for _, a := range alerts {
			used = used || strings.Contains(a.Expr, name)
		}
		for _, r := range recording {
			used = used || r.Record != name && strings.Contains(r.Expr, name)
		}
		if !used {
			t.Errorf("%s is recorded, and no alert uses it", name)
		}
	}
}

// queriesOf returns the queries in the annotations of an alert, with a matcher in the place of
// each verb.
func queriesOf(a rule) (queries []string) {
	for _, text := range a.Annotations {
		for _, match := range regexp.MustCompile(`printf "([^"]*)"`).FindAllStringSubmatch(text, -1) {
			queries = append(queries, regexp.MustCompile(`=%(\[\d\])?q`).ReplaceAllString(match[1], `=~".*"`))
		}
	}
	return queries
}

// Each alert about a token stays while its daemon is down, and alerts about failures have
// the reason.
func TestAlertsAboutTokens(t *testing.T) {
	alerts, _ := rules(t)
	kept, reasons := 0, 0
	for _, a := range alerts {
		aboutToken := strings.Contains(a.Annotations["summary"], "$labels.token")
		if aboutToken && a.Labels["severity"] == "critical" && a.Alert != "RotatordTokenManagedTwice" {
			kept++
			if !strings.Contains(a.Expr, "token:rotatord_trouble:kept") {
				t.Errorf("%s ends when its daemon does: %s", a.Alert, a.Expr)
			}
			if !strings.Contains(a.Annotations["description"], "No running rotatord reports") {
				t.Errorf("%s does not say that its daemon is down", a.Alert)
			}
		}
		for _, expr := range queriesOf(a) {
			if strings.Contains(expr, "rotatord_token_last_failure_info") || strings.Contains(expr, "rotatord_token_doubt_info") ||
				strings.Contains(expr, "rotatord_check_failing_since") {
				reasons++
				break
			}
		}
	}
	if kept < 12 || reasons < 8 {
		t.Errorf("%d alerts are kept, and %d give a reason: this test shows nothing", kept, reasons)
	}
}

// What `rotatord rules` prints with another address is accepted by Prometheus, and every
// address in it leads to a section of the runbook.
func TestRulesWithRunbookURL(t *testing.T) {
	const address = "https://wiki.example.org/x/rotatord?a=b&c=%20d"
	content, err := prometheus.Rules(address)
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(readFile(t, "docs/runbook.md"), -1) {
		headings[strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")] = true
	}
	var file ruleFile
	if err := yaml.Unmarshal([]byte(content), &file); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, group := range file.Groups {
		for _, r := range group.Rules {
			if r.Alert == "" {
				continue
			}
			found++
			if anchor, ok := strings.CutPrefix(r.Annotations["runbook_url"], address+"#"); !ok || !headings[anchor] {
				t.Errorf("%s: %s leads nowhere", r.Alert, r.Annotations["runbook_url"])
			}
		}
	}
	if alerts, _ := rules(t); found != len(alerts) {
		t.Errorf("%d alerts, want %d", found, len(alerts))
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, tool(t, "promtool"), "check", "rules", path); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}

// docs/metrics.md names every series that is recorded, and every trouble that the rules know.
func TestRecordedSeriesAreDocumented(t *testing.T) {
	_, section, _ := strings.Cut(readFile(t, "docs/metrics.md"), "\n## Recorded series\n")
	section, _, _ = strings.Cut(section, "\n## ")
	table, text, _ := strings.Cut(section, "`trouble` is one of")
	for name := range recordedNames(t) {
		if !strings.Contains(table, "`"+name+"`") {
			t.Errorf("docs/metrics.md does not name %s", name)
		}
	}
	alerts, recording := rules(t)
	known := map[string]bool{}
	for _, r := range recording {
		if r.Record != "instance_token:rotatord_trouble:now" {
			continue
		}
		if trouble := r.Labels["trouble"]; trouble != "" {
			known[trouble] = true
		} else if states := regexp.MustCompile(`state=~"([a-z_|]+)"`).FindStringSubmatch(r.Expr); states != nil {
			for state := range strings.SplitSeq(states[1], "|") {
				known[state] = true
			}
		}
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(text, -1) {
		documented[m[1]] = true
	}
	if !maps.Equal(known, documented) || len(known) < 13 {
		t.Errorf("the rules know the troubles %v, docs/metrics.md %v", known, documented)
	}
	for _, a := range alerts {
		for _, m := range regexp.MustCompile(`trouble="([a-z_]+)"`).FindAllStringSubmatch(a.Expr, -1) {
			if !known[m[1]] {
				t.Errorf("%s asks for the trouble %s, which nothing records", a.Alert, m[1])
			}
		}
	}
}

// The inhibitions in the runbook name alerts that exist, and suppress none that is more severe.
func TestInhibitions(t *testing.T) {
	blocks := fenced(readFile(t, "docs/runbook.md"), "yaml")
	var config struct {
		Rules []struct {
			Source []string `yaml:"source_matchers"`
			Target []string `yaml:"target_matchers"`
			Equal  []string `yaml:"equal"`
		} `yaml:"inhibit_rules"`
	}
	for _, block := range blocks {
		if strings.HasPrefix(block, "inhibit_rules:") {
			if err := yaml.Unmarshal([]byte(block), &config); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(config.Rules) < 4 {
		t.Fatalf("%d inhibitions were found", len(config.Rules))
	}
	severity := map[string]string{}
	alerts, _ := rules(t)
	for _, a := range alerts {
		severity[a.Alert] = a.Labels["severity"]
	}
	names := func(matchers []string) (found []string) {
		for _, m := range matchers {
			if strings.HasPrefix(m, "alertname") {
				found = append(found, regexp.MustCompile(`Rotatord\w+`).FindAllString(m, -1)...)
			}
		}
		return found
	}
	for _, r := range config.Rules {
		if len(names(r.Source)) == 0 || len(names(r.Target)) == 0 || !slices.Contains(r.Equal, "job") {
			t.Errorf("an inhibition without a source, a target or a job: %+v", r)
		}
		for _, source := range names(r.Source) {
			for _, target := range names(r.Target) {
				switch {
				case severity[source] == "" || severity[target] == "":
					t.Errorf("%s or %s is not an alert", source, target)
				case severity[source] == "warning" && severity[target] == "critical":
					t.Errorf("%s, a warning, holds back the critical %s", source, target)
				case source == target:
					t.Errorf("%s holds itself back", source)
				}
			}
		}
	}
}

// Each alert has its section in the runbook, under the anchor that its annotation names,
// and each section its alert, except sections about work without an alert.
func TestRunbook(t *testing.T) {
	runbook := readFile(t, "docs/runbook.md")
	sections := map[string]string{}
	for _, part := range strings.Split(runbook, "\n## ")[1:] {
		heading, body, _ := strings.Cut(part, "\n")
		if _, twice := sections[heading]; twice {
			t.Errorf("two sections named %s: the second has another anchor", heading)
		}
		sections[heading] = body
	}
	alerts, _ := rules(t)
	for _, a := range alerts {
		body, ok := sections[a.Alert]
		if !ok {
			t.Errorf("docs/runbook.md has no section %s", a.Alert)
		}
		delete(sections, a.Alert)
		for _, part := range []string{"**Means.**", "**See.**", "**Do.**"} {
			if !strings.Contains(body, part) {
				t.Errorf("the section %s has no %s", a.Alert, part)
			}
		}
	}
	for heading := range sections {
		if strings.HasPrefix(heading, "Rotatord") {
			t.Errorf("the section %s belongs to no alert", heading)
		}
	}
	anchors := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^##+ (.*)$`).FindAllStringSubmatch(runbook, -1) {
		anchors[strings.ReplaceAll(strings.ToLower(strings.ReplaceAll(heading[1], "`", "")), " ", "-")] = true
	}
	links := regexp.MustCompile(`\]\(#([^)]+)\)`).FindAllStringSubmatch(runbook, -1)
	for _, link := range links {
		if !anchors[link[1]] {
			t.Errorf("the link #%s leads nowhere", link[1])
		}
	}
	if len(links) < 10 {
		t.Errorf("%d links were found: this test shows nothing", len(links))
	}
	// Queries in the text must work, as those of the alerts do.
	metrics, values := metricTable(t)
	recorded := recordedNames(t)
	queries := 0
	for _, match := range regexp.MustCompile("`([^`\n]*rotatord_[^`\n]*)`").FindAllStringSubmatch(runbook, -1) {
		queries++
		for _, fault := range checkExpr(match[1], metrics, values, recorded) {
			t.Errorf("%s: %s", match[1], fault)
		}
	}
	if queries < 20 {
		t.Errorf("%d queries were found: this test shows nothing", queries)
	}
}
