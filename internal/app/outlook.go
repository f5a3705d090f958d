package app

import (
	"context"
	"errors"
	"slices"
	"time"

	"rotatord/internal/forecast"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
	"rotatord/internal/webpage"
)

// maxOutlook is the largest number of entries of an outlook, and maxFreezePeriods the largest number of periods of freezes.
const (
	maxOutlook       = 50_000
	maxFreezePeriods = 500
)

// Outlook implements [httpapi.Source]. If there would be too many entries, it reaches less far.
func (a *App) Outlook(ctx context.Context, name string, until time.Time) (status.Outlook, error) {
	now := a.now()
	var tokens []rotation.Token
	state := forecast.State{Records: map[string]rotation.Record{}, Pauses: map[string]rotation.Pause{}}
	configured := a.InForce().Tokens
	if name != "" {
		i, ok := slices.BinarySearchFunc(configured, name, compareName)
		if !ok {
			return status.Outlook{Until: until}, nil
		}
		configured = configured[i : i+1]
	}
	for _, t := range configured {
		tokens = append(tokens, PlannedToken(t))
		if seen, known := a.engine.view(t.Name); known {
			state.Records[t.Name] = seen.record
		}
		if pause := a.engine.rotator.PauseOf(t.Name); pause.On() {
			state.Pauses[t.Name] = pause
		}
	}
	all, err := forecast.Of(ctx, tokens, state, forecast.Range{Now: now, Until: until, Limit: maxOutlook})
	for tooMany := (forecast.TooManyError{}); errors.As(err, &tooMany) && until.Sub(now) > time.Hour; {
		until = now.Add(until.Sub(now) / 4)
		all, err = forecast.Of(ctx, tokens, state, forecast.Range{Now: now, Until: until, Limit: maxOutlook})
	}
	if err != nil {
		return status.Outlook{}, err
	}
	o := status.Outlook{Until: until}
	for i := range all {
		if e := &all[i]; e.Status != forecast.Held {
			o.Coming = append(o.Coming, coming(e))
		}
	}
	periods, err := forecast.Periods(tokens, now, until, maxFreezePeriods)
	for _, p := range periods {
		o.Freezes = append(o.Freezes, status.FreezePeriod{Name: p.Name, From: p.From.UTC(), To: p.To.UTC(), Tokens: len(p.Tokens)})
	}
	slices.SortFunc(o.Freezes, func(a, b status.FreezePeriod) int { return a.From.Compare(b.From) })
	return o, err
}

// coming turns an entry of a forecast into what is shown.
func coming(e *forecast.Entry) status.Coming {
	c := status.Coming{Token: e.Token.Name, At: e.Starts, Freeze: e.Freeze, Closes: e.Closes, GraceEnds: e.GraceEnds}
	if e.Status != forecast.Planned {
		c.Skipped, c.At, c.GraceEnds = true, e.Slot.UTC(), time.Time{}
	}
	return c
}

// hosts returns the names under which the pages may be reached. A reload may change them.
func (a *App) hosts() webpage.Hosts {
	c := a.InForce()
	return webpage.Hosts{Listen: c.Listen, Names: c.Hosts, ExternalURL: c.ExternalURL}
}
