package vault

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"rotatord/internal/event"
)

const (
	// operationMetadata is the name in metrics of a request that writes custom metadata.
	operationMetadata = "metadata"
	// metadataAskedAgain is how often Vault is asked whether the policy allows custom metadata by now.
	metadataAskedAgain = time.Hour
)

// metadataRefusals has the mounts in which custom metadata cannot be written. It is safe for concurrent use.
type metadataRefusals struct {
	mu  sync.Mutex
	all map[string]metadataRefusal // by mount
}

// metadataRefusal says that no request for custom metadata is sent in a mount, until askAgainForMetadata
// finds that the policy allows it.
type metadataRefusal struct {
	byPolicy bool      // false: this Vault cannot do it, which stays so until a restart
	askedAt  time.Time // when Vault was asked last
}

// MayAnnotate reports whether Annotate sends a request: Vault has not refused one in that mount.
func (s *Session) MayAnnotate(mount string) bool {
	s.refusals.mu.Lock()
	defer s.refusals.mu.Unlock()
	_, refused := s.refusals.all[mount]
	return !refused
}

// Annotate merges values into the custom metadata of a secret of KV version 2; other keys stay. Custom
// metadata are for people, so there is no error: a request that fails is not repeated. If the policy does not
// allow it, or this Vault cannot do it, that is told once, and nothing is sent for that mount from then on.
// A session with limited uses sends nothing: each of them is for a rotation.
func (s *Session) Annotate(ctx context.Context, mount, path string, values map[string]string) {
	if !s.MayAnnotate(mount) {
		return
	}
	if limited, err := s.Limited(ctx); limited || err != nil {
		return
	}
	// Not Send: without the permission a new login would not help.
	_, err := s.send(ctx, Request{Path: metadataPath(mount, path), Body: map[string]any{"custom_metadata": values},
		Merge: true, Operation: operationMetadata})
	status := StatusOf(err)
	switch status {
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType, http.StatusNotImplemented:
	default:
		return
	}
	s.refusals.mu.Lock()
	_, known := s.refusals.all[mount]
	s.refusals.all[mount] = metadataRefusal{byPolicy: status == http.StatusForbidden, askedAt: time.Now()}
	s.refusals.mu.Unlock()
	if !known { // else a request at the same time has told it
		s.tell(event.MetadataRefusal{Vault: s.config.Address, Mount: mount, Err: err})
	}
}

// askAgainForMetadata ends a refusal by a policy that allows custom metadata by now.
func (s *Session) askAgainForMetadata(ctx context.Context, mount, path string) {
	s.refusals.mu.Lock()
	refusal, refused := s.refusals.all[mount]
	if !refused || !refusal.byPolicy || time.Since(refusal.askedAt) < s.metadataAskedAgain {
		s.refusals.mu.Unlock()
		return
	}
	refusal.askedAt = time.Now()
	s.refusals.all[mount] = refusal
	s.refusals.mu.Unlock()

	at := metadataPath(mount, path)
	all, err := s.Capabilities(ctx, []string{at})
	if err != nil || !slices.Contains(all[at], "patch") && !slices.Contains(all[at], "root") {
		return
	}
	s.refusals.mu.Lock()
	defer s.refusals.mu.Unlock()
	delete(s.refusals.all, mount)
}

func metadataPath(mount, path string) string { return mount + "/metadata/" + path }
