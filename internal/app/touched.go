package app

import (
	"slices"
	"sync"

	"rotatord/internal/event"
)

// keptChanges is how many changes are remembered. A rotation has about fifteen events.
const keptChanges = 512

// everyToken stands for all tokens where the name of one is remembered.
const everyToken = ""

// touched remembers the tokens that events were about recently, so that what is kept of all tokens can be brought up to date
// without reading all of them. Its zero value remembers nothing. It is safe for concurrent use.
type touched struct {
	mu     sync.Mutex
	count  uint64 // of what was noted
	tokens [keptChanges]string
}

// Subscriber returns the subscriber that notes the token of each event.
func (c *touched) Subscriber() *event.Subscriber {
	return event.NewSubscriber("touched", event.All(func(e event.Event) {
		if e.Token == "" && !aboutAll(e) {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tokens[c.count%keptChanges] = e.Token
		c.count++
	}))
}

// aboutAll reports whether an event without a token may have changed what is shown of any: a command for an account or for
// all tokens, a new configuration, or a shared ledger that can be read.
func aboutAll(e event.Event) bool {
	_, command := e.Detail.(event.Command)
	return command || e.Kind == event.Reloaded || e.Kind == event.LedgerRead
}

// Changes implements [httpapi.Source].
func (a *App) Changes(since uint64) (tokens []string, now uint64, all bool) {
	c := &a.touched
	c.mu.Lock()
	defer c.mu.Unlock()
	if since > c.count || c.count-since > keptChanges {
		return nil, c.count, true
	}
	for ; since < c.count; since++ {
		name := c.tokens[since%keptChanges]
		if name == everyToken {
			all = true
		} else if !slices.Contains(tokens, name) {
			tokens = append(tokens, name)
		}
	}
	return tokens, c.count, all
}
