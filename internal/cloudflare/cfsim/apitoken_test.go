package cfsim_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
)

// verified is what the API shows of an API token.
type verified struct {
	Status    string
	ExpiresOn string `json:"expires_on"`
	NotBefore string `json:"not_before"`
}

// TestAPIToken: what verify shows of a token in each state, checked against Cloudflare's document, and
// whether the token may list.
func TestAPIToken(t *testing.T) {
	past, future := epoch.Add(-time.Hour), epoch.Add(time.Hour)
	for name, x := range map[string]struct {
		behaviour    cfsim.Behaviour
		verify, list int
		want         verified
	}{
		"active":   {cfsim.Behaviour{}, 200, 200, verified{Status: "active"}},
		"expiring": {cfsim.Behaviour{APITokenExpiresOn: future}, 200, 200, verified{Status: "active", ExpiresOn: "2026-11-02T05:00:00Z"}},
		"expired by time": {
			cfsim.Behaviour{APITokenExpiresOn: past}, 200, 403, verified{Status: "expired", ExpiresOn: "2026-11-02T03:00:00Z"},
		},
		"expired by a skewed clock": {
			cfsim.Behaviour{APITokenExpiresOn: future, ClockSkew: cfsim.Duration(time.Hour)}, 200, 403,
			verified{Status: "expired", ExpiresOn: "2026-11-02T05:00:00Z"},
		},
		"not yet": {
			cfsim.Behaviour{APITokenNotBefore: future}, 200, 403, verified{Status: "active", NotBefore: "2026-11-02T05:00:00Z"},
		},
		"since long": {
			cfsim.Behaviour{APITokenNotBefore: past}, 200, 200, verified{Status: "active", NotBefore: "2026-11-02T03:00:00Z"},
		},
		"expired":  {cfsim.Behaviour{APITokenStatus: cfsim.APITokenExpired}, 200, 403, verified{Status: "expired"}},
		"disabled": {cfsim.Behaviour{APITokenStatus: cfsim.APITokenDisabled}, 200, 403, verified{Status: "disabled"}},
		"revoked":  {cfsim.Behaviour{APITokenStatus: cfsim.APITokenRevoked}, 401, 403, verified{}},
	} {
		c := &clock{now: epoch}
		s := newSDK(t, cfsim.Options{Now: c.Now, Behaviour: x.behaviour})
		get := func(path string) (int, []byte) {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://simulator.example"+cfsim.BasePath+path, nil)
			req.Header.Set("Authorization", "Bearer t")
			resp, err := s.checked.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode, body
		}
		for _, path := range []string{"/user/tokens/verify", "/accounts/" + otherAccount + "/tokens/verify"} {
			var got struct{ Result verified }
			status, body := get(path)
			if err := json.Unmarshal(body, &got); err != nil || status != x.verify || got.Result != x.want {
				t.Errorf("%s: %s: status %d, %+v, %v", name, path, status, got.Result, err)
			}
		}
		if status, _ := get(tokensPath); status != x.list {
			t.Errorf("%s: list: status %d, want %d", name, status, x.list)
		}
		key := newSDK(t, cfsim.Options{Now: c.Now, Behaviour: x.behaviour}, option.WithAPIEmail("a@b.c"), option.WithAPIKey("k"))
		if _, err := key.List(t.Context(), listParams()); err != nil {
			t.Errorf("%s: a global key was refused: %v", name, err)
		}
	}
}

// TestKindsOfAPIToken: each kind is verified at its own path, and both may do the same.
func TestKindsOfAPIToken(t *testing.T) {
	const user, account = "/user/tokens/verify", "/accounts/" + otherAccount + "/tokens/verify"
	s := newSDK(t, cfsim.Options{})
	for token, want := range map[string]map[string]int{
		"cfut_made-up": {user: 200, account: 401, tokensPath: 200},
		"cfat_made-up": {user: 401, account: 200, tokensPath: 200},
		"made-up":      {user: 200, account: 200, tokensPath: 200},
	} {
		for path, status := range want {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://simulator.example"+cfsim.BasePath+path, nil)
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := s.checked.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != status {
				t.Errorf("%s at %s: status %d, want %d", token, path, resp.StatusCode, status)
			}
		}
	}
}

func TestAPITokenStatusThatIsNone(t *testing.T) {
	r := newRig(t, cfsim.Options{})
	r.control("PUT", "/behaviour", `{"api_token_status":"tired"}`, 400, nil)
	r.control("PUT", "/behaviour", `{"api_token_status":"disabled","api_token_expires_on":"2027-01-01T00:00:00Z"}`, 200, nil)
	var got cfsim.Behaviour
	r.control("GET", "/behaviour", "", 200, &got)
	want := cfsim.Behaviour{APITokenStatus: cfsim.APITokenDisabled, APITokenExpiresOn: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}
	if got != want {
		t.Errorf("%+v", got)
	}
}

// TestReadOnlyToken may read, and every change is refused.
func TestReadOnlyToken(t *testing.T) {
	for name, o := range map[string]cfsim.Options{
		"besides any":     {SeedTokens: 1, ReadOnlyToken: secret.New("reader")},
		"besides one":     {SeedTokens: 1, ReadOnlyToken: secret.New("reader"), APIToken: testSecret},
		"besides a key":   {SeedTokens: 1, ReadOnlyToken: secret.New("reader"), APIEmail: "a@b.c", APIKey: testSecret},
		"and is the only": {SeedTokens: 1, ReadOnlyToken: secret.New("reader"), APIToken: secret.New("reader")},
	} {
		s := newSDK(t, o, option.WithAPIToken("reader"))
		for call, err := range s.everyCall(t.Context(), cfsim.SeedTokenID(1)) {
			switch call {
			case "list", "get":
				if err != nil {
					t.Errorf("%s: %s: %v", name, call, err)
				}
			default:
				if apiErr, ok := errors.AsType[*zero_trust.Error](err); !ok || apiErr.StatusCode != 403 || apiErr.Errors[0].Code != 9109 {
					t.Errorf("%s: %s: %v", name, call, err)
				}
			}
		}
		if len(s.sim.Stats().Rotations) != 0 || len(s.sim.Tokens()) != 1 {
			t.Errorf("%s: something was changed", name)
		}
	}
	r := newRig(t, cfsim.Options{SeedTokens: 1, ReadOnlyToken: secret.New("reader")})
	if a := r.send("GET", "/client/v4/user/tokens/verify", "", "Authorization", "Bearer reader"); a.status != 200 {
		t.Errorf("verify: status %d", a.status)
	}
	r.rotated(cfsim.SeedTokenID(1), 0) // with another token
}
