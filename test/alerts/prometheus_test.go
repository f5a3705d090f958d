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
	"strings"
	"testing"
	"time"

	"rotatord/test/program"
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

const promConfig = `global: {scrape_interval: 15s, evaluation_interval: 15s}
rule_files: ["%s"]
scrape_configs:
`

// startPrometheus starts a server that scrapes these sites, each as a job of its own.
func startPrometheus(t *testing.T, rules string, sites ...*site) *prometheus {
	t.Helper()
	dir := t.TempDir()
	var config strings.Builder
	fmt.Fprintf(&config, promConfig, rules)
	for _, s := range sites {
		fmt.Fprintf(&config, "  - {job_name: %s, static_configs: [{targets: [\"%s\"]}]}\n", s.name, s.listen)
	}
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := freeAddress(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool(t, "prometheus"), "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+listen)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the end of Prometheus's log:\n%s", program.Tail(string(b)))
		}
	})
	p := &prometheus{url: "http://" + listen, sites: sites}
	program.Eventually(t, 0, "a Prometheus that is ready", func() bool {
		code, _ := get(p.url + "/-/ready")
		return code == http.StatusOK
	})
	return p
}

// alerts returns what is pending or firing.
func (p *prometheus) alerts() ([]alert, error) {
	code, body := get(p.url + "/api/v1/alerts")
	if code != http.StatusOK {
		return nil, fmt.Errorf("/api/v1/alerts answered %d", code)
	}
	return parseAlerts([]byte(body))
}

// up is how many sites were scraped.
func (p *prometheus) up() int {
	_, body := get(p.url + "/api/v1/query?query=" + url.QueryEscape("rotatord_build_info"))
	var answer struct {
		Data struct {
			Result []json.RawMessage `json:"result"`
		} `json:"data"`
	}
	_ = json.Unmarshal([]byte(body), &answer) // no answer: none
	return len(answer.Data.Result)
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
