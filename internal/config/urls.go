package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// url checks an address that a credential is sent to, and returns it without slashes at its
// end. The messages do not repeat it: it may hold a password.
func (c *checker) url(path, text, credential string) string {
	c.checkURL(path, text, credential, false)
	return strings.TrimRight(text, "/")
}

func (c *checker) checkURL(path, text, credential string, query bool) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		c.wrong(path, "must be an absolute URL, such as https://host.example.com%s", prefixed(": ", urlHint(text)))
	case u.User != nil:
		c.wrong(path, "must not contain a user or password: credentials have fields of their own")
	case query && strings.Contains(text, "#"):
		c.wrong(path, "must not have a fragment (#), which is never sent: remove it")
	case !query && (u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#")):
		c.wrong(path, "must not have a query (?) or fragment (#): remove it")
	case strings.EqualFold(u.Host, "https:"), strings.EqualFold(u.Host, "http:"):
		c.wrong(path, "has its scheme twice: remove one https://")
	case badPort(u):
		c.wrong(path, "must have a port of 1 to 65535 after the colon, or neither a colon nor a port")
	case hostProblem(u.Hostname()) != "":
		c.wrong(path, "%s", hostProblem(u.Hostname()))
	case u.Scheme == "http" && !IsLoopback(u.Hostname()):
		c.wrong(path, "would send the %s without encryption: use https (plain http is for localhost, 127.0.0.0/8 and ::1)", credential)
	}
}

var (
	scheme     = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*):`)
	hostPort   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*(:\d+)?(/|$)`)
	fewSlashes = regexp.MustCompile(`^(?i:https?)(:/?[^/]|//)`)
	bareIPv6   = regexp.MustCompile(`^(?i:https?)://\[?[0-9a-fA-F]*:[0-9a-fA-F:.]*:[^/]*`)
	otherPort  = regexp.MustCompile(`^(?i:https?)://[^/?#]*:[^/?#@]*[^0-9/?#@][^/?#@]*(/|$)`)
)

// urlHint says why a text is not a URL. It repeats nothing of the text.
func urlHint(text string) string {
	found := scheme.FindStringSubmatch(text)
	switch {
	case hasTemplate(text), strings.Contains(text, "$"):
		return "variables and templates are not expanded here"
	case strings.HasPrefix(text, "//"):
		return "begin it with https:"
	case strings.HasPrefix(text, "/"), found != nil && strings.EqualFold(found[1], unixScheme):
		return "a unix socket is not supported here"
	case strings.ContainsFunc(text, unicode.IsSpace):
		return "it must not have a space"
	case strings.Contains(text, `\`):
		return `it must not have a backslash`
	case fewSlashes.MatchString(text):
		return "write https:// with a colon and two slashes"
	case bareIPv6.MatchString(text):
		return "an IPv6 address is written in brackets, as in https://[::1]:8200"
	case hostPort.MatchString(text):
		return "begin it with https://"
	case otherPort.MatchString(text):
		return "the port, after the colon, must be a number"
	case found != nil && !strings.EqualFold(found[1], "http") && !strings.EqualFold(found[1], "https"):
		return "the scheme must be https, or http for this host"
	}
	return ""
}

// badPort reports a port that is out of range, or a colon without one.
func badPort(u *url.URL) bool {
	port := u.Port()
	if port == "" {
		return strings.HasSuffix(u.Host, ":")
	}
	n, err := strconv.Atoi(port)
	return err != nil || n < 1 || n > 65535
}

// hostProblem says why a text cannot be a host; empty if it can be one.
func hostProblem(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	switch {
	case strings.ContainsAny(host, "${}"):
		return "has a variable or a template in its host: they are not expanded here"
	case strings.Contains(host, ".."), strings.HasPrefix(host, "."), strings.ContainsFunc(host, badInHost):
		return "has a host name with a character that is not allowed: write letters, digits, dashes and single dots"
	}
	return ""
}

// badInHost reports a character that no host name has. Characters that are not ASCII are encoded before
// a lookup.
func badInHost(c rune) bool {
	return c <= unicode.MaxASCII && c != '.' && c != '-' && c != '_' && !unicode.IsLetter(c) && !unicode.IsDigit(c)
}

// IsLoopback reports whether a host, without a port, is this machine.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// cloudflareHost and cloudflarePath are the host of the API and its path there.
const cloudflareHost, cloudflarePath = "api.cloudflare.com", "/client/v4"

// baseURL checks the address of Cloudflare's API.
func (c *checker) baseURL(path, text string) string {
	before := len(c.faults)
	base := c.url(path, text, "credential")
	u, err := url.Parse(base)
	switch {
	case len(c.faults) > before || err != nil:
	case strings.EqualFold(u.Hostname(), cloudflareHost) && u.Path != cloudflarePath:
		c.wrong(path, "must end in %s and nothing more: write %s, or remove the key", cloudflarePath, defaultBaseURL)
	case strings.EqualFold(u.Hostname(), "dash.cloudflare.com"), strings.EqualFold(u.Hostname(), "one.dash.cloudflare.com"):
		c.wrong(path, "is the dashboard: the API is %s, which is the default", defaultBaseURL)
	}
	return base
}

func (c *checker) checkAddress(text string) {
	if strings.HasPrefix(strings.ToLower(text), unixScheme+":") {
		c.cfg.Vault.Address = c.socketAddress("vault.address", text)
		if c.cfg.Vault.TLS != (TLS{}) {
			c.wrong("vault.tls", "has no effect on a unix socket: remove it")
		}
		if c.has("vault.nodes") {
			c.wrong("vault.nodes", "has no effect with a unix socket: the agent that listens there follows the redirects of a standby; remove it")
		}
		return
	}
	if strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "//") {
		c.wrong("vault.address", "is a path: for a unix socket write unix:// before it, as in unix:///run/vault/agent.sock")
		return
	}
	before := len(c.faults)
	address := c.url("vault.address", text, "Vault token")
	c.cfg.Vault.Address = address
	if len(c.faults) > before {
		return
	}
	u, err := url.Parse(address)
	if err != nil {
		return // reported
	}
	parts := strings.Split(u.Path, "/")
	switch {
	case strings.HasSuffix(address, "/v1"):
		c.wrong("vault.address", "must not end in /v1: that is added to every request")
	case len(parts) > 1 && (parts[1] == "ui" || parts[len(parts)-1] == "ui"):
		c.wrong("vault.address", "must not have /ui, which is the web interface: write the scheme, the host and the port alone, such as https://vault.example.com:8200")
	case len(parts) > 1 && parts[1] == "v1":
		c.warn("vault.address", "looks like the URL of an API call, and /v1 is added to every request: write the scheme, the host and the port alone, if Vault is not below that path")
	case strings.HasPrefix(strings.ToLower(address), "http:") && c.cfg.Vault.TLS != (TLS{}):
		c.wrong("vault.tls", "has no effect on plain http: make vault.address https, or remove tls")
	}
}

const unixScheme = "unix"

// Socket returns the path of the unix socket that an address of Vault names; empty if it is a URL of a server.
func (v *Vault) Socket() string {
	path, found := strings.CutPrefix(v.Address, unixScheme+"://")
	if !found {
		return ""
	}
	return path
}

// socketAddress checks the address of a unix socket, and returns it in its only form.
func (c *checker) socketAddress(path, text string) string {
	const example = "unix:///run/vault/agent.sock"
	socket, found := strings.CutPrefix(text[len(unixScheme):], "://")
	switch {
	case !found || !strings.HasPrefix(socket, "/"):
		c.wrong(path, "must have the absolute path of the socket after unix://, so three slashes: %s", example)
	case pathProblem(socket) != "":
		c.wrong(path, "%s", pathProblem(socket))
	case strings.ContainsAny(socket, "?#"), strings.HasSuffix(socket, "/"):
		c.wrong(path, "must end with the name of the socket, such as %s", example)
	case len(socket) > maxSocketPath:
		c.wrong(path, "has a path of %d bytes, and the system accepts at most %d for a socket", len(socket), maxSocketPath)
	}
	return unixScheme + "://" + socket
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
			c.wrong(path, "is in the list twice: remove one")
		default:
			out = append(out, node)
		}
	}
	return out
}

var allDigits = regexp.MustCompile(`^\d+$`)

// listenHint ends the message about an address to listen on.
func listenHint(text string) string {
	host, port, found := strings.Cut(text, ":")
	last := text[strings.LastIndex(text, ":")+1:]
	switch {
	case strings.HasPrefix(text, "unix:"), strings.HasPrefix(text, "/"):
		return "a unix socket is not supported here"
	case strings.Contains(text, "://"), strings.Contains(text, "/"):
		return "leave out the scheme and the path"
	case allDigits.MatchString(text):
		return "a colon is missing before the port: write :" + text + ", or 127.0.0.1:" + text
	case hasTemplate(text), strings.Contains(text, "$"):
		return "variables and templates are not expanded here"
	case host == "*" && allDigits.MatchString(port):
		return "write :" + port
	case strings.Count(text, ":") > 1 && !strings.Contains(text, "["):
		return "an IPv6 address is written in brackets, as in [::1]:9321"
	case !found || port == "":
		return "the port is missing"
	case allDigits.MatchString(last) && strings.HasPrefix(last, "0"):
		return "write the port without zeros before it"
	case allDigits.MatchString(last):
		return "a port is 0 to 65535"
	case port != "" && strings.Trim(strings.ToLower(port), "abcdefghijklmnopqrstuvwxyz-") == "":
		return "write the port as a number"
	}
	return ""
}
