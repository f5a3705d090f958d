package vault

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/config"
)

// inMemory answers requests in the bubble of a test.
type inMemory func(*http.Request) (int, string)

func (f inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := f(r)
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// keepFor runs a session with AppRole for a while of the bubble's time.
func keepFor(t *testing.T, d time.Duration, vault inMemory) (s *Session) {
	t.Helper()
	return keepAs(t, &config.AppRole{Mount: "approle", RoleID: file(t, roleID), SecretID: file(t, secretID)}, d, vault)
}

// keepAs is keepFor with another auth method.
func keepAs(t *testing.T, auth config.VaultAuth, d time.Duration, vault inMemory) (s *Session) {
	t.Helper()
	s, err := New(config.Vault{Address: "http://127.0.0.1:1", Timeout: 5 * time.Second, Auth: auth}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.client.transport.next, s.pause = vault, 10*time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	s.Run(ctx)
	return s
}

func leaseBody(ttl time.Duration, renewable bool) string {
	return fmt.Sprintf(`{"auth":{"client_token":"hvs.x","lease_duration":%d,"renewable":%t}}`, int(ttl.Seconds()), renewable)
}

// TestRenewal: how often a token is renewed, and when another login takes its place. There is
// never a moment without a token that works.
func TestRenewal(t *testing.T) {
	for name, test := range map[string]struct {
		ttl, maximum     time.Duration
		renewable        bool
		renew            int // the status of the answer to a renewal
		logins, renewals int // in a day, at most; at least half of them
	}{
		"renewable without a maximum": {time.Hour, 0, true, 200, 1, 46},
		"renewable with a maximum":    {time.Hour, 6 * time.Hour, true, 200, 5, 45},
		"not renewable":               {time.Hour, time.Hour, false, 200, 35, 0},
		"renewing is not allowed":     {time.Hour, time.Hour, true, 403, 35, 35},
		"renewing fails":              {time.Hour, time.Hour, true, 500, 35, 600},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logins, renewals atomic.Int64
				var born, end time.Time
				alive := func() bool { return end.IsZero() || time.Now().Before(end) }
				keepFor(t, 24*time.Hour, func(r *http.Request) (int, string) {
					if !alive() {
						t.Errorf("%s with a token that ended at %s, now %s", r.URL, end, time.Now())
					}
					switch {
					case strings.HasSuffix(r.URL.Path, "/login"):
						logins.Add(1)
						born, end = time.Now(), time.Now().Add(test.ttl)
						return 200, leaseBody(test.ttl, test.renewable)
					case strings.HasSuffix(r.URL.Path, "/renew-self"):
						renewals.Add(1)
						if test.renew != 200 {
							return test.renew, `{"errors":["permission denied"]}`
						}
						end = time.Now().Add(test.ttl)
						if last := born.Add(test.maximum); test.maximum > 0 && end.After(last) {
							end = last
						}
						return 200, leaseBody(time.Until(end), true)
					default:
						return 200, `{"data":{"ttl":60,"expire_time":"x"}}`
					}
				})
				for what, n := range map[string][2]int64{"logins": {logins.Load(), int64(test.logins)}, "renewals": {renewals.Load(), int64(test.renewals)}} {
					if n[0] > n[1] || n[0] < n[1]/2 {
						t.Errorf("%d %s in a day, want at most %d and at least half of that", n[0], what, n[1])
					}
				}
			})
		})
	}
}

// TestNoLoginAfterTheOther: whatever Vault answers, logins do not follow each other at once. A
// secret ID may have a limited number of uses.
func TestNoLoginAfterTheOther(t *testing.T) {
	for name, answers := range map[string]map[string]string{
		"a renewal that gives nothing": {"login": leaseBody(time.Hour, true), "renew": leaseBody(0, true)},
		"a renewal without a number":   {"login": leaseBody(time.Hour, true), "renew": `{"auth":{"client_token":"x","lease_duration":"x"}}`},
		"an empty renewal":             {"login": leaseBody(time.Hour, true), "renew": ``},
		"a huge lease":                 {"login": `{"auth":{"client_token":"x","lease_duration":9223372036854775807,"renewable":true}}`},
		"a lease of a second":          {"login": leaseBody(time.Second, true), "renew": leaseBody(time.Second, true)},
		"a second, then nothing":       {"login": leaseBody(time.Second, true), "renew": leaseBody(0, true)},
		"no lease":                     {"login": leaseBody(0, false)},
		"no answer":                    {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logins, renewals := 0, 0
				keepFor(t, 20*time.Minute, func(r *http.Request) (int, string) {
					if strings.HasSuffix(r.URL.Path, "/login") {
						logins++
						return 200, answers["login"]
					}
					renewals++
					return 200, answers["renew"]
				})
				most := 140
				if strings.Contains(name, "a second") {
					most = 2700 // about as many as the lease asks for
				}
				if logins < 1 || logins > most || renewals > 2700 {
					t.Errorf("%d logins and %d renewals in 20 minutes", logins, renewals)
				}
			})
		})
	}
}

// hanging answers a login, and no renewal until its context ends.
type hanging struct{ canceled atomic.Int64 }

func (h *hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/login") {
		return inMemory(func(*http.Request) (int, string) { return 200, leaseBody(time.Hour, true) }).RoundTrip(r)
	}
	<-r.Context().Done()
	h.canceled.Add(1)
	return nil, r.Context().Err()
}

// TestShutdownDuringARenewal: the lifetime watcher takes no context, and still nothing waits for
// a renewal that is not answered. The revocation that follows is not answered either, and is given up.
func TestShutdownDuringARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, h := time.Now(), &hanging{}
		auth := &config.AppRole{Mount: "approle", RoleID: file(t, roleID), SecretID: file(t, secretID)}
		s, err := New(config.Vault{Address: "http://127.0.0.1:1", Timeout: time.Hour, Auth: auth}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.client.transport.next = h
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s.Run(ctx)
		if took := time.Since(begun); took != time.Minute+endTime || h.canceled.Load() != 2 {
			t.Errorf("it ended after %s, with %d requests that were ended", took, h.canceled.Load())
		}
	})
}

// TestLateRenewal: the answer to a renewal of the token before does not change the session's end,
// and a lease begins when it was asked for.
func TestLateRenewal(t *testing.T) {
	s := idleSession(t, "http://127.0.0.1:1", false)
	begun := time.Now().Add(-time.Minute)
	s.renewed("hvs.before", begun, lease{ttl: time.Hour}, nil)
	if end, _ := s.Expiry(); !end.IsZero() {
		t.Errorf("the session ends at %s by the renewal of another token", end)
	}
	s.renewed(rootToken, begun, lease{ttl: time.Hour}, nil)
	if end, _ := s.Expiry(); !end.Equal(begun.Add(time.Hour)) {
		t.Errorf("the session ends at %s, want %s", end, begun.Add(time.Hour))
	}
}

// TestOddRenewals: whatever answers a renewal, nothing panics, nothing loops, and the session goes on.
func TestOddRenewals(t *testing.T) {
	for _, answer := range oddAnswers {
		synctest.Test(t, func(t *testing.T) {
			requests := 0
			keepFor(t, 2*time.Hour, func(r *http.Request) (int, string) {
				requests++
				if strings.HasSuffix(r.URL.Path, "/login") {
					return 200, leaseBody(time.Hour, true)
				}
				var status int
				_, _ = fmt.Sscan(answer[:3], &status)
				return status, answer[4:]
			})
			if requests < 3 || requests > 100 {
				t.Errorf("%.80q: %d requests in two hours", answer, requests)
			}
		})
	}
}
