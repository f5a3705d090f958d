// Package raw is the shape of rotatord's configuration file, as it is written.
//
// These types are the only source of what a file may say. The strict reader in
// package config decodes into them, docs/config.schema.json is generated from them
// and their comments, and tests compare docs/configuration.md and config.example.yaml
// with them. Nothing here is checked or has a default; package config does that.
//
// Scalars are pointers, so that an absent field differs from an empty one. Tags:
// yaml is the key, jsonschema the keywords of the schema ("required" is enforced by
// the reader too), and hint ends the message about a field that is missing or empty.
package raw

import "time"

// Duration is a Go duration such as 90s, 10m or 720h, or 0.
type Duration time.Duration

// Secret says where a secret is. A secret is never in the configuration itself.
// Exactly one of file and env.
type Secret struct {
	// A file that holds the secret and nothing else: no quotes, no name before it. It is
	// read again each time the secret is needed, so a credential can be replaced without a
	// restart; white space around it is dropped. Nothing in the path is expanded (~, $NAME).
	// No default. Prefer it to env: a process cannot hide its environment from others of
	// the same user.
	File *string `yaml:"file"`
	// The name of an environment variable. It is fixed when the daemon starts: a
	// new value needs a restart. No default.
	Env *string `yaml:"env"`
}

// File is the whole configuration file.
type File struct {
	// The host:port of metrics, health and the read-only status page. Default
	// 127.0.0.1:9321, which only this host can reach. An empty host means all
	// interfaces, which Prometheus on another host needs; nothing there is secret,
	// but token names are. Port 0 takes any free port.
	Listen *string `yaml:"listen" jsonschema:"default=127.0.0.1:9321,example=:9321"`
	// Host names under which the status page, its API and the documents may be reached, beside IP
	// addresses, localhost, the host of listen and that of external_url. A request with another name is
	// refused, so that a foreign site cannot read the page through a browser. Metrics and health are
	// answered under any name. Default none.
	Hosts []*string `yaml:"hosts" jsonschema:"example=rotatord.example.com"`
	// The address under which people reach the status page, for links in notifications. Default
	// none: then they have no links.
	ExternalURL *string `yaml:"external_url" jsonschema:"example=https://rotatord.example.com"`
	// The unix socket at which rotatord status and rotatord resolve reach the running
	// daemon, as an absolute path of at most 107 bytes, in a directory that others cannot write to.
	// Default none: then those commands have nothing to talk to. The user and the
	// group of the daemon may use it, and root.
	AdminSocket *string `yaml:"admin_socket" jsonschema:"pattern=^/,maxLength=107,example=/run/rotatord/admin.sock"`
	// How to log. Default level info in format json, on standard error.
	Log Log `yaml:"log"`
	// What is shown at /metrics. Default everything.
	Metrics Metrics `yaml:"metrics"`
	// Where the daemon keeps what must survive it.
	State State `yaml:"state"`
	// The record of events: who did what, when, why, and what came of it. It is always kept.
	Audit Audit `yaml:"audit"`
	// Who may use which commands at the admin socket. Default: all who can reach the socket may use all.
	Admin Admin `yaml:"admin"`
	// The Cloudflare accounts by a name of your choice. At least one; no default.
	Accounts map[string]Account `yaml:"accounts" jsonschema:"required" hint:"give at least one Cloudflare account"`
	// The one Vault that secrets are written to. Required if a sink needs it.
	Vault Vault `yaml:"vault"`
	// The Kubernetes cluster of the Secrets that sinks of that kind write. Default: the cluster that
	// the daemon runs in.
	Kubernetes Kubernetes `yaml:"kubernetes"`
	// Who is told what is wrong. Default none: then only metrics, log, status page and commands say it.
	Notify []Receiver `yaml:"notify" hint:"give at least one receiver, or remove the key"`
	// Values for all tokens that do not set the field themselves. Default none.
	Defaults Defaults `yaml:"defaults"`
	// Periods in which no rotation begins, by a name of your choice, for all tokens that do
	// not name them in except_freezes. Default none.
	Freezes map[string]Freeze `yaml:"freezes" hint:"give at least one freeze, or remove the key"`
	// The service tokens by a name of your choice, which is also the metric label
	// and the key in the ledger: an entry with a new name has no history. At least
	// one; no default.
	Tokens map[string]Token `yaml:"tokens" jsonschema:"required" hint:"give at least one service token"`
}

// Log says how to log.
type Log struct {
	// The least severe level that is logged. Default info. debug is for
	// finding a fault: it logs too much for normal use.
	Level *string `yaml:"level" jsonschema:"enum=debug,enum=info,enum=warn,enum=error,default=info"`
	// json for machines, text for people. Default json.
	Format *string `yaml:"format" jsonschema:"enum=json,enum=text,default=json"`
}

// Metrics says what is shown at /metrics.
type Metrics struct {
	// full shows every series of each token, more than twenty. essential shows five of a token that is all
	// right, and more of one that is not, as far as the shipped alerts need them: for a
	// Prometheus with a limit, and thousands of tokens. Default full.
	PerToken *string `yaml:"per_token" jsonschema:"enum=full,enum=essential,default=full"`
}

// State says where the daemon keeps what must survive it.
type State struct {
	// The directory of the ledger, the journal and the sealed pending secrets, as an
	// absolute path; with shared the ledger is not there. Default /var/lib/rotatord. It must be on a disk that survives a
	// restart: a secret that Cloudflare has issued and that is not in every sink yet is only
	// there.
	Dir *string `yaml:"dir" jsonschema:"default=/var/lib/rotatord"`
	// The age identity (AGE-SECRET-KEY-..., or AGE-PLUGIN-... of a TPM or a hardware key) that seals pending secrets on disk.
	// Default: identity.age in dir, created at the first start; there a copy of dir is enough to open
	// them. rotatord identity create makes one elsewhere, and identity copy moves one. Without it they are lost.
	Identity Secret `yaml:"identity"`
	// Several replicas share one ledger, which is in Vault. Default none: this daemon is alone, and the
	// ledger is in dir. Then dir has the sealed pending secrets, and no ledger.
	Shared Shared `yaml:"shared"`
	// Further age recipients (age1...) that every pending secret is sealed to, beside
	// the identity. Default none. The owner of such a recipient's identity, for example a break-glass key
	// in a safe, can open what is pending in dir with rotatord recover if the
	// daemon's own identity is gone. It applies to what is sealed from then on.
	Recipients []*string `yaml:"recipients" hint:"give at least one age recipient (age1...), or remove the key"`
}

// Shared says where several replicas have their one ledger, and what this replica is called.
type Shared struct {
	// Where the ledger is. Required.
	Vault SharedVault `yaml:"vault" jsonschema:"required" hint:"say where the ledger is, such as vault: {mount: secret, prefix: rotatord}"`
	// How long a replica may work on a token before another may take it over, 5s to 1h. Default 2m. A
	// shorter time serves the tokens of a dead replica earlier. A longer one tolerates slower answers
	// of Vault. All replicas should have the same.
	Claim *Duration `yaml:"claim" jsonschema:"default=2m"`
	// The name of this replica: 1 to 63 of a-z, 0-9, dot, dash and underscore. Default the name of the host.
	// Each replica must have a name of its own, and keep it when it is restarted.
	Replica *string `yaml:"replica" jsonschema:"example=rotatord-0"`
}

// SharedVault is where the shared ledger is: in the Vault of the section vault, and in its namespace.
type SharedVault struct {
	// A mount of the KV secrets engine, version 2. Required.
	Mount *string `yaml:"mount" jsonschema:"required,example=secret" hint:"give a mount of KV version 2, such as secret"`
	// The path below the mount below which rotatord alone reads and writes. Required. No sink may write
	// there.
	Prefix *string `yaml:"prefix" jsonschema:"required,example=rotatord" hint:"give the path below the mount, such as rotatord"`
}

// Audit says where the record of events is and how much of it is kept.
type Audit struct {
	// The file that is written, as an absolute path in a directory that only the daemon can write to. Default
	// audit/audit.jsonl in state.dir. Full files, and the head of the record, are beside it. No request that
	// changes a secret is sent while it cannot be written.
	File *string `yaml:"file" jsonschema:"pattern=^/,example=/var/log/rotatord/audit.jsonl"`
	// A file of that size is full, and a new one begins: 1MiB to 1GiB. Default 64MiB.
	MaxSize *string `yaml:"max_size" jsonschema:"pattern=^[0-9]+(KiB|MiB|GiB)$,default=64MiB"`
	// A file whose first line is that old is full too: at least 1h, or 0 for never. Default 720h.
	MaxAge *Duration `yaml:"max_age" jsonschema:"default=720h"`
	// How many full files are kept, 1 to 10000. Default 12. The oldest is deleted when another one is full.
	Keep *int `yaml:"keep" jsonschema:"minimum=1,maximum=10000,default=12"`
}

// Admin says who may use which commands at the admin socket.
type Admin struct {
	// Who may use which commands. Who is in no entry may use none, except root, who may use all unless an
	// entry is for the user root. Default: all who can reach the socket may use all commands.
	Allow []Allow `yaml:"allow" hint:"give at least one entry, or remove the key"`
}

// Allow lets a user, or the members of a group, use commands. Exactly one of user and group.
type Allow struct {
	// The name of a user of this machine, or its number. No default.
	User *string `yaml:"user"`
	// The name of a group of this machine, or its number. It counts for all users whom the system has in
	// that group. No default.
	Group *string `yaml:"group"`
	// The commands: status (with history and the progress of orders), rotate, rotate-all, cancel,
	// cancel-all, pause, resume, resolve, revoke-previous, extend-grace, hook, notify-test, or all. Required.
	Verbs []*string `yaml:"verbs" jsonschema:"required" hint:"give at least one command, such as status, or all"`
}

// Kubernetes says how to reach the API server of a cluster. Without kubeconfig the daemon must run in the
// cluster: it uses the token and the certificate authority of its service account.
type Kubernetes struct {
	// A kubeconfig file, for a daemon that runs outside of the cluster. Default none. It is read
	// again each time it is needed. Programs that print a credential (exec) are not run: use a
	// token, a tokenFile or a client certificate.
	Kubeconfig *string `yaml:"kubeconfig" jsonschema:"example=/etc/rotatord/kubeconfig"`
	// The context of the kubeconfig. Default its current-context. Only with kubeconfig.
	Context *string `yaml:"context" jsonschema:"example=prod"`
}

// Account is where service tokens are, a Cloudflare account or one of its zones, and the
// credential to reach it: account_id or zone_id, and api_token, or api_email with api_key.
type Account struct {
	// Cloudflare's id of the account, 32 hex digits. Required, unless there is a zone_id.
	AccountID *string `yaml:"account_id" jsonschema:"pattern=^[0-9a-fA-F]{32}$"`
	// Cloudflare's id of a zone, 32 hex digits, in place of account_id, for service tokens
	// that belong to that zone alone. No default. Cloudflare cannot rotate those, so their
	// strategy must be replace.
	ZoneID *string `yaml:"zone_id" jsonschema:"pattern=^[0-9a-fA-F]{32}$"`
	// A Cloudflare API token with the permission "Access: Service Tokens Write" on
	// the account or zone. No default. It can do that one thing, so prefer it to api_key.
	APIToken Secret `yaml:"api_token"`
	// The e-mail address of the user whom api_key belongs to. No default.
	APIEmail *string `yaml:"api_email"`
	// A global API key. No default. It can do whatever its user can: a warning says
	// so at start.
	APIKey Secret `yaml:"api_key"`
	// The address of Cloudflare's API. Default https://api.cloudflare.com/client/v4.
	// Plain http is accepted for this host only, for tests with a simulator.
	BaseURL *string `yaml:"base_url" jsonschema:"format=uri,default=https://api.cloudflare.com/client/v4"`
	// The most requests that are sent in five minutes, 1 to 1200. Default 1000.
	// Cloudflare refuses more than 1200 for all clients of one user together, so 200
	// are left to the others.
	RequestsPer5m *int `yaml:"requests_per_5m" jsonschema:"minimum=1,maximum=1200,default=1000"`
	// How often the service tokens are listed, 1m to 24h, to see which are gone, disabled,
	// about to end, unused, or rotated by others. Default 1h. Such alarms come up to that
	// late. Each listing costs one request for each page of tokens.
	InventoryEvery *Duration `yaml:"inventory_every" jsonschema:"default=1h"`
}

// Vault is the one Vault that secrets are written to.
type Vault struct {
	// The server's URL, without /v1 or /ui. Required. Plain http is accepted for this host
	// only, such as an agent or a test server.
	Address *string `yaml:"address" jsonschema:"required,format=uri,example=https://vault.example.com:8200" hint:"give the server's URL, such as https://vault.example.com:8200"`
	// The URLs of nodes of the same cluster (their api_addr), without a path. Default
	// none. A standby that redirects (307) is followed to them and to address, and
	// nowhere else: these servers get the Vault token and the secrets. Most
	// clusters need none, because standbys forward requests.
	Nodes []*string `yaml:"nodes" hint:"give the URL of at least one node, or remove the key"`
	// The namespace (Vault Enterprise, HCP). Default the root namespace.
	Namespace *string `yaml:"namespace"`
	// TLS to the server. Default: the system's certificate authorities and no client
	// certificate.
	TLS TLS `yaml:"tls"`
	// How long one request may take, more than 0. Default 30s. A longer time helps with a
	// slow server; with a shorter one a dead server is noticed earlier.
	Timeout *Duration `yaml:"timeout" jsonschema:"default=30s"`
	// How often each sink, of any kind, is read and compared with the ledger: 1m to 24h, or 0 for
	// never. Default 15m, also without a Vault. A shorter time finds a change earlier. One look costs one
	// request.
	WatchEvery *Duration `yaml:"watch_every" jsonschema:"default=15m"`
	// How to log in. Required, exactly one method.
	Auth VaultAuth `yaml:"auth" jsonschema:"required" hint:"say how to log in, such as approle: {role_id: ..., secret_id: ...}"`
}

// TLS names PEM files.
type TLS struct {
	// Certificate authorities that the server's certificate must come from. Default
	// the system's.
	CAFile *string `yaml:"ca_file"`
	// A client certificate; goes with key_file. Default none.
	CertFile *string `yaml:"cert_file"`
	// The client certificate's private key; goes with cert_file. Default none.
	KeyFile *string `yaml:"key_file"`
	// The name that the server's certificate must have. Default the host of
	// address.
	ServerName *string `yaml:"server_name"`
}

// Defaults are values for all tokens that do not set the field themselves: any
// field of a token but id, pair and create. What has entries, such as sinks or freezes,
// is replaced, not extended.
type Defaults struct {
	Settings `yaml:",inline"`
}

// Token is one service token of Cloudflare Access and what happens with it.
type Token struct {
	// Cloudflare's UUID of the service token, which must exist already. Required,
	// unless there is a pair or create.
	ID *string `yaml:"id" jsonschema:"pattern=^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"`
	// The UUIDs of two service tokens behind one credential, in place of id: first
	// the one that is in use now. Both must exist and be allowed by the same Access
	// policies. Each rotation renews the one that is not in use and then switches
	// the sinks to it, so that no fault can cut consumers off. The
	// price is a second token, and a replaced secret works until the next
	// rotation.
	Pair []*string `yaml:"pair" hint:"give the UUIDs of two service tokens, first the one in use"`
	// How to create the service token, in place of id. It is created at the first start, its
	// first secret is written to the sinks, and the ledger has its UUID from then on.
	Create   Create `yaml:"create" hint:"give the name of the service token, such as {name: ci-deploy}"`
	Settings `yaml:",inline"`
}

// Create says how a service token is created.
type Create struct {
	// Its name at Cloudflare, 1 to 255 characters. Required. No two entries may create service
	// tokens of one name in one account.
	Name *string `yaml:"name" jsonschema:"required,minLength=1,maxLength=255,example=ci-deploy" hint:"give the name that the service token gets at Cloudflare"`
	// How long it lives, unless it is renewed: a duration of more than 0, or forever. Default
	// 8760h, a year. With forever there are no renewals, and a token that you forget works forever.
	Duration *string `yaml:"duration" jsonschema:"default=8760h,example=forever"`
	// What happens if there is a service token of that name already: true takes it over, and
	// the next rotation gives it a new secret; false is an error. Default false, since others may use
	// it.
	Adopt *bool `yaml:"adopt" jsonschema:"default=false"`
}

// Settings are the fields of a token that may also be in defaults.
type Settings struct {
	// The name of an entry of accounts. Required here or in defaults.
	Account *string `yaml:"account"`
	// When to rotate: five cron fields (minute hour day-of-month month day-of-week, of
	// which Sunday is 0, 7 or SUN), @hourly, @daily, @weekly, @monthly, @yearly, or @every
	// with a duration, counted from the last rotation. In quotes if it begins with * or @.
	// Required here or in defaults. Frequent rotations are safer against a leaked secret and harder for
	// slow consumers.
	Schedule *string `yaml:"schedule" jsonschema:"example=0 4 * * 1,example=@weekly,example=@every 720h"`
	// The zone that schedule is read in, by its name in the time zone database, such
	// as Europe/Berlin. Default UTC, which has no daylight saving to trip over.
	TimeZone *string `yaml:"time_zone" jsonschema:"default=UTC,example=Europe/Berlin"`
	// The largest delay after a slot, shorter than the smallest gap between two
	// slots. Default 0, on the slot. The delay of a token and slot is always the
	// same; it spreads many tokens over time.
	Jitter *Duration `yaml:"jitter" jsonschema:"default=0s"`
	// How long after its beginning, jitter included, a slot may be served. After that it is
	// missed. Shorter than the smallest gap between two slots. Default 0: until the next slot
	// comes. A short window keeps rotations near the hours of schedule, and leaves less time
	// for tries after a failure.
	Window *Duration `yaml:"window" jsonschema:"default=0s,example=6h"`
	// What happens after missed slots, for example when the daemon was down: once catches
	// up for all of them with one rotation, skip waits for the next slot. Default once. skip
	// keeps the old secret until then, and has little effect without a window.
	CatchUp *string `yaml:"catch_up" jsonschema:"enum=once,enum=skip,default=once"`
	// How long Cloudflare accepts the previous secret after a rotation: 0, or whole
	// seconds up to 720h, and shorter than the smallest gap between two slots.
	// Default 24h. 0 revokes it at once, so consumers fail until they have read the
	// new one. A longer grace gives them time, and gives a thief the same time.
	Grace *Duration `yaml:"grace" jsonschema:"default=24h"`
	// Periods in which no rotation of this token begins, by names that no global freeze that
	// applies to it has, in addition to those. Default none.
	Freezes map[string]Freeze `yaml:"freezes" hint:"give at least one freeze, or remove the key"`
	// The names of global freezes that do not apply to this token. Default none: all apply.
	ExceptFreezes []*string `yaml:"except_freezes" hint:"give at least one name of a global freeze, or remove the key"`
	// Where the secret is written. At least one, here or in defaults; a rotation is
	// done when all have confirmed it.
	Sinks []Sink `yaml:"sinks" hint:"give at least one place that the secret is written to"`
	// How a token gets a new secret: rotate gives the service token a new client secret; replace
	// creates a new service token, with a new client ID, and deletes the old one after the grace.
	// Default rotate. replace is for service tokens of a zone, which cannot be rotated. Access
	// policies that name the old service token do not name the new one.
	Strategy *string `yaml:"strategy" jsonschema:"enum=rotate,enum=replace,default=rotate"`
	// The service token itself is renewed when it ends within this, up to 8760h. Default 0:
	// never, and it stops working at its end although its secret is rotated. A longer time
	// lets you notice earlier that renewals fail.
	RenewBefore *Duration `yaml:"renew_before" jsonschema:"default=0s,example=720h"`
	// How long it lives after a renewal; longer than renew_before. Default the duration of
	// create, or a year. A renewal never shortens its life and never makes it last forever.
	RenewFor *Duration `yaml:"renew_for" jsonschema:"example=8760h"`
	// An application behind Access at which a new secret is tried before a rotation is done.
	// Default none: what is read back from the sinks is proof enough.
	Verify Verify `yaml:"verify"`
	// What happens when others have rotated the service token, so that the sinks hold a
	// replaced secret: alarm raises an alarm; rotate also rotates, so that the sinks get a good
	// secret. Default alarm. rotate repairs consumers without you. Who uses the other secret is
	// cut off at the end of its grace.
	OutsideRotation *string `yaml:"outside_rotation" jsonschema:"enum=alarm,enum=rotate,default=alarm"`
	// What happens when a sink no longer holds what was written to it: alarm raises an alarm; restore
	// also writes the secret back, or rotates if no copy of it is left. Default alarm. restore repairs
	// consumers without you. It does nothing where another person or program may be right.
	OutsideChange *string `yaml:"outside_change" jsonschema:"enum=alarm,enum=restore,default=alarm"`
	// What runs after each rotation, so that consumers learn of the new secret. Default none. Each hook
	// runs until it succeeds or the next rotation is done. A hook that fails delays no rotation.
	After []Hook `yaml:"after" hint:"give at least one hook, or remove the key"`
}

// Verify is an application behind Access at which new secrets are tried.
type Verify struct {
	// Its URL, https, in the same organisation as the service token. Required. It gets a GET
	// request after each rotation; a redirect is not followed. Plain http is accepted for this
	// host only. A query is sent unchanged, so it must not hold a secret.
	URL *string `yaml:"url" jsonschema:"required,format=uri,example=https://app.example.com/health" hint:"give the URL of an application behind Access"`
	// The header that carries client ID and secret together, where the application has
	// read_service_tokens_from_header set to it. Default none: the headers CF-Access-Client-Id
	// and CF-Access-Client-Secret.
	Header *string `yaml:"header" jsonschema:"example=Authorization"`
	// How long Cloudflare's edge may take to accept a new secret, up to 10m. Until then a refusal
	// does not count, and the request is repeated. Default 1m. 0 is one try.
	Within *Duration `yaml:"within" jsonschema:"default=1m"`
	// How often the secret in use is tried again between rotations: 5m to 720h, or 0 for never.
	// Default 0. A secret that is refused raises an alarm. Nothing is rotated because of it.
	Every *Duration `yaml:"every" jsonschema:"default=0s,example=1h"`
}

// Freeze is a period in which no rotation begins: once, with from and to, or repeatedly,
// with schedule and duration. Only an operator may override it, by hand.
type Freeze struct {
	// When it begins: a date (2026-12-20, its first moment), a date and a time of day
	// ("2026-12-20 18:00" or 2026-12-20T18:00:00) as clocks in time_zone show it, or the same
	// with an offset (2026-12-20T18:00:00+01:00, or Z for UTC). If clocks show that time
	// twice, it is the first. No default; goes with to.
	From *string `yaml:"from" jsonschema:"example=2026-12-20,example=2026-12-20 18:00,example=2026-12-20T18:00:00+01:00"`
	// When it is over, in the same forms, after from: a rotation may begin at that
	// moment. A date alone is its first moment, so a freeze to 2027-01-04 is over when that
	// day begins. If clocks show that time twice, it is the last. No default; goes with from.
	To *string `yaml:"to" jsonschema:"example=2027-01-04,example=2027-01-04 06:00"`
	// When it begins each time: five cron fields, or @daily, @weekly and so on. @every is not
	// possible: it is counted from a rotation. No default; goes with duration.
	Schedule *string `yaml:"schedule" jsonschema:"example=0 18 * * 5"`
	// How long it lasts from each of these times, in whole seconds: more than 0, and shorter
	// than the smallest gap between two of them, or it would never end. No default; goes with
	// schedule.
	Duration *Duration `yaml:"duration" jsonschema:"example=62h"`
	// The zone that from, to and schedule are read in, by its name in the time zone database.
	// Default UTC: the time_zone of defaults or of the token has no effect here.
	TimeZone *string `yaml:"time_zone" jsonschema:"default=UTC,example=Europe/Berlin"`
	// What happens to slots in it: defer serves all of them with one rotation when it is over;
	// skip leaves them out. Default defer. skip keeps the old secret until the next
	// slot after it.
	Slots *string `yaml:"slots" jsonschema:"enum=defer,enum=skip,default=defer"`
}
