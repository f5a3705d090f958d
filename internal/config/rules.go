package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"

	"rotatord/internal/config/raw"
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
)

// What catch_up and outside_rotation may be.
const (
	catchUpOnce   = "once"
	catchUpSkip   = "skip"
	outsideAlarm  = "alarm"
	outsideRotate = "rotate"
)

// Cloudflare's limit of requests in five minutes.
const maxRequestsPer5m = 1200

// How often service tokens may be listed.
const (
	shortestInventory = time.Minute
	longestInventory  = 24 * time.Hour
)

// maxSocketPath is the longest path that the system takes for a unix socket, in bytes.
const maxSocketPath = 107

// Names of accounts and tokens become metric labels, keys in the ledger and
// arguments on the command line. So they are short, need no quoting anywhere and
// cannot be confused by letter case.
var validName = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$`)

var (
	validScopeID = regexp.MustCompile(`^[0-9a-f]{32}$`) // of an account or a zone
	validUUID    = regexp.MustCompile(`^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	validHost    = regexp.MustCompile(`^[A-Za-z0-9._:%-]*$`)
)

func (c *checker) checkListen() {
	c.cfg.Listen = or(c.raw.Listen, defaultListen)
	host, port, err := net.SplitHostPort(c.cfg.Listen)
	if n, convErr := strconv.ParseUint(port, 10, 16); err != nil || convErr != nil || strconv.FormatUint(n, 10) != port ||
		!validHost.MatchString(host) {
		c.wrong("listen", "must be host:port without a scheme, such as %s, or :9321 for all interfaces", defaultListen)
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
	if !filepath.IsAbs(dir) {
		c.wrong("state.dir", "must be an absolute path, such as %s: started elsewhere, the daemon would not find its ledger", defaultStateDir)
	}
	c.cfg.State = State{Dir: filepath.Clean(dir), Identity: source(c.raw.State.Identity), Recipients: c.recipients(c.raw.State.Recipients)}
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
			c.wrong(path, "stands in the list twice: remove one")
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
	case !filepath.IsAbs(text):
		c.wrong(path, "must be an absolute path, such as /run/rotatord/admin.sock: the commands would look for it elsewhere than the daemon")
	case strings.HasSuffix(text, "/"), strings.HasSuffix(text, "/."), strings.HasSuffix(text, "/.."):
		c.wrong(path, "names a directory: give the file in it, such as /run/rotatord/admin.sock")
	case len(text) > maxSocketPath:
		c.wrong(path, "has %d bytes, and the system takes at most %d for a socket: choose a shorter path", len(text), maxSocketPath)
	case c.cfg.AdminSocket == c.cfg.State.Dir:
		c.wrong(path, "is state.dir, a directory: give a file in another one, such as /run/rotatord/admin.sock")
	case strings.HasPrefix(c.cfg.AdminSocket, c.cfg.State.Dir+"/"):
		c.warn(path, "lies in state.dir, which only the daemon's own user may enter: its group cannot reach the socket there")
	}
}

func source(s raw.Secret) SecretSource {
	return SecretSource{File: or(s.File, ""), Env: or(s.Env, "")}
}

// checkName reports a name that cannot be used.
func (c *checker) checkName(path, name string) {
	if !validName.MatchString(name) {
		c.addf(c.keys[path], path, "is no usable name: 1 to 63 of a-z, 0-9, dot, dash and underscore, "+
			"with a letter or digit at both ends")
	}
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
			APIToken:       source(in.APIToken),
			APIEmail:       or(in.APIEmail, ""),
			APIKey:         source(in.APIKey),
			BaseURL:        c.url(path+".base_url", or(in.BaseURL, defaultBaseURL), "credential"),
			RequestsPer5m:  or(in.RequestsPer5m, defaultRequestsPer5m),
			InventoryEvery: time.Duration(or(in.InventoryEvery, raw.Duration(defaultInventory))),
		}
		if n := account.RequestsPer5m; n < 1 || n > maxRequestsPer5m {
			c.wrong(path+".requests_per_5m", "must be 1 to %d, the number that Cloudflare accepts: it is %d", maxRequestsPer5m, n)
		}
		if d := account.InventoryEvery; d < shortestInventory || d > longestInventory {
			c.wrong(path+".inventory_every", "must be %s to %s: it is %s", short(shortestInventory), short(longestInventory), short(d))
		}
		if account.APIEmail != "" && !strings.Contains(account.APIEmail, "@") {
			c.wrong(path+".api_email", "must be an e-mail address")
		}
		if !c.broken[path] {
			c.checkScope(path)
			c.checkCredential(path)
		}
		c.cfg.Accounts[name] = account
	}
}

// scopeID returns the id of an account or a zone in lower case, and reports what is none.
func (c *checker) scopeID(path string, value *string) string {
	id := strings.ToLower(or(value, ""))
	if value != nil && !validScopeID.MatchString(id) {
		c.wrong(path, "must be 32 hex digits, as in the URL of the Cloudflare dashboard; this has %d characters", len([]rune(id)))
	}
	return id
}

func (c *checker) checkScope(path string) {
	switch account, zone := c.has(path+".account_id"), c.has(path+".zone_id"); {
	case account && zone:
		c.wrong(path+".zone_id", "stands beside account_id: keep account_id for service tokens of the account, or zone_id for those of one zone")
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
		c.wrong(path+"."+other, "stands beside api_token: keep one credential, api_token or api_email with api_key")
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

// url checks the address of something that a credential is sent to, and returns it
// without slashes at its end. Its text is not repeated: it may hold a password.
func (c *checker) url(path, text, credential string) string {
	c.checkURL(path, text, credential, false)
	return strings.TrimRight(text, "/")
}

func (c *checker) checkURL(path, text, credential string, query bool) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		c.wrong(path, "must be an absolute URL, such as https://host.example.com")
	case u.User != nil:
		c.wrong(path, "must not contain a user or password: credentials have fields of their own")
	case query && strings.Contains(text, "#"):
		c.wrong(path, "must not have a fragment (#), which is never sent: remove it")
	case !query && (u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#")):
		c.wrong(path, "must not have a query (?) or fragment (#): remove it")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		c.wrong(path, "would send the %s in the clear: use https (plain http is for localhost, 127.0.0.0/8 and ::1)", credential)
	}
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (c *checker) checkVault() {
	in := c.raw.Vault
	c.cfg.Vault = Vault{
		Namespace: strings.Trim(or(in.Namespace, ""), "/"),
		Timeout:   time.Duration(or(in.Timeout, raw.Duration(defaultVaultTimeout))),
		TLS: TLS{
			CAFile: or(in.TLS.CAFile, ""), CertFile: or(in.TLS.CertFile, ""), KeyFile: or(in.TLS.KeyFile, ""),
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
		c.wrong("vault.timeout", "must be more than 0: a request without an end would hold up its token for ever")
	}
	if cert, key := c.has("vault.tls.cert_file"), c.has("vault.tls.key_file"); cert && !key {
		c.missing("vault.tls", "key_file", "it goes with cert_file")
	} else if key && !cert {
		c.missing("vault.tls", "cert_file", "it goes with key_file")
	}
	c.checkVaultAuth()
}

func (c *checker) checkAddress(text string) {
	before := len(c.faults)
	address := c.url("vault.address", text, "Vault token")
	c.cfg.Vault.Address = address
	switch {
	case len(c.faults) > before:
	case strings.HasSuffix(address, "/v1"):
		c.wrong("vault.address", "must not end in /v1: that is added to every request")
	case strings.HasPrefix(strings.ToLower(address), "http:") && c.cfg.Vault.TLS != (TLS{}):
		c.wrong("vault.tls", "has no effect on plain http: make vault.address https, or remove tls")
	}
}

// nodes checks the further addresses of the Vault.
func (c *checker) nodes(in []*string) []string {
	var out []string
	for i, text := range in {
		if text == nil {
			continue // reported already
		}
		path := fmt.Sprintf("vault.nodes[%d]", i)
		before := len(c.faults)
		node := c.url(path, *text, "Vault token")
		if len(c.faults) > before {
			continue
		}
		u, err := url.Parse(node)
		switch {
		case err != nil || u.Path != "":
			c.wrong(path, "must not have a path: give the scheme, the host and the port, such as https://vault-2.example.com:8200")
		case u.Scheme == "http" && !strings.HasPrefix(strings.ToLower(c.cfg.Vault.Address), "http:"):
			c.wrong(path, "is plain http, and vault.address is https: a redirect there is never followed")
		case slices.Contains(out, node):
			c.wrong(path, "stands in the list twice: remove one")
		default:
			out = append(out, node)
		}
	}
	return out
}

func (c *checker) checkVaultAuth() {
	const path = "vault.auth"
	if !c.has(path) || c.broken[path] {
		return
	}
	role, token := c.has(path+".approle"), c.has(path+".token")
	in := c.raw.Vault.Auth
	switch {
	case role && token:
		c.wrong(path, "has two methods: keep exactly one of approle and token")
	case role:
		c.cfg.Vault.Auth.AppRole = &AppRole{
			Mount:  strings.Trim(or(in.AppRole.Mount, "approle"), "/"),
			RoleID: source(in.AppRole.RoleID), SecretID: source(in.AppRole.SecretID),
		}
		if in.AppRole.Mount != nil {
			c.segments(path+".approle.mount", *in.AppRole.Mount)
		}
	case token:
		c.cfg.Vault.Auth.Token = new(source(in.Token))
	case !c.has(path+".kubernetes") && !c.has(path+".cert") && !c.has(path+".jwt"):
		c.wrong(path, "has no method: give exactly one of approle and token")
	}
}

// segments checks a path in Vault and returns it without slashes at its ends.
func (c *checker) segments(path, text string) string {
	trimmed := strings.Trim(text, "/")
	for segment := range strings.SplitSeq(trimmed, "/") {
		problem := ""
		switch segment {
		case "":
			problem = "an empty part"
		case ".", "..":
			problem = fmt.Sprintf("the part %q", segment)
		default:
			continue
		}
		c.wrong(path, "has %s: write names with single slashes between them, such as access/ci-deploy", problem)
		break
	}
	return trimmed
}
