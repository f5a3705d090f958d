package webpage

import (
	"net/http"
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
}

func (p *pages) serveOverview(w http.ResponseWriter, r *http.Request) {
	f := p.look()
	o := overview{List: f.list(readQuery(r)), Timeline: p.timeline(f), Replicas: showReplicas(f)}
	o.head = head{Version: p.Version, Now: f.now, Refresh: true}
	for _, t := range f.troubles {
		if t.Severity == status.Critical {
			o.Critical++
		} else {
			o.Warnings++
		}
		if len(o.Troubles) < maxTroubles {
			o.Troubles = append(o.Troubles, showTrouble(t, f.find, f.now))
		} else {
			o.MoreTroubles++
		}
	}
	for _, c := range printable.Copy(p.Conditions()) {
		if !c.OK {
			c.Detail = printable.Line(c.Detail, maxText)
			o.Conditions = append(o.Conditions, c)
		}
	}
	o.Pending, o.PendingSince = p.Source.Pending()
	o.PendingAgo = brief(o.PendingSince, f.now)
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
	case len(f.tokens) == 0:
		o.Verdict, o.VerdictLevel, o.Title = "No tokens are configured", paused, "rotatord"
	default:
		o.Verdict, o.VerdictLevel, o.Title = "Nothing is wrong", fine, "rotatord"
	}
	o.Bad = o.VerdictLevel <= warning
	switch {
	case hit == 1:
		o.Detail = "1 of " + plural(len(f.tokens), "token") + " is affected"
	case hit > 0:
		o.Detail = thousands(hit) + " of " + plural(len(f.tokens), "token") + " are affected"
	case len(f.tokens) > 0 && o.VerdictLevel == fine:
		o.Detail = plural(len(f.tokens), "token") + ": every client has a secret that works"
	case len(f.tokens) > 0:
		o.Detail = plural(len(f.tokens), "token")
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
