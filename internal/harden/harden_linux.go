// Package harden keeps the memory of this process away from other programs of the same user, and from the disk.
//
// Guarantees, on Linux, after [Process] has returned nil:
//
//   - No core file is written of this process, by whatever signal or fault it ends, also where the kernel hands core files
//     to a program (systemd-coredump), which is not bound by RLIMIT_CORE.
//   - Only a process with CAP_SYS_PTRACE, usually root, can attach to it, read its memory, or read its environment and its open
//     files below /proc. The same user cannot. No other user ever could.
//
// It does not protect against root, against swap, or against a copy of the whole machine's memory.
//
// Programs that this process starts can be read by the same user again, because the kernel resets the first of both settings when it
// loads a program. They write no core file either.
package harden

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Process protects this process. Call it before a secret is read. What was in the environment when the process started could be
// read by the same user until then.
//
// An error says which protection is missing. The others are in force.
func Process() error {
	return errors.Join(notDumpable(), noCore())
}

// notDumpable also moves the files below /proc/PID to root, of which the kernel then asks for CAP_SYS_PTRACE.
func notDumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("other programs of this user can read the memory of this process, because the kernel refused prctl(PR_SET_DUMPABLE): %w", err)
	}
	return nil
}

func noCore() error {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &now); err == nil && now.Max == 0 {
		return nil // the sandbox of a service has set it, and may refuse setrlimit
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("this process may write a core file, because the kernel refused setrlimit(RLIMIT_CORE): %w", err)
	}
	return nil
}
