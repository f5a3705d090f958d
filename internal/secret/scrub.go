package secret

import (
	"regexp"
	"strings"
)

// kind is a kind of credential that [Scrub] removes from text.
type kind struct {
	shape *regexp.Regexp
	// marks: the shape is searched only in a text that has one of these, because most texts have none, and the
	// search is expensive. least is the shortest text that is searched.
	marks []string
	least int
	// sure is set if the shape alone proves that it is a credential. Otherwise the match must have both an
	// upper-case and a lower-case letter: random characters have both; words, host names and metric names do
	// not.
	sure bool
}

// kinds match more than the published formats: a credential that is too short or too long must be removed too.
var kinds = []kind{
	// Client secrets of Access: see wellFormed.
	{shape: regexp.MustCompile(`cfast_[A-Za-z0-9]{20,}`), marks: []string{"cfast_"}, sure: true},
	{shape: regexp.MustCompile(`[0-9a-fA-F]{64,}`), least: 64, sure: true},
	// Cloudflare's API tokens of an account and of a user, and its keys, since April 2026. Older ones have no
	// prefix, so they cannot be recognized.
	{shape: regexp.MustCompile(`\bcf(?:at|ut|k)_[A-Za-z0-9_-]{20,}`), marks: []string{"cfat_", "cfut_", "cfk_"}},
	// Vault's service, batch and recovery tokens since version 1.10; a wrapping token has the same form.
	{shape: regexp.MustCompile(`\bhv[sbr]\.[A-Za-z0-9_-]{20,}`), marks: []string{"hvs.", "hvb.", "hvr."}},
	// The same for older versions; a namespace can follow after a dot.
	{shape: regexp.MustCompile(`\b[sr]\.[A-Za-z0-9]{24}\b`), marks: []string{"s.", "r."}, least: 26},
	{shape: regexp.MustCompile(`\bb\.AAAA[A-Za-z0-9_-]{20,}`), marks: []string{"b.AAAA"}},
	// Identities of age, which decrypt sealed secrets. Bech32 has letters of one case.
	{shape: regexp.MustCompile(`(?:AGE-SECRET-KEY|age-secret-key)-(?i:[A-Z0-9]{1,8}-)?1(?i:[A-Z0-9]{20,})`), marks: []string{"AGE-SECRET-KEY-", "age-secret-key-"}, sure: true},
}

// mayHave reports whether a text can contain a credential of this kind.
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

// Scrub returns foreign text, such as the body of an unexpected answer, with everything replaced that looks like a
// credential: a client secret, an API token or key of Cloudflare, a token of Vault, an identity of age. It
// recognizes only credentials with a special form. Code that sends a credential must remove it from answers by
// itself.
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
