package drill

import (
	"net/http"
	"path"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
)

// This file holds which service token is whose. Of tokens that rotatord makes it changes, and
// they are told by their names: the first has that of its token, and those that take its
// place have a suffix besides.

// suffix is how long that is, with its dash.
const suffix = 11

// make makes a token's service tokens, and puts what consumers use into its sinks. What
// rotatord makes is not there yet.
func (st *stage) make(p player) error {
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

// belongings are all service tokens that p has or had.
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

// named is whose service token has a name.
func (st *stage) named(name string) string {
	base := name[:max(len(name)-suffix, 0)]
	whose := ""
	for _, p := range st.sample.tokens {
		switch {
		case name == p.name, name == p.name+" (partner)":
			return p.name
		case p.makes() && base == p.name:
			whose = p.name
		}
	}
	return whose
}

// inUse are those service tokens of p that somebody may have dealt with: both of a pair, and
// else the one that consumers have.
func (st *stage) inUse(p player) []string {
	if !p.makes() {
		return p.ids
	}
	if id := st.consumers.uses(p); id != "" {
		return []string{id}
	}
	return nil
}

// tokenOf is the ID of the service token that has a client ID.
func (st *stage) tokenOf(clientID string) string {
	for _, t := range st.sim.AllTokens() {
		if t.ClientID == clientID {
			return t.ID
		}
	}
	return ""
}

// guarded notes each request to delete a service token while a sink names it.
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
