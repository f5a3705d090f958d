package rotation_test

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// TestEventsNameTheActor: the event of a rotation says why the rotation began, and which operator ordered it.
func TestEventsNameTheActor(t *testing.T) {
	peer := event.Actor{Cause: event.ByOperator, User: "alice", Command: "rotate", Peer: true, UID: 1000, GID: 100, PID: 7}
	order := func(o rotation.Overrides) func(*world, rotation.Token, *rotation.Rotator) {
		return func(w *world, token rotation.Token, r *rotation.Rotator) {
			for _, ordered := range r.OrderAll(w.t.Context(), []rotation.Token{token}, o, "bob") {
				if ordered.Err != nil {
					w.t.Error(ordered.Err)
				}
			}
			w.runUntil(r, token, "01 00:21:00")
		}
	}
	for name, test := range map[string]struct {
		do   func(*world, rotation.Token, *rotation.Rotator)
		want event.Actor
	}{
		"schedule": {func(w *world, token rotation.Token, r *rotation.Rotator) { w.runUntil(r, token, "01 01:00:00") }, event.Actor{Cause: event.BySchedule}},
		"retry": {func(w *world, token rotation.Token, r *rotation.Rotator) {
			w.failUntil("sink preflight", "01 01:00:02")
			w.runUntil(r, token, "01 01:10:00")
		}, event.Actor{Cause: event.ByRetry}},
		"order": {order(rotation.Overrides{}), event.Operator("bob")},
		"command": {func(w *world, token rotation.Token, r *rotation.Rotator) {
			if _, err := r.RotateNow(event.WithActor(w.t.Context(), peer), token, rotation.Overrides{}, "alice"); err != nil {
				w.t.Error(err)
			}
		}, peer},
		"command without a known peer": {func(w *world, token rotation.Token, r *rotation.Rotator) {
			if _, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops"); err != nil {
				w.t.Error(err)
			}
		}, event.Operator("ops")},
	} {
		t.Run(name, func(t *testing.T) {
			scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
				time.Sleep(20 * time.Minute)
				before := len(w.events)
				test.do(w, token, r)
				found := false
				for _, e := range w.events[before:] {
					if e.Token != "ci" || e.At.IsZero() || e.At.After(time.Now()) {
						t.Errorf("%s: %q at %s", e.Kind, e.Token, e.At)
					}
					if e.Kind == event.Rotated {
						if found = true; e.By != test.want {
							t.Errorf("by %+v, want %+v", e.By, test.want)
						}
					}
				}
				if !found {
					t.Error("no event reports a rotation")
				}
			})
		})
	}
}

// TestPhasesAreTheWholeRotation: what a rotation waits for is in one of its phases. Every call of the world takes a second
// here.
func TestPhasesAreTheWholeRotation(t *testing.T) {
	scheduled(t, "0 * * * *", func(token *rotation.Token) { token.VerifyWithin = time.Minute }, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		token.Prober = w
		time.Sleep(time.Hour)
		w.fault = func(int, string) fault { time.Sleep(time.Second); return fault{} }
		before, calls := len(w.events), len(w.calls)
		if _, err := r.Advance(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		var phases []event.Phase
		var sum, whole time.Duration
		for _, e := range w.events[before:] {
			switch d := e.Detail.(type) {
			case event.PhaseEnded:
				phases, sum = append(phases, d.Phase), sum+d.Duration
			case event.RotationEnded:
				whole = d.Duration
			}
		}
		if !slices.Equal(phases, event.Phases) {
			t.Errorf("the phases are %q, want %q", phases, event.Phases)
		}
		if sum != whole || whole < 10*time.Second {
			t.Errorf("the phases took %s of %s; calls: %q", sum, whole, w.calls[calls:])
		}
	})
}

// TestSkipsAreToldOnceAnHour: while the same thing is missing, a token says once an hour that it is skipped. A new cause,
// what a command waits for, and a skip after a rotation, are told at once. Metrics and pages know of each attempt.
func TestSkipsAreToldOnceAnHour(t *testing.T) {
	scheduled(t, "*/30 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		late, full := fmt.Errorf("Vault: %w", context.DeadlineExceeded), fmt.Errorf("the disk: %w", syscall.ENOSPC)
		w.fault = func(_ int, call string) fault {
			at := w.now()
			switch {
			case call != "sink preflight" || at.Before(clock("01 00:30:00")):
			case at.Before(clock("01 03:10:00")):
				return fault{before: late}
			case at.Before(clock("01 03:25:00")), at.After(clock("01 03:50:00")) && at.Before(clock("01 04:10:00")):
				return fault{before: full}
			}
			return fault{}
		}
		w.runUntil(r, token, "01 01:05:00")
		if _, err := r.RotateNow(t.Context(), token, rotation.Overrides{}, "ops"); err == nil {
			t.Fatal("the command succeeded")
		}
		w.runUntil(r, token, "01 04:29:00")
		told, before := []string{"rotated"}, 0
		stream := event.NewStream(nil, nil, event.NewSubscriber("test", event.On(func(e event.Event, d event.RotationEnded) {
			switch e.Kind {
			case event.RotationSkipped:
				told = append(told, d.Trigger+": "+d.Err.Error())
			case event.SkippedAsBefore:
				if d.Err == nil || d.NextTry.IsZero() {
					t.Errorf("it does not say why, or what comes next: %+v", d)
				}
				before++
			case event.Rotated:
				if told[len(told)-1] != "rotated" {
					told = append(told, "rotated")
				}
			}
		})))
		for _, e := range w.events {
			stream.Publish(e)
		}
		const waits, noSpace = "sink memory:sink: Vault: context deadline exceeded", "sink memory:sink: the disk: no space left on device"
		want := []string{"rotated", "schedule: " + waits, "manual: " + waits, "retry: " + waits, "retry: " + waits, "retry: " + noSpace,
			"rotated", "schedule: " + noSpace, "rotated"}
		if !slices.Equal(told, want) || before < 20 { // tries have jitter
			t.Errorf("told %q, and %d times as before", told, before)
		}
	})
}

// refusal is the error of a server that refuses.
type refusal string

func (r refusal) Error() string { return string(r) }
func (refusal) Cause() string   { return "refused" }

// TestAnotherRefusalIsTold: who grants one missing permission after the other sees in the log what is missing next, and what is missing still is told
// once an hour. The number that Cloudflare gives a refusal tells two of them apart, and not its text, which may have the number of a request.
func TestAnotherRefusalIsTold(t *testing.T) {
	refused := func(status, code int, text string) error {
		return &rotation.IssuerError{Class: rotation.Refused, Operation: "get", Status: status, Code: code, Message: text}
	}
	for name, test := range map[string]struct {
		errs [3]error
		want int
	}{
		"Vault":                {[3]error{refusal("no read"), refusal("no update"), refusal("no update")}, 2},
		"a login":              {[3]error{refusal("expired 9s ago"), refusal("expired 39s ago"), refusal("expired 59s ago")}, 1},
		"a proxy":              {[3]error{refusal("denied, #18.2d351ab8"), refusal("denied, #a19.c0ffee77"), refusal("denied, #9bad.7fee-dead")}, 1},
		"Cloudflare":           {[3]error{refused(401, 1000, "invalid"), refused(403, 10000, "no permission"), refused(403, 10000, "no permission")}, 2},
		"a page of Cloudflare": {[3]error{refused(403, 0, "request 1"), refused(403, 0, "request 2"), refused(403, 0, "request 3")}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			scheduled(t, "@every 6h", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
				w.fault = func(_ int, call string) fault {
					if at := w.now(); call == "sink preflight" && at.After(clock("01 00:30:00")) {
						return fault{before: test.errs[min(int(at.Sub(clock("01 06:00:00"))/(15*time.Minute)), 2)]}
					}
					return fault{}
				}
				w.runUntil(r, token, "01 06:55:00")
				told, before := 0, 0
				stream := event.NewStream(nil, nil, event.NewSubscriber("test", event.On(func(e event.Event, _ event.RotationEnded) {
					switch e.Kind {
					case event.RotationSkipped:
						told++
					case event.SkippedAsBefore:
						before++
					}
				})))
				for _, e := range w.events {
					stream.Publish(e)
				}
				if told != test.want || before < 3 {
					t.Errorf("told %d times, want %d, and %d times as before", told, test.want, before)
				}
			})
		})
	}
}
