package rotation_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// otherSink is a sink that replaces another one in the configuration.
type otherSink struct{ memorySink }

func (otherSink) Name() string { return "memory:other" }

// loss is something that is lost while a token is in some state. restore puts it back, if that is possible.
type loss struct {
	name    string
	happen  func(p *stateTest)
	restore func(p *stateTest)
}

// failCalls makes the calls with these prefixes fail, in addition to the calls that fail already.
func failCalls(err error, prefixes ...string) func(p *stateTest) {
	return func(p *stateTest) {
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
	{name: "the sink is replaced in the configuration", happen: func(p *stateTest) {
		p.token.Sinks = []rotation.Sink{otherSink{memorySink{p.world}}}
		p.misled = true // what was seen in the old sink does not count for the new one
	}},
	{name: "the secret in the sink is deleted", happen: func(p *stateTest) {
		p.sink, p.misled = rotation.Credential{}, true // an empty sink is filled without asking Cloudflare
	}},
	{name: "the sealed answers are deleted", happen: func(p *stateTest) { clear(p.pending) }},
	{name: "the identity, for an hour", happen: func(p *stateTest) { p.unreadable = true }, restore: func(p *stateTest) { p.unreadable = false }},
	{name: "the disk, for an hour", happen: failCalls(errors.New("no space left on device"), "save", "reserve", "seal"), restore: clearFaults},
	{name: "the sink, for an hour", happen: failCalls(errors.New("connection refused"), "sink"), restore: clearFaults},
	{name: "the account's credential, for an hour", happen: failCalls(
		&rotation.IssuerError{Class: rotation.Refused, Operation: "get", Status: 403}, "inspect", "rotate", "extend", "create", "find", "delete"), restore: clearFaults},
	{name: "the process", happen: func(p *stateTest) {
		p.r = p.start()
		if _, err := p.r.Enroll(p.t.Context(), p.token); err != nil {
			p.t.Fatal(err)
		}
	}},
}

// TestEveryLossHasAnExit: something is lost in some state, and is put back if that is possible. In the end
// consumers have a secret that works, automatically or after a command that status shows.
func TestEveryLossHasAnExit(t *testing.T) {
	for _, f := range stateCases {
		if f.gone {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			for _, lost := range losses {
				f.run(t, func(p *stateTest) {
					lost.happen(p)
					for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(10 * time.Minute) {
						_, _ = p.advanceNow(p.r, p.token)
					}
					if lost.restore != nil {
						lost.restore(p)
					}
					if err := p.finishWithCommands(f); err != nil {
						t.Errorf("%s: %v", lost.name, err)
					}
				})
			}
		})
	}
}

// finishWithCommands calls repairAndFinish. If the state does not end by itself, it types the command that
// status shows.
func (p *stateTest) finishWithCommands(f stateCase) (err error) {
	for range 3 {
		if err = p.repairAndFinish(f); err == nil {
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
