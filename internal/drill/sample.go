package drill

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"rotatord/internal/config"
)

// sample is what of a configuration takes part. It holds nothing that leads to anything real.
type sample struct {
	tokens   []player
	accounts map[string]owner
	every    time.Duration // between two slots
	notes    []string
	// What the disaster asks for: service tokens that end and are renewed, in place of such as
	// last forever.
	renews bool
}

// owner is an account or a zone, by its ID.
type owner struct{ account, zone string }

// player is a token that takes part.
type player struct {
	name, account string
	ids           []string // two of a pair, first the one in use; none if it is made
	grace, window time.Duration
	skipMissed    bool
	heal          bool
	sinks         []config.Sink

	create      bool
	life        string // of what is made
	replace     bool
	renewBefore time.Duration
	renewFor    string
	verify      *verification
}

// verification is how new secrets are tried. There is no URL in it: that is the drill's own,
// so that no request can go to the real application.
type verification struct {
	header string
	within time.Duration
}

func (p player) paired() bool { return len(p.ids) == 2 }

// makes reports whether service tokens of p are made by rotatord.
func (p player) makes() bool { return p.create || p.replace }

// strategy is how its secret is made new, in a word.
func (p player) strategy() string {
	switch {
	case p.paired():
		return "pair"
	case p.replace:
		return "replace"
	default:
		return "rotate"
	}
}

// inVault reports whether one of its sinks is in Vault.
func (p player) inVault() bool {
	return slices.ContainsFunc(p.sinks, func(s config.Sink) bool { return s.NeedsVault() })
}

// sinkKinds are the kinds of its sinks, in their order.
func (p player) sinkKinds() (all []string) {
	for _, s := range p.sinks {
		all = append(all, s.Kind())
	}
	return all
}

// traits are what disasters of their own are about.
func (p player) traits() string {
	return fmt.Sprint(p.strategy(), p.create, p.verify != nil, p.renewBefore > 0, p.inVault())
}

// kind is what makes two tokens behave alike in a disaster.
func (p player) kind() string {
	verify := verification{}
	if p.verify != nil {
		verify = *p.verify
	}
	return fmt.Sprint(p.account, p.traits(), p.grace, p.window, p.skipMissed, p.heal, p.sinkKinds(), verify, p.life, p.renewBefore, p.renewFor)
}

// those returns a sample of the tokens that fit; nil fits all.
func (s *sample) those(fit func(player) bool) *sample {
	c := *s
	if fit != nil {
		c.tokens = slices.DeleteFunc(slices.Clone(s.tokens), func(p player) bool { return !fit(p) })
	}
	return &c
}

// sampleOf takes what the drill needs from a configuration, and nothing else.
func sampleOf(c *config.Config, limit int) (*sample, error) {
	s := &sample{accounts: map[string]owner{}}
	kinds := map[string]bool{}
	alike := 0
	for _, t := range c.Tokens {
		p := player{
			name: t.Name, account: t.Account, grace: t.Grace, window: t.Window, skipMissed: t.SkipMissed, heal: t.Heal,
			replace: t.Replace, renewBefore: t.RenewBefore, renewFor: t.RenewFor,
		}
		for _, id := range []string{t.ID, t.Partner} {
			if id != "" {
				p.ids = append(p.ids, id)
			}
		}
		if t.Create != nil {
			p.create, p.life = true, t.Create.Duration
		}
		if t.Verify != nil {
			p.verify = &verification{header: t.Verify.Header, within: t.Verify.Within}
		}
		p.sinks = t.Sinks
		if kinds[p.kind()] {
			alike++
			continue
		}
		kinds[p.kind()] = true
		s.tokens = append(s.tokens, p)
		s.accounts[t.Account] = owner{c.Accounts[t.Account].AccountID, c.Accounts[t.Account].ZoneID}
		s.every = max(s.every, t.Schedule.SmallestGap(time.Now(), 50), t.Window)
	}
	if len(s.tokens) == 0 {
		return nil, errNothing
	}
	s.note(cmp.Or(max(limit, 0), 8), alike)
	return s, nil
}

// note says in what the rehearsal differs from the configuration.
func (s *sample) note(limit, alike int) {
	s.every = (max(s.every, s.longestStory()) + time.Minute).Truncate(time.Minute)
	s.notes = append(s.notes,
		"Cloudflare is a simulator, and Vault a KV server of version 2 inside this process. "+
			"Neither the real ones nor their credentials were used. Sinks outside of Vault were in a temporary directory.",
		fmt.Sprintf("Each token has a slot when the disaster begins, and the next one %s later; its own schedule, jitter "+
			"and freezes are left out. Graces and windows are its own.", Duration(s.every)),
		"Hours pass by making everything older while the daemon is stopped, so it is restarted more often than it would be.")
	if alike > 0 {
		s.notes = append(s.notes, fmt.Sprintf("Left out because they differ from one that takes part in name, ID, path or schedule only: %d.", alike))
	}
	if len(s.tokens) > limit {
		s.notes = append(s.notes, fmt.Sprintf("Of %d tokens that differ, %d take part.", len(s.tokens), limit))
		s.tokens = chosen(s.tokens, limit)
	}
}

// chosen takes some evenly, from the shortest grace to the longest, and then sees to it that
// there is one of each kind of token that disasters are about, if there is room.
func chosen(all []player, limit int) []player {
	slices.SortStableFunc(all, func(a, b player) int { return cmp.Compare(a.grace, b.grace) })
	var kept []player
	count := map[string]int{}
	for i := range limit {
		p := all[i*(len(all)-1)/max(limit-1, 1)]
		kept = append(kept, p)
		count[p.traits()]++
	}
	for _, p := range all {
		if count[p.traits()] > 0 {
			continue
		}
		i := slices.IndexFunc(kept, func(k player) bool { return count[k.traits()] > 1 })
		if i < 0 {
			break
		}
		count[kept[i].traits()]--
		count[p.traits()]++
		kept[i] = p
	}
	return kept
}

// life is how long the service tokens of p last. But for the disasters that are about their
// end, none has one: months pass in a drill.
func (s *sample) life(p player) string {
	if !s.renews {
		return "forever"
	}
	return cmp.Or(p.life, p.renewFor, "8760h")
}

// outage is how long a service is away: long enough that the longest grace has to be
// extended, and not so long that the shortest one is extended again and again.
func (s *sample) outage() time.Duration {
	shortest, longest := time.Duration(0), time.Duration(0)
	for _, p := range s.tokens {
		if p.grace > 0 && (shortest == 0 || p.grace < shortest) {
			shortest = p.grace
		}
		longest = max(longest, p.grace)
	}
	d := longest * 3 / 4
	if shortest > 0 {
		d = min(d, 18*shortest)
	}
	return max(d, 30*time.Minute).Truncate(time.Second)
}

// longestStory is how long it takes until all is well again: a doubt lasts for three graces,
// and a service is away for less than one. No other slot is to come meanwhile.
func (s *sample) longestStory() time.Duration {
	d := s.outage() + 12*time.Hour // back-offs, and disasters that last an hour
	for _, p := range s.tokens {
		d = max(d, 3*p.grace+time.Hour)
	}
	return d
}

// mounts are those of the sinks in Vault.
func (s *sample) mounts() []string {
	var all []string
	for _, p := range s.tokens {
		for _, sink := range p.sinks {
			if v, ok := sink.(*config.VaultSink); ok {
				all = append(all, v.Mount)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Files of a stage, below its directory.
const (
	configFile     = "config.yaml"
	vaultTokenFile = "vault-token"
	apiTokenFile   = "cloudflare-api-token"
	stateDir       = "state"
	sinkDir        = "sinks" // of what would otherwise be elsewhere on this machine
)

// configuration is what the daemon runs with. It leads to the three addresses and to dir.
func (s *sample) configuration(dir, simURL, vaultURL, appURL string) ([]byte, error) {
	type m = map[string]any
	accounts, tokens := m{}, m{}
	for name, id := range s.accounts {
		if !slices.ContainsFunc(s.tokens, func(p player) bool { return p.account == name }) {
			continue
		}
		accounts[name] = m{"account_id": id.account, "api_token": m{"file": filepath.Join(dir, apiTokenFile)}, "base_url": simURL}
		if id.zone != "" {
			delete(accounts[name].(m), "account_id")
			accounts[name].(m)["zone_id"] = id.zone
		}
	}
	for _, p := range s.tokens {
		t := m{"account": p.account, "schedule": "@every " + s.every.String(), "grace": p.grace.String()}
		switch {
		case p.create:
			t["create"] = m{"name": p.name, "duration": s.life(p)}
		case p.paired():
			t["pair"] = p.ids
		default:
			t["id"] = p.ids[0]
		}
		if p.replace {
			t["strategy"] = "replace"
		}
		if s.renews {
			t["renew_before"] = p.renewBefore.String()
			if p.renewFor != "" {
				t["renew_for"] = p.renewFor
			}
		}
		if v := p.verify; v != nil {
			verify := m{"url": appURL, "within": v.within.String()}
			if v.header != "" {
				verify["header"] = v.header
			}
			t["verify"] = verify
		}
		if p.window > 0 {
			t["window"] = p.window.String()
		}
		if p.skipMissed {
			t["catch_up"] = "skip"
		}
		if p.heal {
			t["outside_rotation"] = "rotate"
		}
		var sinks []m
		for _, sink := range p.sinks {
			sinks = append(sinks, m{sink.Kind(): sink.Below(filepath.Join(dir, sinkDir)).Document()})
		}
		t["sinks"] = sinks
		tokens[p.name] = t
	}
	file := m{
		"listen":   "127.0.0.1:0",
		"state":    m{"dir": filepath.Join(dir, stateDir)},
		"accounts": accounts,
		"tokens":   tokens,
	}
	if slices.ContainsFunc(s.tokens, player.inVault) {
		file["vault"] = m{"address": vaultURL, "timeout": "5s", "auth": m{"token": m{"file": filepath.Join(dir, vaultTokenFile)}}}
	}
	return yaml.Marshal(file)
}
