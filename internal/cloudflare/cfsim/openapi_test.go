package cfsim_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/cloudflare/openapitest"
)

// recordingTransport notes the answers to each operation.
type recordingTransport struct {
	base http.RoundTripper
	mu   sync.Mutex
	seen map[string]bool
}

func (rt *recordingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := rt.base.RoundTrip(req)
	if err == nil {
		rt.mu.Lock()
		defer rt.mu.Unlock()
		path := strings.TrimPrefix(req.URL.Path, cfsim.BasePath)
		path = strings.NewReplacer(cfsim.DefaultAccountID, "{id}", otherAccount, "{id}", cfsim.SeedTokenID(1), "{token}",
			unknownToken, "{token}").Replace(path)
		rt.seen[fmt.Sprintf("%s %s %d", req.Method, path, resp.StatusCode)] = true
	}
	return resp, err
}

const unknownToken = "f174e90a-fafe-4643-bbbc-4a0ed4fc8415"

// sdk returns Cloudflare's own client. Every request and answer is checked against Cloudflare's own document.
type sdk struct {
	*zero_trust.AccessServiceTokenService
	sim      *cfsim.Simulator
	recorder *recordingTransport
	checked  http.RoundTripper
}

func newSDK(t *testing.T, o cfsim.Options, credential ...option.RequestOption) *sdk {
	t.Helper()
	s := &sdk{sim: cfsim.New(o)}
	s.recorder = &recordingTransport{base: s.sim.RoundTripper(), seen: map[string]bool{}}
	s.checked = openapitest.Transport(t, s.recorder)
	options := append([]option.RequestOption{
		option.WithBaseURL("https://simulator.example" + cfsim.BasePath + "/"),
		option.WithHTTPClient(&http.Client{Transport: s.checked}),
		option.WithMaxRetries(0),
	}, credential...)
	s.AccessServiceTokenService = zero_trust.NewAccessServiceTokenService(options...)
	return s
}

func newParams(account bool) (p zero_trust.AccessServiceTokenNewParams) {
	if p.AccountID.Value, p.AccountID.Present = cfsim.DefaultAccountID, true; !account {
		p.AccountID.Value, p.AccountID.Present = "", false
		p.ZoneID.Value, p.ZoneID.Present = otherAccount, true
	}
	p.Name.Value, p.Name.Present = "made by the SDK", true
	return p
}

func rotateParams(grace time.Duration) (p zero_trust.AccessServiceTokenRotateParams) {
	p.AccountID.Value, p.AccountID.Present = cfsim.DefaultAccountID, true
	if grace > 0 {
		p.PreviousClientSecretExpiresAt.Value, p.PreviousClientSecretExpiresAt.Present = time.Now().Add(grace), true
	}
	return p
}

func updateParams() (p zero_trust.AccessServiceTokenUpdateParams) {
	p.AccountID.Value, p.AccountID.Present = cfsim.DefaultAccountID, true
	return p
}

func getParams() (p zero_trust.AccessServiceTokenGetParams) {
	p.AccountID.Value, p.AccountID.Present = cfsim.DefaultAccountID, true
	return p
}

func listParams() (p zero_trust.AccessServiceTokenListParams) {
	p.AccountID.Value, p.AccountID.Present = cfsim.DefaultAccountID, true
	return p
}

func deleteParams() (p zero_trust.AccessServiceTokenDeleteParams) {
	p.AccountID.Value, p.AccountID.Present = cfsim.DefaultAccountID, true
	return p
}

func refreshParams() (p zero_trust.AccessServiceTokenRefreshParams) {
	p.AccountID.Value, p.AccountID.Present = cfsim.DefaultAccountID, true
	return p
}

// everyCall makes each call of the SDK once, on the token id.
func (s *sdk) everyCall(ctx context.Context, id string) map[string]error {
	out := map[string]error{}
	_, out["create"] = s.New(ctx, newParams(true))
	_, out["list"] = s.List(ctx, listParams())
	_, out["get"] = s.Get(ctx, id, getParams())
	_, out["update"] = s.Update(ctx, id, updateParams())
	_, out["rotate"] = s.Rotate(ctx, id, rotateParams(time.Hour))
	_, out["refresh"] = s.Refresh(ctx, id, refreshParams())
	_, out["delete"] = s.Delete(ctx, id, deleteParams())
	return out
}

func (s *sdk) wantSeen(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(s.recorder.seen)); !slices.Equal(got, want) {
		t.Errorf("seen:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestConformance(t *testing.T) {
	s := newSDK(t, cfsim.Options{SeedTokens: 3}, option.WithAPIToken("t"))
	ctx, id := t.Context(), cfsim.SeedTokenID(1)

	made, err := s.New(ctx, newParams(true))
	if err != nil || !secretShape.MatchString(made.ClientSecret) || made.ClientID == "" || !made.Enabled {
		t.Fatalf("create: %v", err)
	}
	full := newParams(false)
	full.Duration.Value, full.Duration.Present = "forever", true
	full.Enabled.Value, full.Enabled.Present = false, true
	full.ClientSecretVersion.Value, full.ClientSecretVersion.Present = 3, true
	full.PreviousClientSecretExpiresAt.Value, full.PreviousClientSecretExpiresAt.Present = time.Now(), true
	if made, err := s.New(ctx, full); err != nil || made.Enabled || made.Duration != "forever" {
		t.Errorf("create in a zone: %v", err)
	}
	if got, err := s.Get(ctx, id, getParams()); err != nil || got.Name != "seeded-0001" || got.ExpiresAt.IsZero() {
		t.Errorf("get: %v, %v", got, err)
	}
	for _, grace := range []time.Duration{0, time.Hour} {
		rotated, err := s.Rotate(ctx, id, rotateParams(grace))
		if err != nil || !secretShape.MatchString(rotated.ClientSecret) || rotated.ID != id {
			t.Errorf("rotate: %v", err)
		}
	}
	update := updateParams()
	update.Name.Value, update.Name.Present = "renamed", true
	update.Duration.Value, update.Duration.Present = "forever", true
	update.Enabled.Value, update.Enabled.Present = true, true
	update.ClientSecretVersion.Value, update.ClientSecretVersion.Present = 9, true
	update.PreviousClientSecretExpiresAt.Value, update.PreviousClientSecretExpiresAt.Present = time.Now().Add(time.Minute), true
	if got, err := s.Update(ctx, id, update); err != nil || got.Name != "renamed" || !got.ExpiresAt.IsZero() {
		t.Errorf("update: %v, %v", got, err)
	}
	if got, err := s.Refresh(ctx, cfsim.SeedTokenID(2), refreshParams()); err != nil || got.ExpiresAt.IsZero() {
		t.Errorf("refresh: %v, %v", got, err)
	}
	page := listParams()
	page.PerPage.Value, page.PerPage.Present = 3, true
	page.Search.Value, page.Search.Present = "e", true
	count := 0
	for pager := s.ListAutoPaging(ctx, page); pager.Next(); count++ {
		if pager.Current().ID == "" {
			t.Error("a token without an ID is listed")
		}
	}
	if count != 4 {
		t.Errorf("%d tokens are listed", count)
	}
	if got, err := s.Delete(ctx, id, deleteParams()); err != nil || got.ID != id {
		t.Errorf("delete: %v", err)
	}
	if got := s.sim.Stats(); got.Rotations[id] != 3 || got.Count(cfsim.OpUnknown) != 0 {
		t.Errorf("%+v", got)
	}
	s.wantSeen(t,
		"POST /accounts/{id}/access/service_tokens 201",
		"POST /zones/{id}/access/service_tokens 201",
		"GET /accounts/{id}/access/service_tokens 200",
		"GET /accounts/{id}/access/service_tokens/{token} 200",
		"PUT /accounts/{id}/access/service_tokens/{token} 200",
		"DELETE /accounts/{id}/access/service_tokens/{token} 200",
		"POST /accounts/{id}/access/service_tokens/{token}/rotate 200",
		"POST /accounts/{id}/access/service_tokens/"+cfsim.SeedTokenID(2)+"/refresh 200",
	)
}

// TestConformanceOfVerify covers the two paths that the SDK has in other packages.
func TestConformanceOfVerify(t *testing.T) {
	for _, path := range []string{"/user/tokens/verify", "/accounts/" + otherAccount + "/tokens/verify"} {
		for _, x := range []struct {
			options  cfsim.Options
			statuses []int
		}{
			{cfsim.Options{RateLimit: 1}, []int{200, 429}},
			{cfsim.Options{APIToken: testSecret}, []int{401}},
		} {
			s := newSDK(t, x.options)
			for _, want := range x.statuses {
				req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://simulator.example"+cfsim.BasePath+path, nil)
				req.Header.Set("Authorization", "Bearer t")
				resp, err := s.checked.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != want || len(body) == 0 {
					t.Errorf("%s: status %d, want %d, %v", path, resp.StatusCode, want, err)
				}
			}
		}
	}
}

// TestConformanceOfFailures makes every call fail in every way that the simulator has.
func TestConformanceOfFailures(t *testing.T) {
	sdkKey := []option.RequestOption{option.WithAPIEmail("a@b.c"), option.WithAPIKey("k")}
	for name, x := range map[string]struct {
		options    cfsim.Options
		fault      *cfsim.Fault
		credential []option.RequestOption
		id         string
		status     int
		succeed    []string // calls that do not fail
	}{
		"wrong token": {
			options: cfsim.Options{APIToken: testSecret}, status: 403, credential: []option.RequestOption{option.WithAPIToken("t")},
		},
		"wrong key":  {options: cfsim.Options{APIToken: testSecret}, status: 403, credential: sdkKey},
		"rate limit": {options: cfsim.Options{RateLimit: 1}, status: 429, credential: sdkKey, succeed: []string{"create"}},
		"not found":  {id: unknownToken, status: 404, credential: sdkKey, succeed: []string{"create", "list"}},
		"injected 4xx": {
			fault: &cfsim.Fault{Count: -1, Status: 418, When: cfsim.After}, status: 418, credential: sdkKey,
		},
		"injected 429": {fault: &cfsim.Fault{Count: -1, Status: 429}, status: 429, credential: sdkKey},
		"injected 503": {fault: &cfsim.Fault{Count: -1, Status: 503}, status: 503, credential: sdkKey},
	} {
		t.Run(name, func(t *testing.T) {
			x.options.SeedTokens = 1
			s := newSDK(t, x.options, x.credential...)
			if x.fault != nil {
				if err := s.sim.Inject(*x.fault); err != nil {
					t.Fatal(err)
				}
			}
			if x.id == "" {
				x.id = cfsim.SeedTokenID(1)
			}
			for call, err := range s.everyCall(t.Context(), x.id) {
				if slices.Contains(x.succeed, call) {
					if err != nil {
						t.Errorf("%s: %v", call, err)
					}
					continue
				}
				apiErr, ok := errors.AsType[*zero_trust.Error](err)
				if !ok || apiErr.StatusCode != x.status || x.status != 503 && len(apiErr.Errors) == 0 {
					t.Errorf("%s: %v, want status %d", call, err, x.status)
				}
			}
		})
	}
	t.Run("policy", func(t *testing.T) {
		s := newSDK(t, cfsim.Options{SeedTokens: 1}, sdkKey...)
		if err := s.sim.SetInPolicy(cfsim.SeedTokenID(1), true); err != nil {
			t.Fatal(err)
		}
		_, err := s.Delete(t.Context(), cfsim.SeedTokenID(1), deleteParams())
		if apiErr, ok := errors.AsType[*zero_trust.Error](err); !ok || apiErr.Errors[0].Code != 12139 {
			t.Errorf("delete: %v", err)
		}
	})
	t.Run("bad fields", func(t *testing.T) {
		s := newSDK(t, cfsim.Options{SeedTokens: 1}, sdkKey...)
		update := updateParams()
		update.Duration.Value, update.Duration.Present = "1 year", true
		_, err := s.Update(t.Context(), cfsim.SeedTokenID(1), update)
		if apiErr, ok := errors.AsType[*zero_trust.Error](err); !ok || apiErr.StatusCode != 400 || apiErr.Errors[0].Source.Pointer != "/duration" {
			t.Errorf("update: %v", err)
		}
		params := newParams(true)
		params.Name.Value = ""
		_, err = s.New(t.Context(), params)
		if apiErr, ok := errors.AsType[*zero_trust.Error](err); !ok || apiErr.StatusCode != 400 {
			t.Errorf("create: %v", err)
		}
	})
}
