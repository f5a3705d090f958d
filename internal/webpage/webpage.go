// Package webpage shows a person what the daemon does: a status page with what is wrong first, a page for each
// token, and the documents.
//
// Guarantees: nothing here changes state. A page works without JavaScript, and loads nothing from elsewhere. An answer is
// bounded in size, however many tokens there are. Texts that come from elsewhere are scrubbed of what looks like a
// credential, and escaped. A request that names another host is refused, so that a foreign site whose name leads here
// (DNS rebinding) reads nothing.
package webpage

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"rotatord/internal/status"
)

// Condition is one condition of health.
type Condition struct {
	Name string
	OK   bool
	// Detail says what the daemon waits for, or what is wrong and what to do.
	Detail string
}

// Source provides what the pages show, from memory or local disk. It must be safe for concurrent use.
type Source interface {
	status.Fleet
	// Changes returns which tokens events were about since a number that it returned before, and that number for now. all
	// is set if any other token may have changed too. Not every change is an event.
	Changes(since uint64) (tokens []string, now uint64, all bool)
	// Outlook returns what will happen until some time to one token, or to all if the name is empty.
	Outlook(ctx context.Context, token string, until time.Time) (status.Outlook, error)
	// History returns lines of the record of events, the newest last. It reads the end of local files, within bounds and
	// within ctx.
	History(ctx context.Context, q status.HistoryQuery) (status.History, error)
}

// Options of the pages. All fields are required.
type Options struct {
	Source Source
	// Conditions returns the conditions of health.
	Conditions func() []Condition
	Version    string
	Now        func() time.Time
}

// ContentPolicy is the Content-Security-Policy of every answer: only what this server has, and no code or style inside a
// page.
const ContentPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// pages serves the pages.
type pages struct {
	Options
	fleet    cache[*fleet]
	plan     cache[timeline]
	rendered sync.Map // documents that were asked for, by name: they never change
}

// Register adds the pages to mux.
func Register(mux *http.ServeMux, o Options) {
	p := newPages(o)
	mux.HandleFunc("GET /{$}", p.serveOverview)
	mux.HandleFunc("GET /tokens/{name}", p.serveToken)
	mux.HandleFunc("GET /assets/{file}", serveAsset)
	mux.HandleFunc("GET /docs/{path...}", p.serveDocument)
	mux.HandleFunc("GET /deploy/{path...}", p.serveGuide)
}

// newPages returns the pages. What they keep is made when the first one is asked for.
func newPages(o Options) *pages {
	p := &pages{Options: o}
	p.fleet.every, p.fleet.idle = fleetEvery, lookIdle
	p.fleet.make = func(last *fleet) (*fleet, error) { return newFleet(p.Source, p.Now().UTC(), last), nil }
	p.plan.every, p.plan.idle = planEvery, lookIdle
	p.plan.make = func(timeline) (timeline, error) { return p.makePlan() }
	return p
}

//go:embed templates
var templateFiles embed.FS

// templates returns the templates. They are parsed for the first page: most commands of the program show none.
var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"asset": assetPath, "clock": clock, "iso": iso, "minute": minute, "commands": commands, "plural": plural, "sentence": sentence, "thousands": thousands, "words": words,
	}).ParseFS(templateFiles, "templates/*.tmpl"))
})

// render answers with a page. It is complete before the first byte leaves, so that an error does not cut it off.
func render(w http.ResponseWriter, code int, name string, data any) {
	var b bytes.Buffer
	if err := templates().ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, "the page could not be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // the client went away
}

// head is what every page has.
type head struct {
	Title, Version string
	Now            time.Time
	// Bad is set if the icon says that something is wrong.
	Bad bool
	// Refresh is set if the page refreshes itself.
	Refresh bool
	// Path is the address of the page, where it is among those that every page links to.
	Path string
}

// notFound is the page for an address without one.
type notFound struct {
	head
	What string
}

func (p *pages) serveNotFound(w http.ResponseWriter, what string) {
	render(w, http.StatusNotFound, "notfound.tmpl", notFound{head{Title: "Not found", Version: p.Version, Now: p.Now().UTC()}, what})
}

// clock returns a time to the second, minute one to the minute, and iso one for a program. All are in UTC.
func clock(t time.Time) string  { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
func iso(t time.Time) string    { return t.UTC().Format(time.RFC3339) }

// percent returns a share of a width for SVG.
func percent(f float64) string { return strconv.FormatFloat(min(max(f, 0), 1)*100, 'f', 2, 64) + "%" }

// words returns a stable code as words.
func words(code string) string { return strings.ReplaceAll(code, "_", " ") }

// plural returns a number with its noun.
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%s %ss", thousands(n), one)
}

// thousands returns a number with a comma between its thousands.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
