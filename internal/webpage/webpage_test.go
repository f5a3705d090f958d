package webpage_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/html"

	"rotatord/deploy"
	"rotatord/docs"
	"rotatord/internal/event"
	"rotatord/internal/scheduler"
	"rotatord/internal/status"
	"rotatord/internal/webpage"
	"rotatord/internal/webpage/webpagetest"
)

// handler serves the pages of a source, which are complete.
func handler(source webpage.Source) http.Handler { return webpagetest.Ready(begun(source)) }

// begun serves the pages of a source. Its first answers may show less.
func begun(source webpage.Source) http.Handler {
	mux := http.NewServeMux()
	webpage.Register(mux, webpage.Options{Source: source, Version: "v1.2.3", Now: func() time.Time { return webpagetest.Now }, Conditions: func() []webpage.Condition { return nil }})
	return mux
}

// get returns an answer.
func get(t testing.TB, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w
}

// TestOrder: what is wrong comes first, then what comes next, then the tokens.
func TestOrder(t *testing.T) {
	body := get(t, handler(webpagetest.Trouble(webpagetest.Fleet(300))), "/").Body.String()
	last := -1
	for _, text := range []string{"<main", "3 critical, 2 warnings", "5 of 300 tokens are affected", "What is wrong", "Since", "2026-11-30 02:40 UTC", "The old secret works until", "in 9 h 12 min", "It ends by itself: ", "rotatord resolve ci-deploy",
		"/docs/runbook.md#rotatordtokenindoubt", `<code class="cmd">vault operator unseal -address=https://vault.example.com:8200</code>`, "/docs/runbook.md#check-vault", "What comes next", "change-night", `id="tokens"`, `aria-sort="ascending"`} {
		at := strings.Index(body[last+1:], text)
		if at < 0 {
			t.Fatalf("%q is not there, or not in this place", text)
		}
		last += 1 + at
	}
}

// TestList: search, filters, sorting and pages of the list.
func TestList(t *testing.T) {
	h := handler(webpagetest.Trouble(webpagetest.Fleet(300)))
	names := regexp.MustCompile(`<th scope="row"><a href="/tokens/([^"]*)"`)
	for _, test := range []struct {
		query string
		count string
		first string
		rows  int
	}{
		{"", "1–50 of 300<", "ci-deploy", 50},
		{"?page=6&sort=name", "251–300 of 300<", "", 50},
		{"?page=99999999", "251–300 of 300<", "", 50},
		{"?page=-1", "1–50 of 300<", "ci-deploy", 50},
		{"?state=trouble", "1–5 of 5 that fit, of 300 in all", "ci-deploy", 5},
		{"?state=critical", "1–2 of 2 that fit", "ci-deploy", 2},
		{"?state=paused", "1–1 of 1 that fit", "nightly-import", 1},
		{"?state=nosuch", "1–50 of 300<", "ci-deploy", 50},
		{"?q=ci-deploy&sort=name", "1–25 of 25 that fit", "ci-deploy", 25},
		{"?q=VAULT:SECRET/ACCESS/BACKUP-0001", "1–1 of 1 that fit", "backup-0001", 1},
		{"?sink=file%3A%2Fetc%2Fagent", "of 75 that fit", "", 50},
		{"?account=staging&sort=name", "that fit", "", 50},
		{"?q=nosuch", "No token fits.", "", 0},
		{"?q=%3Cscript%3E&sort=%22", "No token fits.", "", 0},
	} {
		body := get(t, h, "/"+test.query).Body.String()
		found := names.FindAllStringSubmatch(body, -1)
		if !strings.Contains(body, test.count) || len(found) != test.rows || test.first != "" && found[0][1] != test.first {
			t.Errorf("%q: %d rows, first %v; %q is there: %v", test.query, len(found), found[:min(len(found), 1)], test.count, strings.Contains(body, test.count))
		}
	}
}

// TestAnswersAreBounded: no answer about ten thousand tokens in trouble is above 200 KB.
func TestAnswersAreBounded(t *testing.T) {
	sample := webpagetest.Trouble(webpagetest.Fleet(10000))
	long, short := strings.Repeat("a long error ", 20000), strings.Repeat("x", 1000)
	for i := range sample.All {
		token := &sample.All[i]
		token.Failures, token.LastError, token.Gone = 3, long, i%2 == 0
		for range 100 - min(i, 99) {
			token.Findings = append(token.Findings, status.Finding{Sink: "vault:secret/x", Kind: "unreadable", What: "it could not be read", Error: short, Since: webpagetest.Now})
		}
	}
	h := handler(sample)
	for _, path := range []string{"/", "/?state=trouble&page=3", "/?sort=expires", "/tokens/ci-deploy"} {
		if n := get(t, h, path).Body.Len(); n > 200_000 || n < 20_000 {
			t.Errorf("%s has %d bytes", path, n)
		}
	}
}

// TestNothingIsLoadedFromElsewhere: a page names no other host, and has neither code nor style inside, which the policy
// would refuse.
func TestNothingIsLoadedFromElsewhere(t *testing.T) {
	h := handler(webpagetest.Trouble(webpagetest.Fleet(12)))
	for _, path := range []string{"/", "/tokens/ci-deploy", "/docs/", "/nosuch", "/tokens/nosuch", "/docs/nosuch.md"} {
		walk(t, get(t, h, path).Body.String(), func(n *html.Node) {
			if n.Data == "style" || n.Data == "script" && n.FirstChild != nil {
				t.Errorf("%s: <%s> inside the page", path, n.Data)
			}
			for _, a := range n.Attr {
				switch {
				case a.Key == "style", strings.HasPrefix(a.Key, "on"):
					t.Errorf("%s: <%s %s>", path, n.Data, a.Key)
				case a.Key == "src", a.Key == "href" && n.Data == "link":
					if w := get(t, h, a.Val); !strings.HasPrefix(a.Val, "/assets/") || w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
						t.Errorf("%s: %s: %d", path, a.Val, w.Code)
					}
				case a.Key == "href" && strings.HasPrefix(a.Val, "/") && !strings.HasPrefix(a.Val, "/api/") && !strings.HasPrefix(a.Val, "/metrics") && !strings.HasPrefix(a.Val, "/readyz"):
					if w := get(t, h, strings.Split(a.Val, "#")[0]); w.Code != http.StatusOK {
						t.Errorf("%s: the link %s leads nowhere", path, a.Val)
					}
				}
			}
		})
	}
}

// walk calls visit with each element of a page.
func walk(t *testing.T, page string, visit func(*html.Node)) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			visit(n)
		}
	}
}

// TestAccessible: the rules for pages that a screen reader reads, as far as a parser can see them.
func TestAccessible(t *testing.T) {
	h := handler(webpagetest.Trouble(webpagetest.Fleet(12)))
	for _, path := range []string{"/", "/?q=x", "/tokens/ci-deploy", "/docs/runbook.md", "/docs/configuration.md", "/tokens/nosuch"} {
		seen, ids, landmarks, heading, mains := map[string]int{}, map[string]bool{}, map[string]bool{}, 0, 0
		walk(t, get(t, h, path).Body.String(), func(n *html.Node) {
			attr := map[string]string{}
			for _, a := range n.Attr {
				attr[a.Key] = a.Val
			}
			for key, values := range map[string][]string{"aria-current": {"", "page", "true"}, "aria-sort": {"", "ascending"}, "role": {"", "img", "group", "search", "status"}} {
				if !slices.Contains(values, attr[key]) {
					t.Errorf("%s: %s is %q", path, key, attr[key])
				}
			}
			if attr["aria-current"] == "page" {
				seen["current"]++
				if attr["href"] != strings.Split(path, "?")[0] {
					t.Errorf("%s: the page of now is %s", path, attr["href"])
				}
			}
			if attr["role"] == "status" && (textOf(n) != "" || inside(n, "main")) {
				t.Errorf("%s: what is said is there already, or is replaced at a refresh", path)
			}
			if id, has := attr["id"]; has {
				if ids[id] {
					t.Errorf("%s: the id %q is there twice", path, id)
				}
				ids[id] = true
			}
			seen[n.Data]++
			switch n.Data {
			case "html":
				if attr["lang"] != "en" {
					t.Errorf("%s has no language", path)
				}
			case "main":
				mains++
			case "h1", "h2", "h3", "h4":
				level := int(n.Data[1] - '0')
				if level > heading+1 {
					t.Errorf("%s: %s follows h%d", path, n.Data, heading)
				}
				heading = level
			case "svg":
				if attr["aria-label"] == "" && n.Parent.Attr[len(n.Parent.Attr)-1].Val != "true" {
					t.Errorf("%s: a picture without a text", path)
				}
			case "nav", "section":
				name := attr["aria-label"] + attr["aria-labelledby"]
				if name == "" || landmarks[name] {
					t.Errorf("%s: %s %q has no name of its own", path, n.Data, name)
				}
				landmarks[name] = true
			case "th":
				if attr["scope"] == "" || strings.TrimSpace(textOf(n)) == "" {
					t.Errorf("%s: th without scope or text", path)
				}
			case "input", "select":
				if attr["type"] != "hidden" && (n.Parent == nil || n.Parent.Data != "label") {
					t.Errorf("%s: %s without a label", path, n.Data)
				}
			case "a", "button":
				if strings.TrimSpace(textOf(n)) == "" {
					t.Errorf("%s: %s without a text", path, n.Data)
				}
			case "img":
				if attr["alt"] == "" {
					t.Errorf("%s: img without alt", path)
				}
			}
		})
		if known := path == "/" || path == "/?q=x" || path == "/docs/runbook.md"; known != (seen["current"] == 1) {
			t.Errorf("%s: %d links say that they lead to this page", path, seen["current"])
		}
		if seen["h1"] != 1 || mains != 1 || seen["title"] < 1 {
			t.Errorf("%s: %d h1, %d main, %d title", path, seen["h1"], mains, seen["title"])
		}
	}
}

// inside reports whether an element is in another one of that name.
func inside(n *html.Node, name string) bool {
	for a := range n.Ancestors() {
		if a.Data == name {
			return true
		}
	}
	return false
}

func textOf(n *html.Node) (text string) {
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			text += d.Data
		}
	}
	return text
}

// TestDocuments: each document and each guide is served, and each link in it to another one leads to a heading that is there.
func TestDocuments(t *testing.T) {
	h := handler(webpagetest.Fleet(1))
	ids := map[string]map[string]bool{}
	links := map[string][]string{}
	for under, files := range map[string]fs.FS{"/docs/": docs.Files, "/deploy/": deploy.Files} {
		err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			path = under + path
			w := get(t, h, path)
			if w.Code != http.StatusOK {
				t.Errorf("%s: %d", path, w.Code)
			}
			ids[path] = map[string]bool{"": true}
			walk(t, w.Body.String(), func(n *html.Node) {
				for _, a := range n.Attr {
					if a.Key == "id" {
						ids[path][a.Val] = true
					}
					if a.Key == "href" {
						links[path] = append(links[path], a.Val)
					}
				}
			})
			return nil
		})
		if err != nil || len(ids) < 7 {
			t.Fatal(len(ids), err)
		}
	}
	checked, guides := 0, 0
	for from, all := range links {
		for _, link := range all {
			base := &url.URL{Path: from}
			to, err := base.Parse(link)
			guide := err == nil && strings.HasPrefix(to.Path, "/deploy/")
			if err != nil || to.Host != "" || !guide && !strings.HasPrefix(to.Path, "/docs/") || to.Path == "/docs/" {
				continue
			}
			if checked++; guide {
				guides++
			}
			if !ids[to.Path][to.Fragment] {
				t.Errorf("%s: the link %s leads nowhere", from, link)
			}
		}
	}
	if checked < 200 || guides < 20 {
		t.Errorf("only %d links were found, %d of them to guides", checked, guides)
	}
	for _, path := range []string{"/docs/../go.mod", "/docs/embed.go", "/docs/adr", "/docs/runbook", "/docs/%2e%2e/go.mod", "/docs/runbook.md/", "/deploy/", "/deploy/deploy.go", "/deploy/vault"} {
		if w := get(t, h, path); w.Code == http.StatusOK {
			t.Errorf("%s is served", path)
		}
	}
	if body := get(t, h, "/deploy/vault/rotatord-policy.hcl").Body.String(); !strings.Contains(body, "capabilities") {
		t.Error("the policy is not shown")
	}
}

// TestSection: a section is cut out of a page as its link leads there.
func TestSection(t *testing.T) {
	const page = "# Page\n\n## A `b_c`: d\n\ntext\n\n```sh\n# a comment\n```\n\n### Deeper\n\nmore\n\n## A b\n\nlast\n"
	for anchor, want := range map[string]string{
		"a-b_c-d": "## A `b_c`: d\n\ntext\n\n```sh\n# a comment\n```\n\n### Deeper\n\nmore\n",
		"deeper":  "### Deeper\n\nmore\n", "a-b": "## A b\n\nlast\n", "page": page, "a-comment": "", "": "",
	} {
		if got := webpage.Section(page, anchor); got != want {
			t.Errorf("%q:\n%q\nwant\n%q", anchor, got, want)
		}
	}
	if got := webpage.Sections(page); !slices.Equal(got, []string{"a-b_c-d", "deeper", "a-b"}) {
		t.Error(got)
	}
}

// TestHosts: a request that names a foreign host is refused, except for metrics and health.
func TestHosts(t *testing.T) {
	hosts := webpage.Hosts{Listen: "rotator.internal:9321", Names: []string{"pages.example.com"}, ExternalURL: "https://ext.example.com:8443"}
	for host, want := range map[string]bool{
		"127.0.0.1:9321": true, "[::1]:9321": true, "[::1]": true, "::1": true, "10.1.2.3": true, "localhost": true, "LOCALHOST:1": true, "x.localhost": true,
		"rotator.internal": true, "rotator.internal:80": true, "pages.example.com": true, "PAGES.example.com.:9321": true, "ext.example.com": true,
		"evil.example": false, "127.0.0.1.evil.example": false, "": false, "pages.example.com.evil.example": false, "localhost.evil.example": false, "xlocalhost": false,
	} {
		for path, exempt := range map[string]bool{"/": false, "/api/v1/tokens": false, "/docs/": false, "/assets/x": false, "/metrics": true, "/livez": true, "/readyz": true, "/metrics/": false, "//metrics": false} {
			served := false
			h := webpage.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served = true }), func() webpage.Hosts { return hosts })
			w := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.URL.Path, r.Host = path, host
			h.ServeHTTP(w, r)
			if served != (want || exempt) || !served && w.Code != http.StatusMisdirectedRequest {
				t.Errorf("%q %s: served %v, %d", host, path, served, w.Code)
			}
		}
	}
	if (webpage.Hosts{Listen: ":9321"}).Accepts("") {
		t.Error("an empty host is accepted")
	}
}

// unplanned is a source whose outlook fails while there is an error.
type unplanned struct {
	*webpagetest.Sample
	err atomic.Pointer[error]
}

func (u *unplanned) Outlook(ctx context.Context, token string, until time.Time) (status.Outlook, error) {
	if err := u.err.Load(); err != nil && *err != nil {
		return status.Outlook{}, *err
	}
	return u.Sample.Outlook(ctx, token, until)
}

// TestPlanFails: a plan that cannot be made is named with its error, and tried again later, not by each request.
func TestPlanFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, broken := &unplanned{Sample: webpagetest.Fleet(3)}, errors.New("the zone of <a schedule> is unknown")
		source.err.Store(&broken)
		h := begun(source)
		const failed, summary = "The plan could not be made:</b> the zone of &lt;a schedule&gt; is unknown.", "<b>3 rotations</b> until"
		for _, step := range []struct {
			err          error
			wait         time.Duration
			says, saysNo string
		}{
			{broken, 0, failed, "is being made"},
			{nil, time.Second, failed, summary}, // it is not tried again yet
			{nil, 15 * time.Second, summary, "could not be made"},
			{broken, 16 * time.Second, "What follows is from before", "is being made"},
			{broken, 0, summary, "is being made"}, // the last one is still shown
		} {
			source.err.Store(&step.err)
			time.Sleep(step.wait)
			if body := get(t, h, "/").Body.String(); !strings.Contains(body, step.says) || strings.Contains(body, step.saysNo) {
				t.Errorf("after %v with %v: it must say %q, and not %q", step.wait, step.err, step.says, step.saysNo)
			}
		}
	})
}

// slow is a source whose outlook takes a second.
type slow struct{ *webpagetest.Sample }

func (s slow) Outlook(ctx context.Context, token string, until time.Time) (status.Outlook, error) {
	time.Sleep(time.Second)
	return s.Sample.Outlook(ctx, token, until)
}

// TestPlanIsMade: a plan that takes long does not delay the page.
func TestPlanIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := begun(slow{webpagetest.Fleet(3)})
		start := time.Now()
		body := get(t, h, "/").Body.String()
		if took := time.Since(start); took > 50*time.Millisecond || !strings.Contains(body, "The plan is being made") {
			t.Errorf("after %v the page does not say that the plan is not there yet", took)
		}
		time.Sleep(time.Second)
		if body := get(t, h, "/").Body.String(); !strings.Contains(body, "<b>3 rotations</b> until") {
			t.Error("the plan is not there after it was made")
		}
	})
}

// TestHooks: a hook that fails is on both pages with its own error, with what to type, and until when the old secret works.
func TestHooks(t *testing.T) {
	sample := webpagetest.Fleet(1)
	token := &sample.All[0]
	token.LastError, token.GraceEnd = "of another matter", webpagetest.Now.Add(time.Hour)
	token.Hooks = []status.Hook{
		{Name: "webhook:https://app.example", State: "done", DoneAt: webpagetest.Now.Add(-20 * time.Minute)},
		{Name: "exec:reload", State: "failing", Failures: 3, Since: webpagetest.Now.Add(-20 * time.Minute), Next: webpagetest.Now.Add(time.Minute), LastError: "exit status 3"},
	}
	token.ToDo = token.MoreToDo(webpagetest.Now)
	h := handler(sample)
	for path, all := range map[string][]string{
		"/":                     {"1 warning", "The old secret works until", `<dd class="why">exec:reload: exit status 3</dd>`, `<code class="cmd">rotatord hook run ci-deploy</code>`},
		"/tokens/" + token.Name: {"Hooks after its last rotation", "webhook:https://app.example", "done <time", "failed 3 times in a row: exit status 3", "next try <time", "rotatord hook drop ci-deploy"},
	} {
		body := get(t, h, path).Body.String()
		for _, text := range all {
			if !strings.Contains(body, text) {
				t.Errorf("%s does not say %q", path, text)
			}
		}
	}
}

// TestCommandsAreMarked: each command in what to do about a check, or about several tokens, is marked as something to type.
func TestCommandsAreMarked(t *testing.T) {
	sample := webpagetest.Fleet(2)
	for i := range sample.Looked {
		sample.Looked[i].OK, sample.Looked[i].Reason, sample.Looked[i].Detail = false, "refused", "it fails"
	}
	for i := range sample.All {
		sample.All[i].Hooks = []status.Hook{{Name: "exec:reload", State: "failing", Failures: 3, Since: webpagetest.Now.Add(-20 * time.Minute)}}
	}
	body := get(t, handler(sample), "/").Body.String()
	for _, command := range []string{"rotatord audit verify", "rotatord notify test", "rotatord hook run backup", "rotatord doctor"} {
		if !strings.Contains(body, `<code class="cmd">`+command+"</code>") {
			t.Errorf("%s is not marked", command)
		}
	}
}

// TestLongSink: the list can be filtered by a sink whose name is longer than what a query may have.
func TestLongSink(t *testing.T) {
	sample := webpagetest.Fleet(2)
	sample.All[0].Mounts = []string{"file:/srv/" + strings.Repeat("long/", 30)}
	h := handler(sample)
	found := regexp.MustCompile(`<option>(file:[^<]*)</option>`).FindStringSubmatch(get(t, h, "/").Body.String())
	if found == nil {
		t.Fatal("the sink is not a choice")
	}
	if body := get(t, h, "/?sink="+url.QueryEscape(found[1])).Body.String(); !strings.Contains(body, "1–1 of 1 that fit, of 2 in all") || !strings.Contains(body, "<option selected>"+found[1]) {
		t.Errorf("%s finds no token, or is not chosen", found[1])
	}
}

// late is a source whose outlook takes as long as it may, and which reads its record only in time.
type late struct{ *webpagetest.Sample }

func (l late) Outlook(ctx context.Context, _ string, _ time.Time) (status.Outlook, error) {
	<-ctx.Done()
	return status.Outlook{}, ctx.Err()
}

func (l late) History(ctx context.Context, q status.HistoryQuery) (status.History, error) {
	if err := ctx.Err(); err != nil {
		return status.History{}, err
	}
	return l.Sample.History(ctx, q)
}

// TestHistoryAfterLateOutlook: if a token's outlook takes too long, its history is still shown.
func TestHistoryAfterLateOutlook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := handler(late{webpagetest.Trouble(webpagetest.Fleet(12))})
		if body := get(t, h, "/tokens/ci-deploy").Body.String(); !strings.Contains(body, "They could not be computed") || !strings.Contains(body, "01KAQE1S8C7Y4N") {
			t.Error("the history is not shown")
		}
	})
}

// TestSampleIsReal: the samples, of which the pictures in the documents are made, show only what a daemon can say.
func TestSampleIsReal(t *testing.T) {
	sample := webpagetest.Trouble(webpagetest.Fleet(300))
	for _, e := range sample.Record {
		i := slices.IndexFunc(event.Definitions(), func(d event.Definition) bool { return string(d.Kind) == e.Kind })
		if i < 0 {
			t.Errorf("there is no kind %s", e.Kind)
		} else if d := event.Definitions()[i]; !d.Kind.Recorded() || string(d.Severity) != e.Severity || d.Message != e.Message {
			t.Errorf("%s is %s %q, recorded %t", e.Kind, d.Severity, d.Message, d.Kind.Recorded())
		}
	}
	for _, token := range sample.All {
		zone, err := time.LoadLocation(token.TimeZone)
		if err != nil {
			t.Fatal(err)
		}
		schedule, err := scheduler.Parse(token.Schedule, zone)
		if err != nil {
			t.Fatal(err)
		}
		if at := token.LastSuccess; !token.Next.IsZero() && token.Reason == "slot" && !schedule.Next(at).Equal(token.Next) && !schedule.Next(schedule.Next(at)).Equal(token.Next) {
			t.Errorf("%s: %q in %s has a slot at %v after %v, and is shown at %v", token.Name, token.Schedule, zone, schedule.Next(at).UTC(), at, token.Next)
		}
	}
	skipped := 0
	for _, c := range sample.Plan.Coming {
		for _, f := range sample.Plan.Freezes {
			if !c.Skipped && !c.At.Before(f.From) && c.At.Before(f.To) {
				t.Errorf("%s rotates at %v, in a freeze", c.Token, c.At)
			}
		}
		if c.Skipped {
			skipped++
		}
	}
	if skipped == 0 {
		t.Error("the freeze skips nothing")
	}
}

// BenchmarkPages measures pages of ten thousand tokens: each from a new look at the fleet.
func BenchmarkPages(b *testing.B) {
	h := handler(webpagetest.Trouble(webpagetest.Fleet(10000)))
	get(b, h, "/") // the plan is kept
	for _, path := range []string{"/", "/?sort=name&page=100", "/?q=deploy&sort=expires", "/tokens/ci-deploy", "/docs/runbook.md"} {
		b.Run(path, func(b *testing.B) {
			size := 0
			for b.Loop() {
				size = get(b, h, path).Body.Len()
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}
