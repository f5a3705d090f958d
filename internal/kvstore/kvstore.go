// Package kvstore keeps entries below a prefix of a KV mount of version 2, for several processes at once.
//
// Guarantees:
//
//   - Every write is check-and-set: it replaces exactly the version that its writer has read, or nothing is written.
//   - A write whose answer is lost is read back. So [Store.Put] either knows what happened or returns an error that says
//     that it does not; it never takes another writer's entry for its own.
//   - An entry that was deleted, destroyed or is not readable is an error with advice. It is never taken for a
//     place where nothing was written yet.
//   - The time of an entry is Vault's own, and not that of a client.
//
// A standby of Vault Enterprise may answer a read from an older state. Check-and-set then refuses the write that follows.
package kvstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"rotatord/internal/moment"
	"rotatord/internal/printable"
	"rotatord/internal/vault"
)

// KV is what a user of entries needs. [Store] is one; a fake for tests is in package kvtest.
type KV interface {
	// Get returns an entry. If nothing was ever written there, its Version is 0.
	Get(ctx context.Context, path string) (Entry, error)
	// Put writes an entry if its version is still that one (0: if there is none), and returns it as it is stored. data
	// becomes a JSON object, in which a number is a float64: it is exact up to 1<<53. ErrConflict is in the error if the entry has another version, and nothing is
	// written then. After any other error the entry may or may not be written.
	Put(ctx context.Context, path string, data any, version int) (Entry, error)
	// List returns the names directly below a path, sorted, without directories. Names may belong to entries that
	// are deleted.
	List(ctx context.Context, dir string) ([]string, error)
	// Limit has Vault keep only so many versions of an entry.
	Limit(ctx context.Context, path string, versions int) error
	// Remove removes an entry with all its versions. Removing nothing returns nil.
	Remove(ctx context.Context, path string) error
	// At returns an entry's place as the vault command takes it, for people: -mount=secret rotatord/tokens/ci.
	At(path string) string
}

// Never is a version for Put that no entry has. Vault answers ErrConflict only after it has found that the write would be
// allowed.
const Never = -1

// Entry is one version of an entry.
type Entry struct {
	Data      json.RawMessage // a JSON object; nil if Version is 0
	Version   int             // 0: nothing was ever written
	CreatedAt time.Time       // by Vault's clock
}

// Decode decodes the entry. Its error says where the entry is.
func (e Entry) Decode(path string, into any) error {
	if err := json.Unmarshal(e.Data, into); err != nil {
		return fmt.Errorf("%s (version %d) is not what rotatord writes there: %w", path, e.Version, err)
	}
	return nil
}

var (
	// ErrConflict is in the error of Put if the entry has another version.
	ErrConflict = errors.New("the entry was changed by another writer")
	// ErrDeleted is in the error about an entry whose current version is deleted or destroyed.
	ErrDeleted = errors.New("was deleted")
)

// maxEntry is the largest entry that is written, in bytes. Vault's integrated storage takes 1 MiB by default.
const maxEntry = 512 << 10

// Put reads back after a lost answer for readBackTime at most, with growing pauses: another node of Vault leads after
// a few seconds. After the end of its context, which may be why the answer was lost, it does so for lateReadBackTime.
const (
	readBackTime      = 5 * time.Second
	lateReadBackTime  = 2 * time.Second
	firstReadBackWait = 50 * time.Millisecond
	lastReadBackWait  = time.Second
)

// Store is a KV over one session with Vault.
type Store struct {
	session       *vault.Session
	mount, prefix string
}

var _ KV = (*Store)(nil)

// New returns the entries below a prefix of a mount.
func New(session *vault.Session, mount, prefix string) *Store {
	return &Store{session: session, mount: mount, prefix: prefix}
}

// Path returns the path of an entry as the vault command has it, for people.
func (s *Store) Path(path string) string { return s.mount + "/" + s.prefix + "/" + path }

// At implements [KV].
func (s *Store) At(path string) string { return "-mount=" + s.mount + " " + s.prefix + "/" + path }

func (s *Store) data(path string) string { return s.mount + "/data/" + s.prefix + "/" + path }
func (s *Store) metadata(path string) string {
	return s.mount + "/metadata/" + strings.TrimSuffix(s.prefix+"/"+path, "/")
}

// Get implements [KV].
func (s *Store) Get(ctx context.Context, path string) (Entry, error) {
	if err := s.ready(ctx); err != nil {
		return Entry{}, err
	}
	answer, err := s.session.Read(ctx, s.data(path))
	if err != nil {
		return Entry{}, fmt.Errorf("reading %s: %w", s.Path(path), err)
	}
	if answer == nil {
		return Entry{}, nil
	}
	e, err := entryFrom(answer.Data)
	switch {
	case err != nil:
		return Entry{}, fmt.Errorf("reading %s: %w: is %s a KV mount of version 2?", s.Path(path), err, s.mount)
	case e.Data == nil:
		return Entry{}, s.deleted(path, e.Version, answer.Data)
	}
	return e, nil
}

// deleted returns the error about an entry whose current version has no content.
func (s *Store) deleted(path string, version int, answer map[string]any) error {
	about, _ := answer["metadata"].(map[string]any)
	if destroyed, _ := about["destroyed"].(bool); destroyed {
		return fmt.Errorf("%s: version %d %w and destroyed. It cannot be brought back: vault kv rollback -version=%d %s takes the version before it, if Vault still has that",
			s.Path(path), version, ErrDeleted, version-1, s.At(path))
	}
	return fmt.Errorf("%s: version %d %w, by a person, a program or delete_version_after. Bring it back: vault kv undelete -versions=%d %s",
		s.Path(path), version, ErrDeleted, version, s.At(path))
}

// Put implements [KV].
func (s *Store) Put(ctx context.Context, path string, data any, version int) (Entry, error) {
	object, content, err := objectOf(data)
	if err != nil {
		return Entry{}, fmt.Errorf("writing %s: %w", s.Path(path), err)
	}
	if len(content) > maxEntry {
		return Entry{}, fmt.Errorf("writing %s: it has %d bytes, and %d is the most that Vault's storage takes safely", s.Path(path), len(content), maxEntry)
	}
	if err := s.ready(ctx); err != nil {
		return Entry{}, err
	}
	written, err := s.write(ctx, path, object, version)
	conflict := isConflict(err)
	switch {
	case err == nil && (written.Version == version+1 || version == Never):
		written.Data = content
		return written, nil
	case err == nil:
		err = fmt.Errorf("the answer says that version %d was written against version %d", written.Version, version)
	case conflict && version == Never:
		return Entry{}, fmt.Errorf("writing %s: %w", s.Path(path), ErrConflict)
	case version == Never || notCarriedOut(err) && !conflict:
		return Entry{}, fmt.Errorf("writing %s: %w", s.Path(path), err)
	}
	// The answer is lost, or a conflict that may come from a proxy that has repeated our request: what is there decides.
	now, readErr := s.readBack(ctx, path)
	switch {
	case readErr != nil:
		return Entry{}, fmt.Errorf("writing %s: %w; it is not known whether it was written: %w", s.Path(path), err, readErr)
	case now.Version == version+1 && bytes.Equal(now.Data, content):
		return now, nil
	case conflict || now.Version != version:
		return Entry{}, fmt.Errorf("writing %s: %w (it has version %d, and not %d)", s.Path(path), ErrConflict, now.Version, version)
	}
	// The request may still be under way.
	return Entry{}, fmt.Errorf("writing %s: %w", s.Path(path), err)
}

// write sends one write, and returns what its answer says.
func (s *Store) write(ctx context.Context, path string, object map[string]any, version int) (Entry, error) {
	answer, err := s.session.Write(ctx, s.data(path), map[string]any{"data": object, "options": map[string]any{"cas": version}})
	if err != nil {
		return Entry{}, err
	}
	if answer == nil {
		return Entry{}, errors.New("the answer names no version")
	}
	return metadataFrom(answer.Data)
}

// isConflict reports whether Vault's check-and-set has refused a write.
func isConflict(err error) bool {
	refused, ok := errors.AsType[*vault.ResponseError](err)
	return ok && !refused.Foreign && refused.Status == http.StatusBadRequest && strings.Contains(err.Error(), "check-and-set parameter did not match")
}

// notCarriedOut reports whether an error says that Vault has refused a write, or that it was never sent. After any other
// error the write may have been carried out. From 500 on, Vault may have failed after it had written.
func notCarriedOut(err error) bool {
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return true
	}
	refused, ok := errors.AsType[*vault.ResponseError](err)
	return ok && !refused.Foreign && refused.Status < 500 && refused.Status != http.StatusPreconditionFailed
}

// readBack reads an entry after a write whose answer was lost, until Vault answers.
func (s *Store) readBack(ctx context.Context, path string) (e Entry, err error) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), readBackTime)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lateReadBackTime, cancel) })()
	for wait := firstReadBackWait; ; wait = min(2*wait, lastReadBackWait) {
		e, err = s.Get(bounded, path)
		if err == nil || errors.Is(err, ErrDeleted) {
			return e, err
		}
		if moment.Sleep(bounded, wait) != nil {
			return e, err
		}
	}
}

// DeletesAfter returns after how long Vault itself deletes what is written below the prefix (delete_version_after of the
// mount); 0 if it does not. known is false if the policy does not allow the question.
func (s *Store) DeletesAfter(ctx context.Context) (after time.Duration, known bool) {
	return s.session.MountDeletesAfter(ctx, s.mount)
}

// List implements [KV].
func (s *Store) List(ctx context.Context, dir string) ([]string, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	answer, err := s.session.List(ctx, s.metadata(dir))
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", s.Path(dir), err)
	}
	if answer == nil {
		return nil, nil
	}
	keys, ok := answer.Data["keys"].([]any)
	if !ok {
		return nil, fmt.Errorf("listing %s: the answer has no list of keys: is %s a KV mount of version 2?", s.Path(dir), s.mount)
	}
	names := make([]string, 0, len(keys))
	for _, key := range keys {
		name, ok := key.(string)
		if !ok {
			return nil, fmt.Errorf("listing %s: a key is not a text", s.Path(dir))
		}
		if name != "" && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	return names, nil
}

// Limit implements [KV].
func (s *Store) Limit(ctx context.Context, path string, versions int) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	if _, err := s.session.Write(ctx, s.metadata(path), map[string]any{"max_versions": versions}); err != nil {
		return fmt.Errorf("limiting the versions of %s: %w", s.Path(path), err)
	}
	return nil
}

// Remove implements [KV].
func (s *Store) Remove(ctx context.Context, path string) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	if err := s.session.Delete(ctx, s.metadata(path)); err != nil {
		return fmt.Errorf("removing %s: %w", s.Path(path), err)
	}
	return nil
}

func (s *Store) ready(ctx context.Context) error {
	if err := s.session.Ready(ctx, 0); err != nil {
		return fmt.Errorf("the shared store in Vault (%s/%s): %w", s.mount, s.prefix, err)
	}
	return nil
}

// objectOf returns data as the object that is written, and as the JSON that Get returns for it.
func objectOf(data any) (object map[string]any, content json.RawMessage, err error) {
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(raw, &object); err != nil || object == nil { // numbers become float64, as in Vault
		return nil, nil, errors.New("an entry must be a JSON object")
	}
	content, err = json.Marshal(object)
	return object, content, err
}

// entryFrom decodes the data of an answer to a read. Data is nil if the version has no content.
func entryFrom(answer map[string]any) (Entry, error) {
	about, ok := answer["metadata"].(map[string]any)
	if !ok {
		return Entry{}, errors.New("the answer has no metadata")
	}
	e, err := metadataFrom(about)
	if err != nil {
		return Entry{}, err
	}
	switch data := answer["data"].(type) {
	case nil:
	case map[string]any:
		if e.Data, err = json.Marshal(data); err != nil {
			return Entry{}, errors.New("the answer cannot be read")
		}
	default:
		return Entry{}, errors.New("the answer has data that are not an object")
	}
	return e, nil
}

// metadataFrom decodes what Vault says of a version.
func metadataFrom(about map[string]any) (e Entry, err error) {
	number, ok := about["version"].(json.Number)
	version, err := number.Int64()
	if !ok || err != nil || version < 1 || version > 1<<53 {
		return Entry{}, errors.New("the answer has no version")
	}
	text, _ := about["created_time"].(string)
	created, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return Entry{}, fmt.Errorf("the answer has the created_time %q", printable.Line(text, 60))
	}
	return Entry{Version: int(version), CreatedAt: created.UTC()}, nil
}
