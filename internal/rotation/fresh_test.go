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
	inFresh(t, nil, func(w *world, token rotation.Token, r *rotation.Rotator) {
		if err, _ := w.advance(r, token); err != nil {
			t.Fatal(err)
		}
		record := w.record()
		if len(w.created) != 1 || w.created[0].name != "ci" || w.created[0].duration != "8760h" || w.sink.ClientSecret.Reveal() != w.created[0].current {
			t.Fatalf("made %v, the sink has %v", w.created, w.sink.ClientID)
		}
		if !record.Facts.Enabled || record.Facts.ClientID != w.created[0].clientID {
			t.Errorf("it is taken for disabled: %+v", record.Facts)
		}
		if record.TokenID != w.created[0].id || record.Last.Trigger != rotation.TriggerCreate || !record.GraceEnd().IsZero() || len(record.Replaced) > 0 {
			t.Errorf("the record is %+v", record)
		}
		if got := strings.Join(w.calls, ", "); !strings.Contains(got, "find, reserve, ready, save intent, create, seal, save sealed, sink store") {
			t.Error(got)
		}
		before := w.created[0].current
		if err, _ := w.advance(r, token); err != nil {
			t.Fatal(err)
		}
		if w.creates != 1 || w.rotates != 1 || w.sink.ClientSecret.Reveal() == before || w.created[0].previous != before {
			t.Errorf("%d creates, %d rotates", w.creates, w.rotates)
		}
	})
}

// TestReplace: each rotation makes a service token with a name of its own, and deletes the one
// before it when the grace is over, not earlier.
func TestReplace(t *testing.T) {
	inFresh(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		for range 4 {
			if err, _ := w.advance(r, token); err != nil {
				t.Fatal(err)
			}
			record := w.record()
			if w.sink.ClientID != w.created[len(w.created)-1].clientID {
				t.Fatalf("the sink has %s", w.sink.ClientID)
			}
			if len(w.created) == 1 {
				continue
			}
			old := w.created[len(w.created)-2]
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
		for i, c := range w.created {
			if names[c.name] || i > 0 && (!strings.HasPrefix(c.name, "ci-") || len(c.name) != len("ci-")+10) {
				t.Errorf("the names are %q", c.name)
			}
			names[c.name] = true
		}
		if w.rotates != 0 || w.creates != 4 || len(w.notDeleted()) != 1 {
			t.Errorf("%d rotates, %d creates, %d are left", w.rotates, w.creates, len(w.notDeleted()))
		}
	})
}

// TestCreateSurvivesEveryFault has each call fail, or the process die, before it and after it: at
// last there is exactly one service token, its secret is in the sink, and none was lost but those
// whose answer was.
func TestCreateSurvivesEveryFault(t *testing.T) {
	for _, replace := range []bool{false, true} {
		change := func(token *rotation.Token) { token.Replace = replace }
		var calls []string
		inFresh(t, change, func(w *world, token rotation.Token, r *rotation.Rotator) {
			r = w.runUntilIdle(r, token)
			w.advance(r, token)
			w.runUntilIdle(r, token)
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
					inFresh(t, change, func(w *world, token rotation.Token, r *rotation.Rotator) {
						w.fault = func(i int, _ string) fault {
							if i == n {
								return f
							}
							return fault{}
						}
						r = w.runUntilIdle(r, token)
						if _, died := w.advance(r, token); died {
							r = w.start()
							if _, err := r.Enroll(w.t.Context(), token); err != nil {
								t.Fatal(err)
							}
						}
						w.runUntilIdle(r, token)
						left := w.notDeleted()
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
			w.created = append(w.created, &cfToken{id: fmt.Sprintf("there-%d", i), clientID: "there.access", name: name, current: "old", createdAt: time.Now()})
		}
	}
	inFresh(t, nil, func(w *world, token rotation.Token, r *rotation.Rotator) {
		there(w, "ci", "ci-")
		err, _ := w.advance(r, token)
		if err == nil || !strings.Contains(err.Error(), "id: there-0") || !strings.Contains(err.Error(), "adopt: true") || w.creates > 0 || w.record().Failures != 1 {
			t.Error(err, w.creates)
		}
	})
	adopt := func(token *rotation.Token) { token.Create.Adopt = true }
	inFresh(t, adopt, func(w *world, token rotation.Token, r *rotation.Rotator) {
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
	inFresh(t, adopt, func(w *world, token rotation.Token, r *rotation.Rotator) {
		there(w, "ci", "ci")
		if err, _ := w.advance(r, token); err == nil || !strings.Contains(err.Error(), "there-0, there-1") || w.creates > 0 {
			t.Error(err)
		}
	})
}

// TestOldTokenInPolicy: what a policy still names cannot be deleted. That is tried again, with
// growing waits, and rotations go on.
func TestOldTokenInPolicy(t *testing.T) {
	inFresh(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		w.namedByPolicy[w.created[0].id] = true
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
		delete(w.namedByPolicy, w.created[0].id)
		time.Sleep(time.Hour)
		_, _ = r.Advance(w.t.Context(), token)
		if !w.gone[w.created[0].id] {
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

// TestReplaceContinuesFromRotate: an entry with an id whose strategy becomes replace goes on from
// what the ledger knows, and a secret in hand of the one is never delivered by the other.
func TestReplaceContinuesFromRotate(t *testing.T) {
	inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.gone, w.namedByPolicy = map[string]bool{}, map[string]bool{}
		w.name = "edge"
		if err, _ := w.advance(r, token); err != nil {
			t.Fatal(err)
		}
		token.Replace, token.Creator = true, w
		if record, err := r.Enroll(w.t.Context(), token); err != nil || record.Origin != tokenID {
			t.Fatal(record, err)
		}
		if err, _ := w.advance(r, token); err != nil || w.creates != 1 || !strings.HasPrefix(w.created[0].name, "edge-") {
			t.Fatal(err, w.creates)
		}
		record := w.record()
		if record.TokenID != w.created[0].id || len(record.Replaced) != 1 || record.Replaced[0].TokenID != tokenID {
			t.Fatalf("%+v", record)
		}
		if again, err := r.Enroll(w.t.Context(), token); err != nil || again.TokenID != record.TokenID {
			t.Error("a restart forgets which service token it is", again.TokenID, err)
		}
		// A rotation that is in hand stays with the strategy that it began with.
		w.failAll("sink store", fault{before: errors.New("sealed")})
		r = w.runUntilStep(r, token, rotation.StepSealed)
		token.Replace = false
		if _, err := r.Enroll(w.t.Context(), token); err == nil || !strings.Contains(err.Error(), "unfinished rotation") {
			t.Error(err)
		}
	})
}

// TestCreateLosesAnswersInARow: the answer to the request that makes up for a lost one is lost
// too, while the service token of the first is still there.
func TestCreateLosesAnswersInARow(t *testing.T) {
	for _, replace := range []bool{false, true} {
		for name, f := range map[string]fault{
			"answer lost": {after: &rotation.IssuerError{Class: rotation.Unknown}},
			"crash after": {after: errors.New("x"), crash: true},
		} {
			t.Run(fmt.Sprintf("replace %t/%s", replace, name), func(t *testing.T) {
				inFresh(t, func(token *rotation.Token) { token.Replace = replace }, func(w *world, token rotation.Token, r *rotation.Rotator) {
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
					w.runUntilIdle(r, token)
					if left := w.notDeleted(); len(left) != 1 || left[0].current != w.sink.ClientSecret.Reveal() || replace && lost != 3 {
						t.Errorf("%d service tokens are left, the sink has %s; calls %q", len(left), w.sink.ClientID, w.calls)
					}
				})
			})
		}
	}
}

// TestOnlyOurSuffixIsRemovedFromAName: only a suffix that rotatord has given is taken off a name.
func TestOnlyOurSuffixIsRemovedFromAName(t *testing.T) {
	inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.gone, w.name = map[string]bool{}, "edge-production"
		token.Replace, token.Creator = true, w
		if _, err := r.Enroll(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if _, err := r.RecordListing(w.t.Context(), token, w.facts()); err != nil {
			t.Fatal(err)
		}
		w.runFor(r, token, 3*time.Hour)
		for _, c := range w.created {
			if !strings.HasPrefix(c.name, "edge-production-") || strings.Count(c.name, "-") != 2 {
				t.Error(c.name)
			}
		}
	})
}

// TestCreatedTokenIsNotFound: the answer did not say which service token was made, and the one of
// that name is another one by now. The secret is given up, since nobody can use it.
func TestCreatedTokenIsNotFound(t *testing.T) {
	inFresh(t, nil, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.failAll("sink store", fault{before: errors.New("permission denied")})
		w.advance(r, token)
		w.fault = nil
		w.changeRecord(func(r *rotation.Record) { r.Work.TokenID, r.Work.After = "", rotation.TokenFacts{} })
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveDrop); !errors.Is(err, rotation.ErrUnfit) {
			t.Fatal("a good secret was given up:", err)
		}
		w.created[0].clientID = "another.access"
		for range 5 {
			w.advance(r, token)
		}
		if record := w.record(); record.Step != rotation.StepSealed {
			t.Fatal(record)
		}
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveDrop); err != nil {
			t.Fatal(err)
		}
		w.gone[w.created[0].id] = true // its name is taken until then
		w.runUntilIdle(r, token)
		if w.creates != 2 || w.sink.ClientSecret.Reveal() != w.created[1].current {
			t.Errorf("%d made, %+v", w.creates, w.record())
		}
	})
}

// TestCreatedTokenIsDeletedBeforeDelivery: the secret of a service token that was made waits for its
// sink, and the service token is deleted. It is given up, and another one is made.
func TestCreatedTokenIsDeletedBeforeDelivery(t *testing.T) {
	inFresh(t, nil, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.failAll("sink store", fault{before: errors.New("permission denied")})
		w.advance(r, token)
		w.fault = nil
		w.gone[w.created[0].id] = true
		if record, verdict, err := r.Resolve(w.t.Context(), token, rotation.ResolveDrop); err != nil || verdict.Reason != rotation.ReasonOperatorDrop || record.TokenID != "" {
			t.Fatal(record, verdict, err)
		}
		w.runUntilIdle(r, token)
		if w.creates != 2 || w.sink.ClientSecret.Reveal() != w.created[1].current || len(w.pending) != 0 {
			t.Errorf("%d made, %d pending, %+v", w.creates, len(w.pending), w.record())
		}
	})
}
