// Package profile serves the profiles of this process to a person on the same machine who wants to know where its time or
// its memory goes.
//
// Guarantees: only loopback addresses are listened on. A request under the name of another host, or that a page of another
// site makes, is refused, so no site can use a browser on this machine to reach it. Profiles have the names of functions, and no
// content of the memory: no secret is in them.
package profile

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof" // it adds itself to http.DefaultServeMux too, which nothing serves
	"net/netip"
	"strconv"
	"time"

	"rotatord/internal/connlimit"
	"rotatord/internal/webpage"
)

const (
	// longest is how long a profile may be recorded. net/http/pprof gives an answer that much more time than WriteTimeout.
	longest = 5 * time.Minute
	// connections are for a person or two. Profiles of the processor exclude each other anyway.
	connections = 8
)

// Server serves profiles.
type Server struct {
	server   *http.Server
	listener *connlimit.Listener
}

// Parse checks an address, as in 127.0.0.1:6060, [::1]:6060 or localhost:6060. Its error says what is wrong with it.
func Parse(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port, as in 127.0.0.1:6060", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q has no port from 1 to 65535", address)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("%q is not a loopback address: profiles are served to this machine only, on 127.0.0.1, [::1] or localhost. "+
			"To read them from another machine, use a tunnel, as ssh -L or kubectl port-forward make one", address)
	}
	return nil
}

// Serve serves profiles on an address that [Parse] accepts until Close.
func Serve(address string, log *slog.Logger) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	if at, ok := l.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() { // the resolver has another idea of localhost
		return nil, errors.Join(fmt.Errorf("%s is %s on this machine, which is not a loopback address: use 127.0.0.1", address, l.Addr()), l.Close())
	}
	limited := connlimit.New(l, connections, log)
	s := &Server{listener: limited, server: &http.Server{
		Handler:           handler(),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ConnState: limited.ConnState,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}
	go func() {
		if err := s.server.Serve(limited); !errors.Is(err, http.ErrServerClosed) {
			log.Warn("profiles are not served any more", "error", err)
		}
	}()
	return s, nil
}

// Close ends the server and what it is recording.
func (s *Server) Close() error { return s.server.Close() }

// handler is net/http/pprof on a mux of its own.
func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site") // only browsers send it
		switch {
		case !(webpage.Hosts{}).Accepts(r.Host):
			http.Error(w, "This is not a name of this machine, so the request is refused: use 127.0.0.1, [::1] or localhost.", http.StatusMisdirectedRequest)
		case site != "" && site != "same-origin" && site != "none":
			http.Error(w, "A page of another site has made this request, so it is refused.", http.StatusForbidden)
		case tooLong(r.URL.Query().Get("seconds")):
			http.Error(w, fmt.Sprintf("A profile may take up to %.0f seconds.", longest.Seconds()), http.StatusBadRequest)
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

// tooLong reports whether a profile would be recorded for longer than a person waits. What is not a number is left to
// net/http/pprof.
func tooLong(seconds string) bool {
	n, err := strconv.ParseFloat(seconds, 64)
	return err == nil && n > longest.Seconds()
}
