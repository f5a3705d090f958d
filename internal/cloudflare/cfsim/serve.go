package cfsim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"rotatord/internal/secret"
)

// maxBody is far more than any request of this API needs.
const maxBody = 1 << 20

func isAPIPath(p string) bool { return p == BasePath || strings.HasPrefix(p, BasePath+"/") }

// isCleanPath reports whether the mux accepts p as it is.
func isCleanPath(p string) bool { return p != BasePath && path.Clean(p) == strings.TrimSuffix(p, "/") }

// credential identifies the client. The digest is empty if the request has no credential.
type credential struct {
	bearer   bool
	readOnly bool
	digest   secret.Digest
}

// readingOperations change nothing. OpUnknown is one of them, because a route that does not exist has no
// permissions.
var readingOperations = []string{OpList, OpGet, OpVerify, OpUnknown}

// serve runs one request of the API through rate limit, authentication, faults and
// the operation, in this order. A nil operation is a route that does not exist.
func (s *Simulator) serve(w http.ResponseWriter, r *http.Request, req *request, do operation) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	if err != nil && !tooLarge {
		s.send(w, req, reply{drop: true}, nil, allowance{}) // the client disconnected; this does not return
	}
	req.body = body

	var refusal *reply
	req.credential, refusal = s.authenticate(r, req.op)
	left := s.limit.take(req.credential.digest, s.options.Now())
	switch {
	case left.refused:
		rep := failure(http.StatusTooManyRequests, codeRateLimited, "Rate limited: too many requests")
		rep.retryAfter = left.reset
		s.send(w, req, rep, nil, left)
	case refusal != nil:
		s.send(w, req, *refusal, nil, left)
	case do == nil:
		s.send(w, req, noRoute(), nil, left)
	case tooLarge:
		s.send(w, req, invalid("", "the body is too large"), nil, left)
	default:
		fault := s.takeFault(req.op, req.tokenID)
		rep := fault.strike(r.Context(), func() reply {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.carryOut(req, do)
		})
		s.send(w, req, rep, fault, left)
	}
}

// carryOut does what a request asks for. A change is in the state file before any answer is sent, whatever a
// fault does to the answer. The caller holds mu.
func (s *Simulator) carryOut(req *request, do operation) reply {
	rep := do(req, s.apiNow())
	if rep.status >= 300 || slices.Contains(readingOperations, req.op) {
		return rep
	}
	if err := s.save(); err != nil {
		s.log.Error("the state file cannot be written: what was just done is in memory only", "error", err)
		return failure(http.StatusInternalServerError, codeInternal, "the simulator cannot write its state file")
	}
	return rep
}

// authenticate identifies the credential. It refuses a missing one, and one that the simulator was not told
// to accept.
func (s *Simulator) authenticate(r *http.Request, op string) (credential, *reply) {
	o := s.options
	only := !o.APIToken.IsZero() || !o.APIKey.IsZero()
	s.mu.Lock()
	status, accepted := s.behaviour.apiToken(s.apiNow())
	s.mu.Unlock()
	refuse := func(c credential) (credential, *reply) {
		rep := failure(http.StatusForbidden, codeUnauthorized, "Unauthorized to access requested resource")
		if op == OpVerify {
			rep = failure(http.StatusUnauthorized, codeInvalidToken, "Invalid API Token")
		}
		return c, &rep
	}
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		if v := secret.New(strings.TrimSpace(token)); !v.IsZero() {
			c := credential{bearer: true, digest: v.Digest(), readOnly: v.Equal(o.ReadOnlyToken)}
			switch {
			case only && !c.readOnly && !v.Equal(o.APIToken), status == APITokenRevoked:
				return refuse(c)
			case op == OpVerify && ofOtherKind(v.Reveal(), r.URL.Path):
				return refuse(c)
			case op == OpVerify: // it returns the status of the token
				return c, nil
			case !accepted, c.readOnly && !slices.Contains(readingOperations, op):
				return refuse(c)
			}
			return c, nil
		}
	}
	email, key := r.Header.Get("X-Auth-Email"), secret.New(r.Header.Get("X-Auth-Key"))
	if email != "" && !key.IsZero() {
		c := credential{digest: secret.New(email + "\n" + key.Reveal()).Digest()}
		if only && (email != o.APIEmail || !key.Equal(o.APIKey)) {
			return refuse(c)
		}
		return c, nil
	}
	rep := failure(http.StatusUnauthorized, codeAuthentication, "Authentication error")
	return credential{}, &rep
}

// The prefixes of API tokens that belong to a user and to an account.
const (
	userTokenPrefix    = "cfut_"
	accountTokenPrefix = "cfat_"
)

// ofOtherKind reports whether an API token is verified at the other path: those of a user below user/, and
// those of an account below accounts/. A token without a prefix is known at both.
func ofOtherKind(token, path string) bool {
	ofUser := strings.HasPrefix(path, BasePath+"/user/")
	return strings.HasPrefix(token, userTokenPrefix) && !ofUser || strings.HasPrefix(token, accountTokenPrefix) && ofUser
}

// send counts, logs and writes an answer. It counts first, so that a client which has the answer finds it in
// the statistics.
func (s *Simulator) send(w http.ResponseWriter, req *request, rep reply, fault *Fault, left allowance) {
	if rep.drop {
		rep.status = 0
	}
	s.mu.Lock()
	s.stats.countRequest(req.op, rep.status)
	now := s.apiNow()
	s.mu.Unlock()
	s.logRequest(req.op, req.tokenID, rep.status, fault)
	if rep.drop {
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	h.Set("Date", now.Format(http.TimeFormat))
	left.set(h)
	if rep.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(rep.retryAfter))
	}
	if rep.location != "" {
		h.Set("Location", rep.location)
	}
	h.Set("Content-Type", "application/json")
	if rep.raw != "" {
		h.Set("Content-Type", "text/html; charset=UTF-8")
	}
	if rep.shape != "" {
		rep.shaped(rep.shape).write(w)
		return
	}
	write(w, rep.status, rep.body(), rep.cut)
}

// write sends a body, or the first part of it and then breaks the connection.
func write(w http.ResponseWriter, status int, body []byte, cut bool) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if cut {
		body = body[:cutAt(body)]
	}
	_, _ = w.Write(body) // the client may have disconnected, and there is nothing to do about it
	if cut {
		_ = http.NewResponseController(w).Flush() // if it cannot flush, nothing arrives, which is a cut as well
		panic(http.ErrAbortHandler)
	}
}

// cutAt returns the worst place for a cut: inside the secret if there is one.
func cutAt(body []byte) int {
	const key = `"client_secret":"`
	if i := bytes.Index(body, []byte(key)); i >= 0 {
		return i + len(key) + 20
	}
	return len(body) / 2
}

func (s *Simulator) logRequest(op, tokenID string, status int, fault *Fault) {
	attrs := []slog.Attr{slog.String("operation", op), slog.Int("status", status)}
	if tokenID != "" {
		attrs = append(attrs, slog.String("token_id", secret.Scrub(tokenID)))
	}
	if fault != nil {
		attrs = append(attrs, slog.String("fault", string(fault.Kind)), slog.String("when", string(fault.When)))
	}
	s.log.LogAttrs(context.Background(), slog.LevelDebug, "request", attrs...)
}
