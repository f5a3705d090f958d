package drill

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
)

// appPath is the path of the application at which new secrets are tried.
const appPath = "/app/"

// edge is the part of Cloudflare in front of the application. It can be slow to accept new secrets, or down.
// It replaces every application that the configuration names.
type edge struct {
	stage   *stage
	headers []string // those that contain both client ID and client secret

	mu    sync.Mutex
	known map[secret.Digest]bool // secrets that it knows; nil: all of them
	delay time.Duration          // until it knows a new secret; 0: never
	down  bool
}

// newEdge makes the simulator read the first header of the configuration. The edge copies the others to
// that one, because the simulator reads only one.
func newEdge(st *stage) *edge {
	e := &edge{stage: st}
	for _, p := range st.sample.tokens {
		if p.verify != nil && p.verify.header != "" {
			e.headers = append(e.headers, p.verify.header)
		}
	}
	if len(e.headers) > 0 {
		b := st.sim.Behaviour()
		b.TokenHeader = cfsim.HeaderName(e.headers[0])
		st.sim.SetBehaviour(b)
	}
	return e
}

// ServeHTTP implements http.Handler.
func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	down := e.down
	e.mu.Unlock()
	if down {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	value := secret.New(r.Header.Get("CF-Access-Client-Secret"))
	id := r.Header.Get("CF-Access-Client-Id")
	for _, header := range e.headers {
		var both struct {
			ID     string `json:"cf-access-client-id"`
			Secret string `json:"cf-access-client-secret"`
		}
		if json.Unmarshal([]byte(r.Header.Get(header)), &both) != nil || both.Secret == "" {
			continue
		}
		id, value = both.ID, secret.New(both.Secret)
		if r.Header.Get(e.headers[0]) == "" {
			r.Header.Set(e.headers[0], r.Header.Get(header))
		}
	}
	if e.refuses(credential{id, value}) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	e.stage.sim.ServeHTTP(w, r)
}

// refuses reports whether the edge does not know a credential yet.
func (e *edge) refuses(c credential) bool {
	e.mu.Lock()
	known, delay := e.known, e.delay
	e.mu.Unlock()
	if known == nil || c.value.IsZero() || known[c.value.Digest()] {
		return false
	}
	for _, s := range e.stage.sim.Secrets(e.stage.tokenOf(c.id)) {
		if s.Value.Equal(c.value) {
			return delay == 0 || e.stage.sim.Now().Sub(s.IssuedAt) < delay
		}
	}
	return false
}

// slow makes the edge refuse new secrets for some time after they are issued. With 0 it refuses them until
// quick is called.
func (e *edge) slow(delay time.Duration) {
	known := map[secret.Digest]bool{}
	for _, t := range e.stage.sim.AllTokens() {
		for _, s := range e.stage.sim.Secrets(t.ID) {
			known[s.Digest] = true
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known, e.delay = known, delay
}

// quick makes the edge accept new secrets at once again.
func (e *edge) quick() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known = nil
}

// away sets whether the application is down.
func (e *edge) away(down bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = down
}
