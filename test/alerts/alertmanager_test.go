package alerts

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"rotatord/test/program"
)

// pager is what an Alertmanager notifies: the receiver at the end of the whole way.
type pager struct {
	mu    sync.Mutex
	calls []call
}

// call is one alert of one notification.
type call struct {
	at          time.Time
	Status      string            `json:"status"` // firing or resolved
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func (p *pager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var message struct {
		Alerts []call `json:"alerts"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAnswer)).Decode(&message); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range message.Alerts {
		c.at = time.Now()
		p.calls = append(p.calls, c)
	}
}

// all returns what was received so far.
func (p *pager) all() []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// Each alert is a group of its own, so that the figures are those of the alert.
const alertmanagerConfig = `route: {receiver: pager, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 4h}
receivers: [{name: pager, webhook_configs: [{url: "%s", send_resolved: true}]}]
`

// startAlertmanager starts an Alertmanager that notifies the pager, and returns its address.
func startAlertmanager(t *testing.T, p *pager) string {
	t.Helper()
	receiver := httptest.NewServer(p)
	t.Cleanup(receiver.Close)
	dir, listen := t.TempDir(), freeAddress(t)
	file := filepath.Join(dir, "alertmanager.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, alertmanagerConfig, receiver.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	startServer(t, dir, "http://"+listen+"/-/ready", exec.Command(tool(t, "prometheus-alertmanager"), "--config.file="+file,
		"--storage.path="+filepath.Join(dir, "data"), "--web.listen-address="+listen, "--cluster.listen-address="))
	return listen
}

// startServer starts a program, waits until it is ready, and shows the end of its log if the test fails.
func startServer(t *testing.T, dir, ready string, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the end of the log of %s:\n%s", filepath.Base(cmd.Path), program.Tail(string(b)))
		}
		_ = log.Close()
	})
	program.Eventually(t, 0, ready, func() bool {
		code, _ := get(ready)
		return code == http.StatusOK
	})
}
