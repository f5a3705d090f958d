package rotation

import (
	"context"
	"time"
)

// Strategy names how a rotation brings consumers a new secret.
type Strategy string

// The strategies.
const (
	InPlace Strategy = "in place" // the service token gets a new secret
	Pair    Strategy = "pair"     // of two service tokens the one that is not in use gets a new secret
	Fresh   Strategy = "fresh"    // a service token is created
)

// strategy is how a rotation brings consumers a new secret. There are three:
//
//   - in place (inplace.go): the service token gets a new secret, and its old secret becomes
//     the previous one, which works for the grace.
//   - pair (pair.go): of two service tokens the one that is not in use gets a new secret, and
//     then takes the place of the other.
//   - fresh (fresh.go): a service token is created. It is the first of its entry, or takes
//     the place of another one, which is deleted after the grace.
//
// A rotation that begins takes the strategy of the configuration ([strategyFor]). One in
// progress has the strategy of its stored work ([Work.strategy]), whatever the configuration
// says today.
//
// A strategy has no state. What it learns it puts into the record of the entry with observe.
type strategy interface {
	// plan completes the work of a rotation that is claimed now with what it is to work on.
	plan(t Token, r Record, w Work) Work
	// prepare reads and records what must be known before the request leaves. An error ends the
	// rotation without one.
	prepare(ctx context.Context, e *entry) error
	// request sends the one request of the rotation.
	request(ctx context.Context, e *entry) (Issued, error)
	// identify records which service token a sealed answer is about, where that is not known yet.
	identify(ctx context.Context, e *entry, issued Issued) error
	// finish returns the record in which the service token of the rotation is the one in use, with
	// its facts. r.Last is already this rotation.
	finish(t Token, r Record) Record

	// look reads what shows whether a request in doubt was carried out, and records that. asked
	// says that a person asks for it: then it is read again. The error says why it could not
	// be read.
	look(ctx context.Context, e *entry, asked bool) (Evidence, error)
	// judge decides about a doubt.
	judge(r Record, e Evidence, now time.Time) Verdict
	// confirm returns an error as long as a decision by a person must not end a doubt: something
	// would be left behind that is not looked for again. It returns what the request has created.
	confirm(ctx context.Context, e *entry) (created *TokenFacts, err error)

	// gone reports whether Cloudflare no longer has the service token of the rotation. If Cloudflare still
	// has it, gone returns its facts.
	gone(ctx context.Context, e *entry) (bool, TokenFacts, error)
	// keep returns the record that keeps what is known of the service token of a rotation that is
	// given up.
	keep(t Token, r Record, facts TokenFacts, now time.Time) Record

	traits() traits
}

// traits are what the rest of the protocol must know about a strategy.
type traits struct {
	name Strategy
	// leavesCurrentInUse: the rotation does not touch what consumers use. No crash, lost answer or
	// second request can cut a consumer off.
	leavesCurrentInUse bool
	// creates: the rotation creates a service token. It has no state from before, and Cloudflare
	// shows whether the request was carried out.
	creates bool
	// alternates: two service tokens take turns. The one that was replaced works until its own turn.
	alternates bool
}

// strategyFor returns the strategy of a rotation that begins now.
func strategyFor(t Token, r Record) strategy {
	switch {
	case t.Uncreated(r) || t.Replace:
		return fresh{}
	case t.Partner != "":
		return pair{}
	}
	return inPlace{}
}

// Strategy returns how this rotation brings consumers a new secret.
func (w *Work) Strategy() Strategy { return w.strategy().traits().name }

// LeavesCurrentInUse reports whether this rotation does not touch what consumers use: it renews the
// one of a pair that is not in use, or creates a service token of its own.
func (w *Work) LeavesCurrentInUse() bool { return w.strategy().traits().leavesCurrentInUse }

// strategy returns the strategy of a rotation in progress.
func (w *Work) strategy() strategy {
	switch {
	case w.CreateName != "":
		return fresh{}
	case w.Spare:
		return pair{}
	}
	return inPlace{}
}
