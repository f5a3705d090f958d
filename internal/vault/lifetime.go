package vault

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

const (
	// configKept is how long the answer about a mount's configuration is used, so that not
	// every rotation sends a request for it.
	configKept = 15 * time.Minute
	// refusalKept is how long Vault is not asked again after a policy did not allow the question.
	refusalKept = time.Hour
	// aheadBy is how long before its end an answer is dropped by [Session.LookAhead].
	aheadBy = 10 * time.Minute
)

// LookAhead has the next question about a mount sent to Vault if its answer would be too old within ten
// minutes. The caller asks it, every few minutes, so that no rotation has to. It also asks, once an hour,
// whether the policy allows custom metadata by now.
func (s *Session) LookAhead(ctx context.Context, mount, path string) {
	s.lifetimes.drop(mount, time.Now().Add(aheadBy))
	s.askAgainForMetadata(ctx, mount, path)
}

// drop forgets the answers about a mount that are too old at that time.
func (l *lifetimes) drop(mount string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have, ok := l.configs[mount]; ok && have.until.Before(at) {
		delete(l.configs, mount)
	}
	if l.metadata[mount].Before(at) {
		delete(l.metadata, mount)
	}
}

// lifetimes has the known values of delete_version_after by mount. It is safe for concurrent use.
type lifetimes struct {
	mu       sync.Mutex
	configs  map[string]mountLifetime
	metadata map[string]time.Time // by mount: the metadata of its secrets are not requested before that
}

// mountLifetime is the delete_version_after of a mount. It is unknown if the policy does not allow
// reading it.
type mountLifetime struct {
	known bool
	after time.Duration // negative: switched off for every secret of the mount
	until time.Time     // when it is asked again
}

// DeleteVersionAfter returns how long a version that is written now lives before Vault deletes it
// by itself; 0 if it stays. The mount has KV version 2. The answer is exact if the policy allows
// reading the mount's configuration and the secret's metadata. If it allows only the first, after is the
// longest possible lifetime; if the mount sets none, known is false.
func (s *Session) DeleteVersionAfter(ctx context.Context, mount, path string) (after time.Duration, known bool) {
	config := s.mountLifetime(ctx, mount)
	switch {
	case !config.known:
		return 0, false
	case config.after < 0:
		return 0, true
	}
	s.lifetimes.mu.Lock()
	refused := time.Now().Before(s.lifetimes.metadata[mount])
	s.lifetimes.mu.Unlock()
	if refused {
		return config.after, config.after > 0
	}
	own, status := s.deleteAfter(ctx, metadataPath(mount, path))
	switch {
	case status == http.StatusForbidden:
		s.lifetimes.mu.Lock()
		s.lifetimes.metadata[mount] = time.Now().Add(refusalKept)
		s.lifetimes.mu.Unlock()
		return config.after, config.after > 0
	case status == http.StatusNotFound: // no version and no settings yet: the mount's apply
	case status != http.StatusOK:
		return config.after, config.after > 0
	}
	// Vault uses the shorter one of those that are set.
	if own > 0 && (config.after == 0 || own < config.after) {
		return own, true
	}
	return config.after, true
}

// MountDeletesAfter returns the delete_version_after of a mount of KV version 2; 0 if it has none. known is false if the
// policy does not allow the question, or if Vault does not answer it.
func (s *Session) MountDeletesAfter(ctx context.Context, mount string) (after time.Duration, known bool) {
	config := s.mountLifetime(ctx, mount)
	return max(config.after, 0), config.known
}

// mountLifetime returns the known value of a mount. It asks Vault if that is too old.
func (s *Session) mountLifetime(ctx context.Context, mount string) mountLifetime {
	s.lifetimes.mu.Lock()
	have, ok := s.lifetimes.configs[mount]
	s.lifetimes.mu.Unlock()
	now := time.Now()
	if ok && now.Before(have.until) {
		return have
	}
	after, status := s.deleteAfter(ctx, mount+"/config")
	switch status {
	case http.StatusOK:
		have = mountLifetime{known: true, after: after, until: now.Add(configKept)}
	case http.StatusForbidden:
		have = mountLifetime{until: now.Add(refusalKept)}
	default:
		return mountLifetime{} // no answer, or one that is not Vault's: ask again next time
	}
	s.lifetimes.mu.Lock()
	defer s.lifetimes.mu.Unlock()
	s.lifetimes.configs[mount] = have
	return have
}

// deleteAfter reads one delete_version_after. status is 0 if no answer came, or one that Vault
// does not give.
func (s *Session) deleteAfter(ctx context.Context, path string) (after time.Duration, status int) {
	answer, err := s.send(ctx, Request{Path: path, Operation: "lifetime"})
	if err != nil {
		return 0, StatusOf(err)
	}
	if answer.Status == http.StatusNotFound {
		// This is Vault's answer for a secret without metadata. A proxy's 404 means nothing.
		var none struct {
			Errors []string `json:"errors"`
		}
		if json.Unmarshal(answer.Body, &none) == nil && none.Errors != nil && len(none.Errors) == 0 {
			return 0, http.StatusNotFound
		}
		return 0, 0
	}
	var body struct {
		Data struct {
			After *string `json:"delete_version_after"`
		} `json:"data"`
	}
	if answer.Status != http.StatusOK || json.Unmarshal(answer.Body, &body) != nil || body.Data.After == nil {
		return 0, 0
	}
	after, err = time.ParseDuration(*body.Data.After)
	if err != nil {
		return 0, 0
	}
	return after, http.StatusOK
}
