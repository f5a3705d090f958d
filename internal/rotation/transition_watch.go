package rotation

import (
	"maps"
	"slices"
	"time"

	"rotatord/internal/secret"
)

// This file holds the transitions of the watch: what was written to the sinks, and what they hold now.

// wroteTo notes that a sink has confirmed a secret. What it held before is known as an earlier secret.
func (r Record) wroteTo(sink string, s Stored, now time.Time) Record {
	earlier := []secret.Digest{r.Written[sink].Digest}
	if r.Work != nil {
		earlier = append(earlier, r.Work.BeforeSink[sink].Digest)
	}
	return r.holds(sink, Written{Digest: s.Digest, ClientID: s.ClientID, Version: s.Version, At: now}).withEarlier(earlier...)
}

// holds sets what a sink should hold.
func (r Record) holds(sink string, w Written) Record {
	written := maps.Clone(r.Written)
	if written == nil {
		written = make(map[string]Written, 1)
	}
	written[sink] = w
	r.Written = written
	return r
}

// withEarlier adds digests of secrets that sinks held before, the latest first.
func (r Record) withEarlier(digests ...secret.Digest) Record {
	for _, d := range digests {
		if d == "" || slices.Contains(r.Earlier, d) {
			continue
		}
		earlier := append([]secret.Digest{d}, r.Earlier...)
		r.Earlier = earlier[:min(len(earlier), maxEarlier)]
	}
	return r
}

// looked notes what a look at a sink has shown, and reports whether that is new.
func (r Record) looked(t Token, l Look, f Finding, now time.Time) (_ Record, changed bool) {
	before := r.Deletes[l.Sink]
	if l.Err == nil && l.Stored.Exists {
		r = r.deletionSeen(l.Sink, l.Stored)
	}
	changed = !before.Equal(r.Deletes[l.Sink])
	if r.Findings[l.Sink].Same(f) {
		return r, changed
	}
	findings := maps.Clone(r.Findings)
	if findings == nil {
		findings = make(map[string]Finding, 1)
	}
	if f.Since = now; findings[l.Sink].Kind == f.Kind { // the place is as wrong as before, with another secret
		f.Since = findings[l.Sink].Since
	}
	if findings[l.Sink] = f; f.Kind == "" {
		delete(findings, l.Sink)
	}
	r.Findings = findings
	return r.withoutStrangeFindings(t).withoutOldRestoring(), true
}

// withoutStrangeFindings forgets findings about sinks that are not configured any more.
func (r Record) withoutStrangeFindings(t Token) Record {
	configured := make(map[string]bool, len(t.Sinks))
	for _, sink := range t.Sinks {
		configured[sink.Name()] = true
	}
	findings := maps.Clone(r.Findings)
	maps.DeleteFunc(findings, func(sink string, _ Finding) bool { return !configured[sink] })
	if r.Findings = findings; len(findings) == 0 {
		r.Findings = nil
	}
	return r
}

// withoutOldRestoring takes back what is left of an attempt to restore once no sink needs it.
func (r Record) withoutOldRestoring() Record {
	for _, f := range r.Findings {
		if f.Kind.restorable() {
			return r
		}
	}
	if r.Order != nil && r.Order.Restores {
		r.Order = nil
	}
	r.Restoring.Refused, r.Restoring.Error, r.Restoring.Open = "", "", false
	return r
}

// watchedAgain notes that a rotation is done, which has written every sink.
func (r Record) watchedAgain(t Token) Record {
	written := make(map[string]Written, len(t.Sinks))
	for _, sink := range t.Sinks {
		if w, known := r.Written[sink.Name()]; known {
			written[sink.Name()] = w
		}
	}
	if r.Written = written; len(written) == 0 {
		r.Written = nil
	}
	r.Findings, r.RefusedInUse = nil, nil
	r.Restoring.Refused, r.Restoring.Error = "", ""
	return r
}

// withOwnUpdatedAt notes what updated_at is while nobody else has changed the service token. It is not known if
// the rotation changed the service token more than once.
func (r Record) withOwnUpdatedAt(w *Work) Record {
	r.OwnUpdatedAt = time.Time{}
	if w.TouchedAt.IsZero() && w.ChangedAt.IsZero() {
		r.OwnUpdatedAt = w.After.UpdatedAt
	}
	return r
}

// overtakenAccepted notes that what the sinks hold in place of our secret is right.
func (r Record) overtakenAccepted(o Overtaken, now time.Time) Record {
	for sink, digest := range o.Sinks {
		was := r.Written[sink].Digest
		r = r.holds(sink, Written{Digest: digest, At: now, Accepted: true}).withEarlier(was)
	}
	return r
}

// taken takes what all sinks hold as right.
func (r Record) taken(t Token, held map[string]Stored, now time.Time) Record {
	for sink, s := range held {
		if was := r.Written[sink]; was.Digest != s.Digest || was.ClientID != s.ClientID {
			r = r.holds(sink, Written{Digest: s.Digest, ClientID: s.ClientID, Version: s.Version, At: now, Accepted: true}).withEarlier(was.Digest)
		}
	}
	if r.Order != nil && r.Order.AfterOutside {
		r.Order = nil
	}
	r.Outside, r.OwnUpdatedAt = time.Time{}, time.Time{}
	return r.watchedAgain(t)
}

// restoring notes that a restore begins. Those of more than a day ago are forgotten.
func (r Record) restoring(now time.Time) Record {
	r.Restoring = Restoring{At: append(r.Restoring.recent(now), now), Open: true}
	return r
}

// restoringEnded notes that a restore was not cut off.
func (r Record) restoringEnded() Record {
	r.Restoring.Open = false
	return r
}

// notRestored notes why nothing is restored.
func (r Record) notRestored(reason string, err error) Record {
	r.Restoring.Refused, r.Restoring.Error = reason, ""
	if err != nil {
		r.Restoring.Error = err.Error()
	}
	return r
}

// restoredIn notes that a sink holds our secret again.
func (r Record) restoredIn(t Token, sink string, s Stored, now time.Time) Record {
	r = r.holds(sink, Written{Digest: s.Digest, ClientID: s.ClientID, Version: s.Version, At: now})
	r, _ = r.looked(t, Look{Sink: sink, Stored: s}, Finding{}, now)
	return r
}

// orderedToRestore orders a rotation, because no copy of the secret is left. A pause, a freeze and a promised
// grace delay it.
func (r Record) orderedToRestore(now time.Time) Record {
	r.Order = &Order{Since: now, By: "rotatord", AfterOutside: true, Restores: true, Left: 1}
	return r
}

// refusedInUse notes that the secret in use is refused where it is tried; nil if it is not.
func (r Record) refusedInUse(refused *RefusedInUse) Record {
	r.RefusedInUse = refused
	return r
}
