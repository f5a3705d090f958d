package crash

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// tally adds up what came of the rounds.
type tally struct {
	mu         sync.Mutex
	began      time.Time
	finished   int
	violations int
	bad        int            // rounds with a violation
	kills      int            // failpoints that struck
	struck     map[string]int // by point
	polls      int
	excused    int // rounds in which the machine was too slow for a grace
	refused    int
	longest    time.Duration  // for which consumers were refused after a single lost answer
	refusedBy  map[string]int // what Cloudflare did to a token that is none of a pair
}

func newTally() *tally {
	return &tally{began: time.Now(), struck: map[string]int{}, refusedBy: map[string]int{}}
}

func (s *tally) add(r result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished++
	s.violations += len(r.wrong)
	if len(r.wrong) > 0 {
		s.bad++
	}
	if len(r.excused) > 0 {
		s.excused++
	}
	for _, point := range r.struck {
		s.kills++
		s.struck[point]++
	}
	s.polls += r.polls
	s.refused += len(r.refusals)
	s.longest = max(s.longest, r.longest)
	for _, refused := range r.refusals {
		class := "mixed faults"
		if r.incarnations == nil {
			class = r.cloudflare
			if r.extended != nil {
				class = "end of an extended grace"
			}
		}
		if refused.grace == 0 {
			class += ", grace 0"
		}
		s.refusedBy[class]++
	}
}

func (s *tally) rounds() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.finished
}

// missed are the points that never struck.
func (s *tally) missed() []string {
	return slices.DeleteFunc(points(), func(point string) bool { return point == "" || s.struck[point] > 0 })
}

// String is what to report.
func (s *tally) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d rounds in %s: %d violations in %d of them; %d kills at %d of %d points; %d of %d looks at what Vault held were refused",
		s.finished, time.Since(s.began).Round(time.Second), s.violations, s.bad, s.kills, len(s.struck), len(points())-1, s.refused, s.polls)
	if s.excused > 0 {
		fmt.Fprintf(&b, " (in %d rounds since no daemon was there in time)", s.excused)
	}
	if s.longest > 0 {
		fmt.Fprintf(&b, ", after one lost answer for %s at most", s.longest.Round(10*time.Millisecond))
	}
	for i, class := range slices.Sorted(maps.Keys(s.refusedBy)) {
		separator := map[bool]string{true: ": ", false: "; "}[i == 0]
		fmt.Fprintf(&b, "%s%s %d", separator, class, s.refusedBy[class])
	}
	return b.String()
}
