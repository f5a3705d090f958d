package rotation

import (
	"maps"
	"time"

	"rotatord/internal/secret"
)

// This file has the transitions of a rotation whose secret was overtaken: another rotation replaced it before it was in
// every sink.

// changeSeen notes a change at Cloudflare after our answer that was not our own.
func (r Record) changeSeen(at time.Time) Record {
	return r.withWork(func(w *Work) { w.ChangedAt = at })
}

// overtaken notes what the sinks hold in the place of our sealed secret.
func (r Record) overtaken(o Overtaken) Record {
	return r.withWork(func(w *Work) { w.Overtaken = &o })
}

// notOvertaken notes that no sink holds another secret in place of ours.
func (r Record) notOvertaken() Record {
	if r.Work.Overtaken == nil {
		return r
	}
	return r.withWork(func(w *Work) { w.Overtaken = nil })
}

// overtakenAsCause says that the sinks are not at fault.
func (r Record) overtakenAsCause() Record {
	r.LastCause, r.LastSink = ReasonOvertaken, ""
	return r
}

// since returns o as found at that time.
func (o Overtaken) since(t time.Time) Overtaken {
	o.Since = t
	return o
}

// tried returns o with what requests with both secrets have shown.
func (o Overtaken) tried(what string) Overtaken {
	o.Tried = what
	return o
}

// delivering returns o with the decision that our secret is delivered over what the sinks hold.
func (o Overtaken) delivering() Overtaken {
	o.Deliver = true
	return o
}

// with returns o with what one more sink holds. Gone and ChangedAt are as found first.
func (o Overtaken) with(sink string, digest secret.Digest) Overtaken {
	o.Sinks = maps.Clone(o.Sinks)
	if o.Sinks == nil {
		o.Sinks = make(map[string]secret.Digest)
	}
	o.Sinks[sink] = digest
	return o
}
