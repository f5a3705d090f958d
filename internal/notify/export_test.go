package notify

import "rotatord/internal/config"

// SetWith sets one receiver whose messages go to a sender.
func SetWith(n *Notifier, s Sender, c config.Receiver) {
	n.make = func(config.Receiver) Sender { return s }
	n.Set([]config.Receiver{c})
}

// TopicOf and Ended are the tables by kind.
var TopicOf, Ended = topicOf, ended

// Transport replaces how a webhook sends, and TLS how a mailer encrypts, for tests with servers of their own.
var NewWebhook, NewMailer = newWebhook, newMailer
