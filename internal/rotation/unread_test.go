package rotation_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/rotation"
)

// vaultLedger is a shared ledger that can be away.
type vaultLedger struct {
	*world
	away, readOnly bool
}

var errLedgerAway = errors.New("no answer came from Vault")

func (l *vaultLedger) Load(ctx context.Context, token string) (rotation.Record, error) {
	if l.away {
		return rotation.Record{}, errLedgerAway
	}
	return l.world.Load(ctx, token)
}

func (l *vaultLedger) Save(ctx context.Context, r rotation.Record) (rotation.Record, error) {
	if l.away || l.readOnly {
		return rotation.Record{}, errLedgerAway
	}
	return l.world.Save(ctx, r)
}

func (l *vaultLedger) HoldLeft(r rotation.Record) time.Duration { return time.Minute }

func (l *vaultLedger) RunLeft(string, rotation.OwedHook) time.Duration { return time.Minute }

// whileLedgerIsAway runs test in a world where a replica has sealed an answer, cannot deliver it, and then loses the ledger.
func whileLedgerIsAway(t *testing.T, test func(t *testing.T, w *world, l *vaultLedger, token rotation.Token, r *rotation.Rotator)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := &vaultLedger{world: w}
		r := rotation.New(rotation.Options{Ledger: l, Pending: w, Events: w, Owner: "a", Started: w.now(), Now: w.now,
			Replica: &rotation.Replica{Name: "a", Process: "a1", Claim: 2 * time.Minute}})
		token := w.token(40 * time.Minute)
		if _, err := r.Enroll(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		w.failAll("sink store", fault{before: errors.New("the sink is away")})
		w.sleep(time.Hour + time.Second)
		if record, err := r.Advance(t.Context(), token); err == nil || record.Step != rotation.StepSealed {
			t.Fatalf("%s, %v", record.Step, err)
		}
		l.away = true
		test(t, w, l, token, r)
	})
}

// TestExtendsWhileLedgerIsAway: consumers keep a secret that works although neither the ledger nor the sink can be
// reached for hours, and our own changes at Cloudflare are not taken for those of others after that.
func TestExtendsWhileLedgerIsAway(t *testing.T) {
	whileLedgerIsAway(t, func(t *testing.T, w *world, l *vaultLedger, token rotation.Token, r *rotation.Rotator) {
		for end := time.Now().Add(5 * time.Hour); time.Now().Before(end); w.sleep(30 * time.Second) {
			if _, err := r.Advance(t.Context(), token); !errors.Is(err, errLedgerAway) {
				t.Fatal(err)
			}
			if !w.accepted(w.sink.ClientSecret.Reveal()) {
				t.Fatal("the old secret has ended")
			}
		}
		l.away, w.fault = false, nil
		w.sleep(time.Minute)
		record, err := r.Advance(t.Context(), token)
		if err != nil || record.Step != rotation.StepIdle || !record.Outside.IsZero() || w.sink.ClientSecret.Reveal() != w.current {
			t.Fatalf("%+v, %v", record, err)
		}
		if _, err := r.RecordListing(t.Context(), token, w.facts()); err != nil || !w.record().Outside.IsZero() {
			t.Errorf("our own change is taken for one of others: %v", err)
		}
	})
}

// TestRevivesNothingWhileLedgerIsAway: if another replica may have revoked the old secret, it is not extended.
func TestRevivesNothingWhileLedgerIsAway(t *testing.T) {
	whileLedgerIsAway(t, func(t *testing.T, w *world, _ *vaultLedger, token rotation.Token, r *rotation.Rotator) {
		w.sleep(time.Minute)
		w.previousUntil, w.updatedAt = time.Now().Add(20*time.Minute), time.Now().UTC() // by another replica
		until := w.previousUntil
		for end := time.Now().Add(time.Hour); time.Now().Before(end); w.sleep(30 * time.Second) {
			if _, err := r.Advance(t.Context(), token); !errors.Is(err, errLedgerAway) {
				t.Fatal(err)
			}
		}
		if !w.previousUntil.Equal(until) {
			t.Errorf("the old secret was extended until %s", w.previousUntil)
		}
	})
}

// TestExtendsWhileLedgerIsHalfAway: it is the same if the ledger can be read for a time, and not be written. When it is
// back, the rotation knows how long the old secret works.
func TestExtendsWhileLedgerIsHalfAway(t *testing.T) {
	whileLedgerIsAway(t, func(t *testing.T, w *world, l *vaultLedger, token rotation.Token, r *rotation.Rotator) {
		began := time.Now()
		for end := began.Add(6 * time.Hour); time.Now().Before(end); w.sleep(30 * time.Second) {
			l.readOnly = int(time.Since(began)/(25*time.Minute))%2 == 0
			l.away = !l.readOnly
			if _, err := r.Advance(t.Context(), token); err != nil && !errors.Is(err, rotation.ErrLedger) { // nil if nothing is due
				t.Fatal(err)
			}
			if !w.accepted(w.sink.ClientSecret.Reveal()) {
				t.Fatalf("the old secret has ended after %s", time.Since(began))
			}
		}
		l.away, l.readOnly = false, false // the sink stays away
		until := w.previousUntil
		w.sleep(time.Minute)
		record, err := r.Advance(t.Context(), token)
		if err == nil || record.GraceEnd().Before(until) || w.record().GraceEnd().Before(until) {
			t.Errorf("the old secret works until %s, and the ledger says %s (%v)", until, record.GraceEnd(), err)
		}
	})
}
