package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
)

var accountID = regexp.MustCompile(`^[0-9a-f]{32}$`)

func newSim() *cobra.Command {
	var (
		listen, apiToken string
		options          cfsim.Options
		verbose          bool
	)
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Run a Cloudflare simulator",
		Long: `Run a simulator of the part of Cloudflare that rotatord talks to: the service-token API
under /client/v4, and an application behind Access under /app/ that judges the headers
CF-Access-Client-Id and CF-Access-Client-Secret. Set an account's base_url to
http://ADDR/client/v4 to rehearse with it.

GET /_sim/stats and /_sim/tokens tell what really happened; POST /_sim/faults makes it
misbehave, for example to lose the answer of the next rotation:

  curl -d '{"operation":"rotate","kind":"drop","when":"after"}' http://ADDR/_sim/faults

It keeps everything in memory, and its control paths ask for no credential: never let
anybody else reach it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if options.SeedTokens < 0 || options.SeedTokens > 100_000 {
				return usagef("--seed-tokens must be between 0 and 100000, not %d", options.SeedTokens)
			}
			if !accountID.MatchString(options.AccountID) {
				return usagef("--account-id must be 32 hex digits in lower case")
			}
			options.APIToken = secret.New(apiToken)
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			options.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return runSim(cmd.Context(), listen, options, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&listen, "listen", "127.0.0.1:8787", "`address` to listen on")
	flags.StringVar(&apiToken, "api-token", "", "accept only this API `token`: a made-up one, never a real one; default any")
	flags.IntVar(&options.SeedTokens, "seed-tokens", 0, "service tokens to start with: 5eed0000-0000-4000-8000-000000000001 and on")
	flags.StringVar(&options.AccountID, "account-id", cfsim.DefaultAccountID, "account that the seeded tokens belong to")
	flags.IntVar(&options.RateLimit, "rate-limit", cfsim.DefaultRateLimit, "requests in five minutes for each credential; negative for no limit")
	flags.Uint64Var(&options.Seed, "seed", 0, "make secrets and IDs predictable; 0 for random ones")
	flags.BoolVarP(&verbose, "verbose", "v", false, "log every request")
	return cmd
}

func runSim(ctx context.Context, listen string, options cfsim.Options, stdout io.Writer) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	address := "http://" + listener.Addr().String()
	fmt.Fprintf(stdout, "Cloudflare simulator\n  base_url:     %s%s\n  application:  %s/app/\n  control:      %s/_sim/stats  /_sim/tokens  /_sim/faults\n",
		address, cfsim.BasePath, address, address)
	for i := range min(options.SeedTokens, 5) {
		fmt.Fprintf(stdout, "  token:        %s  account %s\n", cfsim.SeedTokenID(i+1), options.AccountID)
	}
	if options.SeedTokens > 5 {
		fmt.Fprintf(stdout, "  token:        ... up to %s\n", cfsim.SeedTokenID(options.SeedTokens))
	}
	server := &http.Server{Handler: cfsim.New(options), ReadHeaderTimeout: 10 * time.Second}
	return serveUntil(ctx, server, listener)
}

// serveUntil serves until ctx ends, and then lets requests finish for a moment.
func serveUntil(ctx context.Context, server *http.Server, listener net.Listener) error {
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	bound, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(bound); err != nil {
		_ = server.Close() // somebody holds a connection: that is their loss
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
