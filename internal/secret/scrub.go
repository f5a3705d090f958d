package secret

import (
	"regexp"
	"strings"
)

// kind is one kind of credential that [Scrub] takes out of text from elsewhere.
type kind struct {
	shape *regexp.Regexp
	// sure is set if the shape alone proves that it is a credential. Where it is not set, the
	// match must have both an upper-case and a lower-case letter: random characters have, and
	// ordinary words, host names and metric names do not.
	sure bool
}

// kinds are wider than the formats that are issued: a truncated or lengthened credential must be
// scrubbed too.
var kinds = []kind{
	// Client secrets of Access: see clientSecret.
	{clientSecret, true},
	// Cloudflare's API tokens of an account and of a user, and its keys, since April 2026. Older
	// ones have no prefix, and nothing tells them from other words.
	{regexp.MustCompile(`\bcf(?:at|ut|k)_[A-Za-z0-9_-]{20,}`), false},
	// Vault's service, batch and recovery tokens since version 1.10. A wrapping token is one too.
	{regexp.MustCompile(`\bhv[sbr]\.[A-Za-z0-9_-]{20,}`), false},
	// The same of older versions; a namespace may follow after a dot.
	{regexp.MustCompile(`\b[sr]\.[A-Za-z0-9]{24}\b`), false},
	{regexp.MustCompile(`\bb\.AAAA[A-Za-z0-9_-]{20,}`), false},
	// The identities of age, which open sealed secrets. Bech32 is in one case.
	{regexp.MustCompile(`(?i)\bAGE-SECRET-KEY-(?:[A-Z0-9]{1,8}-)?1[A-Z0-9]{20,}`), true},
}

// Scrub replaces whatever looks like a credential in text that comes from elsewhere, such as the
// body of an unexpected answer: a client secret, an API token or key of Cloudflare's, a token of
// Vault's, an identity of age. It knows the kinds with a form of their own only; a credential
// that was sent must be taken out by who has sent it.
func Scrub(s string) string {
	for _, k := range kinds {
		if k.sure {
			s = k.shape.ReplaceAllString(s, Redacted)
			continue
		}
		s = k.shape.ReplaceAllStringFunc(s, func(match string) string {
			if mixedCase(match[strings.IndexAny(match, "._"):]) { // without the prefix
				return Redacted
			}
			return match
		})
	}
	return s
}

func mixedCase(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return 'A' <= r && r <= 'Z' }) &&
		strings.ContainsFunc(s, func(r rune) bool { return 'a' <= r && r <= 'z' })
}
