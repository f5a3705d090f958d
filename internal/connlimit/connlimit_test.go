package connlimit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/connlimit"
)

func TestLimitsFor(t *testing.T) {
	for descriptors, want := range map[uint64]connlimit.Limits{
		0: {HTTP: 2, Admin: 2}, 16: {HTTP: 4, Admin: 2}, 64: {HTTP: 16, Admin: 8}, 1024: {HTTP: 256, Admin: 64}, 1 << 63: {HTTP: 256, Admin: 64},
	} {
		if got := connlimit.LimitsFor(descriptors); got != want {
			t.Errorf("%d: %+v, want %+v", descriptors, got, want)
		}
	}
	if connlimit.Descriptors() == 0 {
		t.Error("the limit of this process is not known")
	}
}

// logged is a log that may be read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *logged) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), what)
}

// server serves with so many connections, with TLS or without. /slow answers when released is closed.
func server(t *testing.T, limit int, withTLS bool) (l *connlimit.Listener, url string, client *http.Client, released chan struct{}) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = connlimit.New(inner, limit, slog.New(slog.DiscardHandler))
	released = make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-released
		}
		fmt.Fprint(w, "good")
	}))
	_ = s.Listener.Close()
	s.Listener, s.Config.ErrorLog = l, slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Config.ConnState = l.ConnState
	if withTLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return l, s.URL, s.Client(), released
}

// TestIdleClientsShutNobodyOut: while many clients connect and say nothing, or say it slowly, each
// request of another one is answered at once, and no more than the limit are open.
func TestIdleClientsShutNobodyOut(t *testing.T) {
	for _, withTLS := range []bool{false, true} {
		t.Run(fmt.Sprint("tls ", withTLS), func(t *testing.T) {
			l, url, client, _ := server(t, 8, withTLS)
			client.Timeout = 10 * time.Second
			for i := range 100 {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if i%2 == 0 && !withTLS {
					_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
				}
				if open := l.Open(); open > 8 {
					t.Fatalf("%d are open", open)
				}
				if i%10 != 0 {
					continue
				}
				res, err := client.Get(url)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
			}
		})
	}
}

// TestRequestsUnderWayAreKept: a request that is being answered is not cut off for a new client,
// and neither are those of one address by more of the same.
func TestRequestsUnderWayAreKept(t *testing.T) {
	l, url, client, released := server(t, 4, false)
	answers := make(chan error, 4)
	for range 4 {
		go func() {
			res, err := client.Get(url + "/slow")
			if err == nil {
				_ = res.Body.Close()
			}
			answers <- err
		}()
	}
	for end := time.Now().Add(10 * time.Second); l.Open() < 4 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	time.Sleep(50 * time.Millisecond) // their requests are read
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the fifth was not refused: %v", err)
	}
	close(released)
	for range 4 {
		if err := <-answers; err != nil {
			t.Errorf("cut off: %v", err)
		}
	}
}

// failing fails to accept so many times.
type failing struct {
	net.Listener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) == 0 {
		one, _ := net.Pipe()
		return one, nil
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, &net.OpError{Op: "accept", Err: err}
}
func (f *failing) Addr() net.Addr { return &net.TCPAddr{} }
func (f *failing) Close() error   { return nil }

// TestAcceptFails: no error of accept(2) ends a server but that it was closed. It is logged, and
// not each time.
func TestAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		f := &failing{}
		for range 20 {
			f.errs = append(f.errs, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.EPERM, syscall.EPROTO)
		}
		l := connlimit.New(f, 4, slog.New(slog.NewTextHandler(&log, nil)))
		began := time.Now()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if took := time.Since(began); took < time.Minute || took > 2*time.Minute {
			t.Errorf("100 tries took %s", took)
		}
		if n := log.count("cannot be accepted"); n < 1 || n > 3 {
			t.Errorf("%d lines in the log", n)
		}
		f.errs = append(f.errs, net.ErrClosed)
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}

// TestCloseEndsTheWait: a listener that waits to try again ends at once when it is closed.
func TestCloseEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{errs: make([]error, 1000)}
		for i := range f.errs {
			f.errs[i] = syscall.EMFILE
		}
		l := connlimit.New(f, 4, slog.New(slog.DiscardHandler))
		ended := make(chan error)
		go func() { _, err := l.Accept(); ended <- err }()
		time.Sleep(10 * time.Second)
		_ = l.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

// TestTurnAway: nobody is served while clients are turned away, and all are afterwards.
func TestTurnAway(t *testing.T) {
	l, url, client, _ := server(t, 8, false)
	for _, away := range []bool{true, false} {
		l.TurnAway(away)
		res, err := client.Get(url)
		if err == nil {
			_ = res.Body.Close()
		}
		if (err != nil) != away {
			t.Errorf("turned away %t: %v", away, err)
		}
	}
}
