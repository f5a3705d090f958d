package config

import (
	"maps"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config/raw"
	"rotatord/internal/scheduler"
)

// maxGrace is the longest grace. If a secret that was replaced a month ago still works, that is an
// incident and not a transition.
const maxGrace = 720 * time.Hour

// settings are the fields of a token or of defaults. A field that is absent, or wrong by itself,
// is nil.
type settings struct {
	base          string // the path of the mapping
	account       *string
	strategy      *string
	schedule      *string
	zone          *time.Location
	jitter, grace *time.Duration
	window        *time.Duration
	catchUp       *string
	freezes       []placedFreeze
	except        []string // names of global freezes
	sinks         []placedSink
	renewBefore   *time.Duration
	renewFor      *time.Duration
	verify        *Verify
	outside       *string
	change        *string // outside_change
	hooks         []placedHook
}

// choice is the value of a token's field after defaults.
type choice[T any] struct {
	value T
	path  string // in the file; empty if it is not there
	ok    bool   // false if it is absent without a default, or wrong
	own   bool   // it is written in the token itself
}

// checkTokens may return errWhole; see decoder.entries.
func (c *checker) checkTokens() error {
	c.global = c.freezes("freezes", c.raw.Freezes)
	defaults := c.settings("defaults", &c.raw.Defaults.Settings)
	used := map[string]bool{}
	c.cfg.Tokens = make([]Token, 0, c.file.count)
	c.keys = make([]entryKey, 0, c.file.count)
	err := c.entries(func(name string, key position, in *raw.Token) {
		c.checkName(inEntry, name)
		if c.isBroken(inEntry) {
			return
		}
		c.cfg.Tokens = append(c.cfg.Tokens, Token{Name: name})
		t := &c.cfg.Tokens[len(c.cfg.Tokens)-1]
		c.checkToken(t, in, &defaults)
		used[t.Account] = true
		c.checkTwin(t)
		c.keys = append(c.keys, entryKey{name, shortPosition{int32(key.line), int32(key.column)}})
	})
	if err != nil {
		return err
	}
	slices.SortFunc(c.cfg.Tokens, func(a, b Token) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(c.keys, func(a, b entryKey) int { return strings.Compare(a.name, b.name) })
	c.checkFreezesAreUsed()
	c.checkRenewalsAreUsed()
	for name := range c.raw.Accounts {
		if !used[name] {
			c.warn(join("accounts", name), "is used by no token: remove it, or name it in a token's account")
		}
	}
	return nil
}

// checkToken checks one token with the fields that it inherits.
func (c *checker) checkToken(t *Token, in *raw.Token, defaults *settings) {
	const path = inEntry
	read := c.settings(path, &in.Settings)
	own := &read
	c.identify(t, path, in)

	account := choose(c, own, defaults, "account", own.account, defaults.account, nil)
	if !account.ok && account.path == "" {
		c.missing(path, "account", "name an entry of accounts, here or in defaults; %s", c.knownAccounts(""))
	}
	t.Account = account.value
	c.checkStrategy(t, own, defaults)
	c.checkRenewal(t, own, defaults)
	if verify := choose(c, own, defaults, "verify", own.verify, defaults.verify, nil); verify.ok {
		t.Verify = new(verify.value)
	}
	t.Heal = choose(c, own, defaults, "outside_rotation", own.outside, defaults.outside, new(outsideAlarm)).value == outsideRotate
	change := choose(c, own, defaults, "outside_change", own.change, defaults.change, new(changeAlarm))
	if t.Restore = change.value == changeRestore; t.Restore && change.own && (t.Partner != "" || t.Replace) {
		c.warn(change.path, "restores nothing for a pair, or with strategy: replace: the alarm is raised, and an operator decides")
	}

	if !c.has(path+".sinks") && !c.has("defaults.sinks") {
		c.missing(path, "sinks", "give at least one place that the secret is written to, here or in defaults")
	}
	sinks := choose(c, own, defaults, "sinks", &own.sinks, &defaults.sinks, nil).value
	for _, sink := range sinks {
		t.Sinks = append(t.Sinks, sink.Sink)
	}
	c.checkPlaces(sinks)
	c.checkPrevious(t, sinks)
	hooks := choose(c, own, defaults, "after", &own.hooks, &defaults.hooks, nil).value
	for _, hook := range hooks {
		t.After = append(t.After, hook.Hook)
	}
	c.checkHooks(hooks)
	c.checkTiming(t, own, defaults)
}

// choose takes a token's own value, then the inherited one, then the built-in one.
func choose[T any](c *checker, own, defaults *settings, field string, ownValue, inherited, builtIn *T) choice[T] {
	var value *T
	var result choice[T]
	switch {
	case c.has(own.base + "." + field):
		value, result.path, result.own = ownValue, own.base+"."+field, true
	case c.has(defaults.base + "." + field):
		value, result.path = inherited, defaults.base+"."+field
	default:
		value = builtIn
	}
	if value != nil {
		result.value, result.ok = *value, true
	}
	return result
}

// settings checks each field without the others.
func (c *checker) settings(base string, in *raw.Settings) settings {
	out := settings{base: base, jitter: (*time.Duration)(in.Jitter), window: (*time.Duration)(in.Window)}
	if in.Account != nil {
		if _, ok := c.raw.Accounts[*in.Account]; ok {
			out.account = in.Account
		} else if !c.isBroken("accounts") && c.has("accounts") {
			c.wrong(base+".account", "%q is not an entry of accounts: %s", *in.Account, c.knownAccounts(*in.Account))
		}
	}
	if in.TimeZone != nil {
		out.zone = c.zone(base+".time_zone", *in.TimeZone)
	}
	if in.Schedule != nil {
		key := gapKey{*in.Schedule, out.zone.String()}
		if c.valid[key] {
			out.schedule = in.Schedule
		} else if _, err := scheduler.Parse(*in.Schedule, out.zone); err != nil {
			c.wrong(base+".schedule", "%s", oneLine(err))
		} else {
			out.schedule, c.valid[key] = in.Schedule, true
		}
	}
	if in.CatchUp != nil {
		out.catchUp = new(c.oneOf(base+".catch_up", in.CatchUp, catchUpOnce, catchUpOnce, catchUpSkip))
	}
	if in.Grace != nil {
		grace := time.Duration(*in.Grace)
		switch {
		case grace > maxGrace:
			c.wrong(base+".grace", "%s is too long: at most %s (30 days)", short(grace), short(maxGrace))
		case grace%time.Second != 0:
			c.wrong(base+".grace", "%s is not in whole seconds, the unit that Cloudflare counts in", grace)
		default:
			out.grace = &grace
		}
	}
	if in.Strategy != nil {
		if s := c.oneOf(base+".strategy", in.Strategy, strategyRotate, strategyRotate, strategyReplace); s == strategyRotate || s == strategyReplace {
			out.strategy = &s
		}
	}
	if in.OutsideRotation != nil {
		out.outside = new(c.oneOf(base+".outside_rotation", in.OutsideRotation, outsideAlarm, outsideAlarm, outsideRotate))
	}
	if in.OutsideChange != nil {
		out.change = new(c.oneOf(base+".outside_change", in.OutsideChange, changeAlarm, changeAlarm, changeRestore))
	}
	out.renewBefore, out.renewFor = c.renewal(base, in)
	if c.has(base+".verify") && !c.isBroken(base+".verify") {
		out.verify = c.verify(base+".verify", in.Verify)
	}
	out.freezes = c.freezes(base+".freezes", in.Freezes)
	out.except = c.exceptions(base+".except_freezes", in.ExceptFreezes)
	out.sinks = c.sinks(base+".sinks", in.Sinks)
	out.hooks = c.hooks(base+".after", in.After)
	return out
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

func (c *checker) knownAccounts(name string) string {
	return c.hint("accounts", name, maps.Keys(c.raw.Accounts))
}
