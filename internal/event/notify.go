package event

import "fmt"

// NotificationResult is what came of a message to a receiver of notifications.
type NotificationResult int

// The results.
const (
	NotificationTaken    NotificationResult = iota // the receiver has taken it
	NotificationNotTaken                           // it is tried again
	NotificationDropped                            // it was refused several times
)

// Notification tells what came of a message to a receiver of notifications. Attempts that fail like the one before are not
// told.
type Notification struct {
	Receiver string
	ID       string // of the message
	Result   NotificationResult
	News     int   // groups of news in it
	Attempts int   // of this process
	After    error // why an earlier attempt failed; nil if none did
	Err      error
}

func (d Notification) kind() Kind {
	return [...]Kind{NotificationTaken: NotificationDelivered, NotificationNotTaken: NotificationFailed, NotificationDropped: NotificationGivenUp}[d.Result]
}
func (d Notification) failure() error { return d.Err }
func (d Notification) more(Event) string {
	return fmt.Sprintf("%s, %d news, attempt %d", d.Receiver, d.News, d.Attempts)
}
func (d Notification) attrs(Event) []any {
	return withError([]any{"receiver", d.Receiver, "message", d.ID, "news", d.News, "attempts", d.Attempts}, d.Err)
}
