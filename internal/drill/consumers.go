package drill

import (
	"net/http"
	"sync"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/secret"
)

// consumers call the application behind Access with the secrets in the sinks. Each token has two consumers:
// one reads its first sink before each call, and one uses the secret that was there when the disaster
// began.
type consumers struct {
	stage  *stage
	client *http.Client

	mu   sync.Mutex // held while one looks
	all  map[string]*consumer
	stop chan struct{}
	done chan struct{}
}

type consumer struct {
	sink config.Sink
	now  credential // as last read
	old  credential // as it was when the disaster began

	refusedSince time.Duration // since the disaster began; -1: it is not refused
	refused      time.Duration
	oldDied      time.Duration // -1: it works, or there was none
	seen         map[secret.Digest]bool
}

// credential is a client ID with a client secret.
type credential struct {
	id    string
	value secret.Value
}

// pause is the time between two calls.
const pause = 50 * time.Millisecond

func newConsumers(st *stage) *consumers {
	c := &consumers{stage: st, all: map[string]*consumer{}, client: &http.Client{
		Transport:     st.sim.RoundTripper(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, p := range st.sample.tokens {
		c.all[p.name] = &consumer{sink: p.sinks[0], refusedSince: -1, oldDied: -1, seen: map[secret.Digest]bool{}}
	}
	return c
}

// begin starts the calls: the disaster begins.
func (c *consumers) begin() {
	for _, one := range c.all {
		one.now = c.read(one)
		one.old = one.now
	}
	c.stop, c.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(c.done)
		ticker := time.NewTicker(pause)
		defer ticker.Stop()
		for {
			c.look()
			select {
			case <-c.stop:
				return
			case <-ticker.C:
			}
		}
	}()
}

func (c *consumers) end() {
	if c.stop != nil {
		close(c.stop)
		<-c.done
		c.stop = nil
	}
}

// read returns the credential in the sink. A consumer that cannot read it uses the one that it has.
func (c *consumers) read(one *consumer) credential {
	found := c.stage.read(one.sink)
	if found.ClientSecret.IsZero() {
		return one.now
	}
	one.seen[found.ClientSecret.Digest()] = true
	return credential{found.ClientID, found.ClientSecret}
}

// between calls do, and has all consumers call the application right before and right after it.
func (c *consumers) between(do func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop == nil {
		return do()
	}
	c.lookLocked()
	err := do()
	c.lookLocked()
	return err
}

// look makes one call for each consumer.
func (c *consumers) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lookLocked()
}

func (c *consumers) lookLocked() {
	for _, one := range c.all {
		if one.now = c.read(one); one.now.value.IsZero() { // there is none yet
			continue
		}
		accepted, at := c.call(one.now), c.stage.elapsed()
		switch {
		case !accepted && one.refusedSince < 0:
			one.refusedSince = c.died(one.now, at)
		case accepted && one.refusedSince >= 0:
			one.refused += at - one.refusedSince
			one.refusedSince = -1
		}
		if one.oldDied < 0 && !one.old.value.IsZero() && !c.call(one.old) {
			one.oldDied = c.died(one.old, at)
		}
	}
}

// uses returns the ID of the service token that consumers of p have now.
func (c *consumers) uses(p player) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stage.tokenOf(c.all[p.name].now.id)
}

// died returns when a credential that is refused now stopped working, counted from the beginning of the
// disaster. That can be in the middle of hours that were skipped.
func (c *consumers) died(with credential, now time.Duration) time.Duration {
	for _, s := range c.stage.sim.Secrets(c.stage.tokenOf(with.id)) {
		if s.Value.Equal(with.value) && s.Status == cfsim.StatusDead {
			return max(now-c.stage.sim.Now().Sub(s.ExpiresAt), 0)
		}
	}
	return now // not the secret but the service token stopped working
}

// call reports whether the application accepts a credential.
func (c *consumers) call(with credential) bool {
	if c.stage.edge.refuses(with) {
		return false
	}
	req, err := http.NewRequest(http.MethodGet, "http://simulator/app/", nil)
	if err != nil {
		return false
	}
	req.Header.Set("CF-Access-Client-Id", with.id)
	req.Header.Set("CF-Access-Client-Secret", with.value.Reveal())
	res, err := c.client.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// result is what a consumer saw until now.
type result struct {
	refused   time.Duration
	works     bool          // the credential that it has now
	oldDied   time.Duration // -1: it works, or there was none
	rotations int           // secrets that were issued, also those of new service tokens
	rotatedAt time.Duration // when the first of them was issued
	neverSeen int
	created   int  // service tokens
	left      int  // service tokens that exist at the end
	ends      bool // the one in use expires within renew_before
	inUse     bool // rotatord asked Cloudflare to delete one that a sink named
}

func (c *consumers) result(p player) result {
	c.look()
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.all[p.name]
	r := result{refused: one.refused, works: one.refusedSince < 0 && !one.now.value.IsZero(), oldDied: one.oldDied}
	if one.refusedSince >= 0 {
		r.refused += c.stage.elapsed() - one.refusedSince
	}
	c.stage.mu.Lock()
	r.inUse = c.stage.deleted[p.name]
	c.stage.mu.Unlock()
	for _, t := range c.stage.belongings(p) {
		before, old := c.stage.issued[t.ID]
		if !old {
			r.created++
		}
		if _, there := c.stage.sim.Token(t.ID); there {
			r.left++
			used := t.ClientID == one.now.id || p.paired()
			r.ends = r.ends || c.stage.sample.renews && used && t.ExpiresAt.Sub(c.stage.sim.Now()) < p.renewBefore
		}
		all := c.stage.sim.Secrets(t.ID)
		for _, s := range all[min(before, len(all)):] {
			at := c.stage.elapsed() - c.stage.sim.Now().Sub(s.IssuedAt)
			if r.rotations == 0 || at < r.rotatedAt {
				r.rotatedAt = at
			}
			r.rotations++
			if !one.seen[s.Digest] {
				r.neverSeen++
			}
		}
	}
	return r
}
