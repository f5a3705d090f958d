package kubetest

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
)

// The kinds of requests that a [Fault] strikes.
const (
	Read   = "read"
	Write  = "write"  // an apply with data
	Probe  = "probe"  // a dry run
	Create = "create" // an apply of a Secret without data
)

// Fault is something that goes wrong with the next requests of a kind.
type Fault struct {
	Kind string
	// Count is how many requests it strikes; 0 means one.
	Count int
	// CarryOut carries the request out before it fails.
	CarryOut bool
	// Status is what is answered, with Header and Body; 0 breaks the connection.
	Status int
	Header http.Header
	Body   string
	// Back answers a read with the state before the last write.
	Back bool
	// Do, if set, runs before the request is carried out. Without Status the request itself then succeeds.
	Do func()
	// Done, if set, is called after the request was carried out.
	Done func()
}

// Front is a server before an API server, with faults. It counts what is written through it. It works before
// this package's server and before a real one. It is safe for concurrent use.
type Front struct {
	next http.Handler

	mu     sync.Mutex
	faults []*Fault
	writes int
	before map[string]recorder // the state before the last write, by path
}

// NewFront returns a server before an API server.
func NewFront(next http.Handler) *Front { return &Front{next: next, before: map[string]recorder{}} }

// Inject adds a fault, after those of the same kind that are waiting.
func (f *Front) Inject(fault Fault) {
	fault.Count = max(fault.Count, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault)
}

// ClearFaults removes all faults that have not struck yet.
func (f *Front) ClearFaults() { f.mu.Lock(); defer f.mu.Unlock(); f.faults = nil }

// Writes counts the applies with data that changed the Secret.
func (f *Front) Writes() int { f.mu.Lock(); defer f.mu.Unlock(); return f.writes }

func kindOf(r *http.Request, body []byte) string {
	switch query := r.URL.Query(); {
	case r.Method == http.MethodGet:
		return Read
	case query.Get("dryRun") != "":
		return Probe
	case r.Method == http.MethodPatch && bytes.Contains(body, []byte(`"data"`)):
		return Write
	}
	return Create
}

// ServeHTTP implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	kind := kindOf(r, body)
	fault := f.take(kind)
	if fault != nil && fault.Do != nil {
		fault.Do()
	}
	fails := fault != nil && fault.Do == nil && !fault.Back
	if fails && !fault.CarryOut {
		fault.strike(w)
		return
	}
	if fault != nil && fault.Back {
		f.mu.Lock()
		old := f.before[r.URL.Path]
		f.mu.Unlock()
		old.copyTo(w)
		return
	}
	var old recorder
	if kind == Write {
		old = f.carryOut(r, http.MethodGet, nil)
	}
	got := f.carryOut(r, r.Method, body)
	if kind == Write && got.status < 300 && !bytes.Equal(old.body.Bytes(), got.body.Bytes()) {
		f.mu.Lock()
		f.writes++
		f.before[r.URL.Path] = old
		f.mu.Unlock()
	}
	if fault != nil && fault.Done != nil {
		fault.Done()
	}
	if fails {
		fault.strike(w)
		return
	}
	got.copyTo(w)
}

func (f *Front) carryOut(r *http.Request, method string, body []byte) recorder {
	// Not the context of r: a client that has gone away does not stop a write.
	inner, err := http.NewRequest(method, r.URL.String(), bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	inner.Header, inner.Host = r.Header.Clone(), r.Host
	if method == http.MethodGet {
		inner.URL.RawQuery = ""
	}
	got := recorder{header: http.Header{}, status: http.StatusOK, body: new(bytes.Buffer)}
	f.next.ServeHTTP(&got, inner)
	return got
}

func (f *Front) take(kind string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, fault := range f.faults {
		if fault.Kind != kind {
			continue
		}
		if fault.Count--; fault.Count == 0 {
			f.faults = slices.Delete(f.faults, i, i+1)
		}
		return fault
	}
	return nil
}

func (f *Fault) strike(w http.ResponseWriter) {
	if f.Status == 0 {
		panic(http.ErrAbortHandler)
	}
	w.Header()["Content-Type"] = nil
	maps.Copy(w.Header(), f.Header)
	w.WriteHeader(f.Status)
	_, _ = io.WriteString(w, f.Body) // the client went away
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   *bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

func (r *recorder) copyTo(w http.ResponseWriter) {
	if r.body == nil {
		panic(http.ErrAbortHandler)
	}
	for name, values := range r.header {
		if name != "Content-Length" && name != "Date" {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body.Bytes()) // the client went away
}
