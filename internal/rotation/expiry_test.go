package rotation_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// expiryTests names the tests for each row of the table "Where a secret in use can expire while work is
// pending" in docs/rotation-cycle.md. This file contains those that do not belong to another file.
var expiryTests = map[string][]string{
	"in doubt, shown to be carried out":      {"TestGraceIsExtendedAtTheFirstProof", "TestUnknownOutcomeWaitsForTheGrace"},
	"in doubt, nothing shows it":             {"TestUnknownOutcomeWaitsForTheGrace", "TestUnprovenLossExtendsUnlessRevoked"},
	"reissue owed":                           {"TestOwedReissueKeepsTheOldSecretAlive", "TestOldSecretIsExtendedForThirtyDaysAtMost", "TestNoConsumerIsStranded"},
	"sealed, and a sink is away":             {"TestSealedKeepsTheOldSecretAlive", "TestOldSecretIsKeptAliveWhileTheSinkIsAway", "TestLateDeliveryExtendsTheGrace"},
	"sealed, and the journal cannot be read": {"TestSealedInAnUnreadableJournal", "TestSealedAnswerIsLost"},
	"unsealed: the disk refuses the seal":    {"TestSealedKeepsTheOldSecretAlive", "TestUnsealedButDeliveredIsNotACutOff"},
	"the ledger cannot be written":           {"TestOwedReissueKeepsTheOldSecretAlive", "TestDeliveredWhileTheLedgerFails"},
	"stored, and `verify` is refused":        {"TestRefusedByVerifyKeepsTheOldSecretAlive", "TestRefusedSecretKeepsTheOldOneAlive"},
	"the answer to a reissue is lost too":    {"TestReissueAnswerIsLostToo"},
	"`--revoke-now`, or `grace: 0`":          {"TestRevokeOrderStopsExtensions", "TestCutOffConsumersAreServedWithinSeconds"},
	"overtaken":                              {"TestOvertakenIsReportedOnce", "TestOwnExtensionDoesNotHideARotation"},
	"the renewal of the service token fails": {"TestRenewalIsTriedMoreOftenNearTheExpiry"},
	"the service token ends while a rotation is sealed, stored, or in doubt and shown to be carried out": {"TestRenewalWhileASecretWaits"},
	"a pair, in each of these states":                           {"TestPairDoubtDoesNotAffectConsumers", "TestPairSurvivesEveryFault"},
	"`create` and `strategy: replace`, in each of these states": {"TestCreateSurvivesEveryFault", "TestReplacedTokenOutlivesRefusal"},
	"the daemon is down":                                        {"TestOwedReissueKeepsTheOldSecretAlive", "TestNoConsumerIsStranded"},
}

// TestExpiryTableIsTested: each row of the table has tests, and these tests exist.
func TestExpiryTableIsTested(t *testing.T) {
	content, err := os.ReadFile("../../docs/rotation-cycle.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(content), "\n## Where a secret in use can expire while work is pending\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var rows []string
	for line := range strings.Lines(section) {
		if cell, ok := strings.CutPrefix(line, "| "); ok && !strings.HasPrefix(line, "| ---") && !strings.HasPrefix(line, "| pending |") {
			cell, _, _ = strings.Cut(cell, " |")
			rows = append(rows, cell)
		}
	}
	slices.Sort(rows)
	if want := slices.Sorted(maps.Keys(expiryTests)); !slices.Equal(rows, want) {
		t.Errorf("the table has the rows\n%q, but expiryTests has\n%q", rows, want)
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	for row, tests := range expiryTests {
		for _, name := range tests {
			if !strings.Contains(code.String(), "\nfunc "+name+"(t *testing.T)") {
				t.Errorf("%s: there is no test %s", row, name)
			}
		}
	}
}

// TestSealedInAnUnreadableJournal: the sealed answer cannot be read for a while. The daemon does not take it for
// lost.
func TestSealedInAnUnreadableJournal(t *testing.T) {
	const grace = 40 * time.Minute
	inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		time.Sleep(time.Hour)
		w.failOnce("sink store", fault{before: errors.New("away")})
		w.advance(r, token)
		w.openErr = errors.New("input/output error")
		if refused := w.measureRefusal(r, token, 10*grace, nil); refused > 0 || w.rotates != 1 || w.record().Step != rotation.StepSealed {
			t.Errorf("refused for %s, %d rotates, %+v", refused, w.rotates, w.record())
		}
		w.openErr = nil
		if refused := w.measureRefusal(r, token, 2*time.Minute, nil); refused > 0 || w.sink.ClientSecret.Reveal() != w.current {
			t.Errorf("refused for %s, %+v", refused, w.record())
		}
	})
}

// TestSealedKeepsTheOldSecretAlive: a sink is away for many graces, and the secret is sealed, or is in memory
// because the disk refuses the seal.
func TestSealedKeepsTheOldSecretAlive(t *testing.T) {
	const grace = 40 * time.Minute
	for name, sealed := range map[string]bool{"sealed": true, "unsealed": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
				time.Sleep(time.Hour)
				w.fault = func(_ int, call string) fault {
					if call == "sink store" || call == "sink preflight" && w.rotates > 0 || call == "seal" && !sealed {
						return fault{before: errors.New("away")}
					}
					return fault{}
				}
				if refused := w.measureRefusal(r, token, 10*grace, nil); refused > 0 || w.rotates != 1 {
					t.Errorf("refused for %s, %d rotates", refused, w.rotates)
				}
				if at := w.record().CutOffAt(); time.Until(at) < grace/2 {
					t.Errorf("the record says that consumers are cut off in %s", time.Until(at))
				}
				w.fault = nil
				if refused := w.measureRefusal(r, token, 2*time.Minute, nil); refused > 0 || w.sink.ClientSecret.Reveal() != w.current {
					t.Errorf("refused for %s, %+v", refused, w.record())
				}
			})
		})
	}
}

// TestUnsealedButDeliveredIsNotACutOff: consumers have the new secret, although it could not be sealed.
func TestUnsealedButDeliveredIsNotACutOff(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		time.Sleep(time.Hour)
		w.failAll("seal", fault{before: errors.New("no space left on device")})
		if refused := w.measureRefusal(r, token, 3*time.Hour, nil); refused > 0 || !w.record().CutOffAt().IsZero() {
			t.Errorf("refused for %s, cut off at %s", refused, w.record().CutOffAt())
		}
	})
}

// TestRefusedByVerifyKeepsTheOldSecretAlive: verify refuses the new secret. Consumers that have not read it yet
// can still use the old one.
func TestRefusedByVerifyKeepsTheOldSecretAlive(t *testing.T) {
	const grace = 40 * time.Minute
	inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token.Prober, token.VerifyWithin = w, time.Minute
		time.Sleep(time.Hour)
		old := w.current
		w.failAll("probe", fault{before: errors.New("HTTP 401")})
		for begin := time.Now(); time.Since(begin) < 10*grace; {
			w.advance(r, token)
			if w.rotates > 0 && !w.accepted(old) {
				t.Fatalf("the old secret died after %s", time.Since(begin))
			}
		}
		if w.record().Step != rotation.StepStored {
			t.Errorf("the rotation is over, so this proves nothing: %+v", w.record())
		}
	})
}

// TestRenewalWhileASecretWaits: a secret waits for its sink, or a rotation is in doubt, until the service token
// itself is about to expire. The daemon renews it.
func TestRenewalWhileASecretWaits(t *testing.T) {
	const day = 24 * time.Hour
	for name, prepare := range map[string]func(w *world){
		"sealed": func(w *world) {
			w.fault = func(_ int, call string) fault {
				if call == "sink store" || call == "sink preflight" && w.rotates > 0 {
					return fault{before: errors.New("away")}
				}
				return fault{}
			}
		},
		"in doubt, and carried out": func(w *world) { w.loseFirstAnswer(true) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, day, func(w *world, token rotation.Token, r *rotation.Rotator) {
				token = expiring(w, r, token, 30*time.Hour, 8*time.Hour)
				end := w.expiresAt
				time.Sleep(time.Hour)
				prepare(w)
				for time.Until(end) > -time.Hour {
					w.advance(r, token)
					wake := rotation.NextDue(token, w.record(), rotation.Pause{}).At
					if chore := rotation.NextChore(token, w.record()); !chore.IsZero() && chore.Before(wake) {
						wake = chore
					}
					time.Sleep(max(time.Until(wake), time.Second))
					if _, err := r.Advance(w.t.Context(), token); err == nil && w.record().Step == rotation.StepIdle {
						t.Fatal("the rotation is over: this proves nothing")
					}
					if w.count("renew") > 0 && time.Until(end) > 2*time.Hour {
						t.Fatalf("renewed with %s left", time.Until(end))
					}
				}
				record := w.record()
				if w.count("renew") != 1 || !record.Outside.IsZero() || record.Step == rotation.StepIdle || !record.Work.ChangedAt.IsZero() {
					t.Fatalf("%d renewals, %+v", w.count("renew"), record)
				}
				w.fault = nil
				for range 400 {
					if w.advance(r, token); w.record().Step == rotation.StepIdle && w.record().Lost == nil {
						break
					}
				}
				if record := w.record(); record.Step != rotation.StepIdle || w.sink.ClientSecret.Reveal() != w.current || !record.Facts.ExpiresAt.Equal(w.expiresAt) || !record.Outside.IsZero() {
					t.Errorf("%+v", record)
				}
			})
		})
	}
	// A renewal moves updated_at. So the daemon does not renew while updated_at may still show whether the
	// request was carried out.
	inBubble(t, day, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = expiring(w, r, token, 30*time.Hour, 8*time.Hour)
		w.frozenUpdatedAt = true
		time.Sleep(time.Hour)
		w.loseFirstAnswer(true)
		w.advance(r, token)
		if w.record().Step != rotation.StepInDoubt || !rotation.NextChore(token, w.record()).IsZero() {
			t.Errorf("%+v", w.record())
		}
	})
}
