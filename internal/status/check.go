package status

import "time"

// The names of checks: what rotations need, and the daemon itself.
const (
	CheckStateDirectory = "state_directory" // ledger and sealed secrets can be written
	CheckDiskSpace      = "disk_space"      // space is left on the disk of the state directory
	CheckAudit          = "audit"           // requests that change a secret can be recorded
	CheckAuditChain     = "audit_chain"     // the record of events was not found damaged since the start
	CheckVault          = "vault"           // Vault answers, is unsealed, and there is a session
	CheckVaultTLS       = "vault_tls"       // the files of vault.tls are in use, and the client certificate lasts
	CheckVaultLogin     = "vault_login"     // the last login to Vault succeeded, or there is no session at all
	CheckWrappingToken  = "wrapping_token"  // the wrapping token that was delivered last could be unwrapped
	CheckSink           = "sink"            // a sink can be written to
	CheckCloudflare     = "cloudflare"      // the account's service tokens can be read
	CheckCredential     = "credential"      // the account's credential can be read from its file
	CheckConfiguration  = "configuration"   // the last reload was not refused
	CheckClock          = "clock"           // the wall clock was not set since the start
	CheckNotify         = "notify"          // a receiver of notifications takes messages
)

// CheckNames are all of them.
var CheckNames = []string{CheckStateDirectory, CheckDiskSpace, CheckAudit, CheckAuditChain, CheckVault, CheckVaultTLS, CheckVaultLogin, CheckWrappingToken, CheckSink, CheckCloudflare, CheckCredential,
	CheckConfiguration, CheckClock, CheckNotify}

// Check is the last result of a check.
type Check struct {
	// Name is one of [CheckNames]. Subject is what the check is about, such as the name of an
	// account; empty if there is only one.
	Name    string `json:"check"`
	Subject string `json:"subject,omitempty"`
	OK      bool   `json:"ok"`
	// Stops is set if no rotation that needs the subject can begin while the check fails.
	Stops bool `json:"stops_rotations,omitempty"`
	// LookedAt is when it was last looked at.
	LookedAt time.Time `json:"looked_at,omitzero"`
	// Since is when the check began to fail. Reason says why in one stable word, and Detail in a
	// sentence. All are empty while the check is good.
	Since  time.Time `json:"failing_since,omitzero"`
	Reason string    `json:"reason,omitempty"`
	Detail string    `json:"detail,omitempty"`
	// Place is where it is mended: the path of a file or directory, an environment variable, or an address. It is empty
	// while the check is good, or if there is none.
	Place string `json:"place,omitempty"`
}

// Fails reports whether the check was looked at and is not good.
func (c Check) Fails() bool { return !c.OK && !c.LookedAt.IsZero() }

// Title returns the check and its subject in words.
func (c Check) Title() string {
	title := checkTitles[c.Name]
	if title == "" {
		title = c.Name
	}
	if c.Subject != "" {
		title += " " + c.Subject
	}
	return title
}

var checkTitles = map[string]string{
	CheckStateDirectory: "state directory", CheckDiskSpace: "disk space", CheckAudit: "record of events", CheckAuditChain: "chain of the record of events", CheckVault: "Vault", CheckVaultTLS: "TLS to Vault",
	CheckVaultLogin: "login to Vault", CheckWrappingToken: "wrapping token", CheckSink: "sink",
	CheckCloudflare: "Cloudflare account", CheckCredential: "credential of account", CheckConfiguration: "configuration",
	CheckClock: "clock", CheckNotify: "receiver of notifications",
}
