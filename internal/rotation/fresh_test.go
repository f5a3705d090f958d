package rotation_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// TestCreate: the daemon creates the service token at once, and stores its first secret in the sink. From then
// on it rotates it in its slots.
func TestCreate(t *testing.T) {
	inFresh(t, nil, func(w *world, token rotation.Token, r *rotation.Rotator) {
		if err, _ := w.advance(r, token); err != nil {
			t.Fatal(err)
		}
		record := w.record()
		if len(w.created) != 1 || w.created[0].name != "ci" || w.created[0].duration != "8760h" || w.sink.ClientSecret.Reveal() != w.created[0].current {
			t.Fatalf("created %v, the sink has %v", w.created, w.sink.ClientID)
		}
		if !record.Facts.Enabled || record.Facts.ClientID != w.created[0].clientID {
			t.Errorf("the record says that it is disabled: %+v", record.Facts)
		}
		if record.TokenID != w.created[0].id || record.Last.Trigger != rotation.TriggerCreate || !record.GraceEnd().IsZero() || len(record.Replaced) > 0 {
			t.Errorf("the record is %+v", record)
		}
		if got := strings.Join(w.calls, ", "); !strings.Contains(got, "find, reserve, room, ready, save intent, record, create, seal, save sealed, sink store") {
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

// TestReplace: each rotation creates a service token with a new name, and deletes the previous one when its grace
// is over, not earlier.
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
				t.Fatalf("the old one is deleted at %v, but promised until %v", at, record.GraceEnd())
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
			t.Errorf("%d rotates, %d creates, %d are not deleted", w.rotates, w.creates, len(w.notDeleted()))
		}
	})
}

// TestCreateSurvivesEveryFault makes each call fail, and makes the process die at each call, before and after the
// call is carried out. In the end exactly one service token is left, and its secret is in the sink.
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
						remaining := w.notDeleted()
						if len(remaining) != 1 || remaining[0].current != w.sink.ClientSecret.Reveal() || remaining[0].clientID != w.sink.ClientID {
							t.Errorf("%d service tokens are not deleted, the sink has %s; calls %q", len(remaining), w.sink.ClientID, w.calls)
						}
						if len(w.pending)+len(w.reserved) > 0 {
							t.Errorf("%d pending, %d reserved", len(w.pending), len(w.reserved))
						}
						if record := w.record(); record.TokenID != remaining[0].id || record.Facts.ID != remaining[0].id {
							t.Errorf("the record names %s, and has the facts of %s", record.TokenID, record.Facts.ID)
						}
					})
				})
			}
		}
	}
}

// TestCreateAdopts: a service token of that name exists already. With adopt: true the daemon adopts it, otherwise
// it creates nothing.
func TestCreateAdopts(t *testing.T) {
	existing := func(w *world, names ...string) {
		for i, name := range names {
			w.created = append(w.created, &cfToken{id: fmt.Sprintf("there-%d", i), clientID: "there.access", name: name, current: "old", createdAt: time.Now()})
		}
	}
	inFresh(t, nil, func(w *world, token rotation.Token, r *rotation.Rotator) {
		existing(w, "ci", "ci-")
		err, _ := w.advance(r, token)
		if err == nil || !strings.Contains(err.Error(), "id: there-0") || !strings.Contains(err.Error(), "adopt: true") || w.creates > 0 || w.record().Failures != 1 {
			t.Error(err, w.creates)
		}
	})
	adopt := func(token *rotation.Token) { token.Create.Adopt = true }
	inFresh(t, adopt, func(w *world, token rotation.Token, r *rotation.Rotator) {
		existing(w, "ci")
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
		existing(w, "ci", "ci")
		if err, _ := w.advance(r, token); err == nil || !strings.Contains(err.Error(), "there-0, there-1") || w.creates > 0 {
			t.Error(err)
		}
	})
}

// TestOldTokenInPolicy: a service token that a policy still names cannot be deleted. The daemon tries again with
// growing waits, and continues to rotate.
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
		if w.creates < 28 || len(record.Replaced) > 2 || !anyErrorContains(record.Replaced, "policy") {
			t.Fatalf("%d creates; not deleted yet: %+v", w.creates, record.Replaced)
		}
		tries := strings.Count(strings.Join(w.calls, " "), "delete") - (w.creates - 2)
		if tries < 25 || tries > 60 {
			t.Errorf("the deletion was tried %d times in 30 hours", tries)
		}
		delete(w.namedByPolicy, w.created[0].id)
		time.Sleep(time.Hour)
		_, _ = r.Advance(w.t.Context(), token)
		if !w.gone[w.created[0].id] {
			t.Error("it was not deleted")
		}
	})
}

func anyErrorContains(replaced []rotation.Replaced, what string) bool {
	for _, r := range replaced {
		if strings.Contains(r.LastError, what) {
			return true
		}
	}
	return false
}

// TestReplaceContinuesFromRotate: the strategy of an entry with an id changes to replace. The rotations continue
// from the ledger's record, and the strategy cannot change while a rotation is in progress.
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
			t.Error("after a restart the record names another service token:", again.TokenID, err)
		}
		// A rotation in progress keeps the strategy that it began with.
		w.failAll("sink store", fault{before: errors.New("sealed")})
		r = w.runUntilStep(r, token, rotation.StepSealed)
		token.Replace = false
		if _, err := r.Enroll(w.t.Context(), token); err == nil || !strings.Contains(err.Error(), "unfinished rotation") {
			t.Error(err)
		}
	})
}

// TestCreateLosesAnswersInARow: the answer to a create is lost, and so are the answers to the next ones, while the
// service tokens of the lost answers still exist.
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
					if remaining := w.notDeleted(); len(remaining) != 1 || remaining[0].current != w.sink.ClientSecret.Reveal() || replace && lost != 3 {
						t.Errorf("%d service tokens are not deleted, the sink has %s; calls %q", len(remaining), w.sink.ClientID, w.calls)
					}
				})
			})
		}
	}
}

// TestOnlyOurSuffixIsRemovedFromAName: the name for a new service token is the old one without the suffix, and
// only a suffix that rotatord has added is removed.
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

// TestCreatedTokenIsNotFound: the answer did not say which service token was created, and now the service token
// of that name is a different one. The secret is useless, so an operator can give it up.
func TestCreatedTokenIsNotFound(t *testing.T) {
	inFresh(t, nil, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.failAll("sink store", fault{before: errors.New("permission denied")})
		w.advance(r, token)
		w.fault = nil
		w.changeRecord(func(r *rotation.Record) { r.Work.TokenID, r.Work.After = "", rotation.TokenFacts{} })
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveDrop); !errors.Is(err, rotation.ErrUnfit) {
			t.Fatal("a good secret could be given up:", err)
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
		w.gone[w.created[0].id] = true // until then its name is taken
		w.runUntilIdle(r, token)
		if w.creates != 2 || w.sink.ClientSecret.Reveal() != w.created[1].current {
			t.Errorf("%d created, %+v", w.creates, w.record())
		}
	})
}

// TestCreatedTokenIsDeletedBeforeDelivery: the secret of a new service token waits for its sink, and the service
// token is deleted. An operator gives the secret up, and the daemon creates another service token.
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
			t.Errorf("%d created, %d pending, %+v", w.creates, len(w.pending), w.record())
		}
	})
}
