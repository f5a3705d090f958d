package event_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/event"
)

// TestRepeats: a token tells a cause once an hour. Another cause, a skip after a rotation, what a command waits for, the first skip of an order, and a
// clock that was set back, are told.
func TestRepeats(t *testing.T) {
	var told []event.Kind
	s := event.NewStream(nil, nil, event.NewSubscriber("test", event.All(func(e event.Event) { told = append(told, e.Kind) })))
	skip := func(cause string) event.RotationEnded {
		return event.RotationEnded{Trigger: "retry", Result: event.ResultSkipped, Reason: "preflight", Cause: cause, Err: errBad}
	}
	awaited, order, owed, otherSink, unknown, done := skip("sealed"), skip("sealed"), skip("sealed"), skip("sealed"), skip(""), skip("")
	awaited.Awaited, order.Trigger, owed.OwedSince, otherSink.Sink, done.Result = true, "manual", now, "vault:secret/b", event.ResultSuccess
	unknown.Err = errors.New("what no word is known for")
	stuck, refused := event.RotationStuck{Cause: "no_space", Err: errBad}, event.RotationEnded{Result: event.ResultFailed, Reason: "refused", Err: errBad}
	for i, test := range []struct {
		after time.Duration
		d     event.Detail
		want  event.Kind
	}{
		{0, skip("sealed"), event.RotationSkipped},
		{time.Minute, skip("sealed"), event.SkippedAsBefore},
		{2 * time.Minute, awaited, event.RotationSkipped},
		{2 * time.Minute, awaited, event.RotationSkipped},
		{2 * time.Minute, order, event.RotationSkipped},
		{2 * time.Minute, order, event.SkippedAsBefore},
		{2 * time.Minute, owed, event.ReissueUnprotected},
		{2 * time.Minute, owed, event.ReissueUnprotected},
		{3 * time.Minute, otherSink, event.RotationSkipped},
		{4 * time.Minute, skip("no_space"), event.RotationSkipped},
		{5 * time.Minute, skip("sealed"), event.SkippedAsBefore}, // two causes in turn are two things, each told once
		{6 * time.Minute, skip("no_space"), event.SkippedAsBefore},
		{7 * time.Minute, stuck, event.Stuck},
		{8 * time.Minute, stuck, event.StuckAsBefore},
		{8 * time.Minute, refused, event.RotationFailed},
		{8 * time.Minute, refused, event.RotationFailed}, // a request has left each time
		{9 * time.Minute, unknown, event.RotationSkipped},
		{10 * time.Minute, unknown, event.SkippedAsBefore},
		{11 * time.Minute, skip(""), event.RotationSkipped},
		{60 * time.Minute, skip("sealed"), event.RotationSkipped},
		{119 * time.Minute, skip("sealed"), event.SkippedAsBefore},
		{119 * time.Minute, done, event.Rotated},
		{119 * time.Minute, skip("sealed"), event.RotationSkipped},
		{-24 * time.Hour, skip("sealed"), event.RotationSkipped},
		{-23 * time.Hour, skip("sealed"), event.RotationSkipped},
	} {
		told = nil
		s.Publish(event.New(now.Add(test.after), "ci", event.Daemon, test.d))
		s.Publish(event.New(now.Add(test.after), fmt.Sprint("other-", i), event.Daemon, test.d)) // each token tells it
		if first := event.New(now, "", event.Daemon, test.d).Kind; !slices.Equal(told, []event.Kind{test.want, first}) {
			t.Errorf("%d, after %s: %v, want %s and %s", i, test.after, told, test.want, first)
		}
	}
}

// TestRepeatsAreBounded: what is known of tokens goes after an hour, and errors whose text is another one each time are told each time.
func TestRepeatsAreBounded(t *testing.T) {
	told := 0
	s := event.NewStream(nil, nil, event.NewSubscriber("test", event.On(func(e event.Event, _ event.RotationStuck) {
		if e.Kind == event.Stuck {
			told++
		}
	})))
	for i := range 1000 {
		s.Publish(event.New(now, fmt.Sprint("token-", i), event.Daemon, event.RotationStuck{Cause: "no_space"}))
		s.Publish(event.New(now, "ci", event.Daemon, event.RotationStuck{Err: fmt.Errorf("attempt %d", i)}))
	}
	if tokens, most := s.Repeating(); told != 2000 || tokens != 1001 || most > 8 {
		t.Errorf("%d were told, and %d tokens with up to %d causes are known", told, tokens, most)
	}
	// What was told more than an hour ago is told, and known from then on, however much else is known of the token.
	stuck := func(minutes int, token string, d event.RotationStuck) {
		s.Publish(event.New(now.Add(time.Duration(minutes)*time.Minute), token, event.Daemon, d))
	}
	stuck(90, "ci", event.RotationStuck{Cause: "no_space"})
	stuck(95, "other", event.RotationStuck{Cause: "no_space"})
	for i := range 8 {
		stuck(100, "other", event.RotationStuck{Err: fmt.Errorf("attempt %d", i)})
	}
	stuck(151, "ci", event.RotationStuck{Cause: "no_space"})
	told = 0
	stuck(156, "other", event.RotationStuck{Cause: "no_space"})
	stuck(157, "other", event.RotationStuck{Cause: "no_space"})
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	stuck(300, "ci", event.RotationStuck{Cause: "no_space"})
	if tokens, _ := s.Repeating(); tokens != 1 {
		t.Errorf("%d tokens are still known", tokens)
	}
}

// TestRepeatsKeepNoText: while Vault refuses all tokens of a large fleet, the text of each refusal is known by a number.
func TestRepeatsKeepNoText(t *testing.T) {
	const tokens, long = 1000, 10_000
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	s, before := event.NewStream(nil, nil), inUse()
	for i := range tokens {
		s.Publish(event.New(now, fmt.Sprint("token-", i), event.Daemon, event.RotationStuck{Err: errors.New(strings.Repeat("refused ", long/8))}))
	}
	after := inUse()
	if known, _ := s.Repeating(); known != tokens || after > before+tokens*long/4 {
		t.Errorf("%d bytes more are in use, for %d tokens", after-before, known)
	}
}
