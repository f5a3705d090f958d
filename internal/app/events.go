package app

import (
	"time"

	"rotatord/internal/event"
)

// logPatience is how long an event waits for its line in the log, and in the record. A reader of the log that stalls,
// or a disk that does not answer, delays no event for longer, and is not waited for again until it keeps up.
const logPatience = time.Second

// newStream returns the stream of events. Its table has one line for each subscriber.
func (a *App) newStream() *event.Stream {
	panicked := func(subscriber, what string) {
		a.log.Error("a subscriber to events panicked: the event may be missing there", "subscriber", subscriber, "panic", what)
	}
	dropped := func(n int) {
		a.log.Error("events are missing in the log, since nothing read it for too long", "events", n)
	}
	var record *event.Subscriber
	if a.record != nil {
		record = a.record.Subscriber().Queued(logPatience, a.record.Dropped)
	}
	return event.NewStream(a.now, panicked,
		a.metrics.Subscriber(),
		record,
		event.NewLog(a.log).Queued(logPatience, dropped),
		a.outages.Subscriber(),
		a.notifier.Subscriber(),
		a.touched.Subscriber(),
		a.options.Subscriber,
	)
}

// tell publishes something that the daemon does or finds. token may be empty.
func (a *App) tell(token string, d event.Detail) { a.events.Tell(token, event.Daemon, d) }

// Tell publishes something that is known outside of the App, such as a signal.
func (a *App) Tell(by event.Actor, d event.Detail) { a.events.Tell("", by, d) }
