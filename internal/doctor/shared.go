package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/vault"
)

// This file checks what state.shared needs: the mount, the rights below the prefix, the clock, and that the
// replicas fit together.

const sharedSubject = "state.shared"

// shared checks the place of the shared ledger, with a session that is logged in.
func (e *examination) shared(ctx context.Context, s *vault.Session) {
	c := e.Config.State.Shared
	if c == nil {
		return
	}
	version, err := s.KVVersion(ctx, c.Mount)
	if err != nil {
		e.add(Bad, SharedMount, sharedSubject, err.Error(), "correct state.shared.vault.mount, or let the policy allow the paths below "+c.Mount+"/data/"+c.Prefix+"/")
		return
	}
	if version != 2 {
		e.add(Bad, SharedMount, sharedSubject, fmt.Sprintf("%s/ is KV version %d: a shared ledger needs check-and-set, which version 2 has", c.Mount, version),
			"name a mount of version 2, or upgrade this one with vault kv enable-versioning "+c.Mount)
		return
	}
	if !e.sharedRights(ctx, s, c) {
		return
	}
	e.vaultClock(ctx, s)
	e.replicas(ctx, s, c)
}

// sharedRight is what replicas need at a path below the prefix.
type sharedRight struct {
	path  string
	needs []string
	// why is what does not work without it.
	why string
}

// sharedRights returns the rights that replicas need. The names at the ends of the paths are of nothing.
func sharedRights(c *config.Shared) []sharedRight {
	data, metadata := c.Mount+"/data/"+c.Prefix+"/", c.Mount+"/metadata/"+c.Prefix+"/"
	write := []string{"create", "read", "update"}
	return []sharedRight{
		{data + "tokens/" + nobody, write, "no rotation is recorded"},
		{data + "pauses", write, "a pause is not recorded"},
		{data + "replicas/" + nobody, write, "the replicas do not see each other"},
		{data + "inventory/" + nobody, write, "each replica lists every account"},
		{data + "pending/" + nobody, write, "a sealed secret is lost together with the machine that has it"},
		{data + "moved", []string{"read"}, "a ledger that was exported goes on being used"},
		{metadata + "tokens/", []string{"list"}, "the ledger cannot be read"},
		{metadata + "replicas/", []string{"list"}, "the replicas do not see each other"},
		{metadata + "tokens/" + nobody, []string{"create", "update"}, "Vault keeps more versions of each record than are needed"},
		{metadata + "replicas/" + nobody, []string{"delete"}, "the entries of replicas that are gone stay"},
		{metadata + "pending/" + nobody, []string{"delete"}, "copies of sealed secrets stay after they were delivered"},
	}
}

// sharedRights compares what the session may do below the prefix with what replicas need, and reports whether
// the ledger can be read at least.
func (e *examination) sharedRights(ctx context.Context, s *vault.Session, c *config.Shared) bool {
	rights := sharedRights(c)
	var asked []string
	for _, r := range rights {
		asked = append(asked, r.path)
	}
	forever := []string{c.Mount + "/destroy/" + c.Prefix + "/tokens/" + nobody, c.Mount + "/delete/" + c.Prefix + "/tokens/" + nobody}
	may, err := capabilities(ctx, s, slices.Concat(asked, forever))
	if err != nil {
		e.add(Bad, SharedRights, sharedSubject, err.Error(), "let the policy allow update at sys/capabilities-self")
		return false
	}
	if slices.Contains(may[asked[0]], "root") {
		return true // that is a finding already
	}
	fine, readable := true, true
	for _, r := range rights {
		var lacks []string
		for _, need := range r.needs {
			if !slices.Contains(may[r.path], need) {
				lacks = append(lacks, need)
			}
		}
		if len(lacks) == 0 {
			continue
		}
		fine = false
		if slices.Contains(lacks, "read") || slices.Contains(lacks, "list") {
			readable = false
		}
		at := strings.TrimSuffix(r.path, nobody)
		if at != r.path {
			at += "*"
		}
		e.add(Bad, SharedRights, sharedSubject, fmt.Sprintf("the policy does not allow %s at %s: %s", strings.Join(lacks, ", "), at, r.why),
			fmt.Sprintf("add to it: path %q { capabilities = [%s] }; deploy/vault/rotatord-replicas-policy.hcl is the whole policy", at, quoted(r.needs)))
	}
	var excess []string
	for _, path := range forever {
		if len(beyond(may[path])) > 0 {
			excess = append(excess, strings.TrimSuffix(path, nobody)+"*")
		}
	}
	for _, r := range rights {
		for _, capability := range []string{"sudo", "delete"} {
			if slices.Contains(may[r.path], capability) && !slices.Contains(r.needs, capability) && !strings.Contains(r.path, "/metadata/") {
				excess = append(excess, capability+" at "+strings.TrimSuffix(r.path, nobody))
			}
		}
	}
	if len(excess) > 0 {
		fine = false
		e.add(Warning, SharedExcess, sharedSubject, "the policy allows more than replicas need: "+strings.Join(excess, ", "), "remove those rights: a record that is deleted is a rotation that is forgotten")
	}
	if fine {
		e.add(Good, SharedGood, sharedSubject, fmt.Sprintf("%s/ is KV version 2, and the policy allows what replicas need below %s/, and no more", c.Mount, c.Prefix), "")
	}
	return readable
}

func quoted(all []string) string {
	var b []string
	for _, s := range all {
		b = append(b, fmt.Sprintf("%q", s))
	}
	return strings.Join(b, ", ")
}

// sharedSkew is how far the clock of a replica may be from the others and Vault's: beyond that it begins nothing.
const sharedSkew = 30 * time.Second

// vaultClock compares this machine's clock with Vault's.
func (e *examination) vaultClock(ctx context.Context, s *vault.Session) {
	before := e.Now()
	answer, err := s.Send(ctx, vault.Request{Path: "auth/token/lookup-self", Operation: "lookup"})
	after := e.Now()
	if err != nil || answer.Date.IsZero() {
		return // an unknown clock is not a finding
	}
	e.vaultNow = answer.Date
	var apart time.Duration // at least, whenever within the request Vault looked at its clock
	switch latest := answer.Date.Add(time.Second); {
	case latest.Before(before):
		apart = before.Sub(latest)
	case answer.Date.After(after):
		apart = answer.Date.Sub(after)
	}
	if apart > sharedSkew {
		e.add(Bad, SharedClock, sharedSubject, fmt.Sprintf("this machine's clock is %s from Vault's: a replica whose clock is far from the others' and Vault's begins nothing", apart.Round(time.Second)),
			"set the clock of this machine, or of Vault's (timedatectl, chronyc tracking)")
		return
	}
	e.add(Good, SharedClockGood, sharedSubject, "this machine's clock and Vault's agree", "")
}
