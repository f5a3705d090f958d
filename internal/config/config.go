// Package config reads rotatord's configuration file.
//
// Guarantee: a [Config] that [Load] returns is complete and consistent. Every
// default is applied, every reference exists, every schedule can work, and a field
// that this version does not support is an error. All faults of a file are reported
// together, each with its place and a remedy. A secret is never in the file: a
// [SecretSource] says where it is.
package config

import (
	"crypto/sha256"
	"time"

	"rotatord/internal/scheduler"
)

// Config is a checked configuration with every default applied.
type Config struct {
	// File is the path that the configuration was read from.
	File string
	// Listen is the address of metrics, health and status page. Default
	// 127.0.0.1:9321.
	Listen string
	// Hosts are names, in lower case and without a port, under which the pages may be reached beside addresses,
	// localhost, the host of Listen and that of ExternalURL.
	Hosts []string
	// ExternalURL is the address under which people reach the pages, without a slash at its end. Empty: none.
	ExternalURL string
	// AdminSocket is the path of the unix socket for commands that act on the running
	// daemon. Default empty: none.
	AdminSocket string
	Log         Log
	Metrics     Metrics
	State       State
	// Audit is the record of events.
	Audit Audit
	// Allow says who may use which commands at the admin socket. nil: all who can reach it may use all.
	Allow []Allow
	// Accounts by config name.
	Accounts map[string]Account
	// Vault is nil if the file names none, which is so only if no sink needs it.
	Vault *Vault
	// Kubernetes is the cluster of the Secrets that sinks write. The zero value is the cluster that the daemon
	// runs in; without such a sink it has no effect.
	Kubernetes Kubernetes
	// WatchEvery is vault.watch_every: how often each sink is compared with the ledger. Default 15m, also
	// without a Vault; 0 for never.
	WatchEvery time.Duration
	// Notify are the receivers of notifications, in the order of the file. Default none.
	Notify []Receiver
	// Tokens are sorted by name.
	Tokens []Token
	// Warnings are about what works, and what the operator should look at, in the order of the
	// file. See Lint for those that depend on the date.
	Warnings []Fault

	notes   notes
	digest  [sha256.Size]byte // of the file's content; zero if it was read from no file
	folders folders           // of its files, as they were when it was read
}

// Log says how to log.
type Log struct {
	Level  string // debug, info (default), warn or error
	Format string // json (default) or text
}

// Metrics says what is shown at /metrics.
type Metrics struct {
	PerToken string // full (default) or essential
}

// State says where the daemon keeps what must survive it.
type State struct {
	// Dir holds the ledger, the journal and the sealed pending secrets. Default
	// /var/lib/rotatord. With Shared it holds no ledger.
	Dir string
	// Identity is the age identity that seals pending secrets. Zero means the
	// file identity.age in Dir, which is created at the first start.
	Identity SecretSource
	// Recipients are age recipients that pending secrets are sealed to beside the
	// identity.
	Recipients []string
	// Shared is nil if this daemon is alone and its ledger is in Dir.
	Shared *Shared
}

// Shared says where several replicas have their one ledger. It is in [Config.Vault].
type Shared struct {
	// Mount is a KV mount of version 2, without slashes at the ends, and Prefix the path below it that
	// belongs to rotatord alone.
	Mount, Prefix string
	// Claim is how long a replica may work on a token before another may take it over. Default 2m.
	Claim time.Duration
	// Replica is the name of this replica as the file has it; empty for the name of the host. See
	// [Shared.Name].
	Replica string
}

// Audit says where the record of events is and how much of it is kept.
type Audit struct {
	// File is an absolute path. Default audit/audit.jsonl in State.Dir.
	File string
	// MaxSize is the size of a full file in bytes. Default 64 MiB.
	MaxSize int64
	// MaxAge is how old the first line of a file may be before it is full; 0 for any age. Default 30 days.
	MaxAge time.Duration
	// Keep is how many full files are kept. Default 12.
	Keep int
}

// Allow lets a user or the members of a group use some commands.
type Allow struct {
	User, Group string   // exactly one, a name or a number
	Verbs       []string // of AllowVerbs
}

// Account is one Cloudflare account with the credential to reach it: an API token,
// or an e-mail address with a global API key.
type Account struct {
	Name string // the name in the configuration
	// Exactly one of AccountID and ZoneID, 32 hex digits.
	AccountID, ZoneID string
	APIToken          SecretSource
	APIEmail          string
	APIKey            SecretSource
	// BaseURL is the API's address without a trailing slash. Default
	// https://api.cloudflare.com/client/v4.
	BaseURL string
	// RequestsPer5m is the budget of requests in five minutes for this
	// credential. Default 1000; Cloudflare's own limit is 1200.
	RequestsPer5m int
	// InventoryEvery is how often the service tokens are listed. Default 1h.
	InventoryEvery time.Duration
}

// Vault is the one Vault that secrets are written to.
type Vault struct {
	// Address is a URL without a path at its end, or unix:// and the path of a socket.
	Address string
	// Nodes are further URLs that a standby may redirect to, without a path.
	Nodes     []string
	Namespace string
	TLS       TLS
	// Timeout of one request. Default 30s.
	Timeout time.Duration
	Auth    VaultAuth
}

// Kubernetes says how to reach the API server of the cluster whose Secrets are written.
type Kubernetes struct {
	// Kubeconfig is the path of a kubeconfig file. Empty: the daemon runs in the cluster.
	Kubeconfig string
	// Context is the context of the kubeconfig; empty for its current-context.
	Context string
}

// TLS names PEM files. Zero fields mean the system's defaults.
type TLS struct {
	CAFile, CertFile, KeyFile string
	ServerName                string
}

// Token is one service token and how it is rotated.
type Token struct {
	Name    string // the name in the configuration, and the metric label
	Account string // the name of an Account
	ID      string // Cloudflare's UUID of the service token, in lower case; empty with Create
	// Create says how the service token is created if there is none; nil if ID names it.
	Create *Create
	// Partner is the UUID of the second service token of a pair, of which ID is the one
	// that was in use when the pair was configured; empty for a single token.
	Partner  string
	Schedule *scheduler.Schedule
	// Jitter is the largest delay after a slot. Default 0.
	Jitter time.Duration
	// Grace is how long the previous secret stays valid. Default 24h; 0 revokes
	// it at once.
	Grace time.Duration
	// Window is how long after its beginning a slot may be served; after that it is missed.
	// Default 0: until the next one comes.
	Window time.Duration
	// Freezes are when no rotation begins: the global ones that apply, then its own, each
	// in the order of the file. The slice is shared with other tokens and must not be changed.
	Freezes []scheduler.Freeze
	Sinks   []Sink
	// RenewBefore is how long before its end the service token itself is renewed. Default 0:
	// never.
	RenewBefore time.Duration
	// RenewFor is how long it lives from a renewal on: a Go duration, or empty for a year, as
	// Cloudflare's refresh has it. Default: the duration of Create, or empty.
	RenewFor string
	// Verify is the application at which a new secret is tried; nil if there is none.
	Verify *Verify
	// After are the hooks that run after each rotation. Default none.
	After []Hook
	// Replace is strategy: replace. Each rotation creates a new service token, and deletes the
	// old one after the grace.
	Replace bool
	// SkipMissed says that there is no catch-up for missed slots (catch_up: skip). Default false:
	// one rotation catches up for all of them.
	SkipMissed bool
	// Heal is outside_rotation: rotate. Default false: alarm only.
	Heal bool
	// Restore is outside_change: restore. Default false: alarm only.
	Restore bool
}

// Create says how a service token is created.
type Create struct {
	Name     string
	Duration string // a Go duration or "forever". Default 8760h.
	Adopt    bool   // a service token of that name is taken over. Default false: it is an error.
}

// Verify is an application behind Access.
type Verify struct {
	URL string
	// Header is the one header that carries the whole credential, for applications with
	// read_service_tokens_from_header. Default empty: the two usual headers.
	Header string
	// Within is how long Cloudflare's edge may take to accept a new secret. Default 1m.
	Within time.Duration
	// Every is how often the secret in use is tried again. Default 0: never.
	Every time.Duration
}

// Timetable returns when the token rotates.
func (t Token) Timetable() scheduler.Timetable {
	return scheduler.Timetable{
		Schedule: t.Schedule, Jitter: t.Jitter, Window: t.Window, SkipMissed: t.SkipMissed, Freezes: t.Freezes, Key: t.Name,
	}
}
