package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

const mixin = "../../deploy/mixin"

func render(t *testing.T, config string) string {
	t.Helper()
	content, err := rules(mixin, config)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestShippedFilesAreThoseOfTheMixin(t *testing.T) {
	shipped, err := os.ReadFile("../../deploy/prometheus/rotatord.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if string(shipped) != render(t, "{}") {
		t.Error("deploy/prometheus/rotatord.rules.yaml is not what the mixin makes: run go generate ./deploy/prometheus")
	}
	shipped, err = os.ReadFile("../../deploy/grafana/rotatord.json")
	if err != nil {
		t.Fatal(err)
	}
	if made, err := dashboard(mixin, "{}"); err != nil || string(shipped) != string(made) {
		t.Errorf("deploy/grafana/rotatord.json is not what the mixin makes (%v): run go generate ./deploy/prometheus", err)
	}
}

// Every metric of the daemon gets the matchers, whatever it had before, and no recorded series does.
func TestSelector(t *testing.T) {
	text, err := evaluate(mixin, `{selector: 'cluster="a"'}`, "prometheusAlerts")
	if err != nil {
		t.Fatal(err)
	}
	var file ruleFile
	if err := json.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	metric, selected := regexp.MustCompile(`(^|[^a-z_:])rotatord_[a-z_]+[^a-z_:][^ ]*`), 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			for _, found := range metric.FindAllString(r.Expr+" ", -1) {
				selected++
				if !strings.Contains(found, `{cluster="a"`) {
					t.Errorf("%s%s: %s is not selected", r.Alert, r.Record, found)
				}
			}
			if strings.Count(r.Expr, `cluster="a"`) != len(metric.FindAllString(r.Expr+" ", -1)) {
				t.Errorf("%s%s: more than metrics is selected: %s", r.Alert, r.Record, r.Expr)
			}
		}
	}
	if selected < 100 {
		t.Errorf("%d metrics: this test shows nothing", selected)
	}
}

// A value changes the query and the text that names it.
func TestConfig(t *testing.T) {
	got := render(t, `{heldUp: '12h', labels: {team: 'a'}, defaultFor: '', alerts: {
		RotatordAbsent: {'for': '3m', severity: 'warning'}, RotatordTokenUnused: {enabled: false}}}`)
	for _, want := range []string{
		"time() + 12 * 3600", "due within twelve hours, or overdue",
		"no metrics from any rotatord for three minutes",
		"for: 3m\n        labels:\n          severity: warning\n          team: a\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(got, "alert: RotatordTokenUnused") {
		t.Error("an alert that is not enabled is there")
	}
	if strings.Contains(got, "$(") {
		t.Error("a placeholder was left")
	}
}

// The dashboard follows the same values.
func TestConfigOfDashboard(t *testing.T) {
	got, err := dashboard(mixin, "{overdue: '2h'}")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"_next_rotation_timestamp_seconds", ")) > 2 * 3600)", "rotated two hours ago"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(string(got), "$(") {
		t.Error("a placeholder was left")
	}
}

func TestConfigIsRefused(t *testing.T) {
	for config, want := range map[string]string{
		`{alerts: {RotatordTokenUnusd: {enabled: false}}}`: "no such alert: RotatordTokenUnusd",
		`{heldUp: '6 hours'}`:                              "not a duration: 6 hours",
		`{heldUp:: null, clockSkew: 'h'}`:                  "not a duration",
	} {
		if _, err := rules(mixin, config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
}
