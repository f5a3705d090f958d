package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/kvstore"
	"rotatord/internal/rotation"
)

// This file shares the inventory: one replica lists an account, and all learn from it. What a listing shows of a
// service token is in the token's record. The rest is in an entry of the account, which is written if it changes.

const (
	// listsEvery is how often a replica looks whether it is the one that lists.
	listsEvery = 5 * time.Second
	// inventoryFormat is the format of the entries.
	inventoryFormat = 1
)

// inventoryEntry is what all replicas know of the last complete listing of an account.
type inventoryEntry struct {
	Format int       `json:"format"`
	At     time.Time `json:"at"`   // when it was listed
	By     string    `json:"by"`   // by which replica
	Size   int64     `json:"size"` // how many service tokens it had
	Gone   []string  `json:"gone"` // the names of the tokens whose service token it did not have, sorted
}

// inventoryName returns the name of an account's entry.
func inventoryName(account string) string { return "inventory/" + account }

// accountKey stands for an account where replicas ask who comes first.
func accountKey(account string) string { return "account/" + account }

// lists reports whether this replica lists an account.
func (a *App) lists(account string) bool {
	s := a.sharing
	return s == nil || s.isJoined() && s.room.MayBegin() == nil && s.room.Wait(accountKey(account), rotation.Record{}) == 0
}

// waitToList waits until this replica is the one that lists an account, and a listing is due. It returns false if ctx
// ends before. A daemon that is alone does not wait.
func (a *App) waitToList(ctx context.Context, name string, account *account) bool {
	if a.sharing == nil {
		return true
	}
	for {
		due := time.Unix(0, account.listedAt.Load()).Add(account.every * 9 / 10)
		switch first, known := a.lists(name), account.inventoried.Load(); {
		case first && (!known || !a.now().Before(due)):
			return true
		case !first && !known: // it came first when the other replica told of its listing, and does not any more
			if err := a.sharing.learnInventory(ctx, name); err != nil && ctx.Err() == nil {
				a.log.Debug("what another replica has listed cannot be read yet", "account", name, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(listsEvery):
		}
	}
}

// inventoried notes that an account was listed in full, and tells the other replicas what that has changed.
func (a *App) inventoried(ctx context.Context, name string, account *account, regular bool) {
	now := a.now()
	a.metrics.Inventoried(name, now)
	account.listedAt.Store(now.UnixNano())
	if a.sharing == nil {
		return
	}
	entry := inventoryEntry{Format: inventoryFormat, At: now.UTC(), By: a.sharing.replica.Name, Size: account.size.Load(), Gone: a.goneOf(name)}
	if err := a.sharing.tellInventory(ctx, name, entry, regular); err != nil && ctx.Err() == nil {
		a.log.Warn("the other replicas could not be told what a listing has shown; the next one tells them", "account", name, "error", err)
	}
}

// tellInventory writes the entry of an account if it has news, or if the listing was a regular one.
func (s *sharing) tellInventory(ctx context.Context, account string, entry inventoryEntry, regular bool) error {
	s.inventories.Lock()
	defer s.inventories.Unlock()
	for range 2 {
		known, before, err := s.readInventory(ctx, account)
		if err != nil {
			return err
		}
		if !regular && known.Version > 0 && before.Size == entry.Size && slices.Equal(before.Gone, entry.Gone) {
			return nil
		}
		_, err = s.kv.Put(ctx, inventoryName(account), entry, known.Version)
		if err == nil {
			s.room.Notice(inventoryName(account))
		}
		if !errors.Is(err, kvstore.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("account %s: %w", account, kvstore.ErrConflict)
}

func (s *sharing) readInventory(ctx context.Context, account string) (kvstore.Entry, inventoryEntry, error) {
	var entry inventoryEntry
	stored, err := s.kv.Get(ctx, inventoryName(account))
	if err == nil && stored.Version > 0 {
		err = stored.Decode(inventoryName(account), &entry)
	}
	if err == nil && entry.Format > inventoryFormat {
		err = fmt.Errorf("%s has format %d, of a newer version of rotatord: update this replica", inventoryName(account), entry.Format)
	}
	return stored, entry, err
}

// learnInventory takes over what another replica's listing has shown.
func (s *sharing) learnInventory(ctx context.Context, name string) error {
	account := s.app.accountOf(name)
	if account == nil || !account.inventoried.Load() && s.app.lists(name) { // this replica lists it at once
		return nil
	}
	stored, entry, err := s.readInventory(ctx, name)
	if err != nil || stored.Version == 0 || entry.By == s.replica.Name && account.inventoried.Load() {
		return err
	}
	account.size.Store(entry.Size)
	account.listedAt.Store(entry.At.UnixNano())
	s.app.setGoneOf(name, entry)
	account.inventoried.Store(true)
	s.app.metrics.Inventoried(name, entry.At)
	return nil
}

// goneOf returns the names of the tokens of an account whose service token the last listing did not have, sorted.
func (a *App) goneOf(account string) (gone []string) {
	for t := range a.tokensIn(account) {
		if seen, ok := a.engine.view(t.Name); ok && seen.gone {
			gone = append(gone, t.Name)
		}
	}
	slices.Sort(gone)
	return gone
}

// setGoneOf notes which tokens of an account are gone.
func (a *App) setGoneOf(account string, listed inventoryEntry) {
	gone := make(map[string]bool, len(listed.Gone))
	for _, name := range listed.Gone {
		gone[name] = true
	}
	for t := range a.tokensIn(account) {
		if seen, ok := a.engine.view(t.Name); ok {
			a.engine.setGone(t.Name, gone[t.Name] && !seen.createdSince(listed.At))
		}
	}
}
