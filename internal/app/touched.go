package app

import (
	"slices"
	"sync"

	"rotatord/internal/event"
)

// keptChanges is how many changes are remembered. A rotation has about fifteen events.
const keptChanges = 512

// touched remembers the tokens that events were about recently, so that what is kept of all tokens can be brought up to date
// without reading all of them. Its zero value remembers nothing. It is safe for concurrent use.
type touched struct {
	mu     sync.Mutex
	count  uint64 // of all events
	tokens [keptChanges]string
}

// Subscriber returns the subscriber that notes the token of each event.
func (c *touched) Subscriber() *event.Subscriber {
	return event.NewSubscriber("touched", event.All(func(e event.Event) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tokens[c.count%keptChanges] = e.Token
		c.count++
	}))
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
		if name == "" {
			all = true // it may be about several tokens
		} else if !slices.Contains(tokens, name) {
			tokens = append(tokens, name)
		}
	}
	return tokens, c.count, all
}
