package cloudflare_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"rotatord/internal/cloudflare"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
)

// oneAnswer returns a client of a server that always gives the same answer.
func oneAnswer(t *testing.T, status int, contentType, body string, header ...string) *cloudflare.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return cloudflare.New(config.Account{Name: "prod", AccountID: accountID, APIToken: secretFile(t, apiToken), BaseURL: server.URL + cfsim.BasePath,
		RequestsPer5m: 1000}, cloudflare.Options{})
}

const serviceToken = "f174e90a-fafe-4643-bbbc-4a0ed4fc8415"

// TestErrorsAreShownWhole: every error, with its causes, the field that is wrong, and where it is documented.
func TestErrorsAreShownWhole(t *testing.T) {
	var many []string
	for i := range 9 {
		many = append(many, fmt.Sprintf(`{"code":%d,"message":"error %d"}`, 1001+i, i))
	}
	deep := `{"code":1,"message":"deepest"}`
	for range 40 {
		deep = `{"code":1,"message":"deep","error_chain":[` + deep + `]}`
	}
	for name, test := range map[string]struct {
		body string
		want string // after the status
		code int
	}{
		"one":          {`{"success":false,"errors":[{"code":9109,"message":"Unauthorized"}]}`, ": code 9109: Unauthorized", 9109},
		"two":          {`{"success":false,"errors":[{"code":9109,"message":"Unauthorized"},{"code":9110,"message":"Ask an administrator"}]}`, ": code 9109: Unauthorized; code 9110: Ask an administrator", 9109},
		"a chain":      {`{"success":false,"errors":[{"code":6003,"message":"Invalid request headers","error_chain":[{"code":6111,"message":"Invalid format for Authorization header"}]}]}`, ": code 6003: Invalid request headers (because of code 6111: Invalid format for Authorization header)", 6003},
		"a field":      {`{"success":false,"errors":[{"code":12130,"message":"is too long","source":{"pointer":"/duration"}}]}`, ": code 12130: is too long (at /duration)", 12130},
		"documented":   {`{"success":false,"errors":[{"code":10000,"message":"Authentication error","documentation_url":"https://developers.cloudflare.com/fundamentals/api/troubleshooting/"}]}`, ": code 10000: Authentication error (see https://developers.cloudflare.com/fundamentals/api/troubleshooting/)", 10000},
		"a code alone": {`{"success":false,"errors":[{"code":10000}]}`, ": code 10000: Forbidden", 10000},
		"texts":        {`{"success":false,"errors":["no such thing"]}`, ": no such thing", 0},
		"odd types":    {`{"success":false,"errors":[{"code":"1","message":["x"],"source":7,"error_chain":{},"documentation_url":{}},null,7]}`, ": Forbidden", 0},
		"no list":      {`{"success":false,"errors":{}}`, ": Forbidden", 0},
		"many":         {`{"success":false,"errors":[` + strings.Join(many, ",") + `]}`, ": code 1001: error 0; code 1002: error 1; code 1003: error 2; code 1004: error 3; code 1005: error 4; and 4 more", 1001},
		"deep":         {`{"success":false,"errors":[` + deep + `]}`, ": code 1: deep (because of code 1: deep (because of code 1: deep (because of code 1: deep)))", 1},
		"lines":        {`{"success":false,"errors":[{"code":1000,"message":"a\nrotatord: \u001b[2Jforged\u202e"}]}`, `: code 1000: a rotatord: \x1b[2Jforged\u202e`, 1000},
		"an echo":      {`{"success":false,"errors":[{"code":1000,"message":"bad token ` + apiToken + `"}]}`, ": code 1000: bad token [redacted]", 1000},
	} {
		for _, call := range []string{"Inspect", "Rotate"} {
			err := everyCall[call](t.Context(), oneAnswer(t, 403, "application/json", test.body), serviceToken)
			e, ok := errors.AsType[*rotation.IssuerError](err)
			if !ok || e.Class != rotation.Refused || e.Code != test.code || !strings.HasSuffix(err.Error(), "refused (HTTP 403)"+test.want) {
				t.Errorf("%s of %s: %v\nwant %s", name, call, err, test.want)
			}
			// An answer with status 200 that says success: false has them, too.
			err = everyCall[call](t.Context(), oneAnswer(t, 200, "application/json", test.body), serviceToken)
			if e, ok := errors.AsType[*rotation.IssuerError](err); !ok || e.Class != rotation.Unknown || !printable.IsPlain(err.Error()) || strings.Contains(err.Error(), apiToken) {
				t.Errorf("%s of %s, with status 200: %v", name, call, err)
			}
		}
	}
	for _, long := range []string{strings.Repeat("m", 100_000), strings.Repeat("é\u202e", 50_000)} {
		body := fmt.Sprintf(`{"success":false,"errors":[{"code":1000,"message":%q,"documentation_url":%[1]q,"source":{"pointer":%[1]q}}]}`, long)
		if err := everyCall["Inspect"](t.Context(), oneAnswer(t, 400, "application/json", body), serviceToken); len(err.Error()) > 1200 || !printable.IsPlain(err.Error()) {
			t.Errorf("%d bytes", len(err.Error()))
		}
	}
}

// TestForeignAnswersAreNamed: an answer that is not from the API is described as such, with what can be seen
// of it and what to do.
func TestForeignAnswersAreNamed(t *testing.T) {
	const edge = "cloudflare"
	problem := `{"type":"https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-1xxx-errors/error-1020/","title":"Error 1020: Access denied","status":403,` +
		`"detail":"The site owner has blocked access.","instance":"8f2c1b7e9d3a4c5b","error_code":1020,"error_name":"access_denied","ray_id":"8f2c1b7e9d3a4c5b","cloudflare_error":true}`
	timedOut := `{"type":"https://developers.cloudflare.com/522","title":"Error 522: Connection timed out","status":522,"detail":"The origin did not answer.","error_code":522,"error_name":"connection_timed_out"}`
	for name, test := range map[string]struct {
		status            int
		contentType, body string
		header            []string
		class             rotation.Class
		want              []string
	}{
		"1020": {403, "text/html; charset=UTF-8", "<!DOCTYPE html><html><head><title>Access denied | api.example.com used Cloudflare to restrict access</title></head><body><h1>Error <span>1020</span></h1>",
			[]string{"CF-Ray", "8f2c1b7e9d3a4c5b-FRA", "Server", edge}, rotation.Refused,
			[]string{`Forbidden: not from Cloudflare's API: text/html, "Access denied | api.example.com used Cloudflare to restrict access", CF-Ray 8f2c1b7e9d3a4c5b-FRA: `, "(error 1020)", "name the CF-Ray to Cloudflare's support"}},
		"1020 as text":        {403, "text/plain", "error code: 1020", []string{"CF-Ray", "8f-FRA"}, rotation.Refused, []string{"text/plain", "CF-Ray 8f-FRA", "(error 1020)"}},
		"1015":                {429, "text/html", "<title>Access denied</title><span>Error</span> <span>1015</span>", []string{"CF-Ray", "8f-FRA", "Retry-After", "7"}, rotation.Throttled, []string{"limits the requests of this machine's address", "retry after 7s"}},
		"RFC 9457":            {403, "application/problem+json", problem, nil, rotation.Refused, []string{"error 1020 access_denied: Error 1020: Access denied: The site owner has blocked access. (see https://developers.cloudflare.com/", "CF-Ray 8f2c1b7e9d3a4c5b", "a rule of Cloudflare's edge"}},
		"RFC 9457, 5xx":       {522, "application/json", timedOut, []string{"CF-Ray", "8f-FRA"}, rotation.Unknown, []string{"Connection timed out: not from Cloudflare's API: error 522 connection_timed_out", "www.cloudflarestatus.com"}},
		"502":                 {502, "text/html", "<html><head><title>api.cloudflare.com | 502: Bad gateway</title>", []string{"CF-Ray", "8f-FRA"}, rotation.Unknown, []string{`"api.cloudflare.com | 502: Bad gateway"`, "CF-Ray 8f-FRA"}},
		"a login page":        {200, "text/html", "<html><head><title>Sign in to Contoso</title>", nil, rotation.Unknown, []string{`the answer is not from Cloudflare's API: text/html, "Sign in to Contoso", no CF-Ray: a proxy, a captive portal or a login page answered`, "curl -i"}},
		"a captive portal":    {511, "text/html", "<title>Hotel</title>", nil, rotation.Unknown, []string{`"Hotel"`, "(a captive portal): log in there"}},
		"a proxy's page":      {407, "text/html", "<title>Squid</title>", nil, rotation.Refused, []string{`"Squid"`, "wants a user and a password"}},
		"nothing":             {200, "text/html", "", nil, rotation.Unknown, []string{"an empty body, called text/html"}},
		"nothing at all":      {404, "", "", nil, rotation.Refused, []string{"Not Found: not from Cloudflare's API: an empty body, no CF-Ray"}},
		"other JSON":          {400, "application/json", `{"error":"denied by the gateway"}`, nil, rotation.Refused, []string{"Bad Request: not from Cloudflare's API: application/json"}},
		"null":                {200, "application/json", `null`, nil, rotation.Unknown, []string{"not from Cloudflare's API: application/json"}},
		"plain on TLS":        {400, "text/plain", "Client sent an HTTP request to an HTTPS server.\n", nil, rotation.Refused, []string{"write https:// in base_url"}},
		"escapes":             {500, "text/html", "<title>\x1b]0;\u202eowned\x9b\n\nrotatord: forged</title>", []string{"CF-Ray", "8f\u009b2J\u202e", "Server", "\u202e"}, rotation.Unknown, []string{`\u202eowned\x9b rotatord: forged`, `CF-Ray 8f\u009b2J`}},
		"an echo":             {403, "text/html", "<title>Authorization: Bearer " + apiToken + "</title>", nil, rotation.Refused, []string{`"Authorization: Bearer [redacted]"`}},
		"an echo that is cut": {403, "text/html", "<title>" + strings.Repeat(". ", 50) + apiToken + "</title>", nil, rotation.Refused, []string{"[redacted]"}},
		"cut JSON":            {200, "application/json", `{"success":true,"result":{`, nil, rotation.Unknown, []string{"the answer is not the JSON of Cloudflare's API: syntax error at byte 26"}},
	} {
		for _, call := range []string{"Inspect", "Rotate", "List", "SetGrace"} {
			err := everyCall[call](t.Context(), oneAnswer(t, test.status, test.contentType, test.body, test.header...), serviceToken)
			e, ok := errors.AsType[*rotation.IssuerError](err)
			if ok && e.Class == rotation.Throttled && e.Status == 0 {
				continue // the clock was asked for before, and got the 429
			}
			if !ok || e.Class != test.class || e.Code != 0 || errors.Is(err, rotation.ErrGone) {
				t.Errorf("%s of %s: %v", name, call, err)
				continue
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s of %s: %v\nwant %q in it", name, call, err, want)
				}
			}
			if !printable.IsPlain(err.Error()) || strings.ContainsAny(err.Error(), "\n\t") || strings.Contains(err.Error(), apiToken) || len(err.Error()) > 1500 {
				t.Errorf("%s of %s: %q", name, call, err)
			}
		}
	}
}

// TestWhatAnErrorSaysIsDocumented provokes each row of the table in docs/cloudflare-errors.md.
func TestWhatAnErrorSaysIsDocumented(t *testing.T) {
	answers := map[string]struct {
		status            int
		contentType, body string
		header            []string
	}{
		"several errors":                            {403, "application/json", `{"success":false,"errors":[{"code":9109,"message":"Unauthorized"},{"code":9110,"message":"Ask an administrator"}]}`, nil},
		"an `error_chain`":                          {400, "application/json", `{"success":false,"errors":[{"code":6003,"message":"Invalid request headers","error_chain":[{"code":6111,"message":"Invalid format for Authorization header"}]}]}`, nil},
		"a `source.pointer`":                        {400, "application/json", `{"success":false,"errors":[{"code":12130,"message":"is too long","source":{"pointer":"/duration"}}]}`, nil},
		"a `documentation_url`":                     {403, "application/json", `{"success":false,"errors":[{"code":10000,"message":"Authentication error","documentation_url":"https://developers.cloudflare.com/fundamentals/api/troubleshooting/"}]}`, nil},
		"a login page, a captive portal":            {200, "text/html", "<title>Sign in to Contoso</title>", nil},
		"Cloudflare's firewall (1020)":              {403, "text/html", "<title>Access denied</title>Error 1020", []string{"CF-Ray", "8f2c1b7e9d3a4c5b-FRA"}},
		"Cloudflare's rate limit by address (1015)": {429, "text/plain", "error code: 1015", []string{"CF-Ray", "8f-FRA"}},
		"an error of the edge as RFC 9457 has it":   {522, "application/json", `{"title":"Error 522: Connection timed out","status":522,"detail":"The origin did not answer.","error_code":522,"error_name":"connection_timed_out"}`, nil},
		"a proxy that wants a login":                {407, "text/html", "", nil},
		"HTTP 511":                                  {511, "text/html", "", nil},
		"plain http to a port with TLS":             {400, "text/plain", "Client sent an HTTP request to an HTTPS server.", nil},
		"an empty body":                             {200, "application/json", "", nil},
	}
	for _, row := range rowsOf(t, "what came | the error has") {
		answer, known := answers[row[0]]
		if !known {
			t.Errorf("%q is documented, and not known here", row[0])
			continue
		}
		delete(answers, row[0])
		err := everyCall["Rotate"](t.Context(), oneAnswer(t, answer.status, answer.contentType, answer.body, answer.header...), serviceToken)
		if want := strings.Trim(row[1], "`"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %q in it", row[0], err, want)
		}
	}
	if len(answers) > 0 {
		t.Errorf("not documented: %v", answers)
	}
}

// TestNoBodyIsQuotedThatMayShowASecret: an answer to rotate may have a secret of a form that is not known
// yet, so only the title of a page is quoted from it.
func TestNoBodyIsQuotedThatMayShowASecret(t *testing.T) {
	const canary = "the-new-kind-CANARY-of-a-secret"
	for _, body := range []string{canary, `{"key":"` + canary + `"}`, "<html><p>" + canary + "</p>", `["` + canary + `"]`} {
		for _, contentType := range []string{"text/plain", "text/html"} {
			for _, status := range []int{200, 500} {
				for call := range everyCall {
					err := everyCall[call](t.Context(), oneAnswer(t, status, contentType, body), serviceToken)
					e, ok := errors.AsType[*rotation.IssuerError](err)
					may := ok && slices.Contains([]string{"get", "list", "verify"}, e.Operation)
					if err == nil || !may && strings.Contains(err.Error(), "CANARY") {
						t.Errorf("%s, %d, %s: %v", call, status, cmp.Or(contentType, "no type"), err)
					}
				}
			}
		}
	}
}
