package crash

import (
	"path/filepath"
	"slices"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// heldAt is what consumers found in Vault at a time; zero if nothing.
func heldAt(versions []version, at time.Time) (held version) {
	for _, v := range versions {
		if v.at.Before(at) {
			held = v
		}
	}
	return held
}

// checkProbes checks that each new secret of a token with verify was accepted before the next
// request, and at the end.
func (w *world) checkProbes(s subject, requests []request, versions []version, say func(string, ...any)) {
	if !s.verifies {
		return
	}
	for _, r := range requests {
		stored := slices.ContainsFunc(versions, func(v version) bool { return digest(v.secret) == r.issued })
		if r.carriedOut() && stored && !w.accepts[r.issued] {
			say("%s: what was issued at %s was delivered, and never accepted by the application of verify", s.name, r.at.Format(clock))
		}
	}
}

// checkCreated checks created service tokens: none too many is left, none is deleted that
// consumers use or were promised, and the first one is created once.
func (w *world) checkCreated(s subject, requests []request, versions []version, say func(string, ...any)) {
	if s.first() == cfsim.OpRotate {
		return
	}
	records, err := statedir.ReadLedger(w.t.Context(), filepath.Join(w.dir, "state"))
	at := slices.IndexFunc(records, func(r rotation.Record) bool { return r.Token == s.name })
	if err != nil || at < 0 {
		say("%s: the ledger does not know it: %v", s.name, err)
		return
	}
	record := records[at]
	if len(record.Replaced) > 1 { // the daemon was seen without any, and may have started another rotation
		say("%s: %d service tokens are still to be deleted", s.name, len(record.Replaced))
	}
	used, isThere := w.sim.Token(record.TokenID)
	if last := versions[len(versions)-1]; !isThere || used.ClientID != last.clientID {
		say("%s: the ledger knows another service token than the one that Vault holds", s.name)
	}
	for _, t := range w.sim.Tokens() {
		known := t.ID == record.TokenID || slices.ContainsFunc(record.Replaced, func(r rotation.Replaced) bool { return r.TokenID == t.ID })
		if s.owns(t.Name) && !known {
			say("%s: the service token %s is left, and the ledger does not know it", s.name, t.Name)
		}
	}
	first := 0
	for _, r := range requests {
		stored := slices.ContainsFunc(versions, func(v version) bool { return digest(v.secret) == r.issued })
		if r.creates && r.after.Name == s.name && (stored || s.kind == created) { // in a zone a lost one is created again
			first++
		}
	}
	if first > 1 {
		say("%s: its first service token was created %d times", s.name, first)
	}
	for _, d := range w.deletes {
		if !s.owns(d.token.Name) {
			continue
		}
		if heldAt(versions, d.at).clientID == d.token.ClientID {
			say("%s: the service token in use was deleted", s.name)
		}
		left := time.Time{} // when consumers found another one in its place
		for i, v := range versions[:len(versions)-1] {
			if v.clientID == d.token.ClientID && versions[i+1].clientID != v.clientID {
				left = versions[i+1].at
			}
		}
		if age := d.at.Sub(left); !left.IsZero() && age < s.grace {
			say("%s: a service token was deleted %s after another took its place (grace %s)", s.name, age, s.grace)
		}
	}
}
