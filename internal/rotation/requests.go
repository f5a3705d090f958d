package rotation

import "time"

// RequestTimes returns when the requests to the issuer that the record tells of were over, at the
// latest. It is what a process knows about those of the process before it: a record has the last
// rotate request, the one in progress, and the last look at a doubt. Listings are not in it.
func (r Record) RequestTimes() []time.Time {
	var all []time.Time
	add := func(sent, over time.Time) {
		if sent.IsZero() {
			return
		}
		if bound := sent.Add(rotateTimeout); over.IsZero() || over.After(bound) {
			over = bound
		}
		all = append(all, over)
	}
	if r.Last != nil {
		add(r.Last.AskedAt, r.Last.At)
	}
	if r.Work != nil {
		add(r.Work.IntentAt, r.Work.SealedAt)
	}
	if r.Doubt != nil {
		add(r.Doubt.DecidedAt, r.Doubt.DecidedAt)
	}
	add(r.Renewal.At, r.Renewal.At)
	return all
}
