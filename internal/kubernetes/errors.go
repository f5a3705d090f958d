package kubernetes

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"rotatord/internal/outbound"
	"rotatord/internal/printable"
	"rotatord/internal/secret"
)

const (
	// maxWords is the longest name that is shown, and maxMessage the longest message of the API server, in bytes.
	maxWords, maxMessage = 200, 1000
	// maxCauses is how many causes of an error are looked at.
	maxCauses = 100
	// longestWait is the longest Retry-After that is believed.
	longestWait = 10 * time.Minute
)

// StatusError is a request that the API server has refused or could not serve.
type StatusError struct {
	Code    int
	Reason  string // as the API server names it, such as Forbidden; empty if it gave none
	Message string // cleaned, without what was sent
	// Conflicts are the fields that other field managers own, if that is the reason.
	Conflicts []Conflict
	// RetryAfter is how long the API server asks to wait; 0 if it does not.
	RetryAfter time.Duration

	kind, name string   // of the object that the error is about
	causes     []string // the reasons of the causes
	fields     []string // the fields of the causes
	hint       string
}

// Conflict is a field that another field manager owns.
type Conflict struct{ Field, Manager string }

// Error implements error.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("the API server answered %d", e.Code)
	if e.Reason != "" {
		text += " " + e.Reason
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(" (it asks to wait %s)", e.RetryAfter)
	}
	if e.hint != "" {
		text += ": " + e.hint
	}
	return text
}

// Refused reports whether the API server answered that it did not do what was asked. It is false for answers
// of which that is not sure.
func Refused(err error) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Code >= 400 && e.Code < 500 && e.Code != http.StatusRequestTimeout
}

// Changed reports whether a write was refused because the Secret is another one, or has another version, than
// the write says.
func Changed(err error) bool {
	e, ok := errors.AsType[*StatusError](err)
	switch {
	case !ok:
		return false
	case e.Code == http.StatusConflict:
		return len(e.Conflicts) == 0 // also AlreadyExists, if two create it at once
	case e.Code == http.StatusUnprocessableEntity: // another Secret of that name, or none any more
		return len(e.fields) > 0 && !slices.ContainsFunc(e.fields, func(field string) bool { return field != "metadata.uid" })
	}
	return false
}

// notKubernetes describes an answer that the API server never gives.
func notKubernetes(a answer, what string) error {
	page := outbound.ReadPage(a.header, a.body)
	hint := "is something else at this address?"
	if page.PlainOnTLS {
		hint = "the server speaks TLS: write https:// in the address"
	}
	return fmt.Errorf("%s answered %d %s (%s), which the API server never does: %s", a.host, a.status, what, page.Shown(false, secret.Scrub), hint)
}

// status is the object with which the API server answers if it refuses or fails.
type status struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	Message    string `json:"message"`
	Reason     string `json:"reason"`
	Code       int    `json:"code"`
	Details    struct {
		Name   string `json:"name"`
		Kind   string `json:"kind"`
		Causes []struct {
			Reason  string `json:"reason"`
			Message string `json:"message"`
			Field   string `json:"field"`
		} `json:"causes"`
		RetryAfter int `json:"retryAfterSeconds"`
	} `json:"details"`
}

// conflictWith finds the field manager in the cause of a conflict.
var conflictWith = regexp.MustCompile(`^conflict with "((?:[^"\\]|\\.)*)"`)

// failed returns the error that an answer of 400 or more is. clean removes what was sent.
func failed(a answer, clean func(string) string) error {
	e := &StatusError{Code: a.status, RetryAfter: min(outbound.RetryAfter(a.header), longestWait)}
	var s status
	if media, _, _ := mime.ParseMediaType(a.header.Get("Content-Type")); media != "application/json" ||
		outbound.DecodeOne(a.body, &s) != nil || s.Kind != "Status" || s.APIVersion != "v1" {
		// The limits before the API itself answer with a text: too many requests, a timeout.
		if a.status == http.StatusTooManyRequests || a.status >= 500 {
			e.Message = printable.Line(clean(outbound.ReadPage(a.header, a.body).Shown(false, secret.Scrub)), maxWords)
			return e
		}
		return notKubernetes(a, "without a Status")
	}
	e.Reason, e.Message = printable.Line(s.Reason, maxWords), printable.Line(clean(s.Message), maxMessage)
	e.kind, e.name = s.Details.Kind, s.Details.Name
	if e.RetryAfter == 0 && s.Details.RetryAfter > 0 {
		e.RetryAfter = min(time.Duration(min(s.Details.RetryAfter, 1<<20))*time.Second, longestWait)
	}
	for _, cause := range s.Details.Causes[:min(len(s.Details.Causes), maxCauses)] {
		e.causes, e.fields = append(e.causes, cause.Reason), append(e.fields, cause.Field)
		if cause.Reason != "FieldManagerConflict" {
			continue
		}
		manager := ""
		if found := conflictWith.FindStringSubmatch(cause.Message); found != nil {
			manager = found[1]
			if unquoted, err := strconv.Unquote(`"` + found[1] + `"`); err == nil {
				manager = unquoted
			}
		}
		e.Conflicts = append(e.Conflicts, Conflict{printable.Line(cause.Field, maxWords), printable.Line(manager, maxWords)})
	}
	return e
}

var (
	deniedVerb = regexp.MustCompile(`cannot (get|patch|create) resource "secrets"`)
	deniedUser = regexp.MustCompile(`User "([^"\\]{1,200})" cannot`)
	webhook    = regexp.MustCompile(`denied the request|denied by|ValidatingAdmissionPolicy`)
)

// explained adds to an error about a Secret what an operator can do.
func explained(err error, namespace, name string, hasToken bool) error {
	e, ok := errors.AsType[*StatusError](err)
	if !ok {
		return err
	}
	verb := deniedVerb.FindStringSubmatch(e.Message)
	switch {
	case e.Code == http.StatusUnauthorized:
		e.hint = loginHint(hasToken)
	case e.Code == http.StatusForbidden && slices.Contains(e.causes, "NamespaceTerminating"):
		e.hint = "the namespace " + namespace + " is being deleted: create it again, or remove the sink"
	case e.Code == http.StatusForbidden && strings.Contains(e.Message, "exceeded quota"):
		e.hint = "raise the ResourceQuota of the namespace " + namespace + ", or delete Secrets that are not used"
	case e.Code == http.StatusForbidden && verb != nil:
		verbs, or := "get, patch", ""
		if verb[1] == "create" {
			verbs = "get, patch, create"
			or = fmt.Sprintf(", or create the Secret yourself: kubectl create secret generic %s -n %s", name, namespace)
		}
		e.hint = fmt.Sprintf("give %s in the namespace %s a Role with this rule%s\n  - apiGroups: [\"\"]\n    resources: [secrets]\n    resourceNames: [%s]\n    verbs: [%s]",
			denied(e), namespace, or, name, verbs)
	case webhook.MatchString(e.Message):
		e.hint = "an admission policy of the cluster refuses it: ask its owner to let rotatord write this Secret"
	case e.Code == http.StatusNotFound && e.kind == "namespaces":
		e.hint = "create the namespace " + namespace + ", or correct namespace in the configuration"
	case e.Code == http.StatusUnsupportedMediaType:
		e.hint = "it does not know server-side apply, which needs Kubernetes 1.22 or later"
	case e.Code == http.StatusTooManyRequests:
		e.hint = "the API server is busy, or a limit of API priority and fairness is reached"
	}
	return e
}

// loginHint says why a login may not be accepted.
func loginHint(hasToken bool) string {
	if hasToken {
		return "the token is not valid here: has it ended, was it revoked, or is its audience another one than the API server's?"
	}
	return "the client certificate is not accepted: has it ended, or does it come from another authority?"
}

// denied returns the user that a 403 is about.
func denied(e *StatusError) string {
	if user := deniedUser.FindStringSubmatch(e.Message); user != nil {
		return user[1]
	}
	return "the user"
}
