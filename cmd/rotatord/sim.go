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

const simHelp = `Run a simulator of the part of Cloudflare that rotatord uses: the service-token API under /client/v4,
and an application behind Access under /app/, which checks the headers CF-Access-Client-Id and
CF-Access-Client-Secret. To use it, set an account's base_url to http://ADDR/client/v4.

The simulator works without faults until you ask for one. A fault is for one request, or for as many
as count says. With --fault OPERATION:WHAT[:before|:after][:KEY=VALUE...] the next requests fail:

  --fault rotate:drop:after                  carry out a rotate and break the connection
  --fault rotate:status=500:before:count=3   answer 500 three times and carry out nothing
  --fault list:status=429:retry-after=300    throttle
  --fault get:delay=3s                       be slow
  --fault rotate:cut:after                   break the connection in the middle of the new secret
  --fault rotate:garbage:after               answer with an HTML page

OPERATION is create, list, get, update, delete, rotate, refresh, verify, app, or * for the whole API.
WHAT is drop, cut, garbage, refuse, wrong_client_id, wrong_token_id, missing_secret, malformed_secret,
status=STATUS, shape=NAME or delay=DURATION. KEY is count (a number, or always), token, delay, status,
retry-after, code or message. A fault happens before the request is carried out, unless it changes the
answer or you write after.

While the simulator runs, GET /_sim/stats and /_sim/tokens show what really happened. The other control
paths add faults, and change tokens as another person could:

  curl -d '{"operation":"rotate","kind":"drop","when":"after"}' http://ADDR/_sim/faults
  curl -X PUT -d '{"enabled":false}' http://ADDR/_sim/tokens/UUID

docs/simulator.md describes them all. The control paths need no credential, and --state writes the
secrets into a file in clear text: let no other user reach either. The secrets work nowhere else.`

// simFlags are the flags of sim.
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
		Args:  noArguments,
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
	flags.StringVar(&f.apiToken, "api-token", "", "accept only this API `token`: an invented one, never a real one (default: any)")
	flags.StringVar(&f.readOnlyToken, "read-only-token", "", "accept this API `token`, also an invented one, for reading and refuse it for writing")
	flags.IntVar(&f.options.SeedTokens, "seed-tokens", 0, "number of service tokens to start with: 5eed0000-0000-4000-8000-000000000001 and so on")
	flags.StringVar(&f.options.AccountID, "account-id", cfsim.DefaultAccountID, "account that the seeded tokens belong to")
	flags.IntVar(&f.options.RateLimit, "rate-limit", cfsim.DefaultRateLimit, "requests in five minutes for each credential; negative for no limit")
	flags.Uint64Var(&f.options.Seed, "seed", 0, "make secrets and IDs predictable; 0 for random ones")
	flags.StringVar(&f.state, "state", "", "keep tokens, secrets and behaviour in this `file` with mode 0600 (default: in memory only)")
	_ = cmd.MarkFlagFilename("state")
	flags.StringArrayVar(&f.faults, "fault", nil, "add a `fault`, such as rotate:drop:after; may be given several times")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log every request")
	f.addBehaviour(cmd)
	return cmd
}

func (f *simFlags) addBehaviour(cmd *cobra.Command) {
	flags, b := cmd.Flags(), &f.behaviour
	flags.TextVar(&b.ClockSkew, "clock-skew", cfsim.Duration(0), "set Cloudflare's clock ahead by this `duration`, or back: 90s, -5m")
	flags.BoolVar(&b.FrozenUpdatedAt, "frozen-updated-at", false, "do not change updated_at when a secret is rotated")
	flags.BoolVar(&b.KeepAllPrevious, "keep-all-previous", false, "accept every previous secret until its own end, not only the last one")
	flags.TextVar(&b.PropagationDelay, "propagation-delay", cfsim.Duration(0), "`duration` after which the application accepts a new secret")
	flags.BoolVar(&b.LoginRedirect, "login-redirect", false, "the application redirects to a login page instead of answering 401 or 403")
	flags.TextVar(&b.TokenHeader, "token-header", cfsim.HeaderName(""), "the application also reads client ID and client secret, as JSON, from the header `name`")
	flags.TextVar(&b.APITokenStatus, "api-token-status", cfsim.APITokenActive, "`status` of the API token: active, disabled, expired or revoked")
	flags.TextVar(&b.APITokenExpiresOn, "api-token-expires-on", time.Time{}, "RFC 3339 `time` at which the API token expires")
	flags.TextVar(&b.APITokenNotBefore, "api-token-not-before", time.Time{}, "RFC 3339 `time` from which the API token is accepted")
	for _, name := range []string{"api-token-expires-on", "api-token-not-before"} {
		flags.Lookup(name).DefValue = "" // and not the year 1
	}
}

// simulator returns the simulator that the command line asks for. An existing state file decides its
// behaviour, except for what the command line names.
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

// named returns a behaviour with the changes that the command line names.
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
	var b strings.Builder // written in one piece, for programs that wait for it
	address := "http://" + listener.Addr().String()
	fmt.Fprintf(&b, "Cloudflare simulator\n  base_url:     %s%s\n  application:  %s/app/\n  control:      %s/_sim/stats  /_sim/tokens  /_sim/faults  /_sim/behaviour\n",
		address, cfsim.BasePath, address, address)
	if f.state != "" {
		fmt.Fprintf(&b, "  state:        %s, with its invented secrets in clear text\n", f.state)
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

// serveUntil serves until ctx ends, and then waits a moment for requests to finish.
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
		_ = server.Close() // a client keeps its connection open
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
