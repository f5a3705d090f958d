package sink

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"rotatord/internal/outbound"
	"rotatord/internal/printable"
	"rotatord/internal/vault"
)

// This file decides what Vault's answers about a secret mean. It accepts only answers that Vault
// gives. If a proxy, a login page or a cache answers, that must never look like an empty place:
// rotatord would rotate, and notice it too late.

// content is a secret with all its fields and its version.
type content struct {
	fields  map[string]any // nil if there is nothing, or if the latest version is deleted
	version int            // in KV version 2, also of a deleted latest version; 0 if there is none
	written time.Time      // when this version was written; zero in KV version 1
	// deletes is when Vault deletes this version, or has deleted it; zero if it does not.
	deletes   time.Time
	destroyed bool // the latest version cannot be brought back
	// custom are the custom metadata of the secret, as far as they are texts.
	custom map[string]string
}

// text returns the text of a field; empty if there is none, or another value.
func (c content) text(name string) string {
	text, _ := c.fields[name].(string)
	return text
}

// foreign is an answer that Vault never gives to this request.
type foreign struct{ text string }

func (f *foreign) Error() string { return f.text }

// maxKind is how many bytes of a content type are shown, and maxWords how many of Vault's messages.
const maxKind, maxWords = 200, 1000

// notVaults describes an answer by its status, its media type and the title of a page.
func notVaults(a vault.Answer, what string) error {
	kind := cmp.Or(a.Shown, a.ContentType, "none")
	return &foreign{fmt.Sprintf("Vault answered %d %s (content type %s): is something else at this address?", a.Status, what, printable.Line(kind, maxKind))}
}

// envelope has the fields of Vault's JSON answers that are used. The raw fields are nil if they are
// missing.
type envelope struct {
	Errors   []string        `json:"errors"`
	Warnings []string        `json:"warnings"`
	Data     json.RawMessage `json:"data"`
	WrapInfo json.RawMessage `json:"wrap_info"`
	fields   int             // how many fields the answer has
}

// openEnvelope decodes an answer, whose body must be one JSON object and nothing else.
func openEnvelope(a vault.Answer) (envelope, error) {
	if len(bytes.TrimSpace(a.Body)) == 0 {
		return envelope{}, notVaults(a, "with an empty body")
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(a.Body, &all); err != nil || all == nil {
		return envelope{}, notVaults(a, "with a body that is not a JSON object")
	}
	var e envelope
	if err := json.Unmarshal(a.Body, &e); err != nil {
		return envelope{}, notVaults(a, "with JSON of another form than Vault's")
	}
	e.fields = len(all)
	return e, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// readAnswer returns the content that an answer to a read shows. Its errors describe the answer.
func readAnswer(kv int, a vault.Answer) (content, error) {
	switch a.Status {
	case http.StatusOK:
	case http.StatusNotFound:
		return absent(kv, a)
	default:
		return content{}, notVaults(a, "to a read, which Vault never does")
	}
	e, err := openEnvelope(a)
	switch {
	case err != nil:
		return content{}, err
	case len(e.Errors) > 0:
		return content{}, notVaults(a, "with errors in it")
	case isNull(e.Data) && !isNull(e.WrapInfo):
		return content{}, &foreign{"Vault wrapped the answer: does a policy require a wrapping TTL (min_wrapping_ttl) here?"}
	case isNull(e.Data):
		return content{}, notVaults(a, "with no KV data")
	}
	if kv == 1 {
		var fields map[string]any
		if err := outbound.DecodeOne(e.Data, &fields); err != nil {
			return content{}, notVaults(a, "with KV data of another type")
		}
		return content{fields: fields}, nil
	}
	c, err := versioned(a, e.Data)
	if err == nil && c.fields == nil {
		err = &foreign{fmt.Sprintf("Vault answered 200 with version %d, and without its data: was null written there? Write the fields again, or delete this version", c.version)}
	}
	return c, err
}

// absent returns what a 404 means. Vault has two kinds of them for a secret that is not there: one
// with an empty list of errors, and in KV version 2 one with the metadata of a deleted or destroyed version.
func absent(kv int, a vault.Answer) (content, error) {
	e, err := openEnvelope(a)
	switch {
	case err != nil:
		return content{}, err
	case slices.ContainsFunc(e.Errors, func(text string) bool { return strings.Contains(text, "no handler for route") }):
		return content{}, &foreign{"Vault has no mount there (404: no handler for route): is the name of the mount right, and is the mount enabled?"}
	case len(e.Errors) > 0:
		return content{}, &foreign{"Vault answered 404: " + printable.Line(strings.Join(e.Errors, "; "), maxWords)}
	case e.Errors != nil && e.fields == 1:
		return content{}, nil
	case kv == 2 && !isNull(e.Data):
		c, err := versioned(a, e.Data)
		if err == nil && c.fields != nil {
			err = notVaults(a, "with the fields of a secret")
		}
		return c, err
	case len(e.Warnings) > 0:
		return content{}, &foreign{"Vault answered 404: " + printable.Line(strings.Join(e.Warnings, "; "), maxWords)}
	}
	return content{}, notVaults(a, "which is not Vault's own: it does not say that nothing is stored")
}

// versionMetadata is what KV version 2 says about one version.
type versionMetadata struct {
	Version  json.RawMessage `json:"version"` // json.Number would take a string too
	Created  string          `json:"created_time"`
	Deletion string          `json:"deletion_time"`

	Destroyed bool            `json:"destroyed"`
	Custom    json.RawMessage `json:"custom_metadata"`
}

// times returns when the version was written and when it is deleted.
func (m versionMetadata) times() (written, deletes time.Time, err error) {
	for _, t := range []struct {
		name, text string
		into       *time.Time
	}{{"created_time", m.Created, &written}, {"deletion_time", m.Deletion, &deletes}} {
		if t.text == "" {
			continue
		}
		if *t.into, err = time.Parse(time.RFC3339Nano, t.text); err != nil {
			return written, deletes, errors.New("a " + t.name + " that is not a time")
		}
		*t.into = t.into.UTC()
	}
	return written, deletes, nil
}

// versioned decodes the data of an answer of KV version 2. The fields are nil if its data are null.
func versioned(a vault.Answer, raw json.RawMessage) (content, error) {
	var body struct {
		Data     json.RawMessage `json:"data"`
		Metadata json.RawMessage `json:"metadata"`
	}
	if err := json.Unmarshal(raw, &body); err != nil {
		return content{}, notVaults(a, "with KV data of another type")
	}
	if isNull(body.Metadata) {
		return content{}, notVaults(a, "with KV data that have no metadata: is this a KV mount of version 2?")
	}
	var c content
	if !isNull(body.Data) {
		if err := outbound.DecodeOne(body.Data, &c.fields); err != nil {
			return content{}, notVaults(a, "with fields that are not a JSON object")
		}
	}
	about, err := metadataOf(body.Metadata)
	if err != nil {
		return content{}, notVaults(a, "with "+err.Error())
	}
	about.fields = c.fields
	return about, nil
}

// metadataOf decodes a version's metadata, and returns a content without fields. Its errors complete the
// sentence "Vault answered with".
func metadataOf(raw json.RawMessage) (c content, err error) {
	var m versionMetadata
	if err := json.Unmarshal(raw, &m); err != nil {
		return content{}, errors.New("metadata of another form than Vault's")
	}
	c.version, err = strconv.Atoi(string(m.Version))
	if err != nil || c.version < 1 {
		return content{}, errors.New("a version that is not a positive number")
	}
	c.destroyed = m.Destroyed
	_ = json.Unmarshal(m.Custom, &c.custom) // they are for people, and do not make an answer wrong
	c.written, c.deletes, err = m.times()
	return c, err
}

// writeAnswer returns the version that a write created, and when; zero in KV version 1. An error means that
// the answer does not confirm a write. It does not mean that nothing was written.
func writeAnswer(kv int, a vault.Answer) (w written, err error) {
	switch {
	case kv == 1 && a.Status == http.StatusNoContent:
		return written{}, nil
	case kv == 1 && a.Status == http.StatusOK: // with warnings
		_, err := openEnvelope(a)
		return written{}, err
	case a.Status == http.StatusNotFound:
		_, err := absent(kv, a)
		if err == nil {
			err = notVaults(a, "to a write")
		}
		return written{}, err
	case a.Status != http.StatusOK:
		return written{}, notVaults(a, "to a write, which Vault never does")
	}
	e, err := openEnvelope(a)
	switch {
	case err != nil:
		return written{}, err
	case len(e.Errors) > 0:
		return written{}, notVaults(a, "with errors in it")
	case isNull(e.Data):
		return written{}, notVaults(a, "to a write, and named no version")
	}
	about, err := metadataOf(e.Data)
	if err != nil {
		return written{}, notVaults(a, "to a write with "+err.Error())
	}
	return written{version: about.version, written: about.written}, nil
}
