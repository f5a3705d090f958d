package event_test

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/event"
)

var update = flag.Bool("update", false, "write the table of docs/events.md")

var (
	now    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	later  = now.Add(24 * time.Hour)
	errBad = errors.New("boom")
	alice  = event.Actor{Cause: event.ByOperator, User: "alice", Command: "rotate", Peer: true, UID: 1000, GID: 1000, PID: 42}
)

// samples has at least one event of each kind, with all of its details.
var samples = []event.Event{
	about("ci", event.PhaseEnded{Phase: event.PhaseStore, Duration: time.Second, Err: errBad}),
	about("ci", event.SinkWrite{Sink: "vault:secret/ci"}),
	about("ci", event.SinkWrite{Sink: "vault:secret/ci", Err: errBad}),
	about("ci", event.RotationEnded{RotationID: "R", Trigger: "schedule", Result: event.ResultSuccess, Duration: time.Second, Slot: now, Digest: "sha256:d", GraceEndsAt: later}),
	about("ci", event.RotationEnded{RotationID: "R", Trigger: "create", Result: event.ResultSuccess, Creates: true}),
	about("ci", event.RotationEnded{RotationID: "R", Trigger: "recovery", Result: event.ResultSuccess, MakesUp: true}),
	about("ci", event.RotationEnded{RotationID: "R", Trigger: "schedule", Result: event.ResultFailed, Reason: "refused", Err: errBad, NextTry: later}),
	about("ci", event.RotationEnded{RotationID: "R", Trigger: "schedule", Result: event.ResultSkipped, Reason: "preflight", Err: errBad, NextTry: later}),
	about("ci", event.RotationEnded{RotationID: "R", Trigger: "schedule", Result: event.ResultInDoubt, Reason: "outcome_unknown", Err: errBad, NextTry: later, Step: "in_doubt", OwedSince: now}),
	about("ci", event.RotationEnded{RotationID: "R", Trigger: "schedule", Result: event.ResultFailed, Reason: "store", Err: errBad, NextTry: later, Step: "sealed"}),
	about("ci", event.RotationEnded{RotationID: "R", Trigger: "schedule", Result: event.ResultFailed, Reason: "unverified", Err: errBad, NextTry: later, Step: "stored"}),
	about("ci", event.RotationEnded{RotationID: "R", Trigger: "schedule", Result: event.ResultFailed, Reason: "overtaken", Err: errBad, NextTry: later, Step: "sealed", Overtaken: true}),
	about("ci", event.RotationEnded{RotationID: "R", Trigger: "recovery", Result: event.ResultSkipped, Reason: "preflight", Err: errBad, NextTry: later, OwedSince: now, CutOffAt: later, KeptAlive: true}),
	about("ci", event.RotationEnded{RotationID: "R", Trigger: "recovery", Result: event.ResultSkipped, Reason: "preflight", Err: errBad, NextTry: later, OwedSince: now, CutOffAt: later}),
	about("ci", event.RotationEnded{RotationID: "R", Trigger: "recovery", Result: event.ResultSkipped, Reason: "preflight", Err: errBad, NextTry: later, OwedSince: now, CutOffAt: now, CutOff: true}),
	about("ci", event.RotationStuck{Err: errBad}),
	about("ci", event.SealFailure{RotationID: "R", Err: errBad}),
	about("ci", event.Verdict{RotationID: "R", Reason: "old_secret_works", Before: "settling", Again: later}),
	about("ci", event.Verdict{RotationID: "R", Reason: "settling", Before: "settling", Again: later}),
	about("ci", event.Resolution{RotationID: "R", Reason: "old_secret_revoked", After: time.Minute}),
	about("ci", event.GraceExtension{RotationID: "R", Until: later}),
	about("ci", event.GraceExtension{RotationID: "R", Err: errBad}),
	about("ci", event.OvertakenEnd{RotationID: "R", Reason: "theirs_works"}),
	about("ci", event.Missed{Count: 3, Frozen: 1, GivenUp: true}),
	about("ci", event.Healed{What: []string{"a slot"}}),
	about("ci", event.Adoption{TokenID: "T"}),
	about("ci", event.Probe{RotationID: "R", Result: event.ProbeGood}),
	about("ci", event.Probe{RotationID: "R", Result: event.ProbeBad, Err: errBad}),
	about("ci", event.Probe{RotationID: "R", Result: event.ProbeUnknown, Err: errBad}),
	about("ci", event.Renewal{TokenID: "T", ExpiresAt: later}),
	about("ci", event.Renewal{TokenID: "T", ExpiresAt: later, Err: errBad}),
	about("ci", event.Deletion{TokenID: "T"}),
	about("ci", event.Deletion{TokenID: "T", Err: errBad}),
	about("ci", event.OutsideRotation{TokenID: "T", ChangedAt: now, Heals: true}),
	about("ci", event.OutsideChange{TokenID: "T", ChangedAt: now}),
	about("ci", event.VersionDeletion{Sink: "vault:secret/ci", DeletesAt: later, NeededUntil: later.Add(time.Hour)}),
	about("ci", event.Seen{What: event.TokenGone, Account: "prod", TokenID: "T"}),
	about("ci", event.Seen{What: event.TokenDisabled, Account: "prod", TokenID: "T"}),
	about("ci", event.Seen{What: event.TokenUnreadable, Account: "prod", TokenID: "T", Err: "no name"}),
	about("ci", event.Seen{What: event.TokenNotFound, Account: "prod", TokenID: "T", Err: "timeout"}),

	commanded("ci", event.Command{Verb: event.OperatorRotate, Args: []any{"override_freeze", true, "override_pause", true, "override_grace", true, "revoke_now", true}, Outcome: "refused", Err: "no"}),
	commanded("", event.Command{Verb: event.OperatorRotateAll, Account: "prod", Args: []any{"override_freeze", true, "override_pause", true, "override_grace", true, "revoke_now", true}, Outcome: "refused", Err: "no"}),
	commanded("ci", event.Command{Verb: event.OperatorCancel, Outcome: "refused", Err: "no"}),
	commanded("", event.Command{Verb: event.OperatorCancelAll, Account: "prod", Outcome: "refused", Err: "no"}),
	commanded("", event.Command{Verb: event.OperatorPause, Args: []any{"reason", "audit", "until", later}, Outcome: "refused", Err: "no"}),
	commanded("ci", event.Command{Verb: event.OperatorResume, Outcome: "refused", Err: "no"}),
	commanded("ci", event.Command{Verb: event.OperatorResolve, Args: []any{"how", "look"}, Outcome: "refused", Err: "no"}),
	commanded("ci", event.Command{Verb: event.OperatorRevokePrevious, Args: []any{"override_in_use", true}, Outcome: "refused", Err: "no"}),
	commanded("ci", event.Command{Verb: event.OperatorHook, Outcome: "done"}),
	commanded("ci", event.Command{Verb: event.OperatorExtendGrace, Args: []any{"seconds", 3600}, Outcome: "refused", Err: "no"}),

	commanded("", event.Command{Verb: event.OperatorNotifyTest, Args: []any{"receiver", "night"}, Outcome: "taken by 1 of 1"}),

	commanded("", event.Command{Verb: event.OperatorRead, Outcome: "refused", Err: "no"}),
	about("", event.DaemonStart{Version: "v1", Tokens: 3, Address: "127.0.0.1:1", AdminSocket: "/run/s", StateDir: "/var/lib/r"}),
	about("", event.DaemonStop{Cause: "terminated", Within: time.Minute}),
	about("", event.DaemonEnd{}),
	about("", event.DaemonFailure{Err: errBad}),
	about("", event.Interruption{Tokens: []string{"ci"}}),
	about("", event.Loss{Err: errBad}),
	about("", event.Reload{Tokens: 3, Changed: 1, Removed: 1}),
	about("", event.ReloadRefusal{Faults: []string{"a fault"}}),
	about("", event.ReloadRefusal{Err: errBad}),
	about("ci", event.NotEnrolled{Err: errBad}),
	about("ci", event.Leftover{RotationID: "R", Step: "sealed", In: time.Second}),
	about("ci", event.OldDoubt{RotationID: "R", Reason: "outcome_unknown", Since: now, OldWorksUntil: later}),
	about("ci", event.OldOvertaken{RotationID: "R", Since: now}),
	about("ci", event.Orphan{TokenID: "T", Account: "prod", Step: "sealed", RotationID: "R"}),
	about("", event.CheckResult{Check: "sink", Subject: "vault:secret", Stops: true, Reason: "sealed", Detail: "Vault is sealed"}),
	about("", event.CheckResult{Check: "disk_space", Subject: "/var", Reason: "no_space", Detail: "1 MB is left"}),
	about("", event.CheckResult{Check: "sink", Subject: "vault:secret", OK: true}),
	about("", event.CheckResult{Check: "credential", Subject: "prod", Credential: true, Reason: "no_file", Detail: "no such file"}),
	about("", event.CheckResult{Check: "credential", Subject: "prod", Credential: true, OK: true}),
	about("", event.ClockStep{Step: time.Hour}),
	about("", event.ListingFailure{Account: "prod", Err: errBad, Listed: 1, RetryIn: time.Second}),
	about("", event.OddListing{Account: "prod", What: "no id"}),
	about("", event.LimitWait{Account: "prod", Waiting: 3, Reason: "429", Until: later}),
	about("", event.LimitEnd{Account: "prod", Waited: time.Minute}),
	about("", event.VaultLogin{Vault: "https://vault", Method: "approle", Lease: time.Hour, Renewable: true}),
	about("", event.VaultLogin{Vault: "https://vault", Method: "approle", Err: errBad, RetryIn: time.Second}),
	about("", event.VaultLogin{Vault: "https://vault", Method: "approle", Err: errBad, Replaced: true}),
	about("", event.VaultSessionEnd{Vault: "https://vault", Reason: "revoked"}),
	about("", event.VaultRenewalFailure{Vault: "https://vault", Err: errBad, Refused: true}),
	about("", event.VaultRenewalFailure{Vault: "https://vault", Err: errBad}),
	about("", event.MetadataRefusal{Vault: "https://vault", Mount: "secret", Err: errBad}),
	about("", event.VaultRevocationFailure{Vault: "https://vault", Err: errBad}),
	about("", event.VaultTLS{Vault: "https://vault", CertificateEnds: time.Unix(0, 0)}),
	about("", event.VaultTLS{Vault: "https://vault", Err: errBad}),
	about("", event.VaultUnwrap{Vault: "https://vault", Role: "rotatord", SecretIDEnds: time.Unix(0, 0)}),
	about("", event.VaultUnwrap{Vault: "https://vault", Err: errBad}),
	about("", event.VaultSecretIDNotKept{Vault: "https://vault", Err: errBad}),
	about("", event.WebConfig{Err: errBad}),
	about("", event.WebConfig{}),
	about("", event.Notification{Receiver: "night", ID: "m", News: 2, Attempts: 3, After: errBad}),
	about("", event.Notification{Receiver: "night", ID: "m", News: 2, Attempts: 1, Result: event.NotificationNotTaken, Err: errBad}),
	about("", event.Notification{Receiver: "night", ID: "m", News: 2, Attempts: 5, Result: event.NotificationDropped, Err: errBad}),
	about("ci", event.SinkFinding{Sink: "vault:secret/ci", Finding: "changed", Since: now, Digest: "sha256:a", Want: "sha256:b", Version: 3, WrittenAt: now}),
	about("ci", event.SinkFinding{Sink: "vault:secret/ci", Finding: "rolled_back", Since: now}),
	about("ci", event.SinkFinding{Sink: "vault:secret/ci", Finding: "deleted", Since: now}),
	about("ci", event.SinkFinding{Sink: "vault:secret/ci", Finding: "destroyed", Since: now}),
	about("ci", event.SinkFinding{Sink: "file:/run/ci.env", Finding: "gone", Since: now}),
	about("ci", event.SinkFinding{Sink: "vault:secret/ci", Finding: "no_secret", Since: now}),
	about("ci", event.SinkFinding{Sink: "vault:secret/ci", Finding: "never_written", Since: now}),
	about("ci", event.SinkFinding{Sink: "vault:secret/ci", Finding: "unreadable", Since: now, Err: errBad}),
	about("ci", event.SinkFinding{Sink: "vault:secret/ci", Was: "changed", Since: now.Add(-time.Hour)}),
	about("ci", event.SinkRestore{Sink: "vault:secret/ci"}),
	about("ci", event.SinkRestore{Sink: "vault:secret/ci", Rotates: true}),
	about("ci", event.SinkRestore{Reason: "too_often"}),
	about("ci", event.SinkRestore{Sink: "vault:secret/ci", Reason: "failed", Err: errBad}),
	about("ci", event.InUseProbe{Since: now.Add(-time.Hour), Error: "403"}),
	about("ci", event.InUseProbe{Since: now.Add(-time.Hour)}),
	about("ci", event.ClaimTakenOver{From: "rotatord-1", Step: "intent"}),
	about("ci", event.AnswerCopied{RotationID: "R"}),
	about("ci", event.AnswerCopied{RotationID: "R", Err: errBad}),
	about("ci", event.LateAnswer{RotationID: "R", Delivered: true}),
	about("ci", event.LateAnswer{RotationID: "R"}),
	about("", event.ReplicaSeen{Replica: "rotatord-1", Living: true}),
	about("", event.ReplicaSeen{Replica: "rotatord-1", Since: now}),
	about("", event.ReplicaSeen{Replica: "rotatord-1", Leaving: true, Since: now}),
	about("", event.VaultClockJump{By: time.Minute}),
	about("", event.StandAside{Why: "its clock is 3m0s ahead of the other replicas"}),
	about("", event.StandAside{}),
	about("", event.LedgerAway{Err: errBad}),
	about("", event.LedgerAway{}),
	about("ci", event.RequestLeaving{Operation: "rotate", RotationID: "R", Trigger: "schedule", TokenID: "T", Slot: now, Grace: time.Hour}),
	about("ci", event.RequestLeaving{Operation: "create", RotationID: "R", Trigger: "create", Creates: "ci"}),
	about("", event.AuditChain{File: "/var/lib/r/audit/audit.jsonl"}),
	about("", event.AuditChain{File: "/var/lib/r/audit/audit.jsonl", Damage: "line 3 was changed", Head: "7:ab", Kept: "/var/lib/r/audit/audit.jsonl.000000000001"}),
	about("", event.AuditFile{File: "/var/lib/r/audit/audit.jsonl", Before: "audit.jsonl.000000000001", Head: "7:ab", KeptFrom: 1}),
	about("", event.AuditTouched{File: "/var/lib/r/audit/audit.jsonl", What: "6 bytes that rotatord has not written were at the end of it", Bytes: 6, Kept: "/var/lib/r/audit/audit.jsonl.foreign-8"}),
	about("", event.AuditTouched{File: "/var/lib/r/audit/audit.jsonl", What: "its mode was changed"}),
	about("", event.AuditTorn{File: "/var/lib/r/audit/audit.jsonl", Bytes: 17, Kept: "/var/lib/r/audit/audit.jsonl.torn-8"}),
	about("", event.AuditGap{Events: 3, Since: now, Err: errBad}),
	about("", event.AuditHeadSeen{File: "/var/lib/r/audit/audit.jsonl", Head: "7:ab"}),
	about("ci", event.HookEnded{Hook: "exec:reload", RotationID: "R", Digest: "sha256:d", Attempt: 2, Duration: time.Second, Tokens: 3, OwedSince: now.Add(-time.Minute), Replaced: true}),
	about("ci", event.HookEnded{Hook: "exec:reload", RotationID: "R", Digest: "sha256:d", Attempt: 1, Err: errBad, Failures: 1, OwedSince: now, NextTry: later}),
	about("ci", event.HookDrop{Hook: "exec:reload", RotationID: "R", Since: now}),
	asBefore(about("ci", event.RotationEnded{RotationID: "R", Trigger: "retry", Result: event.ResultSkipped, Reason: "preflight", Err: errBad, NextTry: later})),
	asBefore(about("ci", event.RotationStuck{Err: errBad})),
}

// asBefore returns the event as a stream hands it on if it has handed on the same before.
func asBefore(e event.Event) (named event.Event) {
	s := event.NewStream(nil, nil, event.NewSubscriber("last", event.All(func(e event.Event) { named = e })))
	s.Publish(e)
	s.Publish(e)
	return named
}

func about(token string, d event.Detail) event.Event { return event.New(now, token, event.Daemon, d) }
func commanded(token string, d event.Command) event.Event {
	return event.New(now, token, alice, d)
}

// TestEachKind holds the table to be complete: each kind has a row, an example, a wording and a severity.
func TestEachKind(t *testing.T) {
	defined := map[event.Kind]event.Definition{}
	name := regexp.MustCompile(`^[a-z_]+\.[a-z_]+$`)
	for _, d := range event.Definitions() {
		if _, twice := defined[d.Kind]; twice {
			t.Errorf("%s has two rows", d.Kind)
		}
		defined[d.Kind] = d
		if !name.MatchString(string(d.Kind)) || d.Message == "" || d.When == "" || !slices.Contains([]event.Severity{event.Info, event.Warning, event.Critical}, d.Severity) {
			t.Errorf("the row of %q is not complete: %+v", d.Kind, d)
		}
	}
	seen := map[event.Kind]bool{}
	for _, e := range samples {
		seen[e.Kind] = true
		if _, ok := defined[e.Kind]; !ok {
			t.Errorf("%s has no row", e.Kind)
		}
		if e.Severity != defined[e.Kind].Severity || e.Message() == "" || !strings.HasPrefix(e.Line(), e.Message()) || strings.Contains(e.Line(), "\n") {
			t.Errorf("%s: %s, %q", e.Kind, e.Severity, e.Line())
		}
		if reflect.TypeOf(e.Detail) != reflect.TypeOf(defined[e.Kind].Of) {
			t.Errorf("%s: the detail is a %T, and its row says %T", e.Kind, e.Detail, defined[e.Kind].Of)
		}
		if len(e.Attrs())%2 != 0 {
			t.Errorf("%s: odd attributes: %v", e.Kind, e.Attrs())
		}
	}
	for _, k := range constants(t) {
		if !seen[k] {
			t.Errorf("no example leads to %s", k)
		}
		if _, ok := defined[k]; !ok {
			t.Errorf("%s has no row", k)
		}
	}
	if len(constants(t)) != len(defined) {
		t.Errorf("%d constants and %d rows", len(constants(t)), len(defined))
	}
}

// constants are the kinds that kinds.go declares.
func constants(t *testing.T) (kinds []event.Kind) {
	t.Helper()
	source, err := os.ReadFile("kinds.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Kind += (operatorPrefix \+ )?"([^"]+)"`).FindAllSubmatch(source, -1) {
		k := string(m[2])
		if len(m[1]) > 0 {
			k = "operator." + k
		}
		kinds = append(kinds, event.Kind(k))
	}
	if len(kinds) < 50 {
		t.Fatalf("only %d kinds were found", len(kinds))
	}
	return kinds
}

// TestGroups: a group has the kinds of its prefixes, all of them and no other, so that a subscriber which ignores
// a group ignores no rotation.
func TestGroups(t *testing.T) {
	prefixes := map[string]string{"operator": "commands", "daemon": "daemon life", "reload": "daemon life", "start": "daemon life",
		"check": "surroundings", "credential": "surroundings", "clock": "surroundings", "inventory": "surroundings", "limit": "surroundings",
		"vault": "surroundings", "web_config": "surroundings", "notification": "surroundings", "request": "record", "audit": "record", "hook": "hooks"}
	want := map[string][]event.Kind{}
	for _, d := range event.Definitions() {
		prefix, _, _ := strings.Cut(string(d.Kind), ".")
		if group := prefixes[prefix]; group != "" {
			want[group] = append(want[group], d.Kind)
		}
	}
	for name, got := range map[string][]event.Kind{"commands": event.Commands, "daemon life": event.DaemonLife, "surroundings": event.Surroundings,
		"record": event.Record, "hooks": event.Hooks} {
		got, want := slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want[name]))
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// TestNoDetailCanHoldASecret looks at the types of all fields.
func TestNoDetailCanHoldASecret(t *testing.T) {
	fine := []reflect.Kind{reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Uint64}
	for _, e := range samples {
		typ := reflect.TypeOf(e.Detail)
		for f := range typ.Fields() {
			switch {
			case slices.Contains(fine, f.Type.Kind()), f.Type == reflect.TypeFor[time.Time](), f.Type == reflect.TypeFor[error](),
				f.Type == reflect.TypeFor[[]string](), typ == reflect.TypeFor[event.Command]() && f.Name == "Args":
			default:
				t.Errorf("%s.%s is a %s", typ, f.Name, f.Type)
			}
		}
	}
}

// TestWords holds what the log, the drill and the demo say of some events.
func TestWords(t *testing.T) {
	for want, e := range map[string]event.Event{
		"rotated: every sink has confirmed the new secret. The previous secret works for another 24 h":                                               samples[3],
		"rotation failed: Cloudflare did not carry it out: boom":                                                                                     samples[6],
		"a hook failed after the rotation: consumers may not know of the new secret yet: exec:reload: boom":                                          about("ci", event.HookEnded{Hook: "exec:reload", Err: errBad}),
		"doubt judged: rotating again would cut the old secret off":                                                                                  samples[17],
		"admin command: rotate by alice: refused: no":                                                                                                commanded("ci", event.Command{Verb: event.OperatorRotate, Outcome: "refused", Err: "no"}),
		"admin command: rotate-all of account prod by alice: ordered":                                                                                commanded("", event.Command{Verb: event.OperatorRotateAll, Account: "prod", Outcome: "ordered"}),
		"a new secret was overtaken and is not delivered: another one is in the sinks, and an operator has to decide: rotatord status ci: boom":      samples[11],
		"the new secret of the token was overtaken, and has been since before this start: an operator has to decide: rotatord status ci":             about("ci", event.OldOvertaken{}),
		"what rotations need is there again: sink vault:secret":                                                                                      about("", event.CheckResult{Check: "sink", Subject: "vault:secret", OK: true}),
		"the old secret's grace was extended, since consumers have nothing else yet: it works for another 24 h":                                      samples[20],
		"a sink holds what was written to it again: vault:secret/ci, after 60 min":                                                                   about("ci", event.SinkFinding{Sink: "vault:secret/ci", Was: "changed", Since: now.Add(-time.Hour)}),
		"the secret is not written back to a sink that does not hold it any more: rotatord status ci: Cloudflare has no such service token any more": about("ci", event.SinkRestore{Reason: "gone"}),
		"doubt resolved: a_code_of_a_later_version":                                                                                                  about("ci", event.Resolution{Reason: "a_code_of_a_later_version"}),
	} {
		if got := e.Line(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestLog: a line for each event, at its level, with its details; and for each fault of a reload.
func TestLog(t *testing.T) {
	var out bytes.Buffer
	log := event.NewLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	for _, test := range []struct {
		e    event.Event
		want string
	}{
		{samples[0], `level=DEBUG msg="step ended" token=ci step=store duration=1s error=boom`},
		{samples[1], ""},
		{samples[3], `level=INFO msg=rotated token=ci rotation_id=R trigger=schedule result=success duration=1s slot=2026-03-01T12:00:00.000Z digest=sha256:d grace_ends_at=2026-03-02T12:00:00.000Z`},
		{samples[7], `level=WARN msg="rotation skipped: nothing was sent to Cloudflare" token=ci rotation_id=R trigger=schedule result=skipped duration=0s reason=preflight error=boom next_try=2026-03-02T12:00:00.000Z step=idle told_again=2026-03-01T13:00:00.000Z`},
		{asBefore(samples[7]), `level=DEBUG msg="rotation skipped as before: nothing was sent to Cloudflare" token=ci rotation_id=R trigger=schedule result=skipped duration=0s reason=preflight error=boom next_try=2026-03-02T12:00:00.000Z step=idle`},
		{samples[9], `level=ERROR msg="a new secret waits to be delivered" token=ci rotation_id=R trigger=schedule result=failed duration=0s reason=store error=boom next_try=2026-03-02T12:00:00.000Z step=sealed`},
		{samples[18], ""},
		{commanded("", event.Command{Verb: event.OperatorRevokePrevious, Args: []any{"override_in_use", true}, Outcome: "done"}),
			`level=INFO msg="admin command" verb=revoke-previous token=(all) uid=1000 user=alice gid=1000 pid=42 override_in_use=true outcome=done`},
		{event.New(now, "ci", event.Actor{Cause: event.ByOperator, Peer: true, UID: 7, User: event.UserOf(7, "")}, event.Command{Verb: event.OperatorCancel, Outcome: "done"}),
			`level=INFO msg="admin command" verb=cancel token=ci uid=7 gid=0 pid=0 outcome=done`},
		{about("", event.ReloadRefusal{Faults: []string{"one", "two"}}),
			"level=ERROR msg=\"the configuration is not reloaded: the one in force stays\" fault=one\nlevel=ERROR msg=\"the configuration is not reloaded: the one in force stays\" fault=two"},
	} {
		out.Reset()
		log.Handle(test.e)
		if got := strings.TrimSpace(out.String()); got != test.want {
			t.Errorf("%s:\n%s\nwant\n%s", test.e.Kind, got, test.want)
		}
	}
	if missing := log.Missing(); len(missing) > 0 {
		t.Errorf("the log neither writes nor ignores %v", missing)
	}
}

// TestDocument holds docs/events.md to the table.
func TestDocument(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "events.md")
	document, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- the table is made by go test ./internal/event -update -->\n", "\n<!-- end of the table -->"
	before, rest, ok := strings.Cut(string(document), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", path)
	}
	want := before + begin + table() + end + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(document) != want {
		t.Errorf("%s is not up to date: go test ./internal/event -update", path)
	}
	for _, c := range event.Causes {
		if !strings.Contains(before+after, fmt.Sprintf("| `%s` |", c)) {
			t.Errorf("the cause %s is not documented", c)
		}
	}
}

// TestUnrecordedAreDocumented: docs/audit.md names the kinds that are not in the record of events, and no others.
func TestUnrecordedAreDocumented(t *testing.T) {
	document, err := os.ReadFile(filepath.Join("..", "..", "docs", "audit.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(document), "is a line, except for ")
	exceptions, _, found := strings.Cut(rest, "which say nothing")
	if !found {
		t.Fatal("docs/audit.md does not say what is left out")
	}
	var named []event.Kind
	for i, part := range strings.Split(exceptions, "`") {
		if i%2 == 1 {
			named = append(named, event.Kind(part))
		}
	}
	var want []event.Kind
	for _, d := range event.Definitions() {
		if d.Unrecorded {
			want = append(want, d.Kind)
		}
	}
	slices.Sort(named)
	if slices.Sort(want); !slices.Equal(named, want) {
		t.Errorf("docs/audit.md names %v, want %v", named, want)
	}
}

// table is what docs/events.md has of each kind.
func table() string {
	var b strings.Builder
	b.WriteString("| kind | severity | level | message in the log | when | details |\n|---|---|---|---|---|---|\n")
	ignored := event.NewLog(slog.New(slog.DiscardHandler)).Ignores()
	for _, d := range event.Definitions() {
		var details []string
		level := slog.LevelInfo
		for _, e := range samples {
			if e.Kind != d.Kind {
				continue
			}
			level = e.Level()
			for i, a := 0, e.Attrs(); i < len(a); i += 2 {
				if key := "`" + fmt.Sprint(a[i]) + "`"; !slices.Contains(details, key) {
					details = append(details, key)
				}
			}
		}
		shown := "`" + level.String() + "`"
		if slices.Contains(ignored, d.Kind) {
			shown = "not logged"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", d.Kind, d.Severity, shown, d.Message, d.When, cmp.Or(strings.Join(details, ", "), "none"))
	}
	return b.String()
}
