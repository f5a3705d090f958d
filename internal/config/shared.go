package config

import (
	"fmt"
	"os"
	"strings"
	"time"

	"rotatord/internal/config/raw"
)

// The limits of state.shared.claim.
const (
	defaultClaim  = 2 * time.Minute
	shortestClaim = 5 * time.Second
	longestClaim  = time.Hour
)

// Name returns the name of this replica: the one of the file, or else the name of the host in lower case. It is
// an error if the host has no usable name.
func (s *Shared) Name() (string, error) {
	if s.Replica != "" {
		return s.Replica, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("the name of this host, which is the replica's: %w: write state.shared.replica", err)
	}
	name := strings.ToLower(host)
	if !validName.MatchString(name) {
		return "", fmt.Errorf("the name of this host, %q, cannot be the replica's: write state.shared.replica", host)
	}
	return name, nil
}

// shared checks where the shared ledger is; nil if there is none.
func (c *checker) shared() *Shared {
	const path = "state.shared"
	if !c.has(path) || c.broken[path] {
		return nil
	}
	in := c.raw.State.Shared
	out := &Shared{Claim: time.Duration(or(in.Claim, raw.Duration(defaultClaim))), Replica: or(in.Replica, "")}
	if in.Vault.Mount != nil {
		out.Mount = c.segments(path+".vault.mount", *in.Vault.Mount)
		c.checkMount(path+".vault.mount", out.Mount)
	}
	if in.Vault.Prefix != nil {
		out.Prefix = c.segments(path+".vault.prefix", *in.Vault.Prefix)
		c.checkKVPath(path+".vault.prefix", &VaultSink{Mount: out.Mount, Path: out.Prefix})
	}
	if d := out.Claim; d < shortestClaim || d > longestClaim {
		c.wrong(path+".claim", "must be %s to %s: it is %s", short(shortestClaim), short(longestClaim), short(d))
	}
	if in.Replica != nil && !validName.MatchString(*in.Replica) {
		c.wrong(path+".replica", "is not a usable name: 1 to 63 of a-z, 0-9, dot, dash and underscore, with a letter or digit at both ends%s",
			prefixed(": such as ", usableName(*in.Replica)))
	}
	return out
}

// checkSharedPlaces refuses sinks that write to the place of the shared ledger.
func (c *checker) checkSharedPlaces() {
	shared := c.cfg.State.Shared
	if shared == nil || shared.Mount == "" || shared.Prefix == "" {
		return
	}
	place := shared.Mount + "/" + shared.Prefix
	for _, sink := range c.places {
		if at := sink.Place(); sink.Kind() == "vault" && (at == place || strings.HasPrefix(at, place+"/")) {
			c.wrong(sink.path, "writes to %q, and the shared ledger is below %q (state.shared, line %d): give the sink another path", at, place,
				c.values["state.shared"].line)
		}
	}
}
