package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/failpoint"
	"rotatord/internal/rotation"
)

const (
	// killAfter is how long after SIGTERM the process group of a program gets SIGKILL.
	killAfter = 2 * time.Second
	// outputWait is how long its output is read after its end or after SIGTERM, if a process that it has started still
	// holds it.
	outputWait = killAfter + time.Second
	// hangWait is how long after its timeout a run is waited for.
	hangWait = outputWait + 2*time.Second
	// maxOutput is how much of the end of the output is kept, and shownOutput how much of that an error shows.
	maxOutput   = 8 << 10
	shownOutput = 400
)

// Exec implements [config.HookKinds].
func (o *opener) Exec(c *config.ExecHook) { o.opened = &program{config: c} }

// program runs a program of this machine.
type program struct {
	config  *config.ExecHook
	hanging atomic.Int32 // runs that could not be ended
}

// Run implements [Hook]. The program gets no secret, no file descriptors but for an empty input and its output, the root
// as its directory, and a process group of its own, which is ended as a whole.
func (p *program) Run(ctx context.Context, items []Item) error {
	if p.hanging.Load() > 0 {
		return errors.New("the run before it still hangs in the kernel, which does not end it: look for its process in state D (ps -eo pid,stat,wchan,args)")
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	return p.bounded(ctx, func() error { return p.run(ctx, items) })
}

// bounded calls run, and returns at the latest some seconds after the end of ctx. The kernel may hold a process, or this one,
// for as long as a network file system is away, and no signal ends that.
func (p *program) bounded(ctx context.Context, run func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(hangWait):
		p.hanging.Add(1)
		go func() { <-ended; p.hanging.Add(-1) }()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("it hangs in the kernel and was not ended by SIGKILL, %s after the timeout of the hook (%s): is a network file system away?", hangWait, p.config.Timeout)
		}
		return ctx.Err()
	}
}

// run runs the program to its end.
func (p *program) run(ctx context.Context, items []Item) error {
	path, err := LookUp(p.config.Command[0], nil)
	if err != nil {
		return err
	}
	out := &tail{limit: maxOutput}
	cmd := exec.CommandContext(ctx, path, p.config.Command[1:]...)
	cmd.Args[0] = p.config.Command[0]
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", environment(items), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = outputWait
	ended := make(chan struct{})
	var cut atomic.Bool
	cmd.Cancel = func() error {
		if err := cmd.Process.Signal(syscall.Signal(0)); errors.Is(err, os.ErrProcessDone) {
			return err // only its output is waited for
		}
		cut.Store(true)
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
	if err := rotation.MaySend(ctx); err != nil {
		return err
	}
	failpoint.Reach("hook.effect.before")
	if err := cmd.Start(); err != nil {
		return p.notStarted(ctx, path, err)
	}
	failpoint.Reach("hook.effect.after")
	group := -cmd.Process.Pid
	err = cmd.Wait()
	if cut.Load() { // its leader has ended; what it has started is still in the group, so the number is taken
		_ = syscall.Kill(group, syscall.SIGKILL)
	}
	close(ended)
	if !cut.Load() {
		ctx = context.WithoutCancel(ctx)
	}
	return p.failure(ctx, err, out)
}

// notStarted returns the error of a program that the kernel did not start.
func (p *program) notStarted(ctx context.Context, path string, err error) error {
	switch {
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return ctx.Err()
	case errors.Is(err, syscall.ETXTBSY):
		return fmt.Errorf("%s is being written: replace it by a rename, so that it is never half there", path)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%s is not in a format that this machine runs: was it built for another processor?", path)
	}
	return fmt.Errorf("%s cannot be started: %w", path, err)
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

// failure returns the error of a run, with the end of the output. ctx has ended if the run was ended because of that.
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
		return fmt.Errorf("it ended with exit status %d%s%s", exit.ExitCode(), exitMeaning[exit.ExitCode()], out.shown())
	case exited:
		return fmt.Errorf("it was ended by a signal (%s)%s", exit.ProcessState, out.shown())
	default:
		return fmt.Errorf("it could not be run to its end: %w%s", err, out.shown())
	}
}

// exitMeaning is what shells, env and timeout mean by a status.
var exitMeaning = map[int]string{
	126: " (to a shell: a program was found and could not be run)",
	127: " (to a shell: a program was not found)",
}

// Check implements [Hook].
func (p *program) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	checked := &program{config: p.config} // beside a run
	return checked.bounded(ctx, func() error {
		_, err := LookUp(p.config.Command[0], nil)
		return err
	})
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
