package cfsim_test

import (
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
)

// TestBehindTheClientsBack does what a colleague on the dashboard could do, and checks what a client sees.
func TestBehindTheClientsBack(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 2})
	id := cfsim.SeedTokenID(1)
	first := r.first(id)
	r.clock.advance(time.Hour)
	before := r.get(id)

	var shown cfsim.Token
	r.control("PUT", "/tokens/"+id, `{"last_seen_at":"2026-01-02T03:04:05Z"}`, 200, &shown)
	if got := r.get(id); got.LastSeenAt != "2026-01-02T03:04:05.00000Z" || got.UpdatedAt != before.UpdatedAt || shown.LastSeenAt.IsZero() {
		t.Errorf("%+v", got)
	}
	r.control("PUT", "/tokens/"+id, `{"last_seen_at":"0001-01-01T00:00:00Z","name":"renamed"}`, 200, nil)
	if got := r.get(id); got.LastSeenAt != "" || got.Name != "renamed" {
		t.Errorf("%+v", got)
	}
	r.control("PUT", "/tokens/"+id, `{"enabled":false}`, 200, nil)
	r.wantUse(id, first, 401, "")
	r.control("PUT", "/tokens/"+id, `{"enabled":true,"expires_at":"2026-11-02T04:30:00Z"}`, 200, nil)
	r.wantUse(id, first, 401, "")
	r.control("PUT", "/tokens/"+id, `{"expires_at":"0001-01-01T00:00:00Z","updated_at":"2026-10-01T00:00:00Z"}`, 200, nil)
	r.wantUse(id, first, 200, "current")
	if got := r.get(id); got.ExpiresAt != "" || got.UpdatedAt != "2026-10-01T00:00:00.00000Z" {
		t.Errorf("%+v", got)
	}

	r.control("POST", "/tokens/"+id+"/rotate", `{"grace":"10m"}`, 200, &shown)
	if got := r.get(id); shown.Rotations != 1 || got.UpdatedAt != "2026-11-02T05:00:00.00000Z" {
		t.Errorf("%+v, %+v", shown, got)
	}
	r.wantUse(id, first, 200, "previous")
	r.clock.advance(10 * time.Minute)
	r.wantUse(id, first, 401, "")
	_, fresh, err := r.sim.Rotate(id, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.wantUse(id, fresh, 200, "current")

	r.control("DELETE", "/tokens/"+id, "", 204, nil)
	if a := r.api("GET", tokensPath+"/"+id, ""); a.status != 404 {
		t.Errorf("status %d", a.status)
	}
	if got := r.sim.Stats(); got.Rotations[id] != 2 || got.Count(cfsim.OpRotate)+got.Count(cfsim.OpUpdate)+got.Count(cfsim.OpDelete) != 0 {
		t.Errorf("counted as requests: %+v", got)
	}

	for _, x := range []struct {
		method, path, body string
		status             int
	}{
		{"PUT", "/tokens/" + id, `{"enabled":true}`, 404},
		{"POST", "/tokens/" + id + "/rotate", `{}`, 404},
		{"DELETE", "/tokens/" + id, ``, 404},
		{"PUT", "/tokens/" + cfsim.SeedTokenID(2), `{"enable":true}`, 400},
		{"PUT", "/tokens/" + cfsim.SeedTokenID(2), `{"name":" "}`, 400},
		{"PUT", "/tokens/" + cfsim.SeedTokenID(2), ``, 400},
		{"POST", "/tokens/" + cfsim.SeedTokenID(2) + "/rotate", `{"grace":"long"}`, 400},
		{"POST", "/tokens", `{}`, 400},
		{"POST", "/tokens", `{"name":"x","id":"` + id + `"}`, 400}, // a deleted one's
		{"POST", "/tokens", `{"name":"x","id":"ci"}`, 400},
		{"PATCH", "/tokens/" + id, ``, 405},
	} {
		r.control(x.method, x.path, x.body, x.status, nil)
	}
}

// TestTokensWithGivenIDs are for rehearsing an existing configuration.
func TestTokensWithGivenIDs(t *testing.T) {
	r := newRig(t, cfsim.Options{})
	const given = "F174E90A-FAFE-4643-BBBC-4A0ED4FC8415"
	var shown cfsim.Token
	r.control("POST", "/tokens", `{"id":"`+given+`","name":"ci","account_id":"`+otherAccount+`","duration":"24h"}`, 201, &shown)
	if shown.ID != unknownToken || shown.Owner != "accounts/"+otherAccount || !shown.Enabled {
		t.Errorf("%+v", shown)
	}
	if got := r.api("GET", "/accounts/"+otherAccount+"/access/service_tokens/"+given, "").token(r); got.ID != unknownToken {
		t.Errorf("%+v", got)
	}
}

// TestTokenHeader is an application with read_service_tokens_from_header.
func TestTokenHeader(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1, Behaviour: cfsim.Behaviour{TokenHeader: "Authorization"}})
	id := cfsim.SeedTokenID(1)
	token, _ := r.sim.Token(id)
	both := func(clientID string, v secret.Value) string {
		return `{"cf-access-client-id": "` + clientID + `", "cf-access-client-secret": "` + v.Reveal() + `"}`
	}
	good := both(token.ClientID, r.first(id))
	for name, x := range map[string]struct {
		status  int
		headers []string
	}{
		"the header":           {200, []string{"Authorization", good}},
		"another header":       {401, []string{"X-Service-Token", good}},
		"a wrong secret":       {401, []string{"Authorization", both(token.ClientID, testSecret)}},
		"something else":       {401, []string{"Authorization", "Bearer abc"}},
		"empty":                {401, []string{"Authorization", "{}"}},
		"the two headers":      {200, []string{"CF-Access-Client-Id", token.ClientID, "CF-Access-Client-Secret", r.first(id).Reveal()}},
		"both, the two wrong":  {401, []string{"Authorization", good, "CF-Access-Client-Id", token.ClientID, "CF-Access-Client-Secret", "x"}},
		"both, the other junk": {200, []string{"Authorization", "Basic eDp5", "CF-Access-Client-Id", token.ClientID, "CF-Access-Client-Secret", r.first(id).Reveal()}},
	} {
		if a := r.send("GET", "/app/"+id, "", x.headers...); a.status != x.status {
			t.Errorf("%s: status %d, want %d", name, a.status, x.status)
		}
	}
	r.control("PUT", "/behaviour", `{"token_header":"not a header"}`, 400, nil)
	r.control("PUT", "/behaviour", `{}`, 200, nil)
	if a := r.send("GET", "/app/", "", "Authorization", good); a.status != 401 {
		t.Errorf("an application that was not told of a header takes it: %d", a.status)
	}
}

// TestAge: a grace and an API token end without waiting.
func TestAge(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1, RateLimit: 3, Behaviour: cfsim.Behaviour{APITokenExpiresOn: epoch.Add(2 * time.Hour)}})
	id := cfsim.SeedTokenID(1)
	first := r.first(id)
	r.rotated(id, time.Hour)
	r.wantUse(id, first, 200, "previous")
	before, _ := r.sim.Token(id)
	if err := r.sim.Age(time.Hour - time.Second); err != nil {
		t.Fatal(err)
	}
	r.wantUse(id, first, 200, "previous")
	if err := r.sim.Age(time.Second); err != nil {
		t.Fatal(err)
	}
	r.wantUse(id, first, 401, "")
	after, _ := r.sim.Token(id)
	if !after.UpdatedAt.Equal(before.UpdatedAt.Add(-time.Hour)) || !after.ExpiresAt.Equal(before.ExpiresAt.Add(-time.Hour)) {
		t.Errorf("%+v, then %+v", before, after)
	}
	for range 3 { // with the one above, this would be one too many
		r.get(id)
	}
	if err := r.sim.Age(time.Hour); err != nil {
		t.Fatal(err)
	}
	if a := r.api("GET", tokensPath, ""); a.status != 403 {
		t.Errorf("an API token that has expired: status %d", a.status)
	}
}

// TestAllTokens: a deleted token is in the list, and Token says that it does not exist.
func TestAllTokens(t *testing.T) {
	sim := cfsim.New(cfsim.Options{SeedTokens: 2})
	if err := sim.Delete(cfsim.SeedTokenID(1)); err != nil {
		t.Fatal(err)
	}
	all, left := sim.AllTokens(), sim.Tokens()
	if len(all) != 2 || all[0].ID != cfsim.SeedTokenID(1) || len(left) != 1 || all[1] != left[0] {
		t.Errorf("all are %+v, and %+v are left", all, left)
	}
	if _, there := sim.Token(all[0].ID); there {
		t.Error("the deleted one is there")
	}
}
