package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/failpoint"
	"rotatord/internal/secret"
)

// This file writes a secret back to sinks that no longer hold it (outside_change: restore).
//
// The secret in a sink may be the right one, and ours the old one: a person rotates in the dashboard and writes
// the new secret by hand. So nothing is restored unless Cloudflare shows that ours is still the last secret:
// updated_at is exactly what the answer to our rotation showed, on a token whose rotations were seen to move it.
// Nothing is restored during a rotation, a doubt, a pause or a freeze, and at most maxRestores times a day:
// rotatord does not fight a writer who keeps changing the sink.
//
// A restore may be repeated, so it has no step of its own. It is counted in the ledger before it writes. After
// a crash the sink holds ours, or the next look finds that it does not.

// Restoring is what is known of the attempts to restore.
type Restoring struct {
	At []time.Time `json:"at,omitempty"` // when one began, in the last day
	// Open is set from the beginning of an attempt to its end. If the last one was cut off, the next begins without a wait.
	Open bool `json:"open,omitempty"`
	// Refused is the reason code why nothing is restored; empty if nothing speaks against it. Error says more.
	Refused string `json:"refused,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Why nothing is restored: stable codes.
const (
	RestoreNotProven = "not_proven"     // Cloudflare does not show that our secret is still the last one
	RestoreOutside   = "outside"        // another person or program has rotated the service token
	RestoreTooOften  = "too_often"      // the sink is changed again after each restore
	RestoreGone      = "gone"           // Cloudflare has no such service token
	RestoreFailed    = "failed"         // the secret could not be written back
	RestoreStrategy  = "strategy"       // a pair, or strategy: replace
	RestoreAccepted  = "accepted_other" // an operator has accepted what others wrote, so we do not know which secret is right
)

// RestoreReasons are all reasons why nothing is restored.
var RestoreReasons = []string{RestoreNotProven, RestoreOutside, RestoreTooOften, RestoreGone, RestoreFailed, RestoreStrategy, RestoreAccepted}

// How often a token is restored at most, and how long after the first and the second time the next one may
// begin.
const (
	maxRestores    = 3
	restoresPer    = 24 * time.Hour
	restoreBackOff = 30 * time.Minute
)

// restorable reports whether a write can mend a sink with that finding. A sink that was never written may belong
// to another program, and one that cannot be read may hold anything.
func (k FindingKind) restorable() bool {
	switch k {
	case FoundChanged, FoundRolledBack, FoundDeleted, FoundDestroyed, FoundGone, FoundNoSecret:
		return true
	}
	return false
}

// recent returns the attempts of the last day. A time in the future is from a wrong clock.
func (r Restoring) recent(now time.Time) (recent []time.Time) {
	for _, at := range r.At {
		if ago := now.Sub(at); ago >= 0 && ago < restoresPer {
			recent = append(recent, at)
		}
	}
	return recent
}

// tooOften reports whether the limit is reached. wait is how long to wait before the next attempt otherwise.
func (r Restoring) tooOften(now time.Time) (limit bool, wait time.Duration) {
	recent := r.recent(now)
	if len(recent) == 0 {
		return false, 0
	}
	next := recent[len(recent)-1].Add(restoreBackOff << (2 * (len(recent) - 1)))
	return len(recent) >= maxRestores, max(next.Sub(now), 0)
}

// WantsRestore reports whether a sink of the token has a finding that its configuration asks to restore.
func WantsRestore(t Token, r Record) bool {
	if !t.Restore || !r.Watched() || r.Order != nil || r.owed() {
		return false
	}
	for _, sink := range t.Sinks {
		if r.Findings[sink.Name()].Kind.restorable() {
			return true
		}
	}
	return false
}

// Restore writes the secret back to the sinks whose findings say that they no longer hold it, or orders a
// rotation if no copy is left. It returns the record. It looks at the sinks and at Cloudflare again before it
// writes. If it must not restore it changes nothing, except that it notes why; that is not an error. It does not
// wait for a token that is being worked on, and returns a zero Record then.
func (r *Rotator) Restore(ctx context.Context, t Token) (Record, error) {
	e, err := r.tryOpen(ctx, t)
	if e == nil {
		return Record{}, nil
	}
	defer e.close()
	if err != nil || !WantsRestore(t, e.record) {
		return e.record, err
	}
	restore := &restore{entry: e, ours: e.record.currentDigest()}
	err = restore.run(ctx)
	return e.record, err
}

// restore is one attempt to restore.
type restore struct {
	*entry
	ours secret.Digest
	// damaged are the sinks to write, with what each holds now. sound are those that hold our secret.
	damaged []damagedSink
	sound   []Sink
}

type damagedSink struct {
	Sink
	holds Stored
}

func (a *restore) run(ctx context.Context) error {
	now := a.now().UTC()
	if a.PauseOf(a.token.Name).On() || a.record.inFreeze(a.token, now) {
		return nil // a person may be working on it
	}
	if reason := a.record.mayNotRestore(a.token); reason != "" {
		return a.refuse(ctx, reason, nil)
	}
	switch limit, wait := a.record.Restoring.tooOften(now); {
	case limit:
		return a.refuse(ctx, RestoreTooOften, nil)
	case wait > 0 && !a.record.Restoring.Open:
		return nil
	}
	if same, err := a.lookAtSinks(ctx); !same || err != nil {
		return err
	}
	if reason, err := a.proveOurs(ctx); reason != "" || err != nil {
		return errors.Join(err, a.refuse(ctx, reason, nil))
	}
	c, found, err := a.copyOfOurs(ctx)
	if err != nil {
		return err
	}
	if !found {
		if err := a.become(ctx, a.record.restoring(now).restoringEnded().orderedToRestore(now)); err != nil {
			return err
		}
		a.tell(event.SinkRestore{Sink: a.damaged[0].Name(), Rotates: true})
		return nil
	}
	if err := a.become(ctx, a.record.restoring(now)); err != nil {
		return err
	}
	return a.write(ctx, c)
}

// refuse notes why nothing is restored, and tells of it once.
func (a *restore) refuse(ctx context.Context, reason string, err error) error {
	if reason == "" || a.record.Restoring.Refused == reason {
		return err
	}
	if saveErr := a.become(ctx, a.record.notRestored(reason, err)); saveErr != nil {
		return errors.Join(err, saveErr)
	}
	a.tell(event.SinkRestore{Reason: reason, Err: err})
	return err
}

// mayNotRestore returns why nothing is restored, as far as the record shows it; empty if it shows nothing.
func (r Record) mayNotRestore(t Token) string {
	traits := strategyFor(t, r).traits()
	switch {
	case traits.creates || traits.alternates:
		return RestoreStrategy
	case !r.Outside.IsZero():
		return RestoreOutside
	case r.Last == nil || r.currentDigest() != r.Last.Digest:
		return RestoreAccepted
	case r.MovedCount == 0 || r.StillCount > 0 || r.OwnUpdatedAt.IsZero() || r.Facts.UpdatedAt.After(r.OwnUpdatedAt):
		return RestoreNotProven
	}
	return ""
}

// lookAtSinks looks at all sinks again. same is false if a sink now shows something else than was found: then it
// is being changed, and the watch looks at it again first.
func (a *restore) lookAtSinks(ctx context.Context) (same bool, err error) {
	for _, sink := range a.token.Sinks {
		known := a.record.Findings[sink.Name()]
		stored, err := lookBriefly(ctx, sink)
		if err != nil {
			if known.Kind.restorable() {
				return false, sinkError(sink, err)
			}
			continue // it is neither damaged nor a source
		}
		now := a.record.Compare(sink.Name(), stored)
		switch {
		case known.Kind.restorable() && !now.Same(known):
			return false, nil
		case now.Kind.restorable() && known.Same(now):
			a.damaged = append(a.damaged, damagedSink{sink, stored})
		case now.Kind == "" && stored.Digest == a.ours:
			a.sound = append(a.sound, sink)
		}
	}
	return len(a.damaged) > 0, nil
}

// proveOurs asks Cloudflare whether our secret is still the last one. reason says why that is not proven.
func (a *restore) proveOurs(ctx context.Context) (reason string, err error) {
	facts, err := a.token.Issuer.Inspect(ctx, a.record.TokenID)
	switch {
	case errors.Is(err, ErrGone):
		return RestoreGone, nil
	case err != nil:
		return "", fmt.Errorf("asking Cloudflare whether our secret is the last one: %w", err)
	}
	if !facts.UpdatedAt.Equal(a.record.OwnUpdatedAt) {
		next, news := a.record.listed(a.token, facts.notOlderThan(a.record.Facts), a.now().UTC())
		if err := a.become(ctx, next); err != nil {
			return "", err
		}
		if news != nil {
			a.tellOutside(news)
		}
		if !a.record.Outside.IsZero() {
			return RestoreOutside, nil
		}
		return RestoreNotProven, nil
	}
	return "", nil
}

// copyOfOurs returns our secret from a sink that holds it, or from an earlier version of a damaged one. found is
// false if it is certain that none has it. Otherwise an error says which place could not be read.
func (a *restore) copyOfOurs(ctx context.Context) (c Credential, found bool, err error) {
	var unread []error
	for _, sink := range a.sound {
		c, can, err := readSink(ctx, sink)
		switch {
		case !can:
		case err != nil:
			unread = append(unread, sinkError(sink, err))
		case a.isOurs(c):
			return c, true, nil
		}
	}
	for _, sink := range a.damaged {
		c, err := a.fromHistory(ctx, sink)
		if err != nil {
			unread = append(unread, sinkError(sink, err))
		} else if a.isOurs(c) {
			return c, true, nil
		}
	}
	return Credential{}, false, errors.Join(unread...)
}

func (a *restore) isOurs(c Credential) bool {
	return !c.ClientSecret.IsZero() && c.ClientSecret.Digest() == a.ours && c.ClientID != ""
}

// fromHistory returns our secret from the version that we wrote; the zero Credential if the sink has no history,
// or does not have that version any more.
func (a *restore) fromHistory(ctx context.Context, sink damagedSink) (Credential, error) {
	history, can := sink.Sink.(SinkHistory)
	version := a.record.Written[sink.Name()].Version
	if !can || version <= 0 || version > sink.holds.Version {
		return Credential{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	c, err := history.ReadVersion(ctx, version)
	if errors.Is(err, ErrNoVersion) {
		return Credential{}, nil
	}
	return c, err
}

// write writes our secret back to the damaged sinks. If ctx ends, a write that has begun is finished, and the next
// look finds the sinks that are left.
func (a *restore) write(ctx context.Context, c Credential) error {
	stop := ctx
	ctx = context.WithoutCancel(ctx)
	var failed []error
	for _, sink := range a.damaged {
		if stop.Err() != nil {
			break
		}
		failpoint.Reach("restore.before")
		var stored Stored
		err := a.mustHold(ctx)
		if err == nil {
			stored, err = a.writeTo(ctx, sink, c)
		}
		failpoint.Reach("restore.after")
		if err == nil {
			a.observe(a.record.restoredIn(a.token, sink.Name(), stored, a.now().UTC()))
		} else {
			err = sinkError(sink, err)
			failed = append(failed, err)
		}
		a.tell(event.SinkRestore{Sink: sink.Name(), Err: err, Reason: reasonOf(err)})
	}
	if stop.Err() != nil { // the next look continues
		return errors.Join(append(failed, a.become(ctx, a.record))...)
	}
	next, err := a.record.restoringEnded(), errors.Join(failed...)
	if err != nil {
		next = next.notRestored(RestoreFailed, err)
	}
	return errors.Join(err, a.become(ctx, next))
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return RestoreFailed
}

// writeTo writes our secret to one sink, as a rotation does.
func (a *restore) writeTo(ctx context.Context, sink damagedSink, c Credential) (Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	base, err := sink.Preflight(ctx)
	if err != nil {
		return Stored{}, err
	}
	if !base.sameContent(sink.holds) {
		return Stored{}, errors.New("it was changed again before it was written: the watch looks at it again first")
	}
	stored, err := sink.Store(WithSendCheck(ctx, a.maySend), Delivery{Credential: c, Base: base, OnlyOver: true, At: a.now().UTC(), By: a.owner})
	if err != nil {
		return Stored{}, err
	}
	if stored.Digest != a.ours || stored.ClientID != c.ClientID {
		return Stored{}, errors.New("the sink confirmed a credential that is not the restored one")
	}
	return stored, nil
}

// sameContent reports whether a sink holds the same as before.
func (s Stored) sameContent(before Stored) bool {
	return s.Exists == before.Exists && s.Digest == before.Digest && s.ClientID == before.ClientID && s.Version == before.Version
}
