package vault

import (
	"math"
	"testing"
	"time"
)

// TestLeasesDoNotOverflow: a lease that is longer than a duration can be does not end before it begins.
func TestLeasesDoNotOverflow(t *testing.T) {
	for lease, want := range map[int]time.Duration{-1: 0, 0: 0, 60: time.Minute, 1e12: maxLease, math.MaxInt: maxLease} {
		var s Session
		s.setExpiry(lease)
		if got := seconds(lease); got != want || s.ended() {
			t.Errorf("%d seconds are %s, and it has ended: %t", lease, got, s.ended())
		}
	}
}
