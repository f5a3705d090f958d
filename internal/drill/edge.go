package drill

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
)

// appPath is where the application is that new secrets are tried at.
const appPath = "/app/"

// edge is what stands before the application: it may be slow to accept new secrets, or away.
// It takes the place of every application that the configuration names.
type edge struct {
	stage   *stage
	headers []string // those that carry a whole credential

	mu    sync.Mutex
	known map[secret.Digest]bool // secrets that it accepts if Cloudflare does; nil: all of them
	delay time.Duration          // until it knows a new one; 0: never
	down  bool
}

// newEdge has the simulator take the first header that carries a credential. Others become
// that one, since it knows but one.
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

// slow has new secrets refused: for so long after they were issued, or with 0 until it is told
// otherwise.
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

// quick ends that.
func (e *edge) quick() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known = nil
}

// away says whether the application can be reached by whoever tries new secrets at it.
func (e *edge) away(down bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = down
}
