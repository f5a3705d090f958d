// Package drill plays disasters through with somebody's own configuration, and reports what
// would have happened.
//
// Guarantee: nothing real is touched. Of the configuration it takes the names, the IDs, the
// graces, the windows, what else the tokens are set to, and where the sinks write to. Addresses
// are not used, credentials are not read, and in their place stand a Cloudflare simulator, an
// application behind Access and a KV server inside this process, new for each disaster: no
// request goes to a verify.url. The daemon is the real one ([rotatord/internal/app]), and for
// the disasters in which it dies the real program in a process of its own.
//
// Nobody waits for a grace of 24 hours: time passes by making the world older. The daemon is
// stopped, all times in its ledger and in the simulator are moved into the past, and it is
// started again. That is what the clock would have done, but for the restarts.
package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"rotatord/internal/config"
	"rotatord/internal/event"
)

// Options say what to play with.
type Options struct {
	// Only names the disasters to play. Empty: all of them.
	Only []string
	// Program is rotatord, for disasters in which the daemon is killed. Zero: they are left
	// out, and the report says so.
	Program Program
	// AtOnce is how many disasters are played at the same time. 0 means 4.
	AtOnce int
	// Tokens is how many tokens of the configuration take part at most, up to MaxTokens. 0
	// means 8.
	Tokens int
}

// MaxTokens is how many tokens can take part: as many as the daemon rotates at once, since
// some disasters come when it is in the middle of all of them.
const MaxTokens = 16

// Program is a file that can be run, and the name that it is called by.
type Program struct{ Path, Name string }

// Report is what would have happened.
type Report struct {
	// Tokens is how many the configuration has, Sample those that took part: one of each
	// combination of account and those settings that make a difference in a disaster.
	Tokens int      `json:"tokens"`
	Sample []string `json:"sample"`
	// Notes say in what the rehearsal differs from the configuration.
	Notes     []string  `json:"notes"`
	Disasters []Outcome `json:"disasters"`
}

// Violated reports whether any disaster broke a promise, or could not be played.
func (r Report) Violated() bool {
	return slices.ContainsFunc(r.Disasters, func(o Outcome) bool { return o.Error != "" || o.Broken() > 0 })
}

// Outcome is how one disaster went.
type Outcome struct {
	Name     string `json:"name"`
	What     string `json:"what"`               // what happens
	Ends     string `json:"ends,omitempty"`     // what ends it, and when
	Operator string `json:"operator,omitempty"` // what is for an operator to do
	// Fatal is set if the disaster itself locks consumers out, and rotatord cannot help.
	Fatal  bool           `json:"fatal,omitempty"`
	Tokens []TokenOutcome `json:"tokens"`
	// Error says why it could not be played to its end. That is a fault of the drill.
	Error string `json:"error,omitempty"`
}

// Broken is how many promises were broken.
func (o Outcome) Broken() (n int) {
	for _, t := range o.Tokens {
		n += len(t.Violations)
	}
	return n
}

// TokenOutcome is what became of one token.
type TokenOutcome struct {
	Token string `json:"token"`
	// Strategy is rotate, replace or pair.
	Strategy string `json:"strategy"`
	// First is set if the service token was yet to be made when the disaster began.
	First bool `json:"first,omitempty"`
	// Rotations that Cloudflare carried out since the disaster began. That it made a service
	// token counts as one, since each brings a secret.
	Rotations int `json:"rotations"`
	// Made counts the service tokens that rotatord made since then, Left those that there are in
	// the end. Both are 0 for those that it does not make.
	Made int `json:"service_tokens_made,omitempty"`
	Left int `json:"service_tokens_left,omitempty"`
	// NeverSeen counts secrets that Cloudflare issued and that no sink ever had.
	NeverSeen int `json:"secrets_never_delivered"`
	// Refused is how long a consumer that reads Vault before each request was locked out.
	Refused Duration `json:"consumer_refused"`
	// OldDied is how long after the disaster began the secret of before was first refused;
	// nil if it still works, or if there was none.
	OldDied *Duration `json:"old_secret_died_after,omitempty"`
	// Works is whether in the end consumers of Vault are accepted.
	Works  bool     `json:"works"`
	State  string   `json:"state"` // at the end
	Alerts []string `json:"alerts"`
	// Promises that were broken. Empty is good.
	Violations []string `json:"violations"`
	Story      []Moment `json:"story"`
}

// Moment is something that the daemon did or found.
type Moment struct {
	After Duration `json:"after"` // since the disaster began
	What  string   `json:"what"`
}

// Duration is written as text, in JSON as well.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).Round(10 * time.Millisecond).String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	parsed, err := time.ParseDuration(string(b))
	*d = Duration(parsed)
	return err
}

// String writes it in the one or two units that a reader needs.
func (d Duration) String() string { return event.Span(time.Duration(d)) }

// Names of all disasters, with what happens in each.
func Names() [][2]string {
	var all [][2]string
	for _, d := range disasters {
		all = append(all, [2]string{d.name, d.what})
	}
	return all
}

// Run plays the disasters, some at the same time, and returns the report with them in their
// order. The error is about the options, or says that no token of c can take part.
func Run(ctx context.Context, c *config.Config, o Options) (Report, error) {
	chosen, err := choose(o.Only)
	if err != nil {
		return Report{}, err
	}
	s, err := sampleOf(c, min(o.Tokens, MaxTokens))
	if err != nil {
		return Report{}, err
	}
	report := Report{Tokens: len(c.Tokens), Notes: s.notes, Disasters: []Outcome{}}
	for _, t := range s.tokens {
		report.Sample = append(report.Sample, t.name)
	}
	if o.Program.Path == "" {
		chosen = slices.DeleteFunc(chosen, func(d disaster) bool { return d.kill != nil })
		report.Notes = append(report.Notes, "The disasters in which the daemon is killed were left out: there is no program to run.")
	}
	var idle []string
	chosen = slices.DeleteFunc(chosen, func(d disaster) bool {
		nobody := len(s.those(d.only).tokens) == 0
		if nobody {
			idle = append(idle, d.name)
		}
		return nobody
	})
	if len(idle) > 0 {
		report.Notes = append(report.Notes, "Not played, since they are about settings that no token has: "+strings.Join(idle, ", ")+".")
	}
	if o.AtOnce <= 0 {
		o.AtOnce = 4
	}
	outcomes := make([]Outcome, len(chosen))
	slots := semaphore.NewWeighted(int64(o.AtOnce))
	var played sync.WaitGroup
	for i, d := range chosen {
		played.Go(func() {
			if err := slots.Acquire(ctx, 1); err != nil {
				outcomes[i] = Outcome{Name: d.name, What: d.what, Tokens: []TokenOutcome{}, Error: "it was not played: " + err.Error()}
				return
			}
			defer slots.Release(1)
			outcomes[i] = play(ctx, d, s, o.Program)
		})
	}
	played.Wait()
	report.Disasters = append(report.Disasters, outcomes...)
	return report, nil
}

// choose finds the disasters by their names.
func choose(names []string) ([]disaster, error) {
	if len(names) == 0 {
		return slices.Clone(disasters), nil
	}
	var chosen []disaster
	var unknown []string
	for _, name := range names {
		i := slices.IndexFunc(disasters, func(d disaster) bool { return d.name == name })
		if i < 0 {
			unknown = append(unknown, name)
			continue
		}
		chosen = append(chosen, disasters[i])
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("%w named %s", ErrUnknown, strings.Join(unknown, ", "))
	}
	return chosen, nil
}

// ErrUnknown is in the error of Run if there is no disaster of a name.
var ErrUnknown = errors.New("there is no disaster")

// errNothing says that the configuration has nothing to play with.
var errNothing = errors.New("the configuration has no token")
