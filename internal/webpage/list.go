package webpage

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/status"
)

const (
	pageSize = 50
	// maxQuery is how many bytes of a search are used.
	maxQuery = 100
)

// query is what a reader asks for.
type query struct {
	Text, State, Account, Sink, Sort string
	Page                             int
}

var sorts = []string{"urgency", "name", "next", "last", "expires", "account"}

// readQuery reads the parameters of an address. One that is wrong counts as not given, since a reader cannot do more about it.
func readQuery(r *http.Request) query {
	v := r.URL.Query()
	get := func(name string) string { return printable.Line(strings.TrimSpace(v.Get(name)), maxQuery) }
	q := query{Text: get("q"), State: get("state"), Account: get("account"), Sink: get("sink"), Sort: get("sort")}
	if !slices.Contains(sorts, q.Sort) {
		q.Sort = sorts[0]
	}
	if q.State != "trouble" && !slices.Contains(levelNames, q.State) {
		q.State = ""
	}
	q.Page, _ = strconv.Atoi(v.Get("page"))
	q.Page = max(q.Page, 1)
	return q
}

// Address returns the address of the page with that query, at the list of tokens.
func (q query) Address() string {
	v := url.Values{}
	for name, value := range map[string]string{"q": q.Text, "state": q.State, "account": q.Account, "sink": q.Sink, "sort": q.Sort} {
		if value != "" && (name != "sort" || value != sorts[0]) {
			v.Set(name, value)
		}
	}
	if q.Page > 1 {
		v.Set("page", strconv.Itoa(q.Page))
	}
	if len(v) == 0 {
		return "/#tokens"
	}
	return "/?" + v.Encode() + "#tokens"
}

// SortedBy returns the address of the list in another order.
func (q query) SortedBy(sort string) string { q.Sort, q.Page = sort, 1; return q.Address() }

// WithState returns the address of the tokens with a state.
func (q query) WithState(state string) string { q.State, q.Page = state, 1; return q.Address() }

// AtPage returns the address of another page of the list.
func (q query) AtPage(n int) string { q.Page = n; return q.Address() }

// Narrow reports whether the query leaves out tokens.
func (q query) Narrow() bool { return q.Text+q.State+q.Account+q.Sink != "" }

// list is one page of the list of tokens.
type list struct {
	query
	Rows            []row
	Found, Of       int
	Pages           int
	First, Last     int // the numbers of the rows, from 1
	Accounts, Sinks []string
	States          []choice
	Sorts           []choice
	Previous, Next  string // addresses; empty if there is none
	SeveralAccounts bool
}

// choice is one value of a list.
type choice struct {
	Value, Title string
	Count        int
	Chosen       bool
}

// row is one token in the list.
type row struct {
	status.Token
	Level           level
	Word, Note      string // the state in words
	NextIn, NextWhy string
	LastAgo, EndsIn string
}

// list returns the page of the list that the query asks for. The tokens on it are read now.
func (p *pages) list(f *fleet, q query, now time.Time) list {
	l := list{query: q, Of: len(f.entries), Accounts: f.accounts, Sinks: f.sinks, SeveralAccounts: len(f.accounts) > 1}
	found := f.orders.by(q.Sort)
	if q.Narrow() {
		found = f.found(found, q)
	}
	l.Found, l.Pages = len(found), max((len(found)+pageSize-1)/pageSize, 1)
	l.Page = min(q.Page, l.Pages)
	begin := (l.Page - 1) * pageSize
	end := min(begin+pageSize, len(found))
	l.First, l.Last = begin+1, end
	for _, i := range found[begin:end] {
		if t, ok := p.Source.Token(f.entries[i].Name); ok { // else a reload has removed it
			l.Rows = append(l.Rows, newRow(&t, now))
		}
	}
	if l.Page > 1 {
		l.Previous = l.AtPage(l.Page - 1)
	}
	if l.Page < l.Pages {
		l.Next = l.AtPage(l.Page + 1)
	}
	l.States = []choice{{Value: "", Title: "all", Count: len(f.entries)}, {Value: "trouble", Title: "in trouble", Count: f.counts[critical] + f.counts[warning]},
		{Value: "critical", Title: "critical", Count: f.counts[critical]}, {Value: "warning", Title: "warning", Count: f.counts[warning]},
		{Value: "busy", Title: "in progress", Count: f.counts[busy]}, {Value: "paused", Title: "paused or frozen", Count: f.counts[paused]},
		{Value: "fine", Title: "fine", Count: f.counts[fine]}}
	for i := range l.States {
		l.States[i].Chosen = l.States[i].Value == q.State
	}
	for _, s := range sorts {
		l.Sorts = append(l.Sorts, choice{Value: s, Title: sortTitles[s], Chosen: s == q.Sort})
	}
	return l
}

var sortTitles = map[string]string{"urgency": "urgency", "name": "name", "next": "next rotation", "last": "last rotation", "expires": "expiry", "account": "account"}

// found returns those of some entries that a query finds, in their order.
func (f *fleet) found(among []int32, q query) (found []int32) {
	text := strings.ToLower(q.Text)
	for _, i := range among {
		if f.fits(f.entries[i], q, text) {
			found = append(found, i)
		}
	}
	return found
}

// fits reports whether a query finds a token.
func (f *fleet) fits(e *entry, q query, text string) bool {
	switch {
	case q.State == "trouble" && e.level > warning, q.State != "" && q.State != "trouble" && e.level.String() != q.State:
		return false
	case q.Account != "" && f.choice[e.Account] != q.Account, q.Sink != "" && !slices.ContainsFunc(e.Mounts, func(m string) bool { return f.choice[m] == q.Sink }):
		return false
	}
	return text == "" || strings.Contains(e.Name, text) || strings.Contains(e.search, text)
}

// newRow returns what the list shows of a token.
func newRow(all *status.Token, now time.Time) row {
	t := status.Token{ // what a row has: an error may be long, and is not scrubbed for nothing
		Name: all.Name, Account: all.Account, State: all.State, Schedule: all.Schedule, TimeZone: all.TimeZone, Reason: all.Reason, Freeze: all.Freeze, Next: all.Next,
		LastSuccess: all.LastSuccess, Expiry: all.Expiry, Failures: all.Failures, Pause: all.Pause, Order: all.Order, Waiting: all.Waiting, WaitsFor: all.WaitsFor,
	}.Scrubbed()
	in := all.Concern(now).In
	r := row{Token: t, Level: levelOf(all, in), NextIn: brief(t.Next, now), LastAgo: brief(t.LastSuccess, now), EndsIn: brief(t.Expiry, now)}
	r.Word, r.Note = describe(&t, in)
	if t.Next.IsZero() {
		r.NextIn = status.WithoutTime(t.State, t.Reason)
	}
	r.NextWhy = nextWhy(t)
	return r
}

// describe says in a few words how a token is that is in these troubles.
func describe(t *status.Token, in []status.In) (word, note string) {
	switch {
	case len(in) > 0:
		word = words(in[0].Kind())
		var notes []string
		for _, i := range in[1:] {
			notes = append(notes, i.Kind())
		}
		if t.Failures > 0 {
			notes = append(notes, plural(t.Failures, "failure"))
		}
		note = words(strings.Join(notes, ", "))
	case t.Pause != nil:
		word, note = "paused", "until it is resumed"
		if !t.Pause.Until.IsZero() {
			note = "until " + minute(t.Pause.Until)
		}
	case t.Freeze != "":
		word, note = "frozen", t.Freeze
	case t.Waiting:
		word, note = "waits", t.WaitsFor
	case t.State != "idle":
		word, note = "rotates now", words(t.State)
	case t.Order != nil:
		word, note = "ordered", "to be rotated"
	default:
		word = "fine"
	}
	return word, printable.Line(note, maxQuery)
}

// nextWhy says why a token is looked at next, where that is not its slot.
func nextWhy(t status.Token) string {
	why := words(t.Reason)
	if why == "slot" || t.Next.IsZero() {
		why = ""
	}
	if t.Freeze != "" {
		why = "freeze " + t.Freeze
	}
	return why
}
