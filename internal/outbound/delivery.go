package outbound

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"
)

// Headers of a delivery.
const (
	DeliveryHeader  = "X-Rotatord-Delivery"  // its ID
	SignatureHeader = "X-Rotatord-Signature" // see [Signature]
)

// maxDeliveryHeader is how many bytes of headers the answer to a delivery may have.
const maxDeliveryHeader = 64 << 10

// DeliveryTransport returns a transport for deliveries. They are rare, so each one has a connection of its own. The server's
// certificate must come from one of authorities; nil for those of the system.
func DeliveryTransport(authorities *x509.CertPool) *http.Transport {
	t := Transport()
	t.TLSClientConfig.RootCAs = authorities
	t.DisableKeepAlives = true
	t.DisableCompression = true
	t.MaxResponseHeaderBytes = maxDeliveryHeader
	return t
}

// NewDelivery returns a request that brings JSON to a server of the operator. id is the same for each attempt with the
// same content.
func NewDelivery(ctx context.Context, address, id string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.GetBody = nil // so net/http never repeats the request
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "rotatord")
	r.Header.Set(DeliveryHeader, id)
	return r, nil
}

// Signature returns the value of the header with which a receiver knows that a body is from rotatord and not old:
// t=SECONDS,v1=HEX, where HEX is the HMAC-SHA256 of SECONDS, a dot, and the body.
func Signature(key []byte, at time.Time, body []byte) string {
	seconds := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(seconds + "."))
	mac.Write(body)
	return "t=" + seconds + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
