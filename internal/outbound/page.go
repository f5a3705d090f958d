package outbound

import (
	"bytes"
	"mime"
	"net/http"
	"regexp"
	"strings"

	"golang.org/x/net/html"

	"rotatord/internal/printable"
)

const (
	// maxPage is how many bytes of a page are parsed for its title and its first words, and maxTokens how many
	// HTML tokens: a page may have nothing but markup.
	maxPage, maxTokens = 64 << 10, 4000
	// maxWords is the longest title, or the longest first words, in bytes.
	maxWords = 120
)

// Page is an answer that is not from the API.
type Page struct {
	// MediaType is its content type without parameters; empty if it has none.
	MediaType string
	// Title is the title of an HTML page. Words are the first words that a reader sees. Both are not cut, and
	// must be cleaned before they are shown.
	Title, Words string
	// PlainOnTLS is set if a server says that it got plain http on a port for TLS.
	PlainOnTLS bool
}

// plainOnTLS are the texts with which Go's server and nginx say that.
var plainOnTLS = regexp.MustCompile(`(?i)HTTP request (?:was sent )?to (?:an )?HTTPS (?:server|port)`)

// ReadPage returns what can be said about an answer. It takes nothing from a body that is neither text nor HTML.
func ReadPage(h http.Header, body []byte) Page {
	var p Page
	p.MediaType, _, _ = mime.ParseMediaType(h.Get("Content-Type"))
	body = body[:min(len(body), maxPage)]
	p.PlainOnTLS = plainOnTLS.Match(body)
	start := bytes.ToLower(bytes.TrimSpace(body[:min(len(body), 1<<10)]))
	switch {
	case strings.Contains(p.MediaType, "html"), bytes.HasPrefix(start, []byte("<!doctype html")), bytes.HasPrefix(start, []byte("<html")):
		p.Title, p.Words = readHTML(body)
	case strings.HasPrefix(p.MediaType, "text/"), strings.HasSuffix(p.MediaType, "json"), p.MediaType == "":
		p.Words = strings.TrimSpace(string(body))
	}
	return p
}

// readHTML returns the title of a page and its first visible words.
func readHTML(body []byte) (title, words string) {
	var text strings.Builder
	inTitle, hidden := false, ""
	z := html.NewTokenizer(bytes.NewReader(body))
	for range maxTokens {
		switch kind := z.Next(); kind {
		case html.ErrorToken:
			return title, strings.TrimSpace(text.String())
		case html.StartTagToken, html.EndTagToken:
			tag, _ := z.TagName()
			name, begins := string(tag), kind == html.StartTagToken
			switch {
			case name == "title":
				inTitle = begins && title == ""
			case name == "script" || name == "style" || name == "noscript" || name == "svg":
				if hidden = ""; begins {
					hidden = name
				}
			}
		case html.TextToken:
			said := strings.TrimSpace(string(z.Text()))
			switch {
			case said == "" || hidden != "":
			case inTitle:
				title = html.UnescapeString(said)
			case text.Len() < 4*maxWords:
				text.WriteString(html.UnescapeString(said) + " ")
			}
		}
	}
	return title, strings.TrimSpace(text.String())
}

// Shown returns a description of the page: its content type and its title. With words it has the first words
// if there is no title. Do not use words for an answer that may contain a secret of an unknown form. clean
// removes what must not be shown, before anything is cut.
func (p Page) Shown(words bool, clean func(string) string) string {
	kind := printable.Line(p.MediaType, maxWords)
	if kind == "" {
		kind = "no content type"
	}
	say := p.Title
	if say == "" && words {
		say = p.Words
	}
	if say = printable.Line(clean(say), maxWords); say == "" {
		return kind
	}
	return kind + `, "` + say + `"`
}
