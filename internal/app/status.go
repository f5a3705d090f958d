package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/config"
	"rotatord/internal/httpapi"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// beatBound is how long the queue may be silent: it gives a sign of life every 30 s.
const beatBound = 90 * time.Second

// Tokens implements [httpapi.Source] and [admin.Daemon].
func (a *App) Tokens() []status.Token {
	all := make([]status.Token, 0, len(a.config.Tokens))
	for _, t := range a.config.Tokens {
		all = append(all, a.show(t))
	}
	return all
}

// show returns what is shown of a token now.
func (a *App) show(t config.Token) status.Token {
	record, due := a.engine.view(t.Name)
	s := status.Token{
		Name: t.Name, Account: t.Account, TokenID: record.TokenID, ClientID: record.Facts.ClientID,
		Strategy: "rotate", Schedule: t.Schedule.String(), TimeZone: t.Schedule.Location().String(),
		State: stateName(record.Step), Reason: string(due.Reason), Next: due.At.UTC(),
		Known: record.Facts.ID != "", Enabled: record.Facts.Enabled,
		Expiry: record.Facts.ExpiresAt, LastSeen: record.Facts.LastSeenAt,
		Failures: record.Failures, LastError: record.LastError,
		Doubt: showDoubt(record), GraceEnd: record.GraceEnd(),
	}
	if t.Partner != "" {
		showPair(&s, t, record)
	}
	if record.Last != nil {
		s.LastSuccess = record.Last.At
	}
	return s
}

// showPair shows of two service tokens what concerns whoever watches: the end that comes
// first, the use that was last, and whether both are enabled.
func showPair(s *status.Token, t config.Token, record rotation.Record) {
	s.Strategy, s.Spare = "pair", t.Partner
	if record.TokenID == t.Partner {
		s.Spare = t.ID
	}
	spare := record.Spare
	if spare.ID == "" {
		return
	}
	s.Enabled = s.Enabled && spare.Enabled
	if s.Expiry.IsZero() || !spare.ExpiresAt.IsZero() && spare.ExpiresAt.Before(s.Expiry) {
		s.Expiry = spare.ExpiresAt
	}
	if spare.LastSeenAt.After(s.LastSeen) {
		s.LastSeen = spare.LastSeenAt
	}
}

// showDoubt shows what is known of a rotation in doubt; nil if none is.
func showDoubt(record rotation.Record) *status.Doubt {
	d, work := record.Doubt, record.Work
	if d == nil || work == nil {
		return nil
	}
	facts := record.Facts
	if work.Spare {
		facts = record.Spare
	}
	shown := &status.Doubt{
		Reason: d.Reason, Detail: d.Detail, Since: d.Since, RotationID: work.RotationID,
		TokenID: work.TokenID, Spare: work.Spare,
		AskedAt: work.IntentAt, UpdatedBefore: work.Before.UpdatedAt, UpdatedNow: facts.UpdatedAt,
		CarriedOut: d.CarriedOut || d.Answered(), AnswerSealed: d.Sealed, Deliverable: d.MayDeliver(), OldWorksUntil: d.OldWorksUntil, Extensions: d.Extensions,
		Decision: d.Decision, DecidedAt: d.DecidedAt,
	}
	if work.Spare {
		shown.OldWorksUntil = time.Time{} // nobody uses it
	}
	return shown
}

// Resolve implements [admin.Daemon].
func (a *App) Resolve(ctx context.Context, name string, how rotation.Resolution) (admin.Outcome, error) {
	before, _ := a.engine.view(name)
	after, verdict, err := a.engine.resolve(ctx, name, how)
	if err != nil && (verdict.Reason == "" || errors.Is(err, rotation.ErrLedger)) {
		return admin.Outcome{}, err
	}
	o := admin.Outcome{Resolved: verdict.Resolved, Delivers: verdict.Deliver, Reason: verdict.Reason}
	if err != nil {
		o.Problem = err.Error()
	}
	for _, t := range a.config.Tokens {
		if t.Name == name {
			o.Token = a.show(t)
		}
	}
	if after.Doubt == nil { // what was known of it until now
		after.Work, after.Doubt = before.Work, before.Doubt
	}
	if doubt := showDoubt(after); doubt != nil {
		o.Doubt = *doubt
		o.Doubt.CarriedOut = doubt.CarriedOut || verdict.CarriedOut
		o.Doubt.Decision, o.Doubt.DecidedAt = verdict.Reason, time.Now().UTC()
	}
	return o, nil
}

func stateName(s rotation.Step) string {
	if s == rotation.StepIdle {
		return "idle"
	}
	return string(s)
}

// Pending implements [httpapi.Source] and [admin.Daemon].
func (a *App) Pending() (n int, oldest time.Time) {
	sealed, err := a.journal.Sealed()
	records, recordsErr := a.journal.All(context.Background())
	if err := errors.Join(err, recordsErr); err != nil {
		a.log.Error("the journal cannot be read", "error", err)
		return 0, time.Time{}
	}
	// Answers that failed validation stay sealed for an operator after their doubt was
	// resolved. They wait for nothing.
	inHand := make(map[string]bool)
	for _, r := range records {
		if r.Work != nil {
			inHand[r.Work.RotationID] = true
		}
	}
	for _, s := range sealed {
		if !inHand[s.RotationID] {
			continue
		}
		if n++; oldest.IsZero() || s.At.Before(oldest) {
			oldest = s.At
		}
	}
	// And those that could not even be sealed.
	return n + a.engine.rotator.Held(), oldest
}

// Live implements [httpapi.Source]: can the daemon schedule?
func (a *App) Live() []httpapi.Check {
	silent := time.Since(time.Unix(0, max(a.engine.beat.Load(), a.started.UnixNano())))
	return []httpapi.Check{{
		Name: "scheduler", OK: silent < beatBound,
		Detail: fmt.Sprintf("no sign of life for %s: restart the daemon", silent.Round(time.Second)),
	}}
}

// Ready implements [httpapi.Source].
func (a *App) Ready() []httpapi.Check {
	checks := []httpapi.Check{
		{Name: "running", OK: !a.stopping.Load(), Detail: "the daemon is stopping"},
	}
	left := a.engine.recovering()
	checks = append(checks, httpapi.Check{
		Name: "recovery", OK: left == 0, Detail: fmt.Sprintf("%d unfinished rotations have yet to be looked at", left),
	})
	wrote, err := a.journal.LastWrite()
	checks = append(checks, httpapi.Check{
		Name: "journal", OK: err == nil,
		Detail: fmt.Sprintf("the last write to the state directory failed at %s: mend the disk, or make room on it: %v", wrote.UTC().Format(time.RFC3339), err),
	})
	var names []string
	for name := range a.inventoried {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		checks = append(checks, httpapi.Check{
			Name: "inventory of " + name, OK: a.inventoried[name].Load(),
			Detail: "the account's service tokens have not been listed yet: see the log, and check the credential and that Cloudflare can be reached",
		})
	}
	return checks
}
