// Package connlimit limits connections, so that clients cannot take the file descriptors that the daemon needs.
//
// Guarantees of a [Listener]: it never has more open connections than its limit. If it is full, it closes a
// connection without a request in progress for a new connection, first from the address with the most
// connections. So idle clients cannot block others. An error of accept(2), for example because the process has
// no descriptors left, does not end the listener: it logs the error and tries again.
package connlimit

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits are how many connections the servers of the daemon may have.
type Limits struct{ HTTP, Admin int }

// The most connections, where there are descriptors enough. Each costs some 10 KiB of memory.
const (
	maxHTTP  = 256
	maxAdmin = 64
)

// LimitsFor returns the limits for a process with so many descriptors. A quarter is for HTTP and an eighth for the
// admin socket. The rest is for the ledger, sealed answers, and connections to Cloudflare and Vault.
func LimitsFor(descriptors uint64) Limits {
	share := func(part uint64, most int) int { return max(int(min(descriptors/part, uint64(most))), 2) }
	return Limits{HTTP: share(4, maxHTTP), Admin: share(8, maxAdmin)}
}

// Descriptors returns how many file descriptors this process may have. The Go runtime has raised
// the soft limit to the hard one.
func Descriptors() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // nearly every system allows at least this
	}
	return uint64(limit.Cur) // its type differs between systems
}

// Listener limits the connections of another listener.
type Listener struct {
	net.Listener
	limit int
	log   *slog.Logger
	now   func() time.Time

	closed chan struct{}
	once   sync.Once
	away   atomic.Bool

	mu     sync.Mutex
	conns  map[*conn]struct{}
	logged map[string]time.Time // when something was logged last
}

// New returns a listener with at most limit connections. Its server must use ConnState as
// [http.Server.ConnState], so that the listener knows which connections are in use.
func New(l net.Listener, limit int, log *slog.Logger) *Listener {
	return &Listener{Listener: l, limit: limit, log: log.With("address", l.Addr().String()), now: time.Now,
		closed: make(chan struct{}), conns: make(map[*conn]struct{}), logged: make(map[string]time.Time)}
}

// How long to wait after accept(2) failed.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// Accept implements net.Listener. It returns an error only when the listener is closed.
func (l *Listener) Accept() (net.Conn, error) {
	pause := firstPause
	for {
		c, err := l.Listener.Accept()
		switch {
		case err == nil && l.away.Load():
			_ = c.Close()
			continue
		case err == nil:
			if wrapped := l.admit(c); wrapped != nil {
				return wrapped, nil
			}
			continue
		case errors.Is(err, net.ErrClosed):
			return nil, err
		}
		l.say("connections cannot be accepted; this is tried again", "error", err, "open", l.Open())
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// TurnAway makes the listener close new connections at once while on is set.
func (l *Listener) TurnAway(on bool) { l.away.Store(on) }

// Open returns how many connections are open.
func (l *Listener) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// CloseIdle closes the connections without a request in progress. Without this, a server that shuts down waits
// some seconds for new connections.
func (l *Listener) CloseIdle() {
	l.mu.Lock()
	var idle []*conn
	for c := range l.conns {
		if !c.busy {
			idle = append(idle, c)
		}
	}
	l.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}

// ConnState is for [http.Server.ConnState].
func (l *Listener) ConnState(c net.Conn, state http.ConnState) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if c, ok := c.(*conn); ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		c.busy = state == http.StateActive
		c.since = l.now()
	}
}

// admit returns a wrapped connection, and closes another one for it if necessary. If it cannot, it closes the
// new one and returns nil.
func (l *Listener) admit(c net.Conn) net.Conn {
	l.mu.Lock()
	one := &conn{Conn: c, listener: l, from: addressOf(c), since: l.now()}
	var victim *conn
	if len(l.conns) >= l.limit {
		victim = l.victim(one.from)
		if victim == nil {
			victim = one
		} else {
			delete(l.conns, victim)
		}
	}
	if victim != one {
		l.conns[one] = struct{}{}
	}
	l.mu.Unlock()
	if victim == nil {
		return one
	}
	l.say("the limit of connections is reached: an idle one is closed for each new one", "limit", l.limit, "closed", victim.from)
	_ = victim.Conn.Close()
	if victim == one {
		return nil
	}
	return one
}

// victim returns the connection to close for a new one from an address; nil if there is none. It is a connection
// with a request in progress only if that is from another address, which has more than half of all connections.
// l.mu must be held.
func (l *Listener) victim(newcomer string) *conn {
	count := make(map[string]int)
	for c := range l.conns {
		count[c.from]++
	}
	var found *conn
	for c := range l.conns {
		if c.busy && (c.from == newcomer || count[c.from] <= l.limit/2) {
			continue
		}
		if found == nil || l.before(c, found, count) {
			found = c
		}
	}
	return found
}

// before reports whether a is closed rather than b: first an idle connection, then one of the address with the most
// connections, then the one that is idle for the longest time.
func (l *Listener) before(a, b *conn, count map[string]int) bool {
	if a.busy != b.busy {
		return b.busy
	}
	if count[a.from] != count[b.from] {
		return count[a.from] > count[b.from]
	}
	return a.since.Before(b.since)
}

// sayAgain is the time after which the same message is logged again.
const sayAgain = time.Minute

func (l *Listener) say(message string, attrs ...any) {
	l.mu.Lock()
	now := l.now()
	last, said := l.logged[message]
	if said && now.Sub(last) < sayAgain {
		l.mu.Unlock()
		return
	}
	l.logged[message] = now
	l.mu.Unlock()
	l.log.Warn(message, attrs...)
}

// addressOf returns the host of a connection; all connections of a unix socket have the same.
func addressOf(c net.Conn) string {
	if c.RemoteAddr() == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}

// conn counts until it is closed.
type conn struct {
	net.Conn
	listener *Listener
	from     string
	// Of the listener's mu:
	busy  bool      // a request is in progress
	since time.Time // when busy was last set or cleared
}

// NetConn returns the connection below, as tls.Conn.NetConn does.
func (c *conn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
