package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
)

// Secret is an answer of Vault's, decoded. Its numbers are of type [json.Number].
type Secret struct {
	// Data is nil if the answer has none.
	Data map[string]any

	auth    map[string]any // nil if the answer has none
	wrapped bool
}

// decode decodes an answer and proves that it is one of Vault's: a 200 with a JSON object, a
// 204 for a write, or Vault's own form of an error. Whatever else may have answered, such as a
// proxy or a login page, and an empty answer too, is an error and never "nothing stored".
func decode(r request, a answered) (*Secret, error) {
	switch {
	case a.StatusCode >= 400:
		return decodeRefusal(r, a)
	case a.StatusCode == http.StatusNoContent && r.method != http.MethodGet:
		return nil, nil
	case a.StatusCode != http.StatusOK:
		return nil, foreign(fmt.Sprintf("HTTP %d, which Vault does not answer to this", a.StatusCode))
	case len(bytes.TrimSpace(a.content)) == 0:
		return nil, foreign("HTTP 200 with an empty body")
	}
	var body struct {
		Data map[string]any  `json:"data"`
		Auth map[string]any  `json:"auth"`
		Wrap json.RawMessage `json:"wrap_info"`
	}
	if err := decodeObject(a.content, &body); err != nil {
		return nil, foreign("HTTP 200 with " + err.Error() + mediaType(a.Header))
	}
	return &Secret{Data: body.Data, auth: body.Auth, wrapped: len(body.Wrap) > 0 && string(body.Wrap) != "null"}, nil
}

// decodeRefusal decodes an answer of 400 and above. Vault's own have a list of errors. With a
// 404 it is empty where nothing is stored; where the latest version of a secret is deleted, the
// 404 has data in its place, which has the metadata.
func decodeRefusal(r request, a answered) (*Secret, error) {
	var body struct {
		Data     map[string]any `json:"data"`
		Errors   *[]string      `json:"errors"`
		Warnings []string       `json:"warnings"`
	}
	e := &ResponseError{Status: a.StatusCode}
	if err := decodeObject(a.content, &body); err != nil || body.Errors == nil && body.Data == nil && len(body.Warnings) == 0 {
		e.Foreign, e.mediaType = true, mediaType(a.Header)
		return nil, e
	}
	if body.Errors != nil {
		e.Errors = *body.Errors
	}
	if r.method == http.MethodGet && a.StatusCode == http.StatusNotFound && len(e.Errors) == 0 {
		if body.Data != nil {
			return &Secret{Data: body.Data}, nil
		}
		if body.Errors != nil && len(body.Warnings) == 0 {
			return nil, nil // Vault's own words for nothing
		}
	}
	e.Errors = append(e.Errors, body.Warnings...)
	return nil, e
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

func mediaType(h http.Header) string {
	if t, _, err := mime.ParseMediaType(h.Get("Content-Type")); err == nil && t != "application/json" && len(t) < 100 {
		return " (it is " + t + ")"
	}
	return ""
}
