package cloudflare_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/cloudflare/openapitest"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// TestClientAgainstTheSimulator checks every request of ours, and every answer, against Cloudflare's own
// OpenAPI document.
func TestClientAgainstTheSimulator(t *testing.T) {
	simulator := cfsim.New(cfsim.Options{SeedTokens: 1250})
	server := httptest.NewServer(simulator)
	t.Cleanup(server.Close)
	var o told
	c := client(t, server.URL+cfsim.BasePath, cloudflare.Options{Observer: &o, WrapTransport: func(rt http.RoundTripper) http.RoundTripper {
		return openapitest.Transport(t, rt)
	}})

	listing, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := listing.Tokens
	seen := map[string]rotation.TokenFacts{}
	for _, f := range all {
		seen[f.ID] = f
	}
	if len(all) != 1250 || len(seen) != 1250 || o.requests["list 200"] != 2 {
		t.Errorf("listed %d tokens, %d of them different, in %d requests", len(all), len(seen), o.requests["list 200"])
	}

	id := cfsim.SeedTokenID(7)
	before, err := c.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	truth, _ := simulator.Token(id)
	if before.ID != id || before.ClientID != truth.ClientID || before.Name != "seeded-0007" || !before.Enabled ||
		before.ExpiresAt.IsZero() || before.UpdatedAt.IsZero() || seen[id].ClientID != before.ClientID {
		t.Errorf("inspected %+v", before)
	}

	for _, grace := range []time.Duration{0, time.Second, time.Hour} {
		issued, err := c.Rotate(t.Context(), rotation.RotateRequest{TokenID: id, Grace: grace})
		if err != nil {
			t.Fatal(err)
		}
		truth, _ := simulator.Token(id)
		if issued.ClientSecret.Digest() != truth.CurrentDigest || issued.ClientID != truth.ClientID || !issued.Facts.UpdatedAt.After(before.UpdatedAt) {
			t.Errorf("with grace %s: %+v", grace, issued)
		}
		if kept := truth.PreviousExpiresAt.Sub(truth.UpdatedAt); grace > 0 && (kept < grace || kept > grace+3*time.Second) {
			t.Errorf("the previous secret works for another %s, want at least %s and hardly more", kept, grace)
		}
		if grace > 0 && truth.PreviousExpiresAt.After(issued.GraceEndsAt) {
			t.Errorf("it works until %s, and we believe only until %s", truth.PreviousExpiresAt, issued.GraceEndsAt)
		}
		if grace == 0 && !issued.GraceEndsAt.IsZero() {
			t.Errorf("without grace it ends at %s", issued.GraceEndsAt)
		}
	}
	// The grace of an hour of the last rotation is moved in both directions, and nothing is rotated.
	for _, grace := range []time.Duration{48 * time.Hour, time.Minute} {
		facts, until, err := c.SetGrace(t.Context(), id, grace)
		if err != nil {
			t.Fatal(err)
		}
		truth, _ := simulator.Token(id)
		if kept := truth.PreviousExpiresAt.Sub(truth.UpdatedAt); kept < grace || kept > grace+3*time.Second || truth.PreviousExpiresAt.After(until) {
			t.Errorf("extended by %s: the previous secret works for another %s, and we believe until %s", grace, kept, until)
		}
		if facts.ID != id || !facts.UpdatedAt.Equal(truth.UpdatedAt.Truncate(10*time.Microsecond)) || facts.Name != truth.Name || !facts.Enabled {
			t.Errorf("extended: %+v, and in truth %+v", facts, truth)
		}
	}
	if n := simulator.Stats().Rotations[id]; n != 3 {
		t.Errorf("%d rotations for three requests", n)
	}
}

// everyCall are the methods of the client that may send something, on an existing service token.
// TestEveryCallConforms fails if one is missing.
var everyCall = map[string]func(ctx context.Context, c *cloudflare.Client, id string) error{
	"Ready":     func(ctx context.Context, c *cloudflare.Client, _ string) error { return c.Ready(ctx) },
	"ReadClock": func(ctx context.Context, c *cloudflare.Client, _ string) error { return c.ReadClock(ctx) },
	"Inspect": func(ctx context.Context, c *cloudflare.Client, id string) error {
		_, err := c.Inspect(ctx, id)
		return err
	},
	"List": func(ctx context.Context, c *cloudflare.Client, _ string) error {
		_, err := c.List(ctx)
		return err
	},
	"Find": func(ctx context.Context, c *cloudflare.Client, _ string) error {
		_, err := c.Find(ctx, "a name with spaces & more")
		return err
	},
	"Rotate": func(ctx context.Context, c *cloudflare.Client, id string) error {
		_, err := c.Rotate(ctx, rotation.RotateRequest{TokenID: id})
		return err
	},
	"Rotate with grace": func(ctx context.Context, c *cloudflare.Client, id string) error {
		_, err := c.Rotate(ctx, rotation.RotateRequest{TokenID: id, Grace: time.Hour})
		return err
	},
	"SetGrace": func(ctx context.Context, c *cloudflare.Client, id string) error {
		_, _, err := c.SetGrace(ctx, id, time.Hour)
		return err
	},
	"SetGrace to nothing": func(ctx context.Context, c *cloudflare.Client, id string) error {
		_, _, err := c.SetGrace(ctx, id, 0)
		return err
	},
	"Renew": func(ctx context.Context, c *cloudflare.Client, id string) error {
		_, err := c.Renew(ctx, id, "")
		return err
	},
	"Renew forever": func(ctx context.Context, c *cloudflare.Client, id string) error {
		_, err := c.Renew(ctx, id, "forever")
		return err
	},
	"Create": func(ctx context.Context, c *cloudflare.Client, _ string) error {
		_, err := c.Create(ctx, rotation.CreateRequest{Name: "new"})
		return err
	},
	"Create for a time": func(ctx context.Context, c *cloudflare.Client, _ string) error {
		_, err := c.Create(ctx, rotation.CreateRequest{Name: "new", Duration: "720h"})
		return err
	},
	"Delete": func(ctx context.Context, c *cloudflare.Client, id string) error { return c.Delete(ctx, id) },
	"VerifyCredential": func(ctx context.Context, c *cloudflare.Client, _ string) error {
		_, err := c.VerifyCredential(ctx)
		return err
	},
}

// TestEveryCallConforms makes every call of the client, for accounts and zones, with each kind of credential,
// and with each failure that the simulator has. Requests and answers conform to Cloudflare's document; each
// operation of the document is tried; and each method of the client is.
func TestEveryCallConforms(t *testing.T) {
	methods := reflect.TypeFor[*cloudflare.Client]()
	for method := range methods.Methods() {
		if method.Type.NumIn() < 2 || method.Type.In(1) != reflect.TypeFor[context.Context]() {
			continue // it cannot send anything
		}
		if method.Name == "WatchCredential" {
			continue // it reads a file
		}
		if _, ok := everyCall[method.Name]; !ok {
			t.Errorf("the client's method %s is not among everyCall", method.Name)
		}
	}

	var coverage openapitest.Coverage
	accounts := map[string]config.Account{
		"user token":    {AccountID: accountID, APIToken: secretFile(t, apiToken)},
		"account token": {AccountID: accountID, APIToken: secretFile(t, "cfat_"+apiToken)},
		"global key":    {AccountID: accountID, APIEmail: "a@b.c", APIKey: secretFile(t, "key")},
		"zone":          {ZoneID: zoneID, APIToken: secretFile(t, apiToken)},
	}
	for failure, x := range map[string]struct {
		options cfsim.Options
		fault   cfsim.Fault
		spare   []string // calls that do not fail
	}{
		"nothing": {},
		"403":     {options: cfsim.Options{APIToken: secret.New("another")}},
		"429":     {fault: cfsim.Fault{Status: 429, RetryAfter: 300}},
		"400":     {fault: cfsim.Fault{Status: 400}},
		"401":     {fault: cfsim.Fault{Status: 401}},
		"404":     {fault: cfsim.Fault{Status: 404}, spare: []string{"Delete"}},
		"12139":   {fault: cfsim.Fault{Status: 409, Code: 12139}},
		"503":     {fault: cfsim.Fault{Status: 503, When: cfsim.After}},
		"dropped": {fault: cfsim.Fault{Kind: cfsim.KindDrop}},
		"cut":     {fault: cfsim.Fault{Kind: cfsim.KindCut, When: cfsim.After}},
	} {
		for kind, account := range accounts {
			x.options.RateLimit = -1
			simulator := cfsim.New(x.options)
			account.Name, account.BaseURL, account.RequestsPer5m = "prod", "https://simulator.example"+cfsim.BasePath, 1000
			o := cloudflare.Options{WrapTransport: func(http.RoundTripper) http.RoundTripper {
				return openapitest.Transport(t, simulator.RoundTripper(), openapitest.Covering(&coverage))
			}}
			for name, call := range everyCall {
				made, _, err := simulator.Create(cfsim.CreateParams{Name: "there", AccountID: account.AccountID, ZoneID: account.ZoneID})
				if err != nil {
					t.Fatal(err)
				}
				simulator.ClearFaults()
				if x.fault != (cfsim.Fault{}) {
					x.fault.Count = -1
					if err := simulator.Inject(x.fault); err != nil {
						t.Fatal(err)
					}
				}
				err = call(t.Context(), cloudflare.New(account, o), made.ID)
				good := failure == "nothing" || slices.Contains(x.spare, name) || kind == "global key" && name == "VerifyCredential"
				if kind == "zone" && strings.HasPrefix(name, "Rotate") {
					good = false
				}
				if (err == nil) != good {
					t.Errorf("%s, %s, %s: %v", failure, kind, name, err)
				}
				if e, ok := errors.AsType[*rotation.IssuerError](err); err != nil && (!ok || e.Operation == "") {
					t.Errorf("%s, %s, %s: %v is not an IssuerError", failure, kind, name, err)
				}
			}
			if n := simulator.Stats().Count(cfsim.OpUnknown); n != 0 {
				t.Errorf("%s, %s: %d requests for what the simulator does not have", failure, kind, n)
			}
		}
	}
	if missing := coverage.Missing(t); len(missing) > 0 {
		t.Errorf("Cloudflare's document has what the client was not seen to do:\n%s", strings.Join(missing, "\n"))
	}
}
