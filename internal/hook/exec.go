package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rotatord/internal/config"
)

// SearchPath is where programs without a slash are searched. Programs get it as PATH.
const SearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const (
	// killAfter is how long after SIGTERM the process group of a program gets SIGKILL.
	killAfter = 2 * time.Second
	// outputWait is how long its output is read after its end or after SIGTERM, if a process that it has started still
	// holds it.
	outputWait = killAfter + time.Second
	// maxOutput is how much of the end of the output is kept, and shownOutput how much of that an error shows.
	maxOutput   = 8 << 10
	shownOutput = 400
)

// Exec implements [config.HookKinds].
func (o *opener) Exec(c *config.ExecHook) { o.opened = &program{c} }

// program runs a program of this machine.
type program struct{ config *config.ExecHook }

// Run implements [Hook]. The program gets no secret, no file descriptors but for an empty input and its output, the root
// as its directory, and a process group of its own, which is ended as a whole.
func (p *program) Run(ctx context.Context, items []Item) error {
	path, err := LookUp(p.config.Command[0])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	out := &tail{limit: maxOutput}
	cmd := exec.CommandContext(ctx, path, p.config.Command[1:]...)
	cmd.Args[0] = p.config.Command[0]
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", environment(items), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = outputWait
	ended := make(chan struct{})
	cmd.Cancel = func() error {
		group := -cmd.Process.Pid
		err := syscall.Kill(group, syscall.SIGTERM)
		time.AfterFunc(killAfter, func() {
			select {
			case <-ended: // the number may be another group's by now, unless a part of this one is left
			default:
				_ = syscall.Kill(group, syscall.SIGKILL)
			}
		})
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	closeInherited()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s cannot be started: %w", path, err)
	}
	group := -cmd.Process.Pid
	err = cmd.Wait()
	if ctx.Err() != nil { // its leader has ended; what it has started is still in the group, so the number is taken
		_ = syscall.Kill(group, syscall.SIGKILL)
	}
	close(ended)
	return p.failure(ctx, err, out)
}

// closeInherited keeps programs from the files that this process got from the one that started it. Files that Go opens are
// not given to programs anyway.
func closeInherited() {
	open, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// failure returns the error of a run, with the end of the output.
func (p *program) failure(ctx context.Context, err error, out *tail) error {
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("it was ended after %s, the timeout of the hook%s", p.config.Timeout, out.shown())
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, exec.ErrWaitDelay): // it has succeeded, and a process that it has started holds its output
		return nil
	case exited && exit.Exited():
		return fmt.Errorf("it ended with exit status %d%s", exit.ExitCode(), out.shown())
	case exited:
		return fmt.Errorf("it was ended by a signal (%s)%s", exit.ProcessState, out.shown())
	default:
		return fmt.Errorf("it could not be run to its end: %w%s", err, out.shown())
	}
}

// Check implements [Hook].
func (p *program) Check(context.Context) error {
	_, err := LookUp(p.config.Command[0])
	return err
}

// environment is all that a program learns.
func environment(items []Item) []string {
	return []string{
		"PATH=" + SearchPath,
		"ROTATORD_TOKEN=" + joined(items, func(i Item) string { return i.Token }),
		"ROTATORD_ROTATION_ID=" + joined(items, func(i Item) string { return i.RotationID }),
		"ROTATORD_DIGEST=" + joined(items, func(i Item) string { return string(i.Digest) }),
		"ROTATORD_ATTEMPT=" + strconv.Itoa(attempt(items)),
	}
}

// LookUp returns the path of a program. The error says why this process cannot run it.
func LookUp(program string) (path string, err error) {
	if strings.HasPrefix(program, "/") {
		return program, runnable(program)
	}
	for _, dir := range filepath.SplitList(SearchPath) {
		path := filepath.Join(dir, program)
		switch err := runnable(path); {
		case err == nil:
			return path, nil
		case !errors.Is(err, os.ErrNotExist):
			return "", err
		}
	}
	return "", fmt.Errorf("there is no program %s in %s: install it, or write its absolute path", program, SearchPath)
}

func runnable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("the program cannot be found: %w", err)
	case info.IsDir():
		return fmt.Errorf("%s is a directory and not a program", path)
	case syscall.Access(path, 1) != nil: // X_OK
		return fmt.Errorf("the user of the daemon (uid %d) may not run %s, which has mode %s", os.Getuid(), path, info.Mode().Perm())
	}
	return nil
}
