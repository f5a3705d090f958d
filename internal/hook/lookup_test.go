package hook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLookUp: what the kernel would refuse is named before a run, and what it runs is accepted.
func TestLookUp(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "gone"), link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ program, want string }{
		{"sh", ""},
		{"/bin/sh", ""},
		{self, ""},
		{write("script", "#!/bin/sh\ntrue\n", 0o755), ""},
		{write("path", "#!/usr/bin/env -S PATH=/opt/x:/usr/bin:/bin myinterp\ntrue\n", 0o755), ""}, // env knows
		{write("unset", "#!/usr/bin/env -S -u FOO bash\ntrue\n", 0o755), ""},
		{write("quoted", "#!/usr/bin/env -S \"bash\" -e\ntrue\n", 0o755), ""},
		{write("spaced", "#! /usr/bin/env -S LC_ALL=C sh -e\ntrue\n", 0o755), ""},
		{write("binary", "\x00asm", 0o755), ""}, // the kernel may know the format
		{"no-such-program-of-this-test", "there is no program"},
		{"/no/such/program", "cannot be found"},
		{link, "cannot be found"},
		{dir, "is a directory"},
		{"/dev/null", "is not a file that can be run"},
		{write("plain", "#!/bin/sh\n", 0o644), "is not executable (mode -rw-r--r--): chmod +x"},
		{write("nothing", "", 0o755), "the file is empty"},
		{write("text", "echo ünd\n", 0o755), "without a first line such as #!/bin/sh"},
		{write("cut", strings.Repeat("é", firstLine), 0o755), "without a first line"},
		{write("odd", "x"+strings.Repeat("é", firstLine), 0o755), "without a first line"},
		{write("interpreter", "#!/no/such/interpreter -x\n", 0o755), "its interpreter /no/such/interpreter: the program cannot be found"},
		{write("directory", "#!/etc\n", 0o755), "its interpreter /etc: /etc is a directory"},
		{write("relative", "#!sh\n", 0o755), "the interpreter sh, which is not an absolute path"},
		{write("unnamed", "#! \n", 0o755), "names no interpreter"},
		{write("windows", "#!/bin/sh\r\ntrue\r\n", 0o755), "carriage return"},
		{write("env", "#!/usr/bin/env no-such-interpreter\n", 0o755), "its interpreter no-such-interpreter is not in " + SearchPath},
		{write("damaged", "\x7fELF and no more", 0o755), "the file is damaged"},
	} {
		_, err := LookUp(test.program, nil)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.program, err, test.want)
		}
	}
}

// TestLookUpForAnotherUser: the modes of the program and of the directories above it decide.
func TestLookUpForAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	top := t.TempDir()
	for dir := top; strings.HasPrefix(dir, os.TempDir()) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	closed, script := filepath.Join(top, "closed"), filepath.Join(top, "closed", "script")
	if err := os.Mkdir(closed, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(top, "link")
	if err := os.Symlink(script, link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		dir, mode os.FileMode
		uid, gid  int // the owners
		as        User
		want      string
	}{
		{0o755, 0o755, 0, 0, User{UID: 7, GID: 7}, ""},
		{0o755, 0o744, 0, 0, User{UID: 7, GID: 7}, "uid 7 may not run"},
		{0o755, 0o744, 7, 0, User{UID: 7, GID: 7}, ""},
		{0o755, 0o750, 0, 7, User{UID: 7, GID: 7}, ""},
		{0o755, 0o750, 0, 8, User{UID: 7, GID: 7, Groups: []int{8}}, ""},
		{0o755, 0o605, 0, 7, User{UID: 7, GID: 7}, "uid 7 may not run"}, // the group's bits count for a member
		{0o700, 0o755, 0, 0, User{UID: 7, GID: 7}, "uid 7 may not enter " + closed},
		{0o700, 0o700, 7, 7, User{}, ""}, // root
	} {
		if err := os.Chmod(closed, test.dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(script, test.uid, test.gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(script, test.mode); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{script, link} {
			_, err := LookUp(path, &test.as)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%+v %s: %v", test, path, err)
			}
		}
	}
}
