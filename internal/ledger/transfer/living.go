package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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

// Watch finds out which replicas use a shared ledger. The zero Watch has seen nothing. It is for one command.
type Watch struct {
	// Poll is the time between two looks; 0 means a second.
	Poll time.Duration
	// Waits is called before the entries of replicas that did not stop in order are watched, for at most that time. It may be
	// nil.
	Waits func(names []string, longest time.Duration)

	dead map[string]int // the versions of the entries of replicas that are dead, by name; nil before the first look
}

// Living returns the names of the replicas that use the ledger. It returns as soon as it has seen one, and
// otherwise watches the entries of those that did not stop in order for so long that they must be dead. A later call
// looks once: whoever has written since then lives.
func (w *Watch) Living(ctx context.Context, kv kvstore.KV) ([]string, error) {
	began := time.Now()
	seen, longest, err := look(ctx, kv)
	if err != nil {
		return nil, err
	}
	if w.dead != nil {
		return changed(w.dead, seen), nil
	}
	first := seen
	if len(first) > 0 && w.Waits != nil {
		w.Waits(slices.Sorted(maps.Keys(first)), longest)
	}
	for len(first) > 0 && time.Since(began) < longest {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(cmp.Or(w.Poll, time.Second)):
		}
		if seen, _, err = look(ctx, kv); err != nil {
			return nil, err
		}
		if living := changed(first, seen); len(living) > 0 {
			return living, nil
		}
	}
	w.dead = first
	return nil, nil
}

// changed returns the names of the entries that are new or have another version, sorted.
func changed(before, now map[string]int) (names []string) {
	for name, version := range now {
		if was, known := before[name]; !known || was != version {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
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
