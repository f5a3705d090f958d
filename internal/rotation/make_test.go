package rotation_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// TestCreate: the service token is made at once, with its first secret in the sink, and is
// rotated in its slots from then on.
func TestCreate(t *testing.T) {
	inMaking(t, nil, func(w *world, token rotation.Token, r *rotation.Rotator) {
		if err, _ := w.advance(r, token); err != nil {
			t.Fatal(err)
		}
		record := w.record()
		if len(w.made) != 1 || w.made[0].name != "ci" || w.made[0].duration != "8760h" || w.sink.ClientSecret.Reveal() != w.made[0].current {
			t.Fatalf("made %v, the sink has %v", w.made, w.sink.ClientID)
		}
		if !record.Facts.Enabled || record.Facts.ClientID != w.made[0].clientID {
			t.Errorf("it is taken for disabled: %+v", record.Facts)
		}
		if record.TokenID != w.made[0].id || record.Last.Trigger != rotation.TriggerCreate || !record.GraceEnd().IsZero() || len(record.Replaced) > 0 {
			t.Errorf("the record is %+v", record)
		}
		if got := strings.Join(w.calls, ", "); !strings.Contains(got, "find, reserve, ready, save intent, create, seal, save sealed, sink store") {
			t.Error(got)
		}
		before := w.made[0].current
		if err, _ := w.advance(r, token); err != nil {
			t.Fatal(err)
		}
		if w.creates != 1 || w.rotates != 1 || w.sink.ClientSecret.Reveal() == before || w.made[0].previous != before {
			t.Errorf("%d creates, %d rotates", w.creates, w.rotates)
		}
	})
}

// TestReplace: each rotation makes a service token with a name of its own, and deletes the one
// before it when the grace is over, not earlier.
func TestReplace(t *testing.T) {
	inMaking(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		for range 4 {
			if err, _ := w.advance(r, token); err != nil {
				t.Fatal(err)
			}
			record := w.record()
			if w.sink.ClientID != w.made[len(w.made)-1].clientID {
				t.Fatalf("the sink has %s", w.sink.ClientID)
			}
			if len(w.made) == 1 {
				continue
			}
			old := w.made[len(w.made)-2]
			if at := rotation.NextChore(token, record); time.Until(at) != 20*time.Minute || !record.GraceEnd().Equal(at) {
				t.Fatalf("the old one is deleted at %v, and promised until %v", at, record.GraceEnd())
			}
			time.Sleep(20*time.Minute - time.Second)
			if _, err := r.Advance(w.t.Context(), token); err != nil || w.gone[old.id] {
				t.Fatal("it was deleted too early", err)
			}
			time.Sleep(time.Second)
			if _, err := r.Advance(w.t.Context(), token); err != nil || !w.gone[old.id] {
				t.Fatal("it was not deleted", err)
			}
		}
		names := map[string]bool{}
		for i, c := range w.made {
			if names[c.name] || i > 0 && (!strings.HasPrefix(c.name, "ci-") || len(c.name) != len("ci-")+10) {
				t.Errorf("the names are %q", c.name)
			}
			names[c.name] = true
		}
		if w.rotates != 0 || w.creates != 4 || len(w.left()) != 1 {
			t.Errorf("%d rotates, %d creates, %d are left", w.rotates, w.creates, len(w.left()))
		}
	})
}

// TestMakingSurvivesEverything has each call fail, or the process die, before it and after it: at
// last there is exactly one service token, its secret is in the sink, and none was lost but those
// whose answer was.
func TestMakingSurvivesEverything(t *testing.T) {
	for _, replace := range []bool{false, true} {
		change := func(token *rotation.Token) { token.Replace = replace }
		var calls []string
		inMaking(t, change, func(w *world, token rotation.Token, r *rotation.Rotator) {
			r = w.settle(r, token)
			w.advance(r, token)
			w.settle(r, token)
			calls = w.calls
		})
		for n, call := range calls {
			for name, f := range map[string]fault{
				"failed":         {before: &rotation.IssuerError{Class: rotation.NotCarriedOut}},
				"unknown":        {before: &rotation.IssuerError{Class: rotation.Unknown}},
				"answer lost":    {after: &rotation.IssuerError{Class: rotation.Unknown}},
				"crash before":   {before: errors.New("x"), crash: true},
				"crash after":    {after: errors.New("x"), crash: true},
				"carried out 5s": {before: &rotation.IssuerError{Class: rotation.Unknown}, late: 5 * time.Second},
			} {
				if f.late > 0 && call != "create" && call != "delete" {
					continue
				}
				t.Run(fmt.Sprintf("replace %t/%d %s/%s", replace, n, call, name), func(t *testing.T) {
					inMaking(t, change, func(w *world, token rotation.Token, r *rotation.Rotator) {
						w.fault = func(i int, _ string) fault {
							if i == n {
								return f
							}
							return fault{}
						}
						r = w.settle(r, token)
						if _, died := w.advance(r, token); died {
							r = w.start()
							if _, err := r.Enroll(w.t.Context(), token); err != nil {
								t.Fatal(err)
							}
						}
						w.settle(r, token)
						left := w.left()
						if len(left) != 1 || left[0].current != w.sink.ClientSecret.Reveal() || left[0].clientID != w.sink.ClientID {
							t.Errorf("%d service tokens are left, the sink has %s; calls %q", len(left), w.sink.ClientID, w.calls)
						}
						if len(w.pending)+len(w.reserved) > 0 {
							t.Errorf("%d pending, %d reserved", len(w.pending), len(w.reserved))
						}
						if record := w.record(); record.TokenID != left[0].id || record.Facts.ID != left[0].id {
							t.Errorf("the record says %s, facts of %s", record.TokenID, record.Facts.ID)
						}
					})
				})
			}
		}
	}
}

// TestCreateAdopts: one of that name that is there is adopted when told so, and else nothing is
// made beside it.
func TestCreateAdopts(t *testing.T) {
	there := func(w *world, names ...string) {
		for i, name := range names {
			w.made = append(w.made, &cfToken{id: fmt.Sprintf("there-%d", i), clientID: "there.access", name: name, current: "old", createdAt: time.Now()})
		}
	}
	inMaking(t, nil, func(w *world, token rotation.Token, r *rotation.Rotator) {
		there(w, "ci", "ci-")
		err, _ := w.advance(r, token)
		if err == nil || !strings.Contains(err.Error(), "id: there-0") || !strings.Contains(err.Error(), "adopt: true") || w.creates > 0 || w.record().Failures != 1 {
			t.Error(err, w.creates)
		}
	})
	adopt := func(token *rotation.Token) { token.Create.Adopt = true }
	inMaking(t, adopt, func(w *world, token rotation.Token, r *rotation.Rotator) {
		there(w, "ci")
		if err, _ := w.advance(r, token); err != nil {
			t.Fatal(err)
		}
		record := w.record()
		if record.TokenID != "there-0" || w.creates+w.rotates > 0 || record.Failures > 0 || rotation.NextDue(token, record, rotation.Pause{}).Reason != rotation.DueSlot {
			t.Fatalf("the record is %+v", record)
		}
		if err, _ := w.advance(r, token); err != nil || w.rotates != 1 || w.sink.ClientID != "there.access" {
			t.Error(err, w.rotates)
		}
	})
	inMaking(t, adopt, func(w *world, token rotation.Token, r *rotation.Rotator) {
		there(w, "ci", "ci")
		if err, _ := w.advance(r, token); err == nil || !strings.Contains(err.Error(), "there-0, there-1") || w.creates > 0 {
			t.Error(err)
		}
	})
}

// TestOldTokenInPolicy: what a policy still names cannot be deleted. That is tried again, with
// growing waits, and rotations go on.
func TestOldTokenInPolicy(t *testing.T) {
	inMaking(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.settle(r, token)
		w.inUse[w.made[0].id] = true
		w.advance(r, token)
		for until := time.Now().Add(30 * time.Hour); time.Now().Before(until); {
			due, chore := rotation.NextDue(token, w.record(), rotation.Pause{}).At, rotation.NextChore(token, w.record())
			if !chore.IsZero() && chore.Before(due) {
				due = chore
			}
			time.Sleep(time.Until(due))
			_, _ = r.Advance(w.t.Context(), token)
		}
		record := w.record()
		if w.creates < 28 || len(record.Replaced) > 2 || !errorsSay(record.Replaced, "policy") {
			t.Fatalf("%d creates; to be deleted: %+v", w.creates, record.Replaced)
		}
		tries := strings.Count(strings.Join(w.calls, " "), "delete") - (w.creates - 2)
		if tries < 25 || tries > 60 {
			t.Errorf("it was tried %d times in 30 hours", tries)
		}
		delete(w.inUse, w.made[0].id)
		time.Sleep(time.Hour)
		_, _ = r.Advance(w.t.Context(), token)
		if !w.gone[w.made[0].id] {
			t.Error("it was not deleted")
		}
	})
}

func errorsSay(replaced []rotation.Replaced, what string) bool {
	for _, r := range replaced {
		if strings.Contains(r.LastError, what) {
			return true
		}
	}
	return false
}

// TestReplaceTakesOverFromRotate: an entry with an id whose strategy becomes replace goes on from
// what the ledger knows, and a secret in hand of the one is never delivered by the other.
func TestReplaceTakesOverFromRotate(t *testing.T) {
	inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.gone, w.inUse = map[string]bool{}, map[string]bool{}
		w.name = "edge"
		if err, _ := w.advance(r, token); err != nil {
			t.Fatal(err)
		}
		token.Replace, token.Creator = true, w
		if record, err := r.Enroll(w.t.Context(), token); err != nil || record.Origin != tokenID {
			t.Fatal(record, err)
		}
		if err, _ := w.advance(r, token); err != nil || w.creates != 1 || !strings.HasPrefix(w.made[0].name, "edge-") {
			t.Fatal(err, w.creates)
		}
		record := w.record()
		if record.TokenID != w.made[0].id || len(record.Replaced) != 1 || record.Replaced[0].TokenID != tokenID {
			t.Fatalf("%+v", record)
		}
		if again, err := r.Enroll(w.t.Context(), token); err != nil || again.TokenID != record.TokenID {
			t.Error("a restart forgets which service token it is", again.TokenID, err)
		}
		// A rotation that is in hand stays with the strategy that it began with.
		w.failAll("sink store", fault{before: errors.New("sealed")})
		r = w.settleUntil(r, token, rotation.StepSealed)
		token.Replace = false
		if _, err := r.Enroll(w.t.Context(), token); err == nil || !strings.Contains(err.Error(), "unfinished rotation") {
			t.Error(err)
		}
	})
}

// settleUntil goes on until the token is at a step.
func (w *world) settleUntil(r *rotation.Rotator, token rotation.Token, step rotation.Step) *rotation.Rotator {
	w.t.Helper()
	for range 20 {
		if w.record().Step == step {
			return r
		}
		w.advance(r, token)
	}
	w.t.Fatal("it does not get to " + string(step))
	return r
}

// TestMakingLosesAnswersInARow: the answer to the request that makes up for a lost one is lost
// too, while the service token of the first is still there.
func TestMakingLosesAnswersInARow(t *testing.T) {
	for _, replace := range []bool{false, true} {
		for name, f := range map[string]fault{
			"answer lost": {after: &rotation.IssuerError{Class: rotation.Unknown}},
			"crash after": {after: errors.New("x"), crash: true},
		} {
			t.Run(fmt.Sprintf("replace %t/%s", replace, name), func(t *testing.T) {
				inMaking(t, func(token *rotation.Token) { token.Replace = replace }, func(w *world, token rotation.Token, r *rotation.Rotator) {
					lost := 0
					w.fault = func(_ int, call string) fault {
						if call != "create" || lost == 3 {
							return fault{}
						}
						if lost++; lost < 3 {
							return fault{after: &rotation.IssuerError{Class: rotation.Unknown}}
						}
						return f
					}
					w.settle(r, token)
					if left := w.left(); len(left) != 1 || left[0].current != w.sink.ClientSecret.Reveal() || replace && lost != 3 {
						t.Errorf("%d service tokens are left, the sink has %s; calls %q", len(left), w.sink.ClientID, w.calls)
					}
				})
			})
		}
	}
}
