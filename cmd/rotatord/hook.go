package main

import (
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/event"
	"rotatord/internal/status"
)

func newHook() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hook",
		Short: "Run hooks again, or give them up",
		Long:  "Run the hooks of a token again, or give up those that are owed. Hooks are what after: of a token says: what runs after each rotation.",
		Args:  onlyCommands("run or drop"),
		RunE: func(*cobra.Command, []string) error {
			return usagef("say what to do: rotatord hook run NAME, or hook drop NAME")
		},
	}
	cmd.AddCommand(newHookRun(), newHookDrop())
	return cmd
}

func newHookRun() *cobra.Command {
	var at socketFlags
	var format outputFormat
	var only []string
	wait := time.Minute
	cmd := &cobra.Command{
		Use:   "run NAME",
		Short: "Run the hooks of a token again for its last rotation",
		Long: `Run the hooks of a token again for its last rotation, also those that have succeeded. A hook that
waits for its next try or for its batch runs now. Nothing is rotated.

The command waits until the hooks have succeeded, and fails when one of them does. The daemon then
tries that one again by itself.`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := at.client(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			h, err := client.RunHooks(cmd.Context(), args[0], only)
			if err != nil {
				return err
			}
			for end := time.Now().Add(wait); hooksWait(h, only) && time.Now().Before(end); {
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-time.After(hookPoll):
				}
				o, err := client.Token(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				h.Token = o.Tokens[0]
			}
			return printHooks(cmd, format, h, only, "hooks of %s")
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	cmd.Flags().StringArrayVar(&only, "only", nil, "run only this hook: its name as in status, or its kind, such as exec (repeatable)")
	durationVar(cmd, &wait, "wait", "how long to wait for their end; 0 waits for nothing")
	return cmd
}

// hookPoll is how often it is looked whether the hooks have ended.
const hookPoll = 200 * time.Millisecond

// hooksWait reports whether hooks with these names or kinds, or any without names, are owed and none of them has failed.
func hooksWait(h admin.Hooked, only []string) bool {
	return !hookFailed(h, only) && slices.ContainsFunc(h.Token.Hooks, func(hook status.Hook) bool { return named(hook, only) && hook.DoneAt.IsZero() })
}

// hookFailed reports whether one of these hooks is owed and has failed.
func hookFailed(h admin.Hooked, only []string) bool {
	return slices.ContainsFunc(h.Token.Hooks, func(hook status.Hook) bool { return named(hook, only) && hook.Failing() })
}

// named reports whether a hook has one of these names or kinds. Without names each hook counts.
func named(hook status.Hook, only []string) bool {
	return len(only) == 0 || slices.Contains(only, hook.Name) || slices.Contains(only, event.HookKind(hook.Name))
}

func newHookDrop() *cobra.Command {
	var at socketFlags
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "drop NAME",
		Short: "Give up the hooks of a token that are owed",
		Long: `Give up the hooks of a token that have not succeeded for its last rotation. They are not tried again.
Consumers that learn of a new secret only by such a hook may use the previous one until its grace
ends. The hooks run again after the next rotation.`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := at.client(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			h, err := client.DropHooks(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printHooks(cmd, format, h, nil, "the hooks of %s that were owed are given up")
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	return cmd
}

// printHooks prints the hooks of a token. The error says that one of those with these names or kinds has failed.
func printHooks(cmd *cobra.Command, format outputFormat, h admin.Hooked, only []string, title string) error {
	var err error
	if format == "json" {
		err = printJSON(cmd.OutOrStdout(), h)
	} else {
		p := &page{now: time.Now()}
		p.title(title, h.Token.Name)
		p.hooks(h.Token)
		err = p.print(cmd.OutOrStdout())
	}
	if err == nil && hookFailed(h, only) {
		err = errors.New("a hook has failed; the daemon tries it again")
	}
	return err
}
