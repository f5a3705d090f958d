package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/outbound"
	"rotatord/internal/printable"
)

const (
	// webhookTime is the longest time for one request with its answer.
	webhookTime = 20 * time.Second
	// maxAnswer is how many bytes of the body of an answer are read.
	maxAnswer = 16 << 10
)

// webhook sends messages by HTTP.
type webhook struct {
	c       *config.Webhook
	timeout time.Duration // webhookTime, but in tests
}

func newWebhook(c *config.Webhook) *webhook { return &webhook{c, webhookTime} }

// webhookPeer is the receiver, for errors.
var webhookPeer = outbound.Peer{Name: "the receiver", Address: "webhook.url", CA: "webhook.ca_file"}

// Send implements [Sender].
func (w *webhook) Send(ctx context.Context, m *Message) error {
	bounded, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	req, err := w.request(bounded, m)
	if err != nil {
		return err
	}
	trusted, err := authorities(bounded, config.NamedFile{Field: "webhook.ca_file", Path: w.c.CAFile})
	if err != nil {
		return err
	}
	// The transport is used directly, because a client would follow redirects.
	resp, err := outbound.DeliveryTransport(trusted).RoundTrip(req)
	switch {
	case err != nil && ctx.Err() == nil && bounded.Err() != nil:
		return fmt.Errorf("no answer within %s", w.timeout)
	case err != nil:
		return fmt.Errorf("no answer: %w", webhookPeer.Explained(err, req.URL))
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 { // taken, whatever follows
		return nil
	}
	body, _ := outbound.ReadBody(resp.Body, maxAnswer)
	return w.refusal(req, resp, body)
}

// request returns the request for a message.
func (w *webhook) request(ctx context.Context, m *Message) (*http.Request, error) {
	address, err := w.c.URL.ReadAs(ctx, config.WebhookURL)
	if err != nil {
		return nil, fmt.Errorf("webhook.url: %w", err)
	}
	var body []byte
	if w.c.Format == config.FormatSlack {
		body, err = slackBody(m)
	} else {
		body, err = json.Marshal(m)
	}
	if err != nil {
		return nil, err
	}
	req, err := outbound.NewDelivery(ctx, address.Reveal(), m.ID, body)
	if err != nil {
		return nil, errors.New("webhook.url: the URL cannot be used")
	}
	for name, source := range w.c.Headers {
		value, err := source.ReadAs(ctx, config.HeaderValue)
		if err != nil {
			return nil, fmt.Errorf("webhook.headers.%s: %w", name, err)
		}
		req.Header.Set(name, value.Reveal())
	}
	if !w.c.Secret.IsZero() {
		key, err := w.c.Secret.ReadWithin(ctx)
		if err != nil {
			return nil, fmt.Errorf("webhook.secret: %w", err)
		}
		req.Header.Set(outbound.SignatureHeader, outbound.Signature([]byte(key.Reveal()), time.Now(), body))
	}
	return req, nil
}

// refusal returns the error for an answer that is not 2xx.
func (w *webhook) refusal(req *http.Request, resp *http.Response, body []byte) error {
	code := resp.StatusCode
	if outbound.IsRedirect(code) {
		return &RefusedError{outbound.Redirected("the receiver", code, req.URL, resp.Header.Get("Location"))}
	}
	text := fmt.Sprintf("the receiver answered HTTP %d (%s)", code, outbound.ReadPage(resp.Header, body).Shown(false, printable.Text))
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		text += ": is the URL still valid, and are webhook.headers and webhook.secret right?"
	case http.StatusNotFound, http.StatusGone:
		text += ": the URL is not valid there any more; write another one into its file"
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return &laterError{errors.New(text), outbound.RetryAfter(resp.Header)}
	}
	if code >= 500 {
		return &laterError{errors.New(text), outbound.RetryAfter(resp.Header)}
	}
	return &RefusedError{errors.New(text)}
}
