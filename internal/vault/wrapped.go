package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/printable"
	"rotatord/internal/secret"
)

// A Keeper keeps one secret where a restart of the daemon does not lose it.
type Keeper interface {
	// Keep replaces what is kept. When it returns nil, the secret survives a crash, and is readable for the daemon
	// alone.
	Keep(secret.Value) error
	// Kept returns what is kept, and the zero Value if there is nothing.
	Kept() (secret.Value, error)
}

// KeepIn says where an unwrapped secret ID is kept. Call it before Run. Without it no wrapping token is unwrapped: the
// secret ID would be lost with the process.
func (s *Session) KeepIn(k Keeper) {
	if a, ok := s.login.(*appRoleAuth); ok && a.wrapped != nil {
		a.wrapped.keeper = k
	}
}

// wrappedID is a secret ID that is delivered by a wrapping token (approle with wrapped: true).
//
// A wrapping token is good for one unwrapping. So the secret ID that comes out is kept sealed in the state directory: a
// restart at night must not need an operator. That a wrapping token is unwrapped is written down before it is done. After
// a crash in between, the token is found invalid, and the error says that it may have been the daemon itself.
type wrappedID struct {
	source  config.SecretSource
	mount   string
	address string
	tell    func(event.Detail)
	keeper  Keeper // nil: nothing is unwrapped

	alarmed unwrapAlarm

	mu      sync.Mutex // held while Vault is asked
	loaded  bool
	kept    kept
	last    keptID // what the last login used
	unsaved bool   // kept is not on the disk
}

// unwrapAlarm is why a wrapping token cannot be used. It has a lock of its own, so that status and metrics never wait for
// Vault.
type unwrapAlarm struct {
	mu      sync.Mutex
	token   secret.Digest // of the wrapping token
	failure *UnwrapError  // nil if there is none
	since   time.Time
}

// raise sets the alarm, and reports whether it is another one than before.
func (a *unwrapAlarm) raise(token secret.Digest, failure *UnwrapError, since time.Time) (news bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if news = a.failure == nil || a.token != token; news {
		a.since = since
	}
	a.token, a.failure = token, failure
	return news
}

// end ends the alarm. With a token it ends only the alarm about that one.
func (a *unwrapAlarm) end(token secret.Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if token == "" || token == a.token {
		a.token, a.failure = "", nil
	}
}

// about returns why that token cannot be used; nil if there is no alarm about it.
func (a *unwrapAlarm) about(token secret.Digest) *UnwrapError {
	a.mu.Lock()
	defer a.mu.Unlock()
	if token != a.token {
		return nil
	}
	return a.failure
}

// keptID is one secret ID. Only in what is kept it is marshalled.
type keptID struct {
	SecretID string    `json:"secret_id,omitempty"`
	Role     string    `json:"role,omitempty"` // that the wrapping token was created for
	At       time.Time `json:"unwrapped_at,omitzero"`
	Ends     time.Time `json:"ends,omitzero"` // zero if it does not end
	// From is the digest of the wrapping token that SecretID came from.
	From string `json:"from,omitempty"`
}

// kept is what is kept: the secret ID that is used, and beside it the one that was delivered after that. The later one
// takes the place of the other when a login with it has succeeded.
type kept struct {
	keptID
	// LoggedInAs is the role that Vault has named after a login, and RoleID is the digest of the role ID of that login.
	LoggedInAs string  `json:"logged_in_as,omitempty"`
	RoleID     string  `json:"role_id_digest,omitempty"`
	Next       *keptID `json:"next,omitempty"`
	// Refused is why Vault refused Next, and RefusedAt when; empty while no login with it was refused.
	Refused   string    `json:"refused,omitempty"`
	RefusedAt time.Time `json:"refused_at,omitzero"`
	// Begun is the digest of the wrapping token that was about to be unwrapped at BegunAt.
	Begun   string    `json:"begun,omitempty"`
	BegunAt time.Time `json:"begun_at,omitzero"`
}

// candidates returns the secret IDs in the order in which a login tries them.
func (k *kept) candidates() []keptID {
	switch {
	case k.Next == nil:
		return []keptID{k.keptID}
	case k.Refused != "":
		return []keptID{k.keptID, *k.Next}
	}
	return []keptID{*k.Next, k.keptID}
}

// knows reports whether a wrapping token was unwrapped already.
func (k *kept) knows(digest string) bool {
	return digest == k.From || k.Next != nil && digest == k.Next.From
}

// UnwrapError says that a wrapping token cannot be unwrapped, and that another program may have done so.
type UnwrapError struct{ what string }

// Error implements error.
func (e *UnwrapError) Error() string { return e.what }

// Cause implements rotation.Cause: the label in metrics.
func (e *UnwrapError) Cause() string { return "unwrap_refused" }

// deliver says how an operator delivers another wrapping token.
func (w *wrappedID) deliver() string {
	return fmt.Sprintf("deliver another one: vault write -field=wrapping_token -wrap-ttl=10m -f auth/%s/role/ROLE/secret-id, into %s", w.mount, w.source)
}

// get returns the secret IDs that a login should try, the first one first. It unwraps a wrapping token that was not there
// before. roleID is the digest of the role ID.
func (w *wrappedID) get(ctx context.Context, roleID secret.Digest, credentials *credentials, library *api.Client) ([]keptID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.keeper == nil {
		return nil, &describedError{text: "vault.auth.approle.wrapped: only the daemon unwraps the secret_id, because that is possible once"}
	}
	if err := w.load(); err != nil {
		return nil, err
	}
	w.save()
	token, err := credentials.get(ctx, "vault.auth.approle.secret_id", w.source, config.WrappingToken)
	switch {
	case err != nil && w.kept.SecretID == "":
		return nil, &describedError{text: err.Error() + "; no secret ID was unwrapped before: " + w.deliver(), cause: err}
	case err != nil, w.kept.knows(string(token.Digest())):
		return w.kept.candidates(), nil // the file may be removed after the unwrapping
	default:
		if known := w.alarmed.about(token.Digest()); known != nil {
			err = known
		} else {
			err = w.unwrap(ctx, token, roleID, library)
		}
	}
	if failure, ok := errors.AsType[*UnwrapError](err); ok {
		w.alarm(token.Digest(), failure, time.Now())
		if w.kept.SecretID != "" {
			return w.kept.candidates(), nil // the alarm goes on, and the kept secret ID is not affected
		}
	}
	if err != nil {
		return nil, err
	}
	return w.kept.candidates(), nil
}

// alarm notes why a wrapping token cannot be used, and tells it once.
func (w *wrappedID) alarm(token secret.Digest, failure *UnwrapError, since time.Time) {
	if w.alarmed.raise(token, failure, since) {
		w.tell(event.VaultUnwrap{Vault: w.address, Err: failure})
	}
}

// accepted notes that a login with one succeeded, as a role that is empty if Vault did not name it. What was delivered
// before one is dropped.
func (w *wrappedID) accepted(one keptID, role string, roleID secret.Digest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	after := w.kept
	if after.Next != nil && after.Next.From == one.From {
		after.keptID, after.Next, after.Refused, after.RefusedAt = one, nil, "", time.Time{}
		w.alarmed.end(secret.Digest(one.From))
	}
	if role != "" {
		after.LoggedInAs, after.RoleID = role, string(roleID)
	}
	w.last = one
	w.store(after)
}

// refuse notes that Vault refused a login with one. If it was delivered beside another one, that is an alarm.
func (w *wrappedID) refuse(one keptID, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = one
	if w.kept.Next == nil || w.kept.Next.From != one.From {
		return
	}
	after := w.kept
	if after.Refused == "" {
		after.Refused = printable.Line(fmt.Sprintf("the secret ID that was delivered by the wrapping token in %s was refused (%s). Its wrapping token was created for the role %q, "+
			"and the role_id may be of another role. The secret ID of before stays in use: %s", w.source, err, printable.Line(one.Role, maxClaim), w.deliver()), maxText)
		after.RefusedAt = time.Now().UTC()
		w.store(after)
	}
	w.alarm(secret.Digest(one.From), &UnwrapError{after.Refused}, after.RefusedAt)
}

// store keeps what has changed. If the disk fails, it is in memory and is saved later.
func (w *wrappedID) store(after kept) {
	if reflect.DeepEqual(after, w.kept) {
		return
	}
	w.kept = after
	if err := w.keep(after); err != nil {
		if !w.unsaved {
			w.tell(event.VaultSecretIDNotKept{Vault: w.address, Err: err})
		}
		w.unsaved = true
		return
	}
	w.unsaved = false
}

// load reads what is kept, once.
func (w *wrappedID) load() error {
	if w.loaded {
		return nil
	}
	content, err := w.keeper.Kept()
	if err == nil && !content.IsZero() && json.Unmarshal([]byte(content.Reveal()), &w.kept) != nil {
		err = errors.New("it is not in the format of this version") // the decoder's error may quote the secret
	}
	if err != nil {
		// Without it the token in the file could be taken for one that was stolen. So nothing is unwrapped.
		return &describedError{text: "reading the secret ID that is kept in the state directory: " + err.Error() + ". If it cannot be repaired, remove the file and " + w.deliver(), cause: err}
	}
	w.loaded = true
	if w.kept.Next != nil && w.kept.Refused != "" {
		w.alarm(secret.Digest(w.kept.Next.From), &UnwrapError{w.kept.Refused}, w.kept.RefusedAt)
	}
	return nil
}

// save writes what is kept, if that failed before.
func (w *wrappedID) save() {
	if !w.unsaved {
		return
	}
	if err := w.keep(w.kept); err == nil {
		w.unsaved = false
	}
}

func (w *wrappedID) keep(k kept) error {
	content, err := json.Marshal(k)
	if err != nil {
		return errors.New("it cannot be written as JSON")
	}
	return w.keeper.Keep(secret.New(string(content)))
}

// secretIDPath is the only kind of path at which a wrapping token for a secret ID is created.
var secretIDPath = regexp.MustCompile(`^auth/(.+)/role/([^/]+)/secret-id$`)

// unwrap takes the secret ID out of a wrapping token.
func (w *wrappedID) unwrap(ctx context.Context, token secret.Value, roleID secret.Digest, library *api.Client) error {
	digest := string(token.Digest())
	info, err := library.Logical().WriteWithContext(ctx, pathWrapInfo, map[string]any{"token": token.Reveal()})
	if err = plain(err); err != nil {
		return w.classify(err, digest)
	}
	path, _ := fieldOf(info, "creation_path").(string)
	found := secretIDPath.FindStringSubmatch(path)
	if found == nil || found[1] != w.mount {
		return &UnwrapError{fmt.Sprintf("the wrapping token in %s was created at %q and not at auth/%s/role/ROLE/secret-id, so it is not unwrapped: another program may have replaced it. Find out who wrote it; %s",
			w.source, printable.Line(path, maxClaim), w.mount, w.deliver())}
	}
	if known := w.kept.LoggedInAs; known != "" && w.kept.RoleID == string(roleID) && !strings.EqualFold(found[2], known) {
		return &UnwrapError{fmt.Sprintf("the wrapping token in %s was created for the role %q, and this daemon logs in as the role %q, so it is not unwrapped. The secret ID of before stays in use: deliver one of the right role: "+
			"vault write -field=wrapping_token -wrap-ttl=10m -f auth/%s/role/%s/secret-id, into %s", w.source, printable.Line(found[2], maxClaim), known, w.mount, known, w.source)}
	}
	begun := w.kept
	begun.Begun, begun.BegunAt = digest, time.Now().UTC()
	if err := w.keep(begun); err != nil {
		return &describedError{text: "the state directory cannot be written, so the wrapping token is not unwrapped yet: " + err.Error(), cause: err}
	}
	w.kept = begun
	library.SetToken(token.Reveal())
	answer, err := library.Logical().WriteWithContext(ctx, pathUnwrap, nil)
	library.ClearToken()
	if err = plain(err); err != nil {
		return w.classify(err, digest)
	}
	id, _ := fieldOf(answer, "secret_id").(string)
	if id == "" {
		return &UnwrapError{"what was in the wrapping token in " + w.source.String() + " has no secret_id: " + w.deliver()}
	}
	unwrapped := keptID{SecretID: id, Role: found[2], At: time.Now().UTC(), From: digest}
	if ttl, err := seconds(answer.Data, "secret_id_ttl"); err == nil && ttl > 0 {
		unwrapped.Ends = unwrapped.At.Add(ttl)
	}
	w.alarmed.end("")
	after := w.kept
	after.Begun, after.BegunAt, after.Refused, after.RefusedAt = "", time.Time{}, "", time.Time{}
	if after.SecretID == "" {
		after.keptID = unwrapped
	} else {
		after.Next = &unwrapped // the one before is dropped when a login with this one has succeeded
	}
	w.store(after)
	w.tell(event.VaultUnwrap{Vault: w.address, Role: found[2], SecretIDEnds: unwrapped.Ends})
	return nil
}

func fieldOf(a *api.Secret, name string) any {
	if a == nil {
		return nil
	}
	return a.Data[name]
}

// classify says what a failed request about a wrapping token means. If Vault does not know the token, it was unwrapped, or
// has ended.
func (w *wrappedID) classify(err error, digest string) error {
	e, ok := errors.AsType[*ResponseError](err)
	if !ok || e.Foreign || e.Status != http.StatusBadRequest && e.Status != http.StatusForbidden && e.Status != http.StatusNotFound {
		return err // whether it was unwrapped is not known: the next try asks first
	}
	text := fmt.Sprintf("the wrapping token in %s is not valid any more (%s): it has ended, or another program has unwrapped it and has the secret ID", w.source, err)
	if w.kept.Begun == digest {
		text += fmt.Sprintf(", or the answer to the daemon's own unwrapping at %s was lost", w.kept.BegunAt.Format(timeLayout))
	}
	return &UnwrapError{printable.Line(text+". Destroy the secret ID (the runbook has the commands), and "+w.deliver(), maxText)}
}

// saveIfNeeded saves what could not be saved before.
func (w *wrappedID) saveIfNeeded() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.save()
}

// fault returns why the wrapping token that was delivered last cannot be unwrapped, and since when; empty if it could be.
func (w *wrappedID) fault() (why string, since time.Time) {
	w.alarmed.mu.Lock()
	defer w.alarmed.mu.Unlock()
	if w.alarmed.failure == nil {
		return "", time.Time{}
	}
	return w.alarmed.failure.Error(), w.alarmed.since
}

// describe says which secret ID was used.
func (w *wrappedID) describe() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := fmt.Sprintf("the secret ID is the one that was unwrapped at %s", w.last.At.Format(timeLayout))
	if w.last.Role != "" {
		text += fmt.Sprintf(", its wrapping token was created for the role %q", printable.Line(w.last.Role, maxClaim))
	}
	if !w.last.Ends.IsZero() {
		text += ", and it ends at " + w.last.Ends.Format(timeLayout)
	}
	return text + "; it may have ended, have no uses left, or be destroyed: " + w.deliver()
}
