package statedir_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// put writes something into a closed ledger that no ledger writes.
func put(t *testing.T, dir, bucket, key, value string) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "journal.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// TestRefusals opens directories that must be refused. The error must name the reason and say what to do.
func TestRefusals(t *testing.T) {
	key := rotation.PendingKey{RotationID: "R", Token: "ci"}
	for name, tc := range map[string]struct {
		damage func(t *testing.T, dir string) // changes a good directory in which one secret waits
		want   []string
	}{
		"directory open to everybody": {func(t *testing.T, dir string) { chmod(t, dir, 0o755) }, []string{"state is open", "0755", "run chmod 0700"}},
		"pending open to everybody": {func(t *testing.T, dir string) { chmod(t, filepath.Join(dir, "pending"), 0o701) },
			[]string{"pending is open", "run chmod 0700"}},
		"ledger open to everybody": {func(t *testing.T, dir string) { chmod(t, filepath.Join(dir, "journal.db"), 0o604) },
			[]string{"journal.db is open", "run chmod 0600"}},
		"identity open to everybody": {func(t *testing.T, dir string) { chmod(t, filepath.Join(dir, "identity.age"), 0o644) },
			[]string{"identity.age is open", "run chmod 0600"}},
		"newer version": {func(t *testing.T, dir string) { put(t, dir, "meta", "format", "4") }, []string{"journal.db", "use the version that wrote it"}},
		"not a journal": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "journal.db"), bytes.Repeat([]byte("nonsense"), 4096))
		}, []string{"journal.db is damaged", "no bbolt file", "Restore the state directory from a backup", "rotatord recover"}},
		"another bbolt file": {func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "journal.db"))
			db, err := bbolt.Open(filepath.Join(dir, "journal.db"), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
		}, []string{"journal.db is damaged", "a bucket is missing"}},
		"a record is missing from the ledger": {func(t *testing.T, dir string) {
			db, err := bbolt.Open(filepath.Join(dir, "journal.db"), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("ledger")).Delete([]byte("ci")) })
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
		}, []string{"journal.db is damaged", "does not contain what was written last"}},
		"a record without its checksum": {func(t *testing.T, dir string) { put(t, dir, "ledger", "ci", `{"format":2,"token":"ci"}`) },
			[]string{"record of ci in journal.db is damaged", "wrong checksum"}},
		"empty ledger": {func(t *testing.T, dir string) { write(t, filepath.Join(dir, "journal.db"), nil) },
			[]string{"journal.db is empty, and 1 sealed secrets wait", "restore it from a backup"}},
		"lost ledger": {func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "journal.db")) },
			[]string{"journal.db is missing, and 1 sealed secrets wait", "restore it from a backup", "rotatord recover --state-dir"}},
		"lost identity": {func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "identity.age")) },
			[]string{"1 sealed secrets wait that only it can open"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := statedir.Options{Dir: stateDir(t)}
			j := open(t, o)
			if _, err := j.Ledger.Save(t.Context(), rotation.Record{Format: rotation.RecordFormat, Token: "ci"}); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(j.Pending.Reserve(t.Context(), key), j.Pending.Seal(t.Context(), key, issued), j.Close()); err != nil {
				t.Fatal(err)
			}
			tc.damage(t, o.Dir)
			before := content(t, o.Dir)
			_, err := statedir.Open(o)
			if err == nil {
				t.Fatal("it was opened")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			if after := content(t, o.Dir); after != before {
				t.Errorf("it was refused and changed:\n%s\n%s", before, after)
			}
		})
	}
}

// content describes a directory so that every change shows.
func content(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %o %x\n", path, info.Mode(), hash(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// TestFirstStart opens directories in which nothing is lost although a file is missing.
func TestFirstStart(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"nothing": func(*testing.T, string) {},
		"an identity that an operator provided": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "identity.age"), ofAnOperator(t))
		},
		"a first start that was cut short before anything was written": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "journal.db"), nil)
		},
		"a first start that was cut short before its first transaction": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "identity.age"), ofAnOperator(t))
			db, err := bbolt.Open(filepath.Join(dir, "journal.db"), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = db.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := statedir.Options{Dir: stateDir(t)}
			prepare(t, o.Dir)
			if all, err := open(t, o).Ledger.All(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("%v, %v", all, err)
			}
		})
	}
}

// ofAnOperator returns an identity as age-keygen writes it.
func ofAnOperator(t *testing.T) []byte {
	t.Helper()
	_, rest, _ := bytes.Cut(read(t, "testdata/format1/identity.age"), []byte("\n"))
	return append([]byte("# created: 2026-11-28T12:00:00Z\n"), rest...)
}

func TestNewerRecord(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	if _, err := j.Ledger.Save(t.Context(), rotation.Record{Format: 99, Token: "ci"}); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Ledger.Load(t.Context(), "ci"); err == nil || !strings.Contains(err.Error(), "use the version that wrote it") {
		t.Errorf("%v", err)
	}
	if _, err := j.Ledger.Save(t.Context(), rotation.Record{Token: "ci", Revision: 1}); err == nil {
		t.Error("a record of a newer version was overwritten")
	}
	_ = j.Close()
	if _, err := statedir.Open(o); err == nil || !strings.Contains(err.Error(), "use the version that wrote it") {
		t.Errorf("%v", err)
	}
}

func TestUnusableNames(t *testing.T) {
	j := open(t, statedir.Options{Dir: stateDir(t)})
	for _, id := range []string{"", ".", "..", "../R", "a/b", "/etc/passwd", ".new-1", "a.b", "a\x00b", "a b", strings.Repeat("R", 200)} {
		key := rotation.PendingKey{RotationID: id, Token: "ci"}
		_, _, openErr := j.Pending.Open(t.Context(), id)
		for what, err := range map[string]error{
			"Reserve": j.Pending.Reserve(t.Context(), key), "Seal": j.Pending.Seal(t.Context(), key, issued),
			"Open": openErr, "Erase": j.Pending.Erase(t.Context(), id),
		} {
			if err == nil || !strings.Contains(err.Error(), "is not a rotation ID") {
				t.Errorf("%s of %q: %v", what, id, err)
			}
		}
	}
	if err := j.Pending.Reserve(t.Context(), rotation.PendingKey{RotationID: "R", Token: strings.Repeat("ci", 4096)}); err == nil {
		t.Error("space was reserved for a token whose name does not fit")
	}
}

// TestSecondProcess lets another process have the directory open.
func TestSecondProcess(t *testing.T) {
	if dir := os.Getenv("STATEDIR_TEST_HOLD"); dir != "" {
		j, err := statedir.Open(statedir.Options{Dir: dir})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("open")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until our parent closes it
		_ = j.Close()
		os.Exit(0)
	}
	dir := stateDir(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestSecondProcess$")
	cmd.Env = append(os.Environ(), "STATEDIR_TEST_HOLD="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "open\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	o := statedir.Options{Dir: dir, LockTimeout: 10 * time.Millisecond}
	if _, err := statedir.Open(o); err == nil || !strings.Contains(err.Error(), "is a second rotatord running") {
		t.Errorf("Open: %v", err)
	}
	if _, err := statedir.ReadLedger(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "in use by a running daemon") {
		t.Errorf("ReadLedger: %v", err)
	}
	if _, err := statedir.Inspect(dir); err == nil || !strings.Contains(err.Error(), "in use by a running daemon") {
		t.Errorf("Inspect: %v", err)
	}
	if err := statedir.Drop(dir, "R"); err == nil || !strings.Contains(err.Error(), "in use by a running daemon") {
		t.Errorf("Drop: %v", err)
	}
	if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	open(t, statedir.Options{Dir: dir})
}
