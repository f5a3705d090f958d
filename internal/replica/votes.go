package replica

import (
	"fmt"
	"slices"
	"time"
)

// apart is how far a wall clock may be from that of most others.
const apart = 30 * time.Second

// clockFault returns why the own wall clock must not be trusted; nil if it may be. All living replicas vote with how far
// their clocks are from Vault's, and Vault votes with 0: the one in the middle is right. A replica that is alone has
// nobody to compare with but Vault, whose clock may as well be the wrong one. r.mu must be held.
func (r *Room) clockFault() error {
	if !r.own.known {
		return nil
	}
	votes := []time.Duration{0, r.own.offset}
	for _, o := range r.others {
		if o.living {
			votes = append(votes, o.entry.Wall.Sub(o.created))
		}
	}
	if len(votes) < 3 {
		return nil
	}
	slices.Sort(votes)
	middle := votes[len(votes)/2]
	if len(votes)%2 == 0 { // of the two in the middle the one that is nearer: only a majority can be against this one
		if other := votes[len(votes)/2-1]; (other - r.own.offset).Abs() < (middle - r.own.offset).Abs() {
			middle = other
		}
	}
	off := r.own.offset - middle
	if off.Abs() <= apart {
		return nil
	}
	way := "ahead of"
	if off < 0 {
		way = "behind"
	}
	return fmt.Errorf("the clock of this machine is %s %s those of most replicas and of Vault: set it right (NTP), then this replica goes on by itself",
		off.Abs().Round(time.Second), way)
}
