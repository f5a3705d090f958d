package vault

import (
	"context"
	"fmt"
)

// KVVersion returns the version, 1 or 2, of the KV secrets engine mounted at mount. It asks
// Vault once for each mount. After [Session.ForgetKVVersion] it asks again.
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
		return 0, fmt.Errorf("asking which KV version is mounted at %s/: %w%s", mount, s.noteRefusal(err), hint)
	case info == nil:
		return 0, fmt.Errorf("nothing is mounted at %s/", mount)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions[mount] = version
	return version, nil
}

// KnownKVVersion returns the version of a mount that KVVersion has returned before. It sends nothing.
func (s *Session) KnownKVVersion(mount string) (version int, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version, known = s.versions[mount]
	return version, known
}

// kvVersion reads the version of a mount from Vault's answer.
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
	return 0, &describedError{text: fmt.Sprintf("%s/ has a KV version that rotatord does not support", mount)}
}

// ForgetKVVersion drops the known version of a mount, which may have been upgraded.
func (s *Session) ForgetKVVersion(mount string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.versions, mount)
}
