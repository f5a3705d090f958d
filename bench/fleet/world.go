//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// world is one daemon's surroundings: a directory, the doubles, and a configuration.
type world struct {
	*other
	dir    string
	config string
	listen string
}

// newWorld creates one below a directory. close ends it.
func newWorld(parent string, s shape) (*world, error) {
	dir, err := os.MkdirTemp(parent, "fleet-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, config: filepath.Join(dir, "config.yaml")}
	if w.listen, err = freeAddress(); err == nil {
		w.other, err = startDoubles(s)
	}
	if err == nil {
		for name, content := range map[string]string{"role-id": roleID, "secret-id": secretID} {
			if err = os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				break
			}
		}
	}
	for account := range s.accounts {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, accountName(account)), []byte(accountToken(account)), 0o600)
		}
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) close() {
	if w.other != nil {
		w.stop()
	}
	_ = os.RemoveAll(w.dir)
}

// settings are what differs between configurations.
type settings struct {
	perToken  string // full if empty
	inventory string // 1h if empty
	limit     int    // requests_per_5m; 0 for the default
	grace     string // 24h if empty
	// every is when the tokens are due after the first start, and again after each rotation. at is when they are due in place of
	// that, to the minute, and then not for a year. If both are zero: once a week, and not within a day.
	every time.Duration
	at    time.Time
	first string // the jitter of the first token; 10m if empty
	// accounts and per say how many of the accounts, and of the tokens of each, are configured; 0 for all.
	accounts, per int
}

// configure writes the configuration.
func (w *world) configure(s settings) error {
	or := func(value, otherwise string) string {
		if value == "" {
			return otherwise
		}
		return value
	}
	var b strings.Builder
	fmt.Fprintf(&b, "listen: %s\nadmin_socket: %q\nstate: {dir: %q}\nmetrics: {per_token: %s}\n",
		w.listen, filepath.Join(w.dir, "admin.sock"), filepath.Join(w.dir, "state"), or(s.perToken, "full"))
	fmt.Fprintf(&b, "vault:\n  address: %s\n  auth: {approle: {role_id: {file: %q}, secret_id: {file: %q}}}\n",
		w.Vault, filepath.Join(w.dir, "role-id"), filepath.Join(w.dir, "secret-id"))
	accounts, per := s.accounts, s.per
	if accounts == 0 {
		accounts = w.shape.accounts
	}
	if per == 0 {
		per = w.shape.per
	}
	b.WriteString("accounts:\n")
	for account := range accounts {
		fmt.Fprintf(&b, "  %s: {account_id: %s, api_token: {file: %q}, base_url: %s, inventory_every: %s", accountName(account), accountID(account),
			filepath.Join(w.dir, accountName(account)), w.Cloudflare[account%len(w.Cloudflare)], or(s.inventory, "1h"))
		if s.limit > 0 {
			fmt.Fprintf(&b, ", requests_per_5m: %d", s.limit)
		}
		b.WriteString("}\n")
	}
	fmt.Fprintf(&b, "defaults: {grace: %s}\ntokens:\n", or(s.grace, "24h"))
	// The day of the week that is the farthest away, so that no slot comes while something is measured.
	day := (time.Now().UTC().Weekday() + 3) % 7
	for account := range accounts {
		for i := account * w.shape.per; i < account*w.shape.per+per; i++ {
			schedule, jitter := fmt.Sprintf("%d %d * * %d", i%60, i/60%24, day), "10m"
			switch {
			case i == 0 && s.first != "":
				jitter = s.first
			case !s.at.IsZero():
				schedule, jitter = s.at.UTC().Format("4 15 2 1 *"), "0s"
			case s.every > 0:
				schedule, jitter = "@every "+s.every.String(), "0s"
			}
			fmt.Fprintf(&b, "  %s:\n    account: %s\n    id: %s\n    schedule: %q\n    jitter: %s\n    sinks: [{vault: {mount: %s, path: %s}}]\n",
				tokenName(i), accountName(account), tokenID(i), schedule, jitter, mount, kvPath(i))
		}
	}
	return os.WriteFile(w.config, []byte(b.String()), 0o600)
}

// start starts a daemon in this world.
func (w *world) start(binary string, under ...string) (*daemon, error) {
	return start(binary, w.config, w.listen, under...)
}

// freeAddress returns a loopback address on which nothing listens. Its port is below those that the kernel gives to
// outgoing connections and to listeners on port 0: one of those could take it before the daemon does.
func freeAddress() (string, error) {
	var failed error
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
		failed = err
	}
	return "", failed
}
