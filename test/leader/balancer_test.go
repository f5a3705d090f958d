package leader

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"rotatord/internal/vault/vaulttest"
	"rotatord/test/realvault"
)

// What a request to Vault is for.
const (
	login    = "login"
	renewal  = "renewal"
	read     = "read"
	probe    = "probe"
	write    = "write"
	readBack = "read-back"
)

// balancer passes the daemon's requests on to members that run, and tells the test what it sees.
type balancer struct {
	members []*realvault.Vault
	sticky  *realvault.Vault // every request goes here
	// reach is called when a request is at a point, such as "write.arrives", and reports whether the answer is
	// to be lost.
	reach func(point string) (lost bool)
	// again repeats each write that Vault answered, without looking, as some proxies do: sabotage.
	again bool

	mu    sync.Mutex
	wrote bool
	down  map[*realvault.Vault]bool
	calls sync.WaitGroup
}

// purpose says what a request is for, and "" if for nothing of a delivery.
func (b *balancer) purpose(r *http.Request) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/login"):
		return login
	case strings.HasSuffix(r.URL.Path, "/renew-self"):
		return renewal
	case !strings.HasPrefix(r.URL.Path, "/v1/"+mount+"/data/"):
		return ""
	case r.Method == http.MethodGet && b.wrote:
		return readBack
	case r.Method == http.MethodGet:
		return read
	case vaulttest.IsProbe(r):
		return probe
	}
	b.wrote = true
	return write
}

// setDown takes a member out of the balancer, or back in, as a health check does.
func (b *balancer) setDown(v *realvault.Vault, down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down[v] = down
}

func (b *balancer) targets() (all []*realvault.Vault) {
	if b.sticky != nil {
		return []*realvault.Vault{b.sticky}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, v := range b.members {
		if !b.down[v] {
			all = append(all, v)
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	purpose := b.purpose(r)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	b.reach(purpose + ".arrives")
	if purpose == write {
		underWay := make(chan struct{})
		b.calls.Go(func() {
			close(underWay)
			b.reach("write.under way")
		})
		<-underWay
	}
	response, answer, err := b.forward(r, body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if b.again && purpose == write && response.StatusCode == http.StatusOK {
		b.repeat(r, body)
	}
	if b.reach(purpose + ".answered") {
		panic(http.ErrAbortHandler)
	}
	for name, values := range response.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(response.StatusCode)
	_, _ = w.Write(answer)
}

// repeat sends a write again as the next version. A leader that has just changed may refuse it for a moment: then nothing
// would be broken, and there would be nothing to find.
func (b *balancer) repeat(r *http.Request, body []byte) {
	body = checked.ReplaceAllFunc(body, func(cas []byte) []byte {
		n, _ := strconv.Atoi(string(cas[len(`"cas":`):]))
		return fmt.Appendf(nil, `"cas":%d`, n+1)
	})
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if response, _, err := b.forward(r, body); err == nil && response.StatusCode == http.StatusOK {
			return
		}
	}
}

var checked = regexp.MustCompile(`"cas":[0-9]+`)

// forward sends a request to one member after the other, until a connection is made.
func (b *balancer) forward(r *http.Request, body []byte) (*http.Response, []byte, error) {
	err := errors.New("no member is up")
	for _, v := range b.targets() {
		var response *http.Response
		var answer []byte
		if response, answer, err = v.Forward(transport, r, body); err == nil {
			return response, answer, nil
		}
		if !realvault.NotConnected(err) {
			break
		}
	}
	return nil, nil, err
}

// transport opens a connection for each request: one that is kept may belong to a server that was killed, and the
// standard library would send the request again.
var transport = &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: time.Minute}
