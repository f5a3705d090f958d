package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"rotatord/internal/status"
)

// serveTokens answers with all tokens, or with a page of them.
func serveTokens(w http.ResponseWriter, r *http.Request, source Source) {
	page, err := readPage(r)
	if err != nil {
		serveJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	if page.Limit < 0 {
		w.Header().Set("Content-Type", "application/json")
		_ = status.WriteTokens(w, source) // the client went away
		return
	}
	tokens, next, ok := status.ReadPage(source, page)
	if ok {
		linkNext(w, r, next)
	}
	serveJSON(w, http.StatusOK, status.Scrubbed(tokens))
}

// serveOverview answers with the overview of all tokens, or with one that lists a page of them.
func serveOverview(w http.ResponseWriter, r *http.Request, source Source, now time.Time) {
	page, err := readPage(r)
	if err != nil {
		serveJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	if page.Limit > 0 {
		if _, next, ok := status.ReadPage(source, page); ok {
			linkNext(w, r, next)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = status.WriteOverview(w, source, page, true, now) // the client went away
}

// readPage returns the page that a request asks for, or an error that says what would be right. Without limit and after that
// is all tokens. Other parameters are ignored, as before there were any.
func readPage(r *http.Request) (status.Page, error) {
	page := status.Page{Limit: -1}
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return page, fmt.Errorf("the parameters cannot be read: %w", err)
	}
	for _, name := range []string{"limit", "after"} {
		if n := len(params[name]); n > 1 {
			return page, fmt.Errorf("%s is given %d times", name, n)
		}
	}
	page.After = params.Get("after")
	if !params.Has("limit") {
		if params.Has("after") {
			page.Limit = status.MaxPage
		}
		return page, nil
	}
	limit := params.Get("limit")
	if page.Limit, err = strconv.Atoi(limit); err != nil || page.Limit < 0 || page.Limit > status.MaxPage {
		return page, fmt.Errorf("limit is %.40q, and must be a number from 0 to %d", limit, status.MaxPage)
	}
	return page, nil
}

// linkNext names the page that follows, as in RFC 8288.
func linkNext(w http.ResponseWriter, r *http.Request, next status.Page) {
	query := url.Values{"after": {next.After}, "limit": {strconv.Itoa(next.Limit)}}
	w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.Path, query.Encode()))
}

// serveToken answers with what is shown of the token in the path.
func serveToken(w http.ResponseWriter, r *http.Request, source Source, shown func(TokenStatus) any) {
	t, ok := source.Token(r.PathValue("name"))
	if !ok {
		serveJSON(w, http.StatusNotFound, map[string]string{"error": "no token of that name is configured"})
		return
	}
	serveJSON(w, http.StatusOK, shown(t))
}
