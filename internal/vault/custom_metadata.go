package vault

import (
	"context"
	"net/http"
	"sync"
	"time"

	"rotatord/internal/event"
)

const (
	// operationMetadata is the name in metrics of a request that writes custom metadata.
	operationMetadata = "metadata"
	// metadataRefusalKept is how long Vault is not asked again after it has refused custom metadata in a mount.
	metadataRefusalKept = 24 * time.Hour
)

// metadataRefusals has the mounts in which custom metadata cannot be written, and until when that is
// believed. It is safe for concurrent use.
type metadataRefusals struct {
	mu    sync.Mutex
	until map[string]time.Time // by mount
}

// MayAnnotate reports whether Annotate sends a request: Vault has not refused one in that mount within the
// last day.
func (s *Session) MayAnnotate(mount string) bool {
	s.refusals.mu.Lock()
	defer s.refusals.mu.Unlock()
	return !time.Now().Before(s.refusals.until[mount])
}

// Annotate merges values into the custom metadata of a secret of KV version 2; other keys stay. Custom
// metadata are for people, so there is no error: a request that fails is not repeated. If the policy does not
// allow it, or this Vault cannot do it, that is told once, and nothing is sent for that mount for a day.
// A session with limited uses sends nothing: each of them is for a rotation.
func (s *Session) Annotate(ctx context.Context, mount, path string, values map[string]string) {
	if !s.MayAnnotate(mount) {
		return
	}
	if limited, err := s.Limited(ctx); limited || err != nil {
		return
	}
	// Not Send: without the permission a new login would not help.
	_, err := s.send(ctx, Request{Path: mount + "/metadata/" + path, Body: map[string]any{"custom_metadata": values},
		Merge: true, Operation: operationMetadata})
	switch StatusOf(err) {
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType, http.StatusNotImplemented:
		s.refusals.mu.Lock()
		s.refusals.until[mount] = time.Now().Add(metadataRefusalKept)
		s.refusals.mu.Unlock()
		s.tell(event.MetadataRefusal{Vault: s.config.Address, Mount: mount, Err: err})
	}
}
