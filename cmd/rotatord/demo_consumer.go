package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
	"rotatord/internal/secret"
)

// demoConsumer is what a machine behind Access does: read the secret from Vault, and call
// the application with it.
type demoConsumer struct {
	tokens     []demoToken
	kv         *api.KVv2
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
	conf := api.DefaultConfig()
	if conf.Error != nil {
		return nil, conf.Error
	}
	conf.Address = d.vaultAddr
	client, err := api.NewClient(conf)
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(filepath.Join(d.dir, "vault-token"))
	if err != nil {
		return nil, err
	}
	client.SetToken(string(token))
	base := c.Accounts["simulated"].BaseURL
	return &demoConsumer{
		tokens: d.tokens, kv: client.KVv2(demoMount), seen: map[string]consumed{},
		appAddress: base[:len(base)-len("/client/v4")] + "/app/",
	}, nil
}

func (c *demoConsumer) run(ctx context.Context) {
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
	stored, err := c.kv.Get(ctx, "rotatord-demo/"+t.Name)
	if err != nil {
		return // not written yet, or Vault is away: there is nothing to present
	}
	id, _ := stored.Data["client_id"].(string)
	value, _ := stored.Data["client_secret"].(string)
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
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// view returns what was seen of a token so far.
func (c *demoConsumer) view(token string) consumed {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[token]
}

// verdict says what the application answered.
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
