// Command rotatord rotates the client secrets of Cloudflare Access service tokens on
// schedule and writes them to HashiCorp Vault.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // zones are known wherever the binary runs

	"github.com/spf13/cobra"

	"rotatord/internal/printable"
)

// Exit codes, as the README documents them.
const (
	exitGood   = 0
	exitFailed = 1
	exitUsage  = 2
)

const defaultConfig = "/etc/rotatord/config.yaml"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is the program, with all that a test wants to replace as arguments.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A second signal is not waited for: from the first one on, the default applies.
	context.AfterFunc(ctx, stop)

	// Whatever is printed may have text in it that comes from elsewhere.
	safeOut, safeErr := printable.NewWriter(stdout), printable.NewWriter(stderr)
	defer func() { _, _ = safeOut.Close(), safeErr.Close() }() // nobody is left to be told
	stdout, stderr = safeOut, safeErr
	started := false // whether the command line was understood
	root := newRoot()
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	rejectUnknownShells(root)
	switch cmd, err := root.ExecuteContextC(ctx); {
	case err == nil:
		return exitGood
	case errors.Is(err, errReported):
		return exitFailed
	case !started, isUsage(err):
		fmt.Fprintf(stderr, "rotatord: %s\nRun '%s --help' for usage.\n", indented(err), cmd.CommandPath())
		return exitUsage
	default:
		fmt.Fprintf(stderr, "rotatord: %s\n", indented(err))
		return exitFailed
	}
}

// indented is an error whose further lines stand below its first one, so that none looks like one of ours.
func indented(err error) string { return strings.ReplaceAll(err.Error(), "\n", "\n  ") }

// errReported ends a command with exit code 1 that has already said why.
var errReported = errors.New("reported")

// usageError is a value on the command line that cannot be right.
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
		Short: "Rotates Cloudflare Access service tokens on schedule and writes them to Vault",
		Long: `rotatord gives every Cloudflare Access service token a fresh client secret on its
own cron schedule and writes it to HashiCorp Vault KV, without ever losing one.

Exit codes: 0 good, 1 failed, 2 wrong usage.`,
		Args:          knownCommand,
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.AddCommand(newRun(), newCheck(), newDoctor(), newImport(), newPlan(), newStatus(), newRotate(), newRevokePrevious(), newExtendGrace(), newPause(),
		newResume(), newResolve(), newRecover(), newRules(), newSim(), newDrill(), newDemo(), newVersion())
	root.SetHelpCommand(newHelp(root))
	return root
}

// knownCommand refuses whatever is left after the commands were looked for.
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

// newHelp is cobra's help command, except that it does not answer the question for an
// unknown command with the help of another one.
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

// rejectUnknownShells makes an error of "completion SHELL" for a shell that cobra does not
// know, which otherwise prints help and exits with 0. The command takes root's output as
// it is when it is made, so that must have been set.
func rejectUnknownShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

// configFlag adds --config, which every command that reads the configuration has.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", defaultConfig, "configuration `file`")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
}

// outputFlag adds -o, which every command that prints data has.
func outputFlag(cmd *cobra.Command, format *outputFormat) {
	*format = "text"
	cmd.Flags().VarP(format, "output", "o", "output format: text or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// outputFormat is text or json.
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
