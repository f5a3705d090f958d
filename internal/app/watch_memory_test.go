package app

import (
	"testing"
	"time"
	"unsafe"

	"rotatord/internal/config"
)

// TestWatchSharesItsTexts: what is watched of many tokens has the name of their group in memory once, and no second copy of the
// name of a sink. A configuration that changes nothing replaces nothing.
func TestWatchSharesItsTexts(t *testing.T) {
	c := &config.Config{WatchEvery: time.Hour}
	for _, name := range []string{"a", "b", "c"} {
		c.Tokens = append(c.Tokens, config.Token{Name: name, Sinks: []config.Sink{&config.VaultSink{Mount: "secret", Path: name}}})
	}
	w := newWatch(&App{})
	w.set(c)
	groups := make(map[*byte]bool)
	before := make(map[string]*watched)
	for key, item := range w.items {
		groups[unsafe.StringData(item.group)] = true
		before[key] = item
		if item.sink != "vault:secret/"+item.token || unsafe.StringData(item.sink) != unsafe.StringData(key[len(item.token)+1:]) {
			t.Errorf("the sink %q of %q is a text of its own", item.sink, item.token)
		}
	}
	if len(groups) != 1 || len(before) != 3 {
		t.Errorf("%d things are watched, with %d names of groups", len(before), len(groups))
	}
	w.set(c)
	for key, item := range w.items {
		if before[key] != item {
			t.Errorf("%q was replaced", key)
		}
	}
	c.Tokens = c.Tokens[:1]
	if w.set(c); len(w.items) != 1 || w.queue.Len() != 1 {
		t.Errorf("%d are watched and %d planned after a reload with one", len(w.items), w.queue.Len())
	}
}
