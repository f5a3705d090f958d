package config

import (
	"fmt"
	"os"
	"strings"
	"time"
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
	if !ValidName(name) {
		return "", fmt.Errorf("the name of this host, %q, cannot be the replica's: write state.shared.replica", host)
	}
	return name, nil
}

// shared checks where the shared ledger is; nil if there is none.
func (c *checker) shared() *Shared {
	const path = "state.shared"
	if !c.has(path) || c.isBroken(path) {
		return nil
	}
	in := c.raw.State.Shared
	out := &Shared{Claim: c.between(path+".claim", in.Claim, defaultClaim, shortestClaim, longestClaim), Replica: or(in.Replica, "")}
	if in.Vault.Mount != nil {
		out.Mount = c.segments(path+".vault.mount", *in.Vault.Mount)
		c.checkMount(path+".vault.mount", out.Mount)
	}
	if in.Vault.Prefix != nil {
		out.Prefix = c.segments(path+".vault.prefix", *in.Vault.Prefix)
		c.checkKVPath(path+".vault.prefix", &VaultSink{Mount: out.Mount, Path: out.Prefix})
	}
	if in.Replica != nil && !ValidName(*in.Replica) {
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
	for _, writer := range c.places {
		if at := writer.sink.Place(); writer.sink.Kind() == "vault" && (at == place || strings.HasPrefix(at, place+"/")) {
			c.wrongAt(writer.spot, "writes to %q, and the shared ledger is below %q (state.shared, line %d): give the sink another path", at, place,
				c.value("state.shared").line)
		}
	}
}

// requestsInClaim is how many requests to Vault must fit into a claim, each as slow as vault.timeout allows: the
// claim itself, the preflight, the intent, and what is left of a tenth before the request leaves.
const requestsInClaim = 4

// checkSharedUse warns of what does not fit several replicas.
func (c *checker) checkSharedUse() {
	const path = "state.shared"
	shared := c.cfg.State.Shared
	if shared == nil {
		return
	}
	if c.cfg.State.Identity.IsZero() && len(c.cfg.State.Recipients) == 0 {
		c.warn(path, "has neither state.identity nor state.recipients beside it, so each replica seals secrets to itself alone, and no other can deliver "+
			"the secrets of one that is lost: give all replicas one identity, or each the public keys of the others as recipients")
	}
	if v := c.cfg.Vault; v != nil && v.Timeout > 0 && shared.Claim < requestsInClaim*v.Timeout {
		at := path + ".claim"
		if !c.has(at) {
			at = path
		}
		c.warn(at, "a claim of %s has room for fewer than %d requests to Vault of %s (vault.timeout): while Vault is slow, rotations end before their request leaves. "+
			"Write a vault.timeout of at most %s, or a longer claim", short(shared.Claim), requestsInClaim, short(v.Timeout), short(shared.Claim/requestsInClaim))
	}
	c.checkSharedFiles()
}

// fileSinks are the sinks that are files.
type fileSinks struct {
	count int
	token string // the first name of a token that has one
	first spot   // its first one
}

// noteFile counts a sink of the entry that is read.
func (c *checker) noteFile(here spot) {
	here.path = strings.TrimSuffix(here.path, "."+fileKind)
	here.at = c.value(here.path)
	c.files.count++
	if c.files.first.path == "" || c.entry < c.files.token {
		c.files.first, c.files.token = here, c.entry
	}
}

// checkSharedFiles warns of sinks that are files: each replica writes those of its own machine.
func (c *checker) checkSharedFiles() {
	if count := c.files.count; count > 0 {
		c.warnAt(c.files.first, "is a file, and with state.shared any replica may rotate: only the machine of the one that does gets the new secret. "+
			"Use a sink that all consumers reach, or a file system that all replicas mount (%d sink(s) of this file)", count)
	}
}
