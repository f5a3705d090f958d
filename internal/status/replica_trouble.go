package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"rotatord/internal/moment"
	"rotatord/internal/printable"
)

// The kinds of trouble of replicas.
const (
	standsAside = "stands_aside"
	ledgerAway  = "ledger_unread"
	replicaDead = "replica_dead"
)

// replicaKinds are all of them, the worst first.
var replicaKinds = []string{standsAside, ledgerAway, replicaDead}

// AllTroubles returns what is wrong with tokens, with what rotations need, and with the replicas that share the ledger,
// the worst first. replicas is nil if the daemon is alone. The result is nil if nothing is wrong.
func AllTroubles(tokens []Token, checks []Check, replicas *Replicas, now time.Time) []Trouble {
	return Sum(concernsOf(tokens, now), checks, replicas, now)
}

// For how long a replica may not know what others have saved before that is a trouble: maxViewAge, or less if it begins
// nothing because of that.
const (
	maxViewAge      = time.Minute
	maxViewAgeAside = 10 * time.Second
)

// troubles returns what is wrong with the replicas.
func (r *Replicas) troubles(now time.Time) (all []Trouble) {
	severity, others := Warning, "the other replicas go on"
	if !r.othersWork() {
		severity, others = Critical, "no other replica works, so nothing is rotated"
	}
	self := r.Self()
	maxAge := maxViewAge
	if self.StandsAside != "" {
		maxAge = maxViewAgeAside
	}
	switch {
	case r.SyncedAt.Before(now.Add(-maxAge)): // then it stands aside because of that
		all = append(all, r.oldView(severity))
	case self.StandsAside != "" && !self.Leaving:
		all = append(all, Trouble{Severity: severity, Kind: standsAside, Replicas: []string{r.Name},
			What: fmt.Sprintf("begins nothing: %s; %s", printable.Line(self.StandsAside, 300), others), ToDo: "it begins again by itself when that is repaired: docs/runbook.md#rotatordreplicastandsaside",
			Runbook: section("rotatordreplicastandsaside")})
	}
	if t, ok := r.someDead(); ok {
		all = append(all, t)
	}
	return all
}

// oldView returns the trouble of a replica that does not know what others have saved.
func (r *Replicas) oldView(severity Severity) Trouble {
	t := Trouble{Severity: severity, Kind: ledgerAway, Replicas: []string{r.Name}, Since: r.SyncedAt, Runbook: section("rotatordledgerviewold"),
		What:  "does not know what the others have saved, so what it shows is old",
		ToDo:  "look at Vault, and at the way from this machine to it: rotatord doctor",
		Steps: []ToDo{{"rotatord doctor", "On the host of " + r.Name + ": say whether it is the network, the login, or a right below the prefix."}}}
	if r.SyncedAt.IsZero() {
		t.What = "could not read the shared ledger yet, so it knows nothing of its tokens"
	}
	why := cmp.Or(r.LedgerError, r.StandsAside)
	if why != "" {
		t.What += ": " + printable.Line(why, 300)
	}
	if r.SyncedAt.IsZero() && why == r.StandsAside && why != "" { // it has not asked Vault for the ledger
		t.ToDo = "it begins by itself when that is repaired: docs/runbook.md#rotatordreplicastandsaside"
	}
	return t
}

// someDead returns the trouble of replicas that give no sign of life.
func (r *Replicas) someDead() (t Trouble, ok bool) {
	dead := r.Dead()
	if len(dead) == 0 {
		return t, false
	}
	t = Trouble{Severity: Warning, Kind: replicaDead, Replicas: dead, Runbook: section("rotatordreplicadown"), What: "gives no sign of life: the others serve its tokens",
		ToDo:  "start it again, with its disk: it may have the answer of a rotation in doubt",
		Steps: []ToDo{{"systemctl start rotatord.service", "On the host of " + strings.Join(dead[:min(len(dead), MaxNames)], ", ") + ". On Kubernetes: kubectl --namespace rotatord get pods says why it does not run."}}}
	if len(dead) > 1 {
		t.What, t.ToDo = "give no sign of life: the others serve their tokens", "start them again, with their disks: they may have the answers of rotations in doubt"
	}
	for _, replica := range r.Replicas {
		if slices.Contains(dead, replica.Name) {
			t.Since = moment.MinNonZero(t.Since, replica.SeenAt)
		}
	}
	if r.Living() == 1 && r.Self().Living {
		t.What += "; no other replica lives"
	}
	return t, true
}

// othersWork reports whether another replica lives and may begin rotations.
func (r *Replicas) othersWork() bool {
	return slices.ContainsFunc(r.Replicas, func(o Replica) bool { return o.Name != r.Name && o.Living && o.StandsAside == "" })
}

// ofReplicas names replicas in words.
func ofReplicas(names []string) string {
	if len(names) == 1 {
		return "replica " + names[0]
	}
	return "replicas " + strings.Join(names, ", ")
}

// State returns in a few words what a replica does, and whether it should work and does not.
func (r Replica) State(now time.Time) (text string, bad bool) {
	switch {
	case r.Leaving:
		return "stopped, seen " + Distance(r.SeenAt, now), false
	case !r.Living && r.SeenAt.IsZero():
		return "starting", false
	case !r.Living:
		return "dead, seen " + Distance(r.SeenAt, now), true
	case r.StandsAside != "":
		return "stands aside", true
	}
	return "living", false
}

// Offset returns how far the clock of a replica is ahead of Vault's, with its unit; a dash if that is not known.
func (r Replica) Offset() string {
	if !r.ClockKnown {
		return "–"
	}
	return fmt.Sprintf("%+.1f s", r.ClockOffset)
}

// Scrubbed returns the replicas in a form that may be shown: see [Token.Scrubbed]. It returns nil for nil.
func (r *Replicas) Scrubbed() *Replicas { return printable.Copy(r) }
