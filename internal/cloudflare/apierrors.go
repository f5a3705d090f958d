package cloudflare

import (
	"encoding/json"
	"fmt"
	"strings"

	"rotatord/internal/printable"
)

// This file reads the errors in an answer, with what Cloudflare says about their causes, the field that is
// wrong, and where they are documented.

const (
	// maxErrors limits how many errors of an answer are shown, and how many causes of each. maxChain limits
	// how deep causes may be nested.
	maxErrors, maxChain = 5, 4
	// These limit how many bytes are shown of a message, of a source.pointer and of a documentation_url.
	maxMessage, maxPointer, maxURL = 300, 100, 200
)

// apiErrors are the errors of an answer. A value that is not in the documented shape is not quoted: the
// status and the field success say whether the answer is a failure.
type apiErrors []apiError

// apiError is one error.
type apiError struct {
	Code    int // 0 if there is none, or it is not a number
	Message string
	Pointer string // into the body of the request, at what is wrong
	URL     string // where it is documented
	Chain   apiErrors
}

// UnmarshalJSON implements json.Unmarshaler.
func (all *apiErrors) UnmarshalJSON(b []byte) error {
	*all = readErrors(b, maxChain)
	return nil
}

func readErrors(b []byte, depth int) (all apiErrors) {
	var list []json.RawMessage
	if depth == 0 || json.Unmarshal(b, &list) != nil {
		return nil
	}
	for _, raw := range list {
		if e, ok := readError(raw, depth); ok {
			all = append(all, e)
		}
	}
	return all
}

func readError(raw json.RawMessage, depth int) (e apiError, ok bool) {
	if text := text(raw); text != "" { // some services answer with plain texts
		return apiError{Message: text}, true
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return apiError{}, false
	}
	_ = json.Unmarshal(fields["code"], &e.Code) // a code that is not a number decides nothing
	var source map[string]json.RawMessage
	_ = json.Unmarshal(fields["source"], &source) // a source that is not an object points at nothing
	e.Message, e.URL, e.Pointer = text(fields["message"]), text(fields["documentation_url"]), text(source["pointer"])
	e.Chain = readErrors(fields["error_chain"], depth-1)
	return e, e.Code != 0 || e.Message != "" || len(e.Chain) > 0
}

// text returns a JSON string; empty for anything else.
func text(raw json.RawMessage) (s string) {
	_ = json.Unmarshal(raw, &s) // anything but a string says nothing here
	return strings.TrimSpace(s)
}

// text returns the text of all errors. It includes the code of the first one only if firstCode is set: an
// IssuerError shows that code itself.
func (all apiErrors) text(firstCode bool) string {
	var parts []string
	for i, e := range all {
		if i == maxErrors {
			parts = append(parts, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		parts = append(parts, e.text(i > 0 || firstCode))
	}
	return strings.Join(parts, "; ")
}

func (e apiError) text(code bool) string {
	said := printable.Line(e.Message, maxMessage)
	if code && e.Code != 0 {
		said = joined(fmt.Sprintf("code %d", e.Code), said)
	}
	var beside []string
	if e.Pointer != "" {
		beside = append(beside, "at "+printable.Line(e.Pointer, maxPointer))
	}
	if len(e.Chain) > 0 {
		beside = append(beside, "because of "+e.Chain.text(true))
	}
	if e.URL != "" {
		beside = append(beside, "see "+printable.Line(e.URL, maxURL))
	}
	if len(beside) > 0 {
		said = strings.TrimSpace(said + " (" + strings.Join(beside, "; ") + ")")
	}
	return said
}
