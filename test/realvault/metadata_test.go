package realvault_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/sink"
	"rotatord/test/realvault"
)

// TestCustomMetadata notes rotations in a real Vault: beside the keys of others, and not without permission.
func TestCustomMetadata(t *testing.T) {
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	root := v.Root(t)
	least := realvault.LeastPolicy(t)
	roleID, secretID := v.AppRole(t, least, "1h", "2h")
	session := startSession(t, v.Address, roleID, secretID)
	c := config.VaultSink{Mount: "secret", Path: "access/ci", Metadata: true, SinkFields: config.DefaultFields()}
	deliver := func(s *sink.Vault, id string) {
		t.Helper()
		base, err := s.Preflight(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Store(t.Context(), rotation.Delivery{
			Credential: rotation.Credential{ClientID: "id", ClientSecret: secret.New("cfast_CANARY" + id)}, Base: base,
			RotationID: id, At: time.Date(2026, 12, 24, 18, 0, 0, 0, time.UTC), By: "host:1", GraceEndsAt: time.Date(2026, 12, 25, 18, 0, 0, 0, time.UTC),
		}); err != nil {
			t.Fatal(err)
		}
	}
	custom := func() map[string]any {
		t.Helper()
		s, err := root.Logical().Read("secret/metadata/access/ci")
		if err != nil || s == nil {
			t.Fatal(s, err)
		}
		all, _ := s.Data["custom_metadata"].(map[string]any)
		return all
	}
	eventually := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within two minutes: %s", what)
			}
		}
	}

	// Without the permission.
	if err := root.Sys().PutPolicy("rotatord", withoutMetadata(least)); err != nil {
		t.Fatal(err)
	}
	deliver(sink.NewVault(session, c), "R1")
	eventually("the refusal is known", func() bool { return !session.MayAnnotate("secret") })
	if got := custom(); len(got) != 0 {
		t.Errorf("without permission: %v", got)
	}

	// With it. A new session asks again.
	policy := withoutMetadata(least) + "\npath \"secret/metadata/access/*\" { capabilities = [\"patch\"] }\n"
	if err := root.Sys().PutPolicy("rotatord", policy); err != nil {
		t.Fatal(err)
	}
	if _, err := root.Logical().Write("secret/metadata/access/ci", map[string]any{"max_versions": 7, "custom_metadata": map[string]any{"owner": "team a"}}); err != nil {
		t.Fatal(err)
	}
	session = startSession(t, v.Address, roleID, secretID)
	s := sink.NewVault(session, c)
	deliver(s, "R2")
	want := map[string]any{"owner": "team a", "rotatord_rotation_id": "R2", "rotatord_rotated_at": "2026-12-24T18:00:00Z",
		"rotatord_rotated_by": "host:1", "rotatord_grace_end": "2026-12-25T18:00:00Z"}
	eventually("the metadata are written", func() bool { return fmt.Sprint(custom()) == fmt.Sprint(want) })
	about, err := root.Logical().Read("secret/metadata/access/ci")
	if err != nil || about.Data["max_versions"] != json.Number("7") {
		t.Errorf("max_versions is now %v, %v", about.Data["max_versions"], err)
	}

	// No more keys than Vault lets a person write.
	full := map[string]any{}
	for i := range 62 {
		full[fmt.Sprint("key", i)] = "x"
	}
	if _, err := root.Logical().Write("secret/metadata/access/ci", map[string]any{"custom_metadata": full}); err != nil {
		t.Fatal(err)
	}
	deliver(s, "R3")
	time.Sleep(200 * time.Millisecond) // a request that should not be sent would come in this time
	if got := custom(); len(got) != len(full) {
		t.Errorf("%d keys, want the %d of others", len(got), len(full))
	}
}

// withoutMetadata removes what a policy allows for the metadata of secrets.
func withoutMetadata(policy string) string {
	var kept []string
	skip := false
	for line := range strings.Lines(policy) {
		if strings.HasPrefix(line, "path ") && strings.Contains(line, "/metadata/") {
			skip = true
		}
		if !skip {
			kept = append(kept, line)
		}
		if strings.HasPrefix(line, "}") {
			skip = false
		}
	}
	return strings.Join(kept, "")
}
