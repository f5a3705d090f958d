package rotation

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/secret"
)

// full returns a record in which every part is set, so that the test sees each change.
func full(now time.Time) Record {
	return Record{
		Format: RecordFormat, Revision: 7, Token: "ci", TokenID: "A", Account: "prod", Anchor: now.Add(-time.Hour), Schedule: "@hourly in UTC",
		Step: StepSealed, NextTrigger: TriggerRecovery, CatchUpAt: now, OldDiesBy: now.Add(time.Hour), Failures: 3, NotBefore: now,
		LastError: "it failed", LastCause: "other", LastSink: "away",
		Work: &Work{
			RotationID: "R", TokenID: "A", Trigger: TriggerSchedule, Slot: now, Began: now, Deadline: now.Add(time.Minute), Grace: Grace(time.Hour),
			Before: TokenFacts{ID: "A", ClientID: "a.access", UpdatedAt: now.Add(-time.Hour)}, BeforeSink: map[string]Stored{"s": {Exists: true, ClientID: "a.access", Digest: "old"}},
			IntentAt: now, SealedAt: now, Digest: "new", After: TokenFacts{ID: "A", UpdatedAt: now}, GraceEndsAt: now.Add(time.Hour),
			Verification: Verification{Probes: 1, Last: ProbeBad, Since: now}, Overtaken: &Overtaken{Since: now, Sinks: map[string]secret.Digest{"s": "x"}},
		},
		Doubt:     &Doubt{Since: now, Reason: ReasonInterrupted, OldWorksUntil: now.Add(time.Hour)},
		Lost:      &Lost{RotationID: "L", At: now, Since: now, Grace: Grace(time.Hour), Until: now.Add(time.Hour)},
		Order:     &Order{Since: now.Add(-time.Minute), By: "uid 0", Left: 1},
		Last:      &Done{RotationID: "P", Slot: now.Add(-time.Hour), At: now.Add(-time.Hour), GraceEndsAt: now.Add(time.Minute)},
		Facts:     TokenFacts{ID: "A", ClientID: "a.access", Enabled: true, UpdatedAt: now.Add(-time.Hour), ExpiresAt: now.Add(24 * time.Hour)},
		Spare:     TokenFacts{ID: "B", ClientID: "b.access", Enabled: true, UpdatedAt: now.Add(-time.Hour)},
		Deletes:   map[string]time.Time{"s": now.Add(time.Hour)},
		Replaced:  []Replaced{{TokenID: "C", ClientID: "c.access", At: now.Add(time.Minute), Promised: true, Failures: 1, NotBefore: now}},
		Abandoned: []string{"X"},
		Written:   map[string]Written{"s": {Digest: "new", ClientID: "a.access", Version: 2, At: now}, "away": {Digest: "new"}}, Earlier: []secret.Digest{"old"},
		Findings: map[string]Finding{"s": {Kind: FoundDeleted, Since: now}}, Restoring: Restoring{At: []time.Time{now.Add(-25 * time.Hour), now.Add(-time.Hour)}, Refused: RestoreGone},
		OwnUpdatedAt: now, RefusedInUse: &RefusedInUse{Since: now, Error: "403"},
	}
}

// TestTransitions checks what each transition changes in the ledger's JSON, and that it does not change the record
// that it was given.
func TestTransitions(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(time.RFC3339) }
	single := Token{Name: "ci", Account: "prod", ID: "A", Grace: time.Hour}
	two := Token{Name: "ci", Account: "prod", ID: "A", Partner: "B", Grace: time.Hour}
	renews := Token{Name: "ci", Account: "prod", Replace: true, ID: "A", Grace: time.Hour}
	watched := single
	watched.Sinks = []Sink{namedSink{name: "s"}}
	answer := Issued{Credential: Credential{ClientID: "a.access", ClientSecret: secret.New("s3cret")}, Facts: TokenFacts{ID: "A"}, GraceEndsAt: now.Add(2 * time.Hour)}
	failed := failure{reason: "store", err: errors.New("no sink"), next: now.Add(time.Minute)}
	quiet := failure{reason: "store", err: errors.New("wait"), next: now.Add(time.Minute), silent: true}
	resolved := func(r Record) Record {
		return r.resolved(single, Verdict{Resolved: true, Reason: ReasonGraceEnding}, nil, now)
	}
	tests := []struct {
		name string
		do   func(Record) Record
		want map[string]string // JSON by path; "" for a key that must not exist
	}{
		{"claimed", func(r Record) Record { return r.claimed(Work{RotationID: "N"}) }, map[string]string{"step": `"claimed"`, "work.rotation_id": `"N"`}},
		{"released", Record.released, map[string]string{"step": "", "work": ""}},
		{"intending", func(r Record) Record { return r.intending(now.Add(time.Second)) }, map[string]string{"step": `"intent"`, "work.intent_at": `"` + at(time.Second) + `"`}},
		{"answered", func(r Record) Record { return r.answered(answer, now.Add(time.Second)) }, map[string]string{
			"work.sealed_at": `"` + at(time.Second) + `"`, "work.digest": `"` + string(answer.ClientSecret.Digest()) + `"`, "work.grace_ends_at": `"` + at(2*time.Hour) + `"`}},
		{"stored", Record.stored, map[string]string{"step": `"stored"`}},
		{"failed", func(r Record) Record { return r.failed(failed) }, map[string]string{
			"failures": "4", "not_before": `"` + at(time.Minute) + `"`, "last_error": `"no sink"`, "last_cause": `"store"`, "last_sink": ""}},
		{"failed at a sink", func(r Record) Record {
			return r.failed(failure{reason: "store", err: errors.Join(sinkError(namedSink{name: "s"}, errors.New("sink x: full"))), next: now})
		}, map[string]string{"failures": "4", "last_error": `"sink s: sink x: full"`, "last_cause": `"store"`, "last_sink": `"s"`}},
		{"overtaken in a sink", func(r Record) Record {
			return r.failed(failure{err: sinkError(namedSink{name: "s"}, errOvertaken), next: now}).overtakenAsCause()
		}, map[string]string{"failures": "4", "last_cause": `"` + ReasonOvertaken + `"`, "last_sink": ""}},
		{"failed without a report", func(r Record) Record { return r.failed(quiet) }, map[string]string{"failures": "3", "last_error": `"wait"`}},
		{"a failure that cannot be saved", func(r Record) Record { return r.failedLike(r.failed(failed).released()) }, map[string]string{"failures": "4", "step": `"sealed"`, "work.rotation_id": `"R"`}},
		{"in doubt", func(r Record) Record { return r.inDoubt(Doubt{Reason: ReasonOddAnswer}) }, map[string]string{"step": `"in_doubt"`, "doubt.reason": `"odd_answer"`}},
		{"resolved, the secret lost", resolved, map[string]string{
			"step": "", "work": "", "doubt": "", "next_trigger": `"recovery"`, "lost.cut_off": `"` + at(0) + `"`, "failures": "3"}},
		{"resolved, to be delivered", func(r Record) Record { return r.resolved(single, Verdict{Deliver: true}, nil, now) }, map[string]string{
			"step": `"sealed"`, "doubt": "", "work.rotation_id": `"R"`, "next_trigger": "", "lost.cut_off": ""}},
		{"resolved, not carried out", func(r Record) Record { return r.resolved(single, Verdict{NotCarriedOut: true}, nil, now) }, map[string]string{
			"step": "", "work": "", "lost.cut_off": "", "next_trigger": ""}},
		{"resolved, created", func(r Record) Record {
			return r.resolved(renews, Verdict{CarriedOut: true, NotCarriedOut: true}, &TokenFacts{ID: "N", ClientID: "n"}, now)
		}, map[string]string{"replaced.1.token_id": `"N"`, "work": ""}},
		{"the grace is extended in doubt", func(r Record) Record { return r.doubtExtended(now.Add(3 * time.Hour)) }, map[string]string{
			"doubt.old_works_until": `"` + at(3*time.Hour) + `"`, "doubt.extensions": "1"}},
		{"the grace is extended while a reissue is owed", func(r Record) Record { return r.lostExtended(now.Add(3 * time.Hour)) }, map[string]string{
			"lost.until": `"` + at(3*time.Hour) + `"`, "old_dies_by": `"` + at(3*time.Hour) + `"`, "lost.extensions": "1"}},
		{"given up for good", func(r Record) Record { return r.givenUp(single, Verdict{NotCarriedOut: true}, TokenFacts{}, true, now) }, map[string]string{
			"step": "", "work": "", "abandoned.1": `"R"`, "lost": "", "old_dies_by": "", "failures": "", "anchor": `"` + at(0) + `"`}},
		{"given up, another one follows", func(r Record) Record {
			return r.givenUp(single, Verdict{Reason: ReasonLeakOrder}, TokenFacts{}, false, now)
		}, map[string]string{
			"next_trigger": `"manual"`, "abandoned.1": `"R"`, "lost.rotation_id": `"L"`}},
		{"done in place", func(r Record) Record { r, _ = r.done(single, now); return r }, map[string]string{
			"step": "", "work": "", "last.rotation_id": `"R"`, "last.grace_ends_at": `"` + at(time.Hour) + `"`, "token_id": `"A"`, "anchor": `"` + at(0) + `"`,
			"lost": "", "order": "", "abandoned": "", "failures": "", "last_error": "", "moved": "1"}},
		{"done of a pair", func(r Record) Record {
			r = r.withWork(func(w *Work) { w.Spare, w.TokenID = true, "B" })
			r, _ = r.done(two, now)
			return r
		}, map[string]string{"token_id": `"B"`, "spare.id": `"A"`, "last.grace_ends_at": `"` + at(time.Hour) + `"`}},
		{"done by replacing", func(r Record) Record {
			r = r.withWork(func(w *Work) { w.CreateName, w.TokenID, w.Before = "ci-2", "N", TokenFacts{} })
			r, _ = r.done(renews, now)
			return r
		}, map[string]string{"token_id": `"N"`, "facts.id": `"N"`, "replaced.1.token_id": `"A"`, "replaced.1.at": `"` + at(time.Hour) + `"`, "last.grace_ends_at": `"` + at(time.Hour) + `"`}},
		{"accepted", func(r Record) Record { return r.accepted(now) }, map[string]string{"work.verification.accepted": "true"}},
		{"ordered again", func(r Record) Record { return r.orderedAgain(now) }, map[string]string{"order.since": `"` + at(0) + `"`, "order.override_grace": "true"}},
		{"ordered, to revoke, while a secret is sealed", func(r Record) Record {
			return r.ordered(Order{Since: now, Overrides: Overrides{RevokeNow: true}, Left: 1})
		}, map[string]string{
			"order.revoke_now": "true", "not_before": ""}},
		{"order carried out", func(r Record) Record { return r.orderCarriedOut(r.Work) }, map[string]string{"order": ""}},
		{"order widened", func(r Record) Record { return r.orderWidened(Overrides{Freeze: true}) }, map[string]string{"order.override_freeze": "true"}},
		{"all deleted", func(r Record) Record { return r.deletingAll(now) }, map[string]string{"replaced.0.at": `"` + at(0) + `"`, "last.grace_ends_at": `"` + at(0) + `"`}},
		{"previous revoked", func(r Record) Record { return r.previousRevoked(now) }, map[string]string{"last.revoked": "true", "last.grace_ends_at": `"` + at(0) + `"`}},
		{"the end of the replaced tokens is moved", func(r Record) Record { return r.replacedWorkUntil(now.Add(time.Hour)) }, map[string]string{"replaced.0.at": `"` + at(time.Hour) + `"`}},
		{"a sink no longer deletes versions", func(r Record) Record { return r.deletionSeen("s", Stored{Exists: true}) }, map[string]string{"deletes.s": ""}},
		{"renewed", func(r Record) Record { return r.renewed(now) }, map[string]string{"renewal.at": `"` + at(0) + `"`}},
		{"the spare was renewed", func(r Record) Record { return r.renewalSeen("B", TokenFacts{ExpiresAt: now.Add(48 * time.Hour)}) }, map[string]string{
			"spare.expires_at": `"` + at(48*time.Hour) + `"`, "spare.id": `"B"`, "facts.expires_at": `"` + at(24*time.Hour) + `"`}},
		{"the other is in use", func(r Record) Record { return r.spareChosen(two, "B") }, map[string]string{"token_id": `"B"`, "work.token_id": `"A"`, "facts.id": `"B"`}},
		{"a sink was written", func(r Record) Record { return r.wroteTo("s", Stored{Digest: "newer", Version: 3}, now) }, map[string]string{
			"written.s.digest": `"newer"`, "written.s.version": "3", "written.away.digest": `"new"`, "earlier": `["new","old"]`}},
		{"a finding is over", func(r Record) Record {
			r, _ = r.looked(watched, Look{Sink: "s", Stored: Stored{Exists: true}}, Finding{}, now)
			return r
		}, map[string]string{"findings": "", "restoring.refused": "", "deletes.s": "", "order.left": "1"}},
		{"another finding", func(r Record) Record {
			r, _ = r.looked(watched, Look{Sink: "s"}, Finding{Kind: FoundGone}, now.Add(time.Minute))
			return r
		}, map[string]string{"findings.s.kind": `"gone"`, "findings.s.since": `"` + at(time.Minute) + `"`, "restoring.refused": `"gone"`}},
		{"the same finding", func(r Record) Record {
			r, _ = r.looked(watched, Look{Sink: "s"}, Finding{Kind: FoundDeleted}, now.Add(time.Minute))
			return r
		}, map[string]string{"findings.s.since": `"` + at(0) + `"`}},
		{"what the sinks hold is taken", func(r Record) Record {
			return r.taken(watched, map[string]Stored{"s": {Digest: "theirs", ClientID: "a.access"}}, now)
		}, map[string]string{"written.s.digest": `"theirs"`, "written.s.accepted": "true", "written.away": "", "findings": "", "own_updated_at": "", "earlier": `["new","old"]`}},
		{"a restore begins", func(r Record) Record { return r.restoring(now) }, map[string]string{
			"restoring.at": `["` + at(-time.Hour) + `","` + at(0) + `"]`, "restoring.refused": ""}},
		{"a restore is refused", func(r Record) Record { return r.notRestored(RestoreFailed, errors.New("no sink")) }, map[string]string{
			"restoring.refused": `"failed"`, "restoring.error": `"no sink"`}},
		{"restored", func(r Record) Record {
			return r.restoredIn(watched, "s", Stored{Exists: true, Digest: "new", Version: 9}, now)
		}, map[string]string{
			"written.s.version": "9", "findings": "", "restoring.refused": ""}},
		{"ordered to restore", func(r Record) Record { return r.orderedToRestore(now) }, map[string]string{"order.restores": "true", "order.heals": "true", "order.override_grace": ""}},
		{"an order to restore is not needed any more", func(r Record) Record {
			r, _ = r.orderedToRestore(now).looked(watched, Look{Sink: "s", Stored: Stored{Exists: true}}, Finding{}, now)
			return r
		}, map[string]string{"order": ""}},
		{"the secret in use is accepted", func(r Record) Record { return r.refusedInUse(nil) }, map[string]string{"refused_in_use": ""}},
		{"done, and watched again", func(r Record) Record { r, _ = r.done(watched, now); return r }, map[string]string{
			"findings": "", "refused_in_use": "", "written.away": "", "written.s.digest": `"new"`, "own_updated_at": `"` + at(0) + `"`}},
		{"done, and the service token was changed more than once", func(r Record) Record {
			r, _ = r.withWork(func(w *Work) { w.TouchedAt = now }).done(watched, now)
			return r
		}, map[string]string{"own_updated_at": ""}},
		{"the clock was ahead", func(r Record) Record { r, _ = r.healed(single, now.Add(-90*24*time.Hour)); return r }, map[string]string{
			"anchor": `"` + at(-90*24*time.Hour) + `"`, "not_before": "", "catch_up_at": ""}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			given := full(now)
			next := test.do(given)
			if diff := cmp.Diff(full(now), given, cmp.AllowUnexported(secret.Value{})); diff != "" {
				t.Errorf("the transition changed the record that it was given:\n%s", diff)
			}
			var tree any
			b, err := json.Marshal(next)
			if err == nil {
				err = json.Unmarshal(b, &tree)
			}
			if err != nil {
				t.Fatal(err)
			}
			for path, want := range test.want {
				if got := jsonAt(tree, path); got != want {
					t.Errorf("%s is %s, want %s", path, got, want)
				}
			}
		})
	}
}

// namedSink is a sink of which only the name matters.
type namedSink struct {
	Sink
	name string
}

func (s namedSink) Name() string { return s.name }

// jsonAt returns the JSON at a path of keys and indexes; empty if there is none.
func jsonAt(tree any, path string) string {
	for key := range strings.SplitSeq(path, ".") {
		switch node := tree.(type) {
		case map[string]any:
			tree = node[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(node) {
				return ""
			}
			tree = node[i]
		default:
			return ""
		}
	}
	if tree == nil {
		return ""
	}
	b, _ := json.Marshal(tree)
	return string(b)
}
