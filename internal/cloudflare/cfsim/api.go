package cfsim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Operations, as faults and statistics name them.
const (
	OpCreate  = "create"
	OpList    = "list"
	OpGet     = "get"
	OpUpdate  = "update"
	OpDelete  = "delete"
	OpRotate  = "rotate"
	OpRefresh = "refresh"
	OpVerify  = "verify"
	OpUnknown = "unknown" // a path or method that the API does not have
	OpApp     = "app"     // a request to the application behind Access
)

// request is what an operation sees.
type request struct {
	op         string
	owner      owner
	tokenID    string
	query      url.Values
	body       []byte
	credential credential
}

// operation carries a request out. It runs with mu held.
type operation func(r *request, now time.Time) reply

func (s *Simulator) routeAPI() {
	for _, kind := range []string{accounts, zones} {
		collection := BasePath + "/" + kind + "/{owner}/access/service_tokens"
		s.handleAPI("POST "+collection, OpCreate, kind, s.create)
		s.handleAPI("GET "+collection, OpList, kind, s.list)
		s.handleAPI("GET "+collection+"/{token}", OpGet, kind, s.onToken(s.get))
		s.handleAPI("PUT "+collection+"/{token}", OpUpdate, kind, s.onToken(s.update))
		s.handleAPI("DELETE "+collection+"/{token}", OpDelete, kind, s.onToken(s.delete))
	}
	one := BasePath + "/accounts/{owner}/access/service_tokens/{token}"
	s.handleAPI("POST "+one+"/rotate", OpRotate, accounts, s.onToken(s.rotateSecret))
	s.handleAPI("POST "+one+"/refresh", OpRefresh, accounts, s.onToken(s.refresh))
	s.handleAPI("GET "+BasePath+"/accounts/{owner}/tokens/verify", OpVerify, accounts, s.verify)
	s.handleAPI("GET "+BasePath+"/user/tokens/verify", OpVerify, "", s.verify)
	s.mux.HandleFunc(BasePath+"/", s.serveNoRoute)
}

func (s *Simulator) handleAPI(pattern, op, kind string, do operation) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		req := &request{
			op: op, owner: owner{kind, r.PathValue("owner")}, tokenID: r.PathValue("token"), query: r.URL.Query(),
		}
		if kind != "" && !isIdentifier(req.owner.id) {
			s.serve(w, r, &request{op: OpUnknown}, nil)
			return
		}
		s.serve(w, r, req, do)
	})
}

func (s *Simulator) serveNoRoute(w http.ResponseWriter, r *http.Request) {
	s.serve(w, r, &request{op: OpUnknown}, nil)
}

// onToken finds the token that the path names.
func (s *Simulator) onToken(do func(t *token, r *request, now time.Time) reply) operation {
	return func(r *request, now time.Time) reply {
		t := s.byID[strings.ToLower(r.tokenID)]
		if t == nil || t.deleted || t.owner != r.owner {
			return failure(http.StatusNotFound, codeTokenNotFound, "access.api.error.service_token_not_found")
		}
		return do(t, r, now)
	}
}

// tokenBody is the body of create, update and rotate. Absent and null are the same.
type tokenBody struct {
	Name          *string    `json:"name"`
	Duration      *string    `json:"duration"`
	Enabled       *bool      `json:"enabled"`
	Version       *float64   `json:"client_secret_version"`
	PreviousText  *string    `json:"previous_client_secret_expires_at"`
	PreviousUntil *time.Time `json:"-"` // PreviousText as a time
}

// decode reads and checks a body. An empty one is an empty object where optional.
func decode(r *request, optional bool) (tokenBody, *reply) {
	var b tokenBody
	refuse := func(field, message string) (tokenBody, *reply) {
		rep := invalid(field, message)
		return tokenBody{}, &rep
	}
	if len(r.body) == 0 {
		if !optional {
			return refuse("", "the body is missing")
		}
		return b, nil
	}
	if err := json.Unmarshal(r.body, &b); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return refuse(wrong.Field, "wrong type")
		}
		return refuse("", "the body is not valid JSON")
	}
	if b.Name != nil && strings.TrimSpace(*b.Name) == "" {
		return refuse("name", "must not be empty")
	}
	if b.Duration != nil {
		if err := checkDuration(*b.Duration); err != nil {
			return refuse("duration", err.Error())
		}
	}
	if b.PreviousText != nil {
		until, err := time.Parse(time.RFC3339, *b.PreviousText)
		if err != nil {
			return refuse("previous_client_secret_expires_at", "not an RFC 3339 time")
		}
		b.PreviousUntil = &until
	}
	if b.Version != nil && *b.Version < 1 {
		return refuse("client_secret_version", "must be at least 1")
	}
	return b, nil
}

func (s *Simulator) create(r *request, now time.Time) reply {
	b, refusal := decode(r, false)
	if refusal != nil {
		return *refusal
	}
	if b.Name == nil {
		return invalid("name", "is required")
	}
	t := s.addToken(newToken{
		owner: r.owner, name: *b.Name, duration: valueOr(b.Duration, defaultDuration),
		enabled: valueOr(b.Enabled, true), version: valueOr(b.Version, 1),
	}, now)
	return success(http.StatusCreated, t.resultWithSecret())
}

func (s *Simulator) list(r *request, _ time.Time) reply {
	page, ok := queryInt(r.query, "page", 1, 0)
	if !ok {
		return invalid("page", "must be a number of at least 1")
	}
	perPage, ok := queryInt(r.query, "per_page", 1000, 1000)
	if !ok {
		return invalid("per_page", "must be a number from 1 to 1000")
	}
	name, search := r.query.Get("name"), strings.ToLower(r.query.Get("search"))
	total, found, onPage := 0, 0, []tokenResult{}
	for _, t := range s.tokens {
		if t.deleted || t.owner != r.owner {
			continue
		}
		total++
		if name != "" && t.name != name || search != "" && !strings.Contains(strings.ToLower(t.name), search) {
			continue
		}
		if found/perPage == page-1 {
			onPage = append(onPage, t.result())
		}
		found++
	}
	pages := (found + perPage - 1) / perPage
	rep := success(http.StatusOK, onPage)
	rep.info = &resultInfo{Count: len(onPage), Page: page, PerPage: perPage, TotalCount: total, TotalPages: pages}
	return rep
}

func (s *Simulator) get(t *token, _ *request, _ time.Time) reply {
	return success(http.StatusOK, t.result())
}

func (s *Simulator) update(t *token, r *request, now time.Time) reply {
	b, refusal := decode(r, false)
	if refusal != nil {
		return *refusal
	}
	t.name = valueOr(b.Name, t.name)
	t.enabled = valueOr(b.Enabled, t.enabled)
	if b.Duration != nil {
		t.renew(*b.Duration, now)
	}
	switch {
	case b.Version != nil && *b.Version > t.version:
		s.rotate(t, valueOr(b.PreviousUntil, now), now)
		t.version = *b.Version
	case b.PreviousUntil != nil:
		t.movePrevious(*b.PreviousUntil, now)
	}
	t.updatedAt = now
	return success(http.StatusOK, t.result())
}

func (s *Simulator) delete(t *token, _ *request, _ time.Time) reply {
	if t.inPolicy {
		return failure(http.StatusConflict, codeInPolicy, "access.api.error.service_token_in_use: a policy refers to it")
	}
	t.deleted = true
	return success(http.StatusOK, t.result())
}

func (s *Simulator) rotateSecret(t *token, r *request, now time.Time) reply {
	b, refusal := decode(r, true)
	if refusal != nil {
		return *refusal
	}
	s.rotate(t, valueOr(b.PreviousUntil, now), now)
	return success(http.StatusOK, t.resultWithSecret())
}

func (s *Simulator) refresh(t *token, _ *request, now time.Time) reply {
	if !t.expiresAt.IsZero() {
		t.expiresAt = now.AddDate(1, 0, 0)
	}
	t.updatedAt = now
	return success(http.StatusOK, t.result())
}

// verifyResult is what the API shows of an API token.
type verifyResult struct {
	ID        string         `json:"id"`
	Status    APITokenStatus `json:"status"`
	NotBefore time.Time      `json:"not_before,omitzero"`
	ExpiresOn time.Time      `json:"expires_on,omitzero"`
}

// verify returns the state of the API token. It is always asked with one, because authentication comes first.
// A global API key is not a token.
func (s *Simulator) verify(r *request, now time.Time) reply {
	if !r.credential.bearer {
		return failure(http.StatusUnauthorized, codeAuthentication, "Authentication error")
	}
	sum := sha256.Sum256([]byte(r.credential.digest))
	status, accepted := s.behaviour.apiToken(now)
	rep := success(http.StatusOK, verifyResult{
		ID: hex.EncodeToString(sum[:16]), Status: status,
		NotBefore: s.behaviour.APITokenNotBefore.UTC(), ExpiresOn: s.behaviour.APITokenExpiresOn.UTC(),
	})
	if accepted {
		rep.messages = []apiError{{Code: 10000, Message: "This API Token is valid and active"}}
	}
	return rep
}

// queryInt reads a number of at least 1, and of at most limit unless that is 0.
func queryInt(q url.Values, key string, absent, limit int) (int, bool) {
	if !q.Has(key) {
		return absent, true
	}
	n, err := strconv.Atoi(q.Get(key))
	return n, err == nil && n >= 1 && (limit == 0 || n <= limit)
}

func valueOr[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}

// isIdentifier reports whether s is an account or zone ID.
func isIdentifier(s string) bool {
	return len(s) == 32 && !slices.ContainsFunc([]byte(s), func(c byte) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'f')
	})
}
