package cloudflare

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/cloudflare/cloudflare-go/v7/accounts"
	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/user"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// login is the configured credential as it was read: an API token, or with an email a global
// API key.
type login struct {
	value secret.Value
	email string
}

// login reads the credential as it is now. The error says where it is configured.
func (c *Client) login() (login, error) {
	source, field, email := c.account.APIToken, "api_token", ""
	if source.IsZero() {
		source, field, email = c.account.APIKey, "api_key", c.account.APIEmail
	}
	value, err := source.Read()
	if err != nil {
		return login{}, fmt.Errorf("accounts.%s.%s: %w", c.account.Name, field, err)
	}
	return login{value, email}, nil
}

func (l login) options() []option.RequestOption {
	if l.email != "" {
		return []option.RequestOption{option.WithAPIEmail(l.email), option.WithAPIKey(l.value.Reveal())}
	}
	return []option.RequestOption{option.WithAPIToken(l.value.Reveal())}
}

// digest is that of what Cloudflare counts requests by.
func (l login) digest() secret.Digest {
	if l.email != "" {
		return secret.New(l.email + "\n" + l.value.Reveal()).Digest()
	}
	return l.value.Digest()
}

// CredentialKind is what a credential is.
type CredentialKind string

// The kinds of credential.
const (
	UserToken    CredentialKind = "user API token"
	AccountToken CredentialKind = "account API token"
	GlobalKey    CredentialKind = "global API key"
)

// Credential is what Cloudflare says of the credential that is used.
type Credential struct {
	Kind CredentialKind
	// Status is active, disabled or expired; empty for a global API key, of which Cloudflare
	// says nothing.
	Status string
	// NotBefore and ExpiresAt are zero where there is no such bound.
	NotBefore, ExpiresAt time.Time
}

// credentialResult is what both verifications answer.
type credentialResult struct {
	Status    string    `json:"status"`
	NotBefore timestamp `json:"not_before"`
	ExpiresOn timestamp `json:"expires_on"`
}

// accountTokenPrefix is that of an API token which belongs to an account. Those made before
// 2026 have no prefix.
const accountTokenPrefix = "cfat_"

// VerifyCredential asks Cloudflare whether the API token is active and when it ends. Tokens of
// a user and tokens of an account are asked about at different places, and one is not known
// at the other's: unless the token's form shows what it is, both are asked. It changes
// nothing. Of a global API key nothing can be asked: only its Kind is returned.
func (c *Client) VerifyCredential(ctx context.Context) (Credential, error) {
	login, err := c.login()
	switch {
	case err != nil:
		return Credential{}, &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "verify", Err: err}
	case login.email != "":
		return Credential{Kind: GlobalKey}, nil
	}
	kinds := []CredentialKind{UserToken, AccountToken}
	switch {
	case c.account.AccountID == "": // the account of a zone is not known
		kinds = kinds[:1]
	case strings.HasPrefix(login.value.Reveal(), accountTokenPrefix):
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

// unknownToken reports whether a failed verification may mean that the token is one of the
// other kind.
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
	answer, err := c.exchange(ctx, "verify", c.read, func(s *zero_trust.AccessServiceTokenService, _ []option.RequestOption) error {
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
