//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// This file is what could take the place of the daemon. Both rotate and store, and do nothing else: they seal nothing, read
// nothing back, keep no record, and look at no limit.

// rotateURL returns where a token is rotated.
func (w *world) rotateURL(token int) string {
	account := token / w.shape.per
	return fmt.Sprintf("%s/accounts/%s/access/service_tokens/%s/rotate", w.Cloudflare[account%len(w.Cloudflare)], accountID(account), tokenID(token))
}

// workers is how many rotations the loop has in progress: as many as the daemon has for one credential.
const workers = 16

// loop rotates the tokens of as many accounts as a burst has, of those that the daemon does not have. It returns how long
// that took.
func (b *bench) loop(ctx context.Context, w *world, due burst) (time.Duration, error) {
	tokens := make(chan int, due.tokens())
	for i := range due.per {
		for account := range due.accounts { // in turns
			tokens <- (due.accounts+account)*due.per + i
		}
	}
	close(tokens)
	began := time.Now()
	var group sync.WaitGroup
	faults := make(chan error, workers)
	for range workers {
		group.Go(func() {
			for token := range tokens {
				if err := w.rotateBarely(ctx, token); err != nil {
					faults <- err
					return
				}
			}
		})
	}
	group.Wait()
	took := time.Since(began)
	select {
	case err := <-faults:
		return 0, fmt.Errorf("the loop: %w", err)
	default:
	}
	if err := checkTruth(ctx, w, due.accounts, 2*due.accounts, due.tokens()); err != nil {
		return 0, fmt.Errorf("the loop: %w", err)
	}
	return took, nil
}

// rotateBarely rotates one token and stores its secret.
func (w *world) rotateBarely(ctx context.Context, token int) error {
	answer, err := ask(ctx, http.MethodPost, w.rotateURL(token), []byte("{}"), "Authorization", "Bearer "+accountToken(token/w.shape.per))
	if err != nil {
		return err
	}
	var rotated struct {
		Result struct {
			ClientID     string `json:"client_id"`
			ClientSecret string `json:"client_secret"`
		} `json:"result"`
	}
	if err := json.Unmarshal(answer, &rotated); err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"data": rotated.Result})
	if err != nil {
		return err
	}
	return send(ctx, http.MethodPost, w.Vault+"/v1/"+mount+"/data/"+kvPath(token), body, "X-Vault-Token", rootKey)
}

// shell is the script: its arguments are the two addresses of each token.
const shell = `set -eu
while read -r rotate store; do
  answer=$(curl -sS --fail -X POST -H "Authorization: Bearer $CF_TOKEN" --json '{}' "$rotate")
  id=$(printf %s "$answer" | sed 's/.*"client_id":"\([^"]*\)".*/\1/')
  secret=$(printf %s "$answer" | sed 's/.*"client_secret":"\([^"]*\)".*/\1/')
  curl -sS --fail -o /dev/null -H "X-Vault-Token: $VAULT_TOKEN" --json "{\"data\":{\"client_id\":\"$id\",\"client_secret\":\"$secret\"}}" "$store"
done
`

// script rotates as many tokens as one account of a burst has, one after the other, as a cron job would.
func (b *bench) script(ctx context.Context, w *world, due burst) (time.Duration, error) {
	path := filepath.Join(w.dir, "rotate.sh")
	if err := os.WriteFile(path, []byte(shell), 0o600); err != nil {
		return 0, err
	}
	account := 2 * due.accounts
	var lines strings.Builder
	for i := account * due.per; i < (account+1)*due.per; i++ {
		fmt.Fprintf(&lines, "%s %s/v1/%s/data/%s\n", w.rotateURL(i), w.Vault, mount, kvPath(i))
	}
	cmd := exec.CommandContext(ctx, "sh", path)
	cmd.Env = append(os.Environ(), "CF_TOKEN="+accountToken(account), "VAULT_TOKEN="+rootKey)
	cmd.Stdin = strings.NewReader(lines.String())
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("the script: %w\n%s", err, out)
	}
	took := time.Since(began)
	return took, checkTruth(ctx, w, account, account+1, due.per)
}
