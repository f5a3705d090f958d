package webpage

import (
	"cmp"
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
	// maxChoices is how many accounts or sinks a list offers, and maxQuery how many bytes of a search are used.
	maxChoices = 200
	maxQuery   = 100
)

// level says how a token is, the worst first.
type level int

const (
	critical level = iota
	warning
	busy
	paused
	fine
)

var levelNames = []string{"critical", "warning", "busy", "paused", "fine"}

func (l level) String() string { return levelNames[l] }

// fleet is what is known of all tokens at one moment.
type fleet struct {
	now      time.Time
	tokens   []status.Token // not scrubbed: that is done with what is shown
	levels   []level        // of the token at the same index
	index    map[string]int // by name
	troubles []status.Trouble
	replicas *status.Replicas
	counts   [fine + 1]int
	accounts []string
	sinks    []string
	choice   map[string]string // what stands for an account or a sink in a list of choices and in an address
}

// look returns the fleet as it is now, or was a moment ago.
func (p *pages) look() *fleet {
	return p.fleet.get(func() *fleet {
		f := &fleet{now: p.Now().UTC(), tokens: p.Source.Tokens(), replicas: p.Source.Replicas().Scrubbed()}
		f.troubles = status.AllTroubles(f.tokens, printable.Copy(p.Source.Checks()), f.replicas, f.now)
		f.levels, f.index = make([]level, len(f.tokens)), make(map[string]int, len(f.tokens))
		accounts, sinks := map[string]bool{}, map[string]bool{}
		for i := range f.tokens {
			t := &f.tokens[i]
			f.index[t.Name], f.levels[i] = i, calm(t)
			accounts[t.Account] = true
			for _, m := range t.Mounts {
				sinks[m] = true
			}
		}
		for _, t := range f.troubles {
			l := warning
			if t.Severity == status.Critical {
				l = critical
			}
			for _, name := range t.Tokens {
				if i, ok := f.index[name]; ok {
					f.levels[i] = min(f.levels[i], l)
				}
			}
		}
		for _, l := range f.levels {
			f.counts[l]++
		}
		f.choice = map[string]string{}
		f.accounts, f.sinks = f.choices(accounts), f.choices(sinks)
		return f
	})
}

// calm returns the level of a token without trouble.
func calm(t *status.Token) level {
	switch {
	case t.Pause != nil || t.Reason == "paused" || t.Freeze != "":
		return paused
	case t.State != "idle" || t.Waiting || t.Order != nil:
		return busy
	}
	return fine
}

// choices returns the choices of a list. A long name is cut, so that [readQuery] does not cut its choice again.
func (f *fleet) choices(of map[string]bool) []string {
	var all []string
	for name := range of {
		f.choice[name] = printable.Line(name, maxQuery-len("..."))
		all = append(all, f.choice[name])
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), maxChoices)]
}

// find returns a token by its name.
func (f *fleet) find(name string) (status.Token, bool) {
	i, ok := f.index[name]
	if !ok {
		return status.Token{}, false
	}
	return f.tokens[i], true
}

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

// list returns the page of the list that the query asks for.
func (f *fleet) list(q query) list {
	l := list{query: q, Of: len(f.tokens), Accounts: f.accounts, Sinks: f.sinks, SeveralAccounts: len(f.accounts) > 1}
	var found []int
	text := strings.ToLower(q.Text)
	for i := range f.tokens {
		if f.fits(i, q, text) {
			found = append(found, i)
		}
	}
	slices.SortStableFunc(found, func(a, b int) int { return f.compare(a, b, q.Sort) })
	l.Found, l.Pages = len(found), max((len(found)+pageSize-1)/pageSize, 1)
	l.Page = min(q.Page, l.Pages)
	begin := (l.Page - 1) * pageSize
	end := min(begin+pageSize, len(found))
	l.First, l.Last = begin+1, end
	for _, i := range found[begin:end] {
		l.Rows = append(l.Rows, f.row(i))
	}
	if l.Page > 1 {
		l.Previous = l.AtPage(l.Page - 1)
	}
	if l.Page < l.Pages {
		l.Next = l.AtPage(l.Page + 1)
	}
	l.States = []choice{{Value: "", Title: "all", Count: len(f.tokens)}, {Value: "trouble", Title: "in trouble", Count: f.counts[critical] + f.counts[warning]},
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

// fits reports whether a query finds a token.
func (f *fleet) fits(i int, q query, text string) bool {
	t := &f.tokens[i]
	switch {
	case q.State == "trouble" && f.levels[i] > warning, q.State != "" && q.State != "trouble" && f.levels[i].String() != q.State:
		return false
	case q.Account != "" && f.choice[t.Account] != q.Account, q.Sink != "" && !slices.ContainsFunc(t.Mounts, func(m string) bool { return f.choice[m] == q.Sink }):
		return false
	case text == "" || strings.Contains(t.Name, text) || strings.Contains(strings.ToLower(t.TokenID), text) || strings.Contains(strings.ToLower(t.ClientID), text):
		return true
	}
	return slices.ContainsFunc(t.Sinks, func(s status.SinkState) bool { return strings.Contains(strings.ToLower(s.Name), text) })
}

// compare orders two tokens by what a reader has chosen, then by name. An unknown time comes last.
func (f *fleet) compare(a, b int, by string) int {
	s, t := &f.tokens[a], &f.tokens[b]
	first := 0
	switch by {
	case "urgency":
		first = cmp.Or(cmp.Compare(f.levels[a], f.levels[b]), compareTimes(s.Next, t.Next))
	case "next":
		first = compareTimes(s.Next, t.Next)
	case "last":
		first = compareTimes(s.LastSuccess, t.LastSuccess)
	case "expires":
		first = compareTimes(s.Expiry, t.Expiry)
	case "account":
		first = cmp.Compare(s.Account, t.Account)
	}
	return cmp.Or(first, cmp.Compare(s.Name, t.Name))
}

func compareTimes(s, t time.Time) int {
	if s.IsZero() != t.IsZero() {
		return t.Compare(s)
	}
	return s.Compare(t)
}

// row returns what the list shows of a token.
func (f *fleet) row(i int) row {
	all := &f.tokens[i]
	t := status.Token{ // what a row has: an error may be long, and is not scrubbed for nothing
		Name: all.Name, Account: all.Account, State: all.State, Schedule: all.Schedule, TimeZone: all.TimeZone, Reason: all.Reason, Freeze: all.Freeze, Next: all.Next,
		LastSuccess: all.LastSuccess, Expiry: all.Expiry, Failures: all.Failures, Pause: all.Pause, Order: all.Order, Waiting: all.Waiting, WaitsFor: all.WaitsFor,
	}.Scrubbed()
	r := row{Token: t, Level: f.levels[i], NextIn: brief(t.Next, f.now), LastAgo: brief(t.LastSuccess, f.now), EndsIn: brief(t.Expiry, f.now)}
	r.Word, r.Note = f.words(i, t)
	if t.Next.IsZero() {
		r.NextIn = status.WithoutTime(t.State, t.Reason)
	}
	r.NextWhy = nextWhy(t)
	return r
}

// words says in a few words how a token is.
func (f *fleet) words(i int, t status.Token) (word, note string) {
	kinds := f.tokens[i].TroubleKinds(f.now)
	switch {
	case len(kinds) > 0:
		word = words(kinds[0])
		notes := kinds[1:]
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
