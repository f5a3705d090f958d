package event

import (
	"context"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"
)

// Subscriber is told of events. For each kind it has a handler, or ignores the kind by name: [Subscriber.Missing]
// names the kinds for which it has neither. Create it with [NewSubscriber].
type Subscriber struct {
	name     string
	all      func(Event) // instead of handlers
	handlers map[reflect.Type]func(Event)
	ignored  map[Kind]bool
	skipped  func(Event) bool // may be nil

	queued   bool
	patience time.Duration
	dropped  func(n int)
}

// NewSubscriber returns a subscriber that handles what the parts say, inline.
func NewSubscriber(name string, parts ...Part) *Subscriber {
	s := &Subscriber{name: name, handlers: make(map[reflect.Type]func(Event)), ignored: make(map[Kind]bool)}
	for _, part := range parts {
		part(s)
	}
	return s
}

// Part is a part of a subscriber: what it does with some events.
type Part func(*Subscriber)

// On handles all events whose detail is a D.
func On[D Detail](handle func(Event, D)) Part {
	return func(s *Subscriber) {
		s.handlers[reflect.TypeFor[D]()] = func(e Event) { handle(e, e.Detail.(D)) }
	}
}

// All handles the events of all kinds, but for those that are ignored.
func All(handle func(Event)) Part { return func(s *Subscriber) { s.all = handle } }

// Ignore leaves out events of these kinds, also where there is a handler for their detail.
func Ignore(kinds ...Kind) Part {
	return func(s *Subscriber) {
		for _, k := range kinds {
			s.ignored[k] = true
		}
	}
}

// Unless leaves out the events for which skip is true. It must be fast, since publishers call it.
func Unless(skip func(Event) bool) Part { return func(s *Subscriber) { s.skipped = skip } }

// Queued gives the subscriber a goroutine of its own and a bounded queue, and returns it. Publish waits
// for it for that time at most. dropped is told, before the next event, how many were dropped because
// the queue was full; it may be nil.
func (s *Subscriber) Queued(patience time.Duration, dropped func(n int)) *Subscriber {
	s.queued, s.patience, s.dropped = true, patience, dropped
	return s
}

// Name returns the subscriber's name.
func (s *Subscriber) Name() string { return s.name }

// Ignores returns the kinds that the subscriber ignores by name.
func (s *Subscriber) Ignores() []Kind { return slices.Sorted(maps.Keys(s.ignored)) }

// Handle gives the subscriber one event.
func (s *Subscriber) Handle(e Event) {
	if handle := s.handlerOf(e); handle != nil {
		handle(e)
	}
}

// handlerOf returns what handles an event; nil if the subscriber leaves it out.
func (s *Subscriber) handlerOf(e Event) func(Event) {
	if s.ignored[e.Kind] || s.skipped != nil && s.skipped(e) {
		return nil
	}
	if handle := s.handlers[reflect.TypeOf(e.Detail)]; handle != nil {
		return handle
	}
	return s.all
}

// Missing returns the kinds that the subscriber neither handles nor ignores by name. A test of each subscriber
// wants none.
func (s *Subscriber) Missing() (missing []Kind) {
	for _, d := range definitions {
		if s.all == nil && s.handlers[reflect.TypeOf(d.Of)] == nil && !s.ignored[d.Kind] {
			missing = append(missing, d.Kind)
		}
	}
	return missing
}

// NewLog returns the subscriber that writes events to the log. The line of a successful rotation is the
// audit line. It leaves out what has never been in the log, and what is logged where it is found.
func NewLog(log *slog.Logger) *Subscriber {
	return NewSubscriber("log",
		Ignore(DoubtUnchanged, // each look at a token in doubt comes to a verdict; only a new one is news
			SinkWritten, SinkFailed, // the end of the attempt says so
			RequestLeaves,                             // it is only in the record
			CredentialUnreadable, CredentialReadable), // package cloudflare logs it when it reads the file
		Unless(func(e Event) bool { // the end of a step is for debugging, and there are a dozen in each rotation
			return !slices.ContainsFunc(partsOf(e), func(part Event) bool { return log.Enabled(context.Background(), part.Level()) })
		}),
		All(func(e Event) {
			for _, part := range partsOf(e) {
				logOne(log, part)
			}
		}))
}

func logOne(log *slog.Logger, e Event) {
	ctx, level := context.Background(), e.Level()
	if log.Enabled(ctx, level) {
		log.Log(ctx, level, e.Message(), e.Attrs()...)
	}
}

// partsOf returns an event for each line that the log has of it.
func partsOf(e Event) []Event {
	if d, ok := e.Detail.(interface{ parts(Event) []Event }); ok {
		return d.parts(e)
	}
	return []Event{e}
}
