package doctor

import (
	"fmt"
	"maps"
	"slices"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

// tokens compares the configured service tokens with the listed ones. It skips an account that could not
// be listed, which is a finding already.
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
		e.add(Bad, TokenZoneRotate, subject, "it belongs to a zone, and Cloudflare rotates only service tokens of accounts", "write strategy: replace")
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
			e.add(Good, TokenNotLooked, subject, "only the ledger knows which service token it is now: "+e.LedgerErr.Error(), "")
			return
		case t.Create != nil:
			e.toBeCreated(subject, t.Account, *t.Create, listed)
			return
		}
	}
	for _, id := range ids {
		if facts, ok := listed[id]; ok {
			e.facts(subject, t, facts)
		} else if what, ok := e.odd[t.Account].Odd[id]; ok {
			e.add(Warning, ListOdd, subject, fmt.Sprintf("the service token %s exists, and its entry in the listing cannot be read: %s", id, what),
				"look at it in Cloudflare's dashboard, and at any proxy")
		} else if n := e.odd[t.Account].Nameless; n > 0 {
			e.add(Warning, ListOdd, subject, fmt.Sprintf("it is not known whether the service token %s exists: %d entries of the listing cannot be read", id, n),
				"look at it in Cloudflare's dashboard, and at any proxy")
		} else {
			e.missing(subject, t.Account, id)
		}
	}
}

func (e *examination) toBeCreated(subject, account string, c config.Create, listed map[string]rotation.TokenFacts) {
	var found []string
	for id, facts := range listed {
		if facts.Name == c.Name {
			found = append(found, id)
		}
	}
	slices.Sort(found)
	switch odd := e.odd[account].Unreadable(); {
	case len(found) == 0 && odd != "":
		e.add(Warning, ListOdd, subject, fmt.Sprintf("it is not known whether a service token is named %q already: %s", c.Name, odd),
			"look at these service tokens in Cloudflare's dashboard: until they can be read, none is created")
	case len(found) == 0:
		e.add(Good, TokenToBeCreated, subject, fmt.Sprintf("no service token is named %q yet: it will be created", c.Name), "")
	case !c.Adopt:
		e.add(Bad, TokenNameTaken, subject, fmt.Sprintf("a service token named %q exists already (%s), so none is created", c.Name, found[0]),
			"write id in place of create, or adopt: true, or choose another name")
	case len(found) > 1:
		e.add(Bad, TokenNameTaken, subject, fmt.Sprintf("%d service tokens are named %q, and it is not known which one to adopt", len(found), c.Name),
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
		"correct the id, or create the service token again: its rotations fail")
}

func (e *examination) facts(subject string, t config.Token, f rotation.TokenFacts) {
	now := e.Now()
	if !f.Enabled {
		e.add(Bad, TokenDisabled, subject, fmt.Sprintf("the service token %s is disabled", f.ID),
			"enable it, or remove the entry: its secrets do not work")
	}
	switch {
	case f.ExpiresAt.IsZero():
	case !f.ExpiresAt.After(now):
		e.add(Bad, TokenEnded, subject, fmt.Sprintf("the service token %s ended at %s", f.ID, shown(f.ExpiresAt)),
			"renew it at Cloudflare: a rotation does not renew it")
	case f.ExpiresAt.Before(now.Add(endsSoon)) && t.RenewBefore == 0:
		e.add(Warning, TokenEndsSoon, subject, fmt.Sprintf("the service token %s ends at %s, and a rotation does not change that", f.ID, shown(f.ExpiresAt)),
			"set renew_before, or renew it at Cloudflare")
	}
}
