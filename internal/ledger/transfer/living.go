package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/kvstore"
	"rotatord/internal/replica"
)

// This file finds out whether a replica uses a shared ledger. A replica writes its entry every few seconds, so
// one whose entry does not change for a while is dead. No clock is compared with another one.

// ReplicasDir is the path of the replicas' entries below the prefix of a shared ledger.
const ReplicasDir = "replicas"

// beat is what must be known of a replica's entry.
type beat struct {
	Claim   Claim `json:"claim"`
	Leaving bool  `json:"leaving"`
}

// Claim is a claim as a replica publishes it: a text such as 2m0s, or nanoseconds. 0 means that it is not known.
type Claim time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (c *Claim) UnmarshalJSON(b []byte) error {
	*c = 0
	if len(b) > 2 && b[0] == '"' {
		if d, err := time.ParseDuration(string(b[1 : len(b)-1])); err == nil {
			*c = Claim(d)
		}
		return nil
	}
	var n int64
	if _, err := fmt.Sscan(string(b), &n); err == nil && time.Duration(n) >= time.Second {
		*c = Claim(n)
	}
	return nil
}

// DeadAfter is after how long without a change of its entry a replica with that claim is dead: more than three of
// its beats. Where the claim is not known, the longest time is assumed.
func (c Claim) DeadAfter() time.Duration {
	beat := replica.Beat(time.Duration(c))
	if c <= 0 {
		beat = replica.Beat(time.Hour)
	}
	return beat*7/2 + time.Second
}

// Living returns the names of the replicas that use a shared ledger. It returns as soon as it has seen one, and
// otherwise watches the entries of those that did not stop in order for so long that they must be dead; waits is
// called before that, and not at all if there are none. poll is the time between two looks; 0 means a second.
func Living(ctx context.Context, kv kvstore.KV, poll time.Duration, waits func(names []string, longest time.Duration)) ([]string, error) {
	if poll <= 0 {
		poll = time.Second
	}
	first := make(map[string]int) // versions by name
	var until time.Time
	for began := time.Now(); ; {
		seen, longest, err := look(ctx, kv)
		if err != nil {
			return nil, err
		}
		var moved []string
		for name, version := range seen {
			if before, known := first[name]; known && before != version || !known && !until.IsZero() {
				moved = append(moved, name)
			}
		}
		if len(moved) > 0 {
			slices.Sort(moved)
			return moved, nil
		}
		if until.IsZero() {
			if len(seen) == 0 {
				return nil, nil
			}
			first, until = seen, began.Add(longest)
			var names []string
			for name := range seen {
				names = append(names, name)
			}
			slices.Sort(names)
			waits(names, longest)
		}
		if !time.Now().Before(until) {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(poll):
		}
	}
}

// look returns the versions of the entries of replicas that did not stop in order, and for how long such an entry
// may stay the same while its replica lives.
func look(ctx context.Context, kv kvstore.KV) (seen map[string]int, longest time.Duration, err error) {
	names, err := kv.List(ctx, ReplicasDir)
	if err != nil {
		return nil, 0, err
	}
	seen = make(map[string]int)
	for _, name := range names {
		path := ReplicasDir + "/" + name
		e, err := kv.Get(ctx, path)
		if errors.Is(err, kvstore.ErrDeleted) { // by a person; a living replica writes it again
			seen[name] = 0
			longest = max(longest, Claim(0).DeadAfter())
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		if e.Version == 0 {
			continue // removed meanwhile
		}
		var b beat
		if err := e.Decode(path, &b); err != nil {
			return nil, 0, err
		}
		if b.Leaving {
			continue
		}
		seen[name] = e.Version
		longest = max(longest, b.Claim.DeadAfter())
	}
	return seen, longest, nil
}
