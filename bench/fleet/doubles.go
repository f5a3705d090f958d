//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
	"rotatord/internal/vault/vaulttest"
)

// This file is the other process: a Cloudflare and a Vault, and what they have seen.

// What both sides know.
const (
	mount    = "secret"
	roleID   = "fleet-role"
	secretID = "fleet-secret-id"
	rootKey  = "fleet-root" // the Vault token of the loop and the script
)

func accountName(account int) string  { return fmt.Sprintf("account-%03d", account) }
func accountID(account int) string    { return fmt.Sprintf("%032x", account+1) }
func accountToken(account int) string { return fmt.Sprintf("cfat_fleet%03d", account) }

// kvPath returns the place of a token's secret below the mount.
func kvPath(token int) string    { return "fleet/" + tokenName(token) }
func tokenName(token int) string { return fmt.Sprintf("token-%06d", token) }
func tokenID(token int) string   { return cfsim.SeedTokenID(token + 1) }

// shape says which tokens there are: tokens 0 to per-1 belong to account 0, and so on.
type shape struct {
	accounts, per int
	limit         int // requests in five minutes for each account
	hosts         int // addresses at which Cloudflare answers; a client limits itself for each of them
}

func (s shape) tokens() int { return s.accounts * s.per }

// addresses are where the doubles answer.
type addresses struct {
	Cloudflare []string // base URLs
	Vault      string
	Control    string
}

// seen is what the doubles have seen since they were last reset. Times are Unix times in nanoseconds, 0 for never.
type seen struct {
	Cloudflare int // requests to the API
	Listed     int // pages of service tokens
	Rotated    int // rotations that were answered
	Refused    int // requests answered with 429
	InFlight   int // rotate requests whose answer was not sent yet
	Vault      int // requests to Vault
	Written    int // secrets that were written
	Confirmed  int // of those, the ones that were read afterwards

	FirstRotate, LastWrite, LastConfirm int64
}

// doubles is the handler of both, which counts.
type doubles struct {
	shape    shape
	sim      *cfsim.Simulator
	kv       *vaulttest.Server
	inFlight atomic.Int64

	mu      sync.Mutex
	seen    seen
	written map[string]bool // by path: was written, and not read since
}

// status notes the status of an answer.
type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (d *doubles) serveCloudflare(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/_sim/") {
		d.sim.ServeHTTP(w, r)
		return
	}
	rotate := strings.HasSuffix(r.URL.Path, "/rotate")
	if rotate {
		d.inFlight.Add(1)
		defer d.inFlight.Add(-1)
		d.mu.Lock()
		if d.seen.FirstRotate == 0 {
			d.seen.FirstRotate = time.Now().UnixNano()
		}
		d.mu.Unlock()
	}
	answer := &status{w, http.StatusOK}
	d.sim.ServeHTTP(answer, r)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen.Cloudflare++
	switch {
	case answer.code == http.StatusTooManyRequests:
		d.seen.Refused++
	case rotate && answer.code == http.StatusOK:
		d.seen.Rotated++
	case strings.HasSuffix(r.URL.Path, "/service_tokens") && r.Method == http.MethodGet:
		d.seen.Listed++
	}
}

func (d *doubles) serveVault(w http.ResponseWriter, r *http.Request) {
	answer := &status{w, http.StatusOK}
	d.kv.ServeHTTP(answer, r)
	now := time.Now().UnixNano()
	path, data := strings.CutPrefix(r.URL.Path, "/v1/"+mount+"/data/")
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen.Vault++
	if !data || answer.code != http.StatusOK {
		return
	}
	switch r.Method {
	case http.MethodPut, http.MethodPost:
		d.seen.Written++
		d.seen.LastWrite = now
		d.written[path] = true
	case http.MethodGet:
		if d.written[path] {
			d.written[path] = false
			d.seen.Confirmed++
			d.seen.LastConfirm = now
		}
	}
}

// truth is what really happened to the tokens of an account.
type truth struct {
	Rotations int // in all, whoever has asked for them
	Once      int // tokens that were rotated exactly once
	Working   int // tokens whose secret in Vault is the current one
}

func (d *doubles) truth(account int) (found truth) {
	rotations := d.sim.Stats().Rotations
	for i := account * d.shape.per; i < (account+1)*d.shape.per; i++ {
		n := rotations[tokenID(i)]
		found.Rotations += n
		if n == 1 {
			found.Once++
		}
		token, _ := d.sim.Token(tokenID(i))
		stored, _ := d.kv.Read(mount, kvPath(i))["client_secret"].(string)
		if stored != "" && secret.New(stored).Digest() == token.CurrentDigest {
			found.Working++
		}
	}
	return found
}

func (d *doubles) serveControl(w http.ResponseWriter, r *http.Request) {
	var answer any
	switch r.URL.Path {
	case "/seen":
		d.mu.Lock()
		s := d.seen
		d.mu.Unlock()
		s.InFlight = int(d.inFlight.Load())
		answer = s
	case "/reset":
		d.mu.Lock()
		d.seen = seen{}
		clear(d.written)
		d.mu.Unlock()
	case "/truth":
		var account int
		if _, err := fmt.Sscan(r.URL.Query().Get("account"), &account); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer = d.truth(account)
	default:
		http.NotFound(w, r)
		return
	}
	_ = json.NewEncoder(w).Encode(answer) // the client went away
}

// runDoubles is the process: it serves until its standard input ends, which happens when its parent ends in whatever way.
// Its first line on standard output is the addresses, as JSON.
func runDoubles(args []string) error {
	var s shape
	flags := flag.NewFlagSet("doubles", flag.ContinueOnError)
	flags.IntVar(&s.accounts, "accounts", 1, "accounts")
	flags.IntVar(&s.per, "per", 1, "tokens of each account")
	flags.IntVar(&s.limit, "limit", cfsim.DefaultRateLimit, "requests in five minutes for each account; negative: no limit")
	flags.IntVar(&s.hosts, "hosts", 1, "addresses of Cloudflare")
	if err := flags.Parse(args); err != nil {
		return err
	}
	d := &doubles{
		shape: s, written: make(map[string]bool),
		sim: cfsim.New(cfsim.Options{RateLimit: s.limit}),
		kv: vaulttest.New(vaulttest.Options{RootToken: rootKey, Mounts: []vaulttest.Mount{{Path: mount, Version: 2}},
			AppRole: &vaulttest.AppRole{RoleID: roleID, SecretID: secretID, TTL: 24 * time.Hour}}),
	}
	d.kv.SetPolicy(vaulttest.ShippedPolicy(mount))
	for i := range s.tokens() {
		d.kv.Write(mount, kvPath(i), map[string]any{"client_id": "before", "client_secret": "before"})
		if _, _, err := d.sim.Create(cfsim.CreateParams{ID: tokenID(i), Name: tokenName(i), AccountID: accountID(i / s.per)}); err != nil {
			return err
		}
	}
	var at addresses
	listeners, err := listenAtHosts(s.hosts)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		at.Cloudflare = append(at.Cloudflare, "http://"+l.Addr().String()+cfsim.BasePath)
		go func() { _ = http.Serve(l, http.HandlerFunc(d.serveCloudflare)) }()
	}
	for _, side := range []struct {
		at    *string
		serve http.HandlerFunc
	}{{&at.Vault, d.serveVault}, {&at.Control, d.serveControl}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*side.at = "http://" + l.Addr().String()
		go func() { _ = http.Serve(l, side.serve) }()
	}
	if err := json.NewEncoder(os.Stdout).Encode(at); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// listenAtHosts listens on one port at 127.0.0.1, 127.0.0.2 and so on.
func listenAtHosts(n int) ([]net.Listener, error) {
	var failed error
	for range 20 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		all := []net.Listener{first}
		port := first.Addr().(*net.TCPAddr).Port
		for i := 2; i <= n; i++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:%d", i, port))
			if err != nil {
				failed = err
				break
			}
			all = append(all, l)
		}
		if len(all) == n {
			return all, nil
		}
		for _, l := range all {
			_ = l.Close()
		}
	}
	return nil, errors.Join(errors.New("no port is free at all of 127.0.0.1 and the addresses after it"), failed)
}
