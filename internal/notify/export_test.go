package notify

import (
	"time"

	"rotatord/internal/config"
)

// SetWith sets one receiver whose messages go to a sender.
func SetWith(n *Notifier, s Sender, c config.Receiver) {
	n.make = func(config.Receiver) Sender { return s }
	n.Set([]config.Receiver{c})
}

// TopicOf and Ended are the tables by kind.
var TopicOf, Ended = topicOf, ended

// NewWebhook and NewMailer make senders.
var NewWebhook, NewMailer = newWebhook, newMailer

// Hurried makes a sender that waits for its receiver only so long.
func Hurried(c config.ReceiverKind, timeout time.Duration) Sender {
	if hook, ok := c.(*config.Webhook); ok {
		return &webhook{hook, timeout}
	}
	return &mailer{c.(*config.SMTP), timeout}
}

// IsRefused, PauseAfter and SlackBody are what tests look at.
var IsRefused, PauseAfter, SlackBody = isRefused, pauseAfter, slackBody
