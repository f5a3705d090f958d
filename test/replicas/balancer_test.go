package replicas

import (
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"syscall"
	"time"

	"rotatord/internal/rotation"
	"rotatord/test/realvault"
)

// save is a record that a replica tried to write to the shared ledger.
type save struct {
	at      time.Time
	replica string
	token   string
	record  rotation.Record
	status  int // of Vault's answer; 0: none came
}

type intentKey struct{ replica, token string }

const (
	mount     = "secret"
	prefix    = "rotatord"
	tokensDir = "/v1/" + mount + "/data/" + prefix + "/tokens/"
)

// serveVault is Vault as one replica reaches it: a balancer that sends each request to any member to which a way is open,
// and remembers what is written to the ledger.
func (r *replica) serveVault(rw http.ResponseWriter, in *http.Request) {
	body, err := io.ReadAll(in.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.vaultRequests.Add(1)
	writes := in.Method == http.MethodPut || in.Method == http.MethodPost
	var written *save
	if name, ok := strings.CutPrefix(in.URL.Path, tokensDir); ok && writes {
		written = r.note(name, body)
	}
	ctx := in.Context()
	response, answer, l, err := r.forward(in, body)
	if err == nil && l.pass(ctx) != nil {
		err = errCut
	}
	if err == nil && written != nil {
		r.w.mu.Lock()
		written.status = response.StatusCode
		r.w.mu.Unlock()
	}
	if err != nil || writes && r.anyVault.loses() {
		panic(http.ErrAbortHandler)
	}
	if written != nil && written.record.Step == rotation.StepIntent {
		r.suspendIfArmed()
	}
	maps.Copy(rw.Header(), response.Header)
	rw.WriteHeader(response.StatusCode)
	_, _ = rw.Write(answer)
}

// note remembers a record that is written.
func (r *replica) note(name string, body []byte) *save {
	var sent struct {
		Data struct{ Record rotation.Record } `json:"data"`
	}
	if json.Unmarshal(body, &sent) != nil || sent.Data.Record.Token != name {
		return nil
	}
	s := &save{at: time.Now(), replica: r.name, token: name, record: sent.Data.Record}
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.saves = append(r.w.saves, s)
	if s.record.Step == rotation.StepIntent {
		r.w.intents[intentKey{r.name, name}] = *s
	}
	return s
}

// forward sends a request to one member after the other, until a connection is made, as a balancer does. It returns the
// way that was taken.
func (r *replica) forward(in *http.Request, body []byte) (*http.Response, []byte, *link, error) {
	if err := r.anyVault.pass(in.Context()); err != nil {
		return nil, nil, nil, err
	}
	for _, n := range rand.Perm(vaults) {
		l := &r.vaults[n]
		if m, _ := l.state(); m == refused {
			continue
		}
		if err := l.pass(in.Context()); err != nil {
			return nil, nil, nil, err
		}
		response, answer, sendErr := r.w.cluster.Members[n].Forward(transport, in, body)
		if sendErr == nil && response.StatusCode != http.StatusTemporaryRedirect { // a standby without a leader redirects to nobody
			return response, answer, l, nil
		}
		if sendErr != nil && !realvault.NotConnected(sendErr) {
			return nil, nil, nil, sendErr
		}
	}
	return nil, nil, nil, errCut
}

// transport does not send a write again: it has no GetBody.
var transport = &http.Transport{MaxIdleConnsPerHost: 64, ResponseHeaderTimeout: time.Minute}

// suspendIfArmed suspends the replica exactly when Vault has its intent, and it has not got the answer.
func (r *replica) suspendIfArmed() {
	r.mu.Lock()
	d := r.armed
	r.armed = 0
	p := r.process
	r.mu.Unlock()
	if d == 0 || p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	time.AfterFunc(d, func() { _ = p.cmd.Process.Signal(syscall.SIGCONT) })
}
