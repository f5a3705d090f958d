package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// Reload takes over a new configuration while the daemon runs. Tokens, freezes and accounts may be added,
// removed and changed. Nothing stops for it, and a rotation in progress is finished as it began. A
// configuration that needs a restart, or that would drop a rotation in progress, is refused as a whole,
// and the old one stays in force. The configuration in force itself (see InForce) is taken over without a look at its tokens.
func (a *App) Reload(ctx context.Context, c *config.Config) error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	defer debug.FreeOSMemory() // to read a configuration needs several times what is kept of it
	if err := a.reload(ctx, c); err != nil {
		a.Refused(ctx, event.ReloadRefusal{Err: err})
		return err
	}
	a.metrics.ConfigLoaded(a.now())
	a.metrics.Essential(c.Metrics.PerToken == "essential")
	a.refused.Store(nil)
	a.ahead.Set(a.checksAhead())
	a.notifier.Set(c.Notify)
	a.ahead.LookNow(status.Check.Fails) // an operator who has corrected something wants to see the result
	return nil
}

// Refused records and tells that a new configuration was not taken over.
func (a *App) Refused(ctx context.Context, why event.ReloadRefusal) {
	a.refused.Store(&refusal{a.now().UTC(), whyRefused(why)})
	a.metrics.ConfigRefused()
	a.events.Tell("", actorOf(ctx), why)
}

// refusal is when and why a new configuration was not taken over.
type refusal struct {
	at  time.Time
	why string
}

// whyRefused returns the first reason in one line, and how many more there are.
func whyRefused(why event.ReloadRefusal) string {
	switch n := len(why.Faults); {
	case n == 1:
		return why.Faults[0]
	case n > 1:
		return fmt.Sprintf("%s (and %d more)", why.Faults[0], n-1)
	case why.Err != nil:
		return why.Err.Error()
	}
	return "the log says why"
}

// actorOf returns in whose name something is done; the daemon if the context does not say.
func actorOf(ctx context.Context) event.Actor {
	if by, ok := event.ActorFrom(ctx); ok {
		return by
	}
	return event.Daemon
}

// changes are what a reload changes.
type changes struct {
	tokens         []rotation.Token // that are new or changed
	removed        []string         // names of tokens
	accounts       map[string]*account
	added, dropped []string // names of accounts
	hooks          map[string]map[string]*action
}

// changesTo returns the changes from the configuration in force to a new one. It opens the new accounts
// and sinks, and starts nothing.
func (a *App) changesTo(c *config.Config) (changes, error) {
	var ch changes
	a.mu.Lock()
	ch.accounts = maps.Clone(a.accounts)
	a.mu.Unlock()
	used := accountsOf(c)
	for name := range used {
		if ch.accounts[name] == nil {
			ch.accounts[name] = a.newAccount(c.Accounts[name])
			ch.added = append(ch.added, name)
		}
	}
	for name := range ch.accounts {
		if !used[name] {
			ch.dropped = append(ch.dropped, name)
		}
	}
	var changed []config.Token
	changed, ch.removed = takeUnchanged(a.InForce().Tokens, c.Tokens)
	var err error
	if ch.tokens, err = a.tokens(changed, ch.accounts); err != nil {
		return changes{}, err
	}
	if ch.hooks, err = a.hooks.open(c); err != nil {
		return changes{}, err
	}
	return ch, nil
}

// takeUnchanged compares the tokens of two configurations, which are in the order of their names. It returns those that are
// new or changed, and the names of those that were removed. In after it replaces those that did not change by the ones of
// before, which are in use and stay in memory.
func takeUnchanged(before, after []config.Token) (changed []config.Token, removed []string) {
	for i := range after {
		for len(before) > 0 && before[0].Name < after[i].Name {
			removed = append(removed, before[0].Name)
			before = before[1:]
		}
		if len(before) == 0 || before[0].Name != after[i].Name {
			changed = append(changed, after[i])
			continue
		}
		if same(before[0], after[i]) {
			after[i] = before[0]
		} else {
			changed = append(changed, after[i])
		}
		before = before[1:]
	}
	for _, t := range before {
		removed = append(removed, t.Name)
	}
	return changed, removed
}

func (a *App) reload(ctx context.Context, c *config.Config) error {
	if c == a.InForce() {
		if err := a.checkUnfinished(c); err != nil {
			return err
		}
		a.events.Tell("", actorOf(ctx), event.Reload{Tokens: len(c.Tokens)})
		return nil
	}
	if err := errors.Join(asksForRestart(a.InForce(), c), a.checkUnfinished(c)); err != nil {
		return err
	}
	ch, err := a.changesTo(c)
	if err != nil {
		return err
	}
	dropped, err := a.adopt(c, ch)
	if err != nil {
		return err
	}
	a.events.Tell("", actorOf(ctx), event.Reload{Tokens: len(c.Tokens), Changed: len(ch.tokens), Removed: len(ch.removed)})
	for _, token := range ch.tokens {
		a.metrics.Known(token.Name)
	}
	for _, name := range ch.removed {
		a.metrics.Forget(name)
	}
	a.engine.enrollReloaded(ctx, ch.tokens)
	for _, account := range dropped {
		_ = account.stop(ctx) // if it takes longer, it ends by itself
		account.client.Close()
	}
	a.watch.set(c)
	return nil
}

// adopt puts a configuration in force, all of it or nothing, and returns the accounts that no token uses
// any more.
func (a *App) adopt(c *config.Config, ch changes) (dropped []*account, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopping.Load() { // what starts now would never be stopped
		return nil, errors.New("the daemon is stopping")
	}
	if err := a.engine.replaceTokens(ch.tokens, ch.removed); err != nil {
		return nil, err
	}
	for _, name := range ch.dropped {
		dropped = append(dropped, ch.accounts[name])
		delete(ch.accounts, name)
	}
	a.config, a.accounts, a.index = c, ch.accounts, nil
	a.files.Set(c.Tokens)
	a.hooks.set(ch.hooks)
	for _, name := range ch.added {
		a.startInventory(name, ch.accounts[name])
	}
	return dropped, nil
}

// asksForRestart returns an error if parts have changed that are read only at the start.
func asksForRestart(before, after *config.Config) error {
	var changed []string
	for _, part := range []struct {
		path          string
		before, after any
	}{
		{"listen", before.Listen, after.Listen},
		{"external_url", before.ExternalURL, after.ExternalURL},
		{"admin_socket", before.AdminSocket, after.AdminSocket},
		{"log", before.Log, after.Log},
		{"state", before.State, after.State},
		{"audit", before.Audit, after.Audit},
		{"vault", before.Vault, after.Vault},
		{"kubernetes", before.Kubernetes, after.Kubernetes},
	} {
		if !reflect.DeepEqual(part.before, part.after) {
			changed = append(changed, part.path)
		}
	}
	used := accountsOf(before)
	for _, name := range slices.Sorted(maps.Keys(after.Accounts)) {
		if was, known := before.Accounts[name]; known && used[name] && was != after.Accounts[name] {
			changed = append(changed, "accounts."+name)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return fmt.Errorf("a change of %s asks for a restart: tokens, defaults, freezes, receivers and further accounts are what can be reloaded", strings.Join(changed, ", "))
}

// same reports whether two tokens have the same configuration. Schedules are compared by their text,
// because each configuration has parsed its own.
func same(a, b config.Token) bool {
	if a.Schedule.String() != b.Schedule.String() || a.Schedule.Location().String() != b.Schedule.Location().String() || len(a.Freezes) != len(b.Freezes) {
		return false
	}
	for i := range a.Freezes {
		x, y := a.Freezes[i], b.Freezes[i]
		if (x.Schedule == nil) != (y.Schedule == nil) || !x.From.Equal(y.From) || !x.To.Equal(y.To) {
			return false
		}
		if x.Schedule != nil && (x.Schedule.String() != y.Schedule.String() || x.Schedule.Location().String() != y.Schedule.Location().String()) {
			return false
		}
		if x.Name != y.Name || x.Skip != y.Skip || x.Duration != y.Duration {
			return false
		}
	}
	a.Schedule, b.Schedule, a.Freezes, b.Freezes = nil, nil, nil, nil
	return reflect.DeepEqual(a, b)
}
