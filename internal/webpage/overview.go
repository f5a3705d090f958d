package webpage

import (
	"net/http"
	"slices"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/status"
)

// overview is the status page.
type overview struct {
	head
	Verdict, Detail string // how everything is, in words
	VerdictLevel    level
	Critical        int
	Warnings        int
	Troubles        []shownTrouble
	MoreTroubles    int
	Conditions      []Condition // that are not met
	Pending         int
	PendingSince    time.Time
	PendingAgo      string
	Timeline        timeline
	List            list
	Replicas        *replicas
	// Reading is set while the first look at the tokens is being made: only what is known without it is shown. ReadError says
	// why the last try failed; empty if it did not.
	Reading   bool
	ReadError string
}

// look returns the fleet as it was two seconds ago at most, or a few seconds if looking at it takes long. The checks and what events say to
// have changed is as it is now. ok is false if the first look is not there yet.
func (p *pages) look() (f *fleet, ok bool, err error) {
	if f, ok, err = p.fleet.get(firstWait); !ok {
		return nil, false, err
	}
	if _, _, all := p.Source.Changes(f.seen); all {
		p.fleet.renew(firstWait)
	}
	p.fleet.update(func(kept *fleet) *fleet {
		names, seen, all := p.Source.Changes(kept.seen)
		if all { // what is not named here, the next look at all tokens finds
			seen = kept.seen
		}
		checks := printable.Copy(p.Source.Checks())
		if f = kept; len(names) > 0 || !slices.EqualFunc(checks, kept.checks, sameCheck) {
			f = kept.with(p.Source, names, checks, p.Now().UTC(), seen)
		}
		return f
	})
	return f, true, err // and not what a look that began before has put there since
}

// sameCheck reports whether two results of a check say the same.
func sameCheck(a, b status.Check) bool {
	a.LookedAt, b.LookedAt = time.Time{}, time.Time{}
	return a == b
}

func (p *pages) serveOverview(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	_, _, _ = p.plan.get(0) // it is made meanwhile
	f, ok, err := p.look()
	now := p.Now().UTC()
	o := overview{head: head{Version: p.Version, Now: now, Refresh: true, Path: "/"}}
	if !ok {
		o.Reading = true
		if err != nil {
			o.ReadError = printable.Line(err.Error(), maxText)
		}
		checks, replicas := printable.Copy(p.Source.Checks()), p.Source.Replicas().Scrubbed()
		f = &fleet{now: now, troubles: status.Sum(func(func(*status.Concern) bool) {}, checks, replicas, now), orders: &orders{}}
		w.Header().Set("Refresh", "1") // works without JavaScript
	} else {
		if now.Sub(f.now) > fleetEvery+time.Second { // looking takes long: say how old it is
			o.Now = f.now
		}
		o.Timeline = p.timeline(f, now, planWait-time.Since(start))
	}
	o.List, o.Replicas = p.list(f, readQuery(r), now), showReplicas(f)
	for _, t := range f.troubles {
		if t.Severity == status.Critical {
			o.Critical++
		} else {
			o.Warnings++
		}
		if len(o.Troubles) < maxTroubles {
			o.Troubles = append(o.Troubles, showTrouble(t, p.Source.Token, now))
		} else {
			o.MoreTroubles++
		}
	}
	shown := map[string]bool{} // what fails is shown once
	for _, t := range f.troubles {
		if t.Check != nil {
			shown[t.Check.Title()], shown["credential of "+t.Check.Subject] = true, true
		}
	}
	for _, c := range printable.Copy(p.Conditions()) {
		if !c.OK && !shown[c.Name] {
			c.Detail = printable.Line(c.Detail, maxText)
			o.Conditions = append(o.Conditions, c)
		}
	}
	o.Pending, o.PendingSince = p.Source.Pending()
	o.PendingAgo = brief(o.PendingSince, now)
	o.sumUp(f)
	render(w, http.StatusOK, "overview.tmpl", o)
}

// sumUp says in one line how everything is.
func (o *overview) sumUp(f *fleet) {
	hit := f.counts[critical] + f.counts[warning]
	switch {
	case o.Critical > 0:
		o.Verdict, o.VerdictLevel = thousands(o.Critical)+" critical", critical
		if o.Warnings > 0 {
			o.Verdict += ", " + plural(o.Warnings, "warning")
		}
		o.Title = "(" + thousands(o.Critical) + ") critical · rotatord"
	case o.Warnings > 0:
		o.Verdict, o.VerdictLevel = plural(o.Warnings, "warning"), warning
		o.Title = "(" + thousands(o.Warnings) + ") rotatord"
	case len(o.Conditions) > 0:
		o.Verdict, o.VerdictLevel, o.Title = "Not ready", warning, "not ready · rotatord"
	case o.Reading:
		o.Verdict, o.VerdictLevel, o.Title = "Not known yet", busy, "rotatord"
	case len(f.entries) == 0:
		o.Verdict, o.VerdictLevel, o.Title = "No tokens are configured", paused, "rotatord"
	default:
		o.Verdict, o.VerdictLevel, o.Title = "Nothing is wrong", fine, "rotatord"
	}
	o.Bad = o.VerdictLevel <= warning
	switch {
	case o.Reading:
		o.Detail = "The tokens are being read. The page asks again in a second, by itself."
	case hit == 1:
		o.Detail = "1 of " + plural(len(f.entries), "token") + " is affected"
	case hit > 0:
		o.Detail = thousands(hit) + " of " + plural(len(f.entries), "token") + " are affected"
	case len(f.entries) > 0 && o.VerdictLevel == fine:
		o.Detail = plural(len(f.entries), "token") + ": every client has a secret that works"
	case len(f.entries) > 0:
		o.Detail = plural(len(f.entries), "token")
	}
}

// replicas is what the page shows of the replicas that share the ledger.
type replicas struct {
	*status.Replicas
	Rows      []replicaRow
	SyncedAgo string
}

type replicaRow struct {
	status.Replica
	State, Ago, Offset string
	Bad, Self          bool
	Works              []string // at most five
}

// showReplicas returns nil if the daemon is alone.
func showReplicas(f *fleet) *replicas {
	if f.replicas == nil {
		return nil
	}
	shown := &replicas{Replicas: f.replicas, SyncedAgo: brief(f.replicas.SyncedAt, f.now)}
	for _, r := range f.replicas.Replicas {
		state, bad := r.State(f.now)
		shown.Rows = append(shown.Rows, replicaRow{Replica: r, State: state, Bad: bad, Ago: brief(r.Since, f.now), Offset: r.Offset(), Self: r.Name == f.replicas.Name,
			Works: r.Tokens[:min(len(r.Tokens), 5)]})
	}
	return shown
}
