package notify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/outbound"
)

// Sender delivers messages to one receiver. Send returns nil if the receiver has taken the message, a [RefusedError] if it
// will not take it later either, and another error if it may. It ends with ctx, and within a time of its own.
//
// A receiver with several addresses sends to those that are not in m.Reached. It returns an [AddressError] if it reached only some.
type Sender interface {
	Send(ctx context.Context, m *Message) error
}

// NewSender returns the sender of a receiver. It opens nothing.
func NewSender(c config.Receiver) Sender {
	var made senders
	c.Kind.Dispatch(&made)
	return made.sender
}

// senders makes the sender of each kind.
type senders struct{ sender Sender }

// Webhook implements [config.ReceiverKinds].
func (s *senders) Webhook(c *config.Webhook) { s.sender = newWebhook(c) }

// SMTP implements [config.ReceiverKinds].
func (s *senders) SMTP(c *config.SMTP) { s.sender = newMailer(c) }

// CAProblem returns why the file of a receiver's authorities cannot be used now, beginning with its key; nil if it can, or if
// there is none.
func CAProblem(ctx context.Context, c config.Receiver) error {
	_, err := authorities(ctx, c.CAFile())
	return err
}

// authorities returns those that the certificate of a receiver must come from; nil for the system's. The file is read for each
// message, as secrets are, so that a new authority needs no reload.
func authorities(ctx context.Context, file config.NamedFile) (*x509.CertPool, error) {
	all, _, err := outbound.Authorities(ctx, file.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file.Field, err)
	}
	return all, nil
}

// RefusedError says that a receiver does not take a message, and will not take it later.
type RefusedError struct{ Err error }

// Error implements error.
func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Err }

// AddressError says that a receiver with several addresses does not take a message for some of them. Reached are those that
// have taken it now. It wraps a [RefusedError] if the others will not be taken later either.
type AddressError struct {
	Reached []string
	Err     error
}

// Error implements error.
func (e *AddressError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *AddressError) Unwrap() error { return e.Err }

// laterError asks to wait before the next attempt.
type laterError struct {
	err   error
	after time.Duration
}

func (e *laterError) Error() string { return e.err.Error() }
func (e *laterError) Unwrap() error { return e.err }

func isRefused(err error) bool {
	_, refused := errors.AsType[*RefusedError](err)
	return refused
}

// How long the pauses between attempts are. Each is twice the one before. A refused message is tried a few times, because
// an operator may correct an address or a password, and then given up.
const (
	firstPause    = 5 * time.Second
	longestPause  = 5 * time.Minute
	maxAsked      = time.Hour // that a receiver may ask for
	refusedPause  = time.Minute
	refusedTries  = 5 // with pauses of 1, 2, 4 and 8 minutes
	restTries     = 8 // for the addresses that do not have what others have: in about ten minutes, which a greylist needs
	defaultQuiet  = 24 * time.Hour
	longestStreak = 10
)

// pauseAfter returns how long to wait after the tries-th attempt.
func pauseAfter(tries int, err error) time.Duration {
	if later, ok := errors.AsType[*laterError](err); ok && later.after > 0 {
		return min(max(later.after, firstPause), maxAsked)
	}
	if isRefused(err) {
		return refusedPause << min(tries-1, refusedTries)
	}
	return min(firstPause<<min(tries-1, 10), longestPause)
}
