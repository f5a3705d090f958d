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
	// maxPage is how much of a page is read for its title and its first words, and maxTokens of how many
	// parts: a page of nothing but markup has neither.
	maxPage, maxTokens = 64 << 10, 4000
	// maxWords is how many bytes of its title or its first words are shown.
	maxWords = 120
)

// Page is an answer of something else than the API that was asked.
type Page struct {
	// MediaType is its content type without parameters; empty if it names none.
	MediaType string
	// Title is that of an HTML page. Words are the first ones that a reader sees. Both are whole, and must
	// be cleaned before they are shown.
	Title, Words string
	// PlainOnTLS is set if a server says that it was asked in plain http where it speaks TLS.
	PlainOnTLS bool
}

// plainOnTLS are the words of Go's server and of nginx.
var plainOnTLS = regexp.MustCompile(`(?i)HTTP request (?:was sent )?to (?:an )?HTTPS (?:server|port)`)

// ReadPage reads what can be said of an answer. It keeps nothing of a body that is neither text nor HTML.
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

// readHTML returns the title of a page, and the first words of it that are visible.
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

// Shown describes the page: its content type, and its title. With words it has the first words where
// there is no title; they must not be asked for where an answer may show a secret of an unknown form.
// clean takes out what must not be shown, before anything is cut.
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
