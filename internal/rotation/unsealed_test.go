package rotation_test

import (
	"errors"
	"fmt"
	"rotatord/internal/rotation"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDiskFailsAtTheSeal: neither the seal nor the ledger can be written. The secret is delivered from memory, and
// the rotation is completed when the disk works again.
func TestDiskFailsAtTheSeal(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.fault = func(_ int, c string) fault {
			if w.rotates > 0 && (c == "seal" || strings.HasPrefix(c, "save")) {
				return fault{before: errors.New("no space left on device")}
			}
			return fault{}
		}
		w.advance(r, token)
		if w.sink.ClientSecret.Reveal() != w.current {
			t.Fatal("the secret was not delivered")
		}
		w.fault = nil
		if err, _ := w.advance(r, token); err != nil || w.rotates != 1 || w.record().Step != rotation.StepIdle {
			t.Fatalf("the rotation was not completed: %v, %d rotates, step %q", err, w.rotates, w.record().Step)
		}
	})
}

// TestUnsealedSecretIsSealedAtShutdown: the disk has refused a seal. The daemon tries again before the process ends,
// and the next process finds the sealed secret.
func TestUnsealedSecretIsSealedAtShutdown(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.fault = func(_ int, c string) fault {
			if c == "seal" || c == "sink store" {
				return fault{before: errors.New("input/output error")}
			}
			return fault{}
		}
		w.advance(r, token)
		if err := r.SealUnsealed(w.t.Context()); err == nil || r.Unsealed() != 1 || !strings.Contains(err.Error(), "of ci: input/output error") {
			t.Fatalf("%v, %d unsealed", err, r.Unsealed())
		}
		w.fault = nil
		if err := r.SealUnsealed(w.t.Context()); err != nil || r.Unsealed() != 0 || len(w.pending) != 1 {
			t.Fatalf("%v, %d unsealed, %d sealed", err, r.Unsealed(), len(w.pending))
		}
		if err, _ := w.advance(w.start(), token); err != nil || w.rotates != 1 || w.sink.ClientSecret.Reveal() != w.current {
			t.Errorf("the next process: %v, %d rotates", err, w.rotates)
		}
	})
}

// TestSealIsReadBack: the daemon reads each seal back while the secret is still in memory, and so notices a disk
// that does not store it.
func TestSealIsReadBack(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.unreadable = true
		if err, _ := w.advance(r, token); err == nil || w.sink.ClientSecret.Reveal() != w.current || r.Unsealed() != 1 {
			t.Fatalf("%v, %d unsealed", err, r.Unsealed())
		}
		w.unreadable = false
		if err, _ := w.advance(r, token); err != nil || r.Unsealed() != 0 || len(w.pending) != 0 || w.rotates != 1 {
			t.Errorf("%v, %d unsealed, %d rotates", err, r.Unsealed(), w.rotates)
		}
	})
}

// TestDeliveredFromMemoryIsFoundInTheSink: the disk refuses the seal, the secret is delivered from memory, and the
// process dies. The next process reads the secret back from the sink, and does not rotate again.
func TestDeliveredFromMemoryIsFoundInTheSink(t *testing.T) {
	for _, sinkAway := range []bool{false, true} {
		t.Run(fmt.Sprint("sink away=", sinkAway), func(t *testing.T) {
			inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
				w.failAll("seal", fault{before: errors.New("no space left on device")})
				w.advance(r, token)
				w.fault = nil
				r = w.start()
				if sinkAway {
					old := w.previous
					w.failAll("sink read back", fault{before: errors.New("vault is sealed")})
					for died := time.Now(); time.Since(died) < 3*time.Hour; {
						w.advance(r, token)
						if !w.accepted(old) {
							t.Fatal("the old secret died while the new one could not be read back")
						}
					}
					w.fault = nil
				}
				for w.record().Step != rotation.StepIdle {
					w.advance(r, token)
				}
				if w.rotates != 1 || w.sink.ClientSecret.Reveal() != w.current || len(w.pending) != 0 || slices.Contains(w.attempts(), "schedule/in_doubt/interrupted") {
					t.Errorf("%d rotates, %d sealed, %q", w.rotates, len(w.pending), w.attempts())
				}
			})
		})
	}
}

// TestDeliveredFromMemoryWithoutSealAndLedger: neither the seal nor the ledger could be written, the secret was
// delivered from memory, and the process died. The next process takes the sink's secret for ours if Cloudflare shows
// that the request was carried out.
func TestDeliveredFromMemoryWithoutSealAndLedger(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.fault = func(_ int, call string) fault {
			if call == "seal" || w.rotates > 0 && strings.HasPrefix(call, "save") {
				return fault{before: errors.New("no space left on device")}
			}
			return fault{}
		}
		w.advance(r, token)
		w.failOnce("inspect", fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "get"}})
		r = w.start()
		for begun := time.Now(); w.record().Step != rotation.StepIdle && time.Since(begun) < time.Hour; {
			w.advance(r, token)
		}
		if w.rotates != 1 || w.sink.ClientSecret.Reveal() != w.current || len(w.pending) != 0 || w.record().Last == nil {
			t.Errorf("%d rotates, %d sealed, %+v", w.rotates, len(w.pending), w.record())
		}
	})
}

// TestReplaceDeliveredFromMemory: the disk refuses the seal, so the new credential is delivered from memory, and then
// the process dies. The next process finds the credential in the sink, and completes the rotation. If the ledger
// could not be written either, the token is in doubt, but the service token in the sink is not deleted as lost.
func TestReplaceDeliveredFromMemory(t *testing.T) {
	for _, inLedger := range []bool{true, false} {
		t.Run(fmt.Sprint("inLedger=", inLedger), func(t *testing.T) {
			inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
				r = w.runUntilIdle(r, token)
				w.fault = func(_ int, call string) fault {
					if call == "seal" || !inLedger && len(w.created) > 1 && strings.HasPrefix(call, "save") {
						return fault{before: errors.New("no space left on device")}
					}
					return fault{}
				}
				w.advance(r, token)
				unsealed := w.created[1]
				if w.sink.ClientID != unsealed.clientID {
					t.Fatal("it was not delivered from memory")
				}
				w.fault = nil
				r = w.start()
				if _, err := r.Enroll(w.t.Context(), token); err != nil {
					t.Fatal(err)
				}
				if inLedger {
					w.advance(r, token)
					if record := w.record(); record.Step != rotation.StepIdle || record.TokenID != unsealed.id || len(w.created) != 2 || len(w.pending) != 0 {
						t.Fatalf("%d created, %d sealed, %+v", len(w.created), len(w.pending), record)
					}
				}
				for !inLedger && w.sink.ClientID == unsealed.clientID && !w.gone[unsealed.id] { // world.Delete fails the test if the sink has its secret
					if record := w.record(); record.Step == rotation.StepIdle && rotation.NextDue(token, record, rotation.Pause{}).Reason == rotation.DueSlot {
						t.Fatalf("the token is idle, and the unsealed service token is still in the sink: %+v", record)
					}
					w.advance(r, token)
				}
				w.runFor(r, token, 20*time.Minute-time.Second)
				if w.gone[unsealed.id] {
					t.Fatal("consumers that had read the secret were cut off early")
				}
				w.runFor(r, token, time.Minute)
				if remaining := w.notDeleted(); len(remaining) != 1 || remaining[0].clientID != w.sink.ClientID {
					t.Errorf("%d are not deleted", len(remaining))
				}
			})
		})
	}
}
