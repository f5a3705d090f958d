package httpapi_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/status"
)

// threeReplicas are one that lives and is asked, one that is dead, and one that has stopped.
func threeReplicas() *status.Replicas {
	return &status.Replicas{
		Name: "rotatord-0", Ledger: "secret/rotatord", SyncedAt: now.Add(-2 * time.Second), ClaimSeconds: 120, Copies: 1,
		Replicas: []status.Replica{
			{Name: "rotatord-0", Living: true, Since: now.Add(-time.Hour), SeenAt: now, Version: "v1.2.3", ClockKnown: true, ClockOffset: -0.25, Tokens: []string{"ci-deploy"}, Prefers: 2},
			{Name: "rotatord-1", Since: now.Add(-time.Hour), SeenAt: now.Add(-5 * time.Minute), Version: "v1.2.2"},
			{Name: "rotatord-2", Leaving: true, Since: now.Add(-time.Hour), SeenAt: now.Add(-10 * time.Minute)},
		},
	}
}

func TestMetricsOfReplicas(t *testing.T) {
	m := newMetrics()
	m.Show(&fakeSource{replicas: threeReplicas()}, nil, noDrift)
	for _, d := range []event.Detail{
		event.ClaimTakenOver{From: "rotatord-1", Step: "intent"}, event.ClaimTakenOver{From: "rotatord-1"}, event.LateAnswer{}, event.LateAnswer{Delivered: true}, event.LateAnswer{},
		event.AnswerCopied{}, event.AnswerCopied{Err: errors.New("sealed")}, event.AnswerCopied{}, event.VaultClockJump{By: time.Minute},
		event.ReplicaSeen{Replica: "rotatord-1"}, event.StandAside{Why: "x"},
	} {
		tell(m, "ci", d)
	}
	expect(t, m, `
# HELP rotatord_answer_copies_pending Tokens with a copy of a sealed answer in the shared store, which is not delivered yet.
# TYPE rotatord_answer_copies_pending gauge
rotatord_answer_copies_pending 1
# HELP rotatord_answer_copies_total Copies of sealed answers in the shared store, made because an answer could not be delivered at once.
# TYPE rotatord_answer_copies_total counter
rotatord_answer_copies_total{result="failed"} 1
rotatord_answer_copies_total{result="success"} 2
# HELP rotatord_claims_held Tokens that this replica works on now.
# TYPE rotatord_claims_held gauge
rotatord_claims_held 1
# HELP rotatord_claims_taken_over_total Tokens taken over from replicas whose claim had ended, by the step that their rotation had reached.
# TYPE rotatord_claims_taken_over_total counter
rotatord_claims_taken_over_total{step="claimed"} 0
rotatord_claims_taken_over_total{step="idle"} 1
rotatord_claims_taken_over_total{step="in_doubt"} 0
rotatord_claims_taken_over_total{step="intent"} 1
rotatord_claims_taken_over_total{step="sealed"} 0
rotatord_claims_taken_over_total{step="stored"} 0
# HELP rotatord_late_answers_total Answers to rotate requests that came after the claim had ended, by what became of them.
# TYPE rotatord_late_answers_total counter
rotatord_late_answers_total{result="delivered"} 1
rotatord_late_answers_total{result="superseded"} 2
# HELP rotatord_ledger_last_sync_timestamp_seconds When this replica last knew all that the others had saved; absent if it never did.
# TYPE rotatord_ledger_last_sync_timestamp_seconds gauge
rotatord_ledger_last_sync_timestamp_seconds 1.772366398e+09
# HELP rotatord_replica_clock_offset_seconds How far the clock of this replica is ahead of Vault's; absent if it was not measured.
# TYPE rotatord_replica_clock_offset_seconds gauge
rotatord_replica_clock_offset_seconds -0.25
# HELP rotatord_replica_info This replica and the ledger that it shares with others; always 1.
# TYPE rotatord_replica_info gauge
rotatord_replica_info{ledger="secret/rotatord",replica="rotatord-0"} 1
# HELP rotatord_replica_stands_aside Whether this replica begins nothing, because its clock is wrong, its name is used twice, the ledger is out of use or Vault away, or it starts or stops.
# TYPE rotatord_replica_stands_aside gauge
rotatord_replica_stands_aside 0
# HELP rotatord_replica_up Whether this replica sees that a replica works; absent for one that stopped in an orderly way.
# TYPE rotatord_replica_up gauge
rotatord_replica_up{replica="rotatord-0"} 1
rotatord_replica_up{replica="rotatord-1"} 0
# HELP rotatord_replicas_living Replicas of which this one sees that they work, itself included.
# TYPE rotatord_replicas_living gauge
rotatord_replicas_living 1
# HELP rotatord_vault_clock_jumps_total Jumps of Vault's clock, as its answers to writes showed them.
# TYPE rotatord_vault_clock_jumps_total counter
rotatord_vault_clock_jumps_total 1
`, replicaMetrics...)

	alone := newMetrics() // a daemon that is alone has none of them
	alone.Show(&fakeSource{}, nil, noDrift)
	tell(alone, "ci", event.LateAnswer{})
	if n, err := testutil.GatherAndCount(alone.Gatherer(), replicaMetrics...); err != nil || n != 0 {
		t.Errorf("%d series of replicas, %v", n, err)
	}
}

var replicaMetrics = []string{"rotatord_replica_info", "rotatord_replicas_living", "rotatord_replica_up", "rotatord_replica_stands_aside", "rotatord_replica_clock_offset_seconds",
	"rotatord_claims_held", "rotatord_claims_taken_over_total", "rotatord_late_answers_total", "rotatord_answer_copies_total", "rotatord_answer_copies_pending",
	"rotatord_ledger_last_sync_timestamp_seconds", "rotatord_vault_clock_jumps_total"}

// TestUnreadTokenSaysNothing: a replica that has not read a token's record does not say that nothing is wrong with it.
func TestUnreadTokenSaysNothing(t *testing.T) {
	m := newMetrics()
	m.Show(&fakeSource{tokens: []httpapi.TokenStatus{{Name: "ci", Account: "prod", State: "idle", Unread: true, Known: true, Next: now}}, replicas: threeReplicas()}, nil, noDrift)
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if name := family.GetName(); strings.HasPrefix(name, "rotatord_token_") && name != "rotatord_token_info" {
			t.Errorf("%s is there", name)
		}
	}
}

// TestReplicasAreShown: the status page and the JSON API show the replicas, and who works on a token.
func TestReplicasAreShown(t *testing.T) {
	source := busy()
	source.replicas = threeReplicas()
	source.tokens[0].Sharing = &status.Sharing{Hold: &status.Hold{Replica: "rotatord-0", Until: now.Add(time.Minute)}, BegunBy: "rotatord-1", Copied: true,
		Late: []status.LateAnswer{{RotationID: "R0", SealedAt: now.Add(-time.Hour), Superseded: true}}}
	source.replicas.Replicas[1].StandsAside = "saw " + canary
	source.tokens[1].Unread = true
	server := serve(t, source)
	for path, want := range map[string][]string{
		"/": {"rotatord-0 <span class=\"rel\">(this one)</span>", "dead, seen 5 min 0 s ago", "stopped, seen 10 min 0 s ago", "-0.2 s", "<code>secret/rotatord</code>",
			"replica rotatord-1:", "ives no sign of life", "unread"},
		"/tokens/ci-deploy": {"replica rotatord-0 until", "from replica rotatord-1", "a copy of the sealed answer", "a later secret took its place"},
		"/tokens/new":       {"not known: its record cannot be read"},
		"/api/v1/replicas":  {`"shared": true`, `"name": "rotatord-0"`, `"living": false`, `"clock_offset_seconds": -0.25`, `"ledger": "secret/rotatord"`},
		"/api/v1/tokens":    {`"hold": {`, `"begun_by": "rotatord-1"`, `"copied": true`, `"rotation_id": "R0"`, `"superseded": true`, `"unread": true`},
	} {
		_, body := request(t, server, http.MethodGet, path)
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s does not show %q", path, text)
			}
		}
		if strings.Contains(body, canary) {
			t.Errorf("%s shows the secret", path)
		}
	}

	alone := serve(t, busy())
	if _, body := request(t, alone, http.MethodGet, "/"); strings.Contains(body, "Replicas") || strings.Contains(body, "/api/v1/replicas") {
		t.Error("the page of a daemon that is alone has replicas")
	}
	_, body := request(t, alone, http.MethodGet, "/api/v1/replicas")
	var got map[string]any
	if err := json.Unmarshal([]byte(body), &got); err != nil || len(got) != 1 || got["shared"] != false {
		t.Errorf("alone: %s (%v)", body, err)
	}
}
