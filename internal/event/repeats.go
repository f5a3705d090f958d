package event

import (
	"hash/maphash"
	"maps"
	"sync"
	"time"
)

// toldEvery is how often a token tells that it cannot be worked on for the same cause.
const toldEvery = time.Hour

// toldMost is how many different things are known of a token. An error without a stable word may have another text each time:
// it is told each time.
const toldMost = 8

// repeats knows what tokens have told. While something is missing that many of them need, such as Vault or space on the
// disk, each is tried every ten minutes. If each told the same every time, that would hide everything else in the log, fill the
// record of events, and take the disk that is full. The zero value is ready.
type repeats struct {
	mu     sync.Mutex
	told   map[string]map[uint64]time.Time // when that was told last, by token and by the hash of what was told, which may be a long text
	pruned time.Time
}

var seed = maphash.MakeSeed()

// repeating is a detail of something that may go on for long, for many tokens.
type repeating interface {
	// same is what the event tells, without what differs from one attempt to the next; empty if each is told.
	same() string
	// asBefore is the kind of an event that tells the same as one less than an hour before it.
	asBefore() Kind
}

// named returns the event, with the kind that says so if the token has told the same less than an hour ago.
func (r *repeats) named(e Event) Event {
	d, ok := e.Detail.(repeating)
	if !ok {
		return e
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind == Rotated { // what comes after that is news
		delete(r.told, e.Token)
	}
	what := d.same()
	if what == "" {
		return e
	}
	same := maphash.String(seed, what)
	if last, known := r.told[e.Token][same]; known && recent(last, e.At) {
		e.Kind = d.asBefore()
		e.Severity = e.Kind.definition().Severity
		return e
	}
	if r.told == nil {
		r.told = make(map[string]map[uint64]time.Time)
	}
	if !recent(r.pruned, e.At) { // tokens that were removed are in there too
		r.pruned = e.At
		for token, told := range r.told {
			if maps.DeleteFunc(told, func(_ uint64, at time.Time) bool { return !recent(at, e.At) }); len(told) == 0 {
				delete(r.told, token)
			}
		}
	}
	told := r.told[e.Token]
	if told == nil {
		told = make(map[uint64]time.Time)
		r.told[e.Token] = told
	}
	if _, known := told[same]; known || len(told) < toldMost {
		told[same] = e.At
	}
	return e
}

// toldAgain is when the same is told the next time if it lasts, so that nobody takes the silence for the end of it; zero if
// each is told, or if this one says the same as one before it.
func toldAgain(e Event) time.Time {
	if d, ok := e.Detail.(repeating); ok && e.Kind != d.asBefore() && d.same() != "" {
		return e.At.Add(toldEvery)
	}
	return time.Time{}
}

// recent says that it was less than an hour ago. A clock that was set back proves nothing.
func recent(at, now time.Time) bool {
	since := now.Sub(at)
	return since >= 0 && since < toldEvery
}
