package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

const (
	// maxSkew is how far the two clocks may be apart without a warning.
	maxSkew = 30 * time.Second
	// accountTime is the longest time for all requests about one account.
	accountTime = time.Minute
	// permission is the permission that an API token needs.
	permission = "Access: Service Tokens Write"
)

// account looks at one account: its credential, what it may do, the clock and the rate limit.
func (e *examination) account(ctx context.Context, a config.Account) {
	subject := "accounts." + a.Name
	source, kind, field := a.APIToken, config.APIToken, ".api_token"
	if source.IsZero() {
		source, kind, field = a.APIKey, config.GlobalKey, ".api_key"
	}
	if !e.canRead(subject+field, source, kind) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, accountTime)
	defer cancel()
	client := cloudflare.New(a, cloudflare.Options{WrapTransport: e.WrapTransport})
	listed, listErr := client.List(ctx)
	if listErr == nil {
		byID := make(map[string]rotation.TokenFacts, len(listed.Tokens))
		for _, facts := range listed.Tokens {
			byID[facts.ID] = facts
		}
		e.listed[a.Name], e.odd[a.Name] = byID, listed
	}
	if !e.reached(subject, a, listErr) {
		return
	}
	credential, err := client.VerifyCredential(ctx)
	e.credential(subject+field, credential, err, listErr == nil)
	if credential.Kind == cloudflare.UserToken {
		e.add(Warning, CredentialUserToken, subject+field, "it is an API token of a user: it ends when that user leaves the account, and all of that user's tokens share one rate limit",
			"use an account API token (Manage Account → Account API Tokens), which belongs to the account and has a rate limit of its own")
	}
	e.listing(subject, a, listed, listErr)
	if listErr == nil {
		e.write(subject, a)
	}
	_ = client.ReadClock(ctx) // an unknown clock is not a finding
	e.clock(subject, client)
	e.budget(subject, a, client)
}

func (e *examination) exists(path string) bool {
	_, err := e.stat(path)
	return err == nil
}

// canRead reports whether a credential can be read, and says why it cannot. If systemd hands a
// file to the unit only, and this user cannot see it, that says nothing about the service.
func (e *examination) canRead(subject string, source config.SecretSource, kind config.SecretKind) bool {
	_, err := source.ReadAs(context.Background(), kind) // without the deadline of the examination: it takes little time
	if err == nil {
		return true
	}
	const readable = "make it readable for the user that the daemon runs as; doctor must run as that user, or as root"
	level, advice := Bad, readable
	_, malformed := errors.AsType[*config.ContentError](err)
	switch dir := filepath.Dir(source.File); {
	case malformed:
		advice = "correct it; nothing was sent"
	case handedOver(source.File) && errors.Is(err, fs.ErrPermission):
		level, advice = Warning, "run doctor as root: systemd lets only the service read it"
	case handedOver(source.File) && errors.Is(err, fs.ErrNotExist) && e.exists(dir):
		advice = "let the unit hand it over: LoadCredential=" + filepath.Base(source.File) + ":FILE; then restart it"
	case handedOver(source.File) && errors.Is(err, fs.ErrNotExist):
		level, advice = Warning, "nothing, if the unit does not run yet: systemd creates "+dir+" when it starts the unit. Run doctor as root, or with --credentials DIR, "+
			"where DIR is the directory that LoadCredential= takes the files from"
	}
	if advice == readable && errors.Is(err, fs.ErrNotExist) {
		advice = "correct the path, or put the file there, readable for the user that the daemon runs as"
	}
	e.add(level, CredentialUnreadable, subject, err.Error(), advice)
	return false
}

// reached reports whether the account could be asked. If not, it says why.
func (e *examination) reached(subject string, a config.Account, err error) bool {
	failure, ok := errors.AsType[*rotation.IssuerError](err)
	switch {
	case err == nil:
		return true
	case ok && failure.Class == rotation.Throttled:
		e.add(Bad, AccountThrottled, subject, err.Error(),
			"wait; and lower requests_per_5m, since others use this credential, or another one of its user")
		return false
	case !ok || failure.Status == 0:
		e.add(Bad, AccountUnreachable, subject, err.Error(), "look at DNS, proxy and firewall between here and "+a.BaseURL)
		return false
	default:
		return true
	}
}

// credential checks Cloudflare's answer about the credential.
func (e *examination) credential(subject string, c cloudflare.Credential, err error, works bool) {
	now, what := e.Now(), "the "+string(c.Kind)
	switch {
	case err != nil && works:
		e.add(Warning, CredentialNotVerified, subject, "it works, and Cloudflare does not say when it ends: "+err.Error(),
			"nothing, if it is an account API token of an account that is not named here; otherwise create a new one")
	case err != nil:
		e.add(Bad, CredentialRefused, subject, err.Error(), "put an API token there that is active")
	case c.Kind == cloudflare.GlobalKey:
		e.add(Warning, CredentialGlobalKey, subject, "a global API key can do whatever its user can, and does not end",
			"use an api_token that may do one thing: "+permission)
	case c.Status != "active":
		e.add(Bad, CredentialInactive, subject, fmt.Sprintf("%s is %s", what, c.Status), "enable it, or replace it by one that is active")
	case c.NotBefore.After(now):
		e.add(Bad, CredentialNotYet, subject, fmt.Sprintf("%s is not valid before %s", what, shown(c.NotBefore)), "wait, or replace it")
	case c.ExpiresAt.IsZero():
		e.add(Warning, CredentialWithoutEnd, subject, what+" is active and has no end",
			"give it an end, so that a stolen copy does not work forever")
	case c.ExpiresAt.Before(now.Add(endsSoon)):
		e.add(Warning, CredentialEndsSoon, subject, fmt.Sprintf("%s ends at %s", what, shown(c.ExpiresAt)),
			"replace it before that: no rotation works afterwards")
	default:
		e.add(Good, CredentialActive, subject, fmt.Sprintf("%s is active until %s", what, shown(c.ExpiresAt)), "")
	}
}

// listing reports the result of the one request that needs a permission.
func (e *examination) listing(subject string, a config.Account, listed cloudflare.Listing, err error) {
	failure, _ := errors.AsType[*rotation.IssuerError](err)
	owner := "account_id"
	if a.ZoneID != "" {
		owner = "zone_id"
	}
	switch {
	case err == nil:
		e.add(Good, ListAllowed, subject, fmt.Sprintf("its %d service token(s) can be listed", len(listed.Tokens)), "")
		if what := listed.Unreadable(); what != "" {
			e.add(Warning, ListOdd, subject, what, "look at these service tokens in Cloudflare's dashboard, and at any proxy: rotatord cannot watch them")
		}
	case failure.Status == http.StatusUnauthorized || failure.Status == http.StatusForbidden:
		e.add(Bad, ListRefused, subject, err.Error(),
			"give the API token the permission "+permission+", on this "+strings.TrimSuffix(owner, "_id"))
	case failure.Status == http.StatusNotFound:
		e.add(Bad, AccountUnknown, subject+"."+owner, err.Error(), "correct "+owner)
	default:
		e.add(Bad, ListFailed, subject, err.Error(), "try again; if the error stays, look at base_url and at any proxy")
	}
}

// write reports whether the credential may write. Only a write would prove that: Cloudflare does not tell an
// API token its own permissions.
func (e *examination) write(subject string, a config.Account) {
	var last time.Time
	for _, r := range e.Records {
		if r.Account == a.Name && r.Last != nil && r.Last.At.After(last) {
			last = r.Last.At
		}
	}
	switch {
	case !last.IsZero():
		e.add(Good, WriteSeen, subject, "the last rotation succeeded at "+shown(last)+
			": it had the permission then. Only a write would prove that it still has it", "")
	case e.LedgerErr != nil:
		e.add(Good, WriteUnproven, subject, "only a write would prove that it may write; rotatord status shows the last rotations. "+
			"The ledger cannot be read: "+e.LedgerErr.Error(), "")
	default:
		e.add(Warning, WriteUnproven, subject, "only a write would prove that it may write, and there was no rotation yet",
			"look at the API token's permissions ("+permission+"); if the first rotation is refused, nothing changes")
	}
}

func (e *examination) clock(subject string, client *cloudflare.Client) {
	skew, ok := client.Apart()
	switch {
	case !ok:
	case skew > cloudflare.MaxApart:
		e.add(Bad, ClockApart, subject, fmt.Sprintf("this machine's clock is %s from Cloudflare's: no scheduled rotation begins", skew.Round(time.Second)),
			"set the clock (NTP)")
	case skew > maxSkew:
		e.add(Warning, ClockApart, subject, fmt.Sprintf("this machine's clock is %s from Cloudflare's", skew.Round(time.Second)),
			"set the clock (NTP)")
	default:
		e.add(Good, ClockGood, subject, "this machine's clock and Cloudflare's agree", "")
	}
}

func (e *examination) budget(subject string, a config.Account, client *cloudflare.Client) {
	left, quota, ok := client.RateLimit()
	switch {
	case !ok:
	case quota > 0 && a.RequestsPer5m > quota:
		e.add(Warning, BudgetTooLarge, subject+".requests_per_5m",
			fmt.Sprintf("it is %d, and Cloudflare accepts %d in five minutes", a.RequestsPer5m, quota), "lower it")
	case left < a.RequestsPer5m/10:
		e.add(Warning, BudgetShared, subject+".requests_per_5m",
			fmt.Sprintf("only %d requests are left of the %d that Cloudflare accepts in five minutes", left, quota),
			"find out who else uses this credential or its user's, or lower requests_per_5m")
	default:
		e.add(Good, BudgetGood, subject+".requests_per_5m", fmt.Sprintf("%d of the %d requests that Cloudflare accepts in five minutes are left", left, quota),
			"")
	}
}
