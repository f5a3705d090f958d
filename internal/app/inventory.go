package app

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"time"

	"rotatord/internal/rotation"
)

// How often an account is listed, and how soon again if that fails.
const (
	inventoryInterval = time.Hour
	inventoryRetry    = 5 * time.Second
	inventoryRetryMax = 5 * time.Minute
)

// startInventory begins to list an account now and then.
func (a *App) startInventory(name string, account *account) {
	account.stop = begin(func(ctx context.Context) { a.inventory(ctx, name, account) })
}

// stopInventories ends all of them.
func (a *App) stopInventories(bound context.Context) error {
	a.mu.Lock()
	accounts := maps.Clone(a.accounts)
	a.mu.Unlock()
	var errs []error
	for _, account := range accounts {
		errs = append(errs, account.stop(bound))
	}
	return errors.Join(errs...)
}

// inventory lists an account now and then, until ctx ends. One listing tells of all its
// tokens: what was before the next rotation, when each expires, whether it is enabled.
func (a *App) inventory(ctx context.Context, name string, account *account) {
	log := a.log.With("account", name)
	retry := inventoryRetry
	for {
		wait := inventoryInterval - rand.N(inventoryInterval/10)
		all, err := account.client.List(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = retry
			retry = min(2*retry, inventoryRetryMax)
			log.Warn("the account's service tokens could not be listed", "error", err, "retry_in", wait.String())
		default:
			retry = inventoryRetry
			a.learn(ctx, name, all)
			account.inventoried.Store(true)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// learn compares what was listed with what is configured.
func (a *App) learn(ctx context.Context, account string, listed []rotation.TokenFacts) {
	byID := make(map[string]rotation.TokenFacts, len(listed))
	for _, facts := range listed {
		byID[facts.ID] = facts
	}
	for _, token := range a.inForce().Tokens {
		if token.Account != account {
			continue
		}
		ids := []string{token.ID}
		if token.Partner != "" {
			ids = append(ids, token.Partner)
		}
		for _, id := range ids {
			a.learnOne(ctx, token.Name, account, id, byID)
		}
	}
}

// learnOne compares one service token with what was listed.
func (a *App) learnOne(ctx context.Context, name, account, id string, listed map[string]rotation.TokenFacts) {
	log := a.log.With("token", name, "account", account, "token_id", id)
	facts, ok := listed[id]
	if !ok {
		log.Warn("the account has no service token with this id: its rotations will fail until the configuration is corrected")
		return
	}
	if !facts.Enabled {
		log.Warn("the service token is disabled at Cloudflare")
	}
	if err := a.engine.learn(ctx, name, facts); err != nil {
		log.Error("the ledger could not be written", "error", err)
	}
	if seen, ok := a.engine.view(name); ok {
		next := seen.due.At
		if seen.due.Held {
			next = time.Time{}
		}
		if fault, late := a.inForce().ExpiryFault(name, id, a.now(), next, facts.ExpiresAt); late {
			log.Warn(fault.Message, "next", next, "expires", facts.ExpiresAt)
		}
	}
}
