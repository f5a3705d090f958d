package cloudflare

import (
	"encoding/json"
	"fmt"
	"strings"

	"rotatord/internal/printable"
)

// This file reads the errors of an answer: all of them, with what Cloudflare says of their causes, of the
// field that they are about, and of where they are documented.

const (
	// maxErrors is how many errors of an answer are shown, and how many causes of each. maxChain is how
	// deep causes may be nested.
	maxErrors, maxChain = 5, 4
	// maxMessage is how many bytes of one message, maxPointer of one source.pointer and maxURL of one
	// documentation_url are shown.
	maxMessage, maxPointer, maxURL = 300, 100, 200
)

// apiErrors are the errors of an answer. What has another shape than is documented is taken as no
// error that could be quoted: whether the answer is a failure, its status and success say.
type apiErrors []apiError

// apiError is one of them.
type apiError struct {
	Code    int // 0 if it has none that is a number
	Message string
	Pointer string // into the request's body, at what is wrong
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
	if text := text(raw); text != "" { // some services answer with texts alone
		return apiError{Message: text}, true
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return apiError{}, false
	}
	_ = json.Unmarshal(fields["code"], &e.Code) // one that is no number decides nothing
	var source map[string]json.RawMessage
	_ = json.Unmarshal(fields["source"], &source) // one that is no object points at nothing
	e.Message, e.URL, e.Pointer = text(fields["message"]), text(fields["documentation_url"]), text(source["pointer"])
	e.Chain = readErrors(fields["error_chain"], depth-1)
	return e, e.Code != 0 || e.Message != "" || len(e.Chain) > 0
}

// text is a JSON string; empty for anything else.
func text(raw json.RawMessage) (s string) {
	_ = json.Unmarshal(raw, &s) // what is no string says nothing here
	return strings.TrimSpace(s)
}

// text says all of the errors. The code of the first one is left out unless it is wanted: an error
// has a place of its own for it.
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
