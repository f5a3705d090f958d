package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/precheck"
	"rotatord/internal/rotation"
	"rotatord/internal/sink"
	"rotatord/internal/statedir"
	"rotatord/internal/status"
)

// This file looks ahead: it checks everything that the next rotation will need, long before the rotation is
// due.

// How often each thing is checked while all is well, and how long one look may take.
const (
	diskEvery       = time.Minute
	diskTimeout     = 10 * time.Second
	credentialEvery = 15 * time.Second
	notifyEvery     = time.Minute
	vaultEvery      = time.Minute
	sinkEvery       = 5 * time.Minute
	remoteTimeout   = 30 * time.Second
	accountEvery    = 2 * time.Minute
	// accountSpread keeps all accounts together below 50 requests in five minutes: they may share one
	// credential and its limit.
	accountSpread = 6 * time.Second
	// sessionLasts is how long the session with Vault must still last. A shorter one counts as about to end.
	sessionLasts = 10 * time.Second
)

// lookAhead starts the look-ahead checks.
func (a *App) lookAhead() {
	a.ahead.Set(a.checksAhead())
	a.onStop("looking ahead", a.ahead.Close)
}

// tellCheck tells that the result of a check is another one.
func (a *App) tellCheck(c status.Check) {
	a.tell("", event.CheckResult{
		Check: c.Name, Subject: c.Subject, OK: c.OK, Stops: c.Stops, Reason: c.Reason, Detail: c.Detail, Credential: c.Name == status.CheckCredential,
	})
}

// checksAhead returns the checks for the configuration in force.
func (a *App) checksAhead() []precheck.Check {
	checks := []precheck.Check{
		{Name: status.CheckStateDirectory, Every: diskEvery, Timeout: diskTimeout, Stops: true, Look: a.lookAtState},
		{Name: status.CheckDiskSpace, Every: diskEvery, Timeout: diskTimeout, Look: func(context.Context) error {
			return statedir.Space(a.InForce().State.Dir)
		}},
		{Name: status.CheckAudit, Every: diskEvery, Timeout: diskTimeout, Stops: true, Look: a.record.Prove},
	}
	if a.session != nil {
		checks = append(checks, precheck.Check{Name: status.CheckVault, Every: vaultEvery, Timeout: remoteTimeout, Stops: true, Look: a.lookAtVaultAhead})
	}
	for _, group := range slices.Sorted(maps.Keys(a.sinkGroups())) {
		next := &nextSink{}
		checks = append(checks, precheck.Check{Name: status.CheckSink, Subject: group, Every: sinkEvery, Timeout: remoteTimeout, Stops: true,
			Look: func(ctx context.Context) error { return a.lookAtSink(ctx, group, next) }})
	}
	for _, r := range a.InForce().Notify {
		checks = append(checks, precheck.Check{Name: status.CheckNotify, Subject: r.Name, Every: notifyEvery, Timeout: remoteTimeout,
			Look: func(ctx context.Context) error { return a.lookAtReceiver(ctx, r.Name) }})
	}
	a.mu.Lock()
	accounts := maps.Clone(a.accounts)
	a.mu.Unlock()
	every := max(accountEvery, time.Duration(len(accounts))*accountSpread)
	for _, name := range slices.Sorted(maps.Keys(accounts)) {
		client := accounts[name].client
		checks = append(checks,
			precheck.Check{Name: status.CheckCredential, Subject: name, Every: credentialEvery, Timeout: diskTimeout, Stops: true,
				Look: func(context.Context) error { return client.CredentialError() }},
			precheck.Check{Name: status.CheckCloudflare, Subject: name, Every: every, Timeout: remoteTimeout, Stops: true,
				Look: func(ctx context.Context) error { return a.lookAtAccount(ctx, name) }})
	}
	return checks
}

// lookAtState writes what a rotation would write. While a rotation is in progress, its own writes are the
// proof, and nothing else may take its disk space.
func (a *App) lookAtState(ctx context.Context) error {
	err := a.state.disk.Present()
	if busy := len(a.engine.names(func(s *kept) bool { return s.active > 0 })) > 0; err == nil && busy {
		_, err = a.state.disk.LastWrite()
	} else if err == nil {
		err = a.state.disk.Prove(ctx)
		if a.sharing == nil { // a shared ledger is elsewhere
			a.outages.note("ledger", err == nil)
		}
	}
	return err
}

// lookAtVaultAhead returns why no secret could be stored in Vault now.
func (a *App) lookAtVaultAhead(ctx context.Context) error {
	if err := a.session.CheckSeal(ctx); err != nil {
		return err
	}
	a.outages.note("Vault", true)
	return a.session.Ready(ctx, sessionLasts)
}

// sinkGroups returns the groups of the sinks in the configuration in force, and whether they need Vault. Each
// group is the subject of one check.
func (a *App) sinkGroups() map[string]bool {
	c, x := a.indexed()
	needVault := make(map[string]bool, len(x.byGroup))
	for group, places := range x.byGroup {
		needVault[group] = c.Tokens[places[0].token].Sinks[places[0].sink].NeedsVault()
	}
	return needVault
}

// nextSink says where the check of a group of sinks continues. One look is at one sink, and the sinks take
// turns: those whose tokens are due next come first. A sink that fails is looked at until it is good.
type nextSink struct {
	round  map[string]bool // by place: it was looked at in this round
	failed string          // the place that failed last; empty if none did
}

// lookAtSink proves that one of the sinks of a group could be written now. It writes nothing.
func (a *App) lookAtSink(ctx context.Context, group string, next *nextSink) error {
	at := next.choose(a.sinksIn(group))
	if at.sink == nil {
		return nil
	}
	err := at.sink.LookAhead(ctx)
	if errors.Is(err, sink.ErrNotTried) { // the check of Vault says why
		return fmt.Errorf("%w: %w", precheck.ErrNothingLearned, err)
	}
	if err != nil && ctx.Err() == nil {
		next.failed = at.sink.Name()
		return fmt.Errorf("%s, of token %s: %w", at.sink.Name(), at.token, err)
	}
	if err == nil {
		next.failed = ""
	}
	return err
}

// dueSink is a sink, with its token and when that is due.
type dueSink struct {
	sink  sink.Sink
	token string
	due   time.Time
}

// sinksIn returns the sinks of a group. Those whose tokens are due next come first.
func (a *App) sinksIn(group string) (all []dueSink) {
	c, x := a.indexed()
	for _, place := range x.byGroup[group] {
		t := &c.Tokens[place.token]
		seen, ok := a.engine.view(t.Name)
		if !ok || len(seen.token.Sinks) != len(t.Sinks) || !a.engine.ours(seen) { // a reload is in progress, or another replica looks
			continue
		}
		if opened, ok := seen.token.Sinks[place.sink].(sink.Sink); ok {
			all = append(all, dueSink{opened, t.Name, seen.due.At})
		}
	}
	slices.SortStableFunc(all, func(x, y dueSink) int { return x.due.Compare(y.due) })
	return all
}

// choose returns the sink whose turn it is, and notes that. It returns the zero dueSink if there is none.
func (n *nextSink) choose(all []dueSink) dueSink {
	if len(all) == 0 {
		return dueSink{}
	}
	i := slices.IndexFunc(all, func(s dueSink) bool { return s.sink.Name() == n.failed })
	if i < 0 {
		i = slices.IndexFunc(all, func(s dueSink) bool { return !n.round[s.sink.Name()] })
	}
	if i < 0 || n.round == nil { // all have had their turn
		i, n.round = max(i, 0), make(map[string]bool)
	}
	n.round[all[i].sink.Name()] = true
	return all[i]
}

// lookAtAccount reads all service tokens of a small account. In a larger one it reads the service token that
// is due next, or looks for the one that is to be created. It proves that Cloudflare can be reached and
// accepts the credential. What is wrong with one service token only is left to the listing.
func (a *App) lookAtAccount(ctx context.Context, account string) error {
	if _, failing := a.ahead.Failing(status.CheckCredential, account); failing {
		return fmt.Errorf("%w: the credential cannot be read", precheck.ErrNothingLearned)
	}
	if a.lookAtSmallAccount(ctx, account) {
		return nil
	}
	token, id := a.tokenToLookAt(account)
	var err error
	switch {
	case token.Issuer == nil:
		return precheck.ErrNothingLearned // a reload is in progress, or other replicas work on all tokens
	case id != "":
		_, err = token.Issuer.Inspect(ctx, id)
	default:
		_, err = token.Creator.Find(ctx, token.Create.Name)
	}
	e, isIssuers := errors.AsType[*rotation.IssuerError](err)
	switch {
	case err == nil, errors.Is(err, rotation.ErrGone):
		return nil
	case a.credentialError(account) != nil: // the check of the credential says so
		return fmt.Errorf("%w: %w", precheck.ErrNothingLearned, err)
	case isIssuers && e.Class == rotation.Throttled, // it has an alert of its own
		isIssuers && e.Status == 0 && e.Class == rotation.NotCarriedOut && ctx.Err() != nil: // it waited for the request budget
		return fmt.Errorf("%w: %w", precheck.ErrNothingLearned, err)
	}
	return err
}

// credentialError returns why the credential of an account cannot be read; nil if it can, or if there is no
// such account.
func (a *App) credentialError(name string) error {
	if account := a.accountOf(name); account != nil {
		return account.client.CredentialError()
	}
	return nil
}

// smallAccount is the number of service tokens that one request lists in an answer that is not large.
const smallAccount = 200

// lookAtSmallAccount lists a small account. So the daemon sees long before the next regular listing that a
// service token is disabled, gone or rotated by another writer. It returns false if nothing could be seen.
func (a *App) lookAtSmallAccount(ctx context.Context, name string) bool {
	account := a.accountOf(name)
	if account == nil || account.size.Load() < 0 || account.size.Load() > smallAccount || !a.lists(name) {
		return false
	}
	seen := listing{whole: true, began: a.now()}
	var err error
	if seen.Listing, err = account.client.List(ctx); err != nil {
		return false
	}
	if account.size.Store(int64(seen.Size())); a.isNews(name, seen) {
		a.recordListing(ctx, name, seen)
	}
	a.inventoried(ctx, name, account, false)
	return true
}

// tokenToLookAt returns the token of an account that is due next, and its service token if there is one.
func (a *App) tokenToLookAt(account string) (token rotation.Token, id string) {
	var best scheduled
	for t := range a.tokensIn(account) {
		if seen, ok := a.engine.view(t.Name); ok && a.engine.ours(seen) && (best.token.Issuer == nil || seen.due.At.Before(best.due.At)) {
			best = seen
		}
	}
	return best.token, best.token.ServiceToken(best.record)
}

// Checks implements [httpapi.Source] and [admin.Daemon]: the results of the look-ahead checks, and what the
// daemon knows about itself.
func (a *App) Checks() []status.Check {
	// A fault is shown once, at its cause and not at its consequences.
	needVault := sync.OnceValue(a.sinkGroups) // it reads all tokens
	all := slices.DeleteFunc(a.ahead.Results(), func(c status.Check) bool {
		cause, subject := "", ""
		switch c.Name {
		case status.CheckDiskSpace, status.CheckAudit:
			cause = status.CheckStateDirectory
		case status.CheckSink:
			if !c.OK && needVault()[c.Subject] {
				cause = status.CheckVault
			}
		case status.CheckCloudflare:
			cause, subject = status.CheckCredential, c.Subject
		}
		_, failing := a.ahead.Failing(cause, subject)
		return !c.OK && failing
	})
	now := a.now().UTC()
	// What the daemon knows about itself. Without a fault it is good.
	add := func(name, reason, fault string, since time.Time) {
		c := status.Check{Name: name, OK: fault == "", LookedAt: now}
		if !c.OK {
			c.Reason, c.Detail, c.Since = reason, fault, since
		}
		all = append(all, c)
	}
	refused, since := "", time.Time{}
	if last := a.refused.Load(); last != nil {
		refused, since = "the last reload was refused, and the configuration before it is in force: "+last.why, last.at
	}
	add(status.CheckConfiguration, "refused", refused, since)
	damage, found := a.recordDamage()
	add(status.CheckAuditChain, "damaged", damage, found)
	add(status.CheckClock, "set", a.clockFault(), time.Time{})
	if a.session != nil {
		health := a.session.Health()
		add(status.CheckVaultTLS, health.TLSReason, health.TLS, health.TLSSince)
		add(status.CheckVaultLogin, health.LoginReason, health.Login, health.LoginSince)
		add(status.CheckWrappingToken, "unwrap_refused", health.Unwrap, health.UnwrapSince)
	}
	in := a.InForce()
	for i := range all {
		if all[i].Fails() {
			all[i].Place = placeOf(all[i], in)
		}
	}
	return all
}

// placeOf returns where a check that fails is mended, as the configuration says it; empty if it does not.
func placeOf(c status.Check, in *config.Config) string {
	switch c.Name {
	case status.CheckStateDirectory, status.CheckDiskSpace:
		return in.State.Dir
	case status.CheckAudit, status.CheckAuditChain:
		return filepath.Dir(in.Audit.File)
	case status.CheckVault, status.CheckVaultTLS, status.CheckVaultLogin, status.CheckWrappingToken:
		if in.Vault != nil {
			return in.Vault.Address
		}
	case status.CheckSink:
		kind, place, _ := strings.Cut(c.Subject, ":")
		switch {
		case kind == "file":
			return place
		case kind == "vault" && in.Vault != nil:
			return in.Vault.Address
		}
	case status.CheckCloudflare, status.CheckCredential:
		if account, ok := in.Accounts[c.Subject]; ok {
			source := account.APIToken
			if source.IsZero() {
				source = account.APIKey
			}
			return cmp.Or(source.File, source.String())
		}
	}
	return ""
}
