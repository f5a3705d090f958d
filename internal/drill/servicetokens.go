package drill

import (
	"net/http"
	"path"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
)

// This file knows which service token belongs to which token. Service tokens that rotatord creates are
// recognized by their names: the first has the name of its token, and its replacements also have a suffix.

// suffix is the length of that suffix, with its dash.
const suffix = 11

// create creates a token's service tokens, and writes the secret that consumers use to its sinks. It does
// not create service tokens that rotatord creates.
func (st *stage) create(p player) error {
	for i, id := range p.ids {
		name := p.name
		if i > 0 {
			name += " (partner)"
		}
		of := st.sample.accounts[p.account]
		made, value, err := st.sim.Create(cfsim.CreateParams{
			ID: id, Name: name, AccountID: of.account, ZoneID: of.zone, Duration: st.sample.life(p),
		})
		if err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		for _, s := range p.sinks {
			if err := st.write(s, rotation.Credential{ClientID: made.ClientID, ClientSecret: value}); err != nil {
				return err
			}
		}
	}
	return nil
}

// belongings returns all service tokens that p has or had.
func (st *stage) belongings(p player) (all []cfsim.Token) {
	of := st.sample.accounts[p.account]
	home := "accounts/" + of.account
	if of.zone != "" {
		home = "zones/" + of.zone
	}
	for _, t := range st.sim.AllTokens() {
		if t.Owner == home && st.named(t.Name) == p.name {
			all = append(all, t)
		}
	}
	return all
}

// named returns the token to which a service token with this name belongs; empty if there is none.
func (st *stage) named(name string) string {
	base := name[:max(len(name)-suffix, 0)]
	whose := ""
	for _, p := range st.sample.tokens {
		switch {
		case name == p.name, name == p.name+" (partner)":
			return p.name
		case p.creates() && base == p.name:
			whose = p.name
		}
	}
	return whose
}

// inUse returns the service tokens of p that a disaster changes: both of a pair, or else the one that
// consumers use.
func (st *stage) inUse(p player) []string {
	if !p.creates() {
		return p.ids
	}
	if id := st.consumers.uses(p); id != "" {
		return []string{id}
	}
	return nil
}

// tokenOf returns the ID of the service token with a client ID; empty if there is none.
func (st *stage) tokenOf(clientID string) string {
	for _, t := range st.sim.AllTokens() {
		if t.ClientID == clientID {
			return t.ID
		}
	}
	return ""
}

// guarded returns next, and notes each request that deletes a service token while a sink names it.
func (st *stage) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			st.noteDeletion(path.Base(r.URL.Path))
		}
		next.ServeHTTP(w, r)
	})
}

func (st *stage) noteDeletion(id string) {
	for _, p := range st.sample.tokens {
		for _, s := range p.sinks {
			clientID := st.read(s).ClientID
			if clientID != "" && st.tokenOf(clientID) == id {
				st.mu.Lock()
				st.deleted[p.name] = true
				st.mu.Unlock()
			}
		}
	}
}
