package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/secret"
)

// Issuer issues client secrets: one Cloudflare account. Implementations are safe for concurrent use. Every
// error of theirs is, or wraps, an [*IssuerError], except when the context ended before anything was sent.
type Issuer interface {
	// Ready returns nil if a rotate request could leave now: the credential can be
	// read, the account is not throttled, the request budget allows it, and the issuer's
	// clock is known. It may wait for the budget within ctx, and may read once for the
	// clock; it changes nothing. If the local clock is so far from the issuer's that
	// slots mean nothing, and only that is wrong, ErrClock is in the error.
	Ready(ctx context.Context) error
	// Inspect reads a service token's public facts. It changes nothing and may be
	// repeated.
	Inspect(ctx context.Context, tokenID string) (TokenFacts, error)
	// Rotate sends exactly one rotate request, never a second, whatever happens to
	// the first. The caller's ctx bounds how long the answer is waited for.
	Rotate(ctx context.Context, req RotateRequest) (Issued, error)
	// SetGrace moves the end of the previous secret's validity to grace from now, counted on
	// the issuer's clock, and issues nothing; 0 revokes that secret at once. It returns the
	// new end on the local clock and the facts after it. It may be repeated.
	SetGrace(ctx context.Context, tokenID string, grace time.Duration) (TokenFacts, time.Time, error)
}

// Creator creates and deletes service tokens. An account that can rotate may not be able to create,
// and the reverse: a zone's service tokens can only be replaced. Contexts and errors are as for
// [Issuer], whose Ready admits the requests.
type Creator interface {
	// Find returns all service tokens of exactly that name, which need not be unique. It
	// changes nothing and may be repeated.
	Find(ctx context.Context, name string) ([]TokenFacts, error)
	// Create sends exactly one create request, never a second, as Rotate does. The answer's
	// Facts have the ID of the new service token, which has no previous secret.
	Create(ctx context.Context, req CreateRequest) (Issued, error)
	// Delete removes a service token. It may be repeated: deleting one that is gone returns nil. If a
	// policy still names the token, ErrInUse is in the error.
	Delete(ctx context.Context, tokenID string) error
}

// CreateRequest asks for a new service token.
type CreateRequest struct {
	Name     string
	Duration string // a Go duration or "forever"; empty for the issuer's own default, a year
}

// ErrInUse is in the error of Creator.Delete if a policy names the service token.
var ErrInUse = errors.New("a policy still names the service token")

// ErrGone is in the error of an Issuer if there is no service token of that ID.
var ErrGone = errors.New("there is no such service token")

// Renewer gives service tokens, not their secrets, more time.
type Renewer interface {
	// Renew lets the service token live for duration from now, or for a year if duration is
	// empty. Its secrets stay as they are. It returns the facts after it, and may be repeated.
	Renew(ctx context.Context, tokenID, duration string) (TokenFacts, error)
}

// Prober tries a credential where consumers will use it. It is bound to one token, safe for
// concurrent use, and never puts a secret into an error.
type Prober interface {
	// Probe sends one request and says what it proves. err says why it proves nothing, or what was
	// answered; it is nil only for ProbeGood.
	Probe(ctx context.Context, c Credential) (Probe, error)
}

// Probe is what one request with a credential proves about it.
type Probe int

// What a probe proves.
const (
	ProbeUnknown Probe = iota // nothing: no answer, a redirect to a login, a failing application
	ProbeGood                 // the credential is accepted
	ProbeBad                  // the credential is refused, maybe only until the edge knows it
)

// Result returns the probe as events and metrics show it.
func (p Probe) Result() event.ProbeResult {
	switch p {
	case ProbeGood:
		return event.ProbeGood
	case ProbeBad:
		return event.ProbeBad
	default:
		return event.ProbeUnknown
	}
}

// RotateRequest asks for a new client secret.
type RotateRequest struct {
	TokenID string
	// ClientID is the client ID of the service token. It helps to find the secret in an answer that is not
	// as documented. Empty if it is not known.
	ClientID string
	// Grace is how long the previous secret stays valid, counted on the issuer's
	// clock. 0 revokes it at once.
	Grace time.Duration
}

// TokenFacts are what Cloudflare shows of a service token. None is secret. A time
// that Cloudflare did not send is zero.
type TokenFacts struct {
	ID         string    `json:"id,omitempty"`
	ClientID   string    `json:"client_id,omitempty"`
	Name       string    `json:"name,omitempty"`
	Enabled    bool      `json:"enabled,omitempty"`
	Duration   string    `json:"duration,omitempty"` // a Go duration or "forever"
	CreatedAt  time.Time `json:"created_at,omitzero"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"` // end of the token itself; zero for "forever"
	UpdatedAt  time.Time `json:"updated_at,omitzero"`
	LastSeenAt time.Time `json:"last_seen_at,omitzero"`
}

// updatedBy returns f with what a rotate answer shows. Such an answer shows less than a
// listing: it does not say whether the token is enabled.
func (f TokenFacts) updatedBy(answer TokenFacts) TokenFacts {
	f.ID, f.ClientID, f.Name = cmp.Or(answer.ID, f.ID), cmp.Or(answer.ClientID, f.ClientID), cmp.Or(answer.Name, f.Name)
	if !answer.ExpiresAt.IsZero() {
		f.ExpiresAt = answer.ExpiresAt
	}
	if !answer.UpdatedAt.IsZero() {
		f.UpdatedAt = answer.UpdatedAt
	}
	if !answer.CreatedAt.IsZero() {
		f.CreatedAt = answer.CreatedAt
	}
	f.Duration = cmp.Or(answer.Duration, f.Duration)
	return f
}

// Issued is the answer to a rotate request.
type Issued struct {
	Credential
	// Facts as the answer shows them: it shows no Enabled, and maybe no ExpiresAt.
	Facts TokenFacts
	// GraceEndsAt is until when the previous secret may still work, on the local clock. Code that waits
	// for the end of that secret waits until this time. It is never earlier than the request plus the
	// whole grace that was asked for. Zero if the previous secret was revoked at once.
	GraceEndsAt time.Time
	// Objection says what is wrong with an answer that shows a complete secret, such as a status of
	// 500. It is sealed with the secret, so that a process which finds it after a crash decides the
	// same. Empty if nothing is wrong.
	Objection string
	// Others are more client secrets that the answer shows. They are sealed with it, in case the
	// one that was chosen is wrong. ClientID is empty where the answer shows none beside the secret.
	Others []Credential
}

// Credential is what a client of Access needs.
type Credential struct {
	ClientID     string
	ClientSecret secret.Value
}

// Class says what is known about whether a failed request was carried out.
type Class int

const (
	// Unknown: the request may or may not have been carried out.
	Unknown Class = iota
	// NotCarriedOut: it cannot have been, because it never left.
	NotCarriedOut
	// Refused: the issuer answered that it did not do it (4xx other than 429).
	Refused
	// Throttled: refused because of the rate limit (429).
	Throttled
)

// String returns the class in words, as logs show it.
func (c Class) String() string {
	switch c {
	case NotCarriedOut:
		return "not carried out"
	case Refused:
		return "refused"
	case Throttled:
		return "throttled"
	default:
		return "unknown"
	}
}

// IssuerError is a failed request to the issuer.
type IssuerError struct {
	Class      Class
	Operation  string        // "rotate", "create", "get", "list", "update", "refresh", "delete", "verify"
	Status     int           // HTTP status, 0 if there was no answer
	Code       int           // the issuer's own error code, 0 if it gave none
	Message    string        // the issuer's own message, scrubbed
	RetryAfter time.Duration // how long to send nothing to the account; 0 if not said
	Err        error         // the cause, if there is one
}

// Error implements error.
func (e *IssuerError) Error() string {
	s := fmt.Sprintf("cloudflare %s: %s", e.Operation, e.Class)
	if e.Status != 0 {
		s += fmt.Sprintf(" (HTTP %d)", e.Status)
	}
	if e.Code != 0 {
		s += fmt.Sprintf(": code %d", e.Code)
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(" (retry after %s)", e.RetryAfter.Round(time.Second))
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *IssuerError) Unwrap() error { return e.Err }

// SinkError is an error of a sink, with the name that the error of the sink itself need not have.
type SinkError struct {
	Sink string // its name
	Err  error
}

func sinkError(sink Sink, err error) error { return &SinkError{sink.Name(), err} }

// Error implements error.
func (e *SinkError) Error() string { return "sink " + e.Sink + ": " + e.Err.Error() }

// Unwrap returns the error of the sink.
func (e *SinkError) Unwrap() error { return e.Err }

// SinkOf returns the name of the sink that an error is about, the first one of several; empty if it is about none.
func SinkOf(err error) string {
	if e, ok := errors.AsType[*SinkError](err); ok {
		return e.Sink
	}
	return ""
}

// Sink is a place that credentials are delivered to, bound to one token.
// Implementations are safe for concurrent use, keep whatever else is stored beside
// the credential, and never put a secret into an error. An error need not say which sink it is about: the
// caller adds the name.
type Sink interface {
	// Name identifies the sink in the ledger, in logs and in metrics; it does not
	// change between runs. Example: "vault:secret/access/ci-deploy".
	Name() string
	// Preflight proves that Store could succeed now, without changing anything: the
	// session lives on for a while, the path may be read and written. It returns
	// what is stored there.
	Preflight(ctx context.Context) (Stored, error)
	// Store delivers a credential and returns only after reading back that it is there. The
	// write is check-and-set where the sink has that. A conflicting or lost answer is
	// resolved by reading, and a write by another writer to other fields is merged. Over another
	// secret it writes only if [Delivery.MayReplace] allows it. Calling Store again with the same
	// delivery changes nothing.
	Store(ctx context.Context, d Delivery) (Stored, error)
}

// Delivery is a credential for one sink, and what the sink may write beside it.
type Delivery struct {
	Credential
	// Base is what Preflight, or Look for a later attempt, has returned. With OnlyOver, a sink writes only over the secret
	// of Base, or where it has none: see [Delivery.MayReplace].
	Base     Stored
	OnlyOver bool

	// RotationID, At and By are for people: the rotation, when its answer came, and which host and
	// process has claimed it. None is needed to deliver; outside of a rotation they are zero.
	RotationID string
	At         time.Time
	By         string

	// GraceEndsAt is until when the secret that the rotation has replaced works at least: the grace may be
	// extended after the delivery. Zero if no replaced secret that consumers had works any more.
	GraceEndsAt time.Time
	// Replaces is the digest of that secret, if the sink held it before the rotation; empty if it did not,
	// or if it is not known, and without GraceEndsAt. A sink that has the previous secret beside the new one
	// has it only if its digest is Replaces.
	Replaces secret.Digest
}

// ErrOtherSecret is in the error of a Store that has written nothing, because the sink holds a secret that it did not hold
// before.
var ErrOtherSecret = errors.New("another secret was written there meanwhile")

// MayReplace returns [ErrOtherSecret] if the delivery must not replace what the sink holds now. A sink asks it before each
// write, with what that write is against: another program may have rotated the service token after us, and stored a secret
// that is newer than ours.
func (d Delivery) MayReplace(now Stored) error {
	if d.OnlyOver && now.Digest != "" && now.Digest != d.Base.Digest && now.Digest != d.ClientSecret.Digest() {
		return ErrOtherSecret
	}
	return nil
}

// SinkReader is a [Sink] that can say what it holds, secret included. It is used to try a secret that has
// overtaken ours, to prove that this is a whole secret, and to read back an answer that was delivered
// without a seal.
type SinkReader interface {
	// ReadBack returns the credential that the sink holds now, the zero Credential if there is none.
	ReadBack(ctx context.Context) (Credential, error)
}

// Stored is what a sink holds. The zero Stored is an empty place.
type Stored struct {
	Exists   bool          `json:"exists,omitempty"`
	Version  int           `json:"version,omitempty"` // 0 where the sink has no versions
	ClientID string        `json:"client_id,omitempty"`
	Digest   secret.Digest `json:"digest,omitempty"` // of the client secret; empty if none

	// WrittenAt is when this version was written, and DeletesAt when the sink itself deletes it,
	// or has deleted it. Both are zero where the sink does not say; DeletesAt also if it stays.
	WrittenAt time.Time `json:"written_at,omitzero"`
	DeletesAt time.Time `json:"deletes_at,omitzero"`
	// DeleteAfter is how long a version that is written now would live before the sink deletes
	// it, as Preflight knows it; 0 if it stays, or if nothing is known.
	DeleteAfter time.Duration `json:"delete_after,omitempty"`

	// Deleted and Destroyed say why Exists is false although there is a Version: a person, a program or
	// the sink itself has deleted that version. A destroyed one cannot be brought back. An empty place
	// without a Version has no history either: nothing was ever written, or it was removed with its metadata.
	Deleted   bool `json:"deleted,omitempty"`
	Destroyed bool `json:"destroyed,omitempty"`
}

// SinkHistory is a [Sink] that keeps earlier versions of what it holds.
type SinkHistory interface {
	// ReadVersion returns the credential of that version. [ErrNoVersion] is in the error if the sink answers
	// and does not have it: it was deleted, destroyed or removed, or never written. A version without the
	// fields of a credential is the zero Credential. It changes nothing and may be repeated.
	ReadVersion(ctx context.Context, version int) (Credential, error)
}

// ErrNoVersion is in the error of SinkHistory.ReadVersion if the sink does not have that version, or not
// any more.
var ErrNoVersion = errors.New("the sink does not have that version")

// Looker is a sink that can say what it holds without proving that it can be written. A delivery
// that is tried again needs no more: the write itself will show the rest.
type Looker interface {
	Look(ctx context.Context) (Stored, error)
}

// Ledger stores the record of each token: what was done last and what is in progress.
// Implementations are safe for concurrent use and durable: what Save returned nil
// for survives a crash of the process and of the machine.
type Ledger interface {
	// Load returns the record of a token, or a zero Record (Revision 0) if there is
	// none.
	Load(ctx context.Context, token string) (Record, error)
	// Save stores r if the stored revision is still r.Revision, and returns it with
	// its new revision; otherwise it changes nothing and returns ErrConflict.
	Save(ctx context.Context, r Record) (Record, error)
	// SaveAll saves records of different tokens as Save does, in few transactions, and
	// returns them in the same order. After an error it may have saved some of them: it
	// returns those, with the zero Record in place of each other, or nil if it has saved
	// none. The caller loads the others again.
	SaveAll(ctx context.Context, all []Record) ([]Record, error)
	// All returns every record, in no particular order.
	All(ctx context.Context) ([]Record, error)
}

// Events receives events as they happen. It must be safe for concurrent use and must not
// block: it is called between the steps of a rotation. [event.Stream] is one.
type Events interface {
	Publish(event.Event)
}

// Recorder keeps the record of events. A request that changes or ends a secret leaves only after the record has it.
// Implementations are safe for concurrent use.
type Recorder interface {
	// Reserve keeps room for the lines of one request about that token and of its outcome, until release is
	// called. After an error the request must not leave.
	Reserve(ctx context.Context, token string) (release func(), err error)
	// Record returns nil once the event survives a crash of the machine. After an error what it tells of must not be
	// done.
	Record(ctx context.Context, e event.Event) error
}

// PendingKey says which rotation of which token an answer belongs to. None of it is
// secret.
type PendingKey struct {
	RotationID string
	Token      string // config name
	TokenID    string // Cloudflare's UUID
}

// Pending stores issued secrets, sealed, from the moment that they are received until
// every sink has confirmed them. Implementations are safe for concurrent use.
type Pending interface {
	// Reserve reserves disk space for one answer, so that Seal can write it even if the disk
	// fills up meanwhile.
	Reserve(ctx context.Context, key PendingKey) error
	// Seal encrypts the answer and makes it durable. It is the commit point of a
	// rotation: after it, the secret cannot be lost with the process.
	Seal(ctx context.Context, key PendingKey, issued Issued) error
	// Open returns what was sealed, and false if nothing was. ErrUnreadable is in the
	// error if what was sealed is damaged, or sealed to another identity.
	Open(ctx context.Context, rotationID string) (Issued, bool, error)
	// Erase removes the sealed answer or the reservation. Erasing nothing returns
	// nil.
	Erase(ctx context.Context, rotationID string) error
}
