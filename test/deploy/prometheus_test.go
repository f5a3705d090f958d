package deploy

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
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

func TestPromtoolCheckRules(t *testing.T) {
	promtool := tool(t, "promtool")
	if out, err := run(t, promtool, "check", "rules", filepath.Join(root, "deploy/prometheus/rotatord.rules.yaml")); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}

func TestPromtoolTestRules(t *testing.T) {
	promtool := tool(t, "promtool")
	if out, err := run(t, promtool, "test", "rules", filepath.Join(root, "deploy/prometheus/rotatord.rules.test.yaml")); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

// Every alert is seen firing, and seen silent, in the unit tests that promtool runs.
func TestEveryAlertIsTested(t *testing.T) {
	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string      `yaml:"alertname"`
				ExpAlerts []yaml.Node `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(readFile(t, "deploy/prometheus/rotatord.rules.test.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	firing, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, c := range test.AlertRuleTest {
			if len(c.ExpAlerts) > 0 {
				firing[c.Alertname] = true
			} else {
				silent[c.Alertname] = true
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
	recorded, names := map[string]bool{}, map[string]bool{}
	for _, r := range recording {
		recorded[r.Record] = true
		for _, fault := range checkExpr(r.Expr, metrics, values, nil) {
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
		if got, want := a.Annotations["runbook_url"], "docs/runbook.md#"+strings.ToLower(a.Alert); got != want {
			t.Errorf("%s: runbook_url %q, want %q", a.Alert, got, want)
		}
	}
	for name := range recorded {
		used := false
		for _, a := range alerts {
			used = used || strings.Contains(a.Expr, name)
		}
		if !used {
			t.Errorf("%s is recorded, and no alert uses it", name)
		}
	}
}

// Each alert has its section in the runbook, under the anchor that its annotation names,
// and each section its alert.
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
		t.Errorf("the section %s belongs to no alert", heading)
	}
	for _, link := range regexp.MustCompile(`\]\(#([a-z]+)\)`).FindAllStringSubmatch(runbook, -1) {
		if !bytes.Contains(bytes.ToLower([]byte(runbook)), []byte("\n## "+link[1]+"\n")) {
			t.Errorf("the link #%s leads nowhere", link[1])
		}
	}
	// Queries in the text must work, as those of the alerts do.
	metrics, values := metricTable(t)
	queries := 0
	for _, match := range regexp.MustCompile("`([^`\n]*rotatord_[^`\n]*)`").FindAllStringSubmatch(runbook, -1) {
		queries++
		for _, fault := range checkExpr(match[1], metrics, values, nil) {
			t.Errorf("%s: %s", match[1], fault)
		}
	}
	if queries < 20 {
		t.Errorf("%d queries were found: this test shows nothing", queries)
	}
}
