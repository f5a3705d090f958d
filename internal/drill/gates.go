package drill

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/vault/vaulttest"
)

// This file holds what a disaster does between the daemon and a server.

// gate stands between the daemon and a server. A disaster can act on each request.
type gate struct {
	next http.Handler
	mu   sync.Mutex
	act  action
}

// action handles a request in place of the server, which is next.
type action func(w http.ResponseWriter, r *http.Request, next http.Handler)

// set has an action handle all requests from now on. With nil the server answers them again.
func (g *gate) set(act action) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.act = act
}

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	act := g.act
	g.mu.Unlock()
	if act == nil {
		g.next.ServeHTTP(w, r)
		return
	}
	act(w, r, g.next)
}

// tally waits until something has happened to every token of the sample. A second time for the same
// token, such as a retry or another sink, does not count.
type tally struct {
	mu      sync.Mutex
	missing []string
	all     chan struct{} // closed when none is missing
}

func newTally(s *sample) *tally {
	t := &tally{all: make(chan struct{})}
	for _, p := range s.tokens {
		t.missing = append(t.missing, p.name)
	}
	return t
}

// reached notes that it has happened to a token.
func (t *tally) reached(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.missing, token)
	if i < 0 {
		return
	}
	if t.missing = slices.Delete(t.missing, i, i+1); len(t.missing) == 0 {
		close(t.all)
	}
}

// killAtWrite returns a channel that is closed when the new secret of each token is sealed and could not
// be written. No write to Vault is answered. The probes that come before a rotation are. Other sinks are out of
// reach from the last rotate request on.
func killAtWrite(st *stage) <-chan struct{} {
	return killAt(st, vaulttest.IsProbe)
}

// killAt is killAtWrite that lets those writes of secrets through that pass.
func killAt(st *stage, passes func(*http.Request) bool) <-chan struct{} {
	tally := newTally(st.sample)
	if slices.ContainsFunc(st.sample.tokens, player.outsideVault) {
		hideSinksAtRotate(st)
		go st.watchKilledLog(tally)
	}
	st.atVault.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		token := st.writtenToken(r)
		if token == "" || passes(r) {
			next.ServeHTTP(w, r)
			return
		}
		tally.reached(token)
		<-r.Context().Done() // until the daemon is dead
	})
	return tally.all
}

// hideSinksAtRotate hides the directory of the sinks when a rotate request of each token has arrived.
func hideSinksAtRotate(st *stage) {
	asked := newTally(st.sample)
	var once sync.Once
	st.atCloudflare.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if token, issues := st.issuedToken(r); issues {
			asked.reached(token)
			select {
			case <-asked.all:
				once.Do(func() { _ = st.hideSinks(true) }) // if it fails, the daemon is not at the right step
			case <-r.Context().Done():
			}
		}
		next.ServeHTTP(w, r)
	})
}

// hideSinks moves the directory of the sinks away, or back if it is away. The API server fails as long.
func (st *stage) hideSinks(hide bool) error {
	st.atCluster.set(nil)
	if hide {
		st.atCluster.set(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusServiceUnavailable)
		})
	}
	from, to := filepath.Join(st.dir, sinkDir), filepath.Join(st.dir, "hidden-"+sinkDir)
	if !hide {
		from, to = to, from
	}
	if err := os.Rename(from, to); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// watchKilledLog counts the tokens whose new secret is sealed and could not be written, as the log of the
// daemon that will be killed says. It ends when there are no more such tokens, or when the stage is closed.
func (st *stage) watchKilledLog(t *tally) {
	for {
		text, _ := os.ReadFile(filepath.Join(st.dir, killedLog)) // it is not there before the daemon starts
		for line := range bytes.Lines(text) {
			var said struct{ Token, Step string }
			if json.Unmarshal(line, &said) == nil && said.Step == string(rotation.StepSealed) {
				t.reached(said.Token)
			}
		}
		select {
		case <-t.all:
			return
		case <-st.closed:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// killInFlight returns a channel that is closed when Cloudflare has issued a new secret for each
// token. None of these answers arrives.
func killInFlight(st *stage) <-chan struct{} {
	tally := newTally(st.sample)
	st.atCloudflare.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		token, issues := st.issuedToken(r)
		if !issues {
			next.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(discarded{http.Header{}}, r)
		tally.reached(token)
		<-r.Context().Done() // until the daemon is dead
	})
	return tally.all
}

// sealAtRotate seals Vault when a rotate request of each token has arrived. That is after the last
// preflight and before the first write.
func sealAtRotate(st *stage) error {
	tally := newTally(st.sample)
	st.atCloudflare.set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if token, issues := st.issuedToken(r); issues {
			tally.reached(token)
			select {
			case <-tally.all:
				st.vault.Seal(true)
			case <-r.Context().Done():
			}
		}
		next.ServeHTTP(w, r)
	})
	return nil
}

// writtenToken returns the name of the token whose sink a request writes to; empty if it is not a
// write of a secret.
func (st *stage) writtenToken(r *http.Request) string {
	if r.Method == http.MethodGet {
		return ""
	}
	for _, p := range st.sample.tokens {
		for _, s := range p.sinks {
			if v, ok := s.(*config.VaultSink); ok && r.URL.Path == "/v1/"+v.Mount+"/data/"+v.Path {
				return p.name
			}
		}
	}
	return ""
}

// issuedToken reports whether a request asks Cloudflare for a new secret, by a rotation or with a new
// service token, and for which token. It reads the body and puts it back.
func (st *stage) issuedToken(r *http.Request) (name string, issues bool) {
	if r.Method != http.MethodPost {
		return "", false
	}
	if id, rotates := strings.CutSuffix(r.URL.Path, "/rotate"); rotates {
		t, _ := st.sim.Token(path.Base(id))
		return st.named(t.Name), true
	}
	if !strings.HasSuffix(r.URL.Path, "/service_tokens") {
		return "", false
	}
	read, _ := io.ReadAll(r.Body) // the simulator meets the same error
	r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(read), r.Body))
	var body struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(read, &body) // a body without a name is for none of the tokens
	return st.named(body.Name), true
}

// discarded is an answer that does not arrive.
type discarded struct{ header http.Header }

func (d discarded) Header() http.Header         { return d.header }
func (d discarded) Write(b []byte) (int, error) { return len(b), nil }
func (d discarded) WriteHeader(int)             {}
