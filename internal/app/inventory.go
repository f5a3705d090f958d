package app

import (
	"context"
	"errors"
	"iter"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"rotatord/internal/cloudflare"
	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// How long to wait before a listing that failed is tried again.
const (
	inventoryRetry    = 5 * time.Second
	inventoryRetryMax = 5 * time.Minute
)

// largeListing is the number of entries from which on the memory of a listing is given back at once.
const largeListing = 5000

// startInventory starts to list an account regularly, and to read its credential.
func (a *App) startInventory(name string, account *account) {
	stopWatch := startLoop(account.client.WatchCredential)
	stopList := startLoop(func(ctx context.Context) { a.inventory(ctx, name, account) })
	account.stop = func(bound context.Context) error { return errors.Join(stopList(bound), stopWatch(bound)) }
}

// stopInventories stops all of them.
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

// inventory lists an account regularly until ctx ends. One listing shows all its tokens: their state before
// the next rotation, when each expires, whether it is enabled.
func (a *App) inventory(ctx context.Context, name string, account *account) {
	if !a.sharing.waitJoined(ctx) {
		return
	}
	retry := inventoryRetry
	for {
		if !a.waitToList(ctx, name, account) {
			return
		}
		wait := account.every - rand.N(account.every/10)
		urgent := ctx
		if !account.inventoried.Load() {
			// The first listing answers for all tokens what would otherwise be one request for each. It must
			// not wait behind what is due.
			urgent = rotation.WithUrgency(ctx, rotation.UrgencyManual)
		}
		began, first := a.now(), false
		all, err := account.client.List(urgent)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			wait = retry
			retry = min(2*retry, inventoryRetryMax)
			a.tell("", event.ListingFailure{Account: name, Err: err, Listed: len(all.Tokens), RetryIn: wait})
		}
		if what := all.Unreadable(); what != "" {
			a.tell("", event.OddListing{Account: name, What: what})
		}
		// An incomplete listing says something about the entries that it has, and about nothing else.
		if err == nil || len(all.Tokens) > 0 {
			a.recordListing(ctx, name, listing{all, err == nil, began})
			first = !account.inventoried.Swap(true)
		}
		if err == nil {
			retry = inventoryRetry
			account.size.Store(int64(all.Size()))
			a.inventoried(ctx, name, account, true)
		}
		if first && a.allListed() || len(all.Tokens) >= largeListing {
			all = cloudflare.Listing{}
			debug.FreeOSMemory() // the start needs twice what the daemon needs from now on, and a large listing not much less
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// allListed reports whether each account was listed at least once.
func (a *App) allListed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, account := range a.accounts {
		if !account.inventoried.Load() {
			return false
		}
	}
	return true
}

// listing is what a listing showed.
type listing struct {
	cloudflare.Listing
	whole bool      // it is complete: what it does not have does not exist
	began time.Time // what was created later may be missing
}

// byID returns the entries that could be read.
func (l listing) byID() map[string]*rotation.TokenFacts {
	all := make(map[string]*rotation.TokenFacts, len(l.Tokens))
	for i := range l.Tokens {
		all[l.Tokens[i].ID] = &l.Tokens[i]
	}
	return all
}

// serviceTokens returns the IDs of the service tokens of an entry of the configuration: one, the two of a
// pair, or none if it is still to be created.
func (s scheduled) serviceTokens(t config.Token) []string {
	return slices.DeleteFunc([]string{s.token.ServiceToken(s.record), t.Partner}, func(id string) bool { return id == "" })
}

// isNews reports whether a listing shows anything that is not known yet. When service tokens were used is not
// news: that changes all the time, and the regular listing records it. Tokens with a rotation in progress are
// also left to the regular listing.
func (a *App) isNews(account string, listed listing) bool {
	byID := listed.byID()
	for t := range a.tokensIn(account) {
		seen, ok := a.engine.view(t.Name)
		if ok && seen.record.Step == rotation.StepIdle && seen.isNews(t, byID, listed.Odd) {
			return true
		}
	}
	return false
}

// isNews does the same for one token.
func (s scheduled) isNews(t config.Token, listed map[string]*rotation.TokenFacts, odd map[string]string) bool {
	gone := false
	for _, id := range s.serviceTokens(t) {
		entry, there := listed[id]
		if _, unreadable := odd[id]; !there {
			gone = gone || !unreadable
			continue
		}
		now := *entry
		known := s.record.FactsOf(id)
		if now.LastSeenAt = known.LastSeenAt; now.UpdatedAt.Before(known.UpdatedAt) { // the listing is older, or its times are coarser
			now.UpdatedAt = known.UpdatedAt
		}
		if now != known {
			return true
		}
	}
	return gone != s.gone
}

// recordListing compares a listing with what is configured.
func (a *App) recordListing(ctx context.Context, account string, seen listing) {
	byID := seen.byID()
	if a.sharing == nil {
		a.engine.recordListings(ctx, a.newsOf(ctx, account, byID, seen))
		return
	}
	// A shared ledger has no transaction, and answers each save after some milliseconds.
	var recording errgroup.Group
	recording.SetLimit(recordsAtOnce)
	for token := range a.tokensIn(account) {
		recording.Go(func() error {
			a.recordToken(ctx, token, byID, seen, func(s scheduled, facts rotation.TokenFacts) {
				a.engine.recordListing(ctx, s.token.Name, facts, seen.began)
			})
			return nil
		})
	}
	_ = recording.Wait()
}

// newsOf returns the tokens of which a listing shows what their records may not have, one after the other: a large fleet has a hundred
// megabytes of them. It compares a token when that is asked for.
func (a *App) newsOf(ctx context.Context, account string, byID map[string]*rotation.TokenFacts, seen listing) iter.Seq[rotation.Listed] {
	return func(yield func(rotation.Listed) bool) {
		for token := range a.tokensIn(account) {
			var one rotation.Listed
			a.recordToken(ctx, token, byID, seen, func(s scheduled, facts rotation.TokenFacts) {
				one.Token, one.Facts = s.token, append(one.Facts, facts)
			})
			if len(one.Facts) > 0 && !yield(one) {
				return
			}
		}
	}
}

// recordsAtOnce is how many records of a shared ledger a listing changes at the same time.
const recordsAtOnce = 16

// recordToken compares the service token of one entry, or the two of a pair, with a listing. record is called with facts
// that the record of the token may not have yet, unless a doubt looks at them at once.
func (a *App) recordToken(ctx context.Context, t config.Token, listed map[string]*rotation.TokenFacts, from listing, record func(scheduled, rotation.TokenFacts)) {
	seen, ok := a.engine.view(t.Name)
	if !ok || seen.enrolling {
		return
	}
	unknown := false
	gone := false
	for _, id := range seen.serviceTokens(t) {
		log := a.log.With("token", t.Name, "account", t.Account, "token_id", id)
		tell := func(what event.Kind, err string) {
			a.tell(t.Name, event.Seen{What: what, Account: t.Account, TokenID: id, Err: err})
		}
		entry, there := listed[id]
		if what, odd := from.Odd[id]; odd {
			tell(event.TokenUnreadable, what)
			continue
		}
		if !there && !from.whole {
			unknown = true
			continue
		}
		if !there && seen.createdSince(from.began) {
			continue // a listing takes minutes where the budget is short
		}
		if !there && !seen.gone { // a listing may miss an entry that moved between its pages
			asked, err := seen.token.Issuer.Inspect(ctx, id)
			switch {
			case err == nil:
				entry, there = &asked, true
			case !errors.Is(err, rotation.ErrGone):
				tell(event.TokenNotFound, err.Error())
				continue
			}
		}
		if !there {
			gone = true
			tell(event.TokenGone, "")
			continue
		}
		facts := *entry
		if !facts.Enabled {
			tell(event.TokenDisabled, "")
		}
		switch now, ok := a.engine.view(t.Name); {
		case !ok:
		case now.record.Step == rotation.StepInDoubt:
			a.engine.recordListing(ctx, t.Name, facts, from.began)
		case !now.enrolling && now.record.Step == rotation.StepIdle && a.engine.rotator.IsListingNews(now.token, now.record, facts): // rarely
			record(now, facts)
		}
		if fault, late := a.InForce().ExpiryFault(t.Name, id, a.now(), nextOf(seen), facts.ExpiresAt); late {
			log.Warn(fault.Message, "next", nextOf(seen), "expires", facts.ExpiresAt)
		}
	}
	if !unknown || gone { // an incomplete listing neither raises that alarm nor ends it
		a.engine.setGone(t.Name, gone)
	}
}

// createdSince reports whether the service token may have been created since then.
func (s scheduled) createdSince(then time.Time) bool {
	return s.token.LedgerHasID() && s.record.Last != nil && !s.record.Last.At.Before(then)
}

// nextOf returns when a token is due next; zero if that is not known.
func nextOf(seen scheduled) time.Time {
	if seen.due.Unscheduled {
		return time.Time{}
	}
	return seen.due.At
}

// recordListing gives the rotator what a listing showed, and plans the token again: it may have to be
// renewed, or rotated to make up for a rotation by another writer.
func (e *engine) recordListing(ctx context.Context, name string, facts rotation.TokenFacts, listed time.Time) {
	s, ok := e.view(name)
	if !ok || s.enrolling {
		return
	}
	var record rotation.Record
	var err error
	if s.record.Step == rotation.StepInDoubt {
		record, err = e.rotator.RecordListingOfDoubt(ctx, s.token, facts, listed)
	} else {
		record, err = e.rotator.RecordListing(ctx, s.token, facts)
	}
	if err != nil {
		e.tellUnlisted(err, "token", name)
		return
	}
	e.planNewer(name, record)
}

// recordListings does the same for many tokens at once, of which none is in doubt.
func (e *engine) recordListings(ctx context.Context, all iter.Seq[rotation.Listed]) {
	err := e.rotator.RecordListings(ctx, all, func(record rotation.Record) { e.planNewer(record.Token, record) })
	if err != nil {
		e.tellUnlisted(err)
	}
}

// tellUnlisted logs that what a listing showed could not be recorded.
func (e *engine) tellUnlisted(err error, of ...any) {
	if !e.lost(err) {
		e.log.Error("the ledger could not be written", append(of, "error", err)...)
	}
}

// setGone notes whether the last listing had the service token.
func (e *engine) setGone(name string, gone bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.tokens[name]; s != nil {
		s.gone = gone
	}
}
