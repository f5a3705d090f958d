package shared

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"rotatord/internal/kvstore"
	"rotatord/internal/rotation"
)

// This file defines the layout below the prefix. Its entries are
//
//	tokens/<token>        one record
//	pauses                what is paused
//	pending/<rotation>    a copy of a sealed answer

// Format is the version of the layout of an entry that this code writes. An entry of a newer version is refused.
// The record in an entry has a format of its own: see [rotation.RecordFormat].
const Format = 1

const (
	dirTokens  = "tokens"
	dirPending = "pending"
	pathPauses = "pauses"
)

// pathOf returns the path of a token's entry. A name in the configuration may have two dots in a row, which Vault may
// refuse in a path. No name has a tilde.
func pathOf(token string) string {
	for strings.Contains(token, "..") {
		token = strings.Replace(token, "..", ".~", 1)
	}
	return dirTokens + "/" + token
}

// tokenAt returns the token of an entry's name.
func tokenAt(name string) string { return strings.ReplaceAll(name, "~", ".") }

// envelope is the content of a record's entry.
type envelope struct {
	Format int `json:"format"`
	// By is the process that wrote it. Two replicas that would save the same record write different entries, so
	// that one of them gets a conflict. A process that repeats a save whose outcome it does not know writes the
	// same entry, which counts once.
	By     string          `json:"by"`
	Record rotation.Record `json:"record"`
}

// found is an envelope as it is read.
type found struct {
	Format json.RawMessage `json:"format"`
	Record json.RawMessage `json:"record"`
	// Accept is the revision of a record that was written in another version of the entry, after a person has decided
	// that it is the latest state: see [rolledBack].
	Accept json.RawMessage `json:"accept"`
}

// checkFormat refuses a format of an entry that this code does not know.
func checkFormat(raw json.RawMessage) error {
	format, err := strconv.Atoi(string(raw))
	switch {
	case err != nil || format < 1:
		return errors.New("it has no format version")
	case format > Format:
		return &newerError{format, Format}
	}
	return nil
}

// newerError is about an entry that a newer rotatord has written.
type newerError struct{ format, known int }

func (e *newerError) Error() string {
	return fmt.Sprintf("it has format version %d and this rotatord reads up to %d: a newer rotatord wrote it. Update this replica; until then it changes nothing there", e.format, e.known)
}

// decodeRecord returns the record in an entry that exists.
func decodeRecord(at, token string, e kvstore.Entry) (rotation.Record, error) {
	r, err := recordIn(token, e)
	if err == nil {
		return r, nil
	}
	what := fmt.Errorf("the record of %s in Vault (%s, version %d) cannot be used: %w", token, at, e.Version, err)
	if _, newer := errors.AsType[*newerError](err); newer {
		return rotation.Record{}, what
	}
	if back, ok := errors.AsType[*rolledBack](err); ok {
		return rotation.Record{}, fmt.Errorf("%w. Pause the token and find the latest state (vault kv get -version=N %s). When version %d has it, say so: vault kv patch -cas=%d %s accept=%d",
			what, at, e.Version, e.Version, at, back.revision)
	}
	if e.Version == 1 {
		return rotation.Record{}, fmt.Errorf("%w. Something else than rotatord wrote it: is the prefix also used by another program? If the token was never rotated by these replicas, remove it: vault kv metadata delete %s", what, at)
	}
	return rotation.Record{}, fmt.Errorf("%w. Something else than rotatord wrote it. Put back the version before it, and say that it is the latest state: vault kv rollback -version=%d %s && vault kv patch -cas=%d %s accept=%d",
		what, e.Version-1, at, e.Version+1, at, e.Version-1)
}

// rolledBack is about a record that was written as another version than the one that holds it: an older version was
// written again, for example by vault kv rollback. What it says may be old, and a slot would be rotated twice.
type rolledBack struct{ revision uint64 }

func (e *rolledBack) Error() string {
	return fmt.Sprintf("it holds the record of version %d: an older version was put back, or the entry was copied", e.revision)
}

func recordIn(token string, e kvstore.Entry) (r rotation.Record, err error) {
	var f found
	if err := json.Unmarshal(e.Data, &f); err != nil {
		return r, errors.New("it is not an entry of a ledger")
	}
	if err := checkFormat(f.Format); err != nil {
		return r, err
	}
	var about struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(f.Record, &about); err != nil {
		return r, errors.New("it has no record")
	}
	if about.Format > rotation.RecordFormat { // before the rest is decoded, which may have other types there
		return r, &newerError{about.Format, rotation.RecordFormat}
	}
	if err := json.Unmarshal(f.Record, &r); err != nil {
		return r, fmt.Errorf("its record cannot be read: %w", err)
	}
	switch {
	case about.Format < 1:
		return r, errors.New("its record has no format version")
	case r.Token != token:
		return r, fmt.Errorf("it holds the record of %q", r.Token)
	case r.Revision != uint64(e.Version) && strings.Trim(string(f.Accept), `"`) != strconv.FormatUint(r.Revision, 10):
		return r, &rolledBack{r.Revision}
	}
	r.Revision = uint64(e.Version)
	return rotation.Migrate(r), nil
}
