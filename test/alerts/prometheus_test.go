package alerts

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// prometheus is a running server with the rules under test.
type prometheus struct {
	url      string
	sites    []*site   // that it scrapes
	answered time.Time // last
}

// alert is one of /api/v1/alerts.
type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	State       string            `json:"state"`
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 8 << 20

// parseAlerts reads the answer of /api/v1/alerts. Alerts come in the order of their names.
func parseAlerts(body []byte) ([]alert, error) {
	var answer struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   struct {
			Alerts []alert `json:"alerts"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("the answer of /api/v1/alerts is not JSON: %w", err)
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("/api/v1/alerts answered %q: %s", answer.Status, answer.Error)
	}
	for _, a := range answer.Data.Alerts {
		if a.name() == "" || a.State == "" {
			return nil, fmt.Errorf("/api/v1/alerts has an alert without a name or a state: %v", a)
		}
	}
	slices.SortFunc(answer.Data.Alerts, func(a, b alert) int { return cmp.Compare(a.key(), b.key()) })
	return answer.Data.Alerts, nil
}

func (a alert) name() string     { return a.Labels["alertname"] }
func (a alert) severity() string { return a.Labels["severity"] }
func (a alert) firing() bool     { return a.State == "firing" }

// key identifies an alert: its labels in order.
func (a alert) key() string {
	names := make([]string, 0, len(a.Labels))
	for name := range a.Labels {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString(a.name())
	for _, name := range names {
		if name != "alertname" {
			fmt.Fprintf(&b, " %s=%q", name, a.Labels[name])
		}
	}
	return b.String()
}

// concerns reports whether an alert is about the site of that name: its job, its account and
// its token all bear it.
func (a alert) concerns(name string) bool {
	for _, label := range []string{"job", "account", "token"} {
		if value, ok := a.Labels[label]; ok {
			return value == name
		}
	}
	return false
}

const promConfig = `global: {scrape_interval: %[2]s, evaluation_interval: %[2]s, external_labels: {%[4]s}}
rule_files: ["%[1]s"]
alerting: {alertmanagers: [{static_configs: [{targets: [%[3]s]}]}]}
scrape_configs:
`

// worldLabel is on the alerts of a Prometheus that sees one place alone.
const worldLabel = "world"

// promOptions are what a server is started with.
type promOptions struct {
	rules, interval string
	alertmanager    string // the address of one that is told; empty: none
	targets         string // a directory of files that name more daemons; empty: none
	world           string // the value of worldLabel; empty: no such label
}

// startPrometheus starts a server that scrapes these sites, each as a job of its own.
func startPrometheus(t *testing.T, rules string, sites ...*site) *prometheus {
	t.Helper()
	return startPrometheusWith(t, promOptions{rules: rules, interval: "15s"}, sites...)
}

func startPrometheusWith(t *testing.T, o promOptions, sites ...*site) *prometheus {
	t.Helper()
	dir := t.TempDir()
	alertmanager, labels := "", ""
	if o.alertmanager != "" {
		alertmanager = strconv.Quote(o.alertmanager)
	}
	if o.world != "" {
		labels = worldLabel + ": " + o.world
	}
	var config strings.Builder
	fmt.Fprintf(&config, promConfig, o.rules, o.interval, alertmanager, labels)
	for _, s := range sites {
		fmt.Fprintf(&config, "  - {job_name: %s, static_configs: [{targets: [\"%s\"]}]}\n", s.name, strings.Join(append([]string{s.listen}, s.others...), `", "`))
	}
	if o.targets != "" {
		fmt.Fprintf(&config, "  - {job_name: named-in-files, file_sd_configs: [{files: [\"%s/*.json\"], refresh_interval: 2s}]}\n", o.targets)
	}
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := freeAddress(t)
	startServer(t, dir, "http://"+listen+"/-/ready", exec.Command(tool(t, "prometheus"), "--config.file="+file,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+listen))
	return &prometheus{url: "http://" + listen, sites: sites}
}

// alerts returns what is pending or firing.
func (p *prometheus) alerts() ([]alert, error) {
	code, body := get(p.url + "/api/v1/alerts")
	if code != http.StatusOK {
		return nil, fmt.Errorf("/api/v1/alerts answered %d", code)
	}
	return parseAlerts([]byte(body))
}

// up is how many daemons were scraped.
func (p *prometheus) up() int { return p.count("rotatord_build_info") }

// count is how many series a query returns whose value is a number; 0 if there is no answer.
func (p *prometheus) count(expr string) int {
	_, body := get(p.url + "/api/v1/query?query=" + url.QueryEscape(expr))
	var answer struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"` // the time, and the value as a text
			} `json:"result"`
		} `json:"data"`
	}
	_ = json.Unmarshal([]byte(body), &answer) // no answer: none
	n := 0
	for _, series := range answer.Data.Result {
		if series.Value[1] != "NaN" {
			n++
		}
	}
	return n
}

// exprsOf returns the queries of a dashboard.
func exprsOf(t *testing.T, dashboard string) (exprs []string) {
	t.Helper()
	var content any
	if err := json.Unmarshal([]byte(dashboard), &content); err != nil {
		t.Fatal(err)
	}
	var walk func(any)
	walk = func(node any) {
		switch node := node.(type) {
		case map[string]any:
			if expr, ok := node["expr"].(string); ok {
				exprs = append(exprs, expr)
			}
			for _, child := range node {
				walk(child)
			}
		case []any:
			for _, child := range node {
				walk(child)
			}
		}
	}
	walk(content)
	return exprs
}

var client = http.Client{Timeout: 10 * time.Second}

// get returns the status and the body; 0 and nothing if there is no answer.
func get(url string) (int, string) {
	res, err := client.Get(url)
	if err != nil {
		return 0, ""
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return res.StatusCode, string(b)
}
