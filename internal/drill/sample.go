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

// sample is the part of a configuration that the drill uses. It has no real address and no credential.
type sample struct {
	tokens   []player
	accounts map[string]owner
	every    time.Duration // between two slots
	notes    []string
	// renews is set by a disaster that needs service tokens that expire. Otherwise they last forever.
	renews bool
}

// owner is an account or a zone, by its ID.
type owner struct{ account, zone string }

// player is a token that takes part in the drill.
type player struct {
	name, account string
	ids           []string // of a pair both, first the one in use; none if rotatord creates it
	grace, window time.Duration
	skipMissed    bool
	heal          bool
	sinks         []config.Sink

	create      bool
	life        string // of the service tokens that it creates
	replace     bool
	renewBefore time.Duration
	renewFor    string
	verify      *verification
}

// verification says how new secrets are tried. It has no URL: the drill uses its own application, so no
// request can go to the real one.
type verification struct {
	header string
	within time.Duration
}

func (p player) paired() bool { return len(p.ids) == 2 }

// creates reports whether rotatord creates service tokens of p.
func (p player) creates() bool { return p.create || p.replace }

// strategy returns how it gets a new secret, in one word.
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

// inCluster reports whether one of its sinks is a Secret of Kubernetes.
func (p player) inCluster() bool {
	return slices.ContainsFunc(p.sinks, func(s config.Sink) bool { return s.NeedsKubernetes() })
}

// inFile reports whether one of its sinks is a file.
func (p player) inFile() bool {
	return slices.ContainsFunc(p.sinks, func(s config.Sink) bool { return !s.NeedsVault() && !s.NeedsKubernetes() })
}

// outsideVault reports whether one of its sinks is not in Vault.
func (p player) outsideVault() bool {
	return slices.ContainsFunc(p.sinks, func(s config.Sink) bool { return !s.NeedsVault() })
}

// sinkKinds are the kinds of its sinks, in their order. Files of different formats are written in different ways.
func (p player) sinkKinds() (all []string) {
	for _, s := range p.sinks {
		kind := s.Kind()
		if f, ok := s.(*config.FileSink); ok {
			kind += "/" + f.Format
		}
		all = append(all, kind)
	}
	return all
}

// traits returns the settings for which there are special disasters.
func (p player) traits() string {
	return fmt.Sprint(p.strategy(), p.create, p.verify != nil, p.renewBefore > 0, p.inVault())
}

// kind returns the settings that matter in a disaster. Tokens of the same kind behave the same.
func (p player) kind() string {
	verify := verification{}
	if p.verify != nil {
		verify = *p.verify
	}
	return fmt.Sprint(p.account, p.traits(), p.grace, p.window, p.skipMissed, p.heal, p.sinkKinds(), verify, p.life, p.renewBefore, p.renewFor)
}

// those returns the sample with only the tokens that fit. With nil all fit.
func (s *sample) those(fit func(player) bool) *sample {
	c := *s
	if fit != nil {
		c.tokens = slices.DeleteFunc(slices.Clone(s.tokens), func(p player) bool { return !fit(p) })
	}
	return &c
}

// sampleOf returns what the drill needs from a configuration, and nothing else.
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

// note adds how the rehearsal differs from the configuration. It also limits the number of tokens.
func (s *sample) note(limit, alike int) {
	s.every = (max(s.every, s.longestStory()) + time.Minute).Truncate(time.Minute)
	s.notes = append(s.notes, s.doubles(),
		fmt.Sprintf("Each token has a slot when the disaster begins, and the next slot %s later. The schedules, jitters and "+
			"freezes of your configuration are not used; its graces and windows are.", Duration(s.every)),
		"Hours pass by making everything older while the daemon is stopped, so the daemon restarts more often than in reality.")
	if alike > 0 {
		s.notes = append(s.notes, fmt.Sprintf("Left out, because they differ only in name, ID, path or schedule from a token that takes part: %d.", alike))
	}
	if len(s.tokens) > limit {
		s.notes = append(s.notes, fmt.Sprintf("Of %d different tokens, %d take part.", len(s.tokens), limit))
		s.tokens = chosen(s.tokens, limit)
	}
}

// doubles says what replaced the real peers.
func (s *sample) doubles() string {
	text := "Cloudflare is a simulator in this process. The real one and its credentials were not used."
	if slices.ContainsFunc(s.tokens, player.inVault) {
		text = "Cloudflare is a simulator, and Vault is a KV server (version 2) in this process. The real ones and their credentials were not used."
	}
	if slices.ContainsFunc(s.tokens, player.inFile) {
		text += " The files of file sinks were in a temporary directory."
	}
	if slices.ContainsFunc(s.tokens, player.inCluster) {
		text += " The Secrets of Kubernetes sinks were in an API server in this process."
	}
	return text
}

// chosen returns some of the tokens, evenly from the shortest grace to the longest. It then makes sure that
// there is one of each kind that has special disasters, if the limit allows it.
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

// life returns how long the service tokens of p last. They last forever, because months pass in a drill,
// except in disasters that are about their end.
func (s *sample) life(p player) string {
	if !s.renews {
		return "forever"
	}
	return cmp.Or(p.life, p.renewFor, "8760h")
}

// outage returns how long a service is away: long enough that the longest grace must be extended, and not
// so long that the shortest one is extended very often.
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

// longestStory returns how long a disaster can take: a doubt lasts for three graces, and a service is away for
// less than one. No other slot may come in this time.
func (s *sample) longestStory() time.Duration {
	d := s.outage() + 12*time.Hour // for back-offs, and for disasters that last an hour
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

// The files of a stage, in its directory.
const (
	configFile     = "config.yaml"
	vaultTokenFile = "vault-token"
	apiTokenFile   = "cloudflare-api-token"
	stateDir       = "state"
	killedLog      = "killed.log"
	kubeconfigFile = "kubeconfig"
	sinkDir        = "sinks" // of what would otherwise be elsewhere on this machine
)

// configuration returns the daemon's configuration. It names only the three addresses and files in dir.
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
	if slices.ContainsFunc(s.tokens, player.inCluster) {
		file["kubernetes"] = m{"kubeconfig": filepath.Join(dir, kubeconfigFile)}
	}
	if slices.ContainsFunc(s.tokens, player.inVault) {
		file["vault"] = m{"address": vaultURL, "timeout": "5s", "auth": m{"token": m{"file": filepath.Join(dir, vaultTokenFile)}}}
	}
	return yaml.Marshal(file)
}
