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
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
)

var accountID = regexp.MustCompile(`^[0-9a-f]{32}$`)

const simHelp = `Run a simulator of the part of Cloudflare that rotatord talks to: the service-token API
under /client/v4, and an application behind Access under /app/ that judges the headers
CF-Access-Client-Id and CF-Access-Client-Secret. Set an account's base_url to
http://ADDR/client/v4 to rehearse with it.

Everything that can go wrong is asked for, and strikes as many requests as it was told to.
Given --fault OPERATION:WHAT[:before|:after][:KEY=VALUE...], the next requests go wrong:

  --fault rotate:drop:after                  carry a rotate out and break the connection
  --fault rotate:status=500:before:count=3   refuse three, and carry out none of them
  --fault list:status=429:retry-after=300    throttle
  --fault get:delay=3s                       be slow
  --fault rotate:cut:after                   break off in the middle of the new secret
  --fault rotate:garbage:after               answer with a page of HTML

OPERATION is create, list, get, update, delete, rotate, refresh, verify, app, or * for all of
the API. WHAT is drop, cut, garbage, refuse, wrong_client_id, wrong_token_id, missing_secret,
malformed_secret, status=STATUS, shape=NAME or delay=DURATION. KEY is count (a number, or always), token,
delay, status, retry-after, code or message. Without before or after it strikes before, except
for the four that change an answer.

While it runs, GET /_sim/stats and /_sim/tokens tell what really happened, and the other
control paths arm faults and do what a colleague could do behind rotatord's back:

  curl -d '{"operation":"rotate","kind":"drop","when":"after"}' http://ADDR/_sim/faults
  curl -X PUT -d '{"enabled":false}' http://ADDR/_sim/tokens/UUID

docs/simulator.md has all of them. The control paths ask for no credential, and --state writes
the made-up secrets into a file in clear: never let anybody else reach either.`

// simFlags are the command line of sim.
type simFlags struct {
	listen, apiToken, readOnlyToken string
	options                         cfsim.Options
	behaviour                       cfsim.Behaviour
	faults                          []string
	state                           string
	verbose                         bool
}

func newSim() *cobra.Command {
	var f simFlags
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Run a Cloudflare simulator",
		Long:  simHelp,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			simulator, err := f.simulator(cmd)
			if err != nil {
				return err
			}
			return errors.Join(f.run(cmd.Context(), simulator, cmd.OutOrStdout()), simulator.Close())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8787", "`address` to listen on")
	flags.StringVar(&f.apiToken, "api-token", "", "accept only this API `token`: a made-up one, never a real one; default any")
	flags.StringVar(&f.readOnlyToken, "read-only-token", "", "accept this API `token`, made up as well, for reading and refuse it for writing")
	flags.IntVar(&f.options.SeedTokens, "seed-tokens", 0, "service tokens to start with: 5eed0000-0000-4000-8000-000000000001 and on")
	flags.StringVar(&f.options.AccountID, "account-id", cfsim.DefaultAccountID, "account that the seeded tokens belong to")
	flags.IntVar(&f.options.RateLimit, "rate-limit", cfsim.DefaultRateLimit, "requests in five minutes for each credential; negative for no limit")
	flags.Uint64Var(&f.options.Seed, "seed", 0, "make secrets and IDs predictable; 0 for random ones")
	flags.StringVar(&f.state, "state", "", "keep tokens, secrets and behaviour in this `file` of mode 0600; default in memory only")
	_ = cmd.MarkFlagFilename("state")
	flags.StringArrayVar(&f.faults, "fault", nil, "`fault`: something to go wrong, such as rotate:drop:after; may be given again and again")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log every request")
	f.addBehaviour(cmd)
	return cmd
}

func (f *simFlags) addBehaviour(cmd *cobra.Command) {
	flags, b := cmd.Flags(), &f.behaviour
	flags.TextVar(&b.ClockSkew, "clock-skew", cfsim.Duration(0), "put Cloudflare's clock ahead by this `duration`, or back: 90s, -5m")
	flags.BoolVar(&b.FrozenUpdatedAt, "frozen-updated-at", false, "leave updated_at alone when a secret is rotated")
	flags.BoolVar(&b.KeepAllPrevious, "keep-all-previous", false, "keep every previous secret until its own end, not only the last one")
	flags.TextVar(&b.PropagationDelay, "propagation-delay", cfsim.Duration(0), "`duration` that the application takes to accept a new secret")
	flags.BoolVar(&b.LoginRedirect, "login-redirect", false, "have the application redirect to a login page in place of 401 and 403")
	flags.TextVar(&b.TokenHeader, "token-header", cfsim.HeaderName(""), "have the application read both halves of a token from the header `name` as well, as JSON")
	flags.TextVar(&b.APITokenStatus, "api-token-status", cfsim.APITokenActive, "`status` of the API token: active, disabled, expired or revoked")
	flags.TextVar(&b.APITokenExpiresOn, "api-token-expires-on", time.Time{}, "RFC 3339 `time` at which the API token expires")
	flags.TextVar(&b.APITokenNotBefore, "api-token-not-before", time.Time{}, "RFC 3339 `time` from which the API token is accepted")
	for _, name := range []string{"api-token-expires-on", "api-token-not-before"} {
		flags.Lookup(name).DefValue = "" // and not the year 1
	}
}

// simulator makes what the command line asks for. With a state file that is there already,
// its behaviour holds but for what is named on the command line.
func (f *simFlags) simulator(cmd *cobra.Command) (*cfsim.Simulator, error) {
	o := f.options
	if o.SeedTokens < 0 || o.SeedTokens > 100_000 {
		return nil, usagef("--seed-tokens must be between 0 and 100000, not %d", o.SeedTokens)
	}
	if !accountID.MatchString(o.AccountID) {
		return nil, usagef("--account-id must be 32 hex digits in lower case")
	}
	if f.behaviour.PropagationDelay < 0 {
		return nil, usagef("--propagation-delay must not be negative")
	}
	var faults []cfsim.Fault
	for _, text := range f.faults {
		fault, err := cfsim.ParseFault(text)
		if err != nil {
			return nil, usagef("--fault: %v", err)
		}
		faults = append(faults, fault)
	}
	o.APIToken, o.ReadOnlyToken = secret.New(f.apiToken), secret.New(f.readOnlyToken)
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	o.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	o.Behaviour = f.behaviour
	simulator := cfsim.New(o)
	if f.state != "" {
		var err error
		if simulator, err = cfsim.Open(o, f.state); err != nil {
			return nil, err
		}
		if b := f.named(cmd, simulator.Behaviour()); b != simulator.Behaviour() {
			simulator.SetBehaviour(b)
		}
	}
	for _, fault := range faults {
		if err := simulator.Inject(fault); err != nil {
			return nil, err
		}
	}
	return simulator, nil
}

// named is a behaviour with what the command line names.
func (f *simFlags) named(cmd *cobra.Command, b cfsim.Behaviour) cfsim.Behaviour {
	for name, take := range map[string]func(){
		"clock-skew":           func() { b.ClockSkew = f.behaviour.ClockSkew },
		"frozen-updated-at":    func() { b.FrozenUpdatedAt = f.behaviour.FrozenUpdatedAt },
		"keep-all-previous":    func() { b.KeepAllPrevious = f.behaviour.KeepAllPrevious },
		"propagation-delay":    func() { b.PropagationDelay = f.behaviour.PropagationDelay },
		"login-redirect":       func() { b.LoginRedirect = f.behaviour.LoginRedirect },
		"token-header":         func() { b.TokenHeader = f.behaviour.TokenHeader },
		"api-token-status":     func() { b.APITokenStatus = f.behaviour.APITokenStatus },
		"api-token-expires-on": func() { b.APITokenExpiresOn = f.behaviour.APITokenExpiresOn },
		"api-token-not-before": func() { b.APITokenNotBefore = f.behaviour.APITokenNotBefore },
	} {
		if cmd.Flags().Changed(name) {
			take()
		}
	}
	return b
}

func (f *simFlags) run(ctx context.Context, simulator *cfsim.Simulator, stdout io.Writer) error {
	listener, err := net.Listen("tcp", f.listen)
	if err != nil {
		return err
	}
	var b strings.Builder // written at once, for whoever waits for it
	address := "http://" + listener.Addr().String()
	fmt.Fprintf(&b, "Cloudflare simulator\n  base_url:     %s%s\n  application:  %s/app/\n  control:      %s/_sim/stats  /_sim/tokens  /_sim/faults  /_sim/behaviour\n",
		address, cfsim.BasePath, address, address)
	if f.state != "" {
		fmt.Fprintf(&b, "  state:        %s, with its made-up secrets in clear\n", f.state)
	}
	for _, fault := range simulator.Faults() {
		fmt.Fprintf(&b, "  fault:        %s\n", fault)
	}
	for i := range min(f.options.SeedTokens, 5) {
		fmt.Fprintf(&b, "  token:        %s  account %s\n", cfsim.SeedTokenID(i+1), f.options.AccountID)
	}
	if f.options.SeedTokens > 5 {
		fmt.Fprintf(&b, "  token:        ... up to %s\n", cfsim.SeedTokenID(f.options.SeedTokens))
	}
	if _, err := io.WriteString(stdout, b.String()); err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{Handler: simulator, ReadHeaderTimeout: 10 * time.Second}
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
