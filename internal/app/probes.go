package app

import (
	"context"
	"net"
	"net/http"
)

// This file lets /livez and /readyz be asked without a password. The web configuration can ask for
// one, or limit the rate of requests, for all paths alike. A kubelet has no password, so its probes
// would fail for ever, and the liveness probe would restart a daemon that is well.
//
// The library that reads the web configuration puts its own handler in front of ours when it begins
// to serve, and offers no exception. So its handler is replaced once more, by one that lets it judge
// each request as before. Only where it answers one of the two paths by itself, be it with 401, 429,
// or 500 for a file that it cannot read any more, the short answer takes the place of its own. TLS
// and client certificates are below HTTP, and stay as they are.

// admittedKey finds the answer that a request is for.
type admittedKey struct{}

// openProbes arranges the server for that. probes is asked for the short answers, and isProbe says
// which requests may have one.
func openProbes(server *http.Server, isProbe func(*http.Request) bool, probes http.Handler) {
	pages := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if held, ok := r.Context().Value(admittedKey{}).(*heldAnswer); ok {
			held.admitted = true
		}
		pages.ServeHTTP(w, r)
	})
	// The server calls this once, when its handler is the library's and before it accepts a connection.
	server.BaseContext = func(net.Listener) context.Context {
		guarded := server.Handler
		server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !isProbe(r) {
				guarded.ServeHTTP(w, r)
				return
			}
			held := &heldAnswer{ResponseWriter: w}
			guarded.ServeHTTP(held, r.WithContext(context.WithValue(r.Context(), admittedKey{}, held)))
			if !held.admitted {
				for _, name := range []string{"WWW-Authenticate", "Content-Type", "Content-Length", "X-Content-Type-Options"} {
					w.Header().Del(name) // of the answer that was dropped
				}
				probes.ServeHTTP(w, r)
			}
		})
		return context.Background()
	}
}

// heldAnswer drops what is written before the request is admitted to our own handler.
type heldAnswer struct {
	http.ResponseWriter
	admitted bool
}

// WriteHeader passes the status on once the request is admitted.
func (h *heldAnswer) WriteHeader(status int) {
	if h.admitted {
		h.ResponseWriter.WriteHeader(status)
	}
}

// Write passes content on once the request is admitted.
func (h *heldAnswer) Write(b []byte) (int, error) {
	if h.admitted {
		return h.ResponseWriter.Write(b)
	}
	return len(b), nil
}
