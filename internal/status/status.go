// Package status says what is shown of a service token: on the status page, in the JSON
// API, in the metrics, and by the commands that talk to the admin socket.
//
// It is a package of its own because the adapters that show it must not import each other,
// and because the core has no business with how it is shown. Nothing in it is a secret;
// texts that come from elsewhere must pass through [Scrubbed] before they leave.
package status

import (
	"fmt"
	"time"

	"rotatord/internal/printable"
)

// Token is what is shown of one token. Zero times are unknown or do not apply.
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
	// Reason is why the next look at the token comes when it does.
	Reason string `json:"next_reason"`
	// Freeze names the freeze that Next waits for; empty if none.
	Freeze string `json:"freeze,omitempty"`
	// Next is when the token is looked at next; zero if no time is known.
	Next        time.Time `json:"next,omitzero"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	GraceEnd    time.Time `json:"grace_end,omitzero"`
	Expiry      time.Time `json:"expiry,omitzero"`
	LastSeen    time.Time `json:"last_seen,omitzero"`
	// Known is whether Cloudflare was asked about the token yet; without it Enabled
	// says nothing.
	Known     bool   `json:"known"`
	Enabled   bool   `json:"enabled"`
	Failures  int    `json:"consecutive_failures"`
	LastError string `json:"last_error,omitempty"`
	// LastCause is LastError in one stable word, such as "sealed" or "no_space".
	LastCause string `json:"last_cause,omitempty"`
	// Mounts are where its sinks are, as the subjects of [CheckSink] have it.
	Mounts []string `json:"mounts,omitempty"`
	// Troubles are the kinds of trouble that the token is in, the worst first, as docs/runbook.md lists them.
	Troubles []string `json:"troubles,omitempty"`
	// AccountError is why the credential of the token's account cannot be read, so that nothing
	// can be done for the token; empty if it can be.
	AccountError string `json:"account_error,omitempty"`

	Doubt *Doubt `json:"doubt,omitempty"` // while in doubt
	Pause *Pause `json:"pause,omitempty"` // while paused, by its name or with all tokens
	Order *Order `json:"order,omitempty"` // while an order to rotate is not carried out

	// Overtaken says why a sealed secret is not delivered, while the state is "overtaken".
	Overtaken *Overtaken `json:"overtaken,omitempty"`
	// ToDo is what ends the state or what holds it up, empty if nobody has to do anything.
	ToDo []ToDo `json:"to_do,omitempty"`

	// Deletions are the sinks that will delete what they hold by themselves, as last seen.
	Deletions []Deletion `json:"deletions,omitempty"`
	// Waiting is set if the token is due and waits for its turn: others of its account are in hand,
	// or its requests would not be let through soon.
	Waiting bool `json:"waiting,omitempty"`
	// WaitsFor says in words what holds up a token that is due: its turn, or Cloudflare's request
	// limit. WaitsUntil is until when; zero if that is not known, or if nothing holds it up.
	WaitsFor   string    `json:"waits_for,omitempty"`
	WaitsUntil time.Time `json:"waits_until,omitzero"`
	// ReissueOwed is since when a rotation is owed that makes up for a lost secret; zero if none is.
	ReissueOwed time.Time `json:"reissue_owed_since,omitzero"`
	// CutOffAt is when consumers are left without a secret that works unless the pending work is done
	// before; in the past, they have none now. Zero if no pending work threatens them.
	CutOffAt time.Time `json:"cut_off_at,omitzero"`
	// Emergency is set if CutOffAt is at most two minutes away: the token is tried every few seconds.
	Emergency bool `json:"emergency,omitempty"`
	// Gone is set if the last inventory did not have the service token.
	Gone bool `json:"gone,omitempty"`
	// Outside is when somebody else rotated the token, until it is rotated anew; else zero.
	Outside time.Time `json:"rotated_outside,omitzero"`
	// Replaced counts the service tokens whose place others took and which are still to be
	// deleted; ReplacedError says why that failed last.
	Replaced      int    `json:"replaced,omitempty"`
	ReplacedError string `json:"replaced_error,omitempty"`
	// Renews is when the service token itself is renewed; zero if never. RenewalError says why
	// that failed last.
	Renews       time.Time `json:"renews,omitzero"`
	RenewalError string    `json:"renewal_error,omitempty"`
	// Verifies is set if a new secret is tried where it is used; Verification, while that one in
	// hand is not accepted; Unverified says why the last one could not be tried.
	Verifies     bool          `json:"verifies,omitempty"`
	Verification *Verification `json:"verification,omitempty"`
	Unverified   string        `json:"unverified,omitempty"`
}

// Endangered reports whether consumers are cut off or about to be, and not only for the moment that every
// rotation takes.
func (t Token) Endangered() bool {
	return t.Emergency && (t.Failures > 0 || t.Verification != nil && t.Verification.Refused)
}

// Deletion is when a sink deletes by itself what it holds: Vault's delete_version_after.
type Deletion struct {
	Sink string    `json:"sink"` // its name, such as "vault:secret/access/ci"
	At   time.Time `json:"at"`   // in the past, it has done so
}

// Order is an operator's word that a token is to be rotated.
type Order struct {
	Since     time.Time `json:"since"`
	By        string    `json:"by,omitempty"`
	RevokeNow bool      `json:"revoke_now,omitempty"`
	Left      int       `json:"left"` // rotations still to be done
}

// Overtaken is a sealed secret that is not delivered, because a sink holds a later one.
type Overtaken struct {
	Since     time.Time `json:"since"`
	Sinks     []string  `json:"sinks"`               // those that hold a later one
	ChangedAt time.Time `json:"changed_at,omitzero"` // of the service token, after our rotation; zero if it is gone, or if that cannot be seen
	Gone      bool      `json:"gone,omitempty"`      // Cloudflare has no such service token
	Tried     string    `json:"tried,omitempty"`     // what requests with both secrets have shown
}

// ToDo is something that an operator can do. Command is empty if it is done elsewhere or comes by
// itself.
type ToDo struct {
	Command string `json:"command,omitempty"`
	Does    string `json:"does"`
}

// Verification is what is known of a new secret that is tried in vain.
type Verification struct {
	Since   time.Time `json:"since"`
	Probes  int       `json:"probes"`
	Refused bool      `json:"refused"` // for longer than the edge may take to know it
	Error   string    `json:"error"`
}

// Pause is who has paused a token, and why. Until is zero if that is until it is resumed.
type Pause struct {
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
}

// States are all values of Token.State.
var States = []string{"idle", "claimed", "intent", "sealed", Overtook, "stored", InDoubt}

// Overtook is the state of a token whose sealed secret is not delivered, because a sink holds a later
// one.
const Overtook = "overtaken"

// InDoubt is the state of a token of which nobody knows whether it was rotated.
const InDoubt = "in_doubt"

// Doubt is what is known of a rotate request whose outcome is not. Reason and Decision are
// reason codes of package rotation.
type Doubt struct {
	Reason     string    `json:"reason"`
	Detail     string    `json:"detail,omitempty"`
	Since      time.Time `json:"since"`
	RotationID string    `json:"rotation_id"`
	// TokenID is the service token whose rotation is in doubt. Of a pair it is the one that
	// is not in use, and Spare is set: what consumers have was not touched.
	TokenID string `json:"token_id,omitempty"`
	Spare   bool   `json:"spare,omitempty"`
	// Makes is the name of the service token that was to be made; empty if one was to be rotated.
	Makes string `json:"makes,omitempty"`
	// AskedAt is when the request left, or would have. UpdatedBefore and UpdatedNow are
	// updated_at at Cloudflare as it was read before that, and last.
	AskedAt       time.Time `json:"asked_at,omitzero"`
	UpdatedBefore time.Time `json:"updated_at_before,omitzero"`
	UpdatedNow    time.Time `json:"updated_at_now,omitzero"`
	// CarriedOut is set once Cloudflare has shown that the request was carried out, by an
	// answer or since.
	CarriedOut bool `json:"carried_out,omitempty"`
	// AnswerSealed is set if an answer came and was sealed, but did not pass validation or
	// could not be opened again; Deliverable, if an operator may have it delivered.
	AnswerSealed bool `json:"answer_sealed,omitempty"`
	Deliverable  bool `json:"deliverable,omitempty"`
	// OldWorksUntil is when the old secret stops working if the request was carried out;
	// zero if it was to be revoked at once. Extensions counts how often that was put off.
	OldWorksUntil time.Time `json:"old_works_until,omitzero"`
	Extensions    int       `json:"extensions,omitempty"`
	// Decision is the last verdict, and DecidedAt when it was given.
	Decision  string    `json:"decision,omitempty"`
	DecidedAt time.Time `json:"decided_at,omitzero"`
}

// Scrubbed returns tokens fit to be shown: see [Token.Scrubbed]. The result is never nil.
func Scrubbed(tokens []Token) []Token {
	all := make([]Token, 0, len(tokens))
	for _, t := range tokens {
		all = append(all, t.Scrubbed())
	}
	return all
}

// Scrubbed returns the token fit to be shown: in every text of it, what looks like a credential is taken
// out and what steers a terminal is escaped. It changes nothing that belongs to t.
func (t Token) Scrubbed() Token { return printable.Copy(t) }

// Distance says how far t is from now in the one or two units that a reader needs.
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
