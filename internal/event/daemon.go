package event

import (
	"fmt"
	"strings"
	"time"
)

// This file has the details of what happens to the daemon itself, and of what it finds.

// DaemonStart tells that the daemon serves and schedules.
type DaemonStart struct {
	Version     string
	Tokens      int
	Address     string
	AdminSocket string
	StateDir    string
}

func (d DaemonStart) kind() Kind { return Started }
func (d DaemonStart) more(Event) string {
	return fmt.Sprintf("version %s, %d tokens", d.Version, d.Tokens)
}
func (d DaemonStart) attrs(Event) []any {
	return []any{"version", d.Version, "tokens", d.Tokens, "address", d.Address, "admin_socket", d.AdminSocket, "state_dir", d.StateDir}
}

// DaemonStop tells that the daemon begins to stop because it was asked to.
type DaemonStop struct {
	Cause  string
	Within time.Duration // for the rotations in progress
}

func (d DaemonStop) kind() Kind        { return Stopping }
func (d DaemonStop) more(Event) string { return d.Cause }
func (d DaemonStop) attrs(Event) []any { return []any{"cause", d.Cause, "within", d.Within.String()} }

// DaemonFailure tells that the daemon stops because it cannot go on.
type DaemonFailure struct{ Err error }

func (d DaemonFailure) kind() Kind        { return Failed }
func (d DaemonFailure) failure() error    { return d.Err }
func (d DaemonFailure) more(Event) string { return "" }
func (d DaemonFailure) attrs(Event) []any { return []any{"error", d.Err} }

// DaemonEnd tells that the daemon has stopped. It is the last event of a process.
type DaemonEnd struct{}

func (d DaemonEnd) kind() Kind        { return Stopped }
func (d DaemonEnd) more(Event) string { return "" }
func (d DaemonEnd) attrs(Event) []any { return nil }

// Interruption tells of the tokens whose rotation the end of the shutdown timeout has cut short.
type Interruption struct{ Tokens []string }

func (d Interruption) kind() Kind        { return Interrupted }
func (d Interruption) more(Event) string { return strings.Join(d.Tokens, ", ") }
func (d Interruption) attrs(Event) []any { return []any{"tokens", d.Tokens} }

// Loss tells that secrets which could not be sealed end with this process.
type Loss struct{ Err error }

func (d Loss) kind() Kind        { return SecretsLost }
func (d Loss) failure() error    { return d.Err }
func (d Loss) more(Event) string { return "" }
func (d Loss) attrs(Event) []any { return []any{"error", d.Err} }

// Reload tells that a new configuration is in force.
type Reload struct{ Tokens, Changed, Removed int }

func (d Reload) kind() Kind { return Reloaded }
func (d Reload) more(Event) string {
	return fmt.Sprintf("%d tokens, of which %d are new or changed; %d were removed", d.Tokens, d.Changed, d.Removed)
}

func (d Reload) attrs(Event) []any {
	return []any{"tokens", d.Tokens, "new_or_changed", d.Changed, "removed", d.Removed}
}

// ReloadRefusal tells that a new configuration was not taken: because of its faults, or of an error.
type ReloadRefusal struct {
	Faults []string
	Err    error
}

func (d ReloadRefusal) kind() Kind        { return ReloadFailed }
func (d ReloadRefusal) failure() error    { return d.Err }
func (d ReloadRefusal) more(Event) string { return strings.Join(d.Faults, "; ") }
func (d ReloadRefusal) attrs(Event) []any {
	if d.Err == nil && len(d.Faults) == 1 {
		return []any{"fault", d.Faults[0]}
	}
	return withError(nil, d.Err)
}

// parts returns an event for each fault: the log has a line for each.
func (d ReloadRefusal) parts(e Event) []Event {
	if d.Err != nil || len(d.Faults) < 2 {
		return []Event{e}
	}
	all := make([]Event, 0, len(d.Faults))
	for _, fault := range d.Faults {
		e.Detail = ReloadRefusal{Faults: []string{fault}}
		all = append(all, e)
	}
	return all
}

// CheckResult tells that a look-ahead check began to fail, fails for another reason, or is good again.
type CheckResult struct {
	Check   string
	Subject string // empty where there is only one
	OK      bool
	Stops   bool // no rotation that needs the subject can begin while it fails
	// Credential is set if the check only reads a credential file. Package cloudflare logs that itself.
	Credential bool
	Reason     string // a stable code; empty if it is good
	Detail     string
}

func (d CheckResult) kind() Kind {
	switch {
	case d.Credential:
		return pick(d.OK, CredentialReadable, CredentialUnreadable)
	case d.OK:
		return CheckRecovered
	case d.Stops:
		return CheckFailing
	default:
		return CheckWarning
	}
}

func (d CheckResult) more(Event) string {
	return joined(strings.TrimSpace(d.Check+" "+d.Subject), d.Detail)
}

func (d CheckResult) attrs(Event) []any {
	attrs := []any{"check", d.Check}
	if d.Subject != "" {
		attrs = append(attrs, "subject", d.Subject)
	}
	if !d.OK {
		attrs = append(attrs, "reason", d.Reason, "error", d.Detail)
	}
	return attrs
}

// Leftover tells of a token whose rotation an earlier process has left unfinished.
type Leftover struct {
	RotationID string
	Step       string
	In         time.Duration // until it is continued
}

func (d Leftover) kind() Kind        { return Unfinished }
func (d Leftover) more(Event) string { return d.Step }
func (d Leftover) attrs(Event) []any {
	return []any{"rotation_id", d.RotationID, "step", d.Step, "in", d.In.Round(time.Second).String()}
}

// OldDoubt tells of a token that has been in doubt since before this start.
type OldDoubt struct {
	RotationID    string
	Reason        string
	Since         time.Time
	OldWorksUntil time.Time
}

func (d OldDoubt) kind() Kind        { return DoubtFound }
func (d OldDoubt) more(Event) string { return ReasonText(d.Reason) }
func (d OldDoubt) attrs(Event) []any {
	return []any{"rotation_id", d.RotationID, "reason", d.Reason, "since", d.Since, "old_works_until", d.OldWorksUntil}
}

// OldOvertaken tells of a token whose new secret has been overtaken since before this start.
type OldOvertaken struct {
	RotationID string
	Since      time.Time
}

func (d OldOvertaken) kind() Kind        { return OvertakenFound }
func (d OldOvertaken) more(Event) string { return "" }
func (d OldOvertaken) attrs(Event) []any { return []any{"rotation_id", d.RotationID, "since", d.Since} }

// Orphan tells of an unfinished rotation whose token is no longer configured.
type Orphan struct {
	TokenID    string
	Account    string
	Step       string
	RotationID string
}

func (d Orphan) kind() Kind        { return Forgotten }
func (d Orphan) more(Event) string { return d.Step }
func (d Orphan) attrs(Event) []any {
	return []any{"token_id", d.TokenID, "account", d.Account, "step", d.Step, "rotation_id", d.RotationID}
}

// NotEnrolled tells that a token which a reload brought or changed is not scheduled yet.
type NotEnrolled struct{ Err error }

func (d NotEnrolled) kind() Kind        { return EnrollFailed }
func (d NotEnrolled) failure() error    { return d.Err }
func (d NotEnrolled) more(Event) string { return "" }
func (d NotEnrolled) attrs(Event) []any { return []any{"error", d.Err} }

// ClockStep tells that the wall clock was set while the daemon ran, or that the machine slept.
type ClockStep struct{ Step time.Duration }

func (d ClockStep) kind() Kind        { return ClockSet }
func (d ClockStep) more(Event) string { return d.Step.Round(time.Second).String() }
func (d ClockStep) attrs(Event) []any {
	return []any{"step", d.Step.Round(time.Millisecond).String()}
}

// ListingFailure tells that the service tokens of an account could not be listed, or not all of them.
type ListingFailure struct {
	Account string
	Err     error
	Listed  int
	RetryIn time.Duration
}

func (d ListingFailure) kind() Kind        { return ListingFailed }
func (d ListingFailure) failure() error    { return d.Err }
func (d ListingFailure) more(Event) string { return d.Account }
func (d ListingFailure) attrs(Event) []any {
	return []any{"account", d.Account, "error", d.Err, "listed", d.Listed, "retry_in", d.RetryIn.String()}
}

// OddListing tells that a listing has entries which cannot be read.
type OddListing struct {
	Account string
	What    string
}

func (d OddListing) kind() Kind        { return ListingOdd }
func (d OddListing) more(Event) string { return joined(d.Account, d.What) }
func (d OddListing) attrs(Event) []any { return []any{"account", d.Account, "error", d.What} }

// Seen tells of something that an inventory has shown of a service token. What is the kind: it is one
// of [TokenGone], [TokenDisabled], [TokenUnreadable] and [TokenNotFound].
type Seen struct {
	What    Kind
	Account string
	TokenID string
	Err     string // what Cloudflare or the entry says; empty if nothing
}

func (d Seen) kind() Kind        { return d.What }
func (d Seen) more(Event) string { return joined(d.TokenID, d.Err) }
func (d Seen) attrs(Event) []any {
	attrs := []any{"account", d.Account, "token_id", d.TokenID}
	if d.Err != "" {
		attrs = append(attrs, "error", d.Err)
	}
	return attrs
}

// LimitWait tells that the rotations of an account wait for Cloudflare's request limit.
type LimitWait struct {
	Account string
	Waiting int
	Reason  string
	Until   time.Time // zero if that is not known
}

func (d LimitWait) kind() Kind        { return LimitReached }
func (d LimitWait) more(Event) string { return joined(d.Account, d.Reason) }
func (d LimitWait) attrs(Event) []any {
	attrs := []any{"account", d.Account, "waiting", d.Waiting, "reason", d.Reason}
	if !d.Until.IsZero() {
		attrs = append(attrs, "until", d.Until.UTC().Format(time.RFC3339))
	}
	return attrs
}

// LimitEnd tells that they no longer wait.
type LimitEnd struct {
	Account string
	Waited  time.Duration
}

func (d LimitEnd) kind() Kind        { return LimitOver }
func (d LimitEnd) more(Event) string { return d.Account }
func (d LimitEnd) attrs(Event) []any {
	return []any{"account", d.Account, "waited", d.Waited.Round(time.Second).String()}
}

// WebConfig tells that the web configuration, or what it names, cannot be read, or can be again (Err nil).
type WebConfig struct{ Err error }

func (d WebConfig) kind() Kind        { return either(d.Err, WebConfigReadable, WebConfigUnreadable) }
func (d WebConfig) failure() error    { return d.Err }
func (d WebConfig) more(Event) string { return "" }
func (d WebConfig) attrs(Event) []any { return withError(nil, d.Err) }

// VaultLogin tells that a session with Vault began, or why the login failed.
type VaultLogin struct {
	Vault     string // its address
	Method    string
	Lease     time.Duration
	Renewable bool
	Err       error
	RetryIn   time.Duration
	// Replaced is set if the login failed although the old session goes on: its credential was replaced.
	Replaced bool
}

func (d VaultLogin) kind() Kind {
	switch {
	case d.Err == nil:
		return VaultLoggedIn
	case d.Replaced:
		return VaultCredentialRefused
	default:
		return VaultLoginFailed
	}
}

func (d VaultLogin) failure() error    { return d.Err }
func (d VaultLogin) more(Event) string { return d.Method }
func (d VaultLogin) attrs(e Event) []any {
	switch e.Kind {
	case VaultLoggedIn:
		return []any{"vault", d.Vault, "method", d.Method, "lease", d.Lease.String(), "renewable", d.Renewable}
	case VaultLoginFailed:
		return []any{"vault", d.Vault, "error", d.Err, "retry_in", d.RetryIn.Round(time.Millisecond).String()}
	default:
		return []any{"vault", d.Vault, "error", d.Err}
	}
}

// VaultSessionEnd tells that a session with Vault ended. A login follows.
type VaultSessionEnd struct {
	Vault  string // its address
	Reason string
}

func (d VaultSessionEnd) kind() Kind        { return VaultSessionEnded }
func (d VaultSessionEnd) more(Event) string { return d.Reason }
func (d VaultSessionEnd) attrs(Event) []any { return []any{"vault", d.Vault, "reason", d.Reason} }

// VaultRenewalFailure tells that the session with Vault could not be renewed yet, or may not be.
type VaultRenewalFailure struct {
	Vault   string // its address
	Refused bool
	Err     error
}

func (d VaultRenewalFailure) kind() Kind {
	return pick(d.Refused, VaultRenewalRefused, VaultRenewalFailed)
}
func (d VaultRenewalFailure) failure() error    { return d.Err }
func (d VaultRenewalFailure) more(Event) string { return "" }
func (d VaultRenewalFailure) attrs(Event) []any { return []any{"vault", d.Vault, "error", d.Err} }

// MetadataRefusal tells that Vault refused to write custom metadata, which are for people only.
type MetadataRefusal struct {
	Vault string // its address
	Mount string
	Err   error
}

func (d MetadataRefusal) kind() Kind        { return VaultMetadataRefused }
func (d MetadataRefusal) failure() error    { return d.Err }
func (d MetadataRefusal) more(Event) string { return "" }
func (d MetadataRefusal) attrs(Event) []any {
	return []any{"vault", d.Vault, "mount", d.Mount, "error", d.Err}
}

// VaultRevocationFailure tells that a session that is not needed any more could not be revoked. It ends with its lease.
type VaultRevocationFailure struct {
	Vault string // its address
	Err   error
}

func (d VaultRevocationFailure) kind() Kind        { return VaultRevocationFailed }
func (d VaultRevocationFailure) failure() error    { return d.Err }
func (d VaultRevocationFailure) more(Event) string { return "" }
func (d VaultRevocationFailure) attrs(Event) []any { return []any{"vault", d.Vault, "error", d.Err} }

// VaultTLS tells that the files of vault.tls have another content, which new connections use, or cannot be used, so that
// connections go on with the content before it (Err).
type VaultTLS struct {
	Vault           string    // its address
	CertificateEnds time.Time // of the client certificate in use; zero if there is none
	Err             error
}

func (d VaultTLS) kind() Kind        { return either(d.Err, VaultTLSReloaded, VaultTLSKept) }
func (d VaultTLS) failure() error    { return d.Err }
func (d VaultTLS) more(Event) string { return "" }
func (d VaultTLS) attrs(Event) []any {
	attrs := []any{"vault", d.Vault}
	if !d.CertificateEnds.IsZero() {
		attrs = append(attrs, "certificate_ends", d.CertificateEnds.UTC().Format(time.RFC3339))
	}
	return withError(attrs, d.Err)
}

// VaultUnwrap tells that a wrapping token was unwrapped, or that it could not be, which may mean theft (Err).
type VaultUnwrap struct {
	Vault string // its address
	// Role is the AppRole role that the wrapping token was created at; empty if it is not known.
	Role string
	// SecretIDEnds is when the secret ID ends; zero if it does not, or if there is none.
	SecretIDEnds time.Time
	Err          error
}

func (d VaultUnwrap) kind() Kind        { return either(d.Err, VaultUnwrapped, VaultUnwrapFailed) }
func (d VaultUnwrap) failure() error    { return d.Err }
func (d VaultUnwrap) more(Event) string { return d.Role }
func (d VaultUnwrap) attrs(Event) []any {
	attrs := []any{"vault", d.Vault}
	if d.Role != "" {
		attrs = append(attrs, "role", d.Role)
	}
	if !d.SecretIDEnds.IsZero() {
		attrs = append(attrs, "secret_id_ends", d.SecretIDEnds.UTC().Format(time.RFC3339))
	}
	return withError(attrs, d.Err)
}

// VaultSecretIDNotKept tells that an unwrapped secret ID is in memory only. A restart would lose it.
type VaultSecretIDNotKept struct {
	Vault string // its address
	Err   error
}

func (d VaultSecretIDNotKept) kind() Kind        { return VaultSecretIDUnsaved }
func (d VaultSecretIDNotKept) failure() error    { return d.Err }
func (d VaultSecretIDNotKept) more(Event) string { return "" }
func (d VaultSecretIDNotKept) attrs(Event) []any { return []any{"vault", d.Vault, "error", d.Err} }

// pick returns the first kind if the condition holds, else the second.
func pick(condition bool, yes, no Kind) Kind {
	if condition {
		return yes
	}
	return no
}
