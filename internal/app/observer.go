package app

import (
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// logPatience is how long an event waits for its line in the log. A reader of the log that stalls does not
// hold up rotations for longer.
const logPatience = 100 * time.Millisecond

// newStream returns the stream of events. Its table has one line for each subscriber.
func (a *App) newStream() *event.Stream {
	return event.NewStream(a.now, func(subscriber, what string) {
		a.log.Error("a subscriber to events panicked: the event may be missing there", "subscriber", subscriber, "panic", what)
	},
		a.metrics.Subscriber(),
		event.NewLog(a.log).Queued(logPatience, func(n int) {
			a.log.Error("events are missing in the log, since nothing read it for too long", "events", n)
		}),
		a.outages.Subscriber(),
		a.options.Subscriber,
	)
}

// tell publishes something that the daemon does or finds. token may be empty.
func (a *App) tell(token string, d event.Detail) { a.events.Tell(token, event.Daemon, d) }

// Tell publishes something that is known outside of the App, such as a signal.
func (a *App) Tell(by event.Actor, d event.Detail) { a.events.Tell("", by, d) }

// fromCore hands on what the rotation core tells: events to the stream, and records to whoever shows them.
type fromCore struct {
	events *event.Stream
	saved  []func(rotation.Record)
}

// Observe implements [rotation.Observer].
func (f fromCore) Observe(e rotation.Event) {
	if reached, ok := e.(rotation.Reached); ok {
		for _, saved := range f.saved {
			saved(reached.Record)
		}
		return
	}
	token, by, detail := translate(e, time.Now())
	f.events.Tell(token, by, detail)
}

// translate puts an event of the core into the words of the stream.
func translate(e rotation.Event, now time.Time) (token string, by event.Actor, d event.Detail) {
	by = event.Daemon
	switch e := e.(type) {
	case rotation.PhaseEnded:
		return e.Token, by, event.PhaseEnded{Phase: event.Phase(e.Phase), Duration: e.Duration, Err: e.Err}
	case rotation.SinkWritten:
		return e.Token, by, event.SinkWrite{Sink: e.Sink, Err: e.Err}
	case rotation.Attempted:
		return e.Token, actorOf(e.Trigger), ended(e, now)
	case rotation.DoubtJudged:
		return e.Token, by, event.Verdict{RotationID: e.RotationID, Reason: e.Reason, Before: e.Before, Again: e.Again}
	case rotation.DoubtResolved:
		return e.Token, by, event.Resolution{RotationID: e.RotationID, Reason: e.Reason, After: e.After}
	case rotation.GraceExtended:
		return e.Token, by, event.GraceExtension{RotationID: e.RotationID, Until: e.Until, Err: e.Err}
	case rotation.OvertakenEnded:
		return e.Token, by, event.OvertakenEnd{RotationID: e.RotationID, Reason: e.Reason}
	case rotation.SlotsMissed:
		return e.Token, by, event.Missed{Count: e.Count, Frozen: e.Frozen, GivenUp: e.GivenUp}
	case rotation.ClockHealed:
		return e.Token, by, event.Healed{What: e.What}
	case rotation.Stuck:
		return e.Token, by, event.RotationStuck{Err: e.Err}
	case rotation.SealFailed:
		return e.Token, by, event.SealFailure{RotationID: e.RotationID, Err: e.Err}
	case rotation.Adopted:
		return e.Token, by, event.Adoption{TokenID: e.TokenID}
	case rotation.Probed:
		results := map[rotation.Probe]event.ProbeResult{rotation.ProbeGood: event.ProbeGood, rotation.ProbeBad: event.ProbeBad}
		result := event.ProbeUnknown
		if known, ok := results[e.Probe]; ok {
			result = known
		}
		return e.Token, by, event.Probe{RotationID: e.RotationID, Result: result, Err: e.Err}
	case rotation.Renewed:
		return e.Token, by, event.Renewal{TokenID: e.TokenID, ExpiresAt: e.ExpiresAt, Err: e.Err}
	case rotation.ReplacedDeleted:
		return e.Token, by, event.Deletion{TokenID: e.TokenID, Err: e.Err}
	case rotation.RotatedOutside:
		return e.Token, event.Actor{Cause: event.ByOutside}, event.OutsideRotation{TokenID: e.TokenID, ChangedAt: e.At, Heals: e.RotatesAgain}
	case rotation.ChangedOutside:
		return e.Token, event.Actor{Cause: event.ByOutside}, event.OutsideChange{TokenID: e.TokenID, ChangedAt: e.At}
	case rotation.VersionDeletes:
		return e.Token, by, event.VersionDeletion{Sink: e.Sink, DeletesAt: e.At, NeededUntil: e.NeededUntil}
	}
	return "", by, event.RotationStuck{}
}

// actorOf returns why a rotation began.
func actorOf(t rotation.Trigger) event.Actor {
	switch t {
	case rotation.TriggerManual:
		return event.Operator("")
	case rotation.TriggerRetry:
		return event.Actor{Cause: event.ByRetry}
	case rotation.TriggerRecovery:
		return event.Actor{Cause: event.ByRecovery}
	case rotation.TriggerCreate:
		return event.Daemon
	default:
		return event.Actor{Cause: event.BySchedule}
	}
}

// ended says how a token is after an attempt.
func ended(e rotation.Attempted, now time.Time) event.RotationEnded {
	record := e.Record
	d := event.RotationEnded{
		RotationID: e.RotationID, Trigger: string(e.Trigger), Result: event.Result(e.Result), Reason: e.Reason, Err: e.Err, Duration: e.Duration, Lag: e.Lag,
		Creates:   e.Trigger == rotation.TriggerCreate || record.Work != nil && record.Work.CreateName != "",
		Overtaken: e.Reason == rotation.ReasonOvertaken, Step: string(record.Step), NextTry: record.NotBefore, Failures: record.Failures,
	}
	if last := record.Last; e.Result == rotation.ResultSuccess {
		d.Slot, d.Digest, d.GraceEndsAt, d.MakesUp = last.Slot, string(last.Digest), last.GraceEndsAt, last.Trigger == rotation.TriggerRecovery
	}
	if record.Lost != nil {
		d.OwedSince, d.CutOffAt, d.KeptAlive = record.Lost.Since, record.CutOffAt(), record.ExtendsLost()
		d.CutOff = !d.CutOffAt.After(now)
	}
	return d
}
