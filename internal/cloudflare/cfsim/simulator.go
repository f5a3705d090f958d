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
	// DefaultAccountID is the account of seeded tokens.
	DefaultAccountID = "023e105f4ecef8ad9ca31a8372d0c353"
	// DefaultRateLimit is the number of requests in five minutes for a credential.
	DefaultRateLimit = 1200
)

// BasePath is the path of the API: a client's base URL is the address of the simulator followed by it.
const BasePath = "/client/v4"

// Options configure a simulator. The zero Options are a good default.
type Options struct {
	// Now is the clock of everything that expires. Nil means time.Now. Delays of
	// faults always take real time.
	Now func() time.Time
	// AccountID, 32 lower-case hex digits, owns the seeded tokens and those that Create creates without an
	// owner. Empty means DefaultAccountID. Requests may name any account or zone of 32 hex digits; each has
	// its own tokens.
	AccountID string
	// APIToken is the only bearer token that is accepted. APIEmail and APIKey are the only pair that is
	// accepted. If all are zero, any credential that is not empty is accepted. If only one scheme is set, the
	// other one is refused.
	APIToken secret.Value
	APIEmail string
	APIKey   secret.Value
	// ReadOnlyToken is a further bearer token that is accepted. It may list, get and verify. Changes are
	// refused with 403 and code 9109, as if the token had only the permission to read service tokens. Zero
	// means none.
	ReadOnlyToken secret.Value
	// SeedTokens is how many service tokens exist from the beginning: seeded-0001 and
	// so on, with the IDs of SeedTokenID, valid for a year. Zero means none.
	SeedTokens int
	// RateLimit is the number of requests that one credential has in five minutes.
	// Zero means DefaultRateLimit. Negative means no limit and no Ratelimit headers.
	RateLimit int
	// Seed makes secrets and IDs predictable: the same seed and the same sequence of
	// requests give the same ones. Zero means the system's random source.
	Seed uint64
	// Behaviour is the assumed behaviour of Cloudflare at the start. The zero Behaviour is the one that the
	// package comment describes.
	Behaviour Behaviour
	// Logger gets one debug line for each request, without any secret. Nil discards.
	Logger *slog.Logger
}

// Simulator is one Cloudflare. It is an http.Handler and safe for concurrent use. A process can have any
// number of them.
type Simulator struct {
	options Options
	log     *slog.Logger
	mux     *http.ServeMux
	limit   *limiter

	mu        sync.Mutex // guards everything below; never held while an answer is written
	behaviour Behaviour
	random    *random
	tokens    []*token // in order of creation, deleted ones included
	byID      map[string]*token
	byClient  map[string]*token
	faults    []*Fault
	stats     Stats
	stateFile string // empty: everything is in memory only
}

// New returns a simulator with its seeded tokens, which keeps everything in memory. See [Open] for one with a
// file.
func New(o Options) *Simulator {
	s := newSimulator(o)
	s.addSeedTokens()
	return s
}

func newSimulator(o Options) *Simulator {
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
	s.routeAPI()
	s.routeControl()
	s.mux.HandleFunc("/app/", s.serveApplication)
	return s
}

// addSeedTokens creates the seeded tokens that never existed.
func (s *Simulator) addSeedTokens() {
	now := s.apiNow()
	for i := 1; i <= s.options.SeedTokens; i++ {
		if s.byID[SeedTokenID(i)] != nil {
			continue
		}
		s.addToken(newToken{
			id:       SeedTokenID(i),
			clientID: seedClientID(i),
			owner:    owner{accounts, s.options.AccountID},
			name:     fmt.Sprintf("seeded-%04d", i),
			duration: defaultDuration,
			enabled:  true,
			version:  1,
		}, now)
	}
}

// ServeHTTP implements http.Handler. Faults that break the connection panic with http.ErrAbortHandler, which
// makes net/http's server do that.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isAPIPath(r.URL.Path) && !isCleanPath(r.URL.Path) {
		s.serveNoRoute(w, r) // where the mux would redirect, Cloudflare has no route
		return
	}
	s.mux.ServeHTTP(w, r)
}

// Handler returns the simulator as an http.Handler.
func (s *Simulator) Handler() http.Handler { return s }

// apiNow returns the time on the API's clock. The caller holds mu, or is New.
func (s *Simulator) apiNow() time.Time {
	return s.options.Now().Add(time.Duration(s.behaviour.ClockSkew)).UTC()
}
