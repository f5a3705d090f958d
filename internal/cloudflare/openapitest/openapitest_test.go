package openapitest

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const (
	account  = "023e105f4ecef8ad9ca31a8372d0c353"
	tokenID  = "f174e90a-fafe-4643-bbbc-4a0ed4fc8415"
	tokens   = "https://api.cloudflare.com/client/v4/accounts/" + account + "/access/service_tokens"
	oneToken = tokens + "/" + tokenID

	// what Cloudflare's reference gives as an example, with the fields in it filled
	goodRotation = `{"success":true,"errors":[],"messages":[],"result":{"id":"` + tokenID + `",` +
		`"client_id":"88bf3b6d86161464f6509f7219099e57.access.example.com",` +
		`"client_secret":"bdd31cbc4dec990953e39163fbbb194c93313ca9f0a6e420346af9d326b1d2a5",` +
		`"created_at":"2014-01-01T05:20:00.12345Z","duration":"60m","name":"CI/CD token","updated_at":"2014-01-01T05:20:00.12345Z"}}`
	goodFailure = `{"success":false,"errors":[{"code":7003,"message":"No route for the URI"}],"messages":[],"result":null}`
)

// exchange is one request with its answer, and what the transport reports about it.
type exchange struct {
	method, url, body string
	header            map[string]string // in addition to the content type; nil means a bearer token
	status            int
	answer            string
	contentType       string
	want              string // part of the report; empty means that nothing is reported
	options           []Option
}

func (x exchange) run(t *testing.T) {
	t.Helper()
	var reports []string
	server := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != x.body {
			t.Errorf("the server received %q, %v", got, err)
		}
		contentType := x.contentType
		if contentType == "" {
			contentType = "application/json"
		}
		return &http.Response{
			StatusCode: x.status, Header: http.Header{"Content-Type": {contentType}},
			Body: io.NopCloser(strings.NewReader(x.answer)), Request: r,
		}, nil
	})
	tr := Transport(t, server, x.options...).(*transport)
	tr.report = func(format string, args ...any) { reports = append(reports, fmt.Sprintf(format, args...)) }

	req, err := http.NewRequestWithContext(t.Context(), x.method, x.url, strings.NewReader(x.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if x.header == nil {
		x.header = map[string]string{"Authorization": "Bearer t"}
	}
	for name, value := range x.header {
		req.Header.Set(name, value)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != x.answer {
		t.Errorf("the client received %q, %v", got, err)
	}
	all := strings.Join(reports, "\n")
	switch {
	case x.want == "" && all != "":
		t.Errorf("reported: %s", all)
	case x.want != "" && !strings.Contains(all, x.want):
		t.Errorf("reported %q, want %q in it", all, x.want)
	}
	if strings.Contains(all, "bdd31cbc") {
		t.Error("a secret was reported")
	}
}

func TestTransport(t *testing.T) {
	rotate := exchange{method: "POST", url: oneToken + "/rotate", status: 200, answer: goodRotation}
	with := func(change func(*exchange)) exchange {
		x := rotate
		change(&x)
		return x
	}
	for name, x := range map[string]exchange{
		"good":           rotate,
		"good with body": with(func(x *exchange) { x.body = `{"previous_client_secret_expires_at":"2026-01-02T03:04:05Z"}` }),
		"good failure":   with(func(x *exchange) { x.status, x.answer = 404, goodFailure }),
		"good with key":  with(func(x *exchange) { x.header = map[string]string{"X-Auth-Email": "a@b.c", "X-Auth-Key": "k"} }),
		"5xx":            with(func(x *exchange) { x.status, x.answer, x.contentType = 502, "bad gateway", "text/plain" }),
		"not asked to check the answer": with(func(x *exchange) {
			x.answer, x.options = "garbage", []Option{RequestsOnly()}
		}),

		"bad time in request":   with(func(x *exchange) { x.body, x.want = `{"previous_client_secret_expires_at":"tomorrow"}`, "date-time" }),
		"wrong type in request": with(func(x *exchange) { x.body, x.want = `{"previous_client_secret_expires_at":5}`, "string" }),
		"unknown field in request": with(func(x *exchange) {
			x.body, x.want = `{"previous_secret_expires_at":"2026-01-02T03:04:05Z"}`, "previous_secret_expires_at"
		}),
		"no credential":          with(func(x *exchange) { x.header, x.want = map[string]string{}, "ecurity" }),
		"half a credential":      with(func(x *exchange) { x.header, x.want = map[string]string{"X-Auth-Key": "k"}, "ecurity" }),
		"unknown operation":      with(func(x *exchange) { x.url, x.want = oneToken+"/revoke", "no matching operation" }),
		"unknown method":         with(func(x *exchange) { x.method, x.want = "PATCH", "no matching operation" }),
		"outside the API":        with(func(x *exchange) { x.url, x.want = "https://api.cloudflare.com/v4/user", "/client/v4" }),
		"answer is not JSON":     with(func(x *exchange) { x.answer, x.want = "garbage", "failed to decode" }),
		"answer of another type": with(func(x *exchange) { x.contentType, x.want = "text/html", "text/html" }),
		"undocumented status":    with(func(x *exchange) { x.status, x.want = 202, "status is not supported" }),
		"success that says it is a failure": with(func(x *exchange) {
			x.answer, x.want = strings.Replace(goodRotation, "true", "false", 1), "success"
		}),
		"failure that says it is a success": with(func(x *exchange) {
			x.status, x.answer, x.want = 404, strings.Replace(goodFailure, "false", "true", 1), "success"
		}),
		"failure without result": with(func(x *exchange) {
			x.status, x.answer, x.want = 404, strings.Replace(goodFailure, `,"result":null`, "", 1), "result"
		}),
		"error code out of range": with(func(x *exchange) {
			x.status, x.answer, x.want = 404, strings.Replace(goodFailure, "7003", "3", 1), "1000"
		}),
		"invented field in the answer": with(func(x *exchange) {
			x.answer, x.want = strings.Replace(goodRotation, `"duration"`, `"expires_at":"2014-01-01T05:20:00Z","duration"`, 1), "expires_at"
		}),
		"bad time in the answer beside a secret": with(func(x *exchange) {
			x.answer, x.want = strings.Replace(goodRotation, "2014-01-01T05:20:00.12345Z", "2014", 1), "created_at"
		}),
		"zones can be listed": {
			method: "GET", url: strings.Replace(tokens, "/accounts/", "/zones/", 1) + "?page=2&per_page=50&name=x", status: 200,
			answer: `{"success":true,"errors":[],"messages":[],"result":[],"result_info":{"count":0,"page":2,"per_page":50,"total_count":1}}`,
		},
		"users have no service tokens": {
			method: "GET", url: strings.Replace(tokens, "/accounts/", "/users/", 1), status: 404, answer: goodFailure,
			want: "accounts_or_zones",
		},
		"unknown query parameter": {
			method: "GET", url: tokens + "?limit=5", status: 404, answer: goodFailure, want: `"limit"`,
		},
		"page too large": {
			method: "GET", url: tokens + "?per_page=1001", status: 404, answer: goodFailure, want: "1000",
		},
		"create needs a name": {
			method: "POST", url: tokens, body: `{"duration":"1h"}`, status: 400, answer: goodFailure, want: "name",
		},
		"create answers 201": {
			method: "POST", url: tokens, body: `{"name":"x"}`, status: 200, answer: goodRotation, want: "status is not supported",
		},
	} {
		t.Run(name, x.run)
	}
}

// TestCutAnswerPassesThrough: a caller must see a broken connection as it was.
func TestCutAnswerPassesThrough(t *testing.T) {
	server := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		body := io.MultiReader(strings.NewReader(`{"succ`), failingReader{io.ErrUnexpectedEOF})
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(body), Request: r}, nil
	})
	req, _ := http.NewRequestWithContext(t.Context(), "GET", oneToken, nil)
	req.Header.Set("Authorization", "Bearer t")
	resp, err := Transport(t, server).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); string(got) != `{"succ` || err != io.ErrUnexpectedEOF {
		t.Errorf("the client received %q, %v", got, err)
	}
}

// TestDocumentMissing: a document that is missing or has changed is an error, and not an empty document that
// agrees with everything.
func TestDocumentMissing(t *testing.T) {
	for name, script := range map[string]string{
		"no variable":  "#!/bin/sh\n",
		"not closed":   `EMBEDDED_SPEC="H4sI`,
		"not base64":   `EMBEDDED_SPEC="!!!!"`,
		"not a gzip":   `EMBEDDED_SPEC="aGVsbG8gd29ybGQsIGhlbGxvIHdvcmxk"`,
		"cut off gzip": `EMBEDDED_SPEC="H4sIAAAAAAAAE+y9"`,
	} {
		if _, err := decodeSpec([]byte(script)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for spec, want := range map[string]string{
		`openapi: 3.0.3`: "invalid character",
		`{"openapi":"3.0.3","info":{"title":"t","version":"1"},"paths":{}}`: "has no path " + wanted[0],
		`{"openapi":"3.0.3","info":{"title":"t","version":"1"},"paths":{"` + wanted[0] +
			`":{"get":{"responses":{"200":{"$ref":"#/components/responses/gone"}}}}}}`: "components/responses/gone",
	} {
		if _, err := newRouter([]byte(spec)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestCoverage: an operation counts once it has succeeded, separately for accounts and zones.
func TestCoverage(t *testing.T) {
	var c Coverage
	all := c.Missing(t)
	const verify = "GET /user/tokens/verify"
	if len(all) != 14 || !slices.Contains(all, verify) { // five for accounts, five for zones, four for one of them
		t.Errorf("the document's operations are:\n%s", strings.Join(all, "\n"))
	}
	status := 403
	tr := Transport(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}), RequestsOnly(), Covering(&c))
	for _, x := range []struct {
		status int
		url    string
		gone   string
	}{
		{403, tokens, ""},
		{200, tokens, "GET /accounts/{account_or_zone_id}/access/service_tokens"},
		{200, strings.Replace(tokens, "/accounts/", "/zones/", 1), "GET /zones/{account_or_zone_id}/access/service_tokens"},
		{200, "https://api.cloudflare.com/client/v4/user/tokens/verify", verify},
	} {
		status = x.status
		req, _ := http.NewRequestWithContext(t.Context(), "GET", x.url, nil)
		req.Header.Set("Authorization", "Bearer t")
		if _, err := tr.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		want := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name == x.gone })
		if got := c.Missing(t); !slices.Equal(got, want) {
			t.Errorf("after %d from %s these are missing:\n%s", x.status, x.url, strings.Join(got, "\n"))
		}
		all = want
	}
}
