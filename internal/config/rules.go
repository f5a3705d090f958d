package config

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"

	"rotatord/internal/config/raw"
	"rotatord/internal/secret"
)

// The built-in defaults.
const (
	defaultListen        = "127.0.0.1:9321"
	defaultStateDir      = "/var/lib/rotatord"
	defaultBaseURL       = "https://api.cloudflare.com/client/v4"
	defaultRequestsPer5m = 1000
	defaultVaultTimeout  = 30 * time.Second
	defaultGrace         = 24 * time.Hour
	defaultInventory     = time.Hour
	defaultWatch         = 15 * time.Minute
)

// What catch_up, outside_rotation and outside_change may be.
const (
	catchUpOnce   = "once"
	catchUpSkip   = "skip"
	outsideAlarm  = "alarm"
	outsideRotate = "rotate"
	changeAlarm   = "alarm"
	changeRestore = "restore"
)

// Cloudflare's limit of requests in five minutes.
const maxRequestsPer5m = 1200

// How often service tokens may be listed.
const (
	shortestInventory = time.Minute
	longestInventory  = 24 * time.Hour
)

// How often a sink may be watched.
const (
	shortestWatch = time.Minute
	longestWatch  = 24 * time.Hour
)

// maxSocketPath is the longest path of a unix socket that the system accepts, in bytes.
const maxSocketPath = 107

// Names of accounts and tokens become metric labels, keys in the ledger and
// arguments on the command line. So they are short, need no quotes anywhere and
// have lower-case letters only.
const maxName = 63

// ValidName reports whether a token or an account may have that name.
func ValidName(name string) bool {
	if len(name) < 1 || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		c, inside := name[i], i > 0 && i < len(name)-1
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !(inside && (c == '.' || c == '-' || c == '_')) {
			return false
		}
	}
	return true
}

var (
	validScopeID = regexp.MustCompile(`^[0-9a-f]{32}$`) // of an account or a zone
	notInNames   = regexp.MustCompile(`[^a-z0-9._-]+`)
	validHost    = regexp.MustCompile(`^[A-Za-z0-9._:%-]*$`)
)

func (c *checker) checkListen() {
	c.cfg.Listen = or(c.raw.Listen, defaultListen)
	host, port, err := net.SplitHostPort(c.cfg.Listen)
	if n, convErr := strconv.ParseUint(port, 10, 16); err != nil || convErr != nil || strconv.FormatUint(n, 10) != port ||
		!validHost.MatchString(host) {
		c.wrong("listen", "must be host:port without a scheme, such as %s, or :9321 for all interfaces%s", defaultListen, prefixed(": ", listenHint(c.cfg.Listen)))
	}
}

func (c *checker) checkLog() {
	c.cfg.Log = Log{
		Level:  c.oneOf("log.level", c.raw.Log.Level, "info", "debug", "info", "warn", "error"),
		Format: c.oneOf("log.format", c.raw.Log.Format, "json", "json", "text"),
	}
}

func (c *checker) oneOf(path string, value *string, otherwise string, accepted ...string) string {
	v := or(value, otherwise)
	if !slices.Contains(accepted, v) {
		c.wrong(path, "must be %s, not %q", strings.Join(accepted, " or "), v)
	}
	return v
}

func (c *checker) checkState() {
	dir := or(c.raw.State.Dir, defaultStateDir)
	c.absolute("state.dir", dir, "must be an absolute path, such as "+defaultStateDir+": started elsewhere, the daemon would not find its ledger")
	c.cfg.State = State{
		Dir: filepath.Clean(dir), Identity: c.source("state.identity", c.raw.State.Identity), Recipients: c.recipients(c.raw.State.Recipients),
		Shared: c.shared(),
	}
}

// recipients checks age recipients. Their text is not repeated: it may be a secret key.
func (c *checker) recipients(in []*string) []string {
	var out []string
	for i, text := range in {
		if text == nil {
			continue // reported already
		}
		path := fmt.Sprintf("state.recipients[%d]", i)
		recipient, err := age.ParseX25519Recipient(*text)
		switch {
		case strings.HasPrefix(strings.ToUpper(*text), "AGE-SECRET-KEY-"):
			c.wrong(path, "that is a secret key: write the public key (age1...) that belongs to it, and treat this one as disclosed if others can read this file")
			continue
		case err != nil:
			c.wrong(path, "is not an age recipient (age1...): write the public key that age-keygen prints; keys of plugins, of SSH and post-quantum ones are not supported")
			continue
		}
		if first := slices.Index(out, recipient.String()); first >= 0 {
			c.wrong(path, "is in the list twice: remove one")
			continue
		}
		out = append(out, recipient.String())
	}
	return out
}

func (c *checker) checkAdminSocket() {
	const path = "admin_socket"
	if c.raw.AdminSocket == nil {
		return
	}
	text := *c.raw.AdminSocket
	c.cfg.AdminSocket = filepath.Clean(text)
	switch {
	case !c.absolute(path, text, "must be an absolute path, such as /run/rotatord/admin.sock: the commands would look for it elsewhere than the daemon"):
	case strings.HasSuffix(text, "/"), strings.HasSuffix(text, "/."), strings.HasSuffix(text, "/.."):
		c.wrong(path, "is a directory: give the file in it, such as /run/rotatord/admin.sock")
	case len(text) > maxSocketPath:
		c.wrong(path, "has %d bytes, and the system takes at most %d for a socket: choose a shorter path", len(text), maxSocketPath)
	case c.cfg.AdminSocket == c.cfg.State.Dir:
		c.wrong(path, "is state.dir, a directory: give a file in another one, such as /run/rotatord/admin.sock")
	case strings.HasPrefix(c.cfg.AdminSocket, c.cfg.State.Dir+"/"):
		c.warn(path, "is in state.dir, which only the daemon's own user may enter: its group cannot reach the socket there")
	}
}

// source returns where a secret is.
func (c *checker) source(path string, s raw.Secret) SecretSource {
	return SecretSource{File: c.filePath(path+".file", s.File), Env: or(s.Env, "")}
}

// checkName reports a name that is not allowed.
func (c *checker) checkName(path, name string) {
	if !ValidName(name) {
		c.addf(c.key(path), path, "is not a usable name: 1 to 63 of a-z, 0-9, dot, dash and underscore, "+
			"with a letter or digit at both ends%s", prefixed(": such as ", usableName(name)))
	}
}

// usableName returns the nearest name that is allowed; empty if there is none. A name that may be a
// secret has none: a changed secret would no longer be recognised and removed from messages.
func usableName(name string) string {
	if len(name) > maxName || secret.Scrub(name) != name {
		return ""
	}
	usable := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(name), "-"), "-._")
	if ValidName(usable) {
		return usable
	}
	return ""
}

func (c *checker) checkAccounts() {
	c.cfg.Accounts = make(map[string]Account, len(c.raw.Accounts))
	for name, in := range c.raw.Accounts {
		path := join("accounts", name)
		c.checkName(path, name)
		account := Account{
			Name:           name,
			AccountID:      c.scopeID(path+".account_id", in.AccountID),
			ZoneID:         c.scopeID(path+".zone_id", in.ZoneID),
			APIToken:       c.source(path+".api_token", in.APIToken),
			APIEmail:       or(in.APIEmail, ""),
			APIKey:         c.source(path+".api_key", in.APIKey),
			BaseURL:        c.baseURL(path+".base_url", or(in.BaseURL, defaultBaseURL)),
			RequestsPer5m:  or(in.RequestsPer5m, defaultRequestsPer5m),
			InventoryEvery: c.between(path+".inventory_every", in.InventoryEvery, defaultInventory, shortestInventory, longestInventory),
		}
		if n := account.RequestsPer5m; n < 1 || n > maxRequestsPer5m {
			c.wrong(path+".requests_per_5m", "must be 1 to %d, the number that Cloudflare accepts: it is %d", maxRequestsPer5m, n)
		}
		if account.APIEmail != "" && !strings.Contains(account.APIEmail, "@") {
			c.wrong(path+".api_email", "must be an e-mail address")
		}
		if !c.isBroken(path) {
			c.checkScope(path)
			c.checkCredential(path)
		}
		c.cfg.Accounts[name] = account
	}
}

// scopeID returns the id of an account or a zone in lower case. It reports a text that is not an id.
func (c *checker) scopeID(path string, value *string) string {
	id := strings.ToLower(or(value, ""))
	if value != nil && !validScopeID.MatchString(id) {
		c.wrong(path, "must be 32 hex digits, as in the URL of the Cloudflare dashboard; this %s", scopeHint(id))
	}
	return id
}

func (c *checker) checkScope(path string) {
	switch account, zone := c.has(path+".account_id"), c.has(path+".zone_id"); {
	case account && zone:
		c.wrong(path+".zone_id", "is written beside account_id: keep account_id for service tokens of the account, or zone_id for those of one zone")
	case !account && !zone:
		c.missing(path, "account_id", "give the account's id, 32 hex digits, from the URL of the Cloudflare dashboard; "+
			"or zone_id, for service tokens of one zone")
	}
}

func (c *checker) checkCredential(path string) {
	token, email, key := c.has(path+".api_token"), c.has(path+".api_email"), c.has(path+".api_key")
	switch {
	case token && (email || key):
		other := "api_key"
		if !key {
			other = "api_email"
		}
		c.wrong(path+"."+other, "is written beside api_token: keep one credential, api_token or api_email with api_key")
	case email && !key:
		c.missing(path, "api_key", "it goes with api_email; or give api_token in place of both")
	case key && !email:
		c.missing(path, "api_email", "it goes with api_key; or give api_token in place of both")
	case key:
		c.warn(path+".api_key", "a global API key can do whatever its user can: prefer an api_token that may only write service tokens")
	case !token:
		c.missing(path, "api_token", "give api_token, or api_email with api_key")
	}
}

// checkVault comes after the tokens, whose sinks decide whether a Vault is needed.
func (c *checker) checkVault() {
	c.cfg.WatchEvery = time.Duration(or(c.raw.Vault.WatchEvery, raw.Duration(defaultWatch)))
	if !c.has("vault") {
		switch {
		case c.needVault != "":
			c.missing("", "vault", "say which Vault the secrets are written to; %s needs it", c.needVault)
		case c.cfg.State.Shared != nil:
			c.missing("", "vault", "say in which Vault the shared ledger is; state.shared needs it")
		}
		return
	}
	if c.needVault == "" && c.cfg.State.Shared == nil && len(c.cfg.Tokens) > 0 {
		c.warn("vault", "is used by no sink: remove it, or write a sink that needs it")
	}
	in := c.raw.Vault
	c.cfg.Vault = &Vault{
		Namespace: strings.Trim(or(in.Namespace, ""), "/"),
		Timeout:   time.Duration(or(in.Timeout, raw.Duration(defaultVaultTimeout))),
		TLS: TLS{
			CAFile: c.filePath("vault.tls.ca_file", in.TLS.CAFile), CertFile: c.filePath("vault.tls.cert_file", in.TLS.CertFile),
			KeyFile:    c.filePath("vault.tls.key_file", in.TLS.KeyFile),
			ServerName: or(in.TLS.ServerName, ""),
		},
	}
	if in.Namespace != nil {
		c.segments("vault.namespace", *in.Namespace)
	}
	if in.Address != nil {
		c.checkAddress(*in.Address)
	}
	c.cfg.Vault.Nodes = c.nodes(in.Nodes)
	if c.cfg.Vault.Timeout <= 0 {
		c.wrong("vault.timeout", "must be more than 0: a request without an end would block its token")
	}
	if d := c.cfg.WatchEvery; d != 0 && (d < shortestWatch || d > longestWatch) {
		c.wrong("vault.watch_every", "must be %s to %s, or 0 to watch no sink: it is %s", short(shortestWatch), short(longestWatch), short(d))
	}
	if cert, key := c.has("vault.tls.cert_file"), c.has("vault.tls.key_file"); cert && !key {
		c.missing("vault.tls", "key_file", "it goes with cert_file")
	} else if key && !cert {
		c.missing("vault.tls", "cert_file", "it goes with key_file")
	}
	c.checkVaultAuth()
}
