package vault

import (
	"context"
	"mime"
	"net/http"
)

// maxIndex bounds X-Vault-Index, in bytes: it goes back to Vault as it came.
const maxIndex = 4 << 10

// Answer is one answer to a request for a secret, before anything is concluded from it.
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

// Exchange sends one request and returns the answer as it came: a success or 404. Everything
// else is an error, described as those of Read and Write: a redirect, another status, and an
// answer of more than [MaxBody].
func (s *Session) Exchange(ctx context.Context, r Request) (Answer, error) {
	answer, err := s.exchange(ctx, r)
	return answer, s.judge(err)
}

// exchange is Exchange for requests whose refusal says nothing of the token.
func (s *Session) exchange(ctx context.Context, r Request) (Answer, error) {
	sent := request{method: http.MethodGet, path: r.Path, token: s.currentToken(), index: r.Index, called: r.Operation}
	if r.Body != nil {
		sent.method, sent.body = http.MethodPut, r.Body
	}
	a, err := s.client.send(ctx, sent)
	if err != nil {
		return Answer{}, describe(sent, err)
	}
	if a.StatusCode >= 400 && a.StatusCode != http.StatusNotFound {
		_, err := decodeRefusal(sent, a)
		return Answer{}, describe(sent, err)
	}
	answer := Answer{Status: a.StatusCode, Body: a.content}
	answer.ContentType, _, _ = mime.ParseMediaType(a.Header.Get("Content-Type"))
	if index := a.Header.Get("X-Vault-Index"); len(index) <= maxIndex {
		answer.Index = index
	}
	return answer, nil
}
