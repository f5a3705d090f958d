package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/config"
	"rotatord/internal/doctor"
	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/moment"
	"rotatord/internal/pending"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// driftBound is how far the wall clock may have been set since the start.
const driftBound = 5 * time.Minute

// beatBound is how long the queue may give no sign of life: it gives one every 30 s.
const beatBound = 90 * time.Second

// Tokens implements [httpapi.Source] and [admin.Daemon].
func (a *App) Tokens() []status.Token {
	tokens := a.InForce().Tokens
	all := make([]status.Token, 0, len(tokens))
	for _, t := range tokens {
		all = append(all, a.show(t))
	}
	return all
}

// ChoreAt returns when a chore of a token is due, or will be tried again; zero if there is none. It is in the
// past while the chore is in progress.
func (a *App) ChoreAt(name string) time.Time {
	seen, _ := a.engine.view(name)
	return seen.chore
}

// InForce returns the configuration in force, which must not be changed.
func (a *App) InForce() *config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config
}

// Token implements [httpapi.Source] and [admin.Daemon].
func (a *App) Token(name string) (status.Token, bool) {
	tokens := a.InForce().Tokens
	i, ok := slices.BinarySearchFunc(tokens, name, compareName)
	if !ok {
		return status.Token{}, false
	}
	return a.show(tokens[i]), true
}

// TokensAfter implements [httpapi.Source] and [admin.Daemon].
func (a *App) TokensAfter(name string, n int) []status.Token {
	tokens := a.InForce().Tokens
	i, ok := slices.BinarySearchFunc(tokens, name, compareName)
	if ok {
		i++
	}
	tokens = tokens[i:min(i+max(n, 0), len(tokens))]
	all := make([]status.Token, 0, len(tokens))
	for _, t := range tokens {
		all = append(all, a.show(t))
	}
	return all
}

func compareName(t config.Token, name string) int { return strings.Compare(t.Name, name) }

// token returns what is shown of the token with a name.
func (a *App) token(name string) status.Token {
	t, ok := a.Token(name)
	if !ok {
		return status.Token{Name: name}
	}
	return t
}

// States implements [httpapi.Source].
func (a *App) States() iter.Seq[*status.Token] {
	tokens := a.InForce().Tokens
	return func(yield func(*status.Token) bool) {
		var s status.Token
		for _, t := range tokens {
			seen, _ := a.engine.view(t.Name)
			if s = a.showState(t, seen); !yield(&s) {
				return
			}
		}
	}
}

// show returns what is shown of a token.
func (a *App) show(t config.Token) status.Token {
	seen, _ := a.engine.view(t.Name)
	s := a.showState(t, seen)
	if what, until := a.engine.waitsFor(seen); what != "" {
		s.WaitsFor, s.WaitsUntil = what, until.UTC()
	}
	s.Renews, s.RenewalError = rotation.RenewsAt(seen.token, seen.record), seen.record.Renewal.LastError
	if err := a.credentialError(t.Account); err != nil {
		s.AccountError = err.Error()
	}
	for _, sink := range t.Sinks {
		s.Mounts = append(s.Mounts, sink.Group())
		name := config.SinkName(sink)
		held := seen.record.Written[name]
		s.Sinks = append(s.Sinks, status.SinkState{Name: name, Digest: string(held.Digest), Version: held.Version, WrittenAt: held.At})
	}
	now := a.engine.now()
	s.Troubles = s.TroubleKinds(now)
	s.ToDo = slices.Concat(putBack(s), a.mendLast(s, seen), a.toDo(t, seen), s.MoreToDo(now))
	return s
}

// showState returns what the metrics show of a token.
func (a *App) showState(t config.Token, seen scheduled) status.Token {
	record, due := seen.record, seen.due
	s := status.Token{
		Name: t.Name, Account: t.Account, TokenID: record.TokenID, ClientID: record.Facts.ClientID,
		Strategy: "rotate", Schedule: t.Schedule.String(), TimeZone: t.Schedule.Location().String(),
		State: shownState(record), Reason: string(due.Reason), Next: due.At.UTC(),
		Known: record.Facts.ID != "", Enabled: record.Facts.Enabled,
		Expiry: record.Facts.ExpiresAt, LastSeen: record.Facts.LastSeenAt,
		Failures: record.Failures + int(seen.unrecorded),
		Doubt:    showDoubt(record), GraceEnd: record.GraceEnd(), Freeze: due.Freeze,
	}
	if due.Unscheduled {
		s.Next = time.Time{}
	}
	s.LastError, s.LastCause, _ = a.lastError(seen)
	s.Sharing, s.Unread = a.showSharing(seen), a.isUnread(seen)
	s.Pause = showPause(a.engine.rotator.PauseOf(t.Name))
	if t.Partner != "" {
		showPair(&s, t, record)
	}
	if record.Last != nil {
		s.LastSuccess, s.LastReplica, s.Unverified = record.Last.At, record.Last.Replica, record.Last.Unverified
	}
	a.showChores(&s, t, seen)
	return s
}

// putBack returns the commands that put back what a sink does not hold any more.
func putBack(s status.Token) (all []status.ToDo) {
	for _, f := range s.Findings {
		if f.PutBack != "" {
			all = append(all, status.ToDo{Command: f.PutBack, Does: "Put the secret back, if no person has rotated it by hand."})
		}
	}
	return all
}

// lastError returns the last error of a token, its cause, and the name of the sink that it is about; empty if it is about none.
func (a *App) lastError(seen scheduled) (text, cause, sink string) {
	if err := seen.unrecordedErr; err != nil {
		return err.Error(), rotation.CauseOr(err, "ledger"), rotation.SinkOf(err)
	}
	if err := cmp.Or(seen.unreadable, a.sharing.errNotJoined()); err != nil {
		return err.Error(), "ledger", ""
	}
	return seen.record.LastError, seen.record.LastCause, seen.record.LastSink
}

// mendLast returns what mends the clock, or the sink that the last error is about: it is the same as for the check of that,
// which may not have looked yet.
func (a *App) mendLast(s status.Token, seen scheduled) []status.ToDo {
	switch {
	case s.Failures == 0:
		return nil
	case s.LastCause == "clock":
		return []status.ToDo{{Command: "timedatectl", Does: "The clock of this host differs from Cloudflare's: have a time service set it right. On Kubernetes it is the clock of the node."},
			{Command: "rotatord rotate " + s.Name, Does: "Then try it now. The next try comes by itself within ten minutes, or within two hours if the clock was ahead."}}
	}
	_, _, failed := a.lastError(seen)
	for i, sink := range s.Sinks {
		if sink.Name != failed {
			continue
		}
		c := status.Check{Name: status.CheckSink, Subject: s.Mounts[i], Reason: s.LastCause}
		if strings.HasPrefix(c.Subject, "vault:") && slices.Contains([]string{"sealed", "unreachable", "timeout", "server_error"}, c.Reason) {
			c.Name, c.Subject = status.CheckVault, ""
		}
		c.Place = placeOf(c, a.InForce())
		return status.StepsOf(c)
	}
	return nil
}

// accountOf returns the account with a name; nil if no token is in it.
func (a *App) accountOf(name string) *account {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.accounts[name]
}

// showChores shows the chores of a token, and what a listing showed.
func (a *App) showChores(s *status.Token, t config.Token, seen scheduled) {
	record := seen.record
	if t.Replace {
		s.Strategy = "replace"
	}
	showDanger(s, record, a.engine.now())
	s.Waiting = seen.waiting
	s.Gone, s.Outside, s.Verifies = seen.gone, record.Outside, t.Verify != nil
	s.Overtaken = showOvertaken(record)
	a.showWatch(s, t, seen)
	a.showHooks(s, seen)
	if o := record.Order; o != nil {
		s.Order = &status.Order{Since: o.Since, By: o.By, RevokeNow: o.RevokeNow, Left: o.Left}
	}
	s.Replaced = len(record.Replaced)
	for _, old := range record.Replaced {
		s.ReplacedError = cmp.Or(s.ReplacedError, old.LastError)
	}
	s.Deletions = deletionsOf(record, seen.token.Sinks)
	if work := record.Work; work != nil && work.Verification.Probes > 0 {
		v := work.Verification
		s.Verification = &status.Verification{Since: v.Since, Probes: v.Probes, Refused: v.Refused(seen.token.VerifyWithin, a.now()), Error: v.Error}
	}
}

// deletionsOf returns when which of a token's sinks deletes what it holds. The record may still have others, from an earlier
// configuration.
func deletionsOf(record rotation.Record, sinks []rotation.Sink) (all []status.Deletion) {
	if len(record.Deletes) == 0 { // nearly always, so no name need be made
		return nil
	}
	for _, sink := range sinks {
		name := sink.Name()
		if at := record.Deletes[name]; !at.IsZero() {
			all = append(all, status.Deletion{Sink: name, At: at})
		}
	}
	return all
}

// showHooks shows the hooks that follow the last rotation.
func (a *App) showHooks(s *status.Token, seen scheduled) {
	after := seen.record.After
	if after == nil {
		return
	}
	for _, h := range after.Hooks {
		if !seen.token.HasHook(h.Name) {
			continue
		}
		shown := status.Hook{Name: h.Name, State: "waits", DoneAt: h.DoneAt, Since: h.Since, Attempts: h.Attempts, Failures: h.Failures, Replaced: h.Replaced, LastError: h.LastError}
		switch {
		case !h.Owed():
			shown.State = "done"
		case h.Runner != nil:
			shown.State = "running"
		case h.Failures > 0:
			shown.State = "failing"
		}
		if h.Owed() {
			shown.Next = a.engine.rotator.HookAt(seen.token.Name, h)
			s.HooksOwed = moment.MinNonZero(s.HooksOwed, h.Since)
		}
		s.Hooks = append(s.Hooks, shown)
	}
}

// showWatch shows what the watch has found.
func (a *App) showWatch(s *status.Token, t config.Token, seen scheduled) {
	record := seen.record
	if record.Step != rotation.StepIdle {
		return // the rotation in progress writes all sinks
	}
	if refused := record.RefusedInUse; refused != nil && seen.token.VerifyEvery > 0 {
		s.RefusedInUse = &status.RefusedInUse{Since: refused.Since, Error: refused.Error}
	}
	if a.InForce().WatchEvery == 0 {
		return
	}
	s.Findings = findingsOf(record, t.Sinks)
	if len(s.Findings) > 0 && t.Restore {
		s.NotRestored = event.RestoreText(record.Restoring.Refused)
		if record.Restoring.Error != "" {
			s.NotRestored += ": " + record.Restoring.Error
		}
	}
	if at := record.Restoring.At; len(at) > 0 && !record.Restoring.Open {
		s.RestoredAt = at[len(at)-1]
	}
}

// findingsOf returns what the watch has found in which of a token's sinks.
func findingsOf(record rotation.Record, sinks []config.Sink) (all []status.Finding) {
	if len(record.Findings) == 0 { // nearly always, so no name need be made
		return nil
	}
	for _, sink := range sinks {
		name := config.SinkName(sink)
		f, found := record.Findings[name]
		if !found {
			continue
		}
		want := record.Written[name]
		shown := status.Finding{
			Sink: name, Kind: string(f.Kind), What: findingText[f.Kind], Since: f.Since, Digest: string(f.Digest), Version: f.Version,
			WrittenAt: f.WrittenAt, WantDigest: string(want.Digest), WantVersion: want.Version, Error: f.Error,
		}
		versioned, keeps := sink.(config.Versioned)
		lost := f.Kind == rotation.FoundGone || f.Kind == rotation.FoundDestroyed || f.Kind == rotation.FoundUnreadable || f.Kind == rotation.FoundNeverWritten
		if keeps && want.Version > 0 && !lost && record.MayPutBack() {
			shown.PutBack = versioned.PutBack(want.Version, f.Kind == rotation.FoundDeleted && f.Version == want.Version)
		}
		all = append(all, shown)
	}
	return all
}

// findingText says in words what a kind of finding is.
var findingText = map[rotation.FindingKind]string{
	rotation.FoundChanged:      "it holds a secret that rotatord never wrote there",
	rotation.FoundRolledBack:   "it holds an earlier secret again",
	rotation.FoundDeleted:      "the version that it holds was deleted",
	rotation.FoundDestroyed:    "the version that it held was destroyed",
	rotation.FoundGone:         "there is nothing in its place, and no earlier version",
	rotation.FoundNoSecret:     "the field of the client secret is missing, or is not a text",
	rotation.FoundNeverWritten: "it was added after the last rotation and was never written",
	rotation.FoundUnreadable:   "it could not be read several times in a row",
}

// showDanger shows since when a reissue is owed, and until when consumers have a secret that works.
func showDanger(s *status.Token, record rotation.Record, now time.Time) {
	s.CutOffAt, s.Emergency = record.CutOffAt(), record.Emergency(now)
	if record.Lost != nil {
		s.ReissueOwed = record.Lost.Since
	}
}

// showOvertaken shows why a sealed secret is not delivered; nil if it was not overtaken.
func showOvertaken(record rotation.Record) *status.Overtaken {
	if record.Work == nil || record.Work.Overtaken == nil {
		return nil
	}
	o := record.Work.Overtaken
	return &status.Overtaken{Since: o.Since, Sinks: slices.Sorted(maps.Keys(o.Sinks)), ChangedAt: o.ChangedAt, Gone: o.Gone, Tried: o.Tried}
}

// toDo returns what an operator can do about a token; nil if nothing has to be done.
func (a *App) toDo(t config.Token, seen scheduled) (all []status.ToDo) {
	record := seen.record
	known := record.ServiceTokens()
	now := rotation.Troubles{
		Gone:     seen.gone,
		Disabled: slices.ContainsFunc(known, func(f rotation.TokenFacts) bool { return !f.Enabled }),
		Expired:  slices.ContainsFunc(known, func(f rotation.TokenFacts) bool { return f.Expired(a.engine.now()) }),
		Pause:    a.engine.rotator.PauseOf(t.Name), PausedAll: !a.engine.rotator.PausedByName(t.Name), Freeze: seen.due.Freeze, At: a.engine.now(),
	}
	if seen.due.Reason != rotation.DueFreeze { // a freeze that is over has deferred it
		now.Freeze = ""
	}
	for _, exit := range a.engine.rotator.Exits(seen.token, record, now) {
		all = append(all, status.ToDo{Command: exit.Command, Does: exit.Does})
	}
	return all
}

// showPair shows what matters of two service tokens: the end that comes first, the last use, and whether both
// are enabled.
func showPair(s *status.Token, t config.Token, record rotation.Record) {
	s.Strategy, s.Spare = "pair", t.Partner
	if record.TokenID == t.Partner {
		s.Spare = t.ID
	}
	spare := record.FactsOf(s.Spare)
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

// showDoubt shows what is known about a rotation in doubt; nil if there is none.
func showDoubt(record rotation.Record) *status.Doubt {
	d, work := record.Doubt, record.Work
	if d == nil || work == nil {
		return nil
	}
	facts := record.Facts
	if of := record.FactsOf(work.TokenID); of.ID != "" {
		facts = of
	}
	shown := &status.Doubt{
		Reason: d.Reason, Detail: d.Detail, Since: d.Since, RotationID: work.RotationID,
		TokenID: work.TokenID, Spare: work.Strategy() == rotation.Pair, Makes: work.NewName(),
		AskedAt: work.IntentAt, UpdatedBefore: work.Before.UpdatedAt, UpdatedNow: facts.UpdatedAt,
		CarriedOut: d.CarriedOut || d.Answered(), AnswerSealed: d.Sealed, Deliverable: d.MayDeliver(), OldWorksUntil: d.OldWorksUntil, Extensions: d.Extensions,
		Decision: d.Decision, DecidedAt: d.DecidedAt,
	}
	if work.LeavesCurrentInUse() {
		shown.OldWorksUntil = time.Time{} // no consumer uses it
	}
	return shown
}

// Resolve implements [admin.Daemon].
func (a *App) Resolve(ctx context.Context, name string, how rotation.Resolution) (admin.Outcome, error) {
	seen, _ := a.engine.view(name)
	before := seen.record
	after, verdict, err := a.engine.resolve(ctx, name, how)
	if err != nil && (verdict.Reason == "" || errors.Is(err, rotation.ErrLedger)) {
		return admin.Outcome{}, err
	}
	o := admin.Outcome{Resolved: verdict.Resolved, Delivers: verdict.Deliver, Reason: verdict.Reason}
	if err != nil {
		o.Problem = err.Error()
	}
	o.Token = a.token(name)
	if after.Doubt == nil { // what was known until now
		after.Work, after.Doubt = before.Work, before.Doubt
	}
	if doubt := showDoubt(after); doubt != nil {
		o.Doubt = *doubt
		o.Doubt.CarriedOut = doubt.CarriedOut || verdict.CarriedOut
		o.Doubt.Decision, o.Doubt.DecidedAt = verdict.Reason, time.Now().UTC()
	}
	return o, nil
}

// shownState returns one of [status.States].
func shownState(record rotation.Record) string {
	if record.Step == rotation.StepSealed && record.Work.Overtaken != nil {
		return status.Overtook
	}
	return stateName(record.Step)
}

func stateName(s rotation.Step) string {
	if s == rotation.StepIdle {
		return "idle"
	}
	return string(s)
}

// Pending implements [httpapi.Source] and [admin.Daemon].
func (a *App) Pending() (n int, oldest time.Time) {
	if a.sharing.errNotJoined() != nil { // no rotation is known
		return 0, time.Time{}
	}
	for _, s := range a.state.pending.Noted() {
		switch waits, err := a.inHand(s); {
		case err != nil:
			a.log.Error("the journal cannot be read", "error", err)
			return 0, time.Time{}
		case waits:
			n++
			oldest = moment.MinNonZero(oldest, s.At)
		}
	}
	// And the secrets that could not be sealed.
	return n + a.engine.rotator.Unsealed(), oldest
}

// inHand reports whether a rotation waits for a sealed secret. An answer that failed validation stays sealed for an operator
// after its doubt was resolved: then none does. The ledger is read only for a token that is not configured any more, and all
// of it only for a file that is too damaged to name its token.
func (a *App) inHand(s pending.Sealed) (bool, error) {
	waits := func(r rotation.Record) bool {
		return r.Work != nil && r.Work.RotationID == s.RotationID && r.Step != rotation.StepStored // such a secret is in every sink
	}
	if s.Token == "" {
		all, err := a.state.ledger.All(context.Background())
		return slices.ContainsFunc(all, waits), err
	}
	if seen, ok := a.engine.view(s.Token); ok && seen.unreadable == nil {
		return waits(seen.record), nil
	}
	record, err := a.state.ledger.Load(context.Background(), s.Token)
	return waits(record), err
}

// LookAtVault implements [admin.Daemon].
func (a *App) LookAtVault(ctx context.Context) []admin.Finding {
	var all []admin.Finding
	for _, f := range doctor.Sinks(ctx, a.InForce(), a.session) {
		all = append(all, admin.Finding{Level: string(f.Level), Code: string(f.Code), Subject: f.Subject, Message: f.Message, Advice: f.Advice})
	}
	return all
}

// Live implements [httpapi.Source]: can the daemon schedule?
func (a *App) Live() []httpapi.Check {
	silent := time.Since(a.engine.started) - time.Duration(a.engine.beat.Load()) // monotonic: independent of the wall clock
	clock := a.clockFault()
	return []httpapi.Check{{
		Name: "scheduler", OK: silent < beatBound,
		Detail: fmt.Sprintf("no sign of life for %s: restart the daemon", silent.Round(time.Second)),
	}, {
		Name: "clock", OK: clock == "", Detail: clock,
	}}
}

// clockFault says that the wall clock was set, or that the machine slept; empty if neither happened.
func (a *App) clockFault() string {
	drift := a.engine.clock.Drift()
	if drift.Abs() < driftBound {
		return ""
	}
	way := "ahead"
	if drift < 0 {
		way = "back"
	}
	return fmt.Sprintf("since the start the wall clock went %s by %s against the monotonic one: it was set, or the machine slept. "+
		"Restart the daemon once the clock is right", way, drift.Abs().Round(time.Second))
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
	present := a.state.disk.Present()
	checks = append(checks, httpapi.Check{Name: "ledger", OK: present == nil, Detail: fmt.Sprint(present)})
	checks = append(checks, a.readyToWrite())
	if a.sharing != nil {
		checks = append(checks, a.sharing.ready()...)
	}
	for _, c := range a.ahead.Results() {
		switch c.Name {
		case status.CheckVault, status.CheckSink, status.CheckCloudflare: // the others are below
			checks = append(checks, httpapi.Check{Name: c.Title(), OK: c.OK, Detail: c.Detail})
		}
	}
	var names []string
	a.mu.Lock()
	accounts := maps.Clone(a.accounts)
	a.mu.Unlock()
	for name := range accounts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		unreadable := accounts[name].client.CredentialError()
		checks = append(checks, httpapi.Check{
			Name: "credential of " + name, OK: unreadable == nil,
			Detail: fmt.Sprintf("none of the account's tokens can be rotated: %v", unreadable),
		}, httpapi.Check{
			Name: "inventory of " + name, OK: accounts[name].inventoried.Load(),
			Detail: "the account's service tokens have not been listed yet: see the log, and check the credential and that Cloudflare can be reached",
		})
	}
	return checks
}

// readyToWrite says whether the state directory can be written, as the last write showed. After the start it
// is not ready until something was written.
func (a *App) readyToWrite() httpapi.Check {
	wrote, err := a.state.disk.LastWrite()
	check := httpapi.Check{Name: "journal", OK: err == nil && !wrote.IsZero(), Detail: "the state directory was not written to yet"}
	if rotation.CauseOf(err) == "hangs" {
		check.Detail = "the state directory: " + err.Error()
	} else if err != nil {
		check.Detail = fmt.Sprintf("the last write to the state directory failed at %s: repair the disk, or free space on it: %v", wrote.UTC().Format(time.RFC3339), err)
	} else if hangs, failing := a.ahead.Failing(status.CheckStateDirectory, ""); failing {
		check.OK, check.Detail = false, "the state directory cannot be written: "+hangs.Detail
	}
	return check
}
