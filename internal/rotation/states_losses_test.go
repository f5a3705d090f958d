package rotation_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// otherSink is a place that the configuration names in the place of another.
type otherSink struct{ memorySink }

func (otherSink) Name() string { return "memory:other" }

// loss is something that is lost while a token is in some state. Its restore puts back what can be.
type loss struct {
	name    string
	happen  func(p *facing)
	restore func(p *facing)
}

// failing has the calls that begin so fail, beside those that fail already.
func failing(err error, prefixes ...string) func(p *facing) {
	return func(p *facing) {
		before := p.fault
		p.fault = func(n int, call string) fault {
			if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(call, prefix) }) {
				return fault{before: err}
			}
			if before != nil {
				return before(n, call)
			}
			return fault{}
		}
	}
}

var losses = []loss{
	{name: "the sink is replaced in the configuration", happen: func(p *facing) {
		p.token.Sinks = []rotation.Sink{otherSink{memorySink{p.world}}}
	}},
	{name: "what the sink held is deleted", happen: func(p *facing) { p.sink = rotation.Credential{} }},
	{name: "the sealed answers are deleted", happen: func(p *facing) { clear(p.pending) }},
	{name: "the identity, for an hour", happen: func(p *facing) { p.unreadable = true }, restore: func(p *facing) { p.unreadable = false }},
	{name: "the disk, for an hour", happen: failing(errors.New("no space left on device"), "save", "reserve", "seal"), restore: back},
	{name: "the sink, for an hour", happen: failing(errors.New("connection refused"), "sink"), restore: back},
	{name: "the account's credential, for an hour", happen: failing(
		&rotation.IssuerError{Class: rotation.Refused, Operation: "get", Status: 403}, "inspect", "rotate", "extend", "create", "find", "delete"), restore: back},
	{name: "the process", happen: func(p *facing) {
		p.r = p.start()
		if _, err := p.r.Enroll(p.t.Context(), p.token); err != nil {
			p.t.Fatal(err)
		}
	}},
}

// TestEveryLossHasAnExit: whatever is lost in whatever state, it ends with a secret that works once
// what can be put back is back, by itself or by a command that status shows.
func TestEveryLossHasAnExit(t *testing.T) {
	for _, f := range stateCases {
		if f.gone {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			for _, lost := range losses {
				f.face(t, func(p *facing) {
					lost.happen(p)
					for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(10 * time.Minute) {
						_, _ = p.advanceNow(p.r, p.token)
					}
					if lost.restore != nil {
						lost.restore(p)
					}
					if err := p.ended(f); err != nil {
						t.Errorf("%s: %v", lost.name, err)
					}
				})
			}
		})
	}
}

// ended does what ends does, and types what status shows where it does not end by itself.
func (p *facing) ended(f faced) (err error) {
	for range 3 {
		if err = p.ends(f); err == nil {
			return nil
		}
		exits := p.r.Exits(p.token, p.record(), p.troubles())
		if i := slices.IndexFunc(exits, func(e rotation.Exit) bool { return strings.HasSuffix(e.Command, "--rotate-now") }); i >= 0 {
			_, _, _ = commandNamed(p.t.(*testing.T), exits[i].Command).do(p)
		} else {
			_, _ = p.r.RotateNow(p.t.Context(), p.token, rotation.Overrides{Grace: true, Freeze: true}, "ops")
		}
	}
	return err
}
