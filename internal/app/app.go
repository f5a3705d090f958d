// Package app is the life cycle of the daemon: it builds the parts, connects them, starts them in order and
// stops them in reverse.
//
// Guarantees: two Apps can run in one process, because nothing here is global. Stop lets rotations in
// progress finish while its context lasts; what is cut off then is continued at the next start. No signal is
// handled here.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/exporter-toolkit/web"

	"rotatord/internal/access"
	"rotatord/internal/admin"
	"rotatord/internal/admission"
	"rotatord/internal/audit"
	"rotatord/internal/cloudflare"
	"rotatord/internal/config"
	"rotatord/internal/connlimit"
	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/kubernetes"
	"rotatord/internal/notify"
	"rotatord/internal/precheck"
	"rotatord/internal/rotation"
	"rotatord/internal/sink"
	"rotatord/internal/status"
	"rotatord/internal/vault"
)

// Options are what an App needs. Config is required.
type Options struct {
	Config *config.Config
	Logger *slog.Logger // nil: silent
	Build  httpapi.Build
	// WebConfigFile is Prometheus's web configuration file, for TLS and basic authentication. Empty: neither.
	WebConfigFile string
	// Subscriber is told what happens, beside metrics and log. It may be nil.
	Subscriber *event.Subscriber
	// Now is the wall clock that slots are read from. nil: the system's.
	Now func() time.Time
}

// App is a daemon. Use it once: New, Start, Stop.
type App struct {
	options  Options
	now      func() time.Time
	log      *slog.Logger
	metrics  *httpapi.Metrics
	events   *event.Stream
	outages  *outages
	touched  touched
	ahead    *precheck.Watch
	watch    *watch
	notifier *notify.Notifier
	hooks    *hooks
	state    *state
	record   *audit.Recorder
	session  *vault.Session // nil if no Vault is configured
	cluster  *kubernetes.Client
	engine   *engine
	sharing  *sharing // nil if this daemon is alone
	listener *connlimit.Listener
	// adminListener is nil if no admin socket is configured.
	adminListener *connlimit.Listener
	started       time.Time

	stopping atomic.Bool
	damaged  atomic.Pointer[recordDamage] // nil: the record was not found damaged
	refused  atomic.Pointer[refusal]      // of the last reload; nil if it was not refused
	failed   chan error

	reloading sync.Mutex // held by Reload
	mu        sync.Mutex
	config    *config.Config // the one in force
	index     *index         // of a configuration; nil before it is needed
	accounts  map[string]*account
	budgets   *admission.Budgets
	probes    *access.Client
	files     *sink.Files // the file sinks of the configuration in force

	stopBeginning func(context.Context) error

	stopOnce  sync.Once
	stopErr   error
	stopSteps []stopStep
}

// account is a Cloudflare account with tokens.
type account struct {
	client      *cloudflare.Client
	every       time.Duration // how often it is listed
	inventoried atomic.Bool   // it was listed at least once
	listedAt    atomic.Int64  // when it was listed in full last, in nanoseconds since 1970 on the wall clock; 0 before that
	size        atomic.Int64  // entries of its last complete listing; -1 before that
	stop        func(context.Context) error
}

// stopStep undoes one step of New or Start.
type stopStep struct {
	name string
	stop func(context.Context) error
}

// New builds the daemon: it opens the state directory and the listeners, and connects to nothing remote. If
// it fails, nothing is left open.
func New(o Options) (*App, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	a := &App{
		options: o, config: o.Config, log: o.Logger, now: o.Now,
		metrics:  httpapi.NewMetrics(o.Build),
		accounts: make(map[string]*account), budgets: admission.NewBudgets(), probes: access.New(access.Options{Logger: o.Logger}),
		files:  sink.FilesOf(o.Config.Tokens),
		failed: make(chan error, 1),
	}
	a.options.Config = nil // a reload replaces it
	if a.now == nil {
		a.now = time.Now
	}
	a.outages = newOutages(a.now, func() { a.engine.retryPending(); a.ahead.LookNow(status.Check.Fails) })
	if err := a.newNotifier(); err != nil {
		return nil, err
	}
	a.ahead = precheck.New(a.now, a.tellCheck)
	a.watch, a.hooks = newWatch(a), newHooks(a)
	a.started = a.now()
	if err := a.build(); err != nil {
		return nil, errors.Join(err, a.Stop(context.Background()))
	}
	return a, nil
}

func (a *App) build() error {
	if err := validateWebConfig(a.options.WebConfigFile); err != nil {
		return fmt.Errorf("--web.config.file: %w", err)
	}
	var err error
	if a.state, err = openState(a.config.State); err != nil {
		return err
	}
	a.onStop("state directory", func(context.Context) error { return a.state.close() })
	if err := a.openRecord(); err != nil {
		return err
	}
	a.events = a.newStream()
	a.onStop("events", a.events.Flush)

	if err := a.listen(); err != nil {
		return err
	}
	if a.config.Vault != nil {
		if a.session, err = vault.New(*a.config.Vault, func(d event.Detail) { a.tell("", d) }, vaultObserver{a.metrics, a.outages}); err != nil {
			return err
		}
		a.session.KeepIn(a.state.secretID)
	}
	if a.config.State.Shared != nil {
		if err := a.share(); err != nil {
			return err
		}
	}
	a.cluster = kubernetes.New(a.config.Kubernetes, kubernetesObserver{a.metrics, a.outages})
	a.onStop("connections to Kubernetes", func(context.Context) error { a.cluster.Close(); return nil })
	a.engine = newEngine(a.now, a.log, a.events)
	a.engine.planned = a.hooks.note
	a.engine.rotator = rotation.New(rotation.Options{
		Ledger: a.state.ledger, Pending: a.state.pending, Pauses: a.state.ledger, Owner: owner(), Started: a.started, Now: a.now,
		Events: a.events, Record: a.record, Replica: a.sharing.asReplica(), Copies: a.sharing.sealedCopies(), Saved: func(r rotation.Record) { a.engine.show(r); a.outages.ledgerWritten(r) },
	})
	for name := range accountsOf(a.config) {
		a.accounts[name] = a.newAccount(a.config.Accounts[name])
	}
	tokens, err := a.tokens(a.config.Tokens, a.accounts)
	if err != nil {
		return err
	}
	for _, token := range tokens {
		a.metrics.Known(token.Name)
	}
	hooks, err := a.hooks.open(a.config)
	if err != nil {
		return err
	}
	a.hooks.set(hooks)
	if a.sharing != nil {
		a.engine.peers, a.engine.within = roomPeers{a.sharing.room, a.engine}, a.sharing.replica.Claim/4
		a.engine.await(tokens)
	} else if err := a.adoptLedger(context.Background(), func(ctx context.Context) error { return a.enroll(ctx, tokens) }); err != nil {
		return err
	}
	a.metrics.Show(a, a.vaultSession(), a.engine.clock.Drift)
	a.metrics.ShowWatch(a.watch.state)
	a.metrics.ShowRecord(a.recordState)
	a.metrics.ConfigLoaded(a.started)
	a.metrics.Essential(a.config.Metrics.PerToken == "essential")
	return nil
}

// adoptLedger reads what is paused and unfinished in the ledger, and calls enroll, which makes tokens known to it.
func (a *App) adoptLedger(ctx context.Context, enroll func(context.Context) error) error {
	if err := a.engine.rotator.LoadPauses(ctx); err != nil {
		return err
	}
	if err := a.checkUnfinished(a.InForce()); err != nil {
		return err
	}
	return enroll(ctx)
}

// enroll makes the tokens known to the ledger of a daemon that is alone, queues them, and counts the requests of the process before this
// one. No record is decoded twice.
func (a *App) enroll(ctx context.Context, tokens []rotation.Token) error {
	earlier := a.earlierRequests()
	if err := a.engine.rotator.EnrollEach(ctx, tokens, earlier.add, func(i int, record rotation.Record) { a.engine.add(tokens[i], record) }); err != nil {
		return err
	}
	err := rotation.Each(ctx, a.state.ledger, func(token string) bool { _, known := a.engine.view(token); return !known }, earlier.add)
	a.countEarlier(earlier)
	return err
}

// vaultSession returns what metrics show of the session with Vault; nil if no Vault is configured.
func (a *App) vaultSession() func() httpapi.VaultSession {
	if a.session == nil {
		return nil
	}
	return func() (v httpapi.VaultSession) {
		health := a.session.Health()
		v.Expiry, v.There = a.session.Expiry()
		v.CertificateEnds, v.UnwrapFailed = health.CertificateEnds, health.UnwrapSince
		return v
	}
}

// listen opens the listeners. Each gets a share of the file descriptors.
func (a *App) listen() error {
	descriptors := connlimit.Descriptors()
	limits := connlimit.LimitsFor(descriptors)
	if descriptors < fewDescriptors {
		a.log.Warn("this process may have few open files, so it serves few clients and works on few tokens at once: set LimitNOFILE= or ulimit -n higher",
			"open_files", descriptors, "wanted", fewDescriptors, "http_connections", limits.HTTP, "admin_connections", limits.Admin)
	}
	l, err := net.Listen("tcp", a.config.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	a.listener = connlimit.New(l, limits.HTTP, a.log)
	a.onStop("listener", closing(a.listener))
	if path := a.config.AdminSocket; path != "" {
		l, err := admin.Listen(path)
		if err != nil {
			return err
		}
		a.adminListener = connlimit.New(l, limits.Admin, a.log)
		a.onStop("admin socket", closing(a.adminListener))
	}
	return nil
}

// fewDescriptors is less than what one account needs at most, together with its clients.
const fewDescriptors = 256

func (a *App) newAccount(c config.Account) *account {
	made := &account{
		client: cloudflare.New(c, cloudflare.Options{Observer: cloudflareObserver{a.metrics, a.outages, a.sharing.nudge}, Logger: a.log, Budgets: a.budgets}), every: c.InventoryEvery,
	}
	made.size.Store(-1)
	return made
}

// tokens turns tokens of the configuration into what the core works with.
func (a *App) tokens(configured []config.Token, accounts map[string]*account) ([]rotation.Token, error) {
	tokens := make([]rotation.Token, 0, len(configured))
	for _, t := range configured {
		client := accounts[t.Account].client
		token := PlannedToken(t)
		token.Issuer, token.Creator, token.Renewer = client, client, client
		if t.Verify != nil {
			token.Prober, token.VerifyWithin = a.probes.Prober(t.Name, *t.Verify), t.Verify.Within
		}
		for _, s := range t.Sinks {
			opened, err := sink.Open(s, sink.Deps{Vault: a.session, Files: a.files, Kubernetes: a.cluster})
			if err != nil {
				return nil, fmt.Errorf("tokens.%s: %w", t.Name, err)
			}
			token.Sinks = append(token.Sinks, opened)
		}
		token.Hooks = hooksOf(t)
		tokens = append(tokens, token)
	}
	return tokens, nil
}

// PlannedToken returns a token of the configuration without the ports through which it is rotated. That is
// enough to say when something is due.
func PlannedToken(t config.Token) rotation.Token {
	token := identityOf(t)
	token.Grace, token.Timetable = t.Grace, t.Timetable()
	token.RenewBefore, token.RenewFor, token.RotateAfterOutside, token.Restore = t.RenewBefore, t.RenewFor, t.Heal, t.Restore
	if t.Verify != nil {
		token.VerifyEvery = t.Verify.Every
	}
	return token
}

// identityOf says which service token an entry of the configuration is about.
func identityOf(t config.Token) rotation.Token {
	token := rotation.Token{Name: t.Name, Account: t.Account, ID: t.ID, Partner: t.Partner, Replace: t.Replace}
	if t.Create != nil {
		token.Create = &rotation.Creation{Name: t.Create.Name, Duration: t.Create.Duration, Adopt: t.Create.Adopt}
	}
	return token
}

// Start starts to serve and to rotate, and returns at once.
func (a *App) Start() {
	pages := httpapi.Options{Source: a, Metrics: a.metrics, Logger: a.log, Version: a.options.Build.Version, Now: time.Now, Hosts: a.hosts}
	server := &http.Server{
		Handler:           httpapi.Handler(pages),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ConnState: a.listener.ConnState,
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	openProbes(server, httpapi.IsProbe, httpapi.Probes(a))
	a.serve("http", pageTime, a.listener, server, func() error {
		flags := &web.FlagConfig{WebConfigFile: &a.options.WebConfigFile}
		return web.Serve(a.listener, server, flags, a.log)
	})
	if a.options.WebConfigFile != "" {
		a.background("web configuration", a.watchWebConfig)
	}
	if a.session != nil {
		a.background("vault session", a.session.Run)
	}
	a.startSharing()
	a.mu.Lock()
	for name, account := range a.accounts {
		a.startInventory(name, account)
	}
	a.mu.Unlock()
	a.onStop("inventories", a.stopInventories)
	a.lookAhead()
	a.background("record of events", a.tellOfRecord)
	a.watchSinks()
	a.startNotifier()
	a.runHooks()
	a.startEngine()
	if a.adminListener != nil { // after the engine, so it is stopped before it
		server := admin.NewServer(a, a.log, a.events.Tell, func() []config.Allow { return a.InForce().Allow })
		server.ConnState = a.adminListener.ConnState
		a.serve("admin", orderTime, a.adminListener, server, func() error { return server.Serve(a.adminListener) })
	}
	a.onStop("beginning rotations", a.stopBeginning) // before the rotations are waited for that an operator's command has begun
	if a.sharing != nil {
		a.onStop("leaving", a.sharing.leave) // first of all
	}
	a.tell("", event.DaemonStart{Version: a.options.Build.Version, Tokens: len(a.config.Tokens), Address: a.listener.Addr().String(),
		AdminSocket: a.config.AdminSocket, StateDir: a.config.State.Dir})
}

// serve runs a server until the App is stopped. Requests in progress may then finish within that time.
func (a *App) serve(name string, within time.Duration, l *connlimit.Listener, server *http.Server, run func() error) {
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := run(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			a.fail(fmt.Errorf("serving %s: %w", name, err))
		}
	}()
	a.onStop(name, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		// The server waits for connections that were just opened, although no request may come on them.
		defer time.AfterFunc(quietTime, l.CloseIdle).Stop()
		if err := server.Shutdown(ctx); err != nil {
			a.log.Warn("requests were cut off by the stop", "server", name)
			_ = server.Close() // a slow client does not delay the stop
		}
		<-served
		return nil
	})
}

// How long requests of clients may delay a stop. A page can be read again; a command is carried out.
const (
	pageTime  = 3 * time.Second
	orderTime = time.Minute
	quietTime = 200 * time.Millisecond // for a client that has not sent its request yet
)

// closing closes a listener that a server may have closed already.
func closing(l net.Listener) func(context.Context) error {
	return func(context.Context) error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

func (a *App) startEngine() {
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); a.engine.run(ctx) }()
	a.stopBeginning = func(context.Context) error { cancel(); <-ran; return nil }
	a.onStop("rotations", func(bound context.Context) error {
		if left := a.engine.finish(bound); len(left) > 0 {
			a.tell("", event.Interruption{Tokens: left})
		}
		if err := a.engine.rotator.SealUnsealed(bound); err != nil {
			a.tell("", event.Loss{Err: err})
		}
		return nil
	})
}

// background runs a loop that ends when the App stops.
func (a *App) background(name string, run func(context.Context)) { a.onStop(name, startLoop(run)) }

// startLoop runs a loop until its context ends, and returns a function that ends it.
func startLoop(run func(context.Context)) (stop func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); run(ctx) }()
	return func(bound context.Context) error {
		cancel()
		select {
		case <-ended:
			return nil
		case <-bound.Done():
			return bound.Err()
		}
	}
}

// Stop ends the daemon. No new rotation begins; those in progress are finished within ctx. What the end of
// ctx cuts off is logged and is not an error: the next start continues it. Stop is idempotent: later calls
// return what the first one did.
func (a *App) Stop(ctx context.Context) error {
	a.stopOnce.Do(func() {
		a.stopping.Store(true)
		var errs []error
		for i := len(a.stopSteps) - 1; i >= 0; i-- {
			step := a.stopSteps[i]
			switch err := within(ctx, step.stop); {
			case err == nil:
			case ctx.Err() != nil && errors.Is(err, ctx.Err()):
				a.log.Warn("the shutdown timeout did not suffice", "for", step.name)
			default:
				errs = append(errs, fmt.Errorf("stopping %s: %w", step.name, err))
			}
		}
		a.stopErr = errors.Join(errs...)
	})
	return a.stopErr
}

// afterStop is how long a step of a stop may still take once the time for the stop is over.
const afterStop = 2 * time.Second

// within runs a step of a stop. A step that does not end in time, because a disk does not answer, is left behind: its
// error is then that of ctx.
func within(ctx context.Context, stop func(context.Context) error) error {
	ended := make(chan error, 1)
	go func() { ended <- stop(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(afterStop):
		return ctx.Err()
	}
}

// Failed returns a channel that yields an error if the daemon cannot go on.
func (a *App) Failed() <-chan error { return a.failed }

// Addr returns the address where HTTP is served.
func (a *App) Addr() net.Addr { return a.listener.Addr() }

func (a *App) fail(err error) {
	select {
	case a.failed <- err:
	default:
	}
}

func (a *App) onStop(name string, stop func(context.Context) error) {
	a.stopSteps = append(a.stopSteps, stopStep{name, stop})
}

// owner returns the name of this process in claims.
func owner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}
