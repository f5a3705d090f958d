package doctor

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/vault"
)

// session checks how long the session lasts and whose it is. It returns what Vault says of it; nil if it says nothing.
func (e *examination) session(ctx context.Context, s *vault.Session) *vault.Self {
	self, err := s.LookUp(ctx)
	switch {
	case vault.StatusOf(err) == http.StatusForbidden:
		e.add(Warning, VaultLookup, "vault.auth", fmt.Sprintf("the session works, and may not look itself up: %v", err),
			`add to its policy: path "auth/token/lookup-self" { capabilities = ["read"] }. Rotations work without it. But the daemon cannot tell a revoked `+
				"session from a missing right, so it logs in again after each request that Vault refuses, which uses up one use of the secret_id")
		return nil
	case err != nil:
		e.add(Bad, VaultLookup, "vault.auth", fmt.Sprintf("the login worked, and Vault's answer about the session cannot be used: %v", err),
			"look at what is between here and vault.address")
		return nil
	}
	e.uses(self)
	e.root = slices.Contains(self.Policies, "root")
	e.lasts(self)
	e.owner(self)
	switch {
	case e.root:
		e.add(Warning, VaultRoot, "vault.auth", "the session has the policy root: it may do everything",
			"use deploy/vault/rotatord-policy.hcl, and one of the roles in deploy/vault/README.md")
	case slices.Contains(self.Policies, "default"):
		e.add(Good, VaultDefault, "vault.auth", "the session has the policy default too, which allows more than rotatord needs, such as the token's cubbyhole; "+
			"token_no_default_policy=true at the role leaves it out, if the other policies allow what deploy/vault/rotatord-policy.hcl allows at auth/token", "")
	}
	return &self
}

// uses adds a finding if the session can be used for a limited number of requests only.
func (e *examination) uses(self vault.Self) {
	if self.Limited {
		e.add(Warning, VaultSessionUses, "vault.auth", fmt.Sprintf("the session can be used for %d more request(s) (token_num_uses): the daemon has to log in often, and does not rotate while it cannot", self.Uses),
			"set token_num_uses to 0 at the role, or use a token without a limit")
	}
}

// lasts says when the session ends, and warns if nothing brings another one.
func (e *examination) lasts(self vault.Self) {
	auth := e.Config.Vault.Auth
	kind := auth.Kind()
	message := fmt.Sprintf("logged in by %s, for %s", kind, self.TTL)
	// A method that logs in gets another session. An agent gets another token by itself.
	another := auth.LogsIn() || kind == "agent"
	latest, why := latestEnd(self)
	switch {
	case self.Forever && e.root: // that is a finding already
		e.add(Good, VaultSession, "vault.auth", "logged in by "+kind+"; the session does not end", "")
	case self.Forever:
		e.add(Warning, VaultSessionForever, "vault.auth", "logged in by "+kind+"; the session does not end: a copy of the token works until a person revokes it",
			"use a token with a period (vault token create -orphan -period=24h -policy=rotatord), which ends soon after it is no longer renewed; or another method of vault.auth")
	case self.Renewable && (another || latest.IsZero()):
		e.add(Good, VaultSession, "vault.auth", message+", renewable", "")
	case self.Renewable:
		e.add(Warning, VaultSessionEnds, "vault.auth", fmt.Sprintf("%s, renewable; %s, it ends for good at %s at the latest%s", message, why, shown(latest), e.beforeRotation(latest)),
			"use a token with a period and without an explicit maximum (vault token create -orphan -period=24h -policy=rotatord), or another method of vault.auth")
	case auth.LogsIn():
		e.add(Good, VaultSession, "vault.auth", message+"; not renewable, so the daemon logs in again each time", "")
	case another:
		e.add(Good, VaultSession, "vault.auth", message+"; not renewable, so the agent has to log in again each time", "")
	default:
		e.add(Warning, VaultSessionEnds, "vault.auth", message+", and not renewable"+e.beforeRotation(e.Now().Add(self.TTL)),
			"the program that creates this token must replace it before that")
	}
	if self.Parented && !another && !e.root {
		e.add(Warning, VaultSessionParent, "vault.auth", "the token is revoked together with the token that created it, whenever that one ends",
			"create it with vault token create -orphan")
	}
}

// systemMaxTTL is Vault's own default for the longest life of a token that has no period.
const systemMaxTTL = 768 * time.Hour

// latestEnd returns when a token ends, however often it is renewed, and why. It is zero for a token with a period and
// without a maximum of its own, and if Vault does not say when the token was created.
func latestEnd(self vault.Self) (end time.Time, why string) {
	switch {
	case self.Created.IsZero():
		return time.Time{}, ""
	case self.ExplicitMax > 0:
		return self.Created.Add(self.ExplicitMax), "with explicit_max_ttl " + self.ExplicitMax.String()
	case self.Period > 0:
		return time.Time{}, ""
	}
	return self.Created.Add(systemMaxTTL), "without a period, and with Vault's default for max_lease_ttl"
}

// beforeRotation says which rotation comes after the end; empty if none of those that are scheduled next.
func (e *examination) beforeRotation(end time.Time) string {
	for _, t := range e.Config.Tokens {
		if t.Schedule == nil || !slices.ContainsFunc(t.Sinks, config.Sink.NeedsVault) {
			continue
		}
		timetable := t.Timetable()
		if next := timetable.Next(e.Now()); !next.Slot.IsZero() && next.Begin.After(end) {
			return fmt.Sprintf(", before the next rotation of %s at %s", t.Name, shown(next.Begin))
		}
	}
	return ""
}

// owner warns of a token that a person got by logging in: it ends with that person's rights, and has them.
func (e *examination) owner(self vault.Self) {
	if e.Config.Vault.Auth.LogsIn() || self.Path == "" {
		return
	}
	if strings.HasPrefix(self.Path, "auth/token/") || strings.HasSuffix(self.Path, "/login") {
		return
	}
	name := ""
	if self.DisplayName != "" {
		name = ", of " + self.DisplayName
	}
	e.add(Warning, VaultSessionPerson, "vault.auth", fmt.Sprintf("the token was made by %s%s, which is how people log in: what it may do, and how long it lasts, are those of a person", self.Path, name),
		"use a token of rotatord alone (vault token create -orphan -period=24h -policy=rotatord), or another method of vault.auth")
}
