// Package webpagetest makes fleets for tests of the pages: of any size, with and without trouble, always the same.
package webpagetest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"rotatord/internal/status"
)

// Now is the time of every sample.
var Now = time.Date(2026, 11, 30, 2, 47, 12, 0, time.UTC)

// Sample is a source of pages. Its fields may be changed before it is used.
type Sample struct {
	All    []status.Token
	Looked []status.Check
	Shared *status.Replicas
	Sealed int
	Plan   status.Outlook
	Record []status.HistoryEntry
}

// Tokens returns all tokens.
func (s *Sample) Tokens() []status.Token { return s.All }

// Token implements the source of the pages.
func (s *Sample) Token(name string) (status.Token, bool) {
	i, ok := s.find(name)
	if !ok {
		return status.Token{}, false
	}
	return s.All[i], true
}

// TokensAfter implements the source of the pages.
func (s *Sample) TokensAfter(name string, n int) []status.Token {
	i, ok := s.find(name)
	if ok {
		i++
	}
	return slices.Clone(s.All[i:min(i+n, len(s.All))])
}

func (s *Sample) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.All, name, func(t status.Token, name string) int { return strings.Compare(t.Name, name) })
}

// Changes implements the source of the pages.
func (s *Sample) Changes(uint64) (tokens []string, now uint64, all bool) { return nil, 0, false }

// Checks implements the source of the pages.
func (s *Sample) Checks() []status.Check { return s.Looked }

// Replicas implements the source of the pages.
func (s *Sample) Replicas() *status.Replicas { return s.Shared }

// Pending implements the source of the pages.
func (s *Sample) Pending() (int, time.Time) {
	if s.Sealed == 0 {
		return 0, time.Time{}
	}
	return s.Sealed, Now.Add(-25 * time.Minute)
}

// Outlook implements the source of the pages.
func (s *Sample) Outlook(_ context.Context, token string, until time.Time) (status.Outlook, error) {
	o := status.Outlook{Until: until, Freezes: s.Plan.Freezes}
	for _, c := range s.Plan.Coming {
		if (token == "" || c.Token == token) && !c.At.After(until) {
			o.Coming = append(o.Coming, c)
		}
	}
	return o, nil
}

// History implements the source of the pages.
func (s *Sample) History(_ context.Context, q status.HistoryQuery) (status.History, error) {
	h := status.History{Entries: []status.HistoryEntry{}}
	for _, e := range s.Record {
		if q.Token == "" || e.Token == q.Token {
			h.Entries = append(h.Entries, e)
		}
	}
	return h, nil
}

var names = []string{"ci-deploy", "backup", "grafana-agent", "billing-export", "edge-probe", "nightly-import", "partner-api", "artifact-mirror", "metrics-push", "tunnel-admin", "search-index", "log-shipper"}

// Fleet returns n tokens without trouble, with what will happen to them in the coming days.
func Fleet(n int) *Sample {
	s := &Sample{}
	freeze := status.FreezePeriod{Name: "change-night", From: time.Date(2026, 11, 30, 20, 0, 0, 0, time.UTC), To: time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC), Tokens: n}
	for i := range n {
		name := names[i%len(names)]
		if i >= len(names) {
			name = fmt.Sprintf("%s-%04d", name, i/len(names))
		}
		// Many schedules are at full hours of the night, some are spread over the day.
		next := Now.Truncate(time.Minute).Add(time.Duration(2+i*7919%(7*24*60)) * time.Minute)
		if i%3 == 0 {
			next = time.Date(Now.Year(), Now.Month(), Now.Day()+i%7, 4, i%20, 0, 0, time.UTC)
			if !next.After(Now) {
				next = next.AddDate(0, 0, 7)
			}
		}
		zone := []string{"Europe/Berlin", "UTC"}[i%2]
		t := status.Token{
			Name: name, Account: []string{"prod", "staging", "partner"}[i%7%3], TokenID: fmt.Sprintf("f174e90a-fafe-4643-bbbc-%012x", i), ClientID: fmt.Sprintf("%032x.access", i+7),
			Strategy: "rotate", Schedule: weekly(next, zone, i%4 == 3), TimeZone: zone,
			State: "idle", Reason: "slot", Next: next, LastSuccess: next.AddDate(0, 0, -7), Expiry: Now.AddDate(0, 3+i%9, i%28), LastSeen: Now.Add(-time.Duration(1+i%50) * time.Minute),
			Known: true, Enabled: true, Mounts: []string{"vault:secret"},
		}
		t.GraceEnd = t.LastSuccess.Add(24 * time.Hour)
		digest := digestOf(name)
		t.Sinks = []status.SinkState{{Name: "vault:secret/access/" + name, Digest: digest, Version: 12 + i%40, WrittenAt: t.LastSuccess}}
		if i%4 == 1 {
			t.Mounts = append(t.Mounts, "file:/etc/agent")
			t.Sinks = append(t.Sinks, status.SinkState{Name: "file:/etc/agent/" + name + ".env", Digest: digest, WrittenAt: t.LastSuccess})
		}
		for at := t.Next; at.Before(Now.AddDate(0, 0, 21)); at = at.AddDate(0, 0, 7) {
			if !at.Before(freeze.From) && at.Before(freeze.To) { // no rotation begins in a freeze: the slot is skipped
				s.Plan.Coming = append(s.Plan.Coming, status.Coming{Token: name, At: at, Skipped: true, Freeze: freeze.Name})
				t.Next = at.AddDate(0, 0, 7)
				continue
			}
			s.Plan.Coming = append(s.Plan.Coming, status.Coming{Token: name, At: at, GraceEnds: at.Add(24 * time.Hour)})
		}
		s.All = append(s.All, t)
	}
	slices.SortFunc(s.All, func(a, b status.Token) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Plan.Coming, func(a, b status.Coming) int { return a.At.Compare(b.At) })
	s.Plan.Freezes = []status.FreezePeriod{freeze}
	for _, name := range status.CheckNames {
		s.Looked = append(s.Looked, status.Check{Name: name, OK: true, LookedAt: Now.Add(-20 * time.Second)})
	}
	return s
}

// weekly returns a schedule with a slot at a time of each week: at every 168 hours, or as five fields in the time zone. Berlin
// is an hour ahead of UTC in the weeks of the samples.
func weekly(at time.Time, zone string, every bool) string {
	if every {
		return "@every 168h"
	}
	if zone == "Europe/Berlin" {
		at = at.Add(time.Hour)
	}
	return fmt.Sprintf("%d %d * * %d", at.Minute(), at.Hour(), at.Weekday())
}

// digestOf returns a digest as sinks have it.
func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// Trouble puts a night's worth of trouble into a fleet of at least six tokens: a doubt, a refused Vault, failures, a changed
// sink, a pause, and an end that comes soon.
func Trouble(s *Sample) *Sample {
	by := func(name string) *status.Token {
		return &s.All[slices.IndexFunc(s.All, func(t status.Token) bool { return t.Name == name })]
	}
	doubt := by("ci-deploy")
	doubt.State, doubt.Reason, doubt.Failures = "in_doubt", "in_doubt", 1
	asked := Now.Add(-8 * time.Minute).Truncate(time.Minute) // in its slot
	doubt.Schedule, doubt.TimeZone = weekly(asked, "Europe/Berlin", false), "Europe/Berlin"
	s.Plan.Coming = slices.DeleteFunc(s.Plan.Coming, func(c status.Coming) bool { return c.Token == doubt.Name })
	for week := range 3 {
		at := asked.AddDate(0, 0, 7*(week+1))
		s.Plan.Coming = append(s.Plan.Coming, status.Coming{Token: doubt.Name, At: at, GraceEnds: at.Add(24 * time.Hour)})
	}
	slices.SortFunc(s.Plan.Coming, func(a, b status.Coming) int { return a.At.Compare(b.At) })
	doubt.Sinks[0].WrittenAt = asked.AddDate(0, 0, -7)
	doubt.LastSuccess, doubt.Next = asked.AddDate(0, 0, -7), Now.Add(40*time.Second)
	doubt.LastError, doubt.LastCause = "cloudflare: POST /accounts/.../service_tokens/.../rotate: the connection was closed before the answer came: read tcp 10.0.3.7:51544: connection reset by peer", "transport"
	doubt.GraceEnd = Now.Add(9*time.Hour + 12*time.Minute)
	doubt.Doubt = &status.Doubt{Reason: "outcome_unknown", Detail: "the connection was closed before the answer came", Since: Now.Add(-7 * time.Minute), RotationID: "01KB8Q3ZJ5M2T0", TokenID: doubt.TokenID,
		AskedAt: asked, UpdatedBefore: doubt.LastSuccess, OldWorksUntil: doubt.GraceEnd, Decision: "old_secret_works", DecidedAt: Now.Add(-time.Minute)}
	doubt.ToDo = []status.ToDo{
		{Does: "It ends by itself: if Cloudflare shows that it was carried out, the grace of the old secret is extended, and the token is rotated again three graces after the request; otherwise when half of the grace is left. Decide it now if consumers can read a new secret at once, or if they fail."},
		{Command: "rotatord resolve ci-deploy", Does: "Look again now, and show what is known."},
		{Command: "rotatord resolve ci-deploy --rotate-now", Does: "Take its secret as lost, and rotate again at once. If the rotation was carried out, this CUTS OFF the old secret."},
		{Command: "rotatord resolve ci-deploy --assume-not-rotated", Does: "Only if you know that it was not carried out: the slot is served again at once."},
	}
	changed := by("billing-export")
	changed.Findings = []status.Finding{{Sink: changed.Sinks[0].Name, Kind: "changed", What: "it holds a secret that rotatord never wrote there", Since: Now.Add(-51 * time.Minute),
		Digest: digestOf("of another writer"), Version: changed.Sinks[0].Version + 1, WrittenAt: Now.Add(-55 * time.Minute), WantDigest: changed.Sinks[0].Digest, WantVersion: changed.Sinks[0].Version,
		PutBack: fmt.Sprintf("vault kv rollback -version=%d secret/access/billing-export", changed.Sinks[0].Version)}}
	changed.ToDo = []status.ToDo{{Command: changed.Findings[0].PutBack, Does: "puts back the secret that rotatord wrote last"},
		{Command: "rotatord resolve billing-export --accept", Does: "Only if what all sinks hold is the right secret, for example because a person rotated by hand: take it as it is."}}
	for _, name := range []string{"backup", "edge-probe"} {
		t := by(name)
		t.Failures, t.Reason, t.Next = 4, "back_off", Now.Add(3*time.Minute)
		t.LastError, t.LastCause = "vault: PUT secret/data/access/"+name+": 503 Vault is sealed", "sealed"
	}
	paused := by("nightly-import")
	paused.Pause = &status.Pause{Since: Now.Add(-5 * time.Hour), Until: Now.Add(31 * time.Hour), Reason: "migration of the importer", By: "mara"}
	paused.Reason = "paused"
	by("grafana-agent").Expiry = Now.AddDate(0, 0, 9)
	for i := range s.Looked {
		if s.Looked[i].Name == status.CheckVault {
			s.Looked[i] = status.Check{Name: status.CheckVault, Stops: true, LookedAt: Now, Since: Now.Add(-12 * time.Minute), Reason: "sealed", Detail: "Vault is sealed: unseal it", Place: "https://vault.example.com:8200"}
		}
	}
	s.Record = append(s.Record,
		status.HistoryEntry{Seq: 811, At: Now.AddDate(0, 0, -7), Kind: "rotation.succeeded", Severity: "info", Token: "ci-deploy", By: "schedule", Message: "rotated", Result: "success", RotationID: "01KAQE1S8C7Y4N"},
		status.HistoryEntry{Seq: 902, At: Now.AddDate(0, 0, -2), Kind: "operator.pause", Severity: "info", Token: "ci-deploy", By: "mara", Message: "admin command"},
		status.HistoryEntry{Seq: 903, At: Now.AddDate(0, 0, -1), Kind: "operator.resume", Severity: "info", Token: "ci-deploy", By: "mara", Message: "admin command"},
		status.HistoryEntry{Seq: 1022, At: Now.Add(-7 * time.Minute), Kind: "rotation.in_doubt", Severity: "critical", Token: "ci-deploy", By: "schedule", Result: "in_doubt", Reason: "outcome_unknown",
			Message: "nobody knows whether the secret was rotated: the token is in doubt, and the old secret is left alone", Error: "the connection was closed before the answer came", RotationID: "01KB8Q3ZJ5M2T0"},
	)
	return s
}

// Ready returns a handler of pages once the status page has all that it shows: on a busy machine its first answers may have
// less.
func Ready(h http.Handler) http.Handler {
	for range 2000 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Header().Get("Refresh") == "" && !strings.Contains(w.Body.String(), "The plan is being made") {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return h
}
