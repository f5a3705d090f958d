package shared_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/ledger/shared"
	"rotatord/internal/pending"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

const canary = "cfast_CANARY0123456789"

// disk opens the sealed answers of a replica.
func disk(t *testing.T, recipients ...string) *pending.Store {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s, err := pending.Open(pending.Options{
		Dir: dir, IdentityFile: filepath.Join(dir, pending.IdentityName), Identity: func() (string, error) { return identity.String(), nil },
		Recipients: recipients, Unfinished: func(string) bool { return true }, Usable: func() error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func seal(t *testing.T, s *pending.Store, id string) rotation.PendingKey {
	t.Helper()
	key := rotation.PendingKey{RotationID: id, Token: "ci", TokenID: "uuid"}
	issued := rotation.Issued{Credential: rotation.Credential{ClientID: "id.access", ClientSecret: secret.New(canary)}, Facts: rotation.TokenFacts{ID: "uuid"}, GraceEndsAt: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)}
	if err := errors.Join(s.Reserve(t.Context(), key), s.Seal(t.Context(), key, issued)); err != nil {
		t.Fatal(err)
	}
	return key
}

func TestCopies(t *testing.T) {
	var server kvtest.Server
	b := disk(t)
	a := disk(t, b.PublicKey())
	key := seal(t, a, "01A")
	client := server.Client(nil)
	mine, theirs := shared.NewCopies(client, a, "a"), shared.NewCopies(server.Client(nil), b, "b")
	count := func() string { return fmt.Sprint(server.Count("get"), server.Count("put"), server.Count("remove")) }

	if _, found, err := theirs.Open(t.Context(), key.RotationID); found || err != nil {
		t.Errorf("no copy yet: %t, %v", found, err)
	}
	for _, want := range []string{"2 1 0", "3 1 0"} { // again: one look
		if err := mine.Copy(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if got := count(); got != want {
			t.Errorf("gets, puts, removes: %s, want %s", got, want)
		}
	}
	got, found, err := theirs.Open(t.Context(), key.RotationID)
	if err != nil || !found || got.ClientSecret.Reveal() != canary || got.ClientID != "id.access" || got.Facts.ID != "uuid" || got.GraceEndsAt.IsZero() {
		t.Errorf("%+v, %t, %v", got, found, err)
	}
	e, err := client.Get(t.Context(), "pending/01A")
	if err != nil || strings.Contains(string(e.Data), canary) || strings.Contains(string(e.Data), "id.access") || !strings.Contains(string(e.Data), `"token":"ci"`) {
		t.Errorf("the entry is %s, %v", e.Data, err)
	}
	files, err := theirs.Files(t.Context())
	if err != nil || len(files) != 1 || files[0].PendingKey != key || files[0].Damage != nil || time.Since(files[0].At) > time.Hour {
		t.Errorf("%+v, %v", files, err)
	}
	for range 2 {
		if err := theirs.Erase(t.Context(), key.RotationID); err != nil {
			t.Error(err)
		}
	}
	if _, found, err := mine.Open(t.Context(), key.RotationID); found || err != nil {
		t.Errorf("erased: %t, %v", found, err)
	}
	if err := mine.Copy(t.Context(), rotation.PendingKey{RotationID: "01NONE"}); err == nil || !strings.Contains(err.Error(), "no sealed answer") {
		t.Errorf("nothing to copy: %v", err)
	}
	for _, id := range []string{"", "../tokens/ci", "a/b", strings.Repeat("x", 129)} {
		_, _, openErr := mine.Open(t.Context(), id)
		if openErr == nil || mine.Erase(t.Context(), id) == nil || mine.Copy(t.Context(), rotation.PendingKey{RotationID: id}) == nil {
			t.Errorf("%q was taken for a rotation", id)
		}
	}
}

// TestUnreadableCopies: a copy that cannot be opened says why, and a good one takes its place.
func TestUnreadableCopies(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(*kvtest.Server)
		want string
	}{
		"damaged": {func(s *kvtest.Server) {
			s.Set("pending/01A", `{"format":1,"rotation_id":"01A","age":"aGVsbG8="}`)
		}, "opening the sealed secret of rotation 01A"},
		"not base64":           {func(s *kvtest.Server) { s.Set("pending/01A", `{"format":1,"rotation_id":"01A","age":"?"}`) }, "pending/01A"},
		"empty":                {func(s *kvtest.Server) { s.Set("pending/01A", `{"format":1,"rotation_id":"01A"}`) }, "it is empty"},
		"of another rotation":  {func(s *kvtest.Server) { s.Set("pending/01A", `{"format":1,"rotation_id":"01B","age":"aGVsbG8="}`) }, `rotation "01B"`},
		"of a newer rotatord":  {func(s *kvtest.Server) { s.Set("pending/01A", `{"format":2,"age":[]}`) }, "Update this replica"},
		"deleted":              {func(s *kvtest.Server) { s.Delete("pending/01A") }, "was deleted"},
		"sealed to others too": {func(*kvtest.Server) {}, "the copy by replica a is not sealed to this replica"},
	} {
		t.Run(name, func(t *testing.T) {
			var server kvtest.Server
			a, stranger := disk(t), disk(t)
			key := seal(t, a, "01A")
			mine := shared.NewCopies(server.Client(nil), a, "a")
			if err := mine.Copy(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			test.do(&server)
			if _, found, err := shared.NewCopies(server.Client(nil), stranger, "c").Open(t.Context(), "01A"); found || !errors.Is(err, rotation.ErrUnreadable) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%t, %v", found, err)
			}
			files, err := mine.Files(t.Context())
			if err != nil || len(files) != 1 || files[0].RotationID != "01A" {
				t.Errorf("%+v, %v", files, err)
			}
			if name == "deleted" {
				return // a person can bring it back
			}
			if err := mine.Copy(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			if got, found, err := mine.Open(t.Context(), "01A"); err != nil || !found || got.ClientSecret.Reveal() != canary {
				t.Errorf("copied again: %t, %v", found, err)
			}
		})
	}
}

// TestCopyOfALostAnswer: a copy is made once, or it is known not to be.
func TestCopyOfALostAnswer(t *testing.T) {
	var server kvtest.Server
	a := disk(t)
	key := seal(t, a, "01A")
	client := server.Client(func(operation, _ string) kvtest.Fault {
		if operation == "put" {
			return kvtest.Fault{After: kvtest.ErrLost}
		}
		return kvtest.Fault{}
	})
	copies := shared.NewCopies(client, a, "a")
	if err := copies.Copy(t.Context(), key); err != nil {
		t.Error(err)
	}
	if e, err := client.Get(t.Context(), "pending/01A"); err != nil || e.Version != 1 {
		t.Errorf("%+v, %v", e, err)
	}
	client.Break(func(string, string) kvtest.Fault { return kvtest.Fault{Before: kvtest.ErrLost} })
	for what, err := range map[string]error{
		"copy": copies.Copy(t.Context(), key), "erase": copies.Erase(t.Context(), "01A"),
		"open": func() error { _, _, err := copies.Open(t.Context(), "01A"); return err }(),
	} {
		if !errors.Is(err, kvtest.ErrLost) || errors.Is(err, rotation.ErrUnreadable) {
			t.Errorf("%s while Vault is away: %v", what, err)
		}
	}
}

// TestCopyIsResealed: an answer that was sealed before another replica was a recipient is copied for it too.
func TestCopyIsResealed(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	open := func(recipients ...string) *pending.Store {
		s, err := pending.Open(pending.Options{Dir: dir, Identity: func() (string, error) { return identity.String(), nil }, Recipients: recipients,
			Unfinished: func(string) bool { return true }, Usable: func() error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := open()
	key := seal(t, before, "01A")
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := before.SealCopy(context.Background(), "01A"); err == nil {
		t.Error("a closed store seals")
	}
	b := disk(t)
	after := open(b.PublicKey())
	defer after.Close()
	var server kvtest.Server
	if err := shared.NewCopies(server.Client(nil), after, "a").Copy(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if got, found, err := shared.NewCopies(server.Client(nil), b, "b").Open(t.Context(), "01A"); err != nil || !found || got.ClientSecret.Reveal() != canary {
		t.Errorf("%t, %v", found, err)
	}
}
