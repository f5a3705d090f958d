package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// pause is how long a client waits between two calls of the application.
const pause = 200 * time.Millisecond

// credential is what a client has read from Vault.
type credential struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
}

// tally is what the clients saw.
type tally struct {
	calls   int
	refused int
	// stranded counts refused calls that would also have been refused if the client had read Vault
	// again at that moment.
	stranded int
	longest  time.Duration // for which one client was refused, up to its next success
	broken   error         // a call that was neither accepted nor refused
}

func (a *tally) add(b tally) {
	a.calls += b.calls
	a.refused += b.refused
	a.stranded += b.stranded
	a.longest = max(a.longest, b.longest)
	if a.broken == nil {
		a.broken = b.broken
	}
}

// client is one of many programs behind a credential. It reads Vault at fixed intervals, not when
// it is refused, and calls the application all the time with what it read last.
type client struct {
	http        *http.Client
	application string
	stored      string // the URL of the secret in Vault
	vaultToken  string
	reread      time.Duration
	first       time.Duration // until it first reads, so that the clients are spread
	late        time.Duration // since it has tried to read: more is not the fault of who rotates
}

// clients lets the fleet run until stop is called.
func (w *world) clients(t *testing.T) (stop func() tally) {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: fleetSize}
	t.Cleanup(transport.CloseIdleConnections)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	var (
		all   sync.WaitGroup
		mu    sync.Mutex
		total tally
	)
	for i := range fleetSize {
		name := w.names[i%len(w.names)]
		c := client{
			http:        &http.Client{Transport: transport, Timeout: 10 * time.Second},
			application: w.application(name), stored: w.vault.Address + "/v1/" + mount + "/data/" + path(name),
			vaultToken: w.vault.RootToken, reread: w.pace.reread,
			first: w.pace.reread * time.Duration(i) / fleetSize, late: w.pace.grace * 3 / 4,
		}
		all.Go(func() {
			seen := c.run(ctx)
			mu.Lock()
			defer mu.Unlock()
			total.add(seen)
		})
	}
	return func() tally {
		cancel()
		all.Wait()
		return total
	}
}

func (c *client) run(ctx context.Context) (seen tally) {
	asked := time.Now() // before Vault was read last
	has, err := c.read()
	if err != nil {
		return tally{broken: fmt.Errorf("the first read of Vault: %w", err)}
	}
	next := time.Now().Add(c.first)
	var since time.Time // of the first refusal in a row
	for ; ctx.Err() == nil; sleep(ctx, pause) {
		if !time.Now().Before(next) {
			next, asked = next.Add(c.reread), time.Now()
			if now, err := c.read(); err == nil {
				has = now // and else, as programs do, it continues with what it has
			}
		}
		began := time.Now()
		status, err := c.call(has)
		switch {
		case err == nil && status == http.StatusOK:
			seen.calls++
			if !since.IsZero() {
				seen.longest = max(seen.longest, began.Sub(since))
			}
			since = time.Time{}
			continue
		case err == nil && (status == http.StatusUnauthorized || status == http.StatusForbidden):
			if time.Since(asked) > c.late {
				continue // it could not read when it wanted to: the machine stood still
			}
			seen.calls++
			seen.refused++
		default:
			seen.broken = fmt.Errorf("the application answered %d, %v", status, err)
			return seen
		}
		if since.IsZero() {
			since = began
		}
		seen.longest = max(seen.longest, time.Since(since))
		// What would a client see that reads again when it is refused? This client continues with
		// what it has.
		if fresh, err := c.read(); err != nil {
			seen.stranded++
		} else if status, err := c.call(fresh); err != nil || status != http.StatusOK {
			seen.stranded++
		}
	}
	return seen
}

var errNoCredential = errors.New("no credential in Vault")

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// read returns what Vault holds.
func (c *client) read() (credential, error) {
	req, err := http.NewRequest(http.MethodGet, c.stored, nil)
	if err != nil {
		return credential{}, err
	}
	req.Header.Set("X-Vault-Token", c.vaultToken)
	res, err := c.http.Do(req)
	if err != nil {
		return credential{}, err
	}
	defer res.Body.Close()
	var answer struct {
		Data struct {
			Data credential `json:"data"`
		} `json:"data"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return credential{}, err
	}
	if answer.Data.Data.Secret == "" {
		return credential{}, fmt.Errorf("%w: status %d", errNoCredential, res.StatusCode)
	}
	return answer.Data.Data, nil
}

// call presents a credential to the application.
func (c *client) call(with credential) (status int, err error) {
	req, err := http.NewRequest(http.MethodGet, c.application, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("CF-Access-Client-Id", with.ID)
	req.Header.Set("CF-Access-Client-Secret", with.Secret)
	res, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, res.Body) // so that the connection is used again
	return res.StatusCode, res.Body.Close()
}
