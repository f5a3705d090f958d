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

// This file has what both randomized tests use: the faults that are planned before a run, and the list of
// the problems that were found.

// plannedFault makes one call fail, and Repeat more calls of the same name that follow directly.
type plannedFault struct {
	Gap    int // how many calls succeed after the previous fault
	How    string
	Class  rotation.Class // the class of the error, if an issuer's call fails before it is carried out
	Repeat int
}

// drawPlannedFault draws a fault with a Gap of at most gap.
func drawPlannedFault(gap int) *rapid.Generator[plannedFault] {
	return rapid.Custom(func(t *rapid.T) plannedFault {
		return plannedFault{
			Gap:    rapid.IntRange(0, gap).Draw(t, "gap"),
			How:    rapid.SampledFrom([]string{"before", "after", "crash before", "crash after", "late"}).Draw(t, "how"),
			Class:  rapid.SampledFrom([]rotation.Class{rotation.Unknown, rotation.NotCarriedOut, rotation.Refused, rotation.Throttled}).Draw(t, "class"),
			Repeat: rapid.SampledFrom([]int{0, 0, 0, 1, 5}).Draw(t, "repeat"),
		}
	})
}

// faultPlan makes calls fail as planned, one fault after the other.
type faultPlan struct {
	all     []plannedFault
	begun   int                                // how many of them have begun
	issuer  []string                           // the calls that fail with an IssuerError
	onFault func(how, call string) (late bool) // called for each fault; reports whether the request may be carried out late
}

// next returns the function that the world asks for the fault of its n-th call.
func (s *faultPlan) next() func(n int, call string) fault {
	again, last, at := 0, "", -1
	return func(n int, call string) fault {
		if again > 0 && call == last {
			again--
			return s.faultOf(s.all[s.begun-1], call)
		}
		if s.begun == len(s.all) {
			return fault{}
		}
		f := s.all[s.begun]
		if at < 0 {
			at = n + f.Gap
		}
		if n < at {
			return fault{}
		}
		s.begun++
		again, last, at = f.Repeat, call, -1
		return s.faultOf(f, call)
	}
}

func (s *faultPlan) faultOf(f plannedFault, call string) fault {
	late := s.onFault(f.How, call)
	err := errors.New("planned fault")
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

// lateBy is how long after the daemon stopped waiting a late request is carried out.
const lateBy = 30 * time.Second

// findings is the reporter of a world in a randomized test. It collects the problems.
type findings struct{ problems []string }

func (l *findings) Helper() {}

func (l *findings) Context() context.Context { return context.Background() }

func (l *findings) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (l *findings) Error(args ...any) { l.problems = append(l.problems, fmt.Sprint(args...)) }

func (l *findings) Errorf(f string, a ...any) { l.problems = append(l.problems, fmt.Sprintf(f, a...)) }
