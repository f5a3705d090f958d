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
	accounts map[string]string // account IDs by name
	every    time.Duration     // between two slots
	notes    []string
}

// player is a token that takes part.
type player struct {
	name, account string
	ids           []string // two of a pair, first the one in use
	grace, window time.Duration
	skipMissed    bool
	heal          bool
	sinks         []config.VaultSink
}

func (p player) paired() bool { return len(p.ids) == 2 }

// kind is what makes two tokens behave alike in a disaster.
func (p player) kind() string {
	return fmt.Sprint(p.account, p.paired(), p.grace, p.window, p.skipMissed, p.heal, len(p.sinks))
}

// sampleOf takes what the drill needs from a configuration, and nothing else.
func sampleOf(c *config.Config, limit int) (*sample, error) {
	s := &sample{accounts: map[string]string{}}
	kinds := map[string]bool{}
	unfit, alike, more := 0, 0, 0
	for _, t := range c.Tokens {
		account := c.Accounts[t.Account]
		if t.ID == "" || t.Replace || account.AccountID == "" {
			unfit++
			continue
		}
		p := player{name: t.Name, account: t.Account, ids: []string{t.ID}, grace: t.Grace, window: t.Window,
			skipMissed: t.SkipMissed, heal: t.Heal}
		if t.Partner != "" {
			p.ids = append(p.ids, t.Partner)
		}
		for _, sink := range t.Sinks {
			if sink.Vault != nil {
				p.sinks = append(p.sinks, *sink.Vault)
			}
		}
		if len(p.sinks) == 0 {
			unfit++
			continue
		}
		if t.Verify != nil || t.RenewBefore > 0 {
			more++
		}
		if kinds[p.kind()] {
			alike++
			continue
		}
		kinds[p.kind()] = true
		s.tokens = append(s.tokens, p)
		s.accounts[t.Account] = account.AccountID
		s.every = max(s.every, t.Schedule.SmallestGap(time.Now(), 50), t.Window)
	}
	if len(s.tokens) == 0 {
		return nil, errNothing
	}
	s.note(cmp.Or(max(limit, 0), 8), unfit, alike, more)
	return s, nil
}

// note says in what the rehearsal differs from the configuration.
func (s *sample) note(limit, unfit, alike, more int) {
	s.every = (max(s.every, s.longestStory()) + time.Minute).Truncate(time.Minute)
	s.notes = append(s.notes,
		"Cloudflare is a simulator, and Vault a KV server of version 2 inside this process. "+
			"Neither the real ones nor their credentials were used.",
		fmt.Sprintf("Each token has a slot when the disaster begins, and the next one %s later; its own schedule, jitter "+
			"and freezes are left out. Graces and windows are its own.", Duration(s.every)),
		"Hours pass by making everything older while the daemon is stopped, so it is restarted more often than it would be.")
	if alike > 0 {
		s.notes = append(s.notes, fmt.Sprintf("Left out because they differ from one that takes part in name, ID, path or schedule only: %d.", alike))
	}
	if unfit > 0 {
		s.notes = append(s.notes, fmt.Sprintf("Left out because they are made by rotatord, belong to a zone or have no sink in Vault: %d.", unfit))
	}
	if more > 0 {
		s.notes = append(s.notes, "What the configuration says of verify and renew_before is not rehearsed.")
	}
	if len(s.tokens) > limit {
		slices.SortStableFunc(s.tokens, func(a, b player) int { return cmp.Compare(a.grace, b.grace) })
		var kept []player // evenly, from the shortest grace to the longest
		for i := range limit {
			kept = append(kept, s.tokens[i*(len(s.tokens)-1)/max(limit-1, 1)])
		}
		s.notes = append(s.notes, fmt.Sprintf("Of %d tokens that differ, %d take part.", len(s.tokens), limit))
		s.tokens = kept
	}
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

// mounts are those that the sinks write to.
func (s *sample) mounts() []string {
	var all []string
	for _, p := range s.tokens {
		for _, sink := range p.sinks {
			all = append(all, sink.Mount)
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
)

// configuration is what the daemon runs with. It leads to the two addresses and to dir.
func (s *sample) configuration(dir, simURL, vaultURL string) ([]byte, error) {
	type m = map[string]any
	accounts, tokens := m{}, m{}
	for name, id := range s.accounts {
		accounts[name] = m{"account_id": id, "api_token": m{"file": filepath.Join(dir, apiTokenFile)}, "base_url": simURL}
	}
	for _, p := range s.tokens {
		t := m{"account": p.account, "schedule": "@every " + s.every.String(), "grace": p.grace.String()}
		if p.paired() {
			t["pair"] = p.ids
		} else {
			t["id"] = p.ids[0]
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
			sinks = append(sinks, m{"vault": m{"mount": sink.Mount, "path": sink.Path,
				"fields": m{"client_id": sink.ClientIDField, "client_secret": sink.ClientSecretField}}})
		}
		t["sinks"] = sinks
		tokens[p.name] = t
	}
	return yaml.Marshal(m{
		"listen":   "127.0.0.1:0",
		"state":    m{"dir": filepath.Join(dir, stateDir)},
		"accounts": accounts,
		"vault":    m{"address": vaultURL, "timeout": "5s", "auth": m{"token": m{"file": filepath.Join(dir, vaultTokenFile)}}},
		"tokens":   tokens,
	})
}
