package vault

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/printable"
)

// answeringAll is a server that answers every request in one way.
func answeringAll(t *testing.T, status int, contentType, body string) string {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(web.Close)
	return web.URL
}

// TestDeniedNamesThePolicy: what Vault denies is said with the path and the stanza that the policy lacks.
func TestDeniedNamesThePolicy(t *testing.T) {
	for body, want := range map[string]map[string]string{
		`{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`: {
			"read":              `its policy lacks path "kv/data/x" { capabilities = ["read"] }, or the token`,
			"write":             `its policy lacks path "kv/data/x" { capabilities = ["create", "update"] }, or the token`,
			"lookup-self":       `its policy lacks path "auth/token/lookup-self" { capabilities = ["read"] }, or the token`,
			"capabilities-self": `its policy lacks path "sys/capabilities-self" { capabilities = ["update"] }, or the token`,
		},
		`{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`: {
			"read": "permission denied * invalid token): the token is not valid, or no longer valid", "lookup-self": "the token is not valid, or no longer valid",
		},
		`<html><title>Forbidden</title>`: {"read": `HTTP 403, and not an answer of Vault (text/html, "Forbidden"): did a proxy answer?`},
	} {
		contentType := "application/json"
		if body[0] == '<' {
			contentType = "text/html"
		}
		at := sessionsAt(t, answeringAll(t, 403, contentType, body))
		for operation, text := range want {
			err := operations[operation](t.Context(), at)
			if err == nil || !strings.Contains(err.Error(), text) || strings.ContainsAny(err.Error(), "\n\t") {
				t.Errorf("%s: %v\nwant %q in it", operation, err, text)
			}
		}
	}
}

// TestForeignAnswersAreShown: what answers in Vault's place is described by its content type and its title, and
// by what to look at.
func TestForeignAnswersAreShown(t *testing.T) {
	for name, test := range map[string]struct {
		status            int
		contentType, body string
		path              string
		want              []string
	}{
		"a login page":     {200, "text/html", "<!DOCTYPE html><title>Sign in to Contoso</title>", "", []string{`the answer is not one of Vault's`, `(it is text/html, "Sign in to Contoso")`, "Look at vault.address (127.0.0.1:"}},
		"Vault's own page": {200, "text/html", "<!DOCTYPE html><title>Vault</title>", "/ui", []string{`"Vault"`, "vault.address ends with /ui, the path of Vault's web interface: remove it"}},
		"not found at /ui": {404, "text/plain", "404 page not found", "/ui/", []string{"/ui, the path of Vault's web interface: remove it"}},
		"plain on TLS":     {400, "text/plain", "Client sent an HTTP request to an HTTPS server.\n", "", []string{"write https:// in vault.address"}},
		"a proxy":          {407, "text/html", "<title>Squid \x1b[2J\u202e</title>", "", []string{`Squid \x1b[2J\u202e`, "A proxy on the way asks for a user and a password"}},
		"captive portal":   {511, "text/html", "", "", []string{"captive portal"}},
	} {
		at := sessionsAt(t, answeringAll(t, test.status, test.contentType, test.body)+test.path)
		for _, operation := range []string{"login", "lookup-self", "mounts"} {
			err := operations[operation](t.Context(), at)
			if err == nil {
				t.Errorf("%s, %s: no error", name, operation)
				continue
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s, %s: %v\nwant %q in it", name, operation, err, want)
				}
			}
			if !printable.IsPlain(err.Error()) || strings.ContainsAny(err.Error(), "\n\t") || len(err.Error()) > 1000 {
				t.Errorf("%s, %s: %q", name, operation, err)
			}
		}
	}
}

// TestShownOfAnAnswer: an answer that the caller checks has the title of a page, without what was sent.
func TestShownOfAnAnswer(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var sent map[string]map[string]string
		_ = json.Unmarshal(body, &sent)
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<title>%s %s</title>", r.Header.Get("X-Vault-Token"), sent["data"]["x"])
	}))
	defer web.Close()
	s := idleSession(t, web.URL, false)
	answer, err := s.Send(t.Context(), Request{Path: "kv/data/x", Body: map[string]any{"data": map[string]any{"x": "a-value-CANARY"}}})
	if err != nil || !strings.HasPrefix(answer.Shown, `text/html, "`) || strings.Contains(answer.Shown, "CANARY") || strings.Contains(answer.Shown, s.currentToken()) {
		t.Errorf("%q, %v", answer.Shown, err)
	}
}

// TestRefusedLoginSaysWhatToLookAt: a wrapping token in the place of the secret_id, another namespace, a token
// that may not look itself up.
func TestRefusedLoginSaysWhatToLookAt(t *testing.T) {
	const wrapping = "hvs.CAESICANARYwrappingTokenCANARY0123456789abcdefGh4KHGh2cy5"
	denied := `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`
	noRoute := `{"errors":["no handler for route \"auth/approle/login\". route entry not found."]}`
	badID := `{"errors":["invalid role or secret ID"]}`
	approle := func(secretID, namespace string) func(*config.Vault) {
		return func(c *config.Vault) {
			c.Namespace = namespace
			c.Auth = &config.AppRole{Mount: "approle", RoleID: file(t, roleID), SecretID: file(t, secretID)}
		}
	}
	token := func(token string) func(*config.Vault) {
		return func(c *config.Vault) { source := file(t, token); c.Auth = &config.TokenAuth{Source: source} }
	}
	for name, test := range map[string]struct {
		status int
		body   string
		set    func(*config.Vault)
		want   []string
	}{
		"a wrapping token":         {400, badID, approle(wrapping, ""), []string{"is a Vault token, and not the secret_id", "vault unwrap -field=secret_id"}},
		"an older one":             {400, badID, approle("s.CANARYabcdefghijklmnopqrs", ""), []string{"looks like a token of Vault, such as a wrapping token"}},
		"a wrong secret_id":        {400, badID, approle("f174e90a-CANARY", ""), []string{"are role_id and secret_id right", "Then set vault.namespace"}},
		"another namespace":        {403, denied, approle("f174e90a-CANARY", "team-a/"), []string{`Is it in the namespace "team-a/" (vault.namespace)?`}},
		"no such mount":            {404, noRoute, approle("f174e90a-CANARY", "team-a/"), []string{"no handler for route", "is approle mounted at auth/approle", `Is it in the namespace "team-a/"`}},
		"a token without lookup":   {403, denied, token("hvs.CANARY"), []string{`its policy lacks path "auth/token/lookup-self" { capabilities = ["read"] }`, "is not used, because the daemon could not know when it ends", "wrapping token must be unwrapped first"}},
		"warnings beside":          {400, `{"errors":["no"],"warnings":["this mount is deprecated"]}`, approle("x-CANARY", ""), []string{"HTTP 400: no; warning: this mount is deprecated"}},
		"escapes in Vault's words": {400, `{"errors":["\u001b[2Jno\u202e\nrotatord: forged\u009b"],"warnings":["\u001b]0;x\u0007"]}`, approle("x-CANARY", ""), []string{`\x1b[2Jno\u202e rotatord: forged\u009b; warning: \x1b]0;x\x07`}},
	} {
		t.Run(name, func(t *testing.T) {
			c := config.Vault{Address: answeringAll(t, test.status, "application/json", test.body)}
			test.set(&c)
			s, _, _ := startSession(t, c)
			err := s.Ready(t.Context(), 0)
			if err == nil {
				t.Fatal("there is a session")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nwant %q in it", err, want)
				}
			}
			if strings.Contains(err.Error(), "CANARY") || !printable.IsPlain(err.Error()) || strings.ContainsAny(err.Error(), "\n\t") {
				t.Errorf("%q", err)
			}
		})
	}
}

// TestTokenWithoutLookup: a session by AppRole goes on without the right to look itself up.
func TestTokenWithoutLookup(t *testing.T) {
	server, c := approleServer(t, time.Hour, 0)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "lookup-self") {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`)
			return
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	c.Address = web.URL
	s, _, _ := startSession(t, c)
	if err := s.Ready(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(t.Context(), "kv/data/x", map[string]any{"data": map[string]any{"a": "b"}}); err != nil {
		t.Errorf("%v", err)
	}
	if _, err := s.LookUp(t.Context()); err == nil || !strings.Contains(err.Error(), `path "auth/token/lookup-self"`) {
		t.Errorf("%v", err)
	}
}
