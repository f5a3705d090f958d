package cfsim

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"rotatord/internal/secret"
)

// Kind says what a fault does.
type Kind string

// The kinds of fault. Those that change a field of the answer do so after the request was carried out. They
// do not affect an answer without that field.
const (
	KindStatus          Kind = "status"           // a failure with Fault.Status
	KindRefuse          Kind = "refuse"           // status 200 with success: false
	KindDrop            Kind = "drop"             // the connection breaks instead of an answer
	KindCut             Kind = "cut"              // the connection breaks within the body
	KindGarbage         Kind = "garbage"          // a body that is not JSON
	KindDelay           Kind = "delay"            // only Fault.Delay
	KindWrongClientID   Kind = "wrong_client_id"  // the answer names another client ID
	KindWrongTokenID    Kind = "wrong_token_id"   // the answer names another token
	KindMissingSecret   Kind = "missing_secret"   // the answer has no client_secret
	KindMalformedSecret Kind = "malformed_secret" // the client_secret has lost its end
	KindShape           Kind = "shape"            // the answer is in the form that Fault.Shape names
)

// mutations change one field of an answer.
var mutations = map[Kind]func(*tokenResult){
	KindWrongClientID:   func(t *tokenResult) { t.ClientID = "00000000000000000000000000000bad.access" },
	KindWrongTokenID:    func(t *tokenResult) { t.ID = "00000000-0000-4000-8000-000000000bad" },
	KindMissingSecret:   func(t *tokenResult) { t.ClientSecret = "" },
	KindMalformedSecret: func(t *tokenResult) { t.ClientSecret = t.ClientSecret[:len(t.ClientSecret)/2] },
}

// When says whether a fault strikes before or after the request is carried out.
type When string

// Before means that the request is not carried out, except after a mere delay. After means that it is carried
// out, and that the client may not see that.
const (
	Before When = "before"
	After  When = "after"
)

// Fault is something that goes wrong with the next matching requests. At most one fault strikes a request:
// the one that was injected first. Rate limit and authentication come before faults, so a request that they
// refuse does not use up a fault.
type Fault struct {
	// Operation is one of the Op constants. Empty or "*" means every operation of the API, but not the
	// application, which must be named.
	Operation string `json:"operation,omitempty"`
	// TokenID restricts the fault to requests for one service token. Empty means any.
	TokenID string `json:"token_id,omitempty"`
	// Count is how many requests it strikes. Zero means one; negative means all until faults are cleared.
	Count int `json:"count,omitempty"`
	// Kind is what happens. Empty means KindStatus if Status is set, otherwise
	// KindDelay.
	Kind Kind `json:"kind,omitempty"`
	// When defaults to Before, and to After for the kinds that change a field.
	When When `json:"when,omitempty"`
	// Status of the answer, from 400 to 599 for KindStatus. For KindGarbage it may be
	// any from 200 and defaults to 200.
	Status int `json:"status,omitempty"`
	// Shape is one of Shapes, for KindShape.
	Shape string `json:"shape,omitempty"`
	// RetryAfter in seconds, for KindStatus. Zero means no such header.
	RetryAfter int `json:"retry_after,omitempty"`
	// Code and Message of the error, for KindStatus and KindRefuse. Zero means what
	// suits the status.
	Code    int    `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	// Delay passes in real time, before or after the request is carried out. It can be combined with any
	// kind. If the client disconnects during the delay, the request ends there.
	Delay Duration `json:"delay,omitzero"`
}

// Inject activates a fault, or returns what is wrong with it.
func (s *Simulator) Inject(f Fault) error {
	_, err := s.inject(f)
	return err
}

func (s *Simulator) inject(f Fault) (Fault, error) {
	f, err := f.complete()
	if err != nil {
		return Fault{}, fmt.Errorf("injecting a fault: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	armed := f
	s.faults = append(s.faults, &armed)
	return f, nil
}

// Faults returns the active faults, with the number of requests that each will still strike.
func (s *Simulator) Faults() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Fault, 0, len(s.faults))
	for _, f := range s.faults {
		out = append(out, *f)
	}
	return out
}

// ClearFaults removes all faults. It does not undo what a fault has done to earlier requests.
func (s *Simulator) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

var operations = []string{
	OpCreate, OpList, OpGet, OpUpdate, OpDelete, OpRotate, OpRefresh, OpVerify, OpApp,
}

// complete checks a fault and fills in its defaults.
func (f Fault) complete() (Fault, error) {
	if f.Operation == "*" {
		f.Operation = ""
	}
	if f.Operation != "" && !slices.Contains(operations, f.Operation) {
		return f, fmt.Errorf("operation %q is none of %s", f.Operation, strings.Join(operations, ", "))
	}
	if f.Count = max(f.Count, -1); f.Count == 0 {
		f.Count = 1
	}
	if f.TokenID != "" && !uuidShape.MatchString(f.TokenID) {
		return f, fmt.Errorf("token %q is not the ID of one: want a UUID", secret.Scrub(f.TokenID))
	}
	if f.Delay < 0 {
		return f, fmt.Errorf("delay %s is negative", time.Duration(f.Delay))
	}
	if f.Kind == "" {
		f.Kind = f.kindByFields()
	}
	if err := f.checkAnswer(); err != nil {
		return f, err
	}
	return f.completeWhen()
}

// kindByFields returns the kind that a fault without one has.
func (f Fault) kindByFields() Kind {
	switch {
	case f.Shape != "":
		return KindShape
	case f.Status == 0 && f.Delay > 0:
		return KindDelay
	default:
		return KindStatus
	}
}

// completeWhen checks when a fault strikes, and then what depends on its kind.
func (f Fault) completeWhen() (Fault, error) {
	_, mutates := mutations[f.Kind]
	mutates = mutates || f.Kind == KindShape
	switch {
	case f.When == "" && mutates:
		f.When = After
	case f.When == "":
		f.When = Before
	case f.When != Before && f.When != After:
		return f, fmt.Errorf("when %q is neither before nor after", f.When)
	case f.When == Before && mutates:
		return f, fmt.Errorf("kind %q changes an answer, so it can only strike after", f.Kind)
	}
	if mutates && f.Operation == OpApp {
		return f, fmt.Errorf("kind %q does not go with the application", f.Kind)
	}
	return f.completeKind(mutates)
}

// checkAnswer refuses settings that do not fit the kind and would have no effect.
func (f Fault) checkAnswer() error {
	switch {
	case f.Status != 0 && f.Kind != KindStatus && f.Kind != KindGarbage:
		return fmt.Errorf("a status goes with the kinds status and garbage, not with %s", f.Kind)
	case f.Shape != "" && f.Kind != KindShape:
		return fmt.Errorf("a shape goes with the kind shape, not with %s", f.Kind)
	case f.RetryAfter != 0 && f.Kind != KindStatus:
		return fmt.Errorf("a time to retry after goes with the kind status, not with %s", f.Kind)
	case f.RetryAfter < 0:
		return fmt.Errorf("%d seconds to retry after are less than none", f.RetryAfter)
	case (f.Code != 0 || f.Message != "") && f.Kind != KindStatus && f.Kind != KindRefuse:
		return fmt.Errorf("a code or message goes with the kinds status and refuse, not with %s", f.Kind)
	case f.Code != 0 && f.Code < 1000:
		return fmt.Errorf("code %d is none of Cloudflare's, which are 1000 or more", f.Code)
	}
	return nil
}

func (f Fault) completeKind(mutates bool) (Fault, error) {
	switch f.Kind {
	case KindStatus:
		if f.Status < 400 || f.Status > 599 {
			return f, fmt.Errorf("status %d is not between 400 and 599", f.Status)
		}
	case KindGarbage:
		if f.Status == 0 {
			f.Status = http.StatusOK
		}
		if f.Status < 200 || f.Status > 599 || f.Status == http.StatusNoContent || f.Status == http.StatusNotModified {
			return f, fmt.Errorf("status %d cannot have a body of garbage", f.Status)
		}
	case KindDelay:
		if f.Delay <= 0 {
			return f, fmt.Errorf("kind %q needs a delay", f.Kind)
		}
	case KindShape:
		if _, ok := shapes[f.Shape]; !ok {
			return f, fmt.Errorf("shape %q is none of %s", f.Shape, strings.Join(Shapes(), ", "))
		}
	case KindRefuse, KindDrop, KindCut:
	default:
		if !mutates {
			return f, fmt.Errorf("kind %q is not known", f.Kind)
		}
	}
	return f, nil
}

// takeFault returns the fault that strikes a request, and counts it down, in one step. It returns nil if
// there is none.
func (s *Simulator) takeFault(op, tokenID string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.faults, func(f *Fault) bool {
		if f.Operation != op && (f.Operation != "" || op == OpApp) {
			return false
		}
		return f.TokenID == "" || strings.EqualFold(f.TokenID, tokenID)
	})
	if i < 0 {
		return nil
	}
	armed := s.faults[i]
	struck := *armed
	switch armed.Count {
	case 1:
		s.faults = slices.Delete(s.faults, i, i+1)
	default:
		if armed.Count > 0 {
			armed.Count--
		}
	}
	s.stats.Faults[struck.Kind]++
	return &struck
}

// strike carries a request out or not, and returns what the client sees. A nil fault does nothing.
func (f *Fault) strike(ctx context.Context, carryOut func() reply) reply {
	if f == nil {
		return carryOut()
	}
	if f.When == Before {
		if !f.wait(ctx) {
			return reply{drop: true}
		}
		if f.Kind == KindDelay {
			return carryOut()
		}
		return f.disturb(reply{}) // every kind that may strike before creates its own answer
	}
	rep := carryOut()
	if !f.wait(ctx) {
		return reply{drop: true}
	}
	return f.disturb(rep)
}

// wait waits for the delay, and returns false if the client disconnects meanwhile.
func (f *Fault) wait(ctx context.Context) bool {
	if f.Delay <= 0 {
		return true
	}
	timer := time.NewTimer(time.Duration(f.Delay))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// disturb turns an answer into what the client sees.
func (f *Fault) disturb(rep reply) reply {
	switch f.Kind {
	case KindStatus:
		code, message := f.errorFor(f.Status)
		rep = failure(f.Status, code, message)
		rep.retryAfter = f.RetryAfter
	case KindRefuse:
		code, message := f.errorFor(http.StatusBadRequest)
		rep = failure(http.StatusOK, code, message)
	case KindDrop:
		rep = reply{drop: true}
	case KindCut:
		if f.When == Before {
			rep = success(http.StatusOK, nil)
		}
		rep.cut = true
	case KindGarbage:
		rep = reply{status: f.Status, raw: "<html><head><title>cloudflare</title></head><body>please stand by</body></html>\n"}
	case KindShape:
		if !rep.drop {
			rep.shape = f.Shape
		}
	case KindDelay:
	default:
		if t, ok := rep.result.(tokenResult); ok {
			mutations[f.Kind](&t)
			rep.result = t
		}
	}
	return rep
}

// errorFor returns an error that fits a status, unless the fault has its own.
func (f *Fault) errorFor(status int) (code int, message string) {
	switch {
	case f.Code != 0:
		code = f.Code
	case status == http.StatusTooManyRequests:
		code = codeRateLimited
	case status == http.StatusForbidden:
		code = codeUnauthorized
	case status == http.StatusUnauthorized:
		code = codeAuthentication
	case status == http.StatusNotFound:
		code = codeTokenNotFound
	case status < 500:
		code = codeInvalidRequest
	default:
		code = codeInternal
	}
	if f.Message != "" {
		return code, f.Message
	}
	return code, "injected: " + http.StatusText(status)
}
