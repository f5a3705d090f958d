package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"rotatord/internal/status"
)

// maxShownTokens is how many tokens of a replica are named at most.
const maxShownTokens = 3

// writeReplicas writes a line for each replica. It writes nothing if the daemon is alone.
func writeReplicas(w io.Writer, all *status.Replicas, now time.Time) {
	if all == nil {
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "REPLICA\tSTATE\tSTARTED\tVERSION\tCLOCK\tPREFERS\tWORKS ON")
	for _, r := range all.Replicas {
		name := r.Name
		if name == all.Name {
			name += " (this one)"
		}
		state, bad := r.State(now)
		if bad {
			word, rest, _ := strings.Cut(state, ",")
			state = strings.ToUpper(word)
			if rest != "" {
				state += "," + rest
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", cell(name), cell(state), status.Distance(r.Since, now), cell(r.Version), r.Offset(), r.Prefers, cell(cmp.Or(worksOn(r.Tokens), "–")))
	}
	_ = table.Flush() // a strings.Builder does not fail
	fmt.Fprintln(w)
}

// worksOn names the first tokens, and says how many there are. It is empty if there are none.
func worksOn(tokens []string) string {
	switch {
	case len(tokens) == 0:
		return ""
	case len(tokens) <= maxShownTokens:
		return strings.Join(tokens, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(tokens[:maxShownTokens], ", "), len(tokens)-maxShownTokens)
}

// sharing adds what is known of a token because several replicas share the ledger.
func (p *page) sharing(t status.Token, replicas *status.Replicas) {
	if replicas != nil && !t.Unread {
		p.line("known as of", "%s, by replica %s", p.when(replicas.SyncedAt), replicas.Name)
	}
	if t.Unread {
		p.line("NOT KNOWN", "its record in the shared ledger cannot be used, so nothing below is about its present state")
	}
	s := t.Sharing
	if s == nil {
		return
	}
	switch hold := s.Hold; {
	case hold == nil:
	case hold.Until.IsZero():
		p.line("held by", "replica %s", hold.Replica)
	case hold.Until.Before(p.now):
		p.line("held by", "replica %s, until %s: the hold has ended, and another replica takes over", hold.Replica, p.when(hold.Until))
	default:
		p.line("held by", "replica %s, at least until %s; it renews that while it works", hold.Replica, p.when(hold.Until))
	}
	if from := s.TakenOverFrom(); from != "" {
		p.line("taken over from", "replica %s, which began the rotation%s", from, p.answerOf(from, replicas))
	} else if s.BegunBy != "" && s.Hold == nil {
		p.line("begun by", "replica %s%s", s.BegunBy, p.answerOf(s.BegunBy, replicas))
	}
	if s.Copied {
		p.line("copy", "the sealed answer is also in the shared store, where every replica finds it")
	}
	for _, late := range s.Late {
		text := "it is not known yet whether it is the latest secret"
		if late.Superseded {
			text = "a later secret took its place, so it is not delivered, and is erased later"
		}
		p.line("late answer", "of rotation %s, sealed %s on this replica: %s", late.RotationID, p.when(late.SealedAt), text)
	}
}

// answerOf says what a dead replica means for the answer that only it may have.
func (p *page) answerOf(name string, replicas *status.Replicas) string {
	if replicas == nil {
		return ""
	}
	for _, r := range replicas.Replicas {
		if r.Name == name && !r.Living {
			return ", and may have its answer on its disk. It does not live now: start it again"
		}
	}
	return ""
}
