package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"rotatord/internal/rotation"
)

// This file holds what all random lives have in common: the troubles that strike calls, and
// the list of what was wrong.

// trouble strikes one call, and those of the same kind that follow it.
type trouble struct {
	Gap    int // calls since the trouble before
	How    string
	Class  rotation.Class // of an issuer's call that fails before it is carried out
	Repeat int
}

// drawPlannedFault makes one that is at most so many calls behind the one before.
func drawPlannedFault(gap int) *rapid.Generator[trouble] {
	return rapid.Custom(func(t *rapid.T) trouble {
		return trouble{
			Gap:    rapid.IntRange(0, gap).Draw(t, "gap"),
			How:    rapid.SampledFrom([]string{"before", "after", "crash before", "crash after", "late"}).Draw(t, "how"),
			Class:  rapid.SampledFrom([]rotation.Class{rotation.Unknown, rotation.NotCarriedOut, rotation.Refused, rotation.Throttled}).Draw(t, "class"),
			Repeat: rapid.SampledFrom([]int{0, 0, 0, 1, 5}).Draw(t, "repeat"),
		}
	})
}

// troubles strike one after the other.
type troubles struct {
	all    []trouble
	struck int                                // those that have begun
	issuer []string                           // the calls that fail as an issuer's do
	strike func(how, call string) (late bool) // is told of each, and says whether that request may be carried out late
}

// next is the fault of the world's n-th call.
func (s *troubles) next() func(n int, call string) fault {
	again, last, at := 0, "", -1
	return func(n int, call string) fault {
		if again > 0 && call == last {
			again--
			return s.faultOf(s.all[s.struck-1], call)
		}
		if s.struck == len(s.all) {
			return fault{}
		}
		f := s.all[s.struck]
		if at < 0 {
			at = n + f.Gap
		}
		if n < at {
			return fault{}
		}
		s.struck++
		again, last, at = f.Repeat, call, -1
		return s.faultOf(f, call)
	}
}

func (s *troubles) faultOf(f trouble, call string) fault {
	late := s.strike(f.How, call)
	err := errors.New("trouble")
	if slices.Contains(s.issuer, call) {
		e := &rotation.IssuerError{Class: rotation.Unknown, Operation: call, RetryAfter: 2 * time.Minute}
		if f.How == "before" {
			e.Class = f.Class
		}
		err = e
	}
	switch f.How {
	case "after":
		return fault{after: err}
	case "crash before":
		return fault{before: err, crash: true}
	case "crash after":
		return fault{after: err, crash: true}
	case "late":
		if late {
			return fault{before: err, late: lateBy}
		}
	}
	return fault{before: err}
}

// lateBy is how long after it was given up a request may be carried out.
const lateBy = 30 * time.Second

// findings is what a world reports to that is lived through many times: what was wrong.
type findings struct{ problems []string }

func (l *findings) Helper() {}

func (l *findings) Context() context.Context { return context.Background() }

func (l *findings) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (l *findings) Error(args ...any) { l.problems = append(l.problems, fmt.Sprint(args...)) }

func (l *findings) Errorf(f string, a ...any) { l.problems = append(l.problems, fmt.Sprintf(f, a...)) }
