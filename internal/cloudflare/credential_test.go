package cloudflare_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

// TestVerifyCredential: a user's token and an account's token have different endpoints, and the right one is
// used.
func TestVerifyCredential(t *testing.T) {
	const userPath, accountPath = "/client/v4/user/tokens/verify", "/client/v4/accounts/" + accountID + "/tokens/verify"
	const good = `{"success":true,"result":{"id":"x","status":"active","expires_on":"2027-01-01T00:00:00Z","not_before":"2026-01-01T00:00:00Z"}}`
	for name, test := range map[string]struct {
		token   string
		zone    bool
		known   string // the path that knows it
		refusal int    // how the other path answers
		asked   []string
		kind    cloudflare.CredentialKind
		err     string
	}{
		"user":                    {token: "old", known: userPath, refusal: 401, asked: []string{userPath}, kind: cloudflare.UserToken},
		"account":                 {token: "old", known: accountPath, refusal: 401, asked: []string{userPath, accountPath}, kind: cloudflare.AccountToken},
		"account, refused by 403": {token: "old", known: accountPath, refusal: 403, asked: []string{userPath, accountPath}, kind: cloudflare.AccountToken},
		"account, refused by 400": {token: "old", known: accountPath, refusal: 400, asked: []string{userPath, accountPath}, kind: cloudflare.AccountToken},
		"account by its form":     {token: "cfat_x", known: accountPath, refusal: 401, asked: []string{accountPath}, kind: cloudflare.AccountToken},
		"user by its form":        {token: "cfut_x", known: userPath, refusal: 401, asked: []string{userPath}, kind: cloudflare.UserToken},
		"not what its form says":  {token: "cfat_x", known: userPath, refusal: 401, asked: []string{accountPath, userPath}, kind: cloudflare.UserToken},
		"nobody's":                {token: "old", refusal: 401, asked: []string{userPath, accountPath}, err: "HTTP 401"},
		"a zone's":                {token: "old", zone: true, known: userPath, asked: []string{userPath}, kind: cloudflare.UserToken},
		"a zone's, unknown":       {token: "old", zone: true, known: accountPath, refusal: 401, asked: []string{userPath}, err: "HTTP 401"},
		"an account's, of a zone": {token: "cfat_x", zone: true, known: accountPath, asked: nil, err: "names a zone only"},
		"failing":                 {token: "old", refusal: 500, asked: []string{userPath}, err: "HTTP 500"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.URL.Path)
				if r.Method != http.MethodGet || r.Header.Get("Authorization") != "Bearer "+test.token {
					t.Errorf("%s with %v", r.Method, r.Header)
				}
				if r.URL.Path == test.known {
					answer(200, "application/json", good)(w, r)
					return
				}
				answer(test.refusal, "application/json", `{"success":false,"errors":[{"code":1000,"message":"Invalid API Token"}],"result":null}`)(w, r)
			})
			account := config.Account{Name: "prod", AccountID: accountID, APIToken: secretFile(t, test.token), BaseURL: url, RequestsPer5m: 10}
			if test.zone {
				account.AccountID, account.ZoneID = "", zoneID
			}
			got, err := cloudflare.New(account, cloudflare.Options{}).VerifyCredential(t.Context())
			if fmt.Sprint(asked) != fmt.Sprint(test.asked) {
				t.Errorf("asked %v", asked)
			}
			if test.err != "" {
				if e, ok := errors.AsType[*rotation.IssuerError](err); !ok || e.Operation != "verify" || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%v", err)
				}
				return
			}
			want := cloudflare.Credential{
				Kind: test.kind, Status: "active",
				NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), ExpiresAt: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
			}
			if err != nil || got != want {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// TestGlobalKeyIsNotVerified: there is nothing to ask, and nothing is sent.
func TestGlobalKeyIsNotVerified(t *testing.T) {
	url, requests := serve(t, answer(200, "application/json", "{}"))
	account := config.Account{Name: "prod", AccountID: accountID, APIEmail: "a@b.c", APIKey: secretFile(t, "key"), BaseURL: url, RequestsPer5m: 10}
	got, err := cloudflare.New(account, cloudflare.Options{}).VerifyCredential(t.Context())
	if err != nil || got != (cloudflare.Credential{Kind: cloudflare.GlobalKey}) || requests.Load() != 0 {
		t.Errorf("%+v, %v, %d requests", got, err, requests.Load())
	}
	for name, account := range map[string]config.Account{
		"key":   {Name: "prod", AccountID: accountID, APIEmail: "a@b.c", APIKey: config.SecretSource{File: "/nonexistent"}},
		"token": {Name: "prod", AccountID: accountID, APIToken: config.SecretSource{File: "/nonexistent"}},
	} {
		account.BaseURL, account.RequestsPer5m = url, 10
		_, err := cloudflare.New(account, cloudflare.Options{}).VerifyCredential(t.Context())
		if e, ok := errors.AsType[*rotation.IssuerError](err); !ok || e.Class != rotation.NotCarriedOut || requests.Load() != 0 {
			t.Errorf("%s that cannot be read: %v", name, err)
		}
	}
}
