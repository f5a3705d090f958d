package app

import (
	"context"
	"log/slog"
	"time"

	"rotatord/internal/rotation"
)

// observers tells several observers, in order. nil ones are left out.
func observers(all ...rotation.Observer) rotation.Observer {
	var some fanOut
	for _, o := range all {
		if o != nil {
			some = append(some, o)
		}
	}
	return some
}

type fanOut []rotation.Observer

func (f fanOut) Observe(e rotation.Event) {
	for _, o := range f {
		o.Observe(e)
	}
}

// logObserver writes what happens to the log. The line of a successful rotation is the
// audit line.
type logObserver struct{ log *slog.Logger }

// Observe implements [rotation.Observer].
func (l logObserver) Observe(e rotation.Event) {
	switch e := e.(type) {
	case rotation.Attempted:
		l.attempted(e)
	case rotation.DoubtJudged:
		if e.Reason != e.Before { // each look at the world comes to a verdict; a new one is news
			attrs := []any{"token", e.Token, "rotation_id", e.RotationID, "reason", e.Reason}
			if !e.Again.IsZero() {
				attrs = append(attrs, "looking_again", e.Again)
			}
			l.log.Warn("doubt judged", attrs...)
		}
	case rotation.GraceExtended:
		if e.Err != nil {
			l.log.Error("the old secret's grace could not be extended, and consumers have nothing else yet",
				"token", e.Token, "rotation_id", e.RotationID, "error", e.Err)
		} else {
			l.log.Warn("the old secret's grace was extended, since consumers have nothing else yet",
				"token", e.Token, "rotation_id", e.RotationID, "until", e.Until)
		}
	case rotation.Probed:
		switch e.Probe {
		case rotation.ProbeGood:
			l.log.Info("the new secret is accepted where it was tried", "token", e.Token, "rotation_id", e.RotationID)
		case rotation.ProbeBad:
			l.log.Error("the new secret is refused where it was tried: the old one is kept alive, and nothing is rotated until the new one is accepted or somebody decides",
				"token", e.Token, "rotation_id", e.RotationID, "error", e.Err)
		default:
			l.log.Warn("the new secret could not be tried, and nothing speaks against it", "token", e.Token, "rotation_id", e.RotationID, "error", e.Err)
		}
	case rotation.Adopted:
		l.log.Warn("a service token of the name that was to be made is there, and was adopted", "token", e.Token, "token_id", e.TokenID)
	case rotation.Renewed:
		if e.Err != nil {
			l.log.Error("the service token could not be renewed", "token", e.Token, "token_id", e.TokenID, "expires", e.ExpiresAt, "error", e.Err)
		} else {
			l.log.Info("the service token was renewed", "token", e.Token, "token_id", e.TokenID, "expires", e.ExpiresAt)
		}
	case rotation.ReplacedDeleted:
		if e.Err != nil {
			l.log.Error("a service token that was replaced could not be deleted", "token", e.Token, "token_id", e.TokenID, "error", e.Err)
		} else {
			l.log.Info("a service token that was replaced was deleted", "token", e.Token, "token_id", e.TokenID)
		}
	case rotation.RotatedOutside:
		l.log.Error("somebody else rotated the service token: the secret in the sinks is dead, or will be when the grace that they gave it is over",
			"token", e.Token, "token_id", e.TokenID, "at", e.At, "made_up_for", e.RotatesAgain)
	case rotation.ChangedOutside:
		l.log.Warn("somebody else changed the service token", "token", e.Token, "token_id", e.TokenID, "at", e.At)
	case rotation.OvertakenEnded:
		l.log.Warn("it was decided about a sealed secret that was overtaken, or whose service token is gone", "token", e.Token, "rotation_id", e.RotationID, "reason", e.Reason)
	case rotation.VersionDeletes:
		attrs := []any{"token", e.Token, "sink", e.Sink, "deleted_at", e.At}
		if !e.NeededUntil.IsZero() {
			attrs = append(attrs, "needed_until", e.NeededUntil)
		}
		l.log.Error("the sink will delete the new version by itself before the next rotation: consumers will find nothing then. Switch delete_version_after off", attrs...)
	case rotation.DoubtResolved:
		l.log.Warn("doubt resolved", "token", e.Token, "rotation_id", e.RotationID, "reason", e.Reason, "after", e.After.Round(time.Millisecond).String())
	case rotation.Stuck:
		l.log.Warn("the token could not be worked on", "token", e.Token, "error", e.Err)
	case rotation.SlotsMissed:
		l.log.Warn("slots passed without a rotation of their own", "token", e.Token, "missed", e.Count, "frozen", e.Frozen, "made_up_for", !e.GivenUp)
	case rotation.ClockHealed:
		l.log.Warn("the ledger had times that only a clock which was ahead can have put there: they are taken out", "token", e.Token, "what", e.What)
	case rotation.SealFailed:
		l.log.Error("a new secret could not be sealed on disk and is held in memory alone: do not stop the daemon, free the disk",
			"token", e.Token, "rotation_id", e.RotationID, "error", e.Err)
	case rotation.PhaseEnded:
		if l.log.Enabled(context.Background(), slog.LevelDebug) {
			l.log.Debug("step ended", "token", e.Token, "step", e.Phase, "duration", e.Duration.String(), "error", e.Err)
		}
	}
}

func (l logObserver) attempted(e rotation.Attempted) {
	attrs := []any{
		"token", e.Token, "rotation_id", e.RotationID, "trigger", e.Trigger, "result", e.Result,
		"duration", e.Duration.Round(time.Millisecond).String(),
	}
	if e.Result == rotation.ResultSuccess {
		attrs = append(attrs, "slot", e.Record.Last.Slot, "digest", e.Record.Last.Digest)
		if end := e.Record.Last.GraceEndsAt; !end.IsZero() {
			attrs = append(attrs, "grace_ends_at", end)
		}
		l.log.Info("rotated", attrs...)
		return
	}
	attrs = append(attrs, "reason", e.Reason, "error", e.Err)
	if next := e.Record.NotBefore; !next.IsZero() { // an operator's rotation is not tried again by itself
		attrs = append(attrs, "next_try", next)
	}
	attrs = append(attrs, "step", stateName(e.Record.Step))
	if e.Record.Lost != nil {
		attrs = append(attrs, "owed_since", e.Record.Lost.Since)
	}
	l.failed(e, attrs)
}

// failed writes the line of an attempt that did not succeed.
func (l logObserver) failed(e rotation.Attempted, attrs []any) {
	switch {
	case e.Record.Lost != nil && e.Record.Step == rotation.StepIdle:
		l.owed(e.Record, attrs)
	case e.Result == rotation.ResultInDoubt:
		l.log.Error("nobody knows whether the secret was rotated: the token is in doubt, and the old secret is left alone", attrs...)
	case e.Result == rotation.ResultSkipped:
		l.log.Warn("rotation skipped: nothing was sent to Cloudflare", attrs...)
	case e.Reason == rotation.ReasonOvertaken:
		l.log.Error("a new secret was overtaken and is not delivered: another one is in the sinks, and an operator has to decide: rotatord status "+e.Token, attrs...)
	case e.Record.Step != rotation.StepIdle:
		l.log.Error("a new secret waits to be delivered", attrs...)
	default:
		l.log.Warn("rotation failed: Cloudflare did not carry it out", attrs...)
	}
}

// owed writes the line of an attempt that could not make up for a lost secret. Nothing is in hand, but
// consumers have only the old secret, or none: that is more than a failed rotation.
func (l logObserver) owed(record rotation.Record, attrs []any) {
	const what = "a lost secret could not be made up for yet: "
	until := record.CutOffAt()
	switch {
	case !until.After(time.Now()):
		l.log.Error(what+"consumers have no secret that works", append(attrs, "since", until)...)
	case record.ExtendsLost():
		l.log.Error(what+"the old secret is kept alive", append(attrs, "old_works_until", until)...)
	default:
		l.log.Error(what+"consumers have the old secret, which is not extended", append(attrs, "old_works_until", until)...)
	}
}
