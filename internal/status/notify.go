package status

// NotifyTest is the result of a test message to a receiver of notifications.
type NotifyTest struct {
	Receiver string `json:"receiver"`
	Place    string `json:"place"`           // where messages go; it has no secret
	ID       string `json:"id"`              // of the message
	Error    string `json:"error,omitempty"` // why the receiver did not take it; empty if it did
}
