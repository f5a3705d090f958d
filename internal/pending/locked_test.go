package pending_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rotatord/internal/ageplugin/ageplugintest"
	"rotatord/internal/pending"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

func TestMain(m *testing.M) {
	ageplugintest.Main()
	os.Exit(m.Run())
}

func heldBy(text string) func() (string, error) { return func() (string, error) { return text, nil } }

// TestLocked: a directory whose identity becomes one that a program holds loses nothing, and opens nothing without the program.
func TestLocked(t *testing.T) {
	ageplugintest.Install(t)
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "before", Token: "ci"}, issued); err != nil {
		t.Fatal(err)
	}
	key := j.Pending.PublicKey()
	_ = j.Close()

	text := ageplugintest.Identity(t, ageplugintest.Good)
	locked := o
	locked.Identity = heldBy(text)
	j = open(t, locked)
	if j.Pending.PublicKey() != key {
		t.Error("other replicas would seal to a key that is gone")
	}
	// From now on the program is not asked: a device that goes away delays no answer.
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "after", Token: "ci"}, issued); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"before", "after"} {
		if got, ok, err := j.Pending.Open(t.Context(), id); err != nil || !ok || got.ClientSecret.Reveal() != issued.ClientSecret.Reveal() {
			t.Errorf("%s: %t, %v", id, ok, err)
		}
	}
	_ = j.Close()
	if _, err := statedir.Open(locked); err == nil || !strings.Contains(err.Error(), "age-plugin-rotatordtest") {
		t.Errorf("without the program: %v", err)
	}
	t.Setenv("PATH", path)

	// The identity that is not locked is removed, and recover has what it needs.
	if removed, err := pending.RemoveIdentity(statedir.IdentityFile(o.Dir), text); err != nil || !removed {
		t.Fatalf("%t, %v", removed, err)
	}
	file := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	identities, err := pending.ReadIdentities(file, o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	in, err := statedir.Inspect(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := in.Open("after", identities); err != nil || got.ClientSecret.Reveal() != issued.ClientSecret.Reveal() {
		t.Error(err)
	}
	if _, err := pending.ReadIdentities(file, ""); err == nil || !strings.Contains(err.Error(), "--state-dir") {
		t.Error(err)
	}
	j = open(t, locked)
	if got, ok, err := j.Pending.Open(t.Context(), "before"); err != nil || !ok || got.ClientSecret.Reveal() != issued.ClientSecret.Reveal() {
		t.Errorf("%t, %v", ok, err)
	}
	_ = j.Close()

	// Neither another identity nor a lost file makes a new working key.
	locked.Identity = heldBy(ageplugintest.Identity(t, ageplugintest.Good))
	if _, err := statedir.Open(locked); err == nil || !strings.Contains(err.Error(), "is locked by another identity") {
		t.Errorf("another identity: %v", err)
	}
	if err := os.Remove(filepath.Join(o.Dir, pending.LockedName)); err != nil {
		t.Fatal(err)
	}
	locked.Identity = heldBy(text)
	if _, err := statedir.Open(locked); err == nil || !strings.Contains(err.Error(), "is gone, and 2 sealed secrets wait") {
		t.Errorf("a lost file: %v", err)
	}
}

// TestLockedFirstStart: a program that fails leaves nothing behind, so a later start begins well.
func TestLockedFirstStart(t *testing.T) {
	ageplugintest.Install(t)
	o := statedir.Options{Dir: stateDir(t)}
	for _, how := range []string{ageplugintest.Fails, ageplugintest.Dies} {
		o.Identity = heldBy(ageplugintest.Identity(t, how))
		if d, err := statedir.Open(o); err == nil {
			_ = d.Close()
			t.Errorf("%s: it starts", how)
		}
		if found, _ := filepath.Glob(filepath.Join(o.Dir, "identity*")); len(found) > 0 {
			t.Errorf("%s leaves %q", how, found)
		}
	}
	o.Identity = heldBy(ageplugintest.Identity(t, ageplugintest.Good))
	j := open(t, o)
	if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "R", Token: "ci"}, issued); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(statedir.IdentityFile(o.Dir)); err == nil {
		t.Error("there is an identity that is not locked")
	}
}

// TestLockedFromOpenFile: an identity that other users could read or change does not become the working key.
func TestLockedFromOpenFile(t *testing.T) {
	ageplugintest.Install(t)
	o := statedir.Options{Dir: stateDir(t)}
	_ = open(t, o).Close()
	if err := os.Chmod(statedir.IdentityFile(o.Dir), 0o644); err != nil {
		t.Fatal(err)
	}
	o.Identity = heldBy(ageplugintest.Identity(t, ageplugintest.Good))
	if d, err := statedir.Open(o); err == nil || !strings.Contains(err.Error(), "identity.age is open to every user (mode 0644)") {
		if err == nil {
			_ = d.Close()
		}
		t.Errorf("it starts, or the error is another one: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(o.Dir, pending.LockedName)); err == nil {
		t.Error("it was locked")
	}
}

// TestLockedReplicas: two replicas with a device each name each other in state.recipients. What one has sealed the other opens with its own
// working key, and the device of the first is not asked.
func TestLockedReplicas(t *testing.T) {
	ageplugintest.Install(t)
	// The second by a program that seals to recipients only.
	texts := []string{ageplugintest.Identity(t, ageplugintest.Good), ageplugintest.Identity(t, ageplugintest.ByName)}
	var options []statedir.Options
	var keys []string
	for _, text := range texts {
		o := statedir.Options{Dir: stateDir(t), Identity: heldBy(text)}
		d := open(t, o)
		options, keys = append(options, o), append(keys, d.Pending.PublicKey())
		_ = d.Close()
	}
	if keys[0] == keys[1] {
		t.Fatal("both have the same working key")
	}
	for i, o := range options {
		other := 1 - i
		o.Recipients = []string{keys[other]}
		d := open(t, o)
		if err := d.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "R", Token: "ci"}, issued); err != nil {
			t.Fatal(err)
		}
		_ = d.Close()
		file := filepath.Join(t.TempDir(), "identity")
		write(t, file, []byte(texts[other]))
		identities, err := pending.ReadIdentities(file, options[other].Dir)
		if err != nil {
			t.Fatal(err)
		}
		in, err := statedir.Inspect(o.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := in.Open("R", identities); err != nil || got.ClientSecret.Reveal() != issued.ClientSecret.Reveal() {
			t.Errorf("replica %d does not open what replica %d has sealed: %v", other, i, err)
		}
	}
}
