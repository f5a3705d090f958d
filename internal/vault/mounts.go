package vault

import (
	"context"
	"fmt"
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
	info, err := s.client.session.Logical().ReadWithContext(ctx, pathMounts+mount)
	err = plain(err)
	if err == nil && info != nil {
		if version, err = kvVersion(mount, info.Data); err != nil {
			err = describe(request{operation: "mounts"}, err)
		}
	}
	switch {
	case err != nil:
		hint := ""
		if denied(err) {
			hint = " (does the mount exist, and does the policy allow anything below it?)"
		}
		return 0, fmt.Errorf("asking which KV version is mounted at %s/: %w%s", mount, s.judge(err), hint)
	case info == nil:
		return 0, fmt.Errorf("nothing is mounted at %s/", mount)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions[mount] = version
	return version, nil
}

// kvVersion reads the version of a mount from what Vault says of it.
func kvVersion(mount string, data map[string]any) (int, error) {
	kind, ok := data["type"].(string)
	switch {
	case !ok:
		return 0, foreign("an answer without the type of the mount")
	case kind != "kv" && kind != "generic":
		return 0, &describedError{text: fmt.Sprintf("%s/ is a mount of type %q, not kv", mount, kind)}
	case data["options"] == nil:
		return 1, nil
	}
	options, ok := data["options"].(map[string]any)
	if !ok {
		return 0, foreign("an answer whose options are not an object")
	}
	switch options["version"] {
	case nil, "1":
		return 1, nil
	case "2":
		return 2, nil
	}
	return 0, &describedError{text: fmt.Sprintf("%s/ is of a KV version that rotatord does not know", mount)}
}

// ForgetKVVersion drops what was detected: the mount may have been upgraded.
func (s *Session) ForgetKVVersion(mount string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.versions, mount)
}
