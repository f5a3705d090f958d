package rotation

import "time"

// RequestTimes returns the latest times at which the requests to the issuer that are in the record have
// ended. From it a new process knows the requests of the process before it. A record has the last rotate
// request, the one in progress, the last look at a doubt, and the last renewal. It has no listings.
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
