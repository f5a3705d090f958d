package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"rotatord/internal/status"
)

// serveHistory answers with lines of the record of events. A token in the path wins over one in the query.
func serveHistory(w http.ResponseWriter, r *http.Request, source Source, now time.Time) {
	q, err := historyQuery(r, now)
	if err != nil {
		serveJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	answer, err := source.History(r.Context(), q)
	if err != nil {
		serveJSON(w, http.StatusServiceUnavailable, map[string]string{"error": "the record of events cannot be read: rotatord history on its host says why"})
		return
	}
	shown := make([]status.HistoryEntry, 0, len(answer.Entries))
	for _, entry := range answer.Entries {
		shown = append(shown, entry.Scrubbed())
	}
	answer.Entries = shown
	serveJSON(w, http.StatusOK, answer)
}

// historyQuery returns what a request asks for, or an error that says what would be right.
func historyQuery(r *http.Request, now time.Time) (q status.HistoryQuery, err error) {
	params := r.URL.Query()
	for name := range params {
		if !slices.Contains([]string{"token", "kind", "since", "limit"}, name) {
			return q, fmt.Errorf("there is no parameter %.40q: token, kind, since and limit are known", name)
		}
	}
	q.Token, q.Kind = r.PathValue("name"), params.Get("kind")
	if q.Token == "" {
		q.Token = params.Get("token")
	}
	if since := params.Get("since"); since != "" {
		if q.Since, err = status.ParseSince(since, now); err != nil {
			return q, fmt.Errorf("since: %w", err)
		}
	}
	if limit := params.Get("limit"); limit != "" {
		if q.Limit, err = strconv.Atoi(limit); err != nil || q.Limit < 1 || q.Limit > status.MaxHistory {
			return q, fmt.Errorf("limit is %.40q, and must be a number from 1 to %d", limit, status.MaxHistory)
		}
	}
	return q, nil
}
