package cfsim_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
)

func TestCreateGetDelete(t *testing.T) {
	for _, kind := range []string{"accounts", "zones"} {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t, cfsim.Options{})
			path := "/" + kind + "/" + otherAccount + "/access/service_tokens"
			a := r.api("POST", path, `{"name":"CI/CD token","duration":"60m","enabled":true,"unknown":1,"client_secret_version":null}`)
			made := a.token(t)
			if a.status != 201 || made.Name != "CI/CD token" || made.Duration != "60m" || !made.Enabled ||
				made.CreatedAt != "2026-11-02T04:00:00.00000Z" || made.UpdatedAt != made.CreatedAt {
				t.Errorf("status %d, %s", a.status, secret.Scrub(a.raw))
			}
			if !secretShape.MatchString(made.ClientSecret) || !strings.HasSuffix(made.ClientID, ".access") {
				t.Error("the credentials have the wrong shape")
			}
			r.wantUse(made.ID, secret.New(made.ClientSecret), 200, "current")

			a = r.api("GET", path+"/"+strings.ToUpper(made.ID), "")
			if got := a.token(t); a.status != 200 || got.ClientSecret != "" || got.ExpiresAt != "2026-11-02T05:00:00.00000Z" {
				t.Errorf("status %d, %+v", a.status, got)
			}
			if strings.Contains(a.raw, "client_secret") || strings.Contains(a.raw, "version") {
				t.Error("get shows more than it should")
			}
			if a = r.api("DELETE", path+"/"+made.ID, ""); a.status != 200 || a.token(t).ID != made.ID {
				t.Errorf("delete answered %d", a.status)
			}
			if a = r.api("GET", path+"/"+made.ID, ""); a.status != 404 {
				t.Errorf("a deleted token answered %d", a.status)
			}
			if status, _ := r.use("/app/", made.ClientID, secret.New(made.ClientSecret)); status != 401 {
				t.Errorf("a deleted token was answered %d", status)
			}
			if _, there := r.sim.Token(made.ID); there || len(r.sim.Tokens()) != 0 || len(r.sim.Secrets(made.ID)) != 1 {
				t.Error("a deleted token should be gone, and its history not")
			}
		})
	}
}

func TestCreateDefaults(t *testing.T) {
	r := newRig(t, cfsim.Options{})
	made := r.api("POST", tokensPath, `{"name":"x"}`).token(t)
	if got := r.get(made.ID); got.Duration != "8760h" || !got.Enabled || got.ExpiresAt != "2027-11-02T04:00:00.00000Z" || got.LastSeenAt != "" {
		t.Errorf("%+v", got)
	}
	if r.api("POST", tokensPath, `{"name":"y","enabled":false}`).token(t).Enabled {
		t.Error("made enabled")
	}
}

func TestOwnersAreApart(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	for _, owner := range []string{"/accounts/" + otherAccount, "/zones/" + cfsim.DefaultAccountID} {
		if a := r.api("GET", owner+"/access/service_tokens/"+id, ""); a.status != 404 {
			t.Errorf("%s sees the token: %d", owner, a.status)
		}
		if a := r.api("GET", owner+"/access/service_tokens", ""); a.Info.TotalCount != 0 || string(a.Result) != "[]" {
			t.Errorf("%s lists %s", owner, a.Result)
		}
	}
	if a := r.api("POST", "/accounts/"+otherAccount+"/access/service_tokens/"+id+"/rotate", ""); a.status != 404 {
		t.Errorf("another account rotated the token: %d", a.status)
	}
	if got := r.sim.Stats().Rotations[id]; got != 0 {
		t.Errorf("%d rotations", got)
	}
}

func TestDeleteIsRefusedWhileInPolicy(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	if err := r.sim.SetInPolicy(id, true); err != nil {
		t.Fatal(err)
	}
	if a := r.api("DELETE", tokensPath+"/"+id, ""); a.status != 409 || a.code() != 12139 {
		t.Errorf("status %d, code %d", a.status, a.code())
	}
	r.wantUse(id, r.first(id), 200, "current")
	if err := r.sim.SetInPolicy(id, false); err != nil {
		t.Fatal(err)
	}
	if a := r.api("DELETE", tokensPath+"/"+id, ""); a.status != 200 {
		t.Errorf("status %d", a.status)
	}
	if err := r.sim.SetInPolicy(id, true); err == nil {
		t.Error("a deleted token is in a policy")
	}
}

func TestList(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 25})
	r.api("POST", tokensPath, `{"name":"Deploy"}`)
	for query, want := range map[string]struct {
		names                              string // first and last
		count, page, perPage, total, pages int
	}{
		"":                              {"seeded-0001 Deploy", 26, 1, 1000, 26, 1},
		"?per_page=10":                  {"seeded-0001 seeded-0010", 10, 1, 10, 26, 3},
		"?per_page=10&page=3":           {"seeded-0021 Deploy", 6, 3, 10, 26, 3},
		"?per_page=10&page=4":           {"", 0, 4, 10, 26, 3},
		"?page=9223372036854775807":     {"", 0, 1<<63 - 1, 1000, 26, 1},
		"?name=seeded-0007":             {"seeded-0007 seeded-0007", 1, 1, 1000, 26, 1},
		"?name=seeded":                  {"", 0, 1, 1000, 26, 0},
		"?search=SEEDED-002":            {"seeded-0020 seeded-0025", 6, 1, 1000, 26, 1},
		"?search=deploy&name=Deploy":    {"Deploy Deploy", 1, 1, 1000, 26, 1},
		"?search=seeded&per_page=20":    {"seeded-0001 seeded-0020", 20, 1, 20, 26, 2},
		"?search=zzz&page=1&per_page=1": {"", 0, 1, 1, 26, 0},
	} {
		a := r.api("GET", tokensPath+query, "")
		var tokens []result
		if err := json.Unmarshal(a.Result, &tokens); err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		names := ""
		if len(tokens) > 0 {
			names = tokens[0].Name + " " + tokens[len(tokens)-1].Name
		}
		i := a.Info
		if names != want.names || len(tokens) != want.count || i.Count != want.count || i.Page != want.page ||
			i.PerPage != want.perPage || i.TotalCount != want.total || i.TotalPages != want.pages {
			t.Errorf("%s: %q, %+v, want %+v", query, names, i, want)
		}
		if strings.Contains(a.raw, "client_secret") {
			t.Errorf("%s: the list shows a secret", query)
		}
	}
	for _, query := range []string{"?page=0", "?page=x", "?per_page=0", "?per_page=1001", "?per_page=", "?page=99999999999999999999"} {
		if a := r.api("GET", tokensPath+query, ""); a.status != 400 {
			t.Errorf("%s: status %d", query, a.status)
		}
	}
}

func TestBadBodies(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	one := tokensPath + "/" + cfsim.SeedTokenID(1)
	before := r.sim.Tokens()
	for _, x := range []struct{ method, path, body, pointer string }{
		{"POST", tokensPath, ``, ""},
		{"POST", tokensPath, `{`, ""},
		{"POST", tokensPath, `[]`, ""},
		{"POST", tokensPath, `{"name":"x"}{}`, ""},
		{"POST", tokensPath, `{}`, "/name"},
		{"POST", tokensPath, `{"name":""}`, "/name"},
		{"POST", tokensPath, `{"name":" "}`, "/name"},
		{"POST", tokensPath, `{"name":5}`, "/name"},
		{"POST", tokensPath, `{"name":"x","duration":"1 year"}`, "/duration"},
		{"POST", tokensPath, `{"name":"x","duration":"-1h"}`, "/duration"},
		{"POST", tokensPath, `{"name":"x","enabled":"yes"}`, "/enabled"},
		{"POST", tokensPath, `{"name":"x","client_secret_version":0}`, "/client_secret_version"},
		{"POST", tokensPath, `{"name":"` + strings.Repeat("x", 1<<20) + `"}`, ""},
		{"PUT", one, ``, ""},
		{"PUT", one, `{"duration":"0s"}`, "/duration"},
		{"PUT", one, `{"name":""}`, "/name"},
		{"PUT", one, `{"previous_client_secret_expires_at":"tomorrow"}`, "/previous_client_secret_expires_at"},
		{"POST", one + "/rotate", `nonsense`, ""},
		{"POST", one + "/rotate", `{"previous_client_secret_expires_at":"2026-13-01T00:00:00Z"}`, "/previous_client_secret_expires_at"},
		{"POST", one + "/rotate", `{"previous_client_secret_expires_at":7}`, "/previous_client_secret_expires_at"},
	} {
		a := r.api(x.method, x.path, x.body)
		if a.status != 400 || a.code() < 1000 || a.Errors[0].Source.Pointer != x.pointer {
			t.Errorf("%s %s %.80s: status %d, %+v", x.method, x.path, x.body, a.status, a.Errors)
		}
	}
	if after := r.sim.Tokens(); len(after) != 1 || after[0] != before[0] {
		t.Errorf("refused requests changed something: %+v", after)
	}
}

func TestRoutes(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	for _, x := range []struct{ method, path string }{
		{"GET", ""},
		{"GET", "/"},
		{"GET", "/nothing"},
		{"PATCH", tokensPath + "/" + id},
		{"DELETE", tokensPath},
		{"GET", tokensPath + "/"},
		{"GET", tokensPath + "/" + id + "/rotate"},
		{"POST", "//accounts/" + cfsim.DefaultAccountID + "/access/service_tokens/" + id + "/rotate"},
		{"POST", tokensPath + "/" + id + "/../" + id + "/rotate"},
		{"POST", tokensPath + "/" + id + "/rotate/"},
		{"POST", "/zones/" + cfsim.DefaultAccountID + "/access/service_tokens/" + id + "/rotate"},
		{"POST", "/zones/" + cfsim.DefaultAccountID + "/access/service_tokens/" + id + "/refresh"},
		{"GET", "/users/" + cfsim.DefaultAccountID + "/access/service_tokens"},
		{"GET", "/accounts/short/access/service_tokens"},
		{"GET", "/accounts/" + strings.Repeat("g", 32) + "/access/service_tokens"},
	} {
		if a := r.api(x.method, x.path, ""); a.status != 404 || a.code() != 7003 {
			t.Errorf("%s %s: status %d, code %d", x.method, x.path, a.status, a.code())
		}
	}
	for _, x := range []struct{ method, path string }{
		{"GET", tokensPath + "/f174e90a-fafe-4643-bbbc-4a0ed4fc8415"},
		{"PUT", tokensPath + "/f174e90a-fafe-4643-bbbc-4a0ed4fc8415"},
		{"DELETE", tokensPath + "/not-a-uuid"},
		{"POST", tokensPath + "/f174e90a-fafe-4643-bbbc-4a0ed4fc8415/rotate"},
		{"POST", tokensPath + "/f174e90a-fafe-4643-bbbc-4a0ed4fc8415/refresh"},
	} {
		if a := r.api(x.method, x.path, "{}"); a.status != 404 || a.code() < 1000 || a.code() == 7003 {
			t.Errorf("%s %s: status %d, code %d", x.method, x.path, a.status, a.code())
		}
	}
	if got := r.sim.Stats(); got.Rotations[id] != 0 || got.Requests[cfsim.OpUnknown][404] != 15 {
		t.Errorf("%+v", got)
	}
}

func TestAuthentication(t *testing.T) {
	token, key := secret.New("the-token"), secret.New("the-key")
	bearer := func(s string) []string { return []string{"Authorization", "Bearer " + s} }
	pair := func(email, key string) []string { return []string{"X-Auth-Email", email, "X-Auth-Key", key} }
	any, both := cfsim.Options{}, cfsim.Options{APIToken: token, APIEmail: "ops@example.com", APIKey: key}
	for name, x := range map[string]struct {
		options      cfsim.Options
		headers      []string
		status, code int
		verify       int // the status of verify, which needs a token
	}{
		"any token":           {any, bearer("whatever"), 200, 0, 200},
		"lower case scheme":   {any, []string{"Authorization", "bearer x"}, 200, 0, 200},
		"any key":             {any, pair("a@b.c", "k"), 200, 0, 401},
		"nothing":             {any, nil, 401, 10000, 401},
		"empty token":         {any, bearer(""), 401, 10000, 401},
		"another scheme":      {any, []string{"Authorization", "Basic eDp5"}, 401, 10000, 401},
		"key without address": {any, []string{"X-Auth-Key", "k"}, 401, 10000, 401},
		"address without key": {any, []string{"X-Auth-Email", "a@b.c"}, 401, 10000, 401},
		"the token":           {both, bearer("the-token"), 200, 0, 200},
		"the key":             {both, pair("ops@example.com", "the-key"), 200, 0, 401},
		"wrong token":         {both, bearer("another"), 403, 9109, 401},
		"wrong key":           {both, pair("ops@example.com", "another"), 403, 9109, 401},
		"wrong address":       {both, pair("a@b.c", "the-key"), 403, 9109, 401},
		"key where only a token counts": {
			cfsim.Options{APIToken: token}, pair("ops@example.com", "the-key"), 403, 9109, 401,
		},
		"token where only a key counts": {
			cfsim.Options{APIEmail: "ops@example.com", APIKey: key}, bearer("the-token"), 403, 9109, 401,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, x.options)
			if a := r.envelope(r.send("GET", "/client/v4"+tokensPath, "", x.headers...)); a.status != x.status || a.code() != x.code {
				t.Errorf("status %d, code %d", a.status, a.code())
			}
			for _, path := range []string{"/user/tokens/verify", "/accounts/" + otherAccount + "/tokens/verify"} {
				a := r.envelope(r.send("GET", "/client/v4"+path, "", x.headers...))
				if a.status != x.verify {
					t.Errorf("%s: status %d", path, a.status)
				}
				if a.status == 200 && (!strings.Contains(string(a.Result), `"status":"active"`) || len(a.Messages) == 0) {
					t.Errorf("%s: %s", path, a.Result)
				}
			}
		})
	}
}

func TestRateLimit(t *testing.T) {
	r := newRig(t, cfsim.Options{RateLimit: 3, SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	want := func(a answer, status int, limit, retryAfter string) {
		t.Helper()
		if a.status != status || a.header.Get("Ratelimit") != limit || a.header.Get("Retry-After") != retryAfter ||
			a.header.Get("Ratelimit-Policy") != `"default";q=3;w=300` {
			t.Errorf("status %d, %v", a.status, a.header)
		}
	}
	want(r.api("GET", tokensPath, ""), 200, `"default";r=2;t=300`, "")
	r.clock.advance(10500 * time.Millisecond)
	want(r.api("GET", "/nothing", ""), 404, `"default";r=1;t=290`, "")
	want(r.rotate(id, ""), 200, `"default";r=0;t=290`, "")
	r.clock.advance(time.Second)
	want(r.rotate(id, ""), 429, `"default";r=0;t=300`, "300")
	r.clock.advance(299 * time.Second) // the window is over, the penalty is not
	want(r.rotate(id, ""), 429, `"default";r=0;t=1`, "1")

	other := r.envelope(r.send("GET", "/client/v4"+tokensPath, "", "Authorization", "Bearer another"))
	want(other, 200, `"default";r=2;t=300`, "")

	r.clock.advance(time.Second)
	want(r.rotate(id, ""), 200, `"default";r=2;t=300`, "")
	if got := r.sim.Stats(); got.Rotations[id] != 2 || got.Requests[cfsim.OpRotate][429] != 2 {
		t.Errorf("%+v", got)
	}
	r.clock.advance(5 * time.Minute) // an ordinary window begins again as well
	want(r.rotate(id, ""), 200, `"default";r=2;t=300`, "")
}

func TestRateLimitDefaultsAndOff(t *testing.T) {
	r := newRig(t, cfsim.Options{})
	if got := r.api("GET", tokensPath, "").header.Get("Ratelimit"); got != `"default";r=1199;t=300` {
		t.Errorf("Ratelimit: %s", got)
	}
	r = newRig(t, cfsim.Options{RateLimit: -1})
	for range 5 {
		a := r.send("GET", "/client/v4"+tokensPath, "", "Authorization", "Bearer x")
		if a.status != http.StatusOK || a.header.Get("Ratelimit") != "" {
			t.Errorf("status %d, %v", a.status, a.header)
		}
	}
}

func TestApplication(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 2})
	one, two := r.sim.Tokens()[0], r.sim.Tokens()[1]
	good := r.first(one.ID)
	for _, x := range []struct {
		path, clientID string
		v              secret.Value
		status         int
		which          string
	}{
		{"/app/", one.ClientID, good, 200, "current"},
		{"/app/health", one.ClientID, good, 200, "current"},
		{"/app/" + one.ID, one.ClientID, good, 200, "current"},
		{"/app/" + strings.ToUpper(one.ID) + "/health", one.ClientID, good, 200, "current"},
		{"/app/" + two.ID, one.ClientID, good, 403, ""},
		{"/app/" + two.ID + "/health", one.ClientID, good, 403, ""},
		{"/app/f174e90a-fafe-4643-bbbc-4a0ed4fc8415", one.ClientID, good, 403, ""},
		{"/app/", one.ClientID, r.first(two.ID), 401, ""},
		{"/app/" + one.ID, two.ClientID, good, 401, ""},
		{"/app/" + two.ID, one.ClientID, secret.New("wrong"), 401, ""},
		{"/app/", one.ClientID, secret.Value{}, 401, ""},
		{"/app/", "", good, 401, ""},
		{"/app/", "", secret.Value{}, 401, ""},
	} {
		if status, which := r.use(x.path, x.clientID, x.v); status != x.status || which != x.which {
			t.Errorf("%s: %d %q, want %d %q", x.path, status, which, x.status, x.which)
		}
	}
	if got, want := fmt.Sprint(r.sim.Stats().App), "map[200:4 401:6 403:3]"; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}

	r.sim.SetBehaviour(cfsim.Behaviour{LoginRedirect: true})
	for path, want := range map[string]int{"/app/": 200, "/app/" + two.ID: 302} {
		if status, _ := r.use(path, one.ClientID, good); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
	a := r.send("GET", "/app/", "")
	if a.status != 302 || a.header.Get("Location") == "" {
		t.Errorf("status %d, %v", a.status, a.header)
	}
}
