package vault

import (
	"net/http"
	"sync"
	"sync/atomic"
)

// fakeAgent adds its token to requests, as Vault Agent does with use_auto_auth_token.
type fakeAgent struct {
	vault  http.Handler
	tokens atomic.Int32 // requests that had a token already

	mu            sync.Mutex
	token         string
	header, value string // of each answer
}

func (a *fakeAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Vault-Token") != "" {
		a.tokens.Add(1)
	}
	if r.Header.Get("X-Vault-Request") != "true" { // require_request_header
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	a.mu.Lock()
	r.Header.Set("X-Vault-Token", a.token)
	if a.header != "" {
		w.Header().Set(a.header, a.value)
	}
	a.mu.Unlock()
	a.vault.ServeHTTP(w, r)
}

func (a *fakeAgent) set(header, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.header, a.value = header, value
}

func (a *fakeAgent) renew(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = token
}
