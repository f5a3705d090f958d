package app_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// inbox is a webhook that notes what it gets, as change and kind: "new in_doubt".
type inbox struct {
	code int

	mu   sync.Mutex
	got  []string
	from map[string]bool // replicas
}

func (w *world) inbox(name string) (*inbox, string) {
	i := &inbox{code: http.StatusOK, from: map[string]bool{}}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var m struct {
			Replica string
			News    []struct{ Change, Kind string }
		}
		if err := json.Unmarshal(body, &m); err != nil {
			w.t.Errorf("%s: %v", body, err)
		}
		w.search("a message", string(body))
		i.mu.Lock()
		defer i.mu.Unlock()
		rw.WriteHeader(i.code)
		if i.code == http.StatusOK {
			for _, n := range m.News {
				i.got = append(i.got, n.Change+" "+n.Kind)
			}
			i.from[m.Replica] = true
		}
	}))
	w.t.Cleanup(server.Close)
	return i, fmt.Sprintf("notify: [{name: %s, group: 1s, wait: 0s, on: [in_doubt, failing, recovered], webhook: {url: {file: %s}}}]", name, w.write("url-"+name, server.URL))
}

func (i *inbox) count(news string) (n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, got := range i.got {
		if got == news {
			n++
		}
	}
	return n
}

func (i *inbox) answers(code int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.code = code
}

// TestNotified: a receiver is told of a doubt and of its end. While it takes nothing, the check says so, and the metrics count it.
func TestNotified(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "30m")
	if err := w.sim.Inject(cfsim.Fault{Operation: "rotate", TokenID: ci.ID, Kind: cfsim.KindDrop, When: cfsim.After}); err != nil {
		t.Fatal(err)
	}
	in, section := w.inbox("night")
	in.answers(http.StatusBadGateway)
	d := w.start(w.config(section))
	w.eventually("it is in doubt", func() bool { return d.status("ci").State == status.InDoubt })
	w.eventually("the attempt failed", func() bool {
		n, _ := d.metric(`rotatord_notifications_total{receiver="night",result="failed"}`)
		return n > 0
	})
	if _, err := d.TestNotify(t.Context(), "night"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the check fails", func() bool {
		return slices.ContainsFunc(d.Checks(), func(c status.Check) bool {
			return c.Name == status.CheckNotify && c.Fails() && strings.Contains(c.Detail, "HTTP 502")
		})
	})
	d.wantMetric(`rotatord_notification_last_success_timestamp_seconds{receiver="night"}`, 0)
	in.answers(http.StatusOK)
	if tests, err := d.TestNotify(t.Context(), ""); err != nil || len(tests) != 1 || tests[0].Error != "" {
		t.Fatalf("%+v, %v", tests, err)
	}
	w.eventually("the doubt was told", func() bool { return in.count("new in_doubt") == 1 })
	if _, err := d.Resolve(t.Context(), "ci", rotation.ResolveRotateNow); err != nil {
		t.Fatal(err)
	}
	w.eventually("its end was told", func() bool { return in.count("recovered in_doubt") == 1 })
	d.wantMetric(`rotatord_notifications_total{receiver="night",result="delivered"}`, 2)
	if len(d.logged("a receiver of notifications has taken a message")) == 0 {
		t.Error("the log does not say that messages were taken")
	}
	if err := d.Reload(t.Context(), w.config()); err != nil {
		t.Fatal(err)
	}
	if _, there := d.metric(`rotatord_notifications_total{receiver="night",result="failed"}`); there {
		t.Error("the receiver was removed, and is still counted")
	}
	d.searchPages()
	d.stop()
}

// TestNotifyAuthorities: the check of a receiver fails while its ca_file cannot be used, before there is news, and not after.
func TestNotifyAuthorities(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("ci", "@every 720h", "30m")
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	ca := w.write("ca.pem", "hello")
	d := w.start(w.config(fmt.Sprintf("notify: [{name: night, webhook: {url: {file: %s}, ca_file: %s}}]", w.write("url", server.URL), ca)))
	state := func(fails bool, detail string) func() bool {
		return func() bool {
			return slices.ContainsFunc(d.Checks(), func(c status.Check) bool {
				return c.Name == status.CheckNotify && c.Fails() == fails && strings.Contains(c.Detail, detail)
			})
		}
	}
	if tests, err := d.TestNotify(t.Context(), "night"); err != nil || !strings.Contains(tests[0].Error, "webhook.ca_file: "+ca+" has no PEM certificate") {
		t.Errorf("%+v, %v", tests, err)
	}
	w.eventually("the check fails", state(true, "webhook.ca_file: "+ca+" has no PEM certificate"))
	w.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	if tests, err := d.TestNotify(t.Context(), "night"); err != nil || tests[0].Error != "" {
		t.Errorf("%+v, %v", tests, err)
	}
	w.eventually("the check is good again", state(false, ""))
	d.stop()
}

// TestReplicasNotify: of three replicas one tells of a token, and another one tells of the end after that one has left.
func TestReplicasNotify(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for the claim of a replica that has left")
	}
	w := newReplicas(t)
	ci := w.token("ci", "@every 720h", "30m")
	if err := w.sim.Inject(cfsim.Fault{Operation: "rotate", TokenID: ci.ID, Kind: cfsim.KindDrop, When: cfsim.After}); err != nil {
		t.Fatal(err)
	}
	in, section := w.inbox("night")
	all := map[string]*daemon{}
	for _, name := range []string{"a", "b", "c"} {
		all[name] = w.run(w.config(w.section(name), section))
	}
	defer func() {
		for _, d := range all {
			d.leave()
		}
	}()
	for _, d := range all {
		w.eventually("ready", d.ready)
	}
	if _, err := all["a"].Rotate(t.Context(), "ci", rotation.Overrides{}, "a test"); err == nil {
		t.Fatal("the answer was not lost")
	}
	w.eventually("the doubt was told", func() bool { return in.count("new in_doubt") > 0 })
	in.mu.Lock()
	told := ""
	for name := range in.from {
		told = name
	}
	in.mu.Unlock()
	all[told].leave()
	delete(all, told)
	for name, d := range all {
		w.eventually("the others go on", d.ready)
		_, err := d.Resolve(t.Context(), "ci", rotation.ResolveRotateNow)
		if err == nil {
			break
		}
		t.Logf("%s does not decide it: %v", name, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for name, d := range all {
				t.Logf("the log of %s:\n%s", name, d.log)
			}
			t.Logf("told: %q", in.got)
		}
	})
	w.eventually("its end was told", func() bool { return in.count("recovered in_doubt") > 0 })
	if n, m := in.count("new in_doubt"), in.count("recovered in_doubt"); n != 1 || m != 1 {
		t.Errorf("told %d times, and its end %d times: %q", n, m, in.got)
	}
}
