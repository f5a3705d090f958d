package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	receivers "rotatord/internal/notify"
)

func newNotify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notify",
		Short: "Test the receivers of notifications",
		Long:  "Commands for the receivers of notifications, which the section notify of the configuration has.",
		Args:  onlyCommands("test"),
		RunE:  showHelp,
	}
	cmd.AddCommand(newNotifyTest())
	return cmd
}

func newNotifyTest() *cobra.Command {
	var at socketFlags
	var format outputFormat
	var here bool
	var credentials string
	cmd := &cobra.Command{
		Use:   "test [NAME]",
		Short: "Send a test message to a receiver of notifications, or to all",
		Long: `Have the running daemon send a test message to the receiver NAME, or to all receivers. This proves
that the daemon, with its own user and credentials, can reach them. A receiver that takes the message
is also sent at once what waits for it, and what it had refused before.

  --here   Send it from this process, without a daemon. As root, the credentials that systemd gives to
           the unit are read where the unit takes them from, as rotatord check does.

If a receiver does not take the message, the exit code is 1.`,
		Args: atMostOneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			var tests admin.NotifyTests
			var err error
			if here {
				tests, err = testFromHere(cmd, at, credentials, name)
			} else {
				var client *admin.Client
				if client, err = at.client(cmd, cmd.ErrOrStderr()); err == nil {
					tests, err = client.TestNotify(cmd.Context(), name)
				}
			}
			if err != nil {
				return err
			}
			return printNotifyTests(cmd.OutOrStdout(), format, tests)
		},
	}
	at.add(cmd)
	cmd.ValidArgsFunction = at.completeReceiver
	outputFlag(cmd, &format)
	credentialsFlag(cmd, &credentials)
	cmd.Flags().BoolVar(&here, "here", false, "send it from this process, without a daemon")
	return cmd
}

// notifyTestTime bounds a test from this process: a mail may take a minute.
const notifyTestTime = 70 * time.Second

// testFromHere sends the test messages from this process.
func testFromHere(cmd *cobra.Command, at socketFlags, credentials, name string) (tests admin.NotifyTests, err error) {
	if at.socket != "" {
		return tests, usagef("--here sends from this process, and --socket names a daemon: give one of them")
	}
	c, err := loadConfig(at.config, cmd.ErrOrStderr())
	if err != nil {
		return tests, err
	}
	if _, err := systemPlaces().relocate(c, credentials); err != nil {
		return tests, err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), notifyTestTime)
	defer cancel()
	n := receivers.New(receivers.Options{})
	n.Set(c.Notify)
	tests.Receivers, err = n.Test(ctx, name)
	return tests, err
}

// printNotifyTests prints what came of each message. It returns errReported if a receiver did not take it.
func printNotifyTests(w io.Writer, format outputFormat, tests admin.NotifyTests) error {
	failed := false
	for _, t := range tests.Receivers {
		failed = failed || t.Error != ""
	}
	if format == "json" {
		if err := printJSON(w, tests); err != nil {
			return err
		}
	} else {
		for _, t := range tests.Receivers {
			if t.Error == "" {
				fmt.Fprintf(w, "%s: taken by %s (message %s)\n", t.Receiver, t.Place, t.ID)
			} else {
				fmt.Fprintf(w, "%s: NOT TAKEN by %s: %s\n", t.Receiver, t.Place, t.Error)
			}
		}
	}
	if failed {
		return errReported
	}
	return nil
}
