// Command rotatord rotates the client secrets of Cloudflare Access service tokens on schedule and
// writes them to HashiCorp Vault or to files.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	_ "time/tzdata" // time zones, for machines that have no database of them

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/durable"
	"rotatord/internal/harden"
	"rotatord/internal/printable"
)

// Exit codes. The help text of the program documents them.
const (
	exitGood   = 0
	exitFailed = 1
	exitUsage  = 2
)

const defaultConfig = "/etc/rotatord/config.yaml"

func main() {
	// Only Go's HTTP client writes there: what a server sends that was not asked for, word by word.
	log.SetOutput(io.Discard)
	if err := harden.Process(); err != nil { // before a command reads a secret
		fmt.Fprintln(os.Stderr, "rotatord: warning:", indented(err))
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run runs the program and returns its exit code. Its arguments are what a test replaces.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// After the first signal the default applies again, so a second one ends the process.
	context.AfterFunc(ctx, stop)

	// Output can contain text from Cloudflare, from Vault or from files.
	safeOut, safeErr := printable.NewWriter(stdout), printable.NewWriter(stderr)
	defer func() { _, _ = safeOut.Close(), safeErr.Close() }() // there is no way left to report an error
	stdout, stderr = safeOut, safeErr
	started := false // set when the command line is valid
	root := newRoot()
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if args := cmd.Flags().Args(); !cmd.HasParent() && len(args) > 0 { // the flag is that of a command that does not exist
			return cmp.Or(knownCommand(cmd, args), err)
		}
		return err
	})
	rejectUnknownShells(root)
	cmd, err := root.ExecuteContextC(ctx)
	stderr = cmd.ErrOrStderr() // the daemon's has a queue
	defer flushErrors(cmd)
	switch {
	case err == nil:
		return exitGood
	case errors.Is(err, errReported):
		return exitFailed
	case !started, isUsage(err):
		fmt.Fprintf(stderr, "rotatord: %s\nRun '%s --help' for usage.\n", indented(err), cmd.CommandPath())
		return exitUsage
	default:
		fmt.Fprintf(stderr, "rotatord: %s\n", indented(err))
		if errors.Is(err, admin.ErrNoDaemon) {
			fmt.Fprint(stderr, withoutDaemon)
		}
		return exitFailed
	}
}

// withoutDaemon is what to type if no daemon answers.
const withoutDaemon = `  systemctl status rotatord.service   says whether it runs, and shows its last log lines
  rotatord doctor                     says what keeps it from starting
  systemctl restart rotatord.service  starts it again, when that is mended
  rotatord docs RotatordAbsent        has the section of the runbook
`

// indented returns the text of an error with all lines but the first indented, so that text from
// elsewhere cannot look like a message of this program.
func indented(err error) string { return strings.ReplaceAll(err.Error(), "\n", "\n  ") }

// errReported ends a command with exit code 1. The command has printed the reason already.
var errReported = errors.New("reported")

// usageError says that the command line is wrong. It leads to exit code 2.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

func isUsage(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "rotatord",
		Short: "Rotates Cloudflare Access service tokens on schedule and writes them to Vault or files",
		Long: `rotatord gives each Cloudflare Access service token a new client secret on a cron schedule
and writes it to HashiCorp Vault KV or to a file. It never loses a secret.

Exit codes: 0 good, 1 failed, 2 wrong usage.`,
		Args:          knownCommand,
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.AddCommand(newRun(), newCheck(), newDoctor(), newImport(), newPlan(), newStatus(), newHistory(), newAudit(), newRotate(), newRevokePrevious(), newExtendGrace(), newHook(), newPause(),
		newResume(), newResolve(), newNotify(), newRecover(), newLedger(), newIdentity(), newRules(), newRBAC(), newDocs(), newHealthcheck(), newSim(), newDrill(), newDemo(), newVersion())
	root.SetHelpCommand(newHelp(root))
	root.AddCommand(packaging()...)
	return root
}

// knownCommand refuses a command that does not exist, and suggests similar ones.
func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if like := root.SuggestionsFor(args[0]); len(like) > 0 {
		hint = ": did you mean " + strings.Join(like, " or ") + "?"
	}
	return usagef("unknown command %q for %q%s", args[0], root.Name(), hint)
}

// newHelp returns the help command. It differs from cobra's in one thing: for a command that does not
// exist it fails, and does not print the help of another command.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about any command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("there is no command %q", strings.Join(args, " "))
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// rejectUnknownShells makes "completion SHELL" fail for a shell that cobra does not support. Without
// this it prints help and exits with 0. Call it after root's output was set: cobra's completion command
// copies that when it is created.
func rejectUnknownShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

// configFlag adds --config to a command that reads the configuration.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", defaultConfig, "configuration `file`")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
}

// outputFlag adds -o to a command that prints data.
func outputFlag(cmd *cobra.Command, format *outputFormat) {
	*format = "text"
	cmd.Flags().VarP(format, "output", "o", "output format: text or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// writeOut writes a file that a flag names. It does not create the directory.
func writeOut(path string, content []byte) error {
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the directory %s does not exist: create it, or choose another file", dir)
	}
	return durable.WriteFile(path, content, 0o644)
}

// outputFormat is the value of -o: text or json.
type outputFormat string

func (f *outputFormat) String() string { return string(*f) }
func (f *outputFormat) Type() string   { return "format" }

func (f *outputFormat) Set(s string) error {
	if s != "text" && s != "json" {
		return fmt.Errorf("%q is not a format: use text or json", s)
	}
	*f = outputFormat(s)
	return nil
}
