package vault

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/outbound"
)

// maxIndex is the largest X-Vault-Index, in bytes. It is sent back to Vault unchanged.
const maxIndex = 4 << 10

// Answer is one answer to a request for a secret. Nothing about it is checked yet.
type Answer struct {
	Status int
	// ContentType is the media type without its parameters; empty if the header is missing.
	ContentType string
	// Index is the position of Vault Enterprise in its log when it answered; empty otherwise. A read
	// with this index is not answered from an older state: see [Request.Index].
	Index string
	// Date is when it was answered, by the clock of whoever answered, in whole seconds; zero if it does not say.
	Date time.Time
	// Shown is what may be shown of an answer that is not Vault's: its content type and the title of a page.
	Shown string
	// Body is the whole body, which may hold secrets.
	Body []byte
}

// Request is what [Session.Send] sends.
type Request struct {
	Path string // without /v1/
	// Body makes it a write; nil makes it a read.
	Body map[string]any
	// Index asks for a state that is not older than this one; empty for any. A node of Vault
	// Enterprise that is behind answers 412.
	Index string
	// Operation is the request's name in metrics; empty for "read" or "write".
	Operation string
	// Version is the version of a secret to read; 0 for the current one. Only KV version 2 has others.
	Version int
	// Merge makes Body a JSON merge patch (RFC 7396), which changes only the fields that it has.
	Merge bool
}

// Send sends one request and returns the unchanged answer, if it is a success or a 404. Everything
// else is an error like those of Read and Write: a redirect, another status, and an answer of more
// than [MaxBody].
func (s *Session) Send(ctx context.Context, r Request) (Answer, error) {
	answer, err := s.send(ctx, r)
	return answer, s.noteRefusal(err)
}

// requestKey is the context key of the Request for which an HTTP request is sent.
type requestKey struct{}

// send is Send for requests whose refusal says nothing about the token.
func (s *Session) send(ctx context.Context, r Request) (Answer, error) {
	ctx = context.WithValue(ctx, requestKey{}, r)
	logical := s.client.session.Logical()
	var res *api.Response
	var err error
	sent := request{token: s.currentToken()}
	switch {
	case r.Body == nil && r.Version > 0:
		res, err = logical.ReadRawWithDataWithContext(ctx, r.Path, map[string][]string{"version": {strconv.Itoa(r.Version)}})
	case r.Body == nil:
		res, err = logical.ReadRawWithContext(ctx, r.Path)
	default:
		body, encodeErr := json.Marshal(r.Body)
		sent.body = body
		if encodeErr != nil { // its text could quote the body
			return Answer{}, &describedError{text: "the request cannot be written as JSON"}
		}
		res, err = logical.WriteRawWithContext(ctx, r.Path, body)
	}
	if res == nil || res.Response == nil || err != nil && res.StatusCode != http.StatusNotFound {
		return Answer{}, plain(cmp.Or(err, errors.New("no answer came")))
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body) // the transport has read it already, up to its limit
	if err != nil {
		return Answer{}, plain(err)
	}
	answer := Answer{Status: res.StatusCode, Body: body}
	if answer.ContentType, _, _ = mime.ParseMediaType(res.Header.Get("Content-Type")); answer.ContentType != "application/json" {
		answer.Shown = outbound.ReadPage(res.Header, body).Shown(false, sent.scrubbed)
	}
	answer.Date, _ = http.ParseTime(res.Header.Get("Date"))
	if index := res.Header.Get(api.HeaderIndex); len(index) <= maxIndex {
		answer.Index = index
	}
	return answer, nil
}
