package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/secret"
	"rotatord/internal/vault"
)

// demoConsumer does what a machine does that uses a service token: it reads the secret from Vault and
// calls the application with it.
type demoConsumer struct {
	tokens     []demoToken
	vault      *vault.Session
	app        *http.Client
	appAddress string

	mu   sync.Mutex
	seen map[string]consumed
}

// consumed is what the consumer of one token has seen.
type consumed struct {
	Digest            secret.Digest
	Accepted, Refused int
	LastStatus        int
	LastErr           error
}

func newDemoConsumer(d *demo, c *config.Config) (*demoConsumer, error) {
	session, err := vault.New(*c.Vault, nil, nil)
	if err != nil {
		return nil, err
	}
	base := c.Accounts["simulated"].BaseURL
	return &demoConsumer{
		tokens: d.tokens, vault: session, seen: map[string]consumed{},
		// A redirect would send the credential to another server.
		app:        &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		appAddress: base[:len(base)-len("/client/v4")] + "/app/",
	}, nil
}

func (c *demoConsumer) run(ctx context.Context) {
	var session sync.WaitGroup
	session.Go(func() { c.vault.Run(ctx) })
	defer session.Wait()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		for _, t := range c.tokens {
			c.consume(ctx, t)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *demoConsumer) consume(ctx context.Context, t demoToken) {
	stored, err := c.vault.Read(ctx, demoMount+"/data/rotatord-demo/"+t.Name)
	if err != nil || stored == nil {
		return // not written yet, or Vault is not available
	}
	fields, _ := stored.Data["data"].(map[string]any)
	id, _ := fields["client_id"].(string)
	value, _ := fields["client_secret"].(string)
	if value == "" {
		return
	}
	status, err := c.call(ctx, t.ID, id, value)
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seen[t.Name]
	s.Digest, s.LastStatus, s.LastErr = secret.New(value).Digest(), status, err
	if status == http.StatusOK {
		s.Accepted++
	} else {
		s.Refused++
	}
	c.seen[t.Name] = s
}

func (c *demoConsumer) call(ctx context.Context, tokenID, clientID, clientSecret string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.appAddress+tokenID, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("CF-Access-Client-Id", clientID)
	req.Header.Set("CF-Access-Client-Secret", clientSecret)
	res, err := c.app.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// view returns what the consumer of a token has seen.
func (c *demoConsumer) view(token string) consumed {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[token]
}

// verdict returns what the application answered.
func (s consumed) verdict() string {
	switch {
	case s.LastErr != nil:
		return s.LastErr.Error()
	case s.Accepted+s.Refused == 0:
		return "nothing stored yet"
	case s.Refused > 0:
		return fmt.Sprintf("%d accepted, %d REFUSED", s.Accepted, s.Refused)
	default:
		return fmt.Sprintf("%d accepted, 0 refused", s.Accepted)
	}
}
