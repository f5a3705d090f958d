package app

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// fleet is many tokens with the issuer and the sink of one life.
type fleet struct {
	*living
	begun  map[string][]time.Time // when the rotations of each token began, on the wall clock
	missed map[string]int
}

// Publish implements [rotation.Events].
func (f *fleet) Publish(e event.Event) {
	if d, ok := e.Detail.(event.Missed); ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.missed[e.Token] += d.Count
	}
}

// TestManyAreLateTogether: tokens that are late together, because the clock was set forward or a pause has
// ended, do not begin together. A clock that is set back repeats no slot.
func TestManyAreLateTogether(t *testing.T) {
	const n = 200
	for name, late := range map[string]func(f *fleet, e *engine){
		"clock": func(f *fleet, _ *engine) {
			f.set(f.right + 5*time.Hour)
			time.Sleep(30 * time.Second) // until it is noticed
		},
		"resume": func(f *fleet, e *engine) {
			must(e.rotator.Pause(context.Background(), rotation.AllTokens, rotation.Pause{Since: f.wall()}))
			e.replan(rotation.AllTokens)
			f.pass(5 * time.Hour)
			_, err := e.rotator.Resume(context.Background(), rotation.AllTokens)
			must(err)
			e.replan(rotation.AllTokens)
		},
		"pause that ends": func(f *fleet, e *engine) {
			must(e.rotator.Pause(context.Background(), rotation.AllTokens, rotation.Pause{Since: f.wall(), Until: f.wall().Add(5 * time.Hour)}))
			e.replan(rotation.AllTokens)
			f.pass(5 * time.Hour)
		},
		"freeze": func(f *fleet, _ *engine) { f.pass(5 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			l := life{Expression: "0 * * * *", Zone: "UTC", Start: "2026-11-24T12:00:00Z"}
			if name == "freeze" {
				l.Freezes = []freezing{{From: 90 * time.Minute, Length: 5 * time.Hour}}
			}
			synctest.Test(t, func(t *testing.T) {
				f := &fleet{newLiving(l), map[string][]time.Time{}, map[string]int{}}
				ledger := newMemoryLedger()
				ledger.saving = func(r rotation.Record) {
					if r.Step == rotation.StepClaimed {
						f.begun[r.Token] = append(f.begun[r.Token], r.Work.Began)
					}
				}
				e := newEngine(f.wall, slog.New(slog.DiscardHandler), nil)
				e.rotator = rotation.New(rotation.Options{
					Ledger: ledger, Pending: f, Pauses: f, Events: f, Saved: e.show, Now: f.wall, Started: f.wall(), Owner: "fleet",
				})
				tokens := make([]rotation.Token, n)
				for i := range tokens {
					tokens[i] = f.token
					tokens[i].Name = fmt.Sprint("token-", i)
					tokens[i].Timetable.Key = tokens[i].Name
				}
				must(e.enroll(t.Context(), tokens))
				ctx, cancel := context.WithCancel(t.Context())
				ran := make(chan struct{})
				go func() { defer close(ran); e.run(ctx) }()
				time.Sleep(90 * time.Minute)
				late(f, e)
				from := f.wall()
				f.pass(10 * time.Minute)
				minutes := map[int]int{}
				for name, begun := range f.begun {
					if len(begun) != 2 {
						t.Fatalf("%s began %d rotations: %s", name, len(begun), begun)
					}
					minutes[int(begun[1].Sub(from)/time.Minute)]++
				}
				for minute := range 10 {
					if got := minutes[minute]; got < n/40 || got > n/5 {
						t.Errorf("%d of %d begin in minute %d", got, n, minute)
					}
				}
				if len(f.begun) != n || len(minutes) != 10 {
					t.Errorf("%d tokens began, in the minutes %v", len(f.begun), minutes)
				}
				f.set(f.right + f.wrongBy() - 3*time.Hour)
				f.pass(3 * time.Hour)
				for name, begun := range f.begun {
					if len(begun) != 2 {
						t.Fatalf("%s began %d rotations when the clock was put back: %s", name, len(begun), begun)
					}
				}
				f.pass(time.Hour)
				cancel()
				<-ran
				for name, begun := range f.begun {
					if last := begun[len(begun)-1]; len(begun) != 3 || last.Minute() != 0 || last.Second() != 0 || f.missed[name] != 4 && l.Freezes == nil {
						t.Fatalf("%s began %s, missed %d", name, begun, f.missed[name])
					}
				}
			})
		})
	}
}
