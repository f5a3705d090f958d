package main

import (
	"fmt"
	"io"

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
		fmt.Fprintln(stderr, "rotatord: with --socket PATH you can reach the daemon without its configuration")
		return nil, err
	}
	if c.AdminSocket == "" {
		return nil, fmt.Errorf("admin_socket is not configured in %s, so commands cannot reach the daemon: "+
			"set it, such as admin_socket: /run/rotatord/admin.sock, and restart the daemon", f.config)
	}
	return admin.NewClient(c.AdminSocket), nil
}

// completeToken completes the names of the configured tokens.
func (f *socketFlags) completeToken(_ *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if c, err := config.Load(f.config); err == nil && len(args) == 0 {
		for _, t := range c.Tokens {
			names = append(names, t.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
