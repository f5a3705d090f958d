package cloudflare_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
)

// operations are all requests that a client can send.
var operations = map[string]func(context.Context, *cloudflare.Client) error{
	"list":  func(ctx context.Context, c *cloudflare.Client) error { _, err := c.List(ctx); return err },
	"find":  func(ctx context.Context, c *cloudflare.Client) error { _, err := c.Find(ctx, "ci"); return err },
	"get":   func(ctx context.Context, c *cloudflare.Client) error { _, err := c.Inspect(ctx, tokenID); return err },
	"ready": func(ctx context.Context, c *cloudflare.Client) error { return c.Ready(ctx) },
	"rotate": func(ctx context.Context, c *cloudflare.Client) error {
		_, err := c.Rotate(ctx, rotation.RotateRequest{TokenID: tokenID, Grace: time.Hour})
		return err
	},
	"create": func(ctx context.Context, c *cloudflare.Client) error {
		_, err := c.Create(ctx, rotation.CreateRequest{Name: "ci"})
		return err
	},
	"extend": func(ctx context.Context, c *cloudflare.Client) error {
		_, _, err := c.SetGrace(ctx, tokenID, time.Hour)
		return err
	},
	"refresh": func(ctx context.Context, c *cloudflare.Client) error { _, err := c.Renew(ctx, tokenID, ""); return err },
	"renew": func(ctx context.Context, c *cloudflare.Client) error {
		_, err := c.Renew(ctx, tokenID, "8760h")
		return err
	},
	"verify": func(ctx context.Context, c *cloudflare.Client) error { _, err := c.VerifyCredential(ctx); return err },
	"delete": func(ctx context.Context, c *cloudflare.Client) error { return c.Delete(ctx, tokenID) },
}

// TestRedirectsAreNotFollowed counts what another server receives, for each operation.
func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere, strays := serve(t, answer(200, "application/json", goodBody))
	host := strings.TrimSuffix(strings.TrimPrefix(elsewhere, "http://"), "/client/v4")
	for _, status := range []int{300, 301, 302, 303, 305, 307, 308} {
		for name, location := range map[string]string{
			"elsewhere": elsewhere + "/login?token=private", "without scheme": "//" + host + "/x", "with a user": "http://user:private@" + host + "/x",
			"same host": "/other", "none": "", "broken": "http://%zz/private", "odd": "\x01private",
		} {
			if name != "elsewhere" && status != 302 && status != 307 {
				continue
			}
			url, requests := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if location != "" {
					w.Header()["Location"] = []string{location}
				}
				w.Header().Set("Refresh", "0; url="+elsewhere)
				w.WriteHeader(status)
			})
			for operation, do := range operations {
				before := requests.Load()
				err := do(t.Context(), client(t, url, cloudflare.Options{}))
				if err == nil || name != "odd" && !strings.Contains(err.Error(), "redirected") || strings.Contains(err.Error(), "private") || strings.Contains(err.Error(), "CANARY") {
					t.Errorf("%s, HTTP %d, %s: %v", operation, status, name, err)
				}
				if name == "elsewhere" && !strings.Contains(err.Error(), " redirected to "+host+": is an SSO policy in front of Cloudflare's API?") {
					t.Errorf("%s, HTTP %d, %s: %v", operation, status, name, err)
				}
				want := int64(1)
				if operation == "extend" { // it asks for Cloudflare's clock first
					want = 2
				}
				if n := int64(requests.Load() - before); n != want {
					t.Errorf("%s, HTTP %d, %s: %d requests, want %d", operation, status, name, n, want)
				}
			}
		}
	}
	if n := strays.Load(); n != 0 {
		t.Errorf("the other server got %d requests", n)
	}
}

// TestHTTP2Server: a server that offers HTTP/2, as Cloudflare does, must get requests that it understands,
// also on the connections of rotations.
func TestHTTP2Server(t *testing.T) {
	server := httptest.NewUnstartedServer(answer(200, "application/json", goodBody))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	c := client(t, server.URL+"/client/v4", cloudflare.Options{WrapTransport: func(rt http.RoundTripper) http.RoundTripper {
		rt.(*http.Transport).TLSClientConfig.RootCAs = roots
		return rt
	}})
	if issued, err := c.Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID}); err != nil || issued.Credential.ClientSecret.Reveal() != canary {
		t.Errorf("rotate: %v", err)
	}
	if _, err := c.Inspect(t.Context(), tokenID); err != nil {
		t.Errorf("get: %v", err)
	}
}

// TestEndlessAnswers: what each operation returns for an endless body, and how much of it is read.
func TestEndlessAnswers(t *testing.T) {
	if racedetector.On {
		t.Skip("it moves many megabytes, and runs without the race detector")
	}
	var written atomic.Int64
	for name, test := range map[string]struct{ start, more string }{
		"no JSON":         {"", strings.Repeat("x", 64<<10)},
		"an endless list": {`{"success":true,"result":[`, strings.Repeat(`{"id":"a"},`, 4<<10)},
		"a long string":   {`{"success":true,"errors":[{"message":"`, strings.Repeat("x", 64<<10)},
	} {
		for _, status := range []int{200, 500} {
			if status == 500 && name != "a long string" {
				continue
			}
			url, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				n, err := io.WriteString(w, test.start)
				for written.Add(int64(n)); err == nil; written.Add(int64(n)) {
					n, err = io.WriteString(w, test.more)
				}
			})
			written.Store(0)
			_, err := client(t, url, cloudflare.Options{}).Inspect(t.Context(), tokenID)
			if err == nil || status < 400 && !strings.Contains(err.Error(), "is larger than 8 MiB: is something else at this address?") || len(err.Error()) > 4000 {
				t.Errorf("%s, HTTP %d: %.300v", name, status, err)
			}
			if n := written.Load(); n > 24<<20 {
				t.Errorf("%s, HTTP %d: the server could write %d MiB", name, status, n>>20)
			}
		}
	}
	for _, status := range []int{200, 400} {
		long := `{"success":false,"errors":[{"code":1,"message":"` + strings.Repeat("x", 4<<20) + `"}]}`
		url, _ := serve(t, answer(status, "application/json", long))
		if _, err := client(t, url, cloudflare.Options{}).Inspect(t.Context(), tokenID); err == nil || len(err.Error()) > 2000 {
			t.Errorf("HTTP %d with a long message: an error of %d bytes", status, len(fmt.Sprint(err)))
		}
	}
	// A secret that came before an endless rest is kept.
	url, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, err := fmt.Fprint(w, strings.Replace(goodBody, `}}`, `,"x":"`, 1))
		for err == nil {
			_, err = io.WriteString(w, strings.Repeat("x", 64<<10))
		}
	})
	issued, err := client(t, url, cloudflare.Options{}).Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID})
	if err != nil || issued.Credential.ClientSecret.Reveal() != canary {
		t.Errorf("a secret in front of an endless body was lost: %v", err)
	}
}
