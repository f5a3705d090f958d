package vault

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMetadataRefusal: a policy without patch is told once and costs one request. Once the policy allows it, a
// look-ahead check finds that out.
func TestMetadataRefusal(t *testing.T) {
	server, c := approleServer(t, time.Hour, 0)
	var mu sync.Mutex
	allowed := []string{"read"}
	server.SetPolicy(func(path string) []string {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(path, "/metadata/") {
			return allowed
		}
		return []string{"create", "read", "update"}
	})
	s, _, log := startSession(t, c)
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	const mount = "kv"
	server.Write(mount, "access/ci", map[string]any{"a": "b"})
	values := map[string]string{"rotatord_rotation_id": "R"}
	for range 3 {
		s.Annotate(t.Context(), mount, "access/ci", values)
		s.LookAhead(t.Context(), mount, "access/ci")
	}
	if told := strings.Count(log.String(), "custom metadata"); told != 1 || s.MayAnnotate(mount) {
		t.Errorf("told %d times, and another request would be sent: %t", told, s.MayAnnotate(mount))
	}
	s.metadataAskedAgain = 0
	s.LookAhead(t.Context(), mount, "access/ci")
	if s.MayAnnotate(mount) {
		t.Error("the policy still lacks patch")
	}
	mu.Lock()
	allowed = slices.Concat(allowed, []string{"patch"})
	mu.Unlock()
	s.LookAhead(t.Context(), mount, "access/ci")
	s.Annotate(t.Context(), mount, "access/ci", values)
	if got := server.CustomMetadata(mount, "access/ci")["rotatord_rotation_id"]; got != "R" {
		t.Errorf("the policy has patch now: %v", got)
	}
}

// TestLookAheadKeepsAnswersFresh: an answer about a mount that would soon be too old is asked for again by a
// look-ahead check, and not by a rotation.
func TestLookAheadKeepsAnswersFresh(t *testing.T) {
	l := lifetimes{configs: map[string]mountLifetime{}, metadata: map[string]time.Time{}}
	now := time.Now()
	for age, dropped := range map[time.Duration]bool{0: false, configKept - aheadBy - time.Minute: false, configKept - aheadBy + time.Minute: true, configKept: true} {
		l.configs["m"] = mountLifetime{known: true, until: now.Add(configKept - age)}
		l.drop("m", now.Add(aheadBy))
		if _, ok := l.configs["m"]; ok == dropped {
			t.Errorf("an answer that is %s old is dropped: %t", age, !ok)
		}
	}
	// Look-ahead checks come every five minutes.
	if configKept-aheadBy > 5*time.Minute || aheadBy <= 5*time.Minute {
		t.Error("an answer can become too old between two look-ahead checks")
	}
}
