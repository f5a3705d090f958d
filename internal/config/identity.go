package config

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"rotatord/internal/config/raw"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
)

// What strategy may be.
const (
	strategyRotate  = "rotate"
	strategyReplace = "replace"
)

const (
	// defaultLife is Cloudflare's own default for a service token.
	defaultLife = "8760h"
	// forever is the duration of a service token that does not end.
	forever = "forever"
	// maxTokenName is in characters.
	maxTokenName = 255
)

// identify checks which service token or pair an entry is for, or how to create it.
func (c *checker) identify(t *Token, path string, in *raw.Token) {
	hasID, hasPair, hasCreate := c.has(path+".id"), c.has(path+".pair"), c.has(path+".create")
	if hasCreate && (hasID || hasPair) {
		other := "id"
		if !hasID {
			other = "pair"
		}
		c.wrong(path+".create", "is written beside %s: keep create for a service token that does not exist yet, or %s for what exists", other, other)
	}
	switch {
	case hasID && hasPair:
		c.wrong(path+".pair", "is written beside id: keep id for a single service token, or pair for two")
	case hasPair && !c.isBroken(path+".pair") && len(in.Pair) != 2:
		c.wrong(path+".pair", "must name exactly two service tokens, not %d: first the one in use, then the other", len(in.Pair))
	case hasPair && !c.isBroken(path+".pair"):
		t.ID, t.Partner = c.uuid(path+".pair[0]", in.Pair[0]), c.uuid(path+".pair[1]", in.Pair[1])
		if t.ID == t.Partner && t.ID != "" {
			c.wrong(path+".pair[1]", "is the same service token as the first: a pair needs two")
		}
	case hasID:
		t.ID = c.uuid(path+".id", in.ID)
	case hasCreate && !c.isBroken(path+".create"):
		t.Create = c.create(path+".create", in.Create)
	case !hasPair && !hasCreate:
		c.missing(path, "id", "give the service token's UUID, from the Cloudflare dashboard or API; or pair, with those of two; "+
			"or create, to have rotatord create one")
	}
}

// create checks how a service token is created.
func (c *checker) create(path string, in raw.Create) *Create {
	out := &Create{Name: or(in.Name, ""), Duration: defaultLife, Adopt: or(in.Adopt, false)}
	if n := utf8.RuneCountInString(out.Name); n > maxTokenName {
		c.wrong(path+".name", "has %d characters: at most %d", n, maxTokenName)
	}
	if in.Duration == nil {
		return out
	}
	switch life, err := time.ParseDuration(*in.Duration); {
	case *in.Duration == forever:
		out.Duration = forever
	case err != nil:
		c.wrong(path+".duration", "%q is neither a duration, such as 8760h (a year), nor forever%s", *in.Duration, prefixed(": write ", scheduler.DurationHint(*in.Duration)))
	case life <= 0:
		c.wrong(path+".duration", "must be more than 0: write a duration such as 8760h (a year), or forever")
	default:
		out.Duration = short(life)
	}
	return out
}

// checkStrategy decides how a token gets a new secret, and refuses what Cloudflare cannot do.
func (c *checker) checkStrategy(t *Token, own, defaults *settings) {
	strategy := choose(c, own, defaults, "strategy", own.strategy, defaults.strategy, new(strategyRotate))
	t.Replace = strategy.value == strategyReplace
	pair := own.base + ".pair"
	switch ofZone := c.ofZone(t.Account); {
	case ofZone && c.has(pair):
		c.wrong(pair, "cannot be rotated, since account %s is a zone and Cloudflare's rotate call exists for accounts only: "+
			"write id or create, with strategy: replace", t.Account)
	case !strategy.ok: // reported
	case ofZone && !t.Replace && strategy.own:
		c.wrong(strategy.path, "cannot rotate, since account %s is a zone and Cloudflare's rotate call exists for accounts only: "+
			"write replace", t.Account)
	case ofZone && !t.Replace:
		c.missing(own.base, "strategy", "account %s is a zone, and Cloudflare's rotate call exists for accounts only: "+
			"write strategy: replace", t.Account)
	case t.Replace && c.has(pair) && strategy.own:
		c.wrong(strategy.path, "is written beside pair, whose two service tokens take turns: remove it, or write id or create in place of pair")
	case t.Replace && c.has(pair):
		c.wrong(pair, "takes turns, and strategy (line %d) replaces: write strategy: rotate here, or id or create in place of pair",
			c.value(strategy.path).line)
	case t.Replace:
		c.warn(strategy.path, "each rotation creates a new service token, with a new ID and client ID: a policy that names the old one does not let "+
			"the new one in, so use one for any valid service token (any_valid_service_token), or add the new one by hand before the grace ends; "+
			"while a policy names the old one, Cloudflare refuses to delete it (12139); consumers must read the client ID too")
	}
}

// ofZone reports whether an entry of accounts is a zone. One that is both, by mistake, is not.
func (c *checker) ofZone(account string) bool {
	path := join("accounts", account)
	return c.has(path+".zone_id") && !c.has(path+".account_id")
}

// uuid returns a UUID in lower case. It reports a text that is not a UUID.
func (c *checker) uuid(path string, value *string) string {
	if value == nil {
		return ""
	}
	id := strings.ToLower(*value)
	if !isUUID(id) {
		c.wrong(path, "must be the UUID of a service token, such as f174e90a-fafe-4643-bbbc-4a0ed4fc8415%s", prefixed("; this ", c.uuidHint(id)))
		return ""
	}
	return id
}

// isUUID reports a UUID in lower case.
func isUUID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i := range len(text) {
		c := text[i]
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') || !dash && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

var (
	clientID   = regexp.MustCompile(`^[0-9a-f]{32}\.access$`)
	bareUUID   = regexp.MustCompile(`^[0-9a-f]{32}$`)
	framedUUID = regexp.MustCompile(`^(\{|urn:uuid:)[0-9a-f-]{36}\}?$`)
)

// uuidHint says what was written in place of a service token's UUID.
func (c *checker) uuidHint(id string) string {
	switch {
	case clientID.MatchString(id):
		return "is a client ID (it ends in .access), and the UUID is another one: rotatord import writes it, and the API lists it as id"
	case bareUUID.MatchString(id):
		for _, a := range c.cfg.Accounts {
			if a.AccountID == id || a.ZoneID == id {
				return "is the id of the account or zone " + a.Name
			}
		}
		return "is the id of an account or a zone, or lacks its dashes: 8, 4, 4, 4 and 12 digits with a dash between them"
	case framedUUID.MatchString(id):
		return "has something around it: remove it"
	case strings.HasPrefix(id, "cfast_"), secret.Scrub(id) != id:
		return "looks like a client secret, which is never written here: treat it as disclosed if others can read this file"
	case ValidName(id) && !strings.ContainsAny(id, ".-0123456789"):
		return "looks like a name: rotatord import writes the UUID of each service token; to have rotatord create one, write create"
	}
	return ""
}

// scopeHint says what was written in place of the id of an account or a zone.
func scopeHint(id string) string {
	switch {
	case isUUID(id):
		return "is a UUID, as service tokens have"
	case clientID.MatchString(id):
		return "is the client ID of a service token"
	case strings.Contains(id, "@"):
		return "is an e-mail address"
	case strings.Contains(id, "/"):
		return "is a path or a URL: write the 32 digits in it alone"
	case len([]rune(id)) == 32:
		return "has 32 characters, and some are not 0 to 9 or a to f"
	}
	return fmt.Sprintf("has %d characters", len([]rune(id)))
}

// twin is a service token by the id of its account or zone and its own or, if it is to be created, its name.
type twin struct {
	scope, id string
	created   bool
}

// twinPlace is the entry of a service token, and the line that names it.
type twinPlace struct {
	entry string
	line  int
}

// checkTwin refuses a second entry for one service token, and a second entry that would create
// a service token of the same name.
func (c *checker) checkTwin(t *Token) {
	account := c.cfg.Accounts[t.Account]
	scope := cmp.Or(account.AccountID, account.ZoneID)
	if scope == "" {
		return
	}
	const what = "is the same service token as %s (line %d): keep one entry, with all its sinks"
	switch {
	case t.Partner != "":
		c.checkTwinAt(inEntry+".pair[0]", what, twin{scope: scope, id: t.ID})
		c.checkTwinAt(inEntry+".pair[1]", what, twin{scope: scope, id: t.Partner})
	case t.Create != nil && t.Create.Name != "":
		c.checkTwinAt(inEntry+".create.name",
			"is also the name in %s (line %d), so both would use the service token that is created first: choose another name",
			twin{scope: scope, id: t.Create.Name, created: true})
	default:
		c.checkTwinAt(inEntry+".id", what, twin{scope: scope, id: t.ID})
	}
}

func (c *checker) checkTwinAt(path, what string, key twin) {
	first, taken := c.twins[key]
	switch {
	case key.id == "":
	case !taken:
		c.twins[key] = twinPlace{c.entry, c.value(path).line}
	case first.entry == c.entry: // reported already
	default:
		c.wrong(path, what, join("tokens", first.entry), first.line)
	}
}
