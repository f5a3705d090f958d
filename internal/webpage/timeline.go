package webpage

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/status"
)

const (
	// fewTokens is how many tokens have a lane of their own. With more there is a bar for each hour.
	fewTokens  = 12
	fleetHours = 48
	laneDays   = 7
	// agendaSize is how many of the next happenings are listed in words.
	agendaSize = 8
	// agendaKept is how many are kept: those that have happened are left out when a page is made.
	agendaKept = 40
	// planEvery is how old the timeline becomes, and planWait how long a page waits for the first one.
	planEvery = 15 * time.Second
	planWait  = 40 * time.Millisecond
	// planTime bounds how long making it may take.
	planTime = 30 * time.Second
)

// timeline is what will happen in the coming hours and days.
type timeline struct {
	// Ready is false while there is no outlook yet. Error says why the last try to make one failed; empty if it did not.
	Ready        bool
	Error        string
	From, Until  time.Time
	Short        bool // it reaches less far than usual
	Lanes        []lane
	Bars         []bar
	Highest      int
	Rotations    int
	Skipped      int
	Bands        []band // freezes
	Ticks        []tick
	Agenda       []happening
	MoreComing   bool
	Freezes      []freezeLine
	Description  string
	BusiestTitle string
}

// lane is one token on the timeline.
type lane struct {
	Name  string
	Level level
	Marks []mark
	Spans []span
}

// mark is a moment, and span a time, as a share of the width.
type mark struct {
	X     string
	Kind  string // rotation, skipped, grace, expiry
	Title string
}

type span struct {
	X, W  string
	Kind  string
	Title string
}

// bar counts the rotations of one hour.
type bar struct {
	X, W, Y, H string
	Title      string
}

// band is a freeze as a share of the width.
type band struct{ X, W, Title string }

// tick is a label of the axis. Minor ones are left out on a narrow screen.
type tick struct {
	X     string
	Label string
	Minor bool
}

// happening is one line of what comes next.
type happening struct {
	At     time.Time
	In     string
	Tokens []string
	More   int
	What   string
	Kind   string
}

type freezeLine struct {
	status.FreezePeriod
	Now    bool
	Tokens string
}

// timeline returns the coming hours and days of the fleet as they were planned last, without what has happened since.
// It waits for the first one, but not longer than wait.
func (p *pages) timeline(f *fleet, now time.Time, wait time.Duration) timeline {
	t, ok, err := p.plan.get(wait)
	t.Ready = ok
	if err != nil {
		t.Error = printable.Line(cut(err.Error(), 4*maxText), maxText)
	}
	if !ok {
		return t
	}
	var agenda []happening
	for _, h := range t.Agenda {
		if !h.At.After(now) {
			continue
		}
		if len(agenda) == agendaSize {
			t.MoreComing = true
			break
		}
		h.In = brief(h.At, now)
		agenda = append(agenda, h)
	}
	t.Agenda, t.Lanes = agenda, slices.Clone(t.Lanes)
	for i := range t.Lanes {
		if at, ok := f.index(t.Lanes[i].Name); ok {
			t.Lanes[i].Level = f.entries[at].level
		}
	}
	return t
}

// makePlan makes the timeline of the fleet. It runs in the background.
func (p *pages) makePlan() (timeline, error) {
	ctx, cancel := context.WithTimeout(context.Background(), planTime)
	defer cancel()
	f, ok, err := p.fleet.peek(planTime)
	if !ok {
		return timeline{}, cmp.Or(err, context.DeadlineExceeded)
	}
	hours, from := fleetHours, p.Now().UTC()
	now := from
	if len(f.entries) <= fewTokens {
		hours = laneDays * 24
	} else {
		from = from.Truncate(time.Hour) // where its bar begins
	}
	until := from.Add(time.Duration(hours) * time.Hour)
	outlook, err := p.Source.Outlook(ctx, "", until)
	if err != nil {
		return timeline{}, err
	}
	t := timeline{From: from, Until: until}
	if outlook.Until.Before(until.Add(-time.Hour)) && outlook.Until.After(from) {
		t.Until, t.Short = outlook.Until, true
	}
	for _, c := range outlook.Coming {
		switch {
		case c.At.After(t.Until):
		case c.Skipped:
			t.Skipped++
		default:
			t.Rotations++
		}
	}
	t.Ticks = ticks(t.From, t.Until)
	for _, fr := range outlook.Freezes {
		if fr.From.Before(t.Until) && fr.To.After(t.From) {
			t.Bands = append(t.Bands, band{t.x(fr.From), width(t.share(fr.From), t.share(fr.To)), "freeze " + fr.Name})
			if len(t.Freezes) < 6 {
				t.Freezes = append(t.Freezes, freezeLine{FreezePeriod: fr, Now: !fr.From.After(now), Tokens: freezeTokens(fr.Tokens, len(f.entries))})
			}
		}
	}
	if len(f.entries) <= fewTokens {
		t.lanes(p.Source, f, outlook)
	} else {
		t.bars(outlook)
	}
	t.agenda(f, outlook)
	t.Description = plural(t.Rotations, "rotation") + " from " + minute(t.From) + " to " + minute(t.Until)
	return t, nil
}

func freezeTokens(n, of int) string {
	if n == of {
		return "all tokens"
	}
	return plural(n, "token")
}

// share returns where a time is between the ends of the timeline, from 0 to 1.
func (t *timeline) share(at time.Time) float64 {
	return min(max(float64(at.Sub(t.From))/float64(t.Until.Sub(t.From)), 0), 1)
}

func (t *timeline) x(at time.Time) string { return percent(t.share(at)) }

// width returns the width between two shares; at least what can be seen.
func width(from, to float64) string { return percent(max(to-from, 0.002)) }

// ticks returns the labels of an axis.
func ticks(from, until time.Time) (all []tick) {
	length := until.Sub(from)
	step, layout := 6*time.Hour, "15:04"
	switch {
	case length <= 8*time.Hour:
		step = time.Hour
	case length > 60*24*time.Hour:
		step, layout = 30*24*time.Hour, "2 Jan 2006"
	case length > 10*24*time.Hour && length <= 25*24*time.Hour:
		step, layout = 2*24*time.Hour, "2 Jan"
	case length > 25*24*time.Hour:
		step, layout = 7*24*time.Hour, "2 Jan"
	case length > 3*24*time.Hour:
		step, layout = 24*time.Hour, "Mon 2"
	}
	for n, at := 0, from.Truncate(step).Add(step); at.Before(until) && n < 40; n, at = n+1, at.Add(step) {
		label := at.Format(layout)
		if layout == "15:04" && at.Hour() == 0 {
			label = at.Format("Mon 2 Jan")
		}
		share := float64(at.Sub(from)) / float64(length)
		if share < 0.02 || share > 0.96 {
			label = ""
		}
		minor := at.Hour()%12 != 0
		if layout != "15:04" {
			minor = n%2 == 1
		}
		all = append(all, tick{percent(share), label, minor})
	}
	return all
}

// bars counts rotations by the hour.
func (t *timeline) bars(outlook status.Outlook) {
	hours := max(int(t.Until.Sub(t.From)/time.Hour), 1)
	counts := make([]int, hours)
	for _, c := range outlook.Coming {
		if i := int(c.At.Sub(t.From) / time.Hour); !c.Skipped && !c.At.Before(t.From) && i < hours {
			counts[i]++
		}
	}
	t.Highest = slices.Max(counts)
	for i, n := range counts {
		if n == 0 {
			continue
		}
		h := max(float64(n)/float64(t.Highest), 0.03)
		begin := t.From.Add(time.Duration(i) * time.Hour)
		title := begin.Format("Mon 15:04") + "–" + begin.Add(time.Hour).Format("15:04") + ": " + plural(n, "rotation")
		t.Bars = append(t.Bars, bar{percent((float64(i) + 0.12) / float64(hours)), percent(0.76 / float64(hours)), percent(1 - h), percent(h), title})
		if n == t.Highest && t.BusiestTitle == "" {
			t.BusiestTitle = title
		}
	}
}

// lanes makes one lane for each token.
func (t *timeline) lanes(from Source, f *fleet, outlook status.Outlook) {
	for _, e := range f.entries {
		token, ok := from.Token(e.Name)
		if !ok {
			continue // a reload has removed it
		}
		l := lane{Name: token.Name, Level: e.level}
		if token.GraceEnd.After(t.From) {
			l.Spans = append(l.Spans, span{"0%", t.x(token.GraceEnd), "grace", "the previous secret works until " + minute(token.GraceEnd)})
		}
		for _, c := range outlook.Coming {
			if c.Token != token.Name || c.At.After(t.Until) || len(l.Marks) > 200 {
				continue
			}
			if c.Skipped {
				l.Marks = append(l.Marks, mark{t.x(c.At), "skipped", minute(c.At) + ": skipped by the freeze " + c.Freeze})
				continue
			}
			l.Marks = append(l.Marks, mark{t.x(c.At), "rotation", minute(c.At) + ": rotation"})
			if c.GraceEnds.After(c.At) {
				l.Spans = append(l.Spans, span{t.x(c.At), width(t.share(c.At), t.share(c.GraceEnds)), "grace", "grace until " + minute(c.GraceEnds)})
			}
		}
		if token.Expiry.After(t.From) && token.Expiry.Before(t.Until) {
			l.Marks = append(l.Marks, mark{t.x(token.Expiry), "expiry", minute(token.Expiry) + ": the service token expires"})
		}
		t.Lanes = append(t.Lanes, l)
	}
}

// agenda lists what comes next in words. What happens to several tokens within a minute is one line.
func (t *timeline) agenda(f *fleet, outlook status.Outlook) {
	var all []happening
	add := func(at time.Time, token, kind, what string) {
		if at.After(t.From) && !at.After(t.Until) {
			all = append(all, happening{At: at, Tokens: []string{token}, Kind: kind, What: what})
		}
	}
	for _, c := range outlook.Coming {
		switch {
		case c.Skipped:
			add(c.At, c.Token, "skipped", "slot is skipped: freeze "+c.Freeze)
		case c.Freeze != "":
			add(c.At, c.Token, "rotation", "rotates, delayed by the freeze "+c.Freeze)
		default:
			add(c.At, c.Token, "rotation", "rotates")
		}
	}
	for _, e := range f.entries {
		for _, end := range e.endings {
			add(end.at, e.Name, end.kind, end.what)
		}
	}
	slices.SortStableFunc(all, func(a, b happening) int {
		return cmp.Or(a.At.Truncate(time.Minute).Compare(b.At.Truncate(time.Minute)), strings.Compare(a.What, b.What))
	})
	var merged []happening
	for _, h := range all {
		if n := len(merged) - 1; n >= 0 && merged[n].What == h.What && merged[n].At.Truncate(time.Minute).Equal(h.At.Truncate(time.Minute)) {
			if len(merged[n].Tokens) < 4 {
				merged[n].Tokens = append(merged[n].Tokens, h.Tokens...)
			} else {
				merged[n].More++
			}
			continue
		}
		if len(merged) == agendaKept {
			t.MoreComing = true
			break
		}
		merged = append(merged, h)
	}
	t.Agenda = merged
}
