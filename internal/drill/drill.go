// Package drill rehearses disasters with an operator's own configuration, and reports what would have
// happened.
//
// Guarantee: nothing real is touched. The drill takes from the configuration only the names, the IDs, the
// graces, the windows, the other settings of the tokens, and where the sinks write to. It does not use
// addresses and does not read credentials. For each disaster it starts a new Cloudflare simulator, an
// application behind Access and a KV server in this process, so no request goes to a verify.url. The daemon
// is the real one ([rotatord/internal/app]). For a disaster in which the daemon dies, it is the real program
// in a process of its own.
//
// A grace of 24 hours passes in an instant, because the drill makes the world older: it stops the daemon,
// moves all times in the ledger and in the simulator into the past, and starts the daemon again. Except for
// the restarts, the passing of time would have the same effect.
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

// Options are the options of a drill.
type Options struct {
	// Only names the disasters to rehearse. Empty: all of them.
	Only []string
	// Program is rotatord, for the disasters in which the daemon is killed. Zero: these are left out,
	// and the report says so.
	Program Program
	// AtOnce is how many disasters are rehearsed at the same time. 0 means 4.
	AtOnce int
	// Tokens is the largest number of tokens that take part, up to MaxTokens. 0 means 8.
	Tokens int
}

// MaxTokens is the largest number of tokens that can take part: as many as the daemon rotates at once,
// because some disasters happen while it rotates all of them.
const MaxTokens = 16

// Program is an executable file and the name that it is started with.
type Program struct{ Path, Name string }

// Report says what would have happened.
type Report struct {
	// Tokens is the number of configured tokens. Sample names those that took part: one for each
	// combination of an account and the settings that make a difference in a disaster.
	Tokens int      `json:"tokens"`
	Sample []string `json:"sample"`
	// Notes say how the rehearsal differs from the configuration.
	Notes     []string  `json:"notes"`
	Disasters []Outcome `json:"disasters"`
}

// Violated reports whether a disaster broke a promise, or could not be rehearsed.
func (r Report) Violated() bool {
	return slices.ContainsFunc(r.Disasters, func(o Outcome) bool { return o.Error != "" || o.Broken() > 0 })
}

// Outcome is the result of one disaster.
type Outcome struct {
	Name     string `json:"name"`
	What     string `json:"what"`               // what happens
	Ends     string `json:"ends,omitempty"`     // what ends it, and when
	Operator string `json:"operator,omitempty"` // what an operator has to do
	// Fatal is set if the disaster itself locks consumers out, and rotatord cannot help.
	Fatal  bool           `json:"fatal,omitempty"`
	Tokens []TokenOutcome `json:"tokens"`
	// Error says why it could not be rehearsed to its end. That is a fault of the drill.
	Error string `json:"error,omitempty"`
}

// Broken returns how many promises were broken.
func (o Outcome) Broken() (n int) {
	for _, t := range o.Tokens {
		n += len(t.Violations)
	}
	return n
}

// TokenOutcome is the result for one token.
type TokenOutcome struct {
	Token string `json:"token"`
	// Strategy is rotate, replace or pair.
	Strategy string `json:"strategy"`
	// Sink is the kind of the first sink: consumers read that one.
	Sink string `json:"sink"`
	// First is set if the service token did not exist yet when the disaster began.
	First bool `json:"first,omitempty"`
	// Rotations counts the rotations that Cloudflare carried out since the disaster began. A service
	// token that it created counts too, because that also brings a secret.
	Rotations int `json:"rotations"`
	// Created counts the service tokens that rotatord created since then, Left those that exist at the
	// end. Both are 0 for tokens whose service tokens rotatord does not create.
	Created int `json:"service_tokens_made,omitempty"`
	Left    int `json:"service_tokens_left,omitempty"`
	// NeverSeen counts the secrets that Cloudflare issued and that never were in a sink.
	NeverSeen int `json:"secrets_never_delivered"`
	// Refused is how long a consumer was locked out that reads the sink before each request.
	Refused Duration `json:"consumer_refused"`
	// OldDied is when the old secret was first refused, counted from the beginning of the disaster; nil
	// if it still works, or if there was none.
	OldDied *Duration `json:"old_secret_died_after,omitempty"`
	// Works reports whether consumers of the sink are accepted at the end.
	Works  bool     `json:"works"`
	State  string   `json:"state"` // at the end
	Alerts []string `json:"alerts"`
	// Violations are the promises that were broken.
	Violations []string `json:"violations"`
	Story      []Moment `json:"story"`
}

// Moment is something that the daemon did or found out.
type Moment struct {
	After Duration `json:"after"` // since the disaster began
	What  string   `json:"what"`
}

// Duration is written as text, also in JSON.
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

// String returns d in the one or two units that a reader needs.
func (d Duration) String() string { return event.Span(time.Duration(d)) }

// Names returns the names of all disasters, each with what happens in it.
func Names() [][2]string {
	var all [][2]string
	for _, d := range disasters {
		all = append(all, [2]string{d.name, d.what})
	}
	return all
}

// Run rehearses the disasters, some at the same time, and returns the report in the order of the disasters.
// The error is about the options, or says that no token of c can take part.
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
		report.Notes = append(report.Notes, "The disasters in which the daemon is killed were left out, because there is no program to run.")
	}
	var idle []string
	chosen = slices.DeleteFunc(chosen, func(d disaster) bool {
		unfit := len(s.those(d.only).tokens) == 0
		if unfit {
			idle = append(idle, d.name)
		}
		return unfit
	})
	if !slices.ContainsFunc(s.tokens, player.inVault) {
		var ofVault []string
		idle = slices.DeleteFunc(idle, func(name string) bool {
			about := strings.HasPrefix(name, "vault-")
			if about {
				ofVault = append(ofVault, name)
			}
			return about
		})
		if len(ofVault) > 0 {
			report.Notes = append(report.Notes, "Not rehearsed, because no token that takes part has a sink in Vault: "+strings.Join(ofVault, ", ")+".")
		}
	}
	if len(idle) > 0 {
		report.Notes = append(report.Notes, "Not rehearsed, because they are about settings that no token has: "+strings.Join(idle, ", ")+".")
	}
	if o.AtOnce <= 0 {
		o.AtOnce = 4
	}
	outcomes := make([]Outcome, len(chosen))
	slots := semaphore.NewWeighted(int64(o.AtOnce))
	var rehearsals sync.WaitGroup
	for i, d := range chosen {
		rehearsals.Go(func() {
			if err := slots.Acquire(ctx, 1); err != nil {
				outcomes[i] = Outcome{Name: d.name, What: d.what, Tokens: []TokenOutcome{}, Error: "it was not rehearsed: " + err.Error()}
				return
			}
			defer slots.Release(1)
			outcomes[i] = play(ctx, d, s, o.Program)
		})
	}
	rehearsals.Wait()
	report.Disasters = append(report.Disasters, outcomes...)
	return report, nil
}

// choose returns the disasters with these names.
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

// ErrUnknown is in the error of Run if there is no disaster with a name.
var ErrUnknown = errors.New("there is no disaster")

// errNothing says that no token of the configuration can take part.
var errNothing = errors.New("the configuration has no token")
