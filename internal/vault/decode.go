package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/outbound"
)

// checkAnswer returns a decoded answer if it is one of Vault's: a 200 with a JSON object, or a 204
// for a write. It returns nil for a 204, and for an answer that the caller checks. An answer of
// something else, such as a proxy or a login page, and an empty answer are errors: they never mean
// "nothing stored". An answer of 400 and above is an error, except a 404 that says what is stored.
func checkAnswer(r request, a answered) (*api.Secret, error) {
	switch {
	case r.raw && (a.StatusCode < 400 || a.StatusCode == http.StatusNotFound):
		return nil, nil
	case a.StatusCode >= 400:
		return nil, classifyRefusal(r, a)
	case a.StatusCode == http.StatusNoContent && r.method != http.MethodGet && !r.leased():
		return nil, nil
	case a.StatusCode == http.StatusNoContent && r.leased():
		return nil, foreign("HTTP 204 without a body")
	case a.StatusCode != http.StatusOK:
		return nil, r.foreign(fmt.Sprintf("HTTP %d, which Vault never answers to this request", a.StatusCode), a)
	case len(bytes.TrimSpace(a.content)) == 0:
		return nil, r.foreign("HTTP 200 with an empty body", a)
	}
	var body struct {
		Data map[string]any  `json:"data"`
		Auth map[string]any  `json:"auth"`
		Wrap json.RawMessage `json:"wrap_info"`
	}
	if err := decodeObject(a.content, &body); err != nil {
		return nil, r.foreign("HTTP 200 with "+err.Error(), a)
	}
	if r.leased() {
		if err := checkLease(body.Auth, len(body.Wrap) > 0 && string(body.Wrap) != "null"); err != nil {
			return nil, err
		}
	}
	decoded, err := api.ParseSecret(bytes.NewReader(a.content))
	switch {
	case err != nil: // its text could quote the answer
		return nil, foreign("HTTP 200 with a body that has a field of the wrong type")
	case decoded == nil || body.Data == nil && decoded.Data != nil: // the library accepts any object as data
		return nil, r.foreign("HTTP 200 with an object that has none of Vault's fields", a)
	}
	return decoded, nil
}

// classifyRefusal returns the error of an answer of 400 and above. Vault's own answers have a list of
// errors. A 404 with an empty list means that nothing is stored. A 404 with metadata means that the
// latest version of a secret is deleted. For a read these two are not errors.
func classifyRefusal(r request, a answered) error {
	var body struct {
		Data     map[string]any `json:"data"`
		Errors   *[]string      `json:"errors"`
		Warnings []string       `json:"warnings"`
	}
	e := &ResponseError{Status: a.StatusCode, RetryAfter: outbound.RetryAfter(a.Header)}
	if err := decodeObject(a.content, &body); err != nil || body.Errors == nil && len(body.Data) == 0 && len(body.Warnings) == 0 {
		page := outbound.ReadPage(a.Header, a.content)
		e.Foreign, e.page, e.advice = true, page.Shown(false, r.scrubbed), r.advice(a.StatusCode, page)
		return e
	}
	if body.Errors != nil {
		e.Errors = *body.Errors
	}
	reading := r.operation == "read" || r.operation == "mounts"
	if reading && a.StatusCode == http.StatusNotFound && len(e.Errors) == 0 && (len(body.Data) > 0 || len(body.Warnings) == 0) {
		if _, err := api.ParseSecret(bytes.NewReader(a.content)); err != nil {
			e.Foreign = true // a field of the wrong type
			return e
		}
		return nil
	}
	for _, warning := range body.Warnings {
		e.Errors = append(e.Errors, "warning: "+warning)
	}
	return e
}

// decodeObject decodes exactly one JSON object. Its errors quote nothing of it.
func decodeObject(content []byte, into any) error {
	if trimmed := bytes.TrimSpace(content); len(trimmed) == 0 || trimmed[0] != '{' {
		return errors.New("a body that is not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("a body whose %s is of the wrong type", e.Field)
		}
		return errors.New("a body that is not valid JSON")
	}
	if d.More() {
		return errors.New("text after its JSON")
	}
	return nil
}
