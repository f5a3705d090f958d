package vaulttest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
)

// IsProbe reports whether r is a write that can never match: rotatord sends one with check-and-set -1
// to find out whether it may write, and Vault carries out none of them. A proxy that acts on the
// writes of a secret has to let these through, because they come before the rotation.
// It reads the body and puts it back, so that r can be served afterwards.
func IsProbe(r *http.Request) bool {
	if r.Method == http.MethodGet || r.Body == nil {
		return false
	}
	read, _ := io.ReadAll(r.Body) // the handler that serves r gets the same error
	r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(read), r.Body))
	body, err := decodeBody(bytes.NewReader(read))
	return err == nil && isProbe(body)
}

// decodeBody decodes the body of a write. Numbers stay as they were written.
func decodeBody(r io.Reader) (body map[string]any, err error) {
	decoder := json.NewDecoder(r)
	decoder.UseNumber()
	return body, decoder.Decode(&body)
}

// isProbe reports whether a write can never match.
func isProbe(body map[string]any) bool {
	options, _ := body["options"].(map[string]any)
	cas, _ := options["cas"].(json.Number)
	return cas == "-1"
}
