package cfsim

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"rotatord/internal/secret"
)

// Defaults of [Options].
const (
	// DefaultAccountID is the account that seeded tokens belong to.
	DefaultAccountID = "023e105f4ecef8ad9ca31a8372d0c353"
	// DefaultRateLimit is the number of requests in five minutes for a credential.
	DefaultRateLimit = 1200
)

// BasePath is where the API lives: a client's base URL is the simulator's address
// followed by it.
const BasePath = "/client/v4"

// Options configure a simulator. The zero Options are a good default.
type Options struct {
	// Now is the clock of everything that expires. Nil means time.Now. Delays of
	// faults always take real time.
	Now func() time.Time
	// AccountID, 32 lower-case hex digits, owns the seeded tokens and those made by
	// Create without an owner. Empty means DefaultAccountID. Requests may name any account or zone of 32 hex
	// digits; each has its own tokens.
	AccountID string
	// APIToken is the only bearer token that is accepted. APIEmail and APIKey are the
	// only pair that is. If all are zero, any credential is accepted that is not
	// empty; if only one scheme is set, the other one is refused.
	APIToken secret.Value
	APIEmail string
	APIKey   secret.Value
	// SeedTokens is how many service tokens exist from the beginning: seeded-0001 and
	// so on, with the IDs of SeedTokenID, valid for a year. Zero means none.
	SeedTokens int
	// RateLimit is the number of requests that one credential has in five minutes.
	// Zero means DefaultRateLimit. Negative means no limit and no Ratelimit headers.
	RateLimit int
	// Seed makes secrets and IDs predictable: the same seed and the same sequence of
	// requests give the same ones. Zero means the system's random source.
	Seed uint64
	// Behaviour is what is assumed of Cloudflare to begin with. The zero Behaviour is
	// the one that the package comment describes.
	Behaviour Behaviour
	// Logger gets one debug line for each request, without any secret. Nil discards.
	Logger *slog.Logger
}

// Behaviour switches what nobody publishes about Cloudflare, and what goes wrong all
// the time rather than for a number of requests.
type Behaviour struct {
	// ClockSkew is added to the API's clock: its Date header, the timestamps of
	// tokens, and what it compares expiries with. The rate limit counts durations and
	// does not care. Zero means no skew.
	ClockSkew Duration `json:"clock_skew,omitzero"`
	// FrozenUpdatedAt leaves updated_at alone when a secret is rotated.
	FrozenUpdatedAt bool `json:"frozen_updated_at,omitempty"`
	// KeepAllPrevious keeps every previous secret until its own expiry, rather than
	// only the last one.
	KeepAllPrevious bool `json:"keep_all_previous,omitempty"`
	// PropagationDelay is how long a new secret takes to be accepted by the
	// application. Zero means that it is accepted at once.
	PropagationDelay Duration `json:"propagation_delay,omitzero"`
	// LoginRedirect makes the application answer as organisations did before strict
	// service-token authentication: 302 to a login page in place of 401 and 403.
	LoginRedirect bool `json:"login_redirect,omitempty"`
}

// Simulator is one Cloudflare. It is an http.Handler and safe for concurrent use. Any
// number of them may live in one process.
type Simulator struct {
	options Options
	log     *slog.Logger
	mux     *http.ServeMux
	limit   *limiter

	mu        sync.Mutex // guards all below; never held while writing an answer
	behaviour Behaviour
	random    *random
	tokens    []*token // in order of creation, deleted ones included
	byID      map[string]*token
	byClient  map[string]*token
	faults    []*Fault
	stats     Stats
}

// New makes a simulator with its seeded tokens.
func New(o Options) *Simulator {
	o.AccountID = cmp.Or(o.AccountID, DefaultAccountID)
	o.RateLimit = cmp.Or(o.RateLimit, DefaultRateLimit)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Simulator{
		options:   o,
		log:       o.Logger,
		mux:       http.NewServeMux(),
		limit:     newLimiter(o.RateLimit),
		behaviour: o.Behaviour,
		random:    newRandom(o.Seed),
		byID:      map[string]*token{},
		byClient:  map[string]*token{},
		stats:     newStats(),
	}
	now := s.apiNow()
	for i := 1; i <= o.SeedTokens; i++ {
		s.addToken(newToken{
			id:       SeedTokenID(i),
			clientID: seedClientID(i),
			owner:    owner{accounts, o.AccountID},
			name:     fmt.Sprintf("seeded-%04d", i),
			duration: defaultDuration,
			enabled:  true,
			version:  1,
		}, now)
	}
	s.routeAPI()
	s.routeControl()
	s.mux.HandleFunc("/app/", s.serveApplication)
	return s
}

// ServeHTTP implements http.Handler. Faults that break the connection panic with
// http.ErrAbortHandler, which net/http's server turns into just that.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isAPIPath(r.URL.Path) && !isCleanPath(r.URL.Path) {
		s.serveNoRoute(w, r) // where the mux would redirect, Cloudflare has no route
		return
	}
	s.mux.ServeHTTP(w, r)
}

// Handler returns the simulator as an http.Handler.
func (s *Simulator) Handler() http.Handler { return s }

// Behaviour returns what is assumed of Cloudflare at the moment.
func (s *Simulator) Behaviour() Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.behaviour
}

// SetBehaviour changes what is assumed of Cloudflare from now on.
func (s *Simulator) SetBehaviour(b Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviour = b
}

// apiNow is the time on the API's clock. The caller holds mu, or is New.
func (s *Simulator) apiNow() time.Time {
	return s.options.Now().Add(time.Duration(s.behaviour.ClockSkew)).UTC()
}

// Duration is a time.Duration that reads and writes as text such as "1m30s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	parsed, err := time.ParseDuration(string(b))
	*d = Duration(parsed)
	return err
}
