package replica

import (
	"fmt"
	"slices"
	"time"
)

// apart is how far a wall clock may be from that of most others.
const apart = 30 * time.Second

// vote works out whether the own wall clock can be trusted: r.clockErr says why not. r.mu must be held.
//
// All living replicas vote with how far their clocks are from Vault's, and Vault votes with 0: the one in the middle is
// right. A replica that is alone has nothing to compare with but Vault, whose clock may as well be the wrong one.
func (r *Room) vote(now time.Time) {
	if !r.own.known || !r.jumpedAt.IsZero() && now.Sub(r.jumpedAt) < deadAfter(r.o.Self.Claim) {
		return // after a jump of Vault's clock the entries of the others still tell of the clock before
	}
	votes := []time.Duration{0, r.own.offset}
	for _, o := range r.others {
		if o.living && !o.entry.Wall.IsZero() {
			votes = append(votes, o.offset())
		}
	}
	r.clockErr = nil
	if off := r.own.offset - middle(votes, r.own.offset); len(votes) > 2 && off.Abs() > apart {
		way := "ahead of"
		if off < 0 {
			way = "behind"
		}
		r.clockErr = fmt.Errorf("the clock of this machine is %s %s those of most replicas and of Vault: set it right (NTP), then this replica goes on by itself",
			off.Abs().Round(time.Second), way)
	}
}

// offset returns how far its wall clock is ahead of Vault's.
func (o *other) offset() time.Duration { return bounded(o.entry.Wall.Sub(o.created)) }

// bounded returns a difference of clocks with which one can calculate. A wrong clock may show any year.
func bounded(d time.Duration) time.Duration {
	const most = 50 * 365 * 24 * time.Hour
	return min(max(d, -most), most)
}

// middle returns the vote in the middle. Of two it is the one that is nearer to our own: only a majority can be against
// this replica.
func middle(votes []time.Duration, own time.Duration) time.Duration {
	slices.Sort(votes)
	upper := votes[len(votes)/2]
	lower := votes[(len(votes)-1)/2]
	if (lower - own).Abs() < (upper - own).Abs() {
		return lower
	}
	return upper
}
