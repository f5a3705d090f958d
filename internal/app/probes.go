package app

import (
	"context"
	"net"
	"net/http"
)

// This file lets /livez and /readyz be requested without a password. The web configuration can require a
// password, or limit the rate of requests, for all paths alike. A kubelet has no password, so its probes
// would always fail, and its liveness probe would restart a healthy daemon.
//
// The library that reads the web configuration puts its own handler in front of ours when it starts to serve,
// and has no exceptions. So we replace its handler again, by one that lets it decide about each request
// as before. Only if it answers one of the two paths itself (with 401, with 429, or with 500 for a file that
// it can no longer read), we send the short answer instead. TLS and client certificates are below HTTP and do
// not change.

// admittedKey is the context key of the answer to a request.
type admittedKey struct{}

// openProbes prepares the server for that. probes serves the short answers, and isProbe says which requests
// may have one.
func openProbes(server *http.Server, isProbe func(*http.Request) bool, probes http.Handler) {
	pages := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if held, ok := r.Context().Value(admittedKey{}).(*gatedAnswer); ok {
			held.admitted = true
		}
		pages.ServeHTTP(w, r)
	})
	// The server calls this once, when it has the library's handler and before it accepts a connection.
	server.BaseContext = func(net.Listener) context.Context {
		guarded := server.Handler
		server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !isProbe(r) {
				guarded.ServeHTTP(w, r)
				return
			}
			held := &gatedAnswer{ResponseWriter: w}
			guarded.ServeHTTP(held, r.WithContext(context.WithValue(r.Context(), admittedKey{}, held)))
			if !held.admitted {
				for _, name := range []string{"WWW-Authenticate", "Content-Type", "Content-Length", "X-Content-Type-Options"} {
					w.Header().Del(name) // headers of the answer that was dropped
				}
				probes.ServeHTTP(w, r)
			}
		})
		return context.Background()
	}
}

// gatedAnswer drops what is written before the library lets the request through to our own handler.
type gatedAnswer struct {
	http.ResponseWriter
	admitted bool
}

// WriteHeader writes the status if the request was let through.
func (h *gatedAnswer) WriteHeader(status int) {
	if h.admitted {
		h.ResponseWriter.WriteHeader(status)
	}
}

// Write writes content if the request was let through.
func (h *gatedAnswer) Write(b []byte) (int, error) {
	if h.admitted {
		return h.ResponseWriter.Write(b)
	}
	return len(b), nil
}
