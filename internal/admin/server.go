package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// maxBody is the largest body of a request, and maxHeader the largest header.
const (
	maxBody   = 4 << 10
	maxHeader = 8 << 10
)

// NewServer returns a server for the listener of [Listen]. log is for errors of connections. tell publishes
// each command that would change state, done or refused. allowed returns admin.allow of the configuration in force; nil
// if all may use all commands.
func NewServer(daemon Daemon, log *slog.Logger, tell func(token string, by event.Actor, d event.Detail), allowed func() []config.Allow) *http.Server {
	s := &server{daemon: daemon, tell: tell, allowed: allowed}
	return &http.Server{
		Handler:           jsonErrors(s.handler()),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: commandTime + 15*time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			p, err := peerOf(c)
			return context.WithValue(ctx, peerKey{}, peerResult{p, err})
		},
	}
}

type server struct {
	daemon  Daemon
	tell    func(token string, by event.Actor, d event.Detail)
	allowed func() []config.Allow

	mu      sync.Mutex
	refused map[uint32]time.Time // by user: when a refused command that only reads was told last
}

func (s *server) handler() *http.ServeMux {
	mux := http.NewServeMux()
	read := func(pattern string, serve http.HandlerFunc) { mux.HandleFunc("GET "+pattern, s.reading(serve)) }
	read("/v1/tokens", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = status.WriteOverview(w, s.daemon, status.Page{Limit: -1}, false, time.Now()) // the client went away
	})
	read("/v1/history", s.history)
	read("/v1/tokens/{name}", func(w http.ResponseWriter, r *http.Request) {
		token, err := s.find(r.PathValue("name"))
		if err != nil {
			serveError(w, err)
			return
		}
		serveJSON(w, http.StatusOK, s.overview([]status.Token{token}))
	})
	read("/v1/names", func(w http.ResponseWriter, r *http.Request) {
		serveJSON(w, http.StatusOK, namesOf(s.daemon, r.URL.Query().Get("prefix")))
	})
	mux.HandleFunc("POST /v1/tokens/{name}/resolve", command(s, event.OperatorResolve, s.resolve))
	mux.HandleFunc("POST /v1/tokens/{name}/rotate", command(s, event.OperatorRotate, s.rotate))
	mux.HandleFunc("POST /v1/tokens/{name}/cancel", command(s, event.OperatorCancel, s.cancel))
	mux.HandleFunc("POST /v1/tokens/{name}/revoke-previous", command(s, event.OperatorRevokePrevious, s.revokePrevious))
	mux.HandleFunc("POST /v1/tokens/{name}/extend-grace", command(s, event.OperatorExtendGrace, s.extendGrace))
	mux.HandleFunc("POST /v1/tokens/{name}/hooks", command(s, event.OperatorHook, s.hooks))
	mux.HandleFunc("POST /v1/accounts/{account}/rotate", command(s, event.OperatorRotateAll, s.rotateAll))
	mux.HandleFunc("POST /v1/accounts/{account}/cancel", command(s, event.OperatorCancelAll, s.cancelAll))
	read("/v1/accounts/{account}/progress", func(w http.ResponseWriter, r *http.Request) {
		progress, err := s.daemon.Progress(r.PathValue("account"))
		if err != nil {
			serveError(w, err)
			return
		}
		serveJSON(w, http.StatusOK, scrubbedProgress(progress))
	})
	read("/v1/vault", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), commandTime)
		defer cancel()
		all := Findings{Findings: []Finding{}}
		for _, f := range s.daemon.LookAtVault(ctx) {
			all.Findings = append(all.Findings, printable.Copy(f))
		}
		serveJSON(w, http.StatusOK, all)
	})
	mux.HandleFunc("POST /v1/notify/test", command(s, event.OperatorNotifyTest, s.testNotify))
	for _, of := range []string{"/v1/tokens/{name}", "/v1"} { // one token, or all
		mux.HandleFunc("POST "+of+"/pause", command(s, event.OperatorPause, s.pause))
		mux.HandleFunc("POST "+of+"/resume", command(s, event.OperatorResume, s.resume))
	}
	return mux
}

// history answers with lines of the record of events.
func (s *server) history(w http.ResponseWriter, r *http.Request) {
	params := r.URL.Query()
	q := status.HistoryQuery{Token: params.Get("token"), Kind: params.Get("kind")}
	var err error
	if text := params.Get("since"); text != "" {
		q.Since, err = status.ParseSince(text, time.Now())
	}
	if text := params.Get("limit"); text != "" && err == nil {
		q.Limit, err = strconv.Atoi(text)
	}
	if err != nil {
		serveError(w, failure{http.StatusBadRequest, err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), commandTime)
	defer cancel()
	answer, err := s.daemon.History(ctx, q)
	if err != nil {
		serveError(w, err)
		return
	}
	answer = printable.Copy(answer)
	answer.Entries = append([]status.HistoryEntry{}, answer.Entries...) // never null
	serveJSON(w, http.StatusOK, answer)
}

func (s *server) overview(tokens []status.Token) Overview {
	return status.NewOverview(s.daemon, tokens, time.Now())
}

// namesOf returns the names of the tokens that begin with a prefix.
func namesOf(from status.Tokens, prefix string) Names {
	all := Names{Names: []Name{}}
	for t := range status.From(from, prefix) {
		if !strings.HasPrefix(t.Name, prefix) {
			break // they are sorted
		}
		name := Name{Name: t.Name, State: t.State, Paused: t.Pause != nil}
		if len(t.Troubles) > 0 {
			name.Trouble = t.Troubles[0]
		}
		all.Names = append(all.Names, name)
	}
	return printable.Copy(all)
}

// find returns a token, or an error that helps with its name.
func (s *server) find(name string) (status.Token, error) {
	if t, ok := s.daemon.Token(name); ok {
		return t, nil
	}
	var known []string
	for t := range status.From(s.daemon, "") {
		known = append(known, t.Name)
	}
	return status.Token{}, failure{http.StatusNotFound, fmt.Sprintf("no token %q is configured: %s", name, config.Suggest(name, known))}
}

func (s *server) resolve(ctx context.Context, token string, args resolveArgs) (answer any, outcome string, err error) {
	if !slices.Contains(rotation.Resolutions, args.How) {
		return nil, "", failure{http.StatusBadRequest, fmt.Sprintf("how is %q, and must be one of %q", args.How, rotation.Resolutions)}
	}
	o, err := s.daemon.Resolve(ctx, token, args.How)
	if err != nil {
		return nil, "", err
	}
	o = printable.Copy(o)
	switch {
	case o.Resolved:
		outcome = "resolved: " + o.Reason
	case o.Doubt.Reason == "":
		outcome = "still in progress: " + o.Reason
	default:
		outcome = "still in doubt: " + o.Reason
	}
	return o, outcome, nil
}

func (s *server) rotate(ctx context.Context, token string, args rotateArgs) (answer any, outcome string, err error) {
	who, err := peerFrom(ctx)
	if err != nil {
		return nil, "", err
	}
	o, err := s.daemon.Rotate(ctx, token, args.Overrides, who.name())
	if err != nil {
		return nil, "", err
	}
	return printable.Copy(o), "rotated: " + o.RotationID, nil
}

func (s *server) rotateAll(ctx context.Context, account string, args rotateArgs) (answer any, outcome string, err error) {
	who, err := peerFrom(ctx)
	if err != nil {
		return nil, "", err
	}
	p, err := s.daemon.RotateAll(ctx, account, args.Overrides, who.name())
	return scrubbedProgress(p), fmt.Sprintf("ordered: %d of %d tokens are to be rotated", len(p.Left), p.Tokens), err
}

func (s *server) cancelAll(ctx context.Context, account string, _ noArgs) (answer any, outcome string, err error) {
	p, err := s.daemon.CancelAll(ctx, account)
	return scrubbedProgress(p), fmt.Sprintf("cancelled: %d orders", p.Cancelled), err
}

func scrubbedProgress(p Progress) Progress {
	p = printable.Copy(p)
	p.Left = append([]Left{}, p.Left...) // never null
	return p
}

func (s *server) testNotify(ctx context.Context, _ string, args notifyArgs) (answer any, outcome string, err error) {
	all, err := s.daemon.TestNotify(ctx, args.Receiver)
	if err != nil {
		return nil, "", failure{http.StatusNotFound, err.Error()}
	}
	taken := 0
	for _, t := range all {
		if t.Error == "" {
			taken++
		}
	}
	return NotifyTests{printable.Copy(all)}, fmt.Sprintf("taken by %d of %d", taken, len(all)), nil
}

func (s *server) cancel(ctx context.Context, token string, _ noArgs) (answer any, outcome string, err error) {
	o, err := s.daemon.Cancel(ctx, token)
	return printable.Copy(o), "the order was cancelled", err
}

func (s *server) revokePrevious(ctx context.Context, token string, args revokeArgs) (answer any, outcome string, err error) {
	o, err := s.daemon.RevokePrevious(ctx, token, args.InUse)
	return printable.Copy(o), "the previous secret was revoked", err
}

func (s *server) extendGrace(ctx context.Context, token string, args extendArgs) (answer any, outcome string, err error) {
	if args.Seconds <= 0 || args.Seconds > int64(rotation.MaxGrace/time.Second) {
		return nil, "", failure{http.StatusBadRequest, fmt.Sprintf("the grace must be at least a second and at most %gh", rotation.MaxGrace.Hours())}
	}
	o, err := s.daemon.ExtendGrace(ctx, token, time.Duration(args.Seconds)*time.Second)
	return printable.Copy(o), "the previous secret works until " + o.EndsAt.UTC().Format(time.RFC3339), err
}

func (s *server) hooks(ctx context.Context, token string, args hookArgs) (answer any, outcome string, err error) {
	if args.Drop {
		o, err := s.daemon.DropHooks(ctx, token)
		return printable.Copy(o), "the hooks that were owed are given up", err
	}
	for _, name := range args.Hooks {
		if len(name) > maxName {
			return nil, "", failure{http.StatusBadRequest, fmt.Sprintf("the name of a hook has at most %d bytes", maxName)}
		}
	}
	o, err := s.daemon.RunHooks(ctx, token, args.Hooks)
	return printable.Copy(o), "the hooks run again", err
}

// maxReason is the longest reason of an operator, and maxName the longest name in a request that is logged, in
// bytes.
const maxReason, maxName = 200, 200

func (s *server) pause(ctx context.Context, token string, args pauseArgs) (answer any, outcome string, err error) {
	now := time.Now().UTC()
	switch {
	case len(args.Reason) > maxReason || strings.ContainsFunc(args.Reason, unicode.IsControl):
		return nil, "", failure{http.StatusBadRequest, fmt.Sprintf("the reason must be one line of at most %d bytes", maxReason)}
	case args.Until.UTC().Year() > 9999:
		return nil, "", failure{http.StatusBadRequest, "the end of a pause must be before the year 10000"}
	case !args.Until.IsZero() && !args.Until.After(now):
		return nil, "", failure{http.StatusBadRequest, fmt.Sprintf("%s is in the past: the end of a pause must be in the future", args.Until.UTC().Format(time.RFC3339))}
	}
	who, err := peerFrom(ctx)
	if err != nil {
		return nil, "", err
	}
	p := rotation.Pause{Since: now.Truncate(time.Second), Until: args.Until.UTC(), Reason: printable.Line(args.Reason, maxReason), By: who.name()}
	o, err := s.daemon.Pause(ctx, token, p)
	return o, "paused", err
}

func (s *server) resume(ctx context.Context, token string, _ noArgs) (answer any, outcome string, err error) {
	o, err := s.daemon.Resume(ctx, token)
	outcome = "resumed"
	if err == nil && o.Lifted == nil {
		if _, err := s.find(token); err != nil && token != rotation.AllTokens {
			return nil, "", err
		}
		outcome = "was not paused"
	}
	return o, outcome, err
}

// command returns the handler of a verb that changes the state of one token, of the tokens of an account, or
// of all tokens if the path names neither. do gets the decoded arguments. It returns the answer and the
// outcome for the event.
func command[Args interface{ audit() []any }](s *server, verb event.Kind, do func(ctx context.Context, token string, args Args) (answer any, outcome string, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token, account := r.PathValue("name"), r.PathValue("account")
		told := event.Command{Verb: verb, Account: printable.Line(account, maxName)}
		by := event.Operator("")
		answer, outcome, err := func() (any, string, error) {
			who, err := peerFrom(r.Context())
			if err != nil {
				return nil, "", err
			}
			by = who.actor(verb)
			if err := s.refusal(who, verb.Name()); err != nil {
				return nil, "", err
			}
			args, err := decode[Args](http.MaxBytesReader(w, r.Body, maxBody))
			if err != nil {
				return nil, "", err
			}
			told.Args = args.audit()
			if token != rotation.AllTokens && verb != event.OperatorResume { // a pause may be older than the configuration
				if _, err := s.find(token); err != nil {
					return nil, "", err
				}
			}
			// A command is carried out even if the client does not wait for the answer.
			ctx, cancel := context.WithTimeout(event.WithActor(context.WithoutCancel(r.Context()), by), commandTime)
			defer cancel()
			return do(ctx, cmp.Or(account, token), args)
		}()
		if told.Outcome = outcome; err != nil {
			told.Outcome, told.Err = outcomeOf(err), printable.Text(err.Error())
		}
		s.tell(printable.Line(token, maxName), by, told)
		if err != nil {
			serveError(w, err)
			return
		}
		serveJSON(w, http.StatusOK, answer)
	}
}

// Unfinished is the error of a command that started, but did not do everything.
type Unfinished struct {
	Outcome string // for the event
	Err     error
}

// Error implements error.
func (e *Unfinished) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Unfinished) Unwrap() error { return e.Err }

// outcomeOf returns the outcome of a command that returned an error. "refused" means that nothing was
// started.
func outcomeOf(err error) string {
	if e, ok := errors.AsType[*Unfinished](err); ok {
		return e.Outcome
	}
	switch {
	case errors.Is(err, rotation.ErrLedger):
		return "failed: the ledger could not be written"
	case errors.Is(err, context.DeadlineExceeded):
		return "failed: it did not end in time"
	}
	if e, ok := errors.AsType[*rotation.IssuerError](err); ok {
		switch e.Class {
		case rotation.Unknown:
			return "failed: it is not known whether Cloudflare carried it out"
		case rotation.NotCarriedOut:
			return "failed: nothing was sent to Cloudflare"
		default:
			return "failed: Cloudflare refused it"
		}
	}
	return "refused"
}

// decode decodes exactly one JSON object without unknown fields.
func decode[Args any](body io.Reader) (args Args, err error) {
	decoder := json.NewDecoder(body)
	var object json.RawMessage
	if err = decoder.Decode(&object); err == nil {
		if _, end := decoder.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("there is something after the object")
		} else if object[0] != '{' { // null would mean a command without any argument
			err = errors.New("it is not an object")
		} else {
			strict := json.NewDecoder(bytes.NewReader(object))
			strict.DisallowUnknownFields()
			err = strict.Decode(&args)
		}
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return args, failure{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body has more than %d bytes", tooLarge.Limit)}
	} else if err != nil {
		return args, failure{http.StatusBadRequest, fmt.Sprintf("the body cannot be read: %v", err)}
	}
	return args, nil
}

// failure is an error with the HTTP status of its answer.
type failure struct {
	code int
	text string
}

func (f failure) Error() string { return f.text }

func serveError(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	switch f, ok := errors.AsType[failure](err); {
	case ok:
		code = f.code
	case errors.Is(err, ErrNoAccount):
		code = http.StatusNotFound
	case errors.Is(err, rotation.ErrNotInDoubt), errors.Is(err, rotation.ErrUnfit), errors.Is(err, rotation.ErrNotRotated), errors.Is(err, rotation.ErrNoPrevious),
		errors.Is(err, rotation.ErrNoOrder):
		code = http.StatusConflict
	case errors.Is(err, context.DeadlineExceeded):
		code = http.StatusGatewayTimeout
	}
	serveJSON(w, code, errorAnswer{printable.Text(err.Error())})
}

func serveJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client went away
}

// jsonErrors answers requests for which the mux has no pattern with an error in JSON.
func jsonErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		discarded := &discard{header: http.Header{}}
		mux.ServeHTTP(discarded, r)
		if discarded.code == http.StatusMethodNotAllowed {
			allow := discarded.header.Get("Allow")
			w.Header().Set("Allow", allow)
			serveError(w, failure{discarded.code, fmt.Sprintf("%s is not allowed here; allowed: %s", r.Method, allow)})
			return
		}
		serveError(w, failure{http.StatusNotFound, ErrUnsupported.Error()})
	})
}

// discard keeps the status and the header of an answer and drops its body.
type discard struct {
	header http.Header
	code   int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(code int)        { d.code = code }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// peer is the process at the other end of a connection, as the kernel reports it.
type peer struct {
	uid, gid uint32
	pid      int32
	groups   []uint32 // further groups of the process; empty if the kernel does not say them
}

type peerKey struct{}

type peerResult struct {
	peer
	err error
}

// peerFrom returns who is at the other end of the connection of a request, or the refusal if that is not known.
func peerFrom(ctx context.Context) (peer, error) {
	r, ok := ctx.Value(peerKey{}).(peerResult)
	if !ok {
		r.err = errors.New("the connection is not known")
	}
	if r.err != nil {
		return peer{}, failure{http.StatusForbidden, fmt.Sprintf("the system does not say who you are: %v", r.err)}
	}
	return r.peer, nil
}

// actor returns the peer as the actor of a command.
func (p peer) actor(verb event.Kind) event.Actor {
	return event.Actor{Cause: event.ByOperator, User: p.name(), Command: verb.Name(), Peer: true, UID: p.uid, GID: p.gid, PID: p.pid}
}

// user returns the name of the user; empty if the system does not know it.
func (p peer) user() string {
	u, err := user.LookupId(strconv.FormatUint(uint64(p.uid), 10))
	if err != nil {
		return ""
	}
	return u.Username
}

// name returns the user's name or number.
func (p peer) name() string { return event.UserOf(p.uid, p.user()) }
