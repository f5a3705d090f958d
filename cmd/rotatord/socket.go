package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/config"
)

// socketFlags say where the running daemon's admin socket is. Every command that talks to a daemon has
// them.
type socketFlags struct{ config, socket string }

func (f *socketFlags) add(cmd *cobra.Command) {
	configFlag(cmd, &f.config)
	cmd.Flags().StringVar(&f.socket, "socket", "", "the daemon's admin `socket` (default: admin_socket of the configuration)")
	_ = cmd.MarkFlagFilename("socket")
	cmd.ValidArgsFunction = f.completeToken
}

// client returns a client for the daemon that the flags name.
func (f *socketFlags) client(cmd *cobra.Command, stderr io.Writer) (*admin.Client, error) {
	if f.socket != "" {
		if cmd.Flags().Changed("config") {
			return nil, usagef("--socket and --config both say where the daemon is: give one of them")
		}
		return admin.NewClient(f.socket), nil
	}
	c, err := loadConfig(f.config, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "rotatord: with --socket PATH you can reach a daemon that runs without its configuration; one that does not start because of this starts with\n"+
			"  systemctl restart rotatord.service   when the configuration is corrected: rotatord docs RotatordAbsent")
		return nil, err
	}
	if c.AdminSocket == "" {
		return nil, fmt.Errorf("admin_socket is not configured in %s, so commands cannot reach the daemon: "+
			"set it, such as admin_socket: /run/rotatord/admin.sock, and restart the daemon", f.config)
	}
	return admin.NewClient(c.AdminSocket), nil
}

// completeWithin bounds the answer of the daemon to a shell that completes a name.
const completeWithin = time.Second

// completeToken completes the name of a token, each with its state: as the daemon knows them, or, if it does not answer
// at once, as the configuration has them.
func (f *socketFlags) completeToken(cmd *cobra.Command, args []string, begun string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), completeWithin)
	defer cancel()
	socket := f.socket
	var c *config.Config
	if socket == "" {
		if c, _ = config.LoadWithin(ctx, f.config); c != nil {
			socket = c.AdminSocket
		}
	}
	if socket != "" {
		if known, err := admin.NewClient(socket).Names(ctx, begun); err == nil {
			return fitting(cmd.Name(), known.Names), cobra.ShellCompDirectiveNoFileComp
		}
	}
	if c == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, t := range c.Tokens {
		names = append(names, t.Name)
	}
	return beginning(names, begun)
}

// beginning returns the names that begin with what was typed.
func beginning(names []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, begun) }), cobra.ShellCompDirectiveNoFileComp
}

// configInTime returns the configuration, for a completion that needs nothing else; nil if it cannot be read at once.
func (f *socketFlags) configInTime(cmd *cobra.Command) *config.Config {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), completeWithin)
	defer cancel()
	c, _ := config.LoadWithin(ctx, f.config)
	return c
}

// fitting returns the tokens that a command is for: resume is for those that are paused, and resolve for those in
// trouble. If there are none, it returns all.
func fitting(command string, known []admin.Name) (names []cobra.Completion) {
	fits := func(n admin.Name) bool {
		return command == "resume" && n.Paused || command == "resolve" && n.Trouble != ""
	}
	some := slices.ContainsFunc(known, fits)
	for _, n := range known {
		if some && !fits(n) {
			continue
		}
		state := n.State
		if n.Trouble != "" {
			state = n.Trouble
		}
		if n.Paused {
			state += ", paused"
		}
		names = append(names, cobra.CompletionWithDesc(n.Name, state))
	}
	return names
}

// completeAccount completes the name of an account.
func (f *socketFlags) completeAccount(cmd *cobra.Command, _ []string, begun string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if c := f.configInTime(cmd); c != nil {
		names = slices.Sorted(maps.Keys(c.Accounts))
	}
	return beginning(names, begun)
}

// completeReceiver completes the name of a receiver of notifications.
func (f *socketFlags) completeReceiver(cmd *cobra.Command, args []string, begun string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if c := f.configInTime(cmd); c != nil && len(args) == 0 {
		for _, r := range c.Notify {
			names = append(names, r.Name)
		}
	}
	return beginning(names, begun)
}
