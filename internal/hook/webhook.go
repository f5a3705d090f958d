package hook

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/failpoint"
	"rotatord/internal/outbound"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// attemptHeader is a header of the request of a webhook.
const attemptHeader = "X-Rotatord-Attempt"

// maxAnswer is how many bytes of the body of an answer are read.
const maxAnswer = 64 << 10

// Notice is the body of the request.
type Notice struct {
	Event    string         `json:"event"` // always "rotated"
	Delivery string         `json:"delivery"`
	Tokens   []NoticedToken `json:"tokens"`
}

// NoticedToken is one token in it.
type NoticedToken struct {
	Name       string        `json:"name"`
	RotationID string        `json:"rotation_id"`
	Digest     secret.Digest `json:"digest"`
	// Delivery is what the delivery of a request for this token alone would be, and Attempt how often one was begun for
	// it: another attempt may come with other tokens.
	Delivery string `json:"delivery"`
	Attempt  int    `json:"attempt"`
}

// Webhook implements [config.HookKinds].
func (o *opener) Webhook(c *config.WebhookHook) {
	o.opened = &webhook{c}
}

// webhook sends a signed request.
type webhook struct{ config *config.WebhookHook }

// transport returns the transport for one request. The file of the authorities is read each time, as the secret is, so that a
// new authority needs no reload.
func (w *webhook) transport(ctx context.Context) (*http.Transport, error) {
	trusted, _, err := outbound.Authorities(ctx, w.config.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	return outbound.DeliveryTransport(trusted), nil
}

// Run implements [Hook]. An answer of 200 to 299 is success.
func (w *webhook) Run(ctx context.Context, items []Item) error {
	bounded, cancel := context.WithTimeout(ctx, w.config.Timeout)
	defer cancel()
	key, err := w.config.Secret.ReadWithin(bounded)
	if err != nil {
		return fmt.Errorf("the secret for the signature: %w", err)
	}
	transport, err := w.transport(bounded)
	if err != nil {
		return err
	}
	notice := Notice{Event: "rotated", Delivery: deliveryID(items)}
	for _, item := range items {
		notice.Tokens = append(notice.Tokens, NoticedToken{item.Token, item.RotationID, item.Digest, item.ID, item.Attempt})
	}
	body, err := json.Marshal(notice)
	if err != nil {
		return fmt.Errorf("the request: %w", err)
	}
	req, err := outbound.NewDelivery(bounded, w.config.URL, notice.Delivery, body)
	if err != nil {
		return errors.New("the URL cannot be read")
	}
	req.Header.Set(attemptHeader, strconv.Itoa(attempt(items)))
	req.Header.Set(outbound.SignatureHeader, outbound.Signature([]byte(key.Reveal()), time.Now(), body))
	if err := rotation.MaySend(ctx); err != nil {
		return err
	}
	failpoint.Reach("hook.effect.before")
	res, err := transport.RoundTrip(req)
	failpoint.Reach("hook.effect.after")
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	case bounded.Err() != nil:
		return fmt.Errorf("no answer within %s, the timeout of the hook", w.config.Timeout)
	default:
		return receiver.Explained(err, req.URL)
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode >= 200 && res.StatusCode <= 299: // whatever follows
		return nil
	case outbound.IsRedirect(res.StatusCode):
		return outbound.Redirected("the receiver of the webhook", res.StatusCode, req.URL, res.Header.Get("Location"))
	}
	answer, _ := outbound.ReadBody(res.Body, maxAnswer)
	page := outbound.ReadPage(res.Header, answer)
	return fmt.Errorf("the receiver answered %d (%s)", res.StatusCode, page.Shown(false, secret.Scrub))
}

// receiver is the other end, for errors.
var receiver = outbound.Peer{Name: "the receiver of the webhook", Address: "after.webhook.url", CA: "after.webhook.ca_file"}

// Check implements [Hook]. It connects to the receiver, so that its name, its port and its certificate are tried, and sends
// no request.
func (w *webhook) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(w.config.Timeout, checkTime))
	defer cancel()
	to, err := url.Parse(w.config.URL)
	if err != nil {
		return errors.New("the URL cannot be read")
	}
	if _, err := w.config.Secret.ReadWithin(ctx); err != nil {
		return fmt.Errorf("the secret for the signature: %w", err)
	}
	transport, err := w.transport(ctx)
	if err != nil {
		return err
	}
	if outbound.Route(to) != "" {
		return nil // what a proxy can reach only a request tells
	}
	if err := connect(ctx, transport, to); err != nil {
		return receiver.Explained(err, to)
	}
	return nil
}

// checkTime bounds a check.
const checkTime = 10 * time.Second

// connect opens a connection to the receiver as a run does, and ends it.
func connect(ctx context.Context, transport *http.Transport, to *url.URL) error {
	address := net.JoinHostPort(to.Hostname(), cmp.Or(to.Port(), map[string]string{"http": "80", "https": "443"}[to.Scheme]))
	conn, err := transport.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if to.Scheme != "https" {
		return nil
	}
	c := transport.TLSClientConfig.Clone()
	c.ServerName = to.Hostname()
	return tls.Client(conn, c).HandshakeContext(ctx)
}
