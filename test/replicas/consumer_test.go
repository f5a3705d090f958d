package replicas

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"rotatord/internal/moment"
	"rotatord/internal/secret"
	"rotatord/test/program"
)

// refusal is a look at what Vault held that the application refused.
type refusal struct {
	at      time.Time
	subject *subject
	held    secret.Digest
}

// version is one version of a secret in Vault.
type version struct {
	n        int
	at       time.Time
	clientID string
	secret   string
}

// consume presents what Vault holds to the application, until stop is called. Each of some workers looks at one token
// after the other, as fast as it may.
func (w *world) consume(workers int, pause time.Duration) (stop func()) {
	ended := make(chan struct{})
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() {
			for n := worker; ; n += workers {
				w.look(w.subjects[n%len(w.subjects)], n)
				select {
				case <-ended:
					return
				case <-time.After(pause):
				}
			}
		})
	}
	return func() { close(ended); all.Wait() }
}

func (w *world) look(s *subject, n int) {
	v, ok := w.read(s.path, n%vaults)
	if !ok {
		return // Vault cannot be read: a consumer continues with what it has
	}
	at := time.Now()
	accepted := program.Accepts(w.sim, v.clientID, v.secret)
	if !accepted { // it may have been replaced meanwhile, or the member did not know that it leads no more
		latest := v
		for m := range vaults {
			if other, ok := w.read(s.path, m); ok && other.n > latest.n {
				latest = other
			}
		}
		at = time.Now()
		v, accepted = latest, program.Accepts(w.sim, latest.clientID, latest.secret)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	if !accepted {
		w.refusals = append(w.refusals, refusal{at, s, digest(v.secret)})
	}
}

var consumers = &http.Client{Timeout: time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

// read reads a secret through one member.
func (w *world) read(path string, member int) (v version, ok bool) {
	request, err := http.NewRequest(http.MethodGet, w.cluster.Members[member].Address+"/v1/"+mount+"/data/"+path, nil)
	if err != nil {
		return v, false
	}
	request.Header.Set("X-Vault-Token", w.cluster.Members[0].RootToken)
	response, err := consumers.Do(request)
	if err != nil {
		return v, false
	}
	defer response.Body.Close()
	var answer struct {
		Data struct {
			Data     map[string]string `json:"data"`
			Metadata struct {
				Version int `json:"version"`
			} `json:"metadata"`
		} `json:"data"`
	}
	if response.StatusCode != http.StatusOK || json.NewDecoder(response.Body).Decode(&answer) != nil {
		return v, false
	}
	v = version{n: answer.Data.Metadata.Version, clientID: answer.Data.Data["client_id"], secret: answer.Data.Data["client_secret"]}
	return v, v.secret != ""
}

// history reads every version of a secret, the first one first.
func (w *world) history(path string) (all []version, err error) {
	root := w.cluster.Leader(w.t).Root(w.t).Logical()
	metadata, err := root.Read(mount + "/metadata/" + path)
	if err != nil || metadata == nil {
		return nil, fmt.Errorf("reading the history of %s: %v", path, err)
	}
	versions, _ := metadata.Data["versions"].(map[string]any)
	for n := 1; n <= len(versions); n++ {
		s, err := root.ReadWithData(mount+"/data/"+path, map[string][]string{"version": {fmt.Sprint(n)}})
		if err != nil || s == nil {
			return nil, fmt.Errorf("reading version %d of %s: %v", n, path, err)
		}
		info, _ := versions[fmt.Sprint(n)].(map[string]any)
		created, _ := info["created_time"].(string)
		at, err := time.Parse(time.RFC3339Nano, created)
		if err != nil {
			return nil, err
		}
		data, _ := s.Data["data"].(map[string]any)
		v := version{n: n, at: at}
		v.clientID, _ = data["client_id"].(string)
		v.secret, _ = data["client_secret"].(string)
		all = append(all, v)
	}
	return all, nil
}

// outages are the times in which the test itself could not write to Vault through any member: then nobody could deliver.
type outages struct {
	mu  sync.Mutex
	all [][2]time.Time
}

// watch writes all the time, until stop is called.
func (o *outages) watch(w *world) (stop func()) {
	ended := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		last := time.Now()
		for n := 0; ; n++ {
			if w.write("probe/vault", n%vaults) {
				if now := time.Now(); now.Sub(last) > time.Second {
					o.mu.Lock()
					o.all = append(o.all, [2]time.Time{last, now})
					o.mu.Unlock()
				}
				last = time.Now()
			}
			select {
			case <-ended:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	return func() { close(ended); running.Wait() }
}

// between returns for how long Vault could not be written in a time.
func (o *outages) between(from, to time.Time) (sum time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.all {
		if begin, end := moment.Max(a[0], from), moment.Min(a[1], to); end.After(begin) {
			sum += end.Sub(begin)
		}
	}
	return sum
}

// write writes something through one member, and reports whether Vault confirmed it.
func (w *world) write(path string, member int) bool {
	request, err := http.NewRequest(http.MethodPost, w.cluster.Members[member].Address+"/v1/"+mount+"/data/"+path, strings.NewReader(`{"data":{"a":"b"}}`))
	if err != nil {
		return false
	}
	request.Header.Set("X-Vault-Token", w.cluster.Members[0].RootToken)
	response, err := consumers.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}
