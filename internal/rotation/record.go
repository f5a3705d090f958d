package rotation

import (
	"errors"
	"time"

	"rotatord/internal/secret"
)

// RecordFormat is the version of the ledger's record format that this code writes. It
// reads older ones by Migrate. The ledger refuses newer ones.
const RecordFormat = 3

// Migrate turns a record of an older format into one of RecordFormat. A zero Record stays
// one.
//
// Fields that an older rotatord can ignore without harm are added without a new format: if Work.Overtaken
// is missing, the daemon finds it out again; if Abandoned is missing, its answers stay sealed.
//
// Format 1 had no pairs: a rotation worked on the token of the record. Format 2 had no service
// tokens that are created, no orders and no verification.
func Migrate(r Record) Record {
	if r.Format == 1 {
		if r.Work != nil {
			work := *r.Work
			work.TokenID = r.TokenID
			r.Work = &work
		}
		r.Format = 2
	}
	if r.Format == 2 {
		r.Format = 3
	}
	return r
}

// ErrConflict is returned by Ledger.Save when the record was changed meanwhile.
var ErrConflict = errors.New("the ledger record was changed by another writer")

// ErrLedger is in every error of an attempt that could not read or write the ledger, and
// whose failure the ledger therefore does not count.
var ErrLedger = errors.New("the ledger could not be read or written")

// ErrClock is in the error of Issuer.Ready if the local clock and the issuer's are so far
// apart that one of them must be wrong.
var ErrClock = errors.New("the local clock and Cloudflare's are too far apart")

// ErrUnreadable is in the error of Pending.Open when trying again will not help.
var ErrUnreadable = errors.New("the sealed answer cannot be opened")

// Step is how far the rotation in progress has come. Each step is durable before the
// next one begins.
type Step string

// The steps, in order. StepIdle means that no rotation is in progress.
const (
	StepIdle    Step = ""
	StepClaimed Step = "claimed"  // this process may work on the token
	StepIntent  Step = "intent"   // a rotate request may have left
	StepSealed  Step = "sealed"   // the answer is sealed on disk
	StepStored  Step = "stored"   // every sink has confirmed it
	StepInDoubt Step = "in_doubt" // it is not known whether the rotate request was carried out
)

// Trigger says why a rotation began. It is a metric label.
type Trigger string

// The triggers.
const (
	TriggerSchedule Trigger = "schedule"
	TriggerCatchUp  Trigger = "catch_up" // one or more slots passed while no daemon ran
	TriggerRetry    Trigger = "retry"    // the slot failed before
	TriggerRecovery Trigger = "recovery" // continued, or reissued, after a crash or a doubt
	TriggerManual   Trigger = "manual"   // an operator asked for it
	TriggerCreate   Trigger = "create"   // the service token is created, with its first secret
)

// Record is what the ledger knows about one token. A zero Record is a token never
// seen before. Times are UTC.
type Record struct {
	Format   int    `json:"format"`
	Revision uint64 `json:"revision"`
	Token    string `json:"token"`    // config name
	TokenID  string `json:"token_id"` // Cloudflare's UUID; of a pair, the one in use; empty if it is not created yet
	Account  string `json:"account"`  // config name of the account

	// Origin is what the configuration named when TokenID was chosen, for tokens whose ID it
	// does not know. See Token.MatchesRecord.
	Origin string `json:"origin,omitempty"`

	// Anchor is where the schedule is counted from: the last slot that was consumed,
	// or the moment that the token was first seen.
	Anchor time.Time `json:"anchor"`
	// Schedule is the schedule that Anchor belongs to, with its time zone.
	Schedule string `json:"schedule,omitempty"`

	Step  Step   `json:"step,omitempty"`
	Work  *Work  `json:"work,omitempty"`  // the rotation in progress; nil when idle
	Doubt *Doubt `json:"doubt,omitempty"` // set while Step is StepInDoubt

	// Hold is set while a replica works on the token; nil in the ledger of one daemon.
	Hold *Hold `json:"hold,omitempty"`

	// NextTrigger is set while a rotation is owed: a secret was lost, or an operator has
	// decided a doubt, and the next rotation makes up for it. That rotation has this trigger.
	NextTrigger Trigger `json:"next_trigger,omitempty"`

	// CatchUpAt is when the slots that passed while no daemon ran are made up for; zero if there
	// are none.
	CatchUpAt time.Time `json:"catch_up_at,omitzero"`

	// OldDiesBy is the latest time at which the secret that consumers use stops working. It is set when a
	// lost request is known to be carried out, and cleared after the reissue. The graces of later
	// rotations do not apply to that secret: they belong to secrets that consumers never got.
	OldDiesBy time.Time `json:"old_dies_by,omitzero"`

	// Lost is set from a doubt whose secret was lost, or may have been, until the rotation that makes up
	// for it is done.
	Lost *Lost `json:"lost,omitempty"`

	// Order is set while an operator's order to rotate is not carried out.
	Order *Order `json:"order,omitempty"`

	// Failures counts rotations that failed in a row; NotBefore is when the next try
	// may begin.
	Failures  int       `json:"failures,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	LastError string    `json:"last_error,omitempty"`
	// LastCause is LastError as one stable word: see [CauseOf]. Empty without an error.
	LastCause string `json:"last_cause,omitempty"`
	// LastSink is the sink that LastError is about: see [SinkOf]. Empty if it is about none.
	LastSink string `json:"last_sink,omitempty"`

	Last *Done `json:"last,omitempty"` // the last rotation that succeeded
	// After is what follows the last rotation; nil if nothing does. A record of an older version has none.
	After *After     `json:"after,omitempty"`
	Facts TokenFacts `json:"facts,omitzero"` // as last seen at Cloudflare
	Spare TokenFacts `json:"spare,omitzero"` // of a pair: the facts of the spare

	// Deletes says when a sink will delete by itself what it holds, as last seen, by the sink's
	// name. A sink that keeps it has no entry.
	Deletes map[string]time.Time `json:"deletes,omitempty"`

	// Written is what each sink should hold, by the sink's name: what was written last, or what an operator
	// has accepted. A record of an older version has none. Earlier are digests of what sinks held before
	// that, the latest first.
	Written map[string]Written `json:"written,omitempty"`
	Earlier []secret.Digest    `json:"earlier,omitempty"`
	// Findings is what is wrong with sinks, by the sink's name. A sink that holds what was written has no
	// entry. Restoring is what is known of the attempts to mend them.
	Findings  map[string]Finding `json:"findings,omitempty"`
	Restoring Restoring          `json:"restoring,omitzero"`
	// OwnUpdatedAt is updated_at as the answer to our last rotation showed it. While Cloudflare still shows
	// it, our secret is the last one. Zero if that cannot be known.
	OwnUpdatedAt time.Time `json:"own_updated_at,omitzero"`
	// RefusedInUse is set while the secret in use is refused where it is tried; else nil.
	RefusedInUse *RefusedInUse `json:"refused_in_use,omitempty"`

	// Replaced are service tokens that were replaced and are to be deleted.
	Replaced []Replaced `json:"replaced,omitempty"`
	Renewal  Renewal    `json:"renewal,omitzero"`

	// Abandoned are rotations that were given up with their answer sealed. The answers are erased
	// when a later rotation is done: until then one of them may be the only copy of a good secret.
	Abandoned []string `json:"abandoned,omitempty"`

	// Outside is when another person or program rotated the token, until a rotation of our own is
	// done. OutsideAnswered is when we last ordered one because of that.
	Outside         time.Time `json:"outside,omitzero"`
	OutsideAnswered time.Time `json:"healed,omitzero"`

	// MovedCount and StillCount count the confirmed rotations in which updated_at did, and did not, move.
	// No document says whether it moves. So an unchanged updated_at proves that no rotation took place
	// only on an account where it has moved and never stayed.
	MovedCount int `json:"moved,omitempty"`
	StillCount int `json:"still,omitempty"`
}

// GraceEnd returns when the secret that consumers may still use stops working, on the local clock. Once
// the request of the rotation in progress was carried out, or may have been, that is the old secret of
// this rotation; else it is the previous secret of the last rotation. Zero means that no secret is in its
// grace.
func (r Record) GraceEnd() time.Time {
	switch {
	case r.Work != nil && r.Work.LeavesCurrentInUse(): // what consumers use is not touched
	case r.Step == StepInDoubt:
		return r.Doubt.OldWorksUntil
	case r.Step == StepSealed, r.Step == StepStored:
		return r.Work.GraceEndsAt
	case r.Lost != nil:
		return r.Lost.Until
	}
	if r.Last != nil {
		return r.Last.GraceEndsAt
	}
	return time.Time{}
}

// owed reports whether a rotation must follow, whatever the schedule says.
func (r Record) owed() bool {
	return r.NextTrigger != "" || !r.OldDiesBy.IsZero() || r.Lost != nil
}

// revokes reports whether an order is pending that revokes the old secret: then it is not extended.
func (r Record) revokes() bool { return r.Order != nil && r.Order.RevokeNow }

// Replaced is a service token that another one replaced.
type Replaced struct {
	TokenID string `json:"token_id"`
	// ClientID is needed to find out whether a sink still holds it; empty if it is not known yet.
	ClientID string    `json:"client_id,omitempty"`
	At       time.Time `json:"at"` // when it is to be deleted: at the end of the grace
	// Promised is set if consumers were promised that it works until At: a wrong clock must not end it
	// earlier.
	Promised bool `json:"promised,omitempty"`
	// Failures counts the deletions that failed in a row, NotBefore is when the next may be
	// tried, and LastError says what went wrong.
	Failures  int       `json:"failures,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	LastError string    `json:"last_error,omitempty"`
}

// Work is a rotation in progress.
type Work struct {
	RotationID string    `json:"rotation_id"`
	TokenID    string    `json:"token_id"`          // the service token that is rotated; empty until it is created
	Spare      bool      `json:"spare,omitempty"`   // set if it is the spare of a pair
	CreateName string    `json:"makes,omitempty"`   // the name of the service token that is created; empty for a rotate
	Owner      string    `json:"owner"`             // host name and process of the claimant
	Replica    string    `json:"replica,omitempty"` // the replica that claimed it, and has the sealed answer; empty if there is only one
	Trigger    Trigger   `json:"trigger"`
	Slot       time.Time `json:"slot"`             // the due slot that this rotation serves
	Missed     int       `json:"missed,omitempty"` // slots that passed without a rotation of their own
	Frozen     int       `json:"frozen,omitempty"` // slots before it that a freeze took away
	Began      time.Time `json:"began"`            // when it was claimed
	Deadline   time.Time `json:"deadline"`         // no rotate request may leave after it
	Grace      Grace     `json:"grace"`

	// The state of the world before the rotate request, written with the intent.
	Before     TokenFacts        `json:"before,omitzero"`
	BeforeSink map[string]Stored `json:"before_sink,omitempty"`
	IntentAt   time.Time         `json:"intent_at,omitzero"`

	// What the issuer answered, written with the seal. The secret itself is sealed.
	SealedAt    time.Time     `json:"sealed_at,omitzero"`
	Digest      secret.Digest `json:"digest,omitempty"`
	After       TokenFacts    `json:"after,omitzero"`
	GraceEndsAt time.Time     `json:"grace_ends_at,omitzero"`
	// ExtendedBy is the longest time for which an operator has extended the old secret at once; 0 if none
	// did. So the end may be this far ahead.
	ExtendedBy Grace `json:"extended_by,omitzero"`
	// TouchedAt is updated_at after our own last extension of the grace.
	TouchedAt time.Time `json:"touched_at,omitzero"`

	// Copied is set if a copy of the sealed answer may be where all replicas find it.
	Copied bool `json:"copied,omitempty"`

	// Delivered is set if every sink has the secret although it could not be sealed.
	Delivered bool `json:"delivered,omitempty"`

	Verification Verification `json:"verification,omitzero"`

	// ChangedAt is updated_at of a change at Cloudflare after our answer that was not our own; zero if
	// none was seen. Overtaken is set while the sealed secret is not delivered because of it.
	ChangedAt time.Time  `json:"changed_at,omitzero"`
	Overtaken *Overtaken `json:"overtaken,omitempty"`
}

// Grace is a duration that is stored as text, so that people can read the ledger.
type Grace time.Duration

// MarshalText implements encoding.TextMarshaler.
func (g Grace) MarshalText() ([]byte, error) { return []byte(time.Duration(g).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (g *Grace) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	*g = Grace(d)
	return err
}

// Doubt is what is known about a rotate request whose outcome is not known.
type Doubt struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"` // a stable code
	Detail string    `json:"detail"`
	// Sealed is set if an answer was received and sealed but did not pass validation.
	// It stays sealed under the rotation's ID until an operator has looked at it.
	Sealed bool `json:"sealed,omitempty"`
	// OldWorksUntil is when the previous secret stops working if the request was
	// carried out; the zero time if it was revoked at once.
	OldWorksUntil time.Time `json:"old_works_until,omitzero"`
	// CarriedOut is set once Cloudflare has shown that the request was carried out.
	CarriedOut bool `json:"carried_out,omitempty"`
	// ListedAt is when the last inventory began that has shown the token since then, and that began when
	// the request could no longer be under way.
	ListedAt time.Time `json:"listed_at,omitzero"`
	// Extensions counts how often the old secret's grace was extended.
	Extensions int `json:"extensions,omitempty"`
	// Decision is the reason code of the last verdict, and DecidedAt when it was given.
	Decision  string    `json:"decision,omitempty"`
	DecidedAt time.Time `json:"decided_at,omitzero"`
}

// Done is a rotation that succeeded.
type Done struct {
	RotationID  string        `json:"rotation_id"`
	Trigger     Trigger       `json:"trigger"`
	Slot        time.Time     `json:"slot"`
	At          time.Time     `json:"at"`
	Digest      secret.Digest `json:"digest"`
	GraceEndsAt time.Time     `json:"grace_ends_at,omitzero"`
	AskedAt     time.Time     `json:"asked_at,omitzero"` // when the request left
	Replica     string        `json:"replica,omitempty"` // the replica that rotated; empty if there is only one, or before it was noted
	Revoked     bool          `json:"revoked,omitempty"` // an operator has ended the previous secret early
	// Unverified says why it is not known whether the secret is accepted, where that was to be
	// tried; empty if it is accepted, or if it was not to be tried.
	Unverified string `json:"unverified,omitempty"`
}
