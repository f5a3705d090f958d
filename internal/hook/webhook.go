package hook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/outbound"
	"rotatord/internal/secret"
)

// Headers of the request of a webhook.
const (
	DeliveryHeader  = "X-Rotatord-Delivery"  // the same for each attempt with the same content
	SignatureHeader = "X-Rotatord-Signature" // see [Signature]
	AttemptHeader   = "X-Rotatord-Attempt"
)

// maxAnswer is how much of an answer is read, so that the connection can be used again.
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
}

// Signature returns the content of the header for a body that is sent at a time: t=UNIX,v1=HEX, where HEX is the
// HMAC-SHA256 of the time, a dot and the body.
func Signature(key secret.Value, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(key.Reveal()))
	_, _ = mac.Write([]byte(t + "."))
	_, _ = mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// Webhook implements [config.HookKinds].
func (o *opener) Webhook(c *config.WebhookHook) {
	o.opened = &webhook{config: c, transport: o.transport(), now: time.Now}
}

// transport returns a transport for one receiver.
func (*opener) transport() *http.Transport {
	t := outbound.Transport()
	t.IdleConnTimeout, t.MaxIdleConnsPerHost = 10*time.Second, 1
	return t
}

// webhook sends a signed request.
type webhook struct {
	config    *config.WebhookHook
	transport http.RoundTripper
	now       func() time.Time
}

// Run implements [Hook]. An answer of 200 to 299 is success.
func (w *webhook) Run(ctx context.Context, items []Item) error {
	bounded, cancel := context.WithTimeout(ctx, w.config.Timeout)
	defer cancel()
	key, err := w.config.Secret.ReadWithin(bounded)
	if err != nil {
		return fmt.Errorf("the secret for the signature: %w", err)
	}
	notice := Notice{Event: "rotated", Delivery: deliveryID(items)}
	for _, item := range items {
		notice.Tokens = append(notice.Tokens, NoticedToken{item.Token, item.RotationID, item.Digest})
	}
	body, err := json.Marshal(notice)
	if err != nil {
		return fmt.Errorf("the request: %w", err)
	}
	req, err := http.NewRequestWithContext(bounded, http.MethodPost, w.config.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("the URL cannot be read")
	}
	req.GetBody = nil // so net/http never repeats the request
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "rotatord")
	req.Header.Set(DeliveryHeader, notice.Delivery)
	req.Header.Set(AttemptHeader, strconv.Itoa(attempt(items)))
	req.Header.Set(SignatureHeader, Signature(key, w.now(), body))
	res, err := w.transport.RoundTrip(req)
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
	if outbound.IsRedirect(res.StatusCode) {
		return outbound.Redirected("the receiver of the webhook", res.StatusCode, req.URL, res.Header.Get("Location"))
	}
	answer, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if res.StatusCode < 200 || res.StatusCode > 299 {
		page := outbound.ReadPage(res.Header, answer)
		return fmt.Errorf("the receiver answered %d (%s)", res.StatusCode, page.Shown(false, secret.Scrub))
	}
	return nil
}

// receiver is the other end, for errors.
var receiver = outbound.Peer{Name: "the receiver of the webhook", Address: "after.webhook.url"}

// Check implements [Hook]. It sends nothing.
func (w *webhook) Check(ctx context.Context) error {
	if _, err := url.Parse(w.config.URL); err != nil {
		return errors.New("the URL cannot be read")
	}
	if _, err := w.config.Secret.ReadWithin(ctx); err != nil {
		return fmt.Errorf("the secret for the signature: %w", err)
	}
	return nil
}
