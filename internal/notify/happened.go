package notify

import (
	"sync"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/printable"
	"rotatord/internal/status"
)

// happened is something of which no state remains.
type happened struct {
	Kind     event.Kind      `json:"kind"`
	Topic    string          `json:"topic"`
	Severity status.Severity `json:"severity"`
	Token    string          `json:"token,omitempty"`
	At       time.Time       `json:"at"`
	What     string          `json:"what"`
}

// key is the key of the item that tells it. No other item has it.
func (h happened) key() string {
	return "happened/" + string(h.Kind) + "/" + h.Token + "/" + h.At.Format(time.RFC3339Nano)
}

// happenings are the kinds of event that are told, with their topics. All others only have the state compared.
var happenings = map[event.Kind]string{
	event.ChangedOutside: config.TopicOutsideChange,
	event.RotatedOutside: config.TopicOutsideChange,
	event.SinkRestored:   config.TopicOutsideChange,
	event.SecretsLost:    config.TopicStranded,
	event.Failed:         config.TopicFailing,
}

// maxSentence is the longest text of what happened, in bytes.
const maxSentence = 500

// happening returns what an event tells, and false if it is not told.
func happening(e event.Event) (happened, bool) {
	topic, told := happenings[e.Kind]
	if !told {
		return happened{}, false
	}
	severity := status.Warning
	if e.Severity == event.Critical {
		severity = status.Critical
	}
	return happened{e.Kind, topic, severity, e.Token, e.At.UTC(), printable.Line(e.Line(), maxSentence)}, true
}

// maxHappened is how many of them are kept, in the queue and in a book. The oldest are dropped.
const maxHappened = 200

// eventQueue has what happened until it is written down.
type eventQueue struct {
	mu  sync.Mutex
	all []happened
}

func (q *eventQueue) put(h happened) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all = bounded(append(q.all, h))
}

func (q *eventQueue) take() []happened {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.all
	q.all = nil
	return all
}

func bounded(all []happened) []happened {
	if len(all) > maxHappened {
		all = all[len(all)-maxHappened:]
	}
	return all
}
