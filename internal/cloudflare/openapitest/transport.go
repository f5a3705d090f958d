package openapitest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"rotatord/internal/secret"
)

// Option narrows what [Transport] checks.
type Option func(*transport)

// RequestsOnly does not check answers, for tests whose server misbehaves on purpose.
func RequestsOnly() Option { return func(t *transport) { t.requestsOnly = true } }

// Transport wraps base and checks every request and answer that pass through it. A deviation is reported with
// t.Errorf, without any secret in the report; the request and the answer themselves are not changed. Two
// things are not checked, because the document says nothing about them: an answer with a 5xx status, and a
// body that breaks off, which the caller sees as it was. A request for an operation that the document does
// not have is a deviation. A nil base means http.DefaultTransport.
//
// The transport is safe for concurrent use while base is and t has not ended.
func Transport(t testing.TB, base http.RoundTripper, options ...Option) http.RoundTripper {
	t.Helper()
	r, err := router()
	if err != nil {
		t.Fatalf("openapitest: %v", err)
	}
	if base == nil {
		base = http.DefaultTransport
	}
	tr := &transport{report: t.Errorf, base: base, router: r}
	for _, option := range options {
		option(tr)
	}
	return tr
}

type transport struct {
	report       func(format string, args ...any)
	base         http.RoundTripper
	router       *specification
	requestsOnly bool
	coverage     *Coverage
}

// RoundTrip implements http.RoundTripper.
func (tr *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := takeBody(req)
	if err != nil {
		return nil, err
	}
	sent := req.Clone(req.Context())
	sent.Body, sent.ContentLength = readCloser(body), int64(len(body))

	input, err := tr.checkRequest(req, body)
	if err != nil {
		tr.deviation("request", req, err)
	}
	resp, err := tr.base.RoundTrip(sent)
	if err == nil && input != nil {
		tr.coverage.note(input.Route, input.PathParams, resp.StatusCode)
	}
	if err != nil || tr.requestsOnly || input == nil {
		return resp, err
	}
	answer, readErr := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it is replaced
	resp.Body = readCloser(answer)
	if readErr != nil {
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(answer), failingReader{readErr}))
		return resp, nil
	}
	if resp.StatusCode < 500 {
		if err := checkResponse(input, resp, answer); err != nil {
			tr.deviation(fmt.Sprintf("answer with status %d", resp.StatusCode), req, err)
		}
	}
	return resp, nil
}

func (tr *transport) deviation(what string, req *http.Request, err error) {
	tr.report("openapitest: %s to %s %s deviates from Cloudflare's OpenAPI document: %s",
		what, req.Method, req.URL.Path, secret.Scrub(err.Error()))
}

// checkRequest returns what the answer is checked with; nil if the document has no such operation.
func (tr *transport) checkRequest(req *http.Request, body []byte) (*openapi3filter.RequestValidationInput, error) {
	path, ok := strings.CutPrefix(req.URL.Path, basePath)
	if !ok {
		return nil, fmt.Errorf("the path does not begin with %s", basePath)
	}
	// Validation consumes bodies and may set defaults, so it gets a copy.
	probe := req.Clone(context.WithoutCancel(req.Context()))
	probe.URL = &url.URL{Path: path, RawQuery: req.URL.RawQuery}
	probe.Body, probe.ContentLength = readCloser(body), int64(len(body))
	route, params, err := tr.router.FindRoute(probe)
	if err != nil {
		return nil, err
	}
	input := &openapi3filter.RequestValidationInput{
		Request: probe, Route: route, PathParams: params,
		Options: &openapi3filter.Options{
			AuthenticationFunc:                authenticated,
			SkipSettingDefaults:               true,
			IncludeResponseStatus:             true,
			RejectWhenRequestBodyNotSpecified: true,
		},
	}
	if err := openapi3filter.ValidateRequest(probe.Context(), input); err != nil {
		return input, err
	}
	return input, checkBeyondSchema(req, route, params)
}

// checkBeyondSchema checks what the document says only in words or by names.
func checkBeyondSchema(req *http.Request, route *routers.Route, params map[string]string) error {
	if kind, ok := params["accounts_or_zones"]; ok && kind != "accounts" && kind != "zones" {
		return fmt.Errorf("path parameter accounts_or_zones is %q", kind)
	}
	var known []string
	for _, parameter := range route.Operation.Parameters {
		if parameter.Value.In == "query" {
			known = append(known, parameter.Value.Name)
		}
	}
	for name := range req.URL.Query() {
		if !slices.Contains(known, name) {
			return fmt.Errorf("query parameter %q is not known", name)
		}
	}
	return nil
}

func checkResponse(input *openapi3filter.RequestValidationInput, resp *http.Response, body []byte) error {
	return openapi3filter.ValidateResponse(input.Request.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input,
		Status:                 resp.StatusCode,
		Header:                 resp.Header,
		Body:                   readCloser(body),
		Options:                input.Options,
	})
}

// authenticated checks that a request has a credential of the given scheme.
func authenticated(_ context.Context, input *openapi3filter.AuthenticationInput) error {
	header := input.RequestValidationInput.Request.Header
	switch scheme := input.SecurityScheme; scheme.Type {
	case "http":
		if kind, token, _ := strings.Cut(header.Get("Authorization"), " "); strings.EqualFold(kind, scheme.Scheme) && token != "" {
			return nil
		}
		return errors.New("no bearer token")
	default:
		if header.Get(scheme.Name) != "" {
			return nil
		}
		return fmt.Errorf("no %s", scheme.Name)
	}
}

func takeBody(req *http.Request) ([]byte, error) {
	if req.Body == nil {
		return nil, nil
	}
	defer req.Body.Close()
	return io.ReadAll(req.Body)
}

func readCloser(b []byte) io.ReadCloser {
	if len(b) == 0 {
		return http.NoBody
	}
	return io.NopCloser(bytes.NewReader(b))
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }
