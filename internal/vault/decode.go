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

// judge proves that an answer is one of Vault's: a 200 with a JSON object, a 204 for a write, or
// Vault's own form of an error. Whatever else may have answered, such as a proxy or a login page,
// and an empty answer too, is an error and never "nothing stored". An answer of 400 and above is
// an error as well, except a 404 that says what is stored. What passes is decoded in the same way
// by the library. It is nil for a 204, and for an answer that its caller judges.
func judge(r request, a answered) (*api.Secret, error) {
	switch {
	case r.raw && (a.StatusCode < 400 || a.StatusCode == http.StatusNotFound):
		return nil, nil
	case a.StatusCode >= 400:
		return nil, judgeRefusal(r, a)
	case a.StatusCode == http.StatusNoContent && r.method != http.MethodGet && !r.leased():
		return nil, nil
	case a.StatusCode == http.StatusNoContent && r.leased():
		return nil, foreign("HTTP 204 without a body")
	case a.StatusCode != http.StatusOK:
		return nil, r.foreign(fmt.Sprintf("HTTP %d, which Vault does not answer to this", a.StatusCode), a)
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
		if err := judgeLease(body.Auth, len(body.Wrap) > 0 && string(body.Wrap) != "null"); err != nil {
			return nil, err
		}
	}
	decoded, err := api.ParseSecret(bytes.NewReader(a.content))
	switch {
	case err != nil: // its text could quote the answer
		return nil, foreign("HTTP 200 with a body that has a field of the wrong type")
	case decoded == nil || body.Data == nil && decoded.Data != nil: // the library takes any object for data
		return nil, r.foreign("HTTP 200 with an object that has none of Vault's fields", a)
	}
	return decoded, nil
}

// judgeRefusal judges an answer of 400 and above. Vault's own have a list of errors. With a 404
// it is empty where nothing is stored; where the latest version of a secret is deleted, the 404
// has data in its place, which has the metadata. These two are no error for a read.
func judgeRefusal(r request, a answered) error {
	var body struct {
		Data     map[string]any `json:"data"`
		Errors   *[]string      `json:"errors"`
		Warnings []string       `json:"warnings"`
	}
	e := &ResponseError{Status: a.StatusCode}
	if err := decodeObject(a.content, &body); err != nil || body.Errors == nil && len(body.Data) == 0 && len(body.Warnings) == 0 {
		page := outbound.ReadPage(a.Header, a.content)
		e.Foreign, e.page, e.advice = true, page.Shown(false, r.cleaned), r.advice(a.StatusCode, page)
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

// decodeObject decodes a JSON object, and nothing after it. The errors quote nothing of it.
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
