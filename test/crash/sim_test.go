package crash

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
)

// zoneID owns the service tokens that are replaced.
const zoneID = "00000000000000000000000000000123"

// subject creates the service tokens that an entry has at the start.
func (w *world) subject(e entry, name, round string) subject {
	s := subject{entry: e, name: name, path: "access/" + round + "/" + name}
	params := []cfsim.CreateParams{{Name: name}}
	switch {
	case e.kind.absent():
		params = nil
	case e.kind == pair:
		params = append(params, params[0])
	case e.kind.inZone():
		params[0].ZoneID = zoneID
	}
	for _, p := range params {
		t, _, err := w.sim.Create(p)
		if err != nil {
			w.t.Fatal(err)
		}
		s.ids = append(s.ids, t.ID)
	}
	return s
}

// account is the one in the configuration.
func (s subject) account() string {
	if s.kind.inZone() {
		return "edge"
	}
	return "prod"
}

// first is the operation that issues the first secret.
func (s subject) first() string {
	if s.kind.absent() || s.kind.inZone() {
		return cfsim.OpCreate
	}
	return cfsim.OpRotate
}

// owns reports whether a service token has the name of one that is created for the entry.
func (s subject) owns(name string) bool { return name == s.name || strings.HasPrefix(name, s.name+"-") }

// which is what the configuration says of the service token.
func (w *world) which(s subject) string {
	text := ""
	switch {
	case s.kind.absent():
		text = "create: {name: " + s.name + "}"
	case s.kind == pair:
		text = fmt.Sprintf("pair: [%s]", strings.Join(s.ids, ", "))
	default:
		text = "id: " + s.ids[0]
	}
	if s.kind.inZone() {
		text += ", strategy: replace"
	}
	if s.verifies {
		text += ", verify: {url: " + w.simURL + "/app/, within: 1s}"
	}
	return text + ", account: " + s.account()
}

// idsOf are all service tokens that there ever were of an entry.
func (w *world) idsOf(s subject) (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all = append(all, s.ids...)
	for _, r := range w.requests {
		if r.creates && s.owns(r.after.Name) {
			all = append(all, r.tokenID)
		}
	}
	return all
}

// deletion is a service token that was deleted by a request.
type deletion struct {
	at    time.Time
	token cfsim.Token
}

// serveSim is Cloudflare and an application, with a protocol of what matters.
func (w *world) serveSim(rw http.ResponseWriter, r *http.Request) {
	last := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	switch {
	case strings.HasPrefix(r.URL.Path, "/app/"):
		w.serveProbe(rw, r)
	case r.Method == http.MethodPost && last == "rotate":
		w.serveRotate(rw, r)
	case r.Method == http.MethodPost && last == "service_tokens":
		w.serveCreate(rw, r)
	case r.Method == http.MethodDelete:
		before, there := w.sim.Token(last)
		at := time.Now()
		defer func() {
			if _, still := w.sim.Token(last); there && !still {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.deletes = append(w.deletes, deletion{at, before})
			}
		}()
		w.sim.ServeHTTP(rw, r)
	default:
		w.sim.ServeHTTP(rw, r)
	}
}

// arrives is called when a request for a secret arrives.
func (w *world) arrives() {
	w.mu.Lock()
	hook := w.onRotate
	w.mu.Unlock()
	if hook != nil {
		hook()
	}
}

func (w *world) serveRotate(rw http.ResponseWriter, r *http.Request) {
	id := strings.TrimSuffix(r.URL.Path, "/rotate")
	id = id[strings.LastIndexByte(id, '/')+1:]
	w.arrives()
	req := request{at: time.Now(), tokenID: id}
	req.before, _ = w.sim.Token(id)
	wire := &recorder{ResponseWriter: rw}
	defer func() {
		req.after, _ = w.sim.Token(id)
		w.note(req, wire)
	}()
	w.sim.ServeHTTP(wire, r)
}

func (w *world) serveCreate(rw http.ResponseWriter, r *http.Request) {
	w.arrives()
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var params struct{ Name string }
	_ = json.Unmarshal(body, &params)
	before := map[string]bool{}
	for _, t := range w.sim.Tokens() {
		before[t.ID] = true
	}
	req := request{at: time.Now(), creates: true}
	wire := &recorder{ResponseWriter: rw}
	defer func() {
		for _, t := range w.sim.Tokens() {
			if !before[t.ID] && t.Name == params.Name {
				req.tokenID, req.after = t.ID, t
				w.note(req, wire)
				return // another of that name came later
			}
		}
	}()
	w.sim.ServeHTTP(wire, r)
}

// note adds a request to the protocol.
func (w *world) note(req request, wire *recorder) {
	if req.carriedOut() {
		issued := w.sim.Secrets(req.tokenID)[0]
		if !req.creates {
			issued = w.sim.Secrets(req.tokenID)[req.before.Rotations+1]
		}
		req.issued = issued.Digest
		req.answered = strings.Contains(wire.body.String(), issued.Value.Reveal())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, req)
}

// refusal of new secrets lasts that long from the first that is tried.
const refusalLasts = 1500 * time.Millisecond

// serveProbe is the application where the daemon tries new secrets.
func (w *world) serveProbe(rw http.ResponseWriter, r *http.Request) {
	refuses := false
	for _, s := range w.subjects {
		refuses = refuses || s.refused
	}
	w.mu.Lock()
	if refuses && w.refusing.IsZero() {
		w.refusing = time.Now().Add(refusalLasts)
	}
	refuses = time.Now().Before(w.refusing)
	w.mu.Unlock()
	if refuses {
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	wire := &recorder{ResponseWriter: rw}
	w.sim.ServeHTTP(wire, r)
	if wire.status == http.StatusOK {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.accepts[secret.New(r.Header.Get("CF-Access-Client-Secret")).Digest()] = true
	}
}

// recorder keeps what is written to a client.
type recorder struct {
	http.ResponseWriter
	body   bytes.Buffer
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.body.Write(b)
	return r.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
