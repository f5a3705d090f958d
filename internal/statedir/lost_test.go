package statedir_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"

	"rotatord/internal/pending"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// used creates a directory that a daemon has used, and in which no secret waits.
func used(t *testing.T, o statedir.Options) {
	t.Helper()
	j := open(t, o)
	if _, err := j.Ledger.Save(t.Context(), rotation.Record{Format: rotation.RecordFormat, Token: "ci"}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// losses are the ways to lose a ledger file, and what the error says.
var losses = map[string]struct {
	lose func(t *testing.T, path string)
	want string
}{
	"missing": {func(*testing.T, string) {}, "is missing although"},
	"empty":   {func(t *testing.T, path string) { write(t, path, nil) }, "is empty although"},
	"new": {func(t *testing.T, path string) {
		db, err := bbolt.Open(path, 0o600, nil)
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}, "is new although"},
	"nonsense": {func(t *testing.T, path string) { write(t, path, []byte(strings.Repeat("nonsense", 2048))) }, "is damaged"},
	"a directory": {func(t *testing.T, path string) {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}, "is a directory and must be a regular file"},
	"a FIFO": {func(t *testing.T, path string) {
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}, "is a named pipe (FIFO) and must be a regular file"},
	"a socket": {func(t *testing.T, path string) {
		short := filepath.Join(os.TempDir(), "rotatord-journal-socket")
		_ = os.Remove(short)
		l, err := net.Listen("unix", short)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		_ = l.Close()
		if err := os.Rename(short, path); err != nil {
			t.Skip(err) // another file system
		}
	}, "is a socket and must be a regular file"},
	"a link to nowhere": {func(t *testing.T, path string) {
		if err := os.Symlink("/nowhere/journal.db", path); err != nil {
			t.Fatal(err)
		}
	}, "leads nowhere"},
}

// TestLostLedger loses a ledger in each way, together with other evidence that there was one, while at least
// one piece of evidence is left. No daemon starts. An operator can begin a new ledger; the rest of the old
// one is kept; then the daemon starts.
func TestLostLedger(t *testing.T) {
	for name, loss := range losses {
		for also, remove := range map[string][]string{
			"":                             nil,
			" and pending":                 {"pending"},
			" and the mark":                {"in-use"},
			" and the identity":            {"identity.age"},
			" and all but the identity":    {"pending", "in-use"},
			" and all but the mark":        {"pending", "identity.age"},
			" and all but pending":         {"in-use", "identity.age"}, // as if an operator had configured an identity elsewhere
			" and what an upgrade made it": {"in-use"},
		} {
			if also != "" && name != "missing" && name != "empty" && also != " and all but the mark" {
				continue // they differ in the file, which is refused itself
			}
			if name == "new" && also == " and all but pending" {
				continue // an interrupted first start of an older version looks like this
			}
			t.Run(name+also, func(t *testing.T) {
				o := statedir.Options{Dir: stateDir(t)}
				used(t, o)
				path := filepath.Join(o.Dir, "journal.db")
				for _, gone := range append([]string{"journal.db"}, remove...) {
					if err := os.RemoveAll(filepath.Join(o.Dir, gone)); err != nil {
						t.Fatal(err)
					}
				}
				loss.lose(t, path)
				_, err := statedir.Open(o)
				if err == nil {
					t.Fatal("it was opened")
				}
				for _, want := range []string{path, loss.want} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not in: %v", want, err)
					}
				}
				if refusal := statedir.Refusal(o.Dir); refusal == nil || refusal.Error() != err.Error() {
					t.Errorf("from outside: %v", refusal)
				}
				if in, err := statedir.Inspect(o.Dir); err != nil || in.LedgerErr == nil || len(in.Sealed) != 0 {
					t.Errorf("Inspect: %+v, %v", in, err)
				}
				begun, err := statedir.BeginAgain(o.Dir)
				if err != nil {
					t.Fatal(err)
				}
				if name != "missing" {
					if _, err := os.Lstat(filepath.Join(begun.Aside, "journal.db")); err != nil {
						t.Errorf("the old ledger is not kept: %v", err)
					}
				}
				j := open(t, o)
				if all, err := j.Ledger.All(t.Context()); err != nil || len(all) != 0 {
					t.Errorf("%v, %v", all, err)
				}
				_ = j.Close()
				if _, err := statedir.BeginAgain(o.Dir); err == nil || !strings.Contains(err.Error(), "is not lost") {
					t.Errorf("and again: %v", err)
				}
			})
		}
	}
}

// TestBeginAgainKeepsSecrets: sealed secrets are moved aside, and can be opened there.
func TestBeginAgainKeepsSecrets(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	key := rotation.PendingKey{RotationID: "R", Token: "ci"}
	if err := errors.Join(j.Pending.Reserve(t.Context(), key), j.Pending.Seal(t.Context(), key, issued), j.Close()); err != nil {
		t.Fatal(err)
	}
	remove(t, filepath.Join(o.Dir, "journal.db"))
	begun, err := statedir.BeginAgain(o.Dir)
	if err != nil || begun.Sealed != 1 {
		t.Fatalf("%+v, %v", begun, err)
	}
	in, err := statedir.Inspect(begun.Aside)
	if err != nil {
		t.Fatal(err)
	}
	identities, err := pending.ReadIdentities(statedir.IdentityFile(o.Dir), o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := in.Open("R", identities); err != nil || !got.ClientSecret.Equal(issued.ClientSecret) {
		t.Errorf("%v", err)
	}
	if sealed, err := open(t, o).Pending.Sealed(); err != nil || len(sealed) != 0 {
		t.Errorf("%v, %v", sealed, err)
	}
}

// TestBeginAgainRefuses where no new ledger is needed, and while a daemon runs, even if its ledger was
// deleted.
func TestBeginAgainRefuses(t *testing.T) {
	if _, err := statedir.BeginAgain(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a directory that does not exist")
	}
	if _, err := statedir.BeginAgain(t.TempDir()); err == nil || !strings.Contains(err.Error(), "was never used") {
		t.Errorf("an empty directory: %v", err)
	}
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	if _, err := statedir.BeginAgain(o.Dir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("beside a daemon: %v", err)
	}
	if err := errors.Join(j.Present(), statedir.Refusal(o.Dir), statedir.Refusal(filepath.Join(o.Dir, "none"))); err != nil {
		t.Error(err)
	}
	remove(t, filepath.Join(o.Dir, "journal.db"))
	if _, err := statedir.BeginAgain(o.Dir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("beside a daemon without its ledger: %v", err)
	}
	if err := statedir.Drop(o.Dir, "R"); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Drop: %v", err)
	}
	if err := j.Present(); err == nil || !strings.Contains(err.Error(), "deleted under the running daemon") {
		t.Errorf("the daemon does not notice: %v", err)
	}
	if err := j.Pending.Reserve(t.Context(), rotation.PendingKey{RotationID: "R", Token: "ci"}); err == nil || !strings.Contains(err.Error(), "deleted under") {
		t.Errorf("a rotation could begin: %v", err)
	}
	write(t, filepath.Join(o.Dir, "journal.db"), nil)
	if err := j.Present(); err == nil || !strings.Contains(err.Error(), "was replaced under the running daemon") {
		t.Errorf("the daemon does not notice: %v", err)
	}
}

// TestMarkOfOlderInstallations: the directory of an older version gets a mark when it is opened, and a full
// disk does not prevent that it is opened.
func TestMarkOfOlderInstallations(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	used(t, o)
	mark := filepath.Join(o.Dir, "in-use")
	remove(t, mark)
	_ = open(t, o).Close()
	if text := string(read(t, mark)); !strings.Contains(text, "Do not remove this file") {
		t.Errorf("%q", text)
	}
}

// TestOthersMayNotWrite: neither another user nor a group of others may change the state.
func TestOthersMayNotWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to other users")
	}
	const stranger = 1001
	chown := func(t *testing.T, path string) {
		t.Helper()
		if err := os.Lchown(path, stranger, stranger); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		spoil func(t *testing.T, dir string) string // returns the directory to open
		want  string
	}{
		"the directory is another's": {func(t *testing.T, dir string) string { chown(t, dir); return dir }, "belongs to uid 1001"},
		"a strange group may write": {func(t *testing.T, dir string) string {
			chmod(t, dir, 0o770)
			if err := os.Chown(dir, 0, stranger); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "can be changed by the group 1001"},
		"the link is another's": {func(t *testing.T, dir string) string {
			link := dir + "-link"
			if err := os.Symlink(dir, link); err != nil {
				t.Fatal(err)
			}
			chown(t, link)
			return link
		}, "symbolic link that belongs to uid 1001"},
		"pending is another's":      {func(t *testing.T, dir string) string { chown(t, filepath.Join(dir, "pending")); return dir }, "pending belongs to uid 1001"},
		"the ledger is another's":   {func(t *testing.T, dir string) string { chown(t, filepath.Join(dir, "journal.db")); return dir }, "journal.db belongs to uid 1001"},
		"the identity is another's": {func(t *testing.T, dir string) string { chown(t, filepath.Join(dir, "identity.age")); return dir }, "identity.age belongs to uid 1001"},
		"pending is a file": {func(t *testing.T, dir string) string {
			if err := os.Remove(filepath.Join(dir, "pending")); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "pending"), nil)
			return dir
		}, "pending is a regular file and must be a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			o := statedir.Options{Dir: stateDir(t)}
			used(t, o)
			o.Dir = test.spoil(t, o.Dir)
			if _, err := statedir.Open(o); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	// And what systemd creates for DynamicUser=: a link that belongs to root.
	o := statedir.Options{Dir: stateDir(t)}
	used(t, o)
	if err := os.Symlink(o.Dir, o.Dir+"-link"); err != nil {
		t.Fatal(err)
	}
	o.Dir += "-link"
	_ = open(t, o)
}

// TestRefusalForAnotherUser: root checks the state directory of a service, which belongs to another user.
// Root must not be told that it should own it.
func TestRefusalForAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	o := statedir.Options{Dir: stateDir(t)}
	used(t, o)
	give := func(name string, uid int) {
		t.Helper()
		if err := os.Chown(filepath.Join(o.Dir, name), uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		give(e.Name(), 64000)
	}
	give(".", 64000)
	if err := statedir.Refusal(o.Dir); err != nil {
		t.Errorf("all belongs to the service: %v", err)
	}
	give("journal.db", 64001)
	if err := statedir.Refusal(o.Dir); err == nil || !strings.Contains(err.Error(), "belongs to uid 64001") {
		t.Errorf("the ledger belongs to a third user: %v", err)
	}
}
