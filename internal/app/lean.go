package app

import (
	"time"
	"unique"

	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// leanToken is a token in little memory. Most of what the configuration says of a token, it says of nearly all tokens: that is
// in memory once for all of them.
type leanToken struct {
	terms    unique.Handle[terms]
	name, id string
	sinks    []rotation.Sink
	rare     *rareTerms // nil if the token has none of these
}

// terms are what many tokens have in common.
type terms struct {
	account                                   string
	grace, jitter, window                     time.Duration
	schedule                                  *scheduler.Schedule
	skipMissed, replace, rotateAfter, restore bool
	issuer                                    rotation.Issuer
	creator                                   rotation.Creator
	renewer                                   rotation.Renewer
	renewBefore, verifyWithin, verifyEvery    time.Duration
	renewFor                                  string
}

// rareTerms are what few tokens have, and each its own.
type rareTerms struct {
	partner, key string
	freezes      []scheduler.Freeze
	create       *rotation.Creation
	prober       rotation.Prober
	hooks        []rotation.Hook
}

// lean returns a token in little memory.
func lean(t rotation.Token) leanToken {
	l := leanToken{
		name: t.Name, id: t.ID, sinks: t.Sinks,
		terms: unique.Make(terms{
			account: t.Account, grace: t.Grace, jitter: t.Timetable.Jitter, window: t.Timetable.Window, schedule: t.Timetable.Schedule,
			skipMissed: t.Timetable.SkipMissed, replace: t.Replace, rotateAfter: t.RotateAfterOutside, restore: t.Restore,
			issuer: t.Issuer, creator: t.Creator, renewer: t.Renewer,
			renewBefore: t.RenewBefore, verifyWithin: t.VerifyWithin, verifyEvery: t.VerifyEvery, renewFor: t.RenewFor,
		}),
	}
	if t.Partner != "" || t.Timetable.Key != t.Name || t.Timetable.Freezes != nil || t.Create != nil || t.Prober != nil || t.Hooks != nil {
		l.rare = &rareTerms{partner: t.Partner, key: t.Timetable.Key, freezes: t.Timetable.Freezes, create: t.Create, prober: t.Prober, hooks: t.Hooks}
	}
	return l
}

// token returns the token.
func (l leanToken) token() rotation.Token {
	if l.terms == (unique.Handle[terms]{}) {
		return rotation.Token{}
	}
	c := l.terms.Value()
	t := rotation.Token{
		Name: l.name, ID: l.id, Sinks: l.sinks, Account: c.account, Grace: c.grace,
		Timetable: scheduler.Timetable{Schedule: c.schedule, Jitter: c.jitter, Window: c.window, SkipMissed: c.skipMissed, Key: l.name},
		Issuer:    c.issuer, Creator: c.creator, Renewer: c.renewer, Replace: c.replace, RotateAfterOutside: c.rotateAfter, Restore: c.restore,
		RenewBefore: c.renewBefore, RenewFor: c.renewFor, VerifyWithin: c.verifyWithin, VerifyEvery: c.verifyEvery,
	}
	if r := l.rare; r != nil {
		t.Partner, t.Timetable.Key, t.Timetable.Freezes, t.Create, t.Prober, t.Hooks = r.partner, r.key, r.freezes, r.create, r.prober, r.hooks
	}
	return t
}
