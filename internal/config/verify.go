package config

import (
	"slices"
	"strings"
	"time"

	"rotatord/internal/config/raw"
	"rotatord/internal/secret"
)

const (
	defaultWithin = time.Minute
	maxWithin     = 10 * time.Minute
	shortestEvery = 5 * time.Minute // how often the secret in use may be tried
	longestEvery  = 720 * time.Hour
)

// verify checks the application at which new secrets are tried.
func (c *checker) verify(path string, in raw.Verify) *Verify {
	out := &Verify{URL: or(in.URL, ""), Header: or(in.Header, ""), Within: time.Duration(or(in.Within, raw.Duration(defaultWithin))), Every: time.Duration(or(in.Every, 0))}
	if in.URL != nil {
		c.checkURL(path+".url", out.URL, "client secret", true)
	}
	if in.Header != nil {
		c.checkHeader(path+".header", out.Header)
	}
	if out.Within > maxWithin {
		c.wrong(path+".within", "%s is too long: at most %s; an edge that refuses a secret for longer does not accept it later", short(out.Within), short(maxWithin))
	}
	if d := out.Every; d != 0 && (d < shortestEvery || d > longestEvery) {
		c.wrong(path+".every", "must be %s to %s, or 0 to try only new secrets: it is %s", short(shortestEvery), short(longestEvery), short(d))
	}
	return out
}

// transportHeaders control how a request is sent. A credential in one of them would break the
// request, or reach another place.
var transportHeaders = []string{
	"connection", "content-length", "cookie", "expect", "forwarded", "host", "keep-alive", "proxy-authorization", "proxy-connection",
	"set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "via",
}

// checkHeader checks the name of the one header that a credential is sent in. The messages do
// not repeat the name: the operator may have written the value of the header.
func (c *checker) checkHeader(path, text string) {
	name := strings.ToLower(text)
	switch {
	case secret.Scrub(text) != text:
		c.wrong(path, "looks like a secret itself: write the name of the header that carries it, such as Authorization")
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~") != "":
		c.wrong(path, "must be the name of an HTTP header, such as Authorization: letters, digits and dashes")
	case name == "cf-access-client-id" || name == "cf-access-client-secret":
		c.wrong(path, "is one of the two headers that are used without this key: remove it")
	case slices.Contains(transportHeaders, name) || strings.HasPrefix(name, "cf-"):
		c.wrong(path, "is a header that has another meaning on the way: write the one that the application has in read_service_tokens_from_header, "+
			"such as Authorization")
	}
}
