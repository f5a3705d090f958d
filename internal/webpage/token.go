package webpage

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"rotatord/internal/moment"
	"rotatord/internal/printable"
	"rotatord/internal/status"
)

const (
	historySize = 50
	// historyRead is how much of the record of events is read for a page, in bytes: that takes a few milliseconds. In a large
	// fleet the last lines about one token may be far before that.
	historyRead = 8 << 20
	// maxError is how many bytes of an error the page of a token shows.
	maxError = 16 << 10
	// maxFindings is how many findings it shows.
	maxFindings = 50
	// lifeWait is how long a page may wait for what will happen, and then again for the record of events.
	lifeWait = 300 * time.Millisecond
)

// tokenPage is the page of one token.
type tokenPage struct {
	head
	Token            status.Token
	Level            level
	Word, Note       string
	Troubles         []shownTrouble
	ToDo             []status.ToDo
	NextIn, LastAgo  string
	GraceIn, EndsIn  string
	RenewsIn, SeenAt string
	NextWhy          string
	Life             life
	Coming           []status.Coming
	ComingKnown      bool
	Sinks            []sinkRow
	History          []status.HistoryEntry
	HistoryMore      bool
	HistoryUnread    bool     // the reading has ended at its bound
	HistoryOf        string   // the replica whose record it is; empty if the daemon is alone
	HistoryOthers    []string // the replicas that have records of their own
	HistoryError     bool
}

// sinkRow is one sink with what the watch has found in it.
type sinkRow struct {
	status.SinkState
	Ago     string
	Finding *status.Finding
	Deletes time.Time
}

func (p *pages) serveToken(w http.ResponseWriter, r *http.Request) {
	all, ok := p.Source.Token(r.PathValue("name"))
	if !ok {
		p.serveNotFound(w, "No token of that name is configured.")
		return
	}
	now := p.Now().UTC()
	t := all
	t.LastError, t.Findings = cut(t.LastError, maxError), t.Findings[:min(len(t.Findings), maxFindings)]
	t = t.Scrubbed()
	in := all.Concern(now).In
	level := levelOf(&all, in)
	word, note := describe(&t, in)
	page := tokenPage{
		head:  head{Title: t.Name + ": " + word + " · rotatord", Version: p.Version, Now: now, Bad: level <= warning, Refresh: true},
		Token: t, Level: level, Word: word, Note: note, ToDo: printable.Copy(all.WhatToType(now)),
		NextIn: brief(t.Next, now), LastAgo: brief(t.LastSuccess, now), GraceIn: brief(t.GraceEnd, now),
		EndsIn: brief(t.Expiry, now), RenewsIn: brief(t.Renews, now), SeenAt: brief(t.LastSeen, now), NextWhy: nextWhy(t),
	}
	if t.Next.IsZero() {
		page.NextIn = status.WithoutTime(t.State, t.Reason)
	}
	for _, trouble := range status.Troubles([]status.Token{all}, nil, now) {
		shown := showTrouble(trouble, p.Source.Token, now)
		shown.Tokens, shown.Steps = nil, nil // the page says it once
		page.Troubles = append(page.Troubles, shown)
	}
	page.Sinks = sinkRows(t, now)
	coming, cancel := context.WithTimeout(r.Context(), lifeWait)
	defer cancel()
	end := lifeEnd(t, now)
	outlook, err := p.Source.Outlook(coming, t.Name, end)
	page.ComingKnown = err == nil
	page.Coming = outlook.Coming[:min(len(outlook.Coming), 5)]
	page.Life = drawLife(t, outlook.Coming, now, end)
	recorded, cancel := context.WithTimeout(r.Context(), lifeWait)
	defer cancel()
	history, err := p.Source.History(recorded, status.HistoryQuery{Token: t.Name, Limit: historySize, MaxRead: historyRead})
	page.HistoryError, page.HistoryMore = err != nil, history.More
	page.HistoryUnread, page.HistoryOf, page.HistoryOthers = history.Unread != "", history.Replica, history.Others
	for _, e := range slices.Backward(history.Entries) { // the newest first
		e = e.Scrubbed()
		e.Message, e.Error = printable.Line(e.Message, maxText), printable.Line(e.Error, maxText)
		page.History = append(page.History, e)
	}
	render(w, http.StatusOK, "token.tmpl", page)
}

// cut returns at most n bytes of a text, and says if there was more.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + " … (cut off)"
}

// sinkRows returns the sinks of a token with what was found in them.
func sinkRows(t status.Token, now time.Time) (rows []sinkRow) {
	for _, s := range t.Sinks {
		row := sinkRow{SinkState: s, Ago: brief(s.WrittenAt, now)}
		for i := range t.Findings {
			if t.Findings[i].Sink == s.Name {
				row.Finding = &t.Findings[i]
			}
		}
		for _, d := range t.Deletions {
			if d.Sink == s.Name {
				row.Deletes = d.At
			}
		}
		rows = append(rows, row)
	}
	for i := range t.Findings { // of a sink that is not in the configuration any more
		if !slices.ContainsFunc(rows, func(r sinkRow) bool { return r.Name == t.Findings[i].Sink }) {
			rows = append(rows, sinkRow{SinkState: status.SinkState{Name: t.Findings[i].Sink}, Finding: &t.Findings[i], Ago: "–"})
		}
	}
	return rows
}

// life is the picture of the life of a credential: three bars over one axis of time.
type life struct {
	Ticks        []tick
	Now          string
	Current      span
	Previous     *span
	Token        span
	Marks        []mark
	CurrentText  string
	PreviousText string
	TokenText    string
	Description  string
}

// lifeEnd returns how far the picture of a token's life reaches.
func lifeEnd(t status.Token, now time.Time) time.Time {
	end := moment.Max(now.Add(24*time.Hour), moment.Max(t.Next, t.GraceEnd))
	if t.Next.After(t.LastSuccess) && !t.LastSuccess.IsZero() && t.Next.After(now) { // and the slot after the next
		end = moment.Max(end, t.Next.Add(min(t.Next.Sub(t.LastSuccess)*3/4, 60*24*time.Hour)))
	}
	end = end.Add(end.Sub(now) / 12)
	if t.Expiry.After(now) && t.Expiry.Before(end.Add(end.Sub(now)/2)) {
		end = moment.Max(end, t.Expiry.Add(end.Sub(now)/12))
	}
	return end
}

// drawLife draws the life of a credential: from before the last rotation to the slot after the next.
func drawLife(t status.Token, coming []status.Coming, now, end time.Time) life {
	begin := t.LastSuccess
	if begin.IsZero() || begin.After(now) {
		begin = now.Add(-6 * time.Hour)
	}
	begin = begin.Add(-end.Sub(begin) / 10)
	at := timeline{From: begin, Until: end}
	l := life{Ticks: ticks(begin, end), Now: at.x(now)}
	l.Current = span{X: at.x(t.LastSuccess), W: width(at.share(t.LastSuccess), 1)}
	l.CurrentText = "Secret in use: since " + minute(t.LastSuccess)
	switch {
	case t.LastSuccess.IsZero():
		l.Current = span{X: "0%", W: "100%"}
		l.CurrentText = "Secret in use: not rotated by rotatord yet"
	case t.Next.After(now) && t.Failures == 0:
		l.Current.W = width(at.share(t.LastSuccess), at.share(t.Next))
		l.CurrentText += ", next rotation " + minute(t.Next)
	}
	switch {
	case t.Strategy == "pair":
		l.PreviousText = "Spare: the other service token takes turns with this one"
	case !t.GraceEnd.IsZero():
		l.Previous = &span{X: "0%", W: at.x(t.GraceEnd)}
		l.PreviousText = "Previous secret: stopped working " + minute(t.GraceEnd)
		if t.GraceEnd.After(now) {
			l.PreviousText = "Previous secret: works until " + minute(t.GraceEnd)
			if t.Doubt != nil {
				l.PreviousText = "Secret of clients: works until " + minute(t.GraceEnd) + " if the request was carried out"
			}
		}
	default:
		l.PreviousText = "Previous secret: none in its grace"
	}
	switch {
	case t.Strategy == "pair":
	case t.Doubt != nil:
		l.Current, l.CurrentText = span{X: "0%", W: "0%"}, "New secret: it is not known whether there is one"
	case t.State == "sealed" || t.State == status.Overtook:
		l.Current, l.CurrentText = span{X: at.x(now), W: percent(1 - at.share(now))}, "New secret: received, and not in every sink yet"
	}
	l.Token = span{X: "0%", W: "100%"}
	l.TokenText = "Service token: no end is known"
	if !t.Expiry.IsZero() {
		l.Token.W = at.x(t.Expiry)
		l.TokenText = "Service token: until " + minute(t.Expiry)
	}
	for _, c := range coming[:min(len(coming), 60)] {
		kind, title := "rotation", minute(c.At)+": rotation"
		if c.Skipped {
			kind, title = "skipped", minute(c.At)+": skipped by the freeze "+c.Freeze
		}
		l.Marks = append(l.Marks, mark{at.x(c.At), kind, title})
	}
	l.Description = l.CurrentText + ". " + l.PreviousText + ". " + l.TokenText + "."
	return l
}
