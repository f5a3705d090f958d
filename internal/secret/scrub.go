package secret

import (
	"regexp"
	"strings"
)

// kind is one kind of credential that [Scrub] takes out of text from elsewhere.
type kind struct {
	shape *regexp.Regexp
	// marks are what a text must have for the shape to be looked for, one of them: most texts have none,
	// and searching costs more. least is how long the text must be.
	marks []string
	least int
	// sure is set if the shape alone proves that it is a credential. Where it is not set, the
	// match must have both an upper-case and a lower-case letter: random characters have, and
	// ordinary words, host names and metric names do not.
	sure bool
}

// kinds are wider than the formats that are issued: a truncated or lengthened credential must be
// scrubbed too.
var kinds = []kind{
	// Client secrets of Access: see wellFormed.
	{shape: regexp.MustCompile(`cfast_[A-Za-z0-9]{20,}`), marks: []string{"cfast_"}, sure: true},
	{shape: regexp.MustCompile(`[0-9a-fA-F]{64,}`), least: 64, sure: true},
	// Cloudflare's API tokens of an account and of a user, and its keys, since April 2026. Older
	// ones have no prefix, and nothing tells them from other words.
	{shape: regexp.MustCompile(`\bcf(?:at|ut|k)_[A-Za-z0-9_-]{20,}`), marks: []string{"cfat_", "cfut_", "cfk_"}},
	// Vault's service, batch and recovery tokens since version 1.10. A wrapping token is one too.
	{shape: regexp.MustCompile(`\bhv[sbr]\.[A-Za-z0-9_-]{20,}`), marks: []string{"hvs.", "hvb.", "hvr."}},
	// The same of older versions; a namespace may follow after a dot.
	{shape: regexp.MustCompile(`\b[sr]\.[A-Za-z0-9]{24}\b`), marks: []string{"s.", "r."}, least: 26},
	{shape: regexp.MustCompile(`\bb\.AAAA[A-Za-z0-9_-]{20,}`), marks: []string{"b.AAAA"}},
	// The identities of age, which open sealed secrets. Bech32 is in one case.
	{shape: regexp.MustCompile(`(?:AGE-SECRET-KEY|age-secret-key)-(?i:[A-Z0-9]{1,8}-)?1(?i:[A-Z0-9]{20,})`), marks: []string{"AGE-SECRET-KEY-", "age-secret-key-"}, sure: true},
}

// mayHave reports whether a text may have a credential of this kind.
func (k kind) mayHave(s string) bool {
	if len(s) < k.least {
		return false
	}
	for _, mark := range k.marks {
		if strings.Contains(s, mark) {
			return true
		}
	}
	return k.marks == nil
}

// Scrub replaces whatever looks like a credential in text that comes from elsewhere, such as the
// body of an unexpected answer: a client secret, an API token or key of Cloudflare's, a token of
// Vault's, an identity of age. It knows the kinds with a form of their own only; a credential
// that was sent must be taken out by who has sent it.
func Scrub(s string) string {
	for _, k := range kinds {
		if !k.mayHave(s) {
			continue
		}
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
