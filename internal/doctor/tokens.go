package doctor

import (
	"fmt"
	"maps"
	"slices"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

// tokens compares what is configured with what was listed. Of an account that could not be
// listed nothing is said: that is a finding of its own.
func (e *examination) tokens() {
	good, looked := map[string]int{}, map[string]int{}
	for _, t := range e.Config.Tokens {
		listed, ok := e.listed[t.Account]
		if !ok {
			continue
		}
		looked[t.Account]++
		before := len(e.findings)
		e.token(t, listed)
		if !slices.ContainsFunc(e.findings[before:], func(f Finding) bool { return f.Level != Good }) {
			good[t.Account]++
		}
	}
	for _, account := range slices.Sorted(maps.Keys(looked)) {
		if n := good[account]; n > 0 {
			e.add(Good, TokensGood, "accounts."+account, fmt.Sprintf("nothing is wrong with %d of %d configured token(s)", n, looked[account]), "")
		}
	}
}

func (e *examination) token(t config.Token, listed map[string]rotation.TokenFacts) {
	subject := "tokens." + t.Name
	if e.Config.Accounts[t.Account].ZoneID != "" && !t.Replace {
		e.add(Bad, TokenZoneRotate, subject, "it is a zone's, and Cloudflare rotates those of accounts only", "write strategy: replace")
	}
	ids, record := []string{t.ID}, e.Records[t.Name]
	if t.Partner != "" {
		ids = append(ids, t.Partner)
	}
	if t.Create != nil || t.Replace { // the ledger knows which it is
		switch {
		case record.TokenID != "":
			ids = []string{record.TokenID}
		case e.LedgerErr != nil:
			e.add(Good, TokenNotLooked, subject, "which service token it is now only the ledger knows: "+e.LedgerErr.Error(), "")
			return
		case t.Create != nil:
			e.toBeMade(subject, t.Account, *t.Create, listed)
			return
		}
	}
	for _, id := range ids {
		if facts, ok := listed[id]; ok {
			e.facts(subject, t, facts)
		} else if what, ok := e.odd[t.Account].Odd[id]; ok {
			e.add(Warning, ListOdd, subject, fmt.Sprintf("the service token %s is there, and its entry cannot be read: %s", id, what),
				"look at it in Cloudflare's dashboard, and at any proxy")
		} else if n := e.odd[t.Account].Nameless; n > 0 {
			e.add(Warning, ListOdd, subject, fmt.Sprintf("whether the service token %s is there cannot be told: %d entries of the listing cannot be read", id, n),
				"look at it in Cloudflare's dashboard, and at any proxy")
		} else {
			e.missing(subject, t.Account, id)
		}
	}
}

func (e *examination) toBeMade(subject, account string, c config.Create, listed map[string]rotation.TokenFacts) {
	var found []string
	for id, facts := range listed {
		if facts.Name == c.Name {
			found = append(found, id)
		}
	}
	slices.Sort(found)
	switch odd := e.odd[account].Unreadable(); {
	case len(found) == 0 && odd != "":
		e.add(Warning, ListOdd, subject, fmt.Sprintf("whether a service token is named %q already cannot be told: %s", c.Name, odd),
			"look at these service tokens in Cloudflare's dashboard: until they can be read none is made")
	case len(found) == 0:
		e.add(Good, TokenToBeCreated, subject, fmt.Sprintf("no service token is named %q yet: it will be made", c.Name), "")
	case !c.Adopt:
		e.add(Bad, TokenNameTaken, subject, fmt.Sprintf("a service token named %q is there already (%s), and none is made beside it", c.Name, found[0]),
			"write id in place of create, or adopt: true, or choose another name")
	case len(found) > 1:
		e.add(Bad, TokenNameTaken, subject, fmt.Sprintf("%d service tokens are named %q, and it is not known which to adopt", len(found), c.Name),
			"write the id of one in place of create")
	default:
		e.add(Good, TokenToBeCreated, subject, "the service token "+found[0]+" will be adopted", "")
	}
}

func (e *examination) missing(subject, account, id string) {
	for _, other := range slices.Sorted(maps.Keys(e.listed)) {
		if _, ok := e.listed[other][id]; ok {
			e.add(Bad, TokenElsewhere, subject, fmt.Sprintf("the service token %s is not in %s but in %s", id, account, other),
				"write account: "+other)
			return
		}
	}
	e.add(Bad, TokenGone, subject, fmt.Sprintf("%s has no service token %s", account, id),
		"correct the id, or make it anew: its rotations fail")
}

func (e *examination) facts(subject string, t config.Token, f rotation.TokenFacts) {
	now := e.Now()
	if !f.Enabled {
		e.add(Bad, TokenDisabled, subject, fmt.Sprintf("the service token %s is disabled", f.ID),
			"enable it, or remove the entry: nobody can use its secrets")
	}
	switch {
	case f.ExpiresAt.IsZero():
	case !f.ExpiresAt.After(now):
		e.add(Bad, TokenEnded, subject, fmt.Sprintf("the service token %s ended at %s", f.ID, clear(f.ExpiresAt)),
			"renew it at Cloudflare: a rotation does not")
	case f.ExpiresAt.Before(now.Add(soon)) && t.RenewBefore == 0:
		e.add(Warning, TokenEndsSoon, subject, fmt.Sprintf("the service token %s ends at %s, and a rotation does not move that", f.ID, clear(f.ExpiresAt)),
			"set renew_before, or renew it at Cloudflare")
	}
}
