package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/config"
	"rotatord/internal/httpapi"
)

func newHealthcheck() *cobra.Command {
	var configPath, address string
	var ready bool
	within := 5 * time.Second
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the running daemon whether it is healthy",
		Long: `Ask the daemon on this machine, or in this container, for /livez, and end with 0 if it is alive and
with 1 if it is not, or does not answer. Liveness depends on nothing remote, so a tool that restarts
what is not alive does not make an outage of Vault or Cloudflare worse. With --ready ask for /readyz:
is it configured, recovered, and able to rotate? Do not restart a daemon for that.

Only the address in listen is read from the configuration, whatever else in the file is wrong.
Neither a password nor a certificate is needed.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if within <= 0 {
				return usagef("--timeout must be more than 0, but is %s", within)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), within)
			defer cancel()
			if address == "" {
				var err error
				if address, err = config.ListenIn(ctx, configPath); err != nil {
					return err
				}
			} else if cmd.Flags().Changed("config") {
				return usagef("--address and --config both say where the daemon is: give one of them")
			}
			path, word := "/livez", "alive"
			if ready {
				path, word = "/readyz", "ready"
			}
			err := httpapi.AskHealth(ctx, address, path)
			if unhealthy, ok := errors.AsType[*httpapi.NotHealthyError](err); ok {
				return fmt.Errorf("the daemon is not %s:\n%w", word, unhealthy)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), word)
			return err
		},
	}
	configFlag(cmd, &configPath)
	cmd.Flags().StringVar(&address, "address", "", "`address` of the daemon, in place of listen in the configuration")
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it is ready, and not only alive")
	durationVar(cmd, &within, "timeout", "how long the daemon may take to answer")
	return cmd
}
