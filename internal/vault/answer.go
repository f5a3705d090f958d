package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/hashicorp/vault/api"
)

const (
	// answerLimit bounds the answer to a request for a secret, in bytes. Vault's own storage
	// takes entries of 1 MiB by default.
	answerLimit = 8 << 20
	// indexLimit bounds X-Vault-Index, which goes back to Vault as it came.
	indexLimit  = 4 << 10
	indexHeader = "X-Vault-Index"
)

// Answer is one answer to a request for a secret, before anything is concluded from it. The
// client library cannot tell Vault's "nothing is stored here" from the 404 page of a proxy, or
// from an empty answer; whoever reads secrets must.
type Answer struct {
	Status int
	// ContentType is the media type without its parameters; empty if the header is missing.
	ContentType string
	// Index is where Vault Enterprise was in its log when it answered; empty otherwise. A read
	// that carries it is not answered from an older state: see [Request.Index].
	Index string
	// Body is the whole body, which may hold secrets.
	Body []byte
}

// Request is what [Session.Exchange] sends.
type Request struct {
	Path string // without /v1/
	// Body makes it a write; nil makes it a read.
	Body map[string]any
	// Index asks for a state that is not older than this one; empty for any. A node of Vault
	// Enterprise that is behind answers 412.
	Index string
	// Operation is the request's name in metrics; empty for "read" or "write".
	Operation string
}

// Exchange sends one request and returns the answer as it came: a success, any redirect that
// was not followed, or 404. Everything else is an error, described as those of Read and Write,
// and so is an answer that is larger than 8 MiB.
func (s *Session) Exchange(ctx context.Context, r Request) (Answer, error) {
	answer, err := s.exchange(ctx, r)
	return answer, s.judge(err)
}

// exchange is Exchange for a request whose refusal says nothing about the session.
func (s *Session) exchange(ctx context.Context, r Request) (Answer, error) {
	ctx = context.WithValue(ctx, requestKey{}, r)
	logical := s.client.Logical()
	var res *api.Response
	var err error
	if r.Body == nil {
		res, err = logical.ReadRawWithContext(ctx, r.Path)
	} else {
		body, encodeErr := json.Marshal(r.Body)
		if encodeErr != nil { // its text could show the value
			return Answer{}, errors.New("the fields cannot be written as JSON")
		}
		res, err = logical.WriteRawWithContext(ctx, r.Path, body)
	}
	if res != nil && res.Body != nil {
		defer res.Body.Close()
	}
	switch {
	case err != nil && (res == nil || StatusOf(err) != http.StatusNotFound):
		return Answer{}, err
	case res == nil || res.Response == nil:
		return Answer{}, errors.New("no answer came")
	}
	body, err := io.ReadAll(res.Body) // which the transport has read within its limit
	if err != nil {
		return Answer{}, fmt.Errorf("reading the answer: %w", err)
	}
	answer := Answer{Status: res.StatusCode, Body: body}
	answer.ContentType, _, _ = mime.ParseMediaType(res.Header.Get("Content-Type"))
	if index := res.Header.Get(indexHeader); len(index) <= indexLimit {
		answer.Index = index
	}
	return answer, nil
}

// requestKey is the context key of the Request that a request over the wire belongs to.
type requestKey struct{}

// requestOf returns the Request that an outgoing request belongs to, and false if it is none of
// [Session.Exchange].
func requestOf(ctx context.Context) (Request, bool) {
	r, ok := ctx.Value(requestKey{}).(Request)
	return r, ok
}

// exchanged does for the requests of [Session.Exchange] what the client library does not: it
// sends Request.Index, and reads the whole body within a limit. (The library ends the context of
// a write before its caller can read the answer.)
type exchanged struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (e exchanged) RoundTrip(r *http.Request) (*http.Response, error) {
	request, ok := requestOf(r.Context())
	if !ok {
		return e.next.RoundTrip(r)
	}
	if request.Index != "" {
		r = r.Clone(r.Context())
		r.Header.Set(indexHeader, request.Index)
	}
	res, err := e.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, answerLimit+1))
	_ = res.Body.Close() // what could fail here was read
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", err)
	case len(body) > answerLimit:
		return nil, fmt.Errorf("the answer is larger than %d MiB: is something else at this address?", answerLimit>>20)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}
