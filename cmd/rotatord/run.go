package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"rotatord/internal/app"
	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/logqueue"
	"rotatord/internal/ownpath"
	"rotatord/internal/printable"
	"rotatord/internal/profile"
	"rotatord/internal/smallfile"
)

func newRun() *cobra.Command {
	var configPath, webConfig, profileAddr string
	var shutdownTimeout time.Duration
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: `Run the daemon until SIGTERM or SIGINT. After the signal no new rotation starts. Rotations in
progress have --shutdown-timeout to finish; the next start continues those that did not finish.

SIGHUP reloads tokens, defaults, freezes and additional accounts. A configuration that is wrong,
or that needs a restart, is refused as a whole.

A second SIGTERM or SIGINT ends the process at once. Secrets that were received are on disk, but
the answer to a request in progress is lost, and its token is then in doubt.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if shutdownTimeout < 0 {
				return usagef("--shutdown-timeout must not be negative, but is %s", shutdownTimeout)
			}
			if profileAddr != "" {
				if err := profile.Parse(profileAddr); err != nil {
					return usagef("--profile-addr: %s", err)
				}
			}
			defer collectByLoad()()
			lines := queueErrors(cmd)
			return runDaemon(cmd.Context(), configPath, webConfig, profileAddr, shutdownTimeout, cmd.ErrOrStderr(), lines)
		},
	}
	configFlag(cmd, &configPath)
	cmd.Flags().StringVar(&webConfig, "web.config.file", "", "Prometheus web configuration `file` for TLS and basic authentication; /livez and /readyz need no password")
	cmd.Flags().StringVar(&profileAddr, "profile-addr", "", "loopback `address`, as in 127.0.0.1:6060, on which profiles of the process are served; off without it")
	shutdownTimeout = 30 * time.Second
	durationVar(cmd, &shutdownTimeout, "shutdown-timeout", "how long rotations in progress may take to finish")
	return cmd
}

// queueErrors puts a queue before a command's standard error, so that a program that does not read it cannot
// block the daemon. [flushErrors] waits for the queue at the end.
func queueErrors(cmd *cobra.Command) *logqueue.Writer {
	lines := logqueue.New(printable.Unescaped(cmd.ErrOrStderr()), logqueue.Options{})
	cmd.SetErr(printable.NewWriter(lines))
	return lines
}

// flushWithin is how long the end of the daemon may wait for the reader of its log.
const flushWithin = time.Second

// flushErrors waits until a command's queue, if it has one, is written.
func flushErrors(cmd *cobra.Command) {
	if lines, queued := printable.Unescaped(cmd.ErrOrStderr()).(*logqueue.Writer); queued {
		lines.Flush(flushWithin)
	}
}

func runDaemon(ctx context.Context, configPath, webConfig, profileAddr string, shutdownTimeout time.Duration, stderr io.Writer, lines *logqueue.Writer) error {
	hangup := make(chan os.Signal, 1) // before anything else: a SIGHUP during the start must not end the daemon
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	c, err := loadConfig(configPath, stderr)
	if errors.Is(err, errReported) {
		fmt.Fprintln(stderr, "rotatord: nothing was started")
	}
	if err != nil {
		return err
	}
	log, err := newLogger(c.Log, stderr)
	if err != nil {
		return err
	}
	logging := c.Log // and not c: a reload replaces it
	lines.TellMissing(func(w io.Writer, n int) {
		if log, err := newLogger(logging, w); err == nil {
			log.Error("lines are missing in the log, since nothing read it for too long or they could not be written", "lines", n)
		}
	})
	if profileAddr != "" {
		profiles, err := profile.Serve(profileAddr, log)
		if err != nil {
			return fmt.Errorf("--profile-addr: %w; nothing was started", err)
		}
		defer profiles.Close()
		log.Info("profiles are served to this machine", "address", profileAddr)
	}
	warn(log, c)
	warnOfOthers(ctx, log, c)
	a, err := app.New(app.Options{Config: c, Logger: log, Build: build(), WebConfigFile: webConfig})
	if err != nil {
		return err
	}
	a.Start()
	notify(log, daemon.SdNotifyReady)
	watchdog(ctx, log, a)
	defer reloadOn(ctx, hangup, log, a, configPath)()

	var failed error
	select {
	case <-ctx.Done():
		a.Tell(event.Operator(""), event.DaemonStop{Cause: context.Cause(ctx).Error(), Within: shutdownTimeout})
	case failed = <-a.Failed():
		a.Tell(event.Daemon, event.DaemonFailure{Err: failed})
	}
	notify(log, daemon.SdNotifyStopping)
	bound, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err = errors.Join(failed, a.Stop(bound))
	a.Tell(event.Daemon, event.DaemonEnd{})
	return err
}

// loadConfig reads the configuration. It prints faults, one on each line, and then returns errReported.
func loadConfig(path string, stderr io.Writer) (*config.Config, error) {
	c, err := config.Load(path)
	if err == nil {
		return c, nil
	}
	if faults, ok := config.AsFaults(err); ok {
		fmt.Fprintln(stderr, faults.Error())
		fmt.Fprintf(stderr, "rotatord: %d fault(s) in %s\n", len(faults), path)
		return nil, errReported
	}
	return nil, err
}

func newLogger(c config.Log, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}

// notify tells systemd the state of the daemon. Without systemd it does nothing.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd could not be notified", "error", err)
	}
}

// watchdog notifies systemd's watchdog as long as the daemon can schedule.
func watchdog(ctx context.Context, log *slog.Logger, a *app.App) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	go func() {
		ticker := time.NewTicker(interval / 3)
		defer ticker.Stop()
		for {
			alive := true
			for _, check := range a.Live() {
				alive = alive && check.OK
			}
			if alive {
				notify(log, daemon.SdNotifyWatchdog)
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}()
}

// reloadOn reloads the configuration at each signal, until the returned function is called.
func reloadOn(ctx context.Context, hangup <-chan os.Signal, log *slog.Logger, a *app.App, configPath string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				reload(ctx, log, a, configPath)
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// reload reads the configuration file again and has the daemon use it. If that fails, an event says why, and
// the configuration in force stays.
func reload(ctx context.Context, log *slog.Logger, a *app.App, configPath string) {
	ctx = event.WithActor(ctx, event.Actor{Cause: event.ByOperator, Command: "SIGHUP"})
	c, err := config.LoadAgain(ctx, configPath, a.InForce())
	if err != nil {
		a.Refused(ctx, event.ReloadRefusal{Faults: faultsOf(err)})
		return
	}
	warn(log, c)
	warnOfOthers(ctx, log, c)
	_ = a.Reload(ctx, c) // it tells why not
}

// faultsOf returns the faults of a configuration that could not be loaded, one text for each.
func faultsOf(err error) []string {
	faults, ok := config.AsFaults(err)
	if !ok {
		return []string{err.Error()}
	}
	var all []string
	for _, f := range faults {
		all = append(all, f.String())
	}
	return all
}

// warn logs the warnings about a configuration.
func warn(log *slog.Logger, c *config.Config) {
	for _, w := range slices.Concat(c.Warnings, c.Lint(time.Now())) {
		log.Warn("the configuration can be improved", "where", fmt.Sprintf("%s:%d:%d", w.File, w.Line, w.Column), "path", w.Path, "what", w.Message)
	}
}

// warnOfOthers logs which of the daemon's files other users can change. Whoever can write to them
// decides where secrets go.
func warnOfOthers(ctx context.Context, log *slog.Logger, c *config.Config) {
	files := []config.NamedSecret{{Field: "--config", Source: config.SecretSource{File: c.File}}}
	for _, named := range append(files, c.Secrets()...) {
		path := named.Source.File
		if path == "" {
			continue
		}
		err := smallfile.Within(ctx, path, func() error { return ownpath.Check(path) })
		if err != nil && !errors.Is(err, smallfile.ErrHangs) && !errors.Is(err, fs.ErrPermission) { // the reader of the file reports those
			log.Warn("other users can change a file that the daemon relies on", "path", named.Field, "error", err)
		}
	}
}
