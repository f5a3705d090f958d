package main

import (
	"strings"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/status"
)

// sharedOverview is what a replica shows of itself, one that is dead, and one that has stopped.
func sharedOverview(now time.Time) admin.Overview {
	return admin.Overview{
		Replicas: &status.Replicas{
			Name: "rotatord-0", Ledger: "secret/rotatord", SyncedAt: now.Add(-time.Second), ClaimSeconds: 120,
			Replicas: []status.Replica{
				{Name: "rotatord-0", Living: true, Since: now.Add(-3 * time.Hour), SeenAt: now, Version: "v1.2.3", ClockKnown: true, ClockOffset: 0.04, Prefers: 5, Tokens: []string{"a", "b", "c", "d", "e"}},
				{Name: "rotatord-1", Since: now.Add(-3 * time.Hour), SeenAt: now.Add(-5 * time.Minute), Version: "v1.2.2", ClockKnown: true, ClockOffset: -31},
				{Name: "rotatord-2", Leaving: true, SeenAt: now.Add(-time.Minute)},
			},
		},
		Tokens: []status.Token{
			{Name: "ci", State: "sealed", Reason: "unfinished", Sharing: &status.Sharing{
				Hold: &status.Hold{Replica: "rotatord-0", Until: now.Add(90 * time.Second)}, BegunBy: "rotatord-1", Copied: true,
				Late: []status.LateAnswer{{RotationID: "R0", SealedAt: now.Add(-time.Hour), Superseded: true}},
			}},
			{Name: "db", State: "idle", Reason: "slot", Next: now.Add(time.Hour)},
			{Name: "lost", State: "idle", Unread: true, Failures: 1, LastError: "tokens/lost was deleted"},
		},
	}
}

func TestStatusShowsReplicas(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var out strings.Builder
	if err := write(&out, overviewText(sharedOverview(now), true, now)); err != nil {
		t.Fatal(err)
	}
	const want = `WARNING   lost: its record in the shared ledger cannot be used, so this replica does not know its state and does not rotate it
          to do: rotatord status lost says what is wrong with the record, and what to type
          see: rotatord docs runbook#rotatordrecordunreadable
WARNING   ci: an answer came after the claim had ended, and a later secret had taken its place: it is kept and not delivered (since 2026-03-01 11:00:00 UTC, 1 h 0 min ago)
          to do: nothing, if it was one; find out what stops or delays this machine: docs/runbook.md#rotatordlateanswer
          see: rotatord docs runbook#rotatordlateanswer
WARNING   replica rotatord-1: gives no sign of life: the others serve its tokens; no other replica lives (since 2026-03-01 11:55:00 UTC, 5 min 0 s ago)
          to do: start it again, with its disk: it may have the answer of a rotation in doubt
          type: systemctl start rotatord.service
                On the host of rotatord-1. On Kubernetes: kubectl --namespace rotatord get pods says why it does not run.
          see: rotatord docs runbook#rotatordreplicadown

REPLICA                 STATE                         STARTED        VERSION   CLOCK     PREFERS   WORKS ON
rotatord-0 (this one)   living                        3 h 0 min ago  v1.2.3    +0.0 s    5         a, b, c and 2 more
rotatord-1              DEAD, seen 5 min 0 s ago      3 h 0 min ago  v1.2.2    -31.0 s   0         –
rotatord-2              stopped, seen 1 min 0 s ago   –                        –         0         –

TOKEN   STATE                 NEXT          LAST SUCCESS   GRACE ENDS   FAILURES   REASON
ci      sealed, late_answer   –             –              –            0          unfinished, rotatord-0 works on it
db      idle                  in 1 h 0 min  –              –            0          slot
lost    not known             –             –              –            1
`
	if got := squeezed(out.String()); got != squeezed(want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}

	out.Reset() // a daemon that is alone shows none of it
	o := sharedOverview(now)
	o.Replicas = nil
	if err := write(&out, overviewText(o, true, now)); err != nil || strings.Contains(out.String(), "REPLICA") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// squeezed returns a text with one space in place of several, and none at the ends of lines.
func squeezed(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

func TestStatusOfOneSharedToken(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	o := sharedOverview(now)
	for i, wants := range [][]string{
		{"held by          replica rotatord-0, at least until 2026-03-01 12:01:30 UTC (in 1 min 30 s); it renews that while it works\n",
			"taken over from  replica rotatord-1, which began the rotation, and may have its answer on its disk. It does not live now: start it again\n",
			"copy             the sealed answer is also in the shared store",
			"late answer      of rotation R0, sealed 2026-03-01 11:00:00 UTC (1 h 0 min ago) on this replica: a later secret took its place",
			"known as of      2026-03-01 11:59:59 UTC (1 s ago), by replica rotatord-0\n"},
		{"known as of      2026-03-01 11:59:59 UTC (1 s ago), by replica rotatord-0\n"},
		{"state            not known\n", "NOT KNOWN        its record in the shared ledger cannot be used", "last error       tokens/lost was deleted\n"},
	} {
		var out strings.Builder
		if err := write(&out, tokenText(o.Tokens[i], o, now)); err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in\n%s", want, out.String())
			}
		}
	}
	o.Tokens[0].Sharing = &status.Sharing{Hold: &status.Hold{Replica: "rotatord-1", Until: now.Add(-time.Second)}, BegunBy: "rotatord-1"}
	var out strings.Builder
	if err := write(&out, tokenText(o.Tokens[0], o, now)); err != nil || !strings.Contains(out.String(), "the hold has ended, and another replica takes over") || strings.Contains(out.String(), "taken over from") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
