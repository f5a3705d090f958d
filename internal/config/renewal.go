package config

import (
	"maps"
	"slices"
	"time"

	"rotatord/internal/config/raw"
)

// maxRenewBefore is a year, the life that a renewal gives by default.
const maxRenewBefore = 8760 * time.Hour

// renewal checks renew_before and renew_for, each without the other.
func (c *checker) renewal(base string, in *raw.Settings) (before, life *time.Duration) {
	before, life = (*time.Duration)(in.RenewBefore), (*time.Duration)(in.RenewFor)
	if before != nil && *before > maxRenewBefore {
		c.wrong(base+".renew_before", "%s is too long: at most %s (a year)", short(*before), short(maxRenewBefore))
		before = nil
	}
	if life != nil && *life == 0 {
		c.wrong(base+".renew_for", "must be more than 0: write a duration such as 8760h, or remove the key")
		life = nil
	}
	return before, life
}

// checkRenewal decides when a service token is renewed and how long it lives after that. It refuses
// values that would renew it all the time, or never.
func (c *checker) checkRenewal(t *Token, own, defaults *settings) {
	before := choose(c, own, defaults, "renew_before", own.renewBefore, defaults.renewBefore, new(time.Duration(0)))
	life := choose(c, own, defaults, "renew_for", own.renewFor, defaults.renewFor, nil)
	t.RenewBefore = before.value
	switch {
	case life.ok:
		t.RenewFor = c.intern(short(life.value))
	case t.Create != nil && t.Create.Duration != forever:
		t.RenewFor = t.Create.Duration
	case t.Create == nil && c.ofZone(t.Account):
		t.RenewFor = defaultLife // Cloudflare's refresh, which needs none, exists for accounts only
	}
	used := !before.ok || before.value > 0
	switch {
	case life.own && !used:
		c.warn(life.path, uselessRenewal)
	case life.path != "" && !life.own:
		c.renewals[life.path] = c.renewals[life.path] || used
	}
	if before.value == 0 {
		return
	}
	lasts := own.base + ".create.duration"
	if t.Create != nil && t.Create.Duration == forever {
		if before.own {
			c.wrong(before.path, "has no effect, since create lets the service token last forever (line %d): remove it, or give create a duration",
				c.value(lasts).line)
		} else {
			c.wrong(lasts, "forever leaves nothing to renew, and renew_before (line %d) is inherited: write renew_before: 0 here, or give a duration",
				c.value(before.path).line)
		}
		return
	}
	blame := func(other string, own bool) string {
		if before.own || !own {
			return before.path
		}
		return other
	}
	const remedy = "shorten renew_before, or lengthen "
	switch {
	case life.ok && before.value >= life.value:
		c.wrong(blame(life.path, life.own), "renew_before of %s is not shorter than renew_for of %s: the service token would be renewed all the time; "+
			remedy+"renew_for", short(before.value), short(life.value))
	case t.Create != nil && before.value >= t.Create.life():
		c.wrong(blame(lasts, c.has(lasts)), "renew_before of %s is not shorter than the %s for which create lets the service token last: "+
			"it would be renewed as soon as it is created; "+remedy+"create.duration", short(before.value), t.Create.Duration)
	case t.Create == nil && !life.ok && before.value >= maxRenewBefore:
		c.wrong(before.path, "%s is not shorter than the year that a renewal gives: the service token would be renewed all the time; "+
			remedy+"it by renew_for", short(before.value))
	}
}

// life is how long the service token lasts; 0 if it does not end.
func (c *Create) life() time.Duration {
	d, err := time.ParseDuration(c.Duration)
	if err != nil {
		return 0 // forever
	}
	return d
}

// checkLife refuses a service token that would end before its first slot.
func (c *checker) checkLife(t *Token, base string, s slots) {
	if t.Create == nil || t.RenewBefore > 0 || t.Create.life() == 0 || t.Create.life() > s.smallest {
		return
	}
	path := base + ".create.duration"
	if !c.has(path) {
		path = s.expression.path
	}
	c.wrong(path, "the service token would last %s, and that is not longer than %s: give create a longer duration, set renew_before, or rotate more often",
		t.Create.Duration, s.describe())
}

const uselessRenewal = "has no effect without renew_before: set that too, or remove it"

// checkRenewalsAreUsed warns of the renew_for of defaults, if no token has a renew_before.
func (c *checker) checkRenewalsAreUsed() {
	for _, path := range slices.Sorted(maps.Keys(c.renewals)) {
		if !c.renewals[path] {
			c.warn(path, uselessRenewal)
		}
	}
}
