package event_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
)

// heard collects what a subscriber is told.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) add(e event.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, e.Token)
}

func (h *heard) list() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

func (h *heard) subscriber(name string) *event.Subscriber {
	return event.NewSubscriber(name, event.All(h.add))
}

func tell(s *event.Stream, token string) { s.Tell(token, event.Daemon, event.RotationStuck{}) }

// TestOrder: subscribers are told in the order of the table, and each of them in the order of publishing, whether
// inline or queued.
func TestOrder(t *testing.T) {
	var mu sync.Mutex
	var told []string
	sub := func(name string) *event.Subscriber {
		return event.NewSubscriber(name, event.All(func(e event.Event) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, name+e.Token)
		}))
	}
	s := event.NewStream(time.Now, nil, sub("a"), nil, sub("b").Queued(time.Minute, nil), sub("c"))
	for _, token := range []string{"1", "2", "3"} {
		tell(s, token)
	}
	if want := []string{"a1", "b1", "c1", "a2", "b2", "c2", "a3", "b3", "c3"}; !slices.Equal(told, want) {
		t.Errorf("%v, want %v", told, want)
	}
}

// TestPublishFillsTheEnvelope looks at one event as it arrives.
func TestPublishFillsTheEnvelope(t *testing.T) {
	var got event.Event
	s := event.NewStream(func() time.Time { return now }, nil, event.NewSubscriber("x", event.All(func(e event.Event) { got = e })))
	s.Tell("ci", alice, event.Renewal{TokenID: "T"})
	if want := (event.Event{At: now, Token: "ci", By: alice, Kind: event.Renewed, Severity: event.Info, Detail: event.Renewal{TokenID: "T"}}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestPanic: one subscriber's panic is reported, and is nobody else's.
func TestPanic(t *testing.T) {
	for _, queued := range []bool{false, true} {
		var others heard
		var reported []string
		bad := event.NewSubscriber("bad", event.All(func(e event.Event) {
			if e.Token == "1" {
				panic(errors.New("cfast_secret"))
			}
			others.add(e)
		}))
		if queued {
			bad.Queued(time.Minute, nil)
		}
		s := event.NewStream(time.Now, func(subscriber, what string) { reported = append(reported, subscriber+" "+what) }, bad, others.subscriber("good"))
		tell(s, "1")
		tell(s, "2")
		if want := []string{"1", "2", "2"}; !slices.Equal(others.list(), want) {
			t.Errorf("%v, want %v", others.list(), want)
		}
		if want := []string{"bad *errors.errorString"}; !slices.Equal(reported, want) {
			t.Errorf("reported: %q, want %q", reported, want)
		}
	}
}

// TestStalledSubscriber: one that stalls delays one event by its patience, and no later one until it goes on. It gets
// what the queue holds, in order, and is told how many were dropped. Others miss nothing.
func TestStalledSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow, other heard
		goOn := make(chan struct{})
		dropped := 0
		stalled := event.NewSubscriber("stalled", event.All(func(e event.Event) {
			<-goOn
			slow.add(e)
		})).Queued(100*time.Millisecond, func(n int) { dropped += n })
		s := event.NewStream(time.Now, nil, stalled, other.subscriber("other"))
		const n = 10_000
		began := time.Now()
		for i := range n {
			tell(s, fmt.Sprint(i))
		}
		if took := time.Since(began); took != 100*time.Millisecond {
			t.Errorf("%d events took %s", n, took)
		}
		if len(other.list()) != n {
			t.Errorf("the other subscriber got %d", len(other.list()))
		}
		bound, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Flush(bound); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("flushing what is stalled: %v", err)
		}
		close(goOn)
		if err := s.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		tell(s, "after")
		got := slow.list()
		if len(got)+dropped != n+1 || dropped == 0 || got[0] != "0" || got[1] != "1" || got[len(got)-1] != "after" {
			t.Errorf("%d events came and %d were dropped; the first is %s and the last %s", len(got), dropped, got[0], got[len(got)-1])
		}
		began = time.Now() // it has caught up, so it is waited for again
		tell(s, "later")
		if got := slow.list(); got[len(got)-1] != "later" || time.Since(began) != 0 {
			t.Errorf("it was not waited for: %s", time.Since(began))
		}
	})
}

// TestWithoutPatience: a queued subscriber that is not waited for gets everything in order.
func TestWithoutPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow heard
		s := event.NewStream(time.Now, nil, event.NewSubscriber("slow", event.All(func(e event.Event) { time.Sleep(time.Second); slow.add(e) })).Queued(0, nil))
		began := time.Now()
		for i := range 5 {
			tell(s, fmt.Sprint(i))
		}
		if time.Since(began) != 0 {
			t.Errorf("it was waited for: %s", time.Since(began))
		}
		if err := s.Flush(t.Context()); err != nil || !slices.Equal(slow.list(), []string{"0", "1", "2", "3", "4"}) {
			t.Errorf("%v, %v", slow.list(), err)
		}
	})
}

// TestFastAgain: a subscriber that has stalled once is waited for again as soon as it is fast again, also while there is always
// something in its queue. Otherwise those who publish without a pause would fill it, and events of a working disk would be lost.
func TestFastAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled, dropped int
		subscriber := event.NewSubscriber("record", event.All(func(event.Event) {
			if handled++; handled == 1 {
				time.Sleep(1100 * time.Millisecond)
			}
			time.Sleep(100 * time.Microsecond)
		})).Queued(time.Second, func(n int) { dropped += n })
		s := event.NewStream(time.Now, nil, subscriber)
		const publishers, each = 200, 200
		var all sync.WaitGroup
		for range publishers {
			all.Go(func() {
				for range each {
					tell(s, "ci")
					time.Sleep(10 * time.Millisecond) // together twice as many as it can handle
				}
			})
		}
		all.Wait()
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if handled != publishers*each || dropped != 0 {
			t.Errorf("%d of %d events were handled, %d were dropped", handled, publishers*each, dropped)
		}
	})
}

// TestStallsAgainAndAgain: a subscriber that stalls every few hundred events does not delay rotations each time.
func TestStallsAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handled := 0
		subscriber := event.NewSubscriber("record", event.All(func(event.Event) {
			if handled++; handled%400 == 0 {
				time.Sleep(1500 * time.Millisecond)
			}
		})).Queued(time.Second, nil)
		s := event.NewStream(time.Now, nil, subscriber)
		var all sync.WaitGroup
		var waited [200]time.Duration
		for i := range waited {
			all.Go(func() {
				for began := time.Now(); time.Since(began) < 5*time.Minute; time.Sleep(200 * time.Millisecond) {
					at := time.Now()
					tell(s, "ci")
					waited[i] += time.Since(at)
				}
			})
		}
		all.Wait()
		for i, w := range waited {
			if w > 15*time.Second {
				t.Errorf("publisher %d waited %s in five minutes", i, w)
			}
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestLeftOut: an event that a queued subscriber leaves out takes no place in its queue, and does not wait for it: in the log each
// step of a rotation that is only shown for debugging, in the record what is not recorded.
func TestLeftOut(t *testing.T) {
	for name, queued := range map[string]func(handle func()) *event.Subscriber{
		"ignored": func(handle func()) *event.Subscriber {
			return event.NewSubscriber("record", event.Ignore(event.StepEnded), event.All(func(event.Event) { handle() }))
		},
		"without a handler": func(handle func()) *event.Subscriber {
			return event.NewSubscriber("some", event.On(func(event.Event, event.RotationStuck) { handle() }))
		},
		"below the level of the log": func(handle func()) *event.Subscriber {
			return event.NewLog(slog.New(slog.NewTextHandler(writer(handle), nil)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var handled, dropped int
				goOn := make(chan struct{})
				stalled := queued(func() { <-goOn; handled++ }).Queued(time.Second, func(n int) { dropped += n })
				s := event.NewStream(time.Now, nil, stalled)
				began := time.Now()
				go tell(s, "handled")
				synctest.Wait()
				for range 10_000 {
					s.Tell("left out", event.Daemon, event.PhaseEnded{Phase: event.PhaseSeal})
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("they were waited for: %s", took)
				}
				close(goOn)
				if err := s.Flush(t.Context()); err != nil {
					t.Error(err)
				}
				tell(s, "handled too")
				if handled != 2 || dropped != 0 {
					t.Errorf("%d were handled and %d dropped", handled, dropped)
				}
			})
		})
	}
}

// writer calls a function for each line of a log.
type writer func()

func (w writer) Write(line []byte) (int, error) { w(); return len(line), nil }

// TestManyPublish: events of many goroutines all arrive, those of each in order.
func TestManyPublish(t *testing.T) {
	var inline, queued heard
	s := event.NewStream(time.Now, nil, inline.subscriber("inline"), queued.subscriber("queued").Queued(time.Minute, nil))
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 100 {
				tell(s, fmt.Sprintf("%d %02d", g, i))
			}
		})
	}
	all.Wait()
	for _, h := range []*heard{&inline, &queued} {
		got := h.list()
		for g := range 8 {
			var of []string
			for _, token := range got {
				if token[0] == byte('0'+g) {
					of = append(of, token)
				}
			}
			if len(of) != 100 || !slices.IsSorted(of) {
				t.Errorf("goroutine %d: %v", g, of)
			}
		}
	}
}

// TestIgnore: what is ignored by name is not handled, also where its detail is; and what is neither is named.
func TestIgnore(t *testing.T) {
	var got heard
	s := event.NewSubscriber("x", event.On(func(e event.Event, _ event.Renewal) { got.add(e) }), event.Ignore(event.RenewalFailed))
	s.Handle(event.New(now, "1", event.Daemon, event.Renewal{}))
	s.Handle(event.New(now, "2", event.Daemon, event.Renewal{Err: errBad}))
	s.Handle(event.New(now, "3", event.Daemon, event.Adoption{}))
	if !slices.Equal(got.list(), []string{"1"}) {
		t.Errorf("%v", got.list())
	}
	missing := s.Missing()
	if slices.Contains(missing, event.Renewed) || slices.Contains(missing, event.RenewalFailed) || !slices.Contains(missing, event.Adopted) || len(missing) != len(event.Definitions())-2 {
		t.Errorf("missing: %v", missing)
	}
}

func BenchmarkPublish(b *testing.B) {
	s := event.NewStream(time.Now, nil, event.NewSubscriber("a", event.All(func(event.Event) {})), event.NewSubscriber("b", event.All(func(event.Event) {})).Queued(time.Second, nil))
	for b.Loop() {
		tell(s, "ci")
	}
}
