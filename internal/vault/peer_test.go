package vault

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/config"
)

const canary = "cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef"

// idleSession is a session that has a token, and is not kept by anything.
func idleSession(t *testing.T, address string, appRole bool) *Session {
	t.Helper()
	source := file(t, rootToken)
	var auth config.VaultAuth = &config.TokenAuth{Source: source}
	if appRole {
		auth = &config.AppRole{Mount: "approle", RoleID: file(t, roleID), SecretID: file(t, secretID)}
	}
	s, err := New(config.Vault{Address: address, Timeout: 5 * time.Second, Auth: auth}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.client.session.SetToken(rootToken)
	s.loggedIn = true
	return s
}

// sessions are one with each way to log in.
type sessions struct{ token, appRole *Session }

func sessionsAt(t *testing.T, address string) sessions {
	return sessions{idleSession(t, address, false), idleSession(t, address, true)}
}

// operations are all requests that a session sends.
var operations = map[string]func(context.Context, sessions) error{
	"login":                func(ctx context.Context, s sessions) error { _, err := s.appRole.logIn(ctx); return err },
	"lookup-self":          func(ctx context.Context, s sessions) error { _, err := s.token.LookUp(ctx); return err },
	"lookup-self at login": func(ctx context.Context, s sessions) error { _, err := s.token.logIn(ctx); return err },
	"renew-self": func(ctx context.Context, s sessions) error {
		_, err := s.token.client.session.Auth().Token().RenewTokenAsSelfWithContext(ctx, rootToken, 0)
		return plain(err)
	},
	"mounts": func(ctx context.Context, s sessions) error {
		s.token.ForgetKVVersion("kv")
		_, err := s.token.KVVersion(ctx, "kv")
		return err
	},
	"capabilities-self": func(ctx context.Context, s sessions) error {
		_, err := s.token.Capabilities(ctx, []string{"kv/data/x"})
		return err
	},
	"read": func(ctx context.Context, s sessions) error { _, err := s.token.Read(ctx, "kv/data/x"); return err },
	"write": func(ctx context.Context, s sessions) error {
		_, err := s.token.Write(ctx, "kv/data/x", map[string]any{"data": map[string]any{"client_secret": canary}})
		return err
	},
	"raw read": func(ctx context.Context, s sessions) error {
		_, err := s.token.Send(ctx, Request{Path: "kv/data/x"})
		return err
	},
	"raw read of a version": func(ctx context.Context, s sessions) error {
		_, err := s.token.Send(ctx, Request{Path: "kv/data/x", Version: 3})
		return err
	},
	"raw merge": func(ctx context.Context, s sessions) error {
		_, err := s.token.Send(ctx, Request{Path: "kv/metadata/x", Merge: true, Body: map[string]any{"custom_metadata": map[string]any{"a": canary}}})
		return err
	},
	"raw write": func(ctx context.Context, s sessions) error {
		_, err := s.token.Send(ctx, Request{Path: "kv/data/x", Body: map[string]any{"client_secret": canary}})
		return err
	},
}

// raw are operations that return an answer as it came.
func raw(operation string) bool { return strings.HasPrefix(operation, "raw") }

// TestRedirectsAreNotFollowed counts what another server gets, for each operation.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var strays atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strays.Add(1) }))
	t.Cleanup(elsewhere.Close)
	host := strings.TrimPrefix(elsewhere.URL, "http://")
	for _, status := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		for name, test := range map[string]struct{ location, want string }{
			"elsewhere":      {elsewhere.URL + "/login?token=private", " redirected to " + host + ": is an SSO policy in front of Vault?"},
			"same path":      {elsewhere.URL + "SAME", " redirected to " + host + ": is"},
			"without scheme": {"//" + host + "SAME", " redirected to " + host + ": is"},
			"with a user":    {"http://user:private@" + host + "SAME", " redirected to " + host + ": is"},
			"own with user":  {"http://user:private@OWNSAME", " redirected to OWN: is"},
			"own by https":   {"https://OWNSAME", " redirected to https://OWN: is"},
			"own login":      {"http://OWN/login", " redirected to OWN: is"},
			"own with query": {"http://OWNSAME?ticket=private", " redirected to OWN: is"},
			"relative":       {"/login", " redirected to OWN: is"},
			"none":           {"", " redirected without a readable address"},
			"broken":         {"http://%zz/private", " redirected without a readable address"},
			"no host":        {"mailto:private@example.com", " redirected without a readable address"},
			"long host":      {"http://" + strings.Repeat("z", 5000) + "/", " redirected to zzz"},
		} {
			if name != "elsewhere" && status != 302 && status != 307 {
				continue
			}
			var asked atomic.Int64
			var web *httptest.Server
			replace := func(s, path string) string {
				return strings.NewReplacer("OWN", strings.TrimPrefix(web.URL, "http://"), "SAME", path).Replace(s)
			}
			web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if test.location != "" {
					w.Header()["Location"] = []string{replace(test.location, r.URL.EscapedPath())}
				}
				w.Header().Set("Refresh", "0; url="+elsewhere.URL)
				w.WriteHeader(status)
			}))
			at := sessionsAt(t, web.URL)
			for operation, do := range operations {
				asked.Store(0)
				err := do(t.Context(), at)
				want := replace(test.want, "")
				if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "private") ||
					strings.Contains(err.Error(), "CANARY") || len(err.Error()) > 1000 {
					t.Errorf("%s, HTTP %d, %s: %v, want %q", operation, status, name, err, want)
				}
				if n := asked.Load(); n != 1 {
					t.Errorf("%s, HTTP %d, %s: %d requests, want 1", operation, status, name, n)
				}
			}
			web.Close()
		}
	}
	if n := strays.Load(); n != 0 {
		t.Errorf("the other server got %d requests", n)
	}
}

// TestStandby: a standby redirects to the address of the cluster, which may be the one that it
// was asked at. The same request is sent there again, a few times at most.
func TestStandby(t *testing.T) {
	for _, standbys := range []int64{0, 1, 2, 3, 99} {
		var asked atomic.Int64
		var web *httptest.Server
		web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if r.Header.Get("X-Vault-Token") != rootToken || !strings.Contains(string(body), canary) {
				t.Errorf("%s came with another token or body", r.URL)
			}
			if asked.Add(1) <= standbys {
				w.Header().Set("Location", web.URL+r.URL.EscapedPath())
				w.WriteHeader(http.StatusTemporaryRedirect)
				return
			}
			_, _ = io.WriteString(w, `{"data":{"version":1}}`)
		}))
		err := operations["write"](t.Context(), sessionsAt(t, web.URL))
		if standbys <= maxRedirects && err != nil {
			t.Errorf("behind %d standbys: %v", standbys, err)
		}
		if standbys > maxRedirects && (err == nil || !strings.Contains(err.Error(), "3 nodes in a row redirected, the last one")) {
			t.Errorf("behind %d standbys: %v", standbys, err)
		}
		if n := asked.Load(); n != min(standbys, maxRedirects)+1 {
			t.Errorf("behind %d standbys: %d requests", standbys, n)
		}
		web.Close()
	}
}

// TestStandbyKeepsTheRequest: behind a standby a read asks for the same version, and a merge stays one. Without
// its query a read would get the current version, and without its type a merge would remove the keys of others.
func TestStandbyKeepsTheRequest(t *testing.T) {
	for name, test := range map[string]struct {
		request         Request
		method, query   string
		contentType     string
		dropped, failed bool // the standby drops the query; then it is not followed
	}{
		"a version":           {Request{Path: "kv/data/x", Version: 3}, http.MethodGet, "version=3", "", false, false},
		"a version, dropped":  {Request{Path: "kv/data/x", Version: 3}, http.MethodGet, "", "", true, true},
		"the current version": {Request{Path: "kv/data/x"}, http.MethodGet, "", "", false, false},
		"a merge": {Request{Path: "kv/metadata/x", Merge: true, Body: map[string]any{"custom_metadata": map[string]any{}}},
			http.MethodPatch, "", "application/merge-patch+json", false, false},
		"a write": {Request{Path: "kv/data/x", Body: map[string]any{}}, http.MethodPut, "", "application/json", false, false},
	} {
		asked := 0
		var web *httptest.Server
		web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked++; asked == 1 {
				to := web.URL + r.URL.RequestURI()
				if test.dropped {
					to = web.URL + r.URL.EscapedPath()
				}
				w.Header().Set("Location", to)
				w.WriteHeader(http.StatusTemporaryRedirect)
				return
			}
			if r.Method != test.method || r.URL.RawQuery != test.query || r.Header.Get("Content-Type") != test.contentType {
				t.Errorf("%s: %s %s, %q", name, r.Method, r.URL, r.Header.Get("Content-Type"))
			}
			_, _ = io.WriteString(w, `{"data":{"version":1}}`)
		}))
		_, err := sessionsAt(t, web.URL).token.send(t.Context(), test.request)
		if (err != nil) != test.failed || !test.failed && asked != 2 {
			t.Errorf("%s: %v after %d requests", name, err, asked)
		}
		web.Close()
	}
}

// TestNodes: a standby is followed to a node that the configuration names, by 307 and to the same
// path, and nowhere else.
func TestNodes(t *testing.T) {
	for name, test := range map[string]struct {
		named    bool
		status   int
		location string
		followed bool
	}{
		"named":            {true, 307, "NODE/v1/kv/data/x", true},
		"not named":        {false, 307, "NODE/v1/kv/data/x", false},
		"by another way":   {true, 302, "NODE/v1/kv/data/x", false},
		"for good":         {true, 308, "NODE/v1/kv/data/x", false},
		"to a login":       {true, 307, "NODE/ui/", false},
		"to another path":  {true, 307, "NODE/v1/kv/data/y", false},
		"with a query":     {true, 307, "NODE/v1/kv/data/x?x=y", false},
		"with a user":      {true, 307, "http://x:y@HOST/v1/kv/data/x", false},
		"to another port":  {true, 307, "http://127.0.0.1:1/v1/kv/data/x", false},
		"by https":         {true, 307, "https://HOST/v1/kv/data/x", false},
		"in other letters": {true, 307, "HTTP://HOST/v1/kv/data/x", true},
	} {
		t.Run(name, func(t *testing.T) {
			var got atomic.Int64
			node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got.Add(1)
				_, _ = io.WriteString(w, `{"data":{"version":1}}`)
			}))
			defer node.Close()
			location := strings.NewReplacer("NODE", node.URL, "HOST", strings.TrimPrefix(node.URL, "http://")).Replace(test.location)
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", location)
				w.WriteHeader(test.status)
			}))
			defer web.Close()
			source := file(t, rootToken)
			c := config.Vault{Address: web.URL, Timeout: 5 * time.Second, Auth: &config.TokenAuth{Source: source}}
			if test.named {
				c.Nodes = []string{node.URL}
			}
			s, err := New(c, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Write(t.Context(), "kv/data/x", map[string]any{"data": map[string]any{"client_secret": canary}})
			if test.followed != (err == nil) || test.followed != (got.Load() == 1) {
				t.Errorf("%v; the node got %d requests", err, got.Load())
			}
		})
	}
}

// oddAnswers are what no Vault answers to any of the operations.
var oddAnswers = []string{
	"200 ", "200  \n", "200 null", "200 {}", "200 []", "200 [{}]", "200 \"text\"", "200 0", "200 true", "200 {", "200 <html>login</html>",
	`200 {"data":null}`, `200 {"data":null,"auth":null}`, `200 {"auth":null}`, `200 {"data":[]}`, `200 {"data":"x"}`, `200 {"data":0}`, `200 {"data":true}`,
	`200 {"auth":[]}`, `200 {"auth":"x"}`, `200 {"auth":{}}`, `200 {"data":{},"auth":{}}`,
	`200 {"auth":{"client_token":null,"lease_duration":1}}`, `200 {"auth":{"client_token":"","lease_duration":1}}`, `200 {"auth":{"client_token":7,"lease_duration":1}}`,
	`200 {"auth":{"client_token":"hvs.x"}}`, `200 {"auth":{"client_token":"hvs.x","lease_duration":null}}`, `200 {"auth":{"client_token":"hvs.x","lease_duration":"1h"}}`,
	`200 {"auth":{"client_token":"hvs.x","lease_duration":true}}`, `200 {"auth":{"client_token":"hvs.x","lease_duration":-1}}`,
	`200 {"auth":{"client_token":"hvs.x","lease_duration":1.5}}`, `200 {"auth":{"client_token":"hvs.x","lease_duration":{}}}`,
	`200 {"auth":{"client_token":"hvs.x","lease_duration":1,"renewable":"yes"}}`, `200 {"auth":{"client_token":"hvs.x","lease_duration":1,"mfa_requirement":{}}}`,
	`200 {"wrap_info":{"token":"hvs.x","ttl":60}}`, `200 {"auth":null,"wrap_info":{"token":"hvs.x"}}`,
	`200 {"data":{"ttl":"1h"}}`, `200 {"data":{"ttl":true}}`, `200 {"data":{"ttl":-1}}`, `200 {"data":{"ttl":[]}}`, `200 {"data":{"ttl":1.5}}`, `200 {"data":{"ttl":null}}`,
	`200 {"data":{"ttl":1,"renewable":"x"}}`, `200 {"data":{"ttl":1,"policies":"root"}}`, `200 {"data":{"ttl":1,"policies":[1]}}`,
	`200 {"data":{"ttl":1,"num_uses":"x"}}`, `200 {"data":{"ttl":1,"num_uses":1.5}}`,
	`200 {"data":{"type":7}}`, `200 {"data":{"type":null}}`, `200 {"data":{"type":"kv","options":[]}}`, `200 {"data":{"type":"kv","options":{"version":"3"}}}`,
	`200 {"data":{"kv/data/x":"update"}}`, `200 {"data":{"kv/data/x":[1]}}`, `200 {"data":{"kv/data/x":{}}}`,
	"200 " + strings.Repeat("[", 1<<20), `200 {"data":` + strings.Repeat(`{"a":`, 20000), `200 {} {}`, `200 {}x`,
	`200 {"errors":["x"]}`, `200 {"ttl":60}`, `200 {"type":"kv"}`, `200 {"request_id":7}`, `200 {"request_id":"x","lease_duration":"CANARY"}`,
	`200 {"data":{},"wrap_info":{"creation_time":"CANARY"}}`, `200 {"data":{},"warnings":"CANARY"}`,
	`200 {"auth":{"client_token":"hvs.x y","lease_duration":1}}`, `200 {"auth":{"client_token":"hvs.x\n","lease_duration":1}}`,
	`200 {"auth":{"client_token":"hvs.x","lease_duration":9223372037}}`, `200 {"auth":{"client_token":"hvs.x","lease_duration":99999999999999999999}}`,
	`200 {"auth":{"client_token":"hvs.x","lease_duration":1,"policies":"CANARY"}}`, `404 {"data":{}}`, `404 {"errors":[],"CANARY":1}`,
	"201 {}", "202 {}", "204 ", "206 {}", "404 ", "404 <html>", "404 {}", "404 null", "404 []", `404 {"errors":null}`, `404 {"errors":"no"}`,
	`404 {"errors":["no handler for route"]}`, `404 {"message":"Not Found"}`, `404 {"errors":[],"warnings":["Invalid path"]}`,
	`404 {"request_id":"x","data":null,"warnings":["Invalid path for a versioned K/V secrets engine"]}`,
	"400 ", "400 {}", "401 <html>", `403 {"errors":["permission denied"]}`, "403 <html>", "418 ", "429 ", "500 null", "502 <html>", `503 {"errors":["sealed"]}`, "599 x",
}

func oddServer(t *testing.T) (address string, set func(string)) {
	t.Helper()
	var answer atomic.Pointer[string]
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var status int
		text := *answer.Load()
		_, _ = fmt.Sscan(text[:3], &status)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text[4:])
	}))
	t.Cleanup(web.Close)
	return web.URL, func(s string) { answer.Store(&s) }
}

// TestOddAnswers: no operation takes an answer for something that it does not say, and none
// panics. An error names the operation, or says in Vault's own words what is wrong.
func TestOddAnswers(t *testing.T) {
	address, set := oddServer(t)
	at := sessionsAt(t, address)
	for _, answer := range oddAnswers {
		set(answer)
		for operation, do := range operations {
			err := do(t.Context(), at)
			switch {
			case raw(operation) && (answer[0] == '2' || strings.HasPrefix(answer, "404")):
				if err != nil {
					t.Errorf("%s: %.80q: %v, want the answer as it came", operation, answer, err)
				}
			case err == nil && taken(operation, answer):
			case err == nil:
				t.Errorf("%s took %.80q", operation, answer)
			case answer[0] == '2' && !strings.Contains(err.Error(), strings.TrimSuffix(operation, " at login")+": the answer is not one of Vault's") &&
				!strings.Contains(err.Error(), "MFA") && !strings.Contains(err.Error(), "KV version") && !strings.Contains(err.Error(), "has expired"),
				strings.Contains(err.Error(), "CANARY"), strings.Contains(err.Error(), "hvs."), len(err.Error()) > 1000:
				t.Errorf("%s: %.80q: %v", operation, answer, err)
			}
		}
	}
}

// taken reports whether an operation may take an answer: because the odd part of it is another
// operation's.
func taken(operation, answer string) bool {
	var body map[string]any
	object := json.Unmarshal([]byte(answer[4:]), &body) == nil && body != nil
	data, isData := body["data"].(map[string]any)
	switch operation {
	case "read", "write": // what must be in data is known to the caller
		_, auth := body["auth"].(map[string]any)
		return answer[:3] == "200" && object && (isData || body["data"] == nil) && (auth || body["auth"] == nil) || answer == "204 " && operation == "write"
	case "mounts":
		return false
	case "lookup-self", "lookup-self at login":
		_, number := data["ttl"].(float64)
		return number && data["ttl"] == 1.0 && data["renewable"] == nil && data["policies"] == nil && data["num_uses"] == nil
	}
	return false
}

// TestNothingIsVaultsOwn: only Vault's own words mean that nothing is stored.
func TestNothingIsVaultsOwn(t *testing.T) {
	address, set := oddServer(t)
	s := idleSession(t, address, false)
	set(`404 {"errors":[]}`)
	if got, err := s.Read(t.Context(), "kv/data/x"); got != nil || err != nil {
		t.Errorf("nothing stored: %v, %v", got, err)
	}
	set(`404 {"request_id":"x","data":{"data":null,"metadata":{"version":3}}}`)
	if got, err := s.Read(t.Context(), "kv/data/x"); err != nil || got == nil || got.Data["metadata"] == nil {
		t.Errorf("a deleted version: %v, %v", got, err)
	}
}

// TestLeaseNumbers: numbers that are no time.
func TestLeaseNumbers(t *testing.T) {
	for number, want := range map[string]time.Duration{
		"0": 0, "1": time.Second, "3600": time.Hour, "9223372036854775807": maxLease, "99999999999999999999999999": maxLease, "3153600001": maxLease,
		"-1": -1, "-99999999999999999999999": -1, "1e3": -1, "1.5": -1,
	} {
		got, err := seconds(map[string]any{"ttl": json.Number(number)}, "ttl")
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%s: %s, %v, want %s", number, got, err, want)
		}
	}
}

// TestRandomAnswers throws what a random walk makes of good answers at each operation.
func TestRandomAnswers(t *testing.T) {
	address, set := oddServer(t)
	at := sessionsAt(t, address)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	bases := []string{
		`{"data":{"ttl":60,"expire_time":null,"renewable":true,"policies":["a"],"type":"kv","options":{"version":"2"},"kv/data/x":["update"]},"auth":{"client_token":"t","lease_duration":60,"renewable":true}}`,
		`{"errors":["permission denied"],"warnings":null,"data":null}`,
	}
	pieces := []string{"null", "{}", "[]", `""`, "-1", "1e400", "true", `{"a":`, "]", "}", ",", "\x00", `"data":`, `"auth":`, "9999999999999999999999"}
	for range 60 {
		b := []byte(bases[r.IntN(len(bases))])
		for range 1 + r.IntN(4) {
			at := r.IntN(len(b))
			end := min(len(b), at+r.IntN(12))
			b = append(b[:at:at], append([]byte(pieces[r.IntN(len(pieces))]), b[end:]...)...)
		}
		status := []int{200, 200, 200, 204, 400, 403, 404, 404, 500}[r.IntN(9)]
		if status == 204 {
			b = nil
		}
		set(fmt.Sprintf("%d %s", status, b))
		for operation, do := range operations {
			if err := do(t.Context(), at); err != nil && strings.Contains(err.Error(), "CANARY") {
				t.Errorf("seed %d: %s: %d %s: %v", seed, operation, status, b, err)
			}
		}
	}
}

// TestEndlessAnswers counts what a server can write whose body does not end.
func TestEndlessAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		start  string
		more   string
		gzip   bool
	}{
		"no JSON":         {200, "", "xxxx", false},
		"one long string": {200, `{"data":{"ttl":"`, "xxxx", false},
		"nesting":         {200, "", "[[[[", false},
		"white space":     {200, "", "    ", false},
		"an error":        {403, `{"errors":["`, "xxxx", false},
		"a 404":           {404, `{"errors":[`, `"",`, false},
		"packed":          {200, "", "    ", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var written atomic.Int64
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				var to io.Writer = w
				if test.gzip {
					w.Header().Set("Content-Encoding", "gzip")
					packer := gzip.NewWriter(w)
					defer packer.Close()
					to = packer
				}
				w.WriteHeader(test.status)
				_, err := io.WriteString(to, test.start)
				more := strings.Repeat(test.more, 16<<10)
				for n := 0; err == nil && written.Load() < 64<<20; written.Add(int64(n)) {
					n, err = io.WriteString(to, more)
				}
			}))
			defer web.Close()
			for _, operation := range []string{"login", "lookup-self", "read", "raw write"} {
				written.Store(0)
				err := operations[operation](t.Context(), sessionsAt(t, web.URL))
				if err == nil || strings.Contains(err.Error(), "CANARY") || len(err.Error()) > maxText+500 {
					t.Errorf("%s: %.300v", operation, err)
				}
				if err != nil && !test.gzip && !strings.Contains(err.Error(), "is larger than 2 MiB: is something else at this address?") {
					t.Errorf("%s: %.300v", operation, err)
				}
				if n := written.Load(); !test.gzip && n > MaxBody+8<<20 {
					t.Errorf("%s: the server could write %d MiB", operation, n>>20)
				}
				if test.gzip {
					break // it takes long to pack
				}
			}
		})
	}
}

// TestSlowBody: a body that comes drop by drop is cut by the timeout, wherever it is.
func TestSlowBody(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, " "); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	}))
	defer web.Close()
	s := idleSession(t, web.URL, false)
	s.client.transport.timeout = 100 * time.Millisecond
	if _, err := s.Read(t.Context(), "kv/data/x"); err == nil || !strings.Contains(err.Error(), "no complete answer in time") {
		t.Errorf("%v", err)
	}
}

// TestEcho: a server that answers with what it was sent. None of it may be repeated.
func TestEcho(t *testing.T) {
	for _, form := range []string{"json error", "plain", "status line", "header"} {
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			echo := r.Header.Get("X-Vault-Token") + " " + string(body)
			switch form {
			case "json error":
				w.WriteHeader(http.StatusBadRequest)
				_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{r.Header.Get("X-Vault-Token"), strings.NewReplacer(`\`, "").Replace(string(body))}})
			case "plain":
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, echo)
			default:
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				start := "HTTP/1.1 "
				if form == "header" {
					start = "HTTP/1.1 200 OK\r\n"
				}
				_, _ = io.WriteString(conn, start+echo+"\r\n\r\n")
			}
		}))
		at := sessionsAt(t, web.URL)
		for operation, do := range operations {
			if err := do(t.Context(), at); err == nil || strings.Contains(err.Error(), "CANARY") || strings.Contains(err.Error(), roleID) {
				t.Errorf("%s, %s: %v", form, operation, err)
			}
		}
		web.Close()
	}
}
