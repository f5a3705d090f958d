package vault

import (
	"context"
	"fmt"
	"net/http"
)

// KVVersion returns the version, 1 or 2, of the KV secrets engine mounted at mount. It is
// asked once for each mount; [Session.ForgetKVVersion] makes the next call ask again.
func (s *Session) KVVersion(ctx context.Context, mount string) (int, error) {
	s.mu.Lock()
	version, ok := s.versions[mount]
	s.mu.Unlock()
	if ok {
		return version, nil
	}
	// The endpoint that vault's own command line uses; every token with a policy for
	// something below the mount may read it.
	info, err := s.Read(ctx, "sys/internal/ui/mounts/"+mount)
	if err != nil {
		hint := ""
		if StatusOf(err) == http.StatusForbidden {
			hint = " (does the mount exist, and does the policy allow anything below it?)"
		}
		return 0, fmt.Errorf("asking which KV version is mounted at %s/: %w%s", mount, err, hint)
	}
	if info == nil {
		return 0, fmt.Errorf("nothing is mounted at %s/", mount)
	}
	if kind, _ := info.Data["type"].(string); kind != "kv" && kind != "generic" {
		return 0, fmt.Errorf("%s/ is a mount of type %q, not kv", mount, kind)
	}
	version = 1
	if options, ok := info.Data["options"].(map[string]any); ok && options["version"] == "2" {
		version = 2
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions[mount] = version
	return version, nil
}

// ForgetKVVersion drops what was detected: the mount may have been upgraded.
func (s *Session) ForgetKVVersion(mount string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.versions, mount)
}
