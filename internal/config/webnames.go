package config

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// validHostName is a name of a host without a port.
var validHostName = regexp.MustCompile(`^[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*$`)

// maxHosts is the largest number of names, and maxHostName the length of one.
const (
	maxHosts    = 100
	maxHostName = 253
)

// checkWebNames checks the names under which people reach the status page.
func (c *checker) checkWebNames() {
	if len(c.raw.Hosts) > maxHosts {
		c.wrong("hosts", "has %d names, and at most %d are possible", len(c.raw.Hosts), maxHosts)
	}
	for i, text := range c.raw.Hosts {
		if text == nil {
			continue // reported already
		}
		path, name := itemPath("hosts", i), strings.ToLower(*text)
		switch {
		case !validHostName.MatchString(name) || len(name) > maxHostName:
			c.wrong(path, "must be the name of a host alone, such as rotatord.example.com: no scheme, no port, no path, and no *")
		case slices.Contains(c.cfg.Hosts, name):
			c.wrong(path, "is in the list twice: remove one")
		default:
			c.cfg.Hosts = append(c.cfg.Hosts, name)
		}
	}
	if c.raw.ExternalURL == nil {
		return
	}
	text := *c.raw.ExternalURL
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		c.wrong("external_url", "must be an absolute URL, such as https://rotatord.example.com")
	case u.User != nil:
		c.wrong("external_url", "must not contain a user or password: it is shown to whoever gets a notification")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		c.wrong("external_url", "must not have a query (?) or fragment (#): remove it")
	case strings.Trim(u.Path, "/") != "":
		c.wrong("external_url", "must not have a path: the pages are served at the root of a host")
	case badPort(u):
		c.wrong("external_url", "must have a port of 1 to 65535 after the colon, or neither a colon nor a port")
	case hostProblem(u.Hostname()) != "":
		c.wrong("external_url", "%s", hostProblem(u.Hostname()))
	default:
		c.cfg.ExternalURL = strings.TrimRight(text, "/")
	}
}
