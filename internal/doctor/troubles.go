package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// seenHere are the kinds of trouble that doctor finds by itself, from the present answers of Cloudflare and
// Vault.
var seenHere = []string{"gone", "disabled", "expired", "expires_very_soon", "expires_soon", "version_deletes_soon", "version_deletes"}

// troubles adds what is wrong with rotations: from a running daemon or, if none can be asked, from the
// ledger.
func (e *examination) troubles(ctx context.Context) {
	if e.AskTroubles != nil {
		troubles, err := e.AskTroubles(ctx)
		if err == nil {
			e.fromDaemon(troubles)
			return
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Records)) {
		e.fromLedger(e.Records[name])
	}
}

func (e *examination) fromDaemon(troubles []status.Trouble) {
	before := len(e.findings)
	for _, t := range troubles {
		if slices.Contains(seenHere, t.Kind) {
			continue
		}
		level, subject := Warning, "the running daemon"
		if t.Severity == status.Critical {
			level = Bad
		}
		if len(t.Tokens) == 1 {
			subject = "tokens." + t.Tokens[0]
		}
		e.add(level, DaemonTrouble, subject, "the daemon says: "+t.Line(e.Now()), t.ToDo)
	}
	if len(e.findings) == before {
		e.add(Good, DaemonGood, "the running daemon", "it finds no trouble with rotations", "")
	}
}

// fromLedger checks a record of a daemon that does not run.
func (e *examination) fromLedger(r rotation.Record) {
	subject := "tokens." + r.Token
	const start = "start the daemon, which continues the rotation"
	because := ""
	if r.LastError != "" {
		because = ": " + printable.Text(r.LastError)
	}
	switch {
	case r.Doubt != nil || r.Step == rotation.StepIntent:
		until := ""
		if r.Doubt != nil && !r.Doubt.OldWorksUntil.IsZero() {
			until = fmt.Sprintf(" If it has, consumers work until %s.", shown(r.Doubt.OldWorksUntil))
		}
		e.add(Bad, TokenInDoubt, subject, "the last rotate request was sent, and it is not known whether Cloudflare has carried it out."+until,
			start+", and see rotatord status "+r.Token)
	case r.Work != nil && r.Work.Overtaken != nil:
		e.add(Bad, TokenOvertaken, subject, "its new secret is not stored, because a sink holds a later one",
			"start the daemon, and see rotatord status "+r.Token)
	case r.Step == rotation.StepSealed:
		level, until := Warning, ""
		if end := r.GraceEnd(); !end.IsZero() {
			until = fmt.Sprintf("; the previous one works until %s", shown(end))
			if end.Sub(e.Now()) < status.GraceEnding {
				level = Bad
			}
		}
		e.add(level, TokenPending, subject, "its new secret is sealed in the state directory, and not in every sink"+until+because, start+"; keep the disk")
	case r.Lost != nil:
		e.add(Bad, TokenOwed, subject, "a secret was lost, and the rotation that replaces it has not succeeded yet"+because, start)
	case !r.Outside.IsZero():
		e.add(Bad, TokenOutside, subject, "it was rotated by others at "+shown(r.Outside)+": the secret in its sinks does not work, or will stop working",
			"start the daemon, then rotatord rotate "+r.Token)
	case r.Failures > 0:
		e.add(Warning, TokenFailing, subject, fmt.Sprintf("its last %d attempt(s) failed%s", r.Failures, because),
			"fix what the error names; the daemon tries again by itself")
	}
}
