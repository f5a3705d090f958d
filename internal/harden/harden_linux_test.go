package harden_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"rotatord/internal/harden"
)

// The roles of this test binary, in the variable roleName.
const (
	roleName = "HARDEN_TEST_ROLE"
	plain    = "plain"    // waits as it was started
	hardened = "hardened" // waits after harden.Process
	reader   = "reader"   // tries to read the process in readName
	readName = "HARDEN_TEST_READ"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleName) {
	case hardened:
		if err := harden.Process(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		wait()
	case plain:
		wait()
	case reader:
		read(os.Getenv(readName))
	default:
		os.Exit(m.Run())
	}
}

// wait says that it is ready and waits for the end of its input.
func wait() {
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

// read prints the name of each thing of a process that can be read.
func read(pid string) {
	dir := filepath.Join("/proc", pid)
	for _, name := range []string{"environ", "mem"} {
		if f, err := os.Open(filepath.Join(dir, name)); err == nil {
			fmt.Println(name)
			_ = f.Close()
		}
	}
	if _, err := os.ReadDir(filepath.Join(dir, "fd")); err == nil {
		fmt.Println("fd")
	}
	id, err := strconv.Atoi(pid)
	if err == nil && unix.PtraceSeize(id) == nil {
		fmt.Println("ptrace")
	}
	os.Exit(0)
}

// as returns a command that runs this binary in a role, as a user without rights.
func as(t *testing.T, uid uint32, role string, environment ...string) *exec.Cmd {
	// With a umask of 077, go test builds a binary that another user may not run.
	if err := os.Chmod("/proc/self/exe", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append([]string{roleName + "=" + role, "GOTRACEBACK=crash"}, environment...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// begin starts a process that waits, and returns when it is ready.
func begin(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("it says %q, %v", line, err)
	}
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become two other users")
	}
}

const service, stranger = 65533, 65534

// TestOnlyRootReads has the same user, another user and root read a process.
func TestOnlyRootReads(t *testing.T) {
	needsRoot(t)
	for _, c := range []struct {
		role   string
		reader uint32
		want   []string
	}{
		{plain, service, []string{"environ", "mem", "fd", "ptrace"}}, // so the test can see it
		{plain, stranger, nil},
		{hardened, service, nil},
		{hardened, stranger, nil},
	} {
		t.Run(fmt.Sprintf("%s read by %d", c.role, c.reader), func(t *testing.T) {
			waiting := as(t, service, c.role)
			begin(t, waiting)
			out, err := as(t, c.reader, reader, fmt.Sprintf("%s=%d", readName, waiting.Process.Pid)).Output()
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Fields(string(out)); !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
				t.Errorf("it can read %q, want %q", got, c.want)
			}
			if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", waiting.Process.Pid)); err != nil {
				t.Errorf("root cannot: %v", err) // an operator may need a debugger
			}
		})
	}
}

// TestNoCore ends processes by a signal that has the kernel write a core file.
func TestNoCore(t *testing.T) {
	needsRoot(t)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &before); err != nil {
		t.Fatal(err)
	}
	// Children inherit it: what prevents a core file is what the process does itself.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		t.Skipf("core files cannot be allowed here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_CORE, &before) })
	dumps := func(role string) (dumped bool, files []string) {
		t.Helper()
		cmd := as(t, service, role)
		cmd.Dir = t.TempDir()
		for dir := cmd.Dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		begin(t, cmd)
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
		if zero := strings.Contains(string(limits), "Max core file size        0                    0"); err != nil || zero != (role == hardened) {
			t.Errorf("the limits of a %s process: %v\n%s", role, err, limits)
		}
		if err := cmd.Process.Signal(syscall.SIGABRT); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it ends by the signal
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() {
			t.Fatalf("it was not ended by a signal: %s", cmd.ProcessState)
		}
		files, err = filepath.Glob(filepath.Join(cmd.Dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return status.CoreDump(), files
	}
	if dumped, files := dumps(hardened); dumped || len(files) > 0 {
		t.Errorf("a core was written: %t, %q", dumped, files)
	}
	if dumped, _ := dumps(plain); !dumped {
		t.Skip("this system writes no core file of any process, so the above proves nothing")
	}
}
