package replica

import (
	"cmp"
	"slices"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/status"
)

// View returns what is known of all replicas. SyncedAt is when the notices of all others were last read.
func (r *Room) View() status.Replicas {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, wall := time.Now(), r.o.Now()
	before := func(at time.Time) time.Time {
		if at.IsZero() {
			return at
		}
		return wall.Add(at.Sub(now)).UTC()
	}
	aside := r.aside
	if aside == nil {
		aside = r.cutOff()
	}
	view := status.Replicas{Name: r.o.Self.Name, SyncedAt: before(r.heardAt), Replicas: []status.Replica{{
		Name: r.o.Self.Name, Living: !r.own.leaving && !r.own.wroteAt.IsZero(), Leaving: r.own.leaving, Since: r.began.UTC(), SeenAt: before(r.own.wroteAt),
		Version: r.o.Version, ClockKnown: r.own.known, ClockOffset: r.own.offset.Seconds(), StandsAside: text(aside),
	}}}
	for name, o := range r.others {
		if o.version == 0 {
			continue // nobody knows whether it ever was a replica
		}
		shown := status.Replica{
			Name: name, Living: o.living, Leaving: o.entry.Leaving, Since: o.entry.Started.UTC(), SeenAt: before(o.seenAt), Version: printable.Line(o.entry.Version, maxShort),
			StandsAside: printable.Line(o.entry.Aside, maxReason),
		}
		if !o.entry.Wall.IsZero() {
			shown.ClockKnown, shown.ClockOffset = true, o.offset().Seconds()
		}
		view.Replicas = append(view.Replicas, shown)
	}
	slices.SortFunc(view.Replicas, func(a, b status.Replica) int { return cmp.Compare(a.Name, b.Name) })
	return view
}
