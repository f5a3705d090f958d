package admission

import "time"

// sharers knows how many processes use the same credentials, and how many did within the last five minutes.
type sharers struct {
	now  int
	past []pastSharers // oldest first, each with more than those after it
}

// pastSharers is how many there were until a time.
type pastSharers struct {
	until time.Time
	n     int
}

func (s *sharers) set(n int, at time.Time) {
	if s.now > n {
		s.past = append(s.past, pastSharers{at, s.now})
	}
	for len(s.past) > 0 && s.past[len(s.past)-1].n <= n {
		s.past = s.past[:len(s.past)-1]
	}
	s.now = n
}

// most returns the largest number within the last five minutes, and in how long that becomes smaller if nothing
// changes; 0 if never.
func (s *sharers) most(now time.Time) (n int, next time.Duration) {
	for len(s.past) > 0 {
		if left := Window - now.Sub(s.past[0].until); left > 0 {
			return s.past[0].n, left
		}
		s.past = s.past[1:]
	}
	return s.now, 0
}
