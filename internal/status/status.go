// Package status defines what is shown of a service token: on the status page, in the JSON
// API, in the metrics, and by the commands that talk to the admin socket.
//
// It is a package of its own because the adapters that show it must not import each other,
// and because the core does not decide how it is shown. Nothing in it is a secret. Texts
// that come from elsewhere must pass through [Scrubbed] before they are shown.
package status

import (
	"fmt"
	"slices"
	"time"

	"rotatord/internal/moment"
	"rotatord/internal/printable"
)

// Token is what is shown of one token. A zero time is unknown or does not apply.
type Token struct {
	Name     string `json:"name"`
	Account  string `json:"account"`
	TokenID  string `json:"token_id"`        // of a pair, the one in use
	Spare    string `json:"spare,omitempty"` // of a pair, the other one
	ClientID string `json:"client_id,omitempty"`
	Strategy string `json:"strategy"`
	Schedule string `json:"schedule"`
	TimeZone string `json:"time_zone"`
	// State is one of [States].
	State string `json:"state"`
	// Reason says why the token is looked at next at that time.
	Reason string `json:"next_reason"`
	// Freeze names the freeze that Next waits for; empty if none.
	Freeze string `json:"freeze,omitempty"`
	// Next is when the token is looked at next; zero if no time is known.
	Next        time.Time `json:"next,omitzero"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	// LastReplica is the replica that did that rotation; empty if the daemon is alone, or if it was not noted then.
	LastReplica string    `json:"last_success_replica,omitempty"`
	GraceEnd    time.Time `json:"grace_end,omitzero"`
	Expiry      time.Time `json:"expiry,omitzero"`
	LastSeen    time.Time `json:"last_seen,omitzero"`
	// Known is set once Cloudflare was asked about the token. Before that, Enabled means
	// nothing.
	Known     bool   `json:"known"`
	Enabled   bool   `json:"enabled"`
	Failures  int    `json:"consecutive_failures"`
	LastError string `json:"last_error,omitempty"`
	// LastCause is a stable word for LastError, such as "sealed" or "no_space".
	LastCause string `json:"last_cause,omitempty"`
	// Mounts are the places of its sinks, as in the subjects of [CheckSink].
	Mounts []string `json:"mounts,omitempty"`
	// Sinks are what the token is written to, in the order of the configuration.
	Sinks []SinkState `json:"sinks,omitempty"`
	// Troubles are the kinds of trouble of the token, the worst first, as in docs/runbook.md.
	Troubles []string `json:"troubles,omitempty"`
	// AccountError says why the credential of the token's account cannot be read, so that the token
	// cannot be rotated; empty if it can be read.
	AccountError string `json:"account_error,omitempty"`

	// Sharing is what is known because several replicas share the ledger; nil if the daemon is alone, or if there is
	// nothing to say. Unread is set while this replica could not read the token's record: then nothing is known of its
	// state.
	Sharing *Sharing `json:"sharing,omitempty"`
	Unread  bool     `json:"unread,omitempty"`

	Doubt *Doubt `json:"doubt,omitempty"` // while in doubt
	Pause *Pause `json:"pause,omitempty"` // while paused, by its name or with all tokens
	Order *Order `json:"order,omitempty"` // while an order to rotate is not carried out

	// Overtaken says why a sealed secret is not delivered, while the state is "overtaken".
	Overtaken *Overtaken `json:"overtaken,omitempty"`
	// ToDo says what ends the state, or what removes the obstacle. It is empty if an operator has nothing to do.
	ToDo []ToDo `json:"to_do,omitempty"`

	// Findings are the sinks that do not hold what was written to them, or that cannot be read.
	Findings []Finding `json:"findings,omitempty"`
	// NotRestored says why nothing is written back to them, where outside_change is restore; empty if nothing
	// speaks against it. RestoredAt is when the last attempt began; zero if there was none in the last day.
	NotRestored string    `json:"not_restored,omitempty"`
	RestoredAt  time.Time `json:"restored_at,omitzero"`
	// RefusedInUse is set while the secret in use is refused where it is tried.
	RefusedInUse *RefusedInUse `json:"refused_in_use,omitempty"`

	// Hooks are the hooks that follow a rotation, as far as the ledger has something of them. HooksOwed is since when
	// consumers wait for the first one that is owed; zero if none is.
	Hooks     []Hook    `json:"hooks,omitempty"`
	HooksOwed time.Time `json:"hooks_owed_since,omitzero"`

	// Deletions are the sinks that will delete by themselves what is stored in them, as last seen.
	Deletions []Deletion `json:"deletions,omitempty"`
	// Waiting is set if the token is due and waits for its turn: rotations of other tokens of its account
	// are in progress, or the request limit delays its requests.
	Waiting bool `json:"waiting,omitempty"`
	// WaitsFor says in words what delays a token that is due: its turn, or Cloudflare's request
	// limit. WaitsUntil is until when; zero if that is not known, or if nothing delays it.
	WaitsFor   string    `json:"waits_for,omitempty"`
	WaitsUntil time.Time `json:"waits_until,omitzero"`
	// ReissueOwed is since when a reissue is owed; zero if none is.
	ReissueOwed time.Time `json:"reissue_owed_since,omitzero"`
	// CutOffAt is when consumers will have no secret that works, unless the pending work is done
	// before. If it is in the past, they have none now. Zero if no pending work endangers them.
	CutOffAt time.Time `json:"cut_off_at,omitzero"`
	// Emergency is set if CutOffAt is at most two minutes away: the token is tried every few seconds.
	Emergency bool `json:"emergency,omitempty"`
	// Gone is set if the last inventory did not have the service token.
	Gone bool `json:"gone,omitempty"`
	// Outside is when another person or program rotated the token. It is zero again after our next rotation.
	Outside time.Time `json:"rotated_outside,omitzero"`
	// Replaced counts the service tokens that were replaced and are not deleted yet. ReplacedError says
	// why the last deletion failed.
	Replaced      int    `json:"replaced,omitempty"`
	ReplacedError string `json:"replaced_error,omitempty"`
	// Renews is when the service token itself is renewed; zero if never. RenewalError says why
	// the last renewal failed.
	Renews       time.Time `json:"renews,omitzero"`
	RenewalError string    `json:"renewal_error,omitempty"`
	// Verifies is set if new secrets are tried where they are used. Verification is set while the new
	// secret of the rotation in progress is not accepted. Unverified says why the last secret could not be tried.
	Verifies     bool          `json:"verifies,omitempty"`
	Verification *Verification `json:"verification,omitempty"`
	Unverified   string        `json:"unverified,omitempty"`
}

// Finding says that a sink does not hold what was written to it.
type Finding struct {
	Sink string `json:"sink"` // its name, such as "vault:secret/access/ci"
	// Kind is a stable code, such as "changed"; What says it in words.
	Kind  string    `json:"kind"`
	What  string    `json:"what"`
	Since time.Time `json:"since"` // when it was found
	// Digest, Version and WrittenAt are of what the sink holds, WantDigest and WantVersion of what was
	// written. They are empty, 0 or zero where there is none, or where the sink does not say.
	Digest      string    `json:"digest,omitempty"`
	Version     int       `json:"version,omitempty"`
	WrittenAt   time.Time `json:"written_at,omitzero"`
	WantDigest  string    `json:"want_digest,omitempty"`
	WantVersion int       `json:"want_version,omitempty"`
	Error       string    `json:"error,omitempty"` // why it cannot be read
	// PutBack is a command of the place itself that puts the secret back; empty if there is none.
	PutBack string `json:"put_back,omitempty"`
}

// Hook is something that runs after a rotation.
type Hook struct {
	Name string `json:"name"` // such as "exec:systemctl reload app"
	// State is one of "done", "waits" (for its batch or its turn), "running" and "failing".
	State string `json:"state"`
	// DoneAt is when it has succeeded for the last rotation; zero while it is owed. Since is since when consumers wait
	// for it.
	DoneAt time.Time `json:"done_at,omitzero"`
	Since  time.Time `json:"since,omitzero"`
	// Attempts counts the runs for the last rotation, Failures those in a row that failed, and Replaced the rotations in
	// a row for which it did not succeed before the next one came.
	Attempts int `json:"attempts,omitempty"`
	Failures int `json:"failures,omitempty"`
	Replaced int `json:"replaced,omitempty"`
	// Next is when it runs next, and LastError why it failed last.
	Next      time.Time `json:"next,omitzero"`
	LastError string    `json:"last_error,omitempty"`
}

// RefusedInUse says since when the secret in use is refused where it is tried.
type RefusedInUse struct {
	Since time.Time `json:"since"`
	Error string    `json:"error"`
}

// Failing reports whether the hook is owed and its last run has failed.
func (h Hook) Failing() bool { return h.Failures > 0 && h.DoneAt.IsZero() }

// HookFailing returns since when consumers wait for a hook that has failed and is owed; zero if there is none.
func (t *Token) HookFailing() (since time.Time) {
	for _, h := range t.Hooks {
		if h.Failing() {
			since = moment.MinNonZero(since, h.Since)
		}
	}
	return since
}

// findingSince returns when the first finding of one of these kinds was found; zero if there is none.
func (t *Token) findingSince(kinds ...string) (since time.Time) {
	for _, f := range t.Findings {
		if slices.Contains(kinds, f.Kind) {
			since = moment.MinNonZero(since, f.Since)
		}
	}
	return since
}

// Endangered reports whether consumers are cut off, or will be soon, for longer than the moment that each
// rotation takes.
func (t *Token) Endangered() bool {
	return t.Emergency && (t.Failures > 0 || t.Verification != nil && t.Verification.Refused)
}

// Deletion says when a sink deletes by itself what is stored in it: delete_version_after of Vault.
type Deletion struct {
	Sink string    `json:"sink"` // its name, such as "vault:secret/access/ci"
	At   time.Time `json:"at"`   // if it is in the past, it was deleted
}

// Order is an operator's order to rotate a token.
type Order struct {
	Since     time.Time `json:"since"`
	By        string    `json:"by,omitempty"`
	RevokeNow bool      `json:"revoke_now,omitempty"`
	Left      int       `json:"left"` // rotations still to be done
}

// Overtaken describes a sealed secret that is not delivered, because a sink has a later one.
type Overtaken struct {
	Since     time.Time `json:"since"`
	Sinks     []string  `json:"sinks"`               // those with a later one
	ChangedAt time.Time `json:"changed_at,omitzero"` // of the service token, after our rotation; zero if it is gone, or if that cannot be seen
	Gone      bool      `json:"gone,omitempty"`      // Cloudflare has no such service token
	Tried     string    `json:"tried,omitempty"`     // what requests with both secrets have shown
}

// ToDo is something that an operator can do. Command is empty if it is done elsewhere, or happens by
// itself.
type ToDo struct {
	Command string `json:"command,omitempty"`
	Does    string `json:"does"`
}

// Verification is what is known of a new secret that was tried and is not accepted yet.
type Verification struct {
	Since   time.Time `json:"since"`
	Probes  int       `json:"probes"`
	Refused bool      `json:"refused"` // for longer than Cloudflare's edge may take to know the secret
	Error   string    `json:"error"`
}

// Pause says who has paused a token, and why. Until is zero if the pause lasts until it is resumed.
type Pause struct {
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
}

// States are all values of Token.State.
var States = []string{"idle", "claimed", "intent", "sealed", Overtook, "stored", InDoubt}

// Overtook is the state of a token whose sealed secret is not delivered, because a sink has a later
// one.
const Overtook = "overtaken"

// InDoubt is the state of a token of which it is not known whether it was rotated.
const InDoubt = "in_doubt"

// Doubt is what is known of a rotate request whose outcome is not. Reason and Decision are
// reason codes of package rotation.
type Doubt struct {
	Reason     string    `json:"reason"`
	Detail     string    `json:"detail,omitempty"`
	Since      time.Time `json:"since"`
	RotationID string    `json:"rotation_id"`
	// TokenID is the service token whose rotation is in doubt. Of a pair it is the spare, and Spare is
	// set: the secret that consumers have is not touched.
	TokenID string `json:"token_id,omitempty"`
	Spare   bool   `json:"spare,omitempty"`
	// Makes is the name of the service token that was to be created; empty if one was to be rotated.
	Makes string `json:"makes,omitempty"`
	// AskedAt is when the request left, or would have. UpdatedBefore and UpdatedNow are
	// updated_at at Cloudflare as it was read before that, and last.
	AskedAt       time.Time `json:"asked_at,omitzero"`
	UpdatedBefore time.Time `json:"updated_at_before,omitzero"`
	UpdatedNow    time.Time `json:"updated_at_now,omitzero"`
	// CarriedOut is set once an answer of Cloudflare, to this request or to a later one, has shown
	// that the request was carried out.
	CarriedOut bool `json:"carried_out,omitempty"`
	// AnswerSealed is set if an answer came and was sealed, but did not pass validation or could not
	// be opened again. Deliverable is set if an operator may have it delivered.
	AnswerSealed bool `json:"answer_sealed,omitempty"`
	Deliverable  bool `json:"deliverable,omitempty"`
	// OldWorksUntil is when the old secret stops working if the request was carried out; zero if it
	// was to be revoked at once. Extensions counts how often its grace was extended.
	OldWorksUntil time.Time `json:"old_works_until,omitzero"`
	Extensions    int       `json:"extensions,omitempty"`
	// Decision is the last verdict, and DecidedAt is when it was reached.
	Decision  string    `json:"decision,omitempty"`
	DecidedAt time.Time `json:"decided_at,omitzero"`
}

// WithoutTime returns what is shown in place of the next time of a token that has none, from its state and
// the reason for the next time. A token without a time either waits for an operator, or is worked on now.
func WithoutTime(state, reason string) string {
	switch {
	case reason == "never":
		return "not planned: the schedule has no more slots"
	case reason == "paused":
		return "not planned: it is paused"
	case state == "sealed":
		return "now: the new secret is written to the sinks"
	case state == "stored":
		return "now: the new secret is in every sink, and the rotation ends"
	case state == InDoubt:
		return "now: the doubt is looked at"
	case reason == "unfinished":
		return "now: a rotation is in progress"
	case reason == "":
		return "not planned"
	}
	return "now: " + reason
}

// Scrubbed returns tokens in a form that may be shown: see [Token.Scrubbed]. The result is never nil.
func Scrubbed(tokens []Token) []Token {
	all := make([]Token, 0, len(tokens))
	for _, t := range tokens {
		all = append(all, t.Scrubbed())
	}
	return all
}

// Scrubbed returns the token in a form that may be shown: in all its texts, what looks like a credential is
// removed, and characters that control a terminal are escaped. It does not change t.
func (t Token) Scrubbed() Token { return printable.Copy(t) }

// Distance returns how far t is from now, in the one or two units that a reader needs.
func Distance(t, now time.Time) string {
	if t.IsZero() {
		return "–"
	}
	d := t.Sub(now).Round(time.Second)
	if d == 0 {
		return "now"
	}
	in, ago := "in ", ""
	if d < 0 {
		d, in, ago = -d, "", " ago"
	}
	var s string
	switch {
	case d >= 48*time.Hour:
		s = fmt.Sprintf("%d d", int(d.Hours())/24)
	case d >= time.Hour:
		s = fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		s = fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	default:
		s = fmt.Sprintf("%d s", int(d.Seconds()))
	}
	return in + s + ago
}
