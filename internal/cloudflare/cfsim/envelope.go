package cfsim

import (
	"encoding/json"
	"net/http"
	"time"
)

// Error codes. The first four are published. Of the others only the shape is published: an integer of at
// least 1000.
const (
	codeNoRoute        = 7003
	codeUnauthorized   = 9109
	codeAuthentication = 10000
	codeInPolicy       = 12139

	codeInvalidToken   = 1000
	codeInternal       = 10001
	codeRateLimited    = 10429
	codeInvalidRequest = 12130
	codeTokenNotFound  = 12133
)

type apiError struct {
	Code    int          `json:"code"`
	Message string       `json:"message"`
	Source  *errorSource `json:"source,omitempty"`
}

type errorSource struct {
	Pointer string `json:"pointer"`
}

// envelope is the shape of every answer of the API.
type envelope struct {
	Success    bool        `json:"success"`
	Errors     []apiError  `json:"errors"`
	Messages   []apiError  `json:"messages"`
	Result     any         `json:"result"`
	ResultInfo *resultInfo `json:"result_info,omitempty"`
}

type resultInfo struct {
	Count      int `json:"count"`
	Page       int `json:"page"`
	PerPage    int `json:"per_page"`
	TotalCount int `json:"total_count"`
	TotalPages int `json:"total_pages"`
}

// tokenResult is a service token as the API shows it. The answers to create and rotate show the secret; the
// others show the times that those two leave out.
type tokenResult struct {
	ID           string    `json:"id"`
	ClientID     string    `json:"client_id"`
	ClientSecret string    `json:"client_secret,omitempty"`
	Name         string    `json:"name"`
	Duration     string    `json:"duration"`
	Enabled      bool      `json:"enabled"`
	CreatedAt    timestamp `json:"created_at"`
	UpdatedAt    timestamp `json:"updated_at"`
	ExpiresAt    timestamp `json:"expires_at,omitzero"`
	LastSeenAt   timestamp `json:"last_seen_at,omitzero"`
}

func (t *token) result() tokenResult {
	r := t.baseResult()
	r.ExpiresAt, r.LastSeenAt = timestamp{t.expiresAt}, timestamp{t.lastSeenAt}
	return r
}

func (t *token) resultWithSecret() tokenResult {
	r := t.baseResult()
	r.ClientSecret = t.current().value.Reveal()
	return r
}

func (t *token) baseResult() tokenResult {
	return tokenResult{
		ID: t.id, ClientID: t.clientID, Name: t.name, Duration: t.duration, Enabled: t.enabled,
		CreatedAt: timestamp{t.createdAt}, UpdatedAt: timestamp{t.updatedAt},
	}
}

// timestamp is written as Cloudflare does: 2014-01-01T05:20:00.12345Z.
type timestamp struct{ time.Time }

func (t timestamp) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"2006-01-02T15:04:05.00000Z07:00"`)), nil
}

// reply is an answer before it is written, so that a fault can still change it.
type reply struct {
	status     int
	errors     []apiError
	messages   []apiError
	result     any
	info       *resultInfo
	retryAfter int // seconds; 0 for none

	bare     bool   // the result alone, without an envelope: for the application's answers
	location string // where a redirect leads

	// Faults only.
	raw  string // instead of the envelope, as text/html
	cut  bool   // break the connection in the middle of the body
	drop bool   // break the connection instead of an answer

	shape string // one of Shapes; empty for the documented one
}

func success(status int, result any) reply { return reply{status: status, result: result} }

func failure(status, code int, message string) reply {
	return reply{status: status, errors: []apiError{{Code: code, Message: message}}}
}

// invalid refuses a request body, naming the field if it is known.
func invalid(field, message string) reply {
	e := apiError{Code: codeInvalidRequest, Message: "access.api.error.invalid_request: " + message}
	if field != "" {
		e.Source = &errorSource{Pointer: "/" + field}
	}
	return reply{status: http.StatusBadRequest, errors: []apiError{e}}
}

func noRoute() reply { return failure(http.StatusNotFound, codeNoRoute, "No route for the URI") }

func (r reply) body() []byte {
	if r.raw != "" {
		return []byte(r.raw)
	}
	if r.bare {
		return encode(r.result)
	}
	e := envelope{
		Success: len(r.errors) == 0, Errors: r.errors, Messages: r.messages, Result: r.result, ResultInfo: r.info,
	}
	if e.Errors == nil {
		e.Errors = []apiError{}
	}
	if e.Messages == nil {
		e.Messages = []apiError{}
	}
	return encode(e)
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // it gets only this package's own types, which can be encoded
	}
	return b
}
