package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// Reload takes a new configuration while the daemon runs: tokens may come, go and change,
// and so may freezes and accounts. Nothing pauses for it, and a rotation in hand is finished
// as it began. What asks for a restart, or would drop a rotation in hand, is refused as a
// whole, and the configuration before stays in force.
func (a *App) Reload(ctx context.Context, c *config.Config) error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	err := a.reload(ctx, c)
	if err != nil {
		a.Refused()
		return err
	}
	a.metrics.ConfigLoaded(a.now())
	a.refusedAt.Store(nil)
	a.ahead.Set(a.checksAhead())
	a.ahead.LookNow(status.Check.Fails) // whoever has mended something wants to see what comes of it
	return nil
}

// Refused records that a new configuration could not even be read.
func (a *App) Refused() {
	at := a.now().UTC()
	a.refusedAt.Store(&at)
	a.metrics.ConfigRefused()
}

func (a *App) reload(ctx context.Context, c *config.Config) error {
	before := a.inForce()
	if err := errors.Join(asksForRestart(before, c), a.checkForgotten(c)); err != nil {
		return err
	}
	a.mu.Lock()
	accounts := maps.Clone(a.accounts)
	a.mu.Unlock()
	var came, gone []string
	used := accountsOf(c)
	for name := range used {
		if accounts[name] == nil {
			accounts[name] = a.newAccount(c.Accounts[name])
			came = append(came, name)
		}
	}
	for name := range accounts {
		if !used[name] {
			gone = append(gone, name)
		}
	}
	tokens, err := a.tokens(c, accounts)
	if err != nil {
		return err
	}
	old, now := byName(before.Tokens), byName(c.Tokens)
	var changed []rotation.Token
	for i, token := range tokens {
		if was, known := old[token.Name]; !known || !same(was, c.Tokens[i]) {
			changed = append(changed, token)
		}
	}
	var removed []string
	for name := range old {
		if _, kept := now[name]; !kept {
			removed = append(removed, name)
		}
	}
	a.mu.Lock()
	if a.stopping.Load() { // what is started now would not be stopped any more
		a.mu.Unlock()
		return errors.New("the daemon is stopping")
	}
	if err := a.engine.exchange(changed, removed); err != nil {
		a.mu.Unlock()
		return err
	}
	var dropped []*account
	for _, name := range gone {
		dropped = append(dropped, accounts[name])
		delete(accounts, name)
	}
	a.config, a.accounts = c, accounts
	for _, name := range came {
		a.startInventory(name, accounts[name])
	}
	a.mu.Unlock()
	a.log.Info("the configuration was reloaded", "tokens", len(c.Tokens), "new_or_changed", len(changed), "removed", len(removed))
	for _, token := range changed {
		a.metrics.Known(token.Name)
	}
	for _, name := range removed {
		a.metrics.Forget(name)
	}
	a.engine.settle(ctx, changed)
	for _, account := range dropped {
		_ = account.stop(ctx) // one that takes longer ends by itself
		account.client.Close()
	}
	return nil
}

// asksForRestart refuses what is read at start only.
func asksForRestart(before, after *config.Config) error {
	var changed []string
	for _, part := range []struct {
		path          string
		before, after any
	}{
		{"listen", before.Listen, after.Listen},
		{"admin_socket", before.AdminSocket, after.AdminSocket},
		{"log", before.Log, after.Log},
		{"state", before.State, after.State},
		{"vault", before.Vault, after.Vault},
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
	return fmt.Errorf("a change of %s asks for a restart: tokens, defaults, freezes and further accounts are what can be reloaded", strings.Join(changed, ", "))
}

func byName(tokens []config.Token) map[string]config.Token {
	all := make(map[string]config.Token, len(tokens))
	for _, t := range tokens {
		all[t.Name] = t
	}
	return all
}

// same reports whether two tokens are configured alike. Schedules are compared by what they
// say: they were parsed anew.
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
