package hook

import (
	"regexp"
	"strings"
	"sync"

	"rotatord/internal/printable"
	"rotatord/internal/secret"
)

// This file has the output of programs. Nobody knows what they print: curl -v prints the header of its request.

// tail keeps the end of what is written to it.
type tail struct {
	limit int
	mu    sync.Mutex
	kept  []byte
}

// Write implements io.Writer. It never fails, so a program is not ended because it writes much.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p[max(0, len(p)-t.limit):]...)
	if extra := len(t.kept) - t.limit; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	return len(p), nil
}

// shown returns the end of the output as an error may show it: one line without credentials.
func (t *tail) shown() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := printable.Line(withoutCredentials(string(t.kept)), maxOutput*4)
	if line == "" {
		return ", without output"
	}
	if cut := len(line) - shownOutput; cut > 0 {
		line = "..." + strings.ToValidUTF8(line[cut:], "")
	}
	return ": " + line
}

// otherCredentials are places of credentials whose own form says nothing, and what stays of each.
var otherCredentials = []struct {
	place *regexp.Regexp
	stays string
}{
	{regexp.MustCompile(`(?i)\b((?:proxy-)?authorization|(?:set-)?cookie)(\s*:\s*)[^\r\n]+`), "$1$2" + secret.Redacted},
	{regexp.MustCompile(`(?im)^([<>\s]*[a-z0-9-]*(?:token|secret|api-?key|password))(\s*:\s*)[^\r\n]+`), "$1$2" + secret.Redacted},
	{regexp.MustCompile(`(?i)\b(bearer)\s+[^\s"']+`), "$1 " + secret.Redacted},
	{regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@]+@`), "$1" + secret.Redacted + "@"},
	{regexp.MustCompile(`(?i)([a-z0-9_.-]*(?:token|secret|passw(?:or)?d|api[_-]?key|signature))=[^\s&"']+`), "$1=" + secret.Redacted},
}

// withoutCredentials removes what stands where credentials stand: in headers, in URLs, and after names such as token=.
// What has the form of a credential is removed by package secret.
func withoutCredentials(text string) string {
	for _, c := range otherCredentials {
		text = c.place.ReplaceAllString(text, c.stays)
	}
	return text
}
