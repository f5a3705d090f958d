package fleet

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/vault/vaulttest"
)

// How long the two services take. Cloudflare's API answers in some hundred milliseconds, so
// that a process which is killed at random is at times killed while it waits.
const (
	beforeRotate = 50 * time.Millisecond
	afterRotate  = 150 * time.Millisecond
	beforeWrite  = 20 * time.Millisecond
)

// ordinals counts events by credential and knows which of them are struck by a fault.
type ordinals struct {
	mu     sync.Mutex
	seen   map[int]int
	struck int
}

// strikes counts one event of a credential and says whether the fault hits it.
func (o *ordinals) strikes(at map[int]int, credential int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == nil {
		o.seen = map[int]int{}
	}
	o.seen[credential]++
	if at[credential] != o.seen[credential] {
		return false
	}
	o.struck++
	return true
}

func (o *ordinals) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.struck
}

// cloudflare serves the simulator and lets each rotate request take its time. The chosen ones
// are carried out, and then the scenario's fault happens to the answer.
func (w *world) cloudflare(t *testing.T) string {
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		id, ok := strings.CutSuffix(r.URL.Path, "/rotate")
		id = id[strings.LastIndexByte(id, '/')+1:]
		credential, known := w.byTokenID[id]
		if !ok || !known {
			w.sim.ServeHTTP(rw, r)
			return
		}
		if w.outages != nil {
			w.outages.rotate(t, rw, r, id, credential)
			return
		}
		time.Sleep(beforeRotate)
		fault := cfsim.Fault{Kind: cfsim.KindDelay}
		if w.scenario.answer != "" || w.scenario.killed == unsealed {
			if w.rotates.strikes(w.scenario.strike, credential) {
				if w.scenario.killed == unsealed {
					// Nothing of the answer is on its way before this handler returns.
					defer w.contestant.answered(credential)
				} else {
					fault.Kind, fault.Status = w.scenario.answer, w.scenario.status
				}
			}
		}
		fault.Operation, fault.TokenID = cfsim.OpRotate, id
		fault.When, fault.Delay = cfsim.After, cfsim.Duration(afterRotate)
		if err := w.sim.Inject(fault); err != nil {
			t.Error(err)
		}
		w.sim.ServeHTTP(rw, r)
	})
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// vaultProxy is between a contestant and Vault, and lets the scenario's fault happen to
// the chosen writes. Clients read from Vault itself.
func (w *world) vaultProxy(t *testing.T) string {
	target, err := url.Parse(w.vault.Address)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		// To a Vault that is away there is no connection, rather than a 502.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		path, data := strings.CutPrefix(r.URL.Path, "/v1/"+mount+"/data/")
		if data && w.outages != nil && w.outages.isAway(w.byPath[path]) {
			http.Error(rw, `{"errors":["internal error"]}`, http.StatusInternalServerError)
			return
		}
		write := data && (r.Method == http.MethodPut || r.Method == http.MethodPost) && !vaulttest.IsProbe(r)
		if !write {
			proxy.ServeHTTP(rw, r)
			return
		}
		time.Sleep(beforeWrite)
		switch struck := w.scenario.write != nothing && w.writes.strikes(w.scenario.strike, w.byPath[path]); {
		case !struck:
		case w.scenario.write == refused:
			http.Error(rw, `{"errors":["internal error"]}`, http.StatusInternalServerError)
			return
		default:
			done := make(chan struct{})
			select {
			case w.takeAway <- done:
				<-done
			case <-r.Context().Done():
			}
		}
		if w.contestant.interruptsWrite(w.byPath[path]) {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// outage takes Vault away, lets the write that waits for it continue, and brings it back. Only
// the goroutine of the test may do that.
func (w *world) outage(t *testing.T, waiting chan struct{}) {
	t.Helper()
	if w.scenario.write == vaultSealed {
		w.vault.Seal(t)
		close(waiting)
		time.Sleep(w.scenario.away)
		w.vault.Unseal(t)
		return
	}
	w.vault.Kill()
	close(waiting)
	time.Sleep(w.scenario.away)
	w.vault.Resume(t)
}
