package cloudflare

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/cloudflare/cloudflare-go/v7/accounts"
	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/user"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/smallfile"
)

// login is the configured credential as it was read: an API token, or a global API key if there is an email.
type login struct {
	value secret.Value
	email string
}

// lastLogin is the credential as it was read last. It exists so that urgent work does not read a file: a
// mount that hangs would stop it.
type lastLogin struct {
	mu    sync.Mutex
	known bool  // login can be used
	login login // as it was read last
	err   error // why the last read failed; nil if it succeeded, or if nothing was read yet
	read  bool  // something was read, or could not be
}

// CredentialError returns why the last attempt to read the credential failed. It is nil if that succeeded, or
// if nothing was read yet. It reads nothing.
func (c *Client) CredentialError() error {
	c.last.mu.Lock()
	defer c.last.mu.Unlock()
	return c.last.err
}

// credentialEvery is how often a credential is read if no request reads it.
const credentialEvery = 30 * time.Second

// WatchCredential reads the credential regularly until ctx ends, so that a credential that cannot be read is
// noticed before a rotation needs it.
func (c *Client) WatchCredential(ctx context.Context) {
	for {
		_, _ = c.readLogin(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(credentialEvery):
		}
	}
}

// login returns the credential as it was read last. It reads it only if that never happened.
func (c *Client) login() (login, error) {
	c.last.mu.Lock()
	l, known, err, read := c.last.login, c.last.known, c.last.err, c.last.read
	c.last.mu.Unlock()
	switch {
	case known:
		return l, nil
	case read:
		return login{}, err
	}
	return c.readLogin(context.Background())
}

// readLogin reads the credential as it is now, within ctx and the time that a read may take. The error says
// where it is configured. While a file cannot be read because its file system hangs, its last content is
// used. A file that is missing, empty or holds something else is not a credential.
func (c *Client) readLogin(ctx context.Context) (login, error) {
	source, kind, field, email := c.account.APIToken, config.APIToken, "api_token", ""
	if source.IsZero() {
		source, kind, field, email = c.account.APIKey, config.GlobalKey, "api_key", c.account.APIEmail
	}
	value, err := source.ReadAs(ctx, kind)
	if err != nil {
		err = fmt.Errorf("accounts.%s.%s: %w", c.account.Name, field, err)
		if ctx.Err() != nil { // the caller has stopped waiting, which says nothing about the file
			return login{}, err
		}
	}
	c.last.mu.Lock()
	defer c.last.mu.Unlock()
	was := c.last.err
	c.last.read, c.last.err = true, err
	switch {
	case err == nil:
		c.last.login, c.last.known = login{value, email}, true
		if was != nil {
			c.log.Info("the account's credential can be read again")
		}
		return c.last.login, nil
	case was == nil || was.Error() != err.Error():
		c.log.Error("the account's credential cannot be read: none of its tokens can be rotated until it can",
			"error", err, "last_known_is_used", c.last.known && errors.Is(err, smallfile.ErrHangs))
	}
	if !errors.Is(err, smallfile.ErrHangs) {
		c.last.login, c.last.known = login{}, false
	}
	if c.last.known {
		return c.last.login, nil
	}
	return login{}, err
}

func (l login) options() []option.RequestOption {
	if l.email != "" {
		return []option.RequestOption{option.WithAPIEmail(l.email), option.WithAPIKey(l.value.Reveal())}
	}
	return []option.RequestOption{option.WithAPIToken(l.value.Reveal())}
}

// digest returns the digest of what Cloudflare counts requests by.
func (l login) digest() secret.Digest {
	if l.email != "" {
		return secret.New(l.email + "\n" + l.value.Reveal()).Digest()
	}
	return l.value.Digest()
}

// CredentialKind is the kind of a credential.
type CredentialKind string

// The kinds of credential.
const (
	UserToken    CredentialKind = "user API token"
	AccountToken CredentialKind = "account API token"
	GlobalKey    CredentialKind = "global API key"
)

// Credential is what Cloudflare says about the credential in use.
type Credential struct {
	Kind CredentialKind
	// Status is active, disabled or expired; empty for a global API key, about which Cloudflare says nothing.
	Status string
	// NotBefore and ExpiresAt are zero if there is no such limit.
	NotBefore, ExpiresAt time.Time
}

// credentialResult is the answer to both kinds of verification.
type credentialResult struct {
	Status    string    `json:"status"`
	NotBefore timestamp `json:"not_before"`
	ExpiresOn timestamp `json:"expires_on"`
}

// accountTokenPrefix begins an API token that belongs to an account. Tokens that were created before 2026
// have no prefix.
const accountTokenPrefix = "cfat_"

// VerifyCredential asks Cloudflare whether the API token is active and when it ends. It changes nothing.
// Tokens of a user and tokens of an account have different endpoints, and each endpoint knows only its own.
// If the form of the token does not show its kind, both are asked. Cloudflare says nothing about a global API
// key, so only its Kind is returned.
func (c *Client) VerifyCredential(ctx context.Context) (Credential, error) {
	login, err := c.readLogin(ctx)
	switch {
	case err != nil:
		return Credential{}, &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "verify", Err: err}
	case login.email != "":
		return Credential{Kind: GlobalKey}, nil
	}
	kinds := []CredentialKind{UserToken, AccountToken}
	ofAccount := strings.HasPrefix(login.value.Reveal(), accountTokenPrefix)
	switch {
	case c.account.AccountID == "" && ofAccount:
		return Credential{Kind: AccountToken}, &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "verify",
			Err: errors.New("an account API token is verified at its account, and the configuration names a zone only")}
	case c.account.AccountID == "": // the account of a zone is not known
		kinds = kinds[:1]
	case ofAccount:
		kinds = []CredentialKind{AccountToken, UserToken}
	}
	var first error
	for _, kind := range kinds {
		found, err := c.verify(ctx, kind)
		if err == nil {
			return found, nil
		}
		if first == nil {
			first = err
		}
		if !unknownToken(err) {
			return Credential{}, err
		}
	}
	return Credential{}, first
}

// unknownToken reports whether a failed verification may mean that the token is of the other kind.
func unknownToken(err error) bool {
	e, ok := errors.AsType[*rotation.IssuerError](err)
	return ok && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden ||
		e.Class == rotation.Refused && e.Code == codeInvalidToken)
}

func (c *Client) verify(ctx context.Context, kind CredentialKind) (Credential, error) {
	if err := c.admit(ctx, "verify"); err != nil {
		return Credential{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	answer, err := c.roundTrip(ctx, "verify", c.read, func(s *zero_trust.AccessServiceTokenService, _ []option.RequestOption) error {
		if kind == UserToken {
			_, err := user.NewTokenService(s.Options...).Verify(ctx)
			return err
		}
		var params accounts.TokenVerifyParams
		set(&params.AccountID.Value, &params.AccountID.Present, c.account.AccountID)
		_, err := accounts.NewTokenService(s.Options...).Verify(ctx, params)
		return err
	})
	if err != nil {
		return Credential{}, err
	}
	var result credentialResult
	if err := decodeResult("verify", answer, &result); err != nil {
		return Credential{}, err
	}
	if result.Status == "" {
		return Credential{}, unusable("verify", "the answer does not say whether the API token is active")
	}
	return Credential{Kind: kind, Status: result.Status, NotBefore: result.NotBefore.Time, ExpiresAt: result.ExpiresOn.Time}, nil
}
