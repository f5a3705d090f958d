package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// noArguments refuses arguments.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no arguments, but was given %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// onlyCommands returns what refuses an argument of a command that has commands of its own: words names them.
func onlyCommands(words string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("%s has no command %q: use %s", cmd.CommandPath(), args[0], words)
		}
		return nil
	}
}

// showHelp shows the help of a command that does nothing without one of its commands.
func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// atMostOneName refuses more than one argument.
func atMostOneName(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("give one token name, not %d", len(args))
	}
	return nil
}

// oneName refuses all but one argument.
func oneName(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("give the name of a token")
	}
	return atMostOneName(cmd, args)
}

// nameAndDuration refuses all but two arguments.
func nameAndDuration(cmd *cobra.Command, args []string) error {
	if len(args) != 2 {
		return usagef("give NAME and DURATION, such as: %s ci 12h", cmd.CommandPath())
	}
	return nil
}

// durationFlag is the value of a flag that is a duration. Its errors say how to write one.
type durationFlag time.Duration

func (d *durationFlag) Type() string { return "duration" }

// String implements [pflag.Value]. It is empty for 0, so that the help does not call that a default.
func (d *durationFlag) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

func (d *durationFlag) Set(text string) error {
	length, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration: write one such as 72h (a day is 24h)", text)
	}
	*d = durationFlag(length)
	return nil
}

// durationVar adds a flag that is a duration. The value of p is the default.
func durationVar(cmd *cobra.Command, p *time.Duration, name, usage string) {
	cmd.Flags().Var((*durationFlag)(p), name, usage)
}
