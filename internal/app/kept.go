package app

import (
	"time"

	"rotatord/internal/packed"
	"rotatord/internal/rotation"
)

// kept is a token as the engine keeps it. There is one for each token, and nearly all of them wait for days: what is large is
// packed. [kept.scheduled] unpacks it.
type kept struct {
	token  leanToken
	record packed.Value[rotation.Record]
	due    packed.Value[rotation.Due]
	condition
}

// scheduled is a token and what the engine knows about it. It is a copy.
type scheduled struct {
	token  rotation.Token
	record rotation.Record
	due    rotation.Due // in UTC
	condition
}

// condition is what the engine knows about a token beside its record.
type condition struct {
	chore  time.Time // when there is a chore; zero if never
	active int32     // how many turns and commands work on it, or are about to
	// unrecorded counts the failures in a row that the ledger could not record, because the ledger is
	// what failed. unrecordedErr is the last of them, nil if there is none.
	unrecorded    int32
	unrecordedErr error
	gone          bool // the last listing did not have the service token
	waiting       bool // it waits for its turn
	// skipBackOff is set when something that was missing has returned: the next turn ignores the
	// back-off.
	skipBackOff bool
	// enrolling is set from when a reload has added or changed the token until the ledger knows it.
	enrolling bool
	// joining is set until the ledger was read for the first time, if that is after the start.
	joining bool
	// unsaved is set if the record in memory may be ahead of the one in the ledger, which could not be
	// written. The token is looked at again until the ledger has it, whenever it is due: a time that a wrong
	// clock had left in the ledger is only gone once that is written.
	unsaved bool
	// unrecovered is set while its unfinished rotation was not continued yet. See [engine.setUnrecovered].
	unrecovered bool
	// unreadable says why its record in the ledger cannot be used; nil if it can.
	unreadable error
	// since is when the record was learned from another replica, or when that one's hold ends. Who comes first is
	// counted from then on, if something was due earlier. Zero if no replica has saved it.
	since time.Time
}

// keep packs a token.
func keep(s scheduled) *kept {
	return &kept{token: lean(s.token), record: packed.Of(s.record), due: packed.Of(s.due), condition: s.condition}
}

// scheduled returns a copy of all that is known of the token.
func (k *kept) scheduled() scheduled {
	return scheduled{token: k.token.token(), record: k.record.Get(), due: k.due.Get(), condition: k.condition}
}

// take takes over a record that was saved.
func (k *kept) take(record rotation.Record) {
	if k.gone && k.record.Get().TokenID != record.TokenID && !k.token.token().Owns(record.TokenID) {
		k.gone = false // no listing has shown this service token yet
	}
	k.record = packed.Of(record)
}

// setUnrecovered notes whether the unfinished rotation of a token was not continued yet. e.mu must be held.
func (e *engine) setUnrecovered(k *kept, unrecovered bool) {
	if k.unrecovered == unrecovered {
		return
	}
	k.unrecovered = unrecovered
	if unrecovered {
		e.unrecovered++
	} else {
		e.unrecovered--
	}
}

// recovering returns how many unfinished rotations were not continued yet.
func (e *engine) recovering() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.unrecovered
}

// drop forgets a token. e.mu must be held.
func (e *engine) drop(name string) {
	if k := e.tokens[name]; k != nil {
		e.setUnrecovered(k, false)
	}
	delete(e.tokens, name)
	e.queue.Remove(name)
}
