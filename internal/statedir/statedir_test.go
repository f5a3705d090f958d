package statedir_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
)

const canary = "cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef"

func open(t *testing.T, o statedir.Options) *statedir.Dir {
	t.Helper()
	j, err := statedir.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func stateDir(t *testing.T) string { return filepath.Join(t.TempDir(), "state") }

var issued = rotation.Issued{
	Credential:  rotation.Credential{ClientID: "id.access", ClientSecret: secret.New(canary)},
	Facts:       rotation.TokenFacts{ID: "uuid", ClientID: "id.access", UpdatedAt: time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)},
	GraceEndsAt: time.Date(2026, 11, 24, 4, 0, 0, 0, time.UTC),
}

func TestLedgerIsCheckAndSetAndDurable(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	if r, err := j.Ledger.Load(t.Context(), "ci"); err != nil || r.Revision != 0 {
		t.Fatalf("an absent record: %+v, %v", r, err)
	}
	full := rotation.Record{
		Format: rotation.RecordFormat, Token: "ci", TokenID: "uuid", Account: "prod", Anchor: time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC),
		Step:     rotation.StepInDoubt,
		Work:     &rotation.Work{RotationID: "R", TokenID: "uuid", Grace: rotation.Grace(time.Hour), BeforeSink: map[string]rotation.Stored{"s": {Version: 3}}},
		Doubt:    &rotation.Doubt{Reason: "outcome_unknown", OldWorksUntil: time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)},
		Failures: 2, Last: &rotation.Done{RotationID: "Q"}, MovedCount: 1, Facts: issued.Facts,
	}
	saved, err := j.Ledger.Save(t.Context(), full)
	if err != nil || saved.Revision != 1 {
		t.Fatalf("%+v, %v", saved, err)
	}
	if _, err := j.Ledger.Save(t.Context(), full); !errors.Is(err, rotation.ErrConflict) {
		t.Errorf("saving an old revision: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, o)
	got, err := j.Ledger.Load(t.Context(), "ci")
	if diff := cmp.Diff(saved, got); err != nil || diff != "" {
		t.Errorf("after reopening: %v %s", err, diff)
	}
	all, err := j.Ledger.All(t.Context())
	if err != nil || len(all) != 1 {
		t.Errorf("All: %v, %v", all, err)
	}
	if _, err := statedir.ReadLedger(t.Context(), o.Dir); err == nil || !strings.Contains(err.Error(), "in use by a running daemon") {
		t.Errorf("ReadLedger beside a daemon: %v", err)
	}
	_ = j.Close()
	if all, err := statedir.ReadLedger(t.Context(), o.Dir); err != nil || len(all) != 1 {
		t.Errorf("ReadLedger: %v, %v", all, err)
	}
}

func TestSealedSecretSurvivesAndIsNotReadable(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	if _, ok, err := j.Pending.Open(t.Context(), "R"); ok || err != nil {
		t.Fatalf("an absent secret: %t, %v", ok, err)
	}
	if err := j.Pending.Reserve(t.Context(), rotation.PendingKey{RotationID: "R", Token: "ci"}); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := j.Pending.Open(t.Context(), "R"); ok || err != nil {
		t.Fatalf("a reservation was taken for a secret: %t, %v", ok, err)
	}
	if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "R", Token: "ci"}, issued); err != nil {
		t.Fatal(err)
	}
	_ = j.Close()

	files := 0
	err := filepath.WalkDir(o.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if e.IsDir() {
			if info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %o", path, info.Mode().Perm())
			}
			return nil
		}
		files++
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("CANARY")) {
			t.Errorf("%s holds the secret in clear", path)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil || files != 4 {
		t.Fatalf("%d files, want the ledger and its mark, the identity and the sealed secret: %v", files, err)
	}

	j = open(t, o)
	got, ok, err := j.Pending.Open(t.Context(), "R")
	if err != nil || !ok || !got.ClientSecret.Equal(issued.ClientSecret) || got.ClientID != issued.ClientID ||
		got.Facts != issued.Facts || !got.GraceEndsAt.Equal(issued.GraceEndsAt) {
		t.Errorf("opened %+v, %t, %v", got, ok, err)
	}
	if sealed, err := j.Pending.Sealed(); err != nil || len(sealed) != 1 || sealed[0].RotationID != "R" || time.Since(sealed[0].At) > time.Hour {
		t.Errorf("Sealed: %v, %v", sealed, err)
	}
	for range 2 { // erasing nothing is not an error
		if err := j.Pending.Erase(t.Context(), "R"); err != nil {
			t.Fatal(err)
		}
	}
	if sealed, err := j.Pending.Sealed(); err != nil || len(sealed) != 0 {
		t.Errorf("Sealed after Erase: %v, %v", sealed, err)
	}
}

// TestSealKeepsWhatSpeaksAgainstTheAnswer: a process that finds the answer after a crash decides the same,
// and the other secrets of the answer can be recovered. The largest answer of that kind fits into the
// reserved space.
func TestSealKeepsWhatSpeaksAgainstTheAnswer(t *testing.T) {
	j := open(t, statedir.Options{Dir: stateDir(t)})
	full := issued
	full.Facts.Name, full.Objection = strings.Repeat("n", 255), strings.Repeat("o", 303)
	for range 4 {
		full.Others = append(full.Others, rotation.Credential{ClientID: strings.Repeat("c", 60), ClientSecret: secret.New(canary)})
	}
	key := rotation.PendingKey{RotationID: "R", Token: "ci"}
	if err := j.Pending.Reserve(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the same again changes nothing
		if err := j.Pending.Seal(t.Context(), key, full); err != nil {
			t.Fatal(err)
		}
	}
	got, ok, err := j.Pending.Open(t.Context(), "R")
	if err != nil || !ok || got.Objection != full.Objection || len(got.Others) != 4 ||
		got.Others[3].ClientID != full.Others[3].ClientID || !got.Others[3].ClientSecret.Equal(secret.New(canary)) {
		t.Errorf("opened %+v, %t, %v", got, ok, err)
	}
}

func TestLostIdentity(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	identity := filepath.Join(o.Dir, "identity.age")
	_ = j.Close()
	if err := os.Remove(identity); err != nil {
		t.Fatal(err)
	}
	j = open(t, o) // nothing is sealed, so a new one is as good
	if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "R", Token: "ci"}, issued); err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	if err := os.Remove(identity); err != nil {
		t.Fatal(err)
	}
	if _, err := statedir.Open(o); err == nil || !strings.Contains(err.Error(), "1 sealed secrets wait that only it can open") {
		t.Errorf("opening without the identity: %v", err)
	}
	if _, err := os.Stat(identity); !errors.Is(err, os.ErrNotExist) {
		t.Error("a new identity was made")
	}
	other, _ := age.GenerateX25519Identity()
	o.Identity = func() (string, error) { return other.String(), nil }
	j = open(t, o)
	if _, _, err := j.Pending.Open(t.Context(), "R"); err == nil || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("a wrong identity opened the secret: %v", err)
	}
}

func TestConfiguredIdentity(t *testing.T) {
	identity, _ := age.GenerateX25519Identity()
	o := statedir.Options{Dir: stateDir(t), Identity: func() (string, error) { return "# comment\n\n" + identity.String() + "\n", nil }}
	j := open(t, o)
	if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "R", Token: "ci"}, issued); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := j.Pending.Open(t.Context(), "R"); !ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "identity.age")); !errors.Is(err, os.ErrNotExist) {
		t.Error("an identity was made although one is configured")
	}
	for text, want := range map[string]string{"": "is empty", "AGE-SECRET-KEY-1CANARY": "not an age X25519 identity"} {
		o := statedir.Options{Dir: stateDir(t), Identity: func() (string, error) { return text, nil }}
		if _, err := statedir.Open(o); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("identity %q: %v", text, err)
		}
	}
}

// TestKilledWhileSealing kills a process again and again while it seals, and opens what it left: every seal
// that it reported as done is there.
func TestKilledWhileSealing(t *testing.T) {
	if dir := os.Getenv("STATEDIR_TEST_DIR"); dir != "" {
		j, err := statedir.Open(statedir.Options{Dir: dir})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		for i := 0; ; i++ {
			id := fmt.Sprint("R", i)
			key := rotation.PendingKey{RotationID: id, Token: "ci"}
			if err := errors.Join(j.Pending.Reserve(t.Context(), key), j.Pending.Seal(t.Context(), key, issued)); err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			fmt.Println(id)
		}
	}
	if testing.Short() {
		t.Skip("starts and kills processes")
	}
	for round := range 5 {
		dir := stateDir(t)
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWhileSealing$")
		cmd.Env = append(os.Environ(), "STATEDIR_TEST_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var done []string
		for len(done) < 20+7*round {
			var line string
			if _, err := fmt.Fscanln(out, &line); err != nil {
				t.Fatal(err)
			}
			done = append(done, line)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		j := open(t, statedir.Options{Dir: dir})
		for _, id := range done {
			if got, ok, err := j.Pending.Open(t.Context(), id); err != nil || !ok || !got.ClientSecret.Equal(issued.ClientSecret) {
				t.Fatalf("round %d: %s was reported as sealed and is not there: %t, %v", round, id, ok, err)
			}
		}
	}
}
