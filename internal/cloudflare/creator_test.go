package cloudflare_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

const zoneID = "0123456789abcdef0123456789abcdef"

var (
	_ rotation.Issuer  = (*cloudflare.Client)(nil)
	_ rotation.Creator = (*cloudflare.Client)(nil)
	_ rotation.Renewer = (*cloudflare.Client)(nil)
)

// inZone returns a client for the service tokens of a zone.
func inZone(t *testing.T, baseURL string, o cloudflare.Options) *cloudflare.Client {
	t.Helper()
	return cloudflare.New(config.Account{
		Name: "zone", ZoneID: zoneID, APIToken: secretFile(t, apiToken), BaseURL: baseURL, RequestsPer5m: 1000,
	}, o)
}

// simulated starts a simulator on a real server.
func simulated(t *testing.T, o cfsim.Options) (*cfsim.Simulator, string) {
	t.Helper()
	simulator := cfsim.New(o)
	server := httptest.NewServer(simulator)
	t.Cleanup(server.Close)
	return simulator, server.URL + cfsim.BasePath
}

// TestCreator creates, finds and deletes service tokens of an account and of a zone, which do not see each
// other's.
func TestCreator(t *testing.T) {
	simulator, url := simulated(t, cfsim.Options{})
	for name, c := range map[string]*cloudflare.Client{
		"account": client(t, url, cloudflare.Options{}), "zone": inZone(t, url, cloudflare.Options{}),
	} {
		t.Run(name, func(t *testing.T) {
			var made []string
			for _, duration := range []string{"", "720h", "forever"} {
				issued, err := c.Create(t.Context(), rotation.CreateRequest{Name: "twin", Duration: duration})
				if err != nil {
					t.Fatal(err)
				}
				truth, ok := simulator.Token(issued.Facts.ID)
				if !ok || issued.ClientSecret.Digest() != truth.CurrentDigest || issued.ClientID != truth.ClientID || !issued.GraceEndsAt.IsZero() ||
					issued.Facts.Name != "twin" || truth.Duration != issued.Facts.Duration || duration != "" && truth.Duration != duration ||
					issued.Facts.CreatedAt.IsZero() {
					t.Errorf("made %+v, and in truth %+v", issued, truth)
				}
				made = append(made, issued.Facts.ID)
			}
			if _, err := c.Create(t.Context(), rotation.CreateRequest{Name: "Twin"}); err != nil {
				t.Fatal(err)
			}
			found, err := c.Find(t.Context(), "twin")
			if err != nil || len(found) != 3 {
				t.Fatalf("found %+v, %v", found, err)
			}
			for _, facts := range found {
				if !slices.Contains(made, facts.ID) || facts.CreatedAt.IsZero() || (facts.Duration == "forever") != facts.ExpiresAt.IsZero() {
					t.Errorf("found %+v", facts)
				}
			}
			if found, err := c.Find(t.Context(), "nobody"); err != nil || len(found) != 0 {
				t.Errorf("found %+v, %v", found, err)
			}

			if err := simulator.SetInPolicy(made[0], true); err != nil {
				t.Fatal(err)
			}
			err = c.Delete(t.Context(), made[0])
			if e, ok := errors.AsType[*rotation.IssuerError](err); !errors.Is(err, rotation.ErrInUse) || !ok || e.Class != rotation.Refused || e.Operation != "delete" {
				t.Errorf("deleted although a policy names it: %v", err)
			}
			for range 2 { // the second time it is already deleted
				if err := c.Delete(t.Context(), made[1]); err != nil {
					t.Error(err)
				}
			}
			if _, ok := simulator.Token(made[1]); ok {
				t.Error("it is still there")
			}
		})
	}
}

// TestFindReadsAllPages: pages may have any size, and the answers may not say how many there are.
func TestFindReadsAllPages(t *testing.T) {
	names := strings.Fields("a b a A a ab a b a")
	for name, test := range map[string]struct {
		perPage, total any // as the answer says
		requests       int64
	}{
		"all is said":      {2, 9, 5},
		"total as text":    {"2", "9", 5},
		"no total":         {2, 0, 6},
		"a negative total": {2, -1, 6},
		"a total too low":  {2, 1, 5},
		"nothing is said":  {nil, nil, 6},
	} {
		t.Run(name, func(t *testing.T) {
			url, requests := serve(t, func(w http.ResponseWriter, r *http.Request) {
				var page int
				_, _ = fmt.Sscan(r.URL.Query().Get("page"), &page)
				all := []map[string]any{}
				for i, n := range names {
					all = append(all, map[string]any{"id": fmt.Sprint(i), "name": n})
				}
				first := min((page-1)*2, len(all))
				b, _ := json.Marshal(map[string]any{
					"success": true, "result": all[first:min(first+2, len(all))],
					"result_info": map[string]any{"page": page, "per_page": test.perPage, "total_count": test.total},
				})
				answer(200, "application/json", string(b))(w, r)
			})
			found, err := client(t, url, cloudflare.Options{}).Find(t.Context(), "a")
			var ids []string
			for _, f := range found {
				ids = append(ids, f.ID)
			}
			if err != nil || strings.Join(ids, "") != "02468" || requests.Load() != test.requests {
				t.Errorf("found %v in %d requests, want %d: %v", ids, requests.Load(), test.requests, err)
			}
		})
	}
}

// TestCreateFailuresAreClassified: as for rotate, and an answer that arrived is kept.
func TestCreateFailuresAreClassified(t *testing.T) {
	const asJSON = "application/json"
	refusal := `{"success":false,"errors":[{"code":12130,"message":"no"}],"messages":[],"result":null}`
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		class   rotation.Class
	}{
		"hung up":       {hangUp, rotation.Unknown},
		"cut off":       {cutOff, rotation.Unknown},
		"500":           {answer(500, asJSON, refusal), rotation.Unknown},
		"408":           {answer(408, asJSON, refusal), rotation.Unknown},
		"404":           {answer(404, asJSON, refusal), rotation.Refused},
		"409":           {answer(409, asJSON, refusal), rotation.Refused},
		"429":           {answer(429, asJSON, refusal), rotation.Throttled},
		"redirect":      {answer(307, asJSON, ""), rotation.Unknown},
		"success false": {answer(200, asJSON, refusal), rotation.Unknown},
		"not JSON":      {answer(201, "text/html", "<html>"+canary+"x"), rotation.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			url, requests := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", r.URL.String())
				test.handler(w, r)
			})
			_, err := client(t, url, cloudflare.Options{}).Create(t.Context(), rotation.CreateRequest{Name: "new"})
			e, ok := errors.AsType[*rotation.IssuerError](err)
			if !ok || e.Class != test.class || e.Operation != "create" || errors.Is(err, rotation.ErrGone) || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%v", err)
			}
			if requests.Load() != 1 {
				t.Errorf("%d requests", requests.Load())
			}
		})
	}
	cut := strings.Index(goodBody, canary) + len(canary) + 1
	url, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(goodBody)))
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, goodBody[:cut])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	issued, err := client(t, url, cloudflare.Options{}).Create(t.Context(), rotation.CreateRequest{Name: "new"})
	if err != nil || issued.ClientSecret.Reveal() != canary || issued.Facts.ID != tokenID {
		t.Errorf("cut off after the secret: %+v, %v", issued, err)
	}
}

// TestRenew extends the life of a service token, and does not change its secrets.
func TestRenew(t *testing.T) {
	simulator, url := simulated(t, cfsim.Options{SeedTokens: 1})
	zoned, _, err := simulator.Create(cfsim.CreateParams{Name: "zoned", ZoneID: zoneID, Duration: "48h"})
	if err != nil {
		t.Fatal(err)
	}
	var o told
	inAccount, inZone := client(t, url, cloudflare.Options{Observer: &o}), inZone(t, url, cloudflare.Options{Observer: &o})
	for _, test := range []struct {
		c            *cloudflare.Client
		id, duration string
		request      string
		want         time.Duration
	}{
		{inAccount, cfsim.SeedTokenID(1), "48h", "update 200", 48 * time.Hour},
		{inAccount, cfsim.SeedTokenID(1), "", "refresh 200", 365 * 24 * time.Hour},
		{inZone, zoned.ID, "720h", "update 200", 720 * time.Hour},
		{inZone, zoned.ID, "", "update 200", 365 * 24 * time.Hour},
	} {
		before, _ := simulator.Token(test.id)
		requests := o.requests[test.request]
		facts, err := test.c.Renew(t.Context(), test.id, test.duration)
		if err != nil {
			t.Fatal(err)
		}
		after, _ := simulator.Token(test.id)
		if off := time.Until(facts.ExpiresAt) - test.want; off.Abs() > 25*time.Hour || facts.ID != test.id || o.requests[test.request] != requests+1 {
			t.Errorf("%q: %+v, and the requests were %v", test.duration, facts, o.requests)
		}
		if after.CurrentDigest != before.CurrentDigest || after.Name != before.Name || after.Rotations != 0 || !after.Enabled {
			t.Errorf("renewed %+v to %+v", before, after)
		}
	}
}

// TestZoneCannotRotate: nothing is sent.
func TestZoneCannotRotate(t *testing.T) {
	url, requests := serve(t, answer(200, "application/json", goodBody))
	_, err := inZone(t, url, cloudflare.Options{}).Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID})
	e, ok := errors.AsType[*rotation.IssuerError](err)
	if !ok || e.Class != rotation.Refused || e.Status != 0 || !strings.Contains(err.Error(), "strategy: replace") || requests.Load() != 0 {
		t.Errorf("%v, after %d requests", err, requests.Load())
	}
}

// TestRevokePrevious: a grace of zero has passed on Cloudflare's clock, however wrong that is, and its end is
// hardly earlier than it must be.
func TestRevokePrevious(t *testing.T) {
	for _, skew := range []time.Duration{0, -90 * time.Second, 90 * time.Second} {
		simulator, url := simulated(t, cfsim.Options{SeedTokens: 1, Behaviour: cfsim.Behaviour{ClockSkew: cfsim.Duration(skew)}})
		c, id := client(t, url, cloudflare.Options{}), cfsim.SeedTokenID(1)
		if _, err := c.Rotate(t.Context(), rotation.RotateRequest{TokenID: id, Grace: time.Hour}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, until, err := c.SetGrace(t.Context(), id, 0)
			if err != nil {
				t.Fatal(err)
			}
			truth, _ := simulator.Token(id)
			if ago := truth.UpdatedAt.Sub(truth.PreviousExpiresAt); ago < 0 || ago > time.Minute {
				t.Errorf("skew %s: the previous secret ended %s before the request", skew, ago)
			}
			if ago := time.Since(until); ago < 0 || ago > time.Minute {
				t.Errorf("skew %s: on our clock it ended %s ago", skew, ago)
			}
			if old := simulator.Secrets(id)[0]; old.Status != cfsim.StatusDead {
				t.Errorf("skew %s: it still works: %s", skew, old.Status)
			}
		}
	}
}

// TestGone: only Cloudflare itself can say that a service token is gone.
func TestGone(t *testing.T) {
	for body, gone := range map[string]bool{
		`{"success":false,"errors":[{"code":12133,"message":"access.api.error.service_token_not_found"}],"result":null}`: true,
		`{"success":false,"errors":[{"code":7003,"message":"No route for the URI"}],"result":null}`:                      false,
		"<html>404</html>": false,
		"":                 false,
	} {
		url, _ := serve(t, answer(404, "application/json", body))
		c := client(t, url, cloudflare.Options{})
		for name, call := range callsOnToken(t, c, tokenID) {
			err := call()
			if name == "Delete" { // deleting what does not exist is done
				if (err == nil) != gone {
					t.Errorf("Delete answered by %q: %v", body, err)
				}
				continue
			}
			if e, ok := errors.AsType[*rotation.IssuerError](err); !ok || e.Class != rotation.Refused || errors.Is(err, rotation.ErrGone) != gone {
				t.Errorf("%s answered by %q: %v", name, body, err)
			}
		}
	}
}

// callsOnToken are the calls that name a service token.
func callsOnToken(t *testing.T, c *cloudflare.Client, id string) map[string]func() error {
	return map[string]func() error{
		"Inspect":  func() error { _, err := c.Inspect(t.Context(), id); return err },
		"Rotate":   func() error { _, err := c.Rotate(t.Context(), rotation.RotateRequest{TokenID: id}); return err },
		"SetGrace": func() error { _, _, err := c.SetGrace(t.Context(), id, time.Hour); return err },
		"Renew":    func() error { _, err := c.Renew(t.Context(), id, "24h"); return err },
		"refresh":  func() error { _, err := c.Renew(t.Context(), id, ""); return err },
		"Delete":   func() error { return c.Delete(t.Context(), id) },
	}
}
