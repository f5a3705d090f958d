// Package doctor checks everything that rotatord depends on, and says what is wrong and
// what to do about it.
//
// Guarantees: it changes nothing. It asks Cloudflare to verify the credential and to list, and
// never to rotate, create or change. It tries every sink as a rotation does before it begins. For
// Vault it uses the session of a running daemon, or its own session, which it revokes afterwards. It
// looks at the state directory from outside. It reads credentials as the daemon does, and no finding has a
// secret. A finding says so if something cannot be proven without a change.
package doctor

import (
	"context"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"

	"rotatord/internal/audit"
	"rotatord/internal/cloudflare"
	"rotatord/internal/config"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// Level says how much a finding matters.
type Level string

// The levels. Bad means that rotations will fail, or do already.
const (
	Good    Level = "good"
	Warning Level = "warning"
	Bad     Level = "bad"
)

// Finding is the result of one check.
type Finding struct {
	Level Level `json:"level"`
	// Code is stable; docs/doctor.md lists them all.
	Code Code `json:"code"`
	// Subject is the path in the configuration that the finding is about.
	Subject string `json:"subject"`
	Message string `json:"message"`
	// Advice is what to do; empty if there is nothing to do.
	Advice string `json:"advice,omitempty"`
}

// Options are what an examination needs. Config is required.
type Options struct {
	Config *config.Config
	// Records are the records of the ledger by token; nil if it cannot be read, and LedgerErr says why.
	Records   map[string]rotation.Record
	LedgerErr error
	// StateErr is why a daemon would not start with the state directory; nil if it would.
	StateErr error
	// IdentityFile is where the state directory has an identity, if none is configured; empty: it is not looked at.
	IdentityFile string
	// Relocations are the directories from which credentials are read instead of others. Config
	// already has the new paths.
	Relocations []Relocation
	// User is the user that the daemon runs as; nil: the owner of the state directory.
	User *ServiceUser
	// LogIn lets doctor log in to Vault itself, even if that uses up something, such as one use of a secret_id.
	LogIn bool
	// AskDaemon asks a running daemon to check Vault, the sinks and the hooks; nil: no daemon can be asked.
	AskDaemon func(context.Context) ([]Finding, error)
	// AskTroubles asks a running daemon what is wrong with rotations; nil: no daemon can be asked.
	AskTroubles func(context.Context) ([]status.Trouble, error)
	// Running reports whether a daemon runs on the state directory; nil: it is not known.
	Running func() bool
	Now     func() time.Time // nil: time.Now
	// WrapTransport wraps the transport to Cloudflare, for tests.
	WrapTransport func(http.RoundTripper) http.RoundTripper
	// disk asks the system about a directory; nil: diskOf.
	disk func(dir string) disk
	// euid is who runs this, and openAs opens a file as another user would; nil: os.Geteuid, openAs.
	euid func() int
	// inspect looks at a record of events; nil: audit.Inspect.
	inspect func(path string) (audit.Inspected, error)
	stat    func(path string) (fs.FileInfo, error) // nil: os.Stat
	openAs  func(user ServiceUser, path string) (closed string, err error)
}

// examination is one run.
type examination struct {
	Options
	findings []Finding
	// listed are the service tokens of each account that could be listed, by ID.
	listed map[string]map[string]rotation.TokenFacts
	// odd are the same listings, with the entries that cannot be read.
	odd map[string]cloudflare.Listing
	// vaultNow is what Vault's clock showed; zero if it is not known.
	vaultNow time.Time
	root     bool // the session with Vault has the policy root
}

// Examine checks everything. It never fails: what it could not check is a finding.
func Examine(ctx context.Context, o Options) []Finding {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.disk == nil {
		o.disk = diskOf
	}
	if o.euid == nil {
		o.euid = os.Geteuid
	}
	if o.stat == nil {
		o.stat = os.Stat
	}
	if o.inspect == nil {
		o.inspect = audit.Inspect
	}
	if o.openAs == nil {
		o.openAs = openAs
	}
	e := &examination{Options: o, listed: map[string]map[string]rotation.TokenFacts{}, odd: map[string]cloudflare.Listing{}}
	e.service()
	for _, name := range slices.Sorted(maps.Keys(o.Config.Accounts)) {
		e.account(ctx, o.Config.Accounts[name])
	}
	e.tokens()
	e.troubles(ctx)
	e.sinks(ctx)
	e.state()
	e.record()
	e.identity()
	return e.findings
}

// Worst returns the highest level of the findings.
func Worst(findings []Finding) Level {
	worst := Good
	for _, f := range findings {
		if f.Level == Bad || f.Level == Warning && worst == Good {
			worst = f.Level
		}
	}
	return worst
}

// add adds a finding. advice may be empty.
func (e *examination) add(level Level, code Code, subject, message, advice string) {
	e.findings = append(e.findings, printable.Copy(Finding{level, code, subject, message, advice}))
}

// endsSoon is how long before an end a warning comes.
const endsSoon = 30 * 24 * time.Hour

// shown is the form of a time in messages.
func shown(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// Code is a stable name of a finding.
type Code string

// The codes, in the order of the checks. docs/doctor.md explains each.
const (
	CredentialsElsewhere Code = "credentials_elsewhere"
	ServiceCannotRead    Code = "service_cannot_read"

	CredentialUnreadable  Code = "credential_unreadable"
	CredentialActive      Code = "credential_active"
	CredentialInactive    Code = "credential_inactive"
	CredentialRefused     Code = "credential_refused"
	CredentialNotVerified Code = "credential_not_verified"
	CredentialNotYet      Code = "credential_not_yet"
	CredentialEndsSoon    Code = "credential_ends_soon"
	CredentialWithoutEnd  Code = "credential_without_end"
	CredentialGlobalKey   Code = "credential_global_key"
	CredentialUserToken   Code = "credential_user_token"

	AccountUnreachable Code = "account_unreachable"
	AccountThrottled   Code = "account_throttled"
	AccountUnknown     Code = "account_unknown"
	ListAllowed        Code = "list_allowed"
	ListRefused        Code = "list_refused"
	ListFailed         Code = "list_failed"
	ListOdd            Code = "list_odd"
	WriteSeen          Code = "write_seen"
	WriteUnproven      Code = "write_unproven"
	ClockGood          Code = "clock_good"
	ClockApart         Code = "clock_apart"
	BudgetGood         Code = "budget_good"
	BudgetTooLarge     Code = "budget_too_large"
	BudgetShared       Code = "budget_shared"

	TokensGood       Code = "tokens_good"
	TokenGone        Code = "token_gone"
	TokenElsewhere   Code = "token_elsewhere"
	TokenDisabled    Code = "token_disabled"
	TokenEnded       Code = "token_ended"
	TokenEndsSoon    Code = "token_ends_soon"
	TokenNameTaken   Code = "token_name_taken"
	TokenNotLooked   Code = "token_not_looked_at"
	TokenToBeCreated Code = "token_to_be_made"
	TokenZoneRotate  Code = "token_of_a_zone"

	DaemonGood     Code = "daemon_finds_no_trouble"
	DaemonTrouble  Code = "daemon_trouble"
	TokenInDoubt   Code = "token_in_doubt"
	TokenOvertaken Code = "token_overtaken"
	TokenPending   Code = "token_secret_pending"
	TokenOwed      Code = "token_reissue_owed"
	TokenOutside   Code = "token_rotated_outside"
	TokenFailing   Code = "token_failing"

	VaultCredential     Code = "vault_credential"
	VaultCertificate    Code = "vault_certificate"
	VaultUnwrap         Code = "vault_unwrap"
	VaultLogin          Code = "vault_login"
	VaultNotTried       Code = "vault_login_not_tried"
	VaultNotRevoked     Code = "vault_session_not_revoked"
	VaultSession        Code = "vault_session"
	VaultSessionEnds    Code = "vault_session_ends"
	VaultSessionForever Code = "vault_session_without_end"
	VaultSessionParent  Code = "vault_session_of_a_parent"
	VaultSessionPerson  Code = "vault_session_of_a_person"
	VaultSessionUses    Code = "vault_session_uses"
	VaultLookup         Code = "vault_lookup_refused"
	VaultSelfRights     Code = "vault_self_rights"
	VaultDefault        Code = "vault_policy_default"
	VaultRoot           Code = "vault_root"
	VaultAdmin          Code = "vault_admin"
	VaultRole           Code = "vault_role"
	VaultRoleWide       Code = "vault_role_wide"
	VaultRoleNotSeen    Code = "vault_role_not_looked_at"
	VaultMount          Code = "vault_mount"
	VaultMountBad       Code = "vault_mount_unusable"
	SinksGood           Code = "sinks_good"
	SinkUnusable        Code = "sink_unusable"
	SinkNotTried        Code = "sink_not_tried"
	SinkDeletes         Code = "sink_version_deletes"
	SinkPartial         Code = "sink_partial"
	SinkExcess          Code = "sink_excess"
	SinkMetadata        Code = "sink_metadata"
	VaultWide           Code = "vault_wide"

	HooksGood    Code = "hooks_good"
	HookUnusable Code = "hook_unusable"
	HookNotTried Code = "hook_not_tried"

	SharedGood       Code = "shared_good"
	SharedMount      Code = "shared_mount_unusable"
	SharedRights     Code = "shared_rights"
	SharedExcess     Code = "shared_excess"
	SharedClock      Code = "shared_clock"
	SharedClockGood  Code = "shared_clock_good"
	SharedUnreadable Code = "shared_unreadable"
	SharedMoved      Code = "shared_moved"
	SharedForeign    Code = "shared_foreign"
	SharedReplicas   Code = "shared_replicas"
	SharedName       Code = "shared_replica_name"
	SharedRecipients Code = "shared_recipients"
	SharedClaim      Code = "shared_claim"

	StateGood     Code = "state_good"
	StateMissing  Code = "state_missing"
	StateNotSeen  Code = "state_not_looked_at"
	StateUnusable Code = "state_unusable"
	StateOpen     Code = "state_open"
	StateRefused  Code = "state_refused"
	StateLow      Code = "state_low_space"
	StateVolatile Code = "state_volatile"

	RecordGood     Code = "record_good"
	RecordMissing  Code = "record_missing"
	RecordNotSeen  Code = "record_not_looked_at"
	RecordUnusable Code = "record_unusable"
	RecordOpen     Code = "record_open"
	RecordDamaged  Code = "record_damaged"
	RecordLow      Code = "record_low_space"

	IdentityBeside Code = "identity_beside"
	IdentityApart  Code = "identity_apart"
	IdentityPlugin Code = "identity_plugin"
)
