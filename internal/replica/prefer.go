package replica

import (
	"hash/fnv"
	"io"
	"math"
	"slices"
	"time"

	"rotatord/internal/rotation"
)

// rank returns how many of some replicas come before one of them for a name: 0 for the first. Each is the first for
// an equal part of all names, and when one goes only its own names move (rendezvous hashing). failures is how often what
// is named has failed in a row: after each, the next one is the first. A replica that is not one of them comes
// after all.
func rank(replicas []string, self, name string, failures int) int {
	own, before, found := score(self, name), 0, false
	for _, replica := range replicas {
		if replica == self {
			found = true
		} else if other := score(replica, name); other > own || other == own && replica < self {
			before++
		}
	}
	n := len(replicas)
	if !found {
		return n
	}
	return ((before-failures)%n + n) % n
}

// score returns how a replica is rated for a name. All versions of rotatord must agree on it.
func score(replica, name string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, replica)
	_, _ = h.Write([]byte{0})
	_, _ = io.WriteString(h, name)
	return mix(h.Sum64())
}

// mix spreads the bits of an FNV hash, whose high bits change little with the last characters.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// asked reports whether a rotation is in progress whose request may have been sent.
func asked(record rotation.Record) bool {
	return record.Work != nil && record.Step != rotation.StepIdle && record.Step != rotation.StepClaimed
}

// waitsForOwner reports whether only the replica that has sent the request, or has its answer, can finish the rotation. If
// there is a copy of the answer every replica can, and one that cannot reach a sink must not keep the others from it.
func waitsForOwner(record rotation.Record) bool { return asked(record) && !record.Work.Copied }

// Owns reports whether this replica has sent the request of the rotation in progress, or has its answer.
func (r *Room) Owns(record rotation.Record) bool {
	return asked(record) && (record.Work.Replica == r.o.Self.Name || r.o.Sealed(record.Work.RotationID))
}

// Wait returns how long after something is due for a token this replica leaves it to others; 0 if it comes first. A
// replica that alone has the sealed answer of the token's rotation comes first for it while it lives. Names of other
// things than tokens have a zero record.
func (r *Room) Wait(name string, record rotation.Record) time.Duration {
	if waitsForOwner(record) && r.Owns(record) {
		return 0
	}
	s := r.snapshot.Load()
	before := rank(s.eligible, r.o.Self.Name, name, record.Failures)
	if waitsForOwner(record) && slices.Contains(s.eligible, record.Work.Replica) {
		before = max(before, 1)
	}
	return time.Duration(min(before, math.MaxInt16)) * r.o.Self.Claim
}

// First returns the replica that comes first for a name; empty if none may begin.
func (r *Room) First(name string, record rotation.Record) string {
	if waitsForOwner(record) && r.Owns(record) {
		return r.o.Self.Name
	}
	eligible := r.snapshot.Load().eligible
	if waitsForOwner(record) && slices.Contains(eligible, record.Work.Replica) {
		return record.Work.Replica
	}
	for _, replica := range eligible {
		if rank(eligible, replica, name, record.Failures) == 0 {
			return replica
		}
	}
	return ""
}
