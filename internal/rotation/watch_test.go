package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
)

// shelf is a sink with versions, such as Vault's KV version 2. Version n is versions[n-1].
type shelf struct {
	w        *world
	name     string
	versions []shelved
	store    error // of each Store; nil if it works
	history  error // of each ReadVersion
}

// shelved is a version of a shelf.
type shelved struct {
	rotation.Credential
	deleted, destroyed bool
	deletesAt          time.Time
}

func (s *shelf) Name() string { return s.name }

func (s *shelf) put(c rotation.Credential) { s.versions = append(s.versions, shelved{Credential: c}) }

// write puts a secret there as another writer does.
func (s *shelf) write(text string) {
	s.put(rotation.Credential{ClientID: clientID, ClientSecret: secret.New(text)})
}

func (s *shelf) last() *shelved { return &s.versions[len(s.versions)-1] }

func (s *shelf) Look(context.Context) (st rotation.Stored, err error) {
	err = s.w.do(s.name+" look", func() error {
		if len(s.versions) == 0 {
			return nil
		}
		v := s.last()
		st = rotation.Stored{Version: len(s.versions), Deleted: v.deleted && !v.destroyed, Destroyed: v.destroyed, DeletesAt: v.deletesAt}
		if !v.deleted && !v.destroyed {
			st.Exists, st.ClientID, st.Digest = true, v.ClientID, v.ClientSecret.Digest()
		}
		return nil
	})
	return st, err
}

func (s *shelf) Preflight(ctx context.Context) (rotation.Stored, error) { return s.Look(ctx) }

func (s *shelf) Store(ctx context.Context, d rotation.Delivery) (rotation.Stored, error) {
	err := s.w.do(s.name+" store", func() error {
		if s.store != nil {
			return s.store
		}
		if v := s.versions; len(v) == 0 || s.last().deleted || s.last().destroyed || !s.last().ClientSecret.Equal(d.ClientSecret) {
			s.put(d.Credential)
		}
		return nil
	})
	if err != nil {
		return rotation.Stored{}, err
	}
	return s.Look(ctx)
}

func (s *shelf) ReadBack(context.Context) (rotation.Credential, error) {
	if len(s.versions) == 0 || s.last().deleted || s.last().destroyed {
		return rotation.Credential{}, nil
	}
	return s.last().Credential, nil
}

func (s *shelf) ReadVersion(_ context.Context, version int) (rotation.Credential, error) {
	switch {
	case s.history != nil:
		return rotation.Credential{}, s.history
	case version < 1 || version > len(s.versions) || s.versions[version-1].deleted || s.versions[version-1].destroyed:
		return rotation.Credential{}, rotation.ErrNoVersion
	}
	return s.versions[version-1].Credential, nil
}

// look looks at all sinks of a token, as the watch does once it is sure of a result.
func (w *world) look(r *rotation.Rotator, token rotation.Token) rotation.Record {
	w.t.Helper()
	for _, sink := range token.Sinks {
		before := w.record()
		var stored rotation.Stored
		var err error
		if looker, ok := sink.(rotation.Looker); ok {
			stored, err = looker.Look(w.t.Context())
		} else {
			stored, err = sink.Preflight(w.t.Context())
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := r.RecordLook(w.t.Context(), token, rotation.Look{Sink: sink.Name(), Before: before, Stored: stored}); err != nil {
			w.t.Fatal(err)
		}
	}
	return w.record()
}

// watchedWorld is a token with two shelves that was rotated once, and whose grace is over.
type watchedWorld struct {
	*world
	token rotation.Token
	r     *rotation.Rotator
	a, b  *shelf
}

func watching(t *testing.T, test func(w *watchedWorld)) {
	t.Helper()
	inBubble(t, 10*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.gone = map[string]bool{}
		v := &watchedWorld{world: w, token: token, r: r, a: &shelf{w: w, name: "a"}, b: &shelf{w: w, name: "b"}}
		v.a.write(w.current)
		v.b.write(w.current)
		v.token.Sinks = []rotation.Sink{v.a, v.b}
		v.token.Restore = true
		w.advance(r, v.token)
		w.advance(r, v.token) // now an earlier secret is known
		time.Sleep(20 * time.Minute)
		if record := v.look(r, v.token); len(record.Findings) > 0 || len(record.Written) != 2 || record.Last.Digest != secret.New(w.current).Digest() {
			t.Fatalf("%+v", record)
		}
		v.events = nil
		test(v)
	})
}

// found returns the findings as "sink kind", sorted.
func (v *watchedWorld) found() (all []string) {
	for sink, f := range v.look(v.r, v.token).Findings {
		all = append(all, fmt.Sprint(sink, " ", f.Kind))
	}
	slices.Sort(all)
	return all
}

func (v *watchedWorld) wantFound(want ...string) {
	v.t.Helper()
	if got := v.found(); !slices.Equal(got, want) {
		v.t.Errorf("found %q, want %q", got, want)
	}
}

// restore restores, and returns why nothing was restored; empty if nothing speaks against it.
func (v *watchedWorld) restore() string {
	v.t.Helper()
	record, _ := v.r.Restore(v.t.Context(), v.token)
	return record.Restoring.Refused
}

func (v *watchedWorld) kinds() (all []event.Kind) {
	for _, e := range v.events {
		all = append(all, e.Kind)
	}
	return all
}

// TestFindings: what another writer does to a sink is found, told once, and stays in the ledger until it is over.
func TestFindings(t *testing.T) {
	for name, test := range map[string]struct {
		change func(v *watchedWorld)
		want   string
		told   event.Kind
	}{
		"another secret": {func(v *watchedWorld) { v.a.write(v.secretOf(900)) }, "a changed", event.SinkChanged},
		"another client": {func(v *watchedWorld) {
			v.a.put(rotation.Credential{ClientID: "other", ClientSecret: v.a.last().ClientSecret})
		}, "a changed", event.SinkChanged},
		"an earlier secret":   {func(v *watchedWorld) { v.a.put(v.a.versions[1].Credential) }, "a rolled_back", event.SinkRolledBack},
		"the first secret":    {func(v *watchedWorld) { v.a.put(v.a.versions[0].Credential) }, "a rolled_back", event.SinkRolledBack},
		"versions cut off":    {func(v *watchedWorld) { v.a.versions = v.a.versions[:2] }, "a rolled_back", event.SinkRolledBack},
		"deleted":             {func(v *watchedWorld) { v.a.last().deleted = true }, "a deleted", event.SinkDeleted},
		"destroyed":           {func(v *watchedWorld) { v.a.last().destroyed = true }, "a destroyed", event.SinkDeleted},
		"the history is gone": {func(v *watchedWorld) { v.a.versions = nil }, "a gone", event.SinkDeleted},
		"no secret":           {func(v *watchedWorld) { v.a.put(rotation.Credential{ClientID: clientID}) }, "a no_secret", event.SinkWithoutSecret},
	} {
		t.Run(name, func(t *testing.T) {
			watching(t, func(v *watchedWorld) {
				ours := v.a.last().Credential
				test.change(v)
				v.wantFound(test.want)
				first := v.record()
				time.Sleep(time.Hour / 4)
				v.wantFound(test.want)
				if again := v.record(); again.Revision != first.Revision || !again.Findings["a"].Since.Equal(first.Findings["a"].Since) {
					t.Error("the same finding was saved again")
				}
				v.a.put(ours)
				v.wantFound()
				if got := v.kinds(); !slices.Equal(got, []event.Kind{test.told, event.SinkAsWritten}) {
					t.Errorf("told %q", got)
				}
				if v.rotates != 2 {
					t.Error("a finding has led to a rotation")
				}
			})
		})
	}
}

// TestNoFalseFinding: none of these is a finding, although a sink does not hold what the last rotation wrote.
func TestNoFalseFinding(t *testing.T) {
	for name, test := range map[string]func(v *watchedWorld){
		"the history was removed and ours was written again": func(v *watchedWorld) {
			v.a.versions = []shelved{*v.a.last()}
		},
		"others have rotated the token, which is known": func(v *watchedWorld) {
			v.current, v.updatedAt = v.secretOf(901), time.Now().UTC()
			if record, err := v.r.RecordListing(v.t.Context(), v.token, v.facts()); err != nil || record.Outside.IsZero() {
				v.t.Fatal(record, err)
			}
			v.a.write(v.current)
			v.b.write(v.current)
		},
		"a record of an earlier version, and the sinks hold the last secret": func(v *watchedWorld) {
			v.rewrite(func(r *rotation.Record) { r.Written, r.Earlier = nil, nil })
		},
		"never rotated": func(v *watchedWorld) {
			v.rewrite(func(r *rotation.Record) { r.Written, r.Last = nil, nil })
			v.a.write(v.secretOf(902))
		},
		"a new sink holds the secret already": func(v *watchedWorld) {
			c := &shelf{w: v.world, name: "c"}
			c.put(v.a.last().Credential)
			v.token.Sinks = append(v.token.Sinks, c)
		},
		"a sink that was removed from the configuration": func(v *watchedWorld) {
			v.a.write(v.secretOf(903))
			v.token.Sinks = []rotation.Sink{v.b}
		},
	} {
		t.Run(name, func(t *testing.T) {
			watching(t, func(v *watchedWorld) {
				test(v)
				v.wantFound()
				for _, k := range v.kinds() {
					if strings.HasPrefix(string(k), "sink.") {
						t.Errorf("told %s", k)
					}
				}
			})
		})
	}
}

// rewrite changes the record in the ledger.
func (w *world) rewrite(change func(r *rotation.Record)) {
	w.t.Helper()
	record := w.record()
	change(&record)
	if _, err := w.Save(w.t.Context(), record); err != nil {
		w.t.Fatal(err)
	}
}

// TestNewSink: a sink that was added after the last rotation was never written, whatever is there. It is neither
// changed nor restored. The next rotation writes it.
func TestNewSink(t *testing.T) {
	for _, holds := range []string{"", "another program's"} {
		watching(t, func(v *watchedWorld) {
			c := &shelf{w: v.world, name: "c"}
			if holds != "" {
				c.write(holds)
			}
			v.token.Sinks = append(v.token.Sinks, c)
			v.wantFound("c never_written")
			if reason := v.restore(); reason != "" || len(c.versions) > 1 || rotation.WantsRestore(v.token, v.record()) {
				t.Errorf("%s: %+v", reason, c.versions)
			}
			v.advance(v.r, v.token)
			v.wantFound()
		})
	}
}

// TestLookDuringARotation: a look that began before a rotation and ended after it counts for nothing.
func TestLookDuringARotation(t *testing.T) {
	watching(t, func(v *watchedWorld) {
		before := v.record()
		stored, _ := v.a.Look(v.t.Context())
		v.advance(v.r, v.token)
		for _, l := range []rotation.Look{{Sink: "a", Before: before, Stored: stored}, {Sink: "a", Before: before, Err: errors.New("x")}} {
			if record, err := v.r.RecordLook(v.t.Context(), v.token, l); err != nil || len(record.Findings) > 0 {
				t.Error(record.Findings, err)
			}
		}
		v.failAll("a store", fault{before: errors.New("permission denied")})
		v.advance(v.r, v.token) // in progress: a is not written
		if record := v.look(v.r, v.token); record.Step != rotation.StepSealed || len(record.Findings) > 0 {
			t.Error(record.Step, record.Findings)
		}
	})
}

// TestUnreadableSink: the error is in the finding, and another error is not another finding.
func TestUnreadableSink(t *testing.T) {
	watching(t, func(v *watchedWorld) {
		for _, text := range []string{"permission denied", "permission denied again"} {
			if _, err := v.r.RecordLook(v.t.Context(), v.token, rotation.Look{Sink: "a", Before: v.record(), Err: errors.New(text)}); err != nil {
				t.Error(err)
			}
		}
		if f := v.record().Findings["a"]; f.Kind != rotation.FoundUnreadable || f.Error != "permission denied" {
			t.Errorf("%+v", f)
		}
		v.wantFound()
		if got := v.kinds(); !slices.Equal(got, []event.Kind{event.SinkUnreadable, event.SinkAsWritten}) {
			t.Errorf("told %q", got)
		}
	})
}

// TestDeletionIsSeen: a version that got a time of deletion between rotations is in the record, and told once.
func TestDeletionIsSeen(t *testing.T) {
	watching(t, func(v *watchedWorld) {
		v.a.last().deletesAt = time.Now().Add(time.Minute).UTC()
		v.wantFound()
		v.wantFound()
		if got := v.record().Deletes["a"]; !got.Equal(v.a.last().deletesAt) {
			t.Error(got)
		}
		if got := v.kinds(); !slices.Equal(got, []event.Kind{event.VersionDeletes}) {
			t.Errorf("told %q", got)
		}
		v.a.last().deletesAt = time.Time{}
		v.wantFound()
		if got := v.record().Deletes["a"]; !got.IsZero() {
			t.Error(got)
		}
	})
}

// damages are what another writer may do to a sink that a restore can mend.
var damages = map[string]func(v *watchedWorld, s *shelf){
	"changed":     func(v *watchedWorld, s *shelf) { s.write(v.secretOf(900)) },
	"rolled back": func(_ *watchedWorld, s *shelf) { s.put(s.versions[1].Credential) },
	"deleted":     func(_ *watchedWorld, s *shelf) { s.last().deleted = true },
	"destroyed":   func(_ *watchedWorld, s *shelf) { s.last().destroyed = true },
	"gone":        func(_ *watchedWorld, s *shelf) { s.versions = nil },
	"no secret":   func(_ *watchedWorld, s *shelf) { s.put(rotation.Credential{ClientID: clientID}) },
}

// TestRestoreFromAnotherSink: the secret is written back from a sink that holds it, without a rotation.
func TestRestoreFromAnotherSink(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			watching(t, func(v *watchedWorld) {
				damage(v, v.a)
				if reason := v.restore(); reason != "" || v.count("a store") != 2 {
					t.Fatal("restored before it was found", reason)
				}
				v.found()
				if reason := v.restore(); reason != "" || v.a.last().ClientSecret.Reveal() != v.current || v.rotates != 2 || len(v.record().Findings) > 0 {
					t.Errorf("%q, %+v", reason, v.record())
				}
				v.wantFound()
				if got := v.kinds(); got[len(got)-1] != event.SinkRestored {
					t.Errorf("told %q", got)
				}
			})
		})
	}
}

// TestRestoreFromHistory: the only sink is restored from the version that rotatord wrote, if that can be read.
// Otherwise the token is rotated.
func TestRestoreFromHistory(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			watching(t, func(v *watchedWorld) {
				v.token.Sinks = []rotation.Sink{v.a}
				ours := v.current
				damage(v, v.a)
				v.found()
				if reason := v.restore(); reason != "" {
					t.Fatal(reason)
				}
				if name == "changed" || name == "rolled back" || name == "no secret" {
					if v.a.last().ClientSecret.Reveal() != ours || v.rotates != 2 || v.record().Order != nil {
						t.Errorf("%+v", v.record())
					}
					return
				}
				if order := v.record().Order; order == nil || !order.Restores || order.Grace || order.RevokeNow {
					t.Fatalf("%+v", order)
				}
				v.advance(v.r, v.token)
				if record := v.record(); record.Order != nil || v.rotates != 3 || v.a.last().ClientSecret.Reveal() != v.current || !v.accepted(ours) {
					t.Errorf("%+v", record)
				}
				v.wantFound()
			})
		})
	}
}

// TestRestoringRotationKeepsTheGrace: the rotation that makes up for a lost copy waits for the end of the promised
// grace, and is taken back if the sink holds the secret again before that.
func TestRestoringRotationKeepsTheGrace(t *testing.T) {
	watching(t, func(v *watchedWorld) {
		v.token.Sinks = []rotation.Sink{v.a}
		v.advance(v.r, v.token)
		ours, end := *v.a.last(), v.record().Last.GraceEndsAt
		v.a.versions = nil
		v.found()
		if reason := v.restore(); reason != "" || v.record().Order == nil {
			t.Fatal(reason, v.record().Order)
		}
		if due := v.r.Due(v.token, v.record()); !due.At.Equal(end) || due.Reason != rotation.DueGrace {
			t.Errorf("due at %s (%s), and the grace ends at %s", due.At, due.Reason, end)
		}
		v.a.versions = []shelved{ours}
		v.wantFound()
		if order := v.record().Order; order != nil {
			t.Errorf("the order stays: %+v", order)
		}
	})
}

// TestNotRestored: while something speaks against it, nothing is written and nothing is rotated.
func TestNotRestored(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(v *watchedWorld)
		want    string
	}{
		"a person rotated by hand, and wrote the new secret": {func(v *watchedWorld) {
			v.current, v.updatedAt = v.a.last().ClientSecret.Reveal(), time.Now().UTC()
		}, rotation.RestoreOutside},
		"a person rotated by hand at once after us": {func(v *watchedWorld) {
			v.current, v.updatedAt = v.a.last().ClientSecret.Reveal(), v.record().Last.At.Add(time.Second).UTC()
		}, rotation.RestoreNotProven},
		"a person changed the name": {func(v *watchedWorld) { v.name, v.updatedAt = "other", time.Now().UTC() }, rotation.RestoreNotProven},
		"updated_at does not move here": {func(v *watchedWorld) {
			v.rewrite(func(r *rotation.Record) { r.StillCount = 1 })
		}, rotation.RestoreNotProven},
		"the answer to the rotation did not show updated_at": {func(v *watchedWorld) {
			v.rewrite(func(r *rotation.Record) { r.OwnUpdatedAt = time.Time{} })
		}, rotation.RestoreNotProven},
		"the previous secret was revoked by an operator, which moves updated_at": {func(v *watchedWorld) {
			if _, err := v.r.RevokePrevious(v.t.Context(), v.token); err != nil {
				v.t.Fatal(err)
			}
		}, rotation.RestoreNotProven},
		"gone": {func(v *watchedWorld) { v.gone[tokenID] = true }, rotation.RestoreGone},
		"paused": {func(v *watchedWorld) {
			_ = v.r.Pause(v.t.Context(), v.token.Name, rotation.Pause{Since: time.Now()})
		}, ""},
		"Cloudflare does not answer": {func(v *watchedWorld) {
			v.failAll("inspect", fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "get"}})
		}, ""},
		"the other sink cannot be read, nor the history": {func(v *watchedWorld) {
			v.a.history = errors.New("permission denied")
			v.failAll("b look", fault{before: errors.New("timeout")})
		}, ""},
		"another writer is at work": {func(v *watchedWorld) { v.a.write(v.secretOf(910)) }, ""},
		"outside_change: alarm":     {func(v *watchedWorld) { v.token.Restore = false }, ""},
		"an order is pending": {func(v *watchedWorld) {
			v.r.OrderAll(v.t.Context(), []rotation.Token{v.token}, rotation.Overrides{}, "ops")
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			watching(t, func(v *watchedWorld) {
				v.a.write(v.secretOf(900))
				v.wantFound("a changed")
				test.prepare(v)
				version, inspected := len(v.a.versions), 0
				for range 3 {
					if got := v.restore(); got != test.want {
						t.Errorf("%q, want %q", got, test.want)
					}
					if test.want != "" && inspected != 0 && inspected != v.count("inspect") && test.want != rotation.RestoreGone {
						t.Error("Cloudflare is asked again although it is known")
					}
					inspected = v.count("inspect")
					time.Sleep(15 * time.Minute)
				}
				if order := v.record().Order; order != nil && order.Restores {
					t.Error("a rotation was ordered")
				}
				if len(v.a.versions) != version || v.rotates != 2 {
					t.Error("something was written")
				}
				refusals := 0
				for _, k := range v.kinds() {
					if k == event.SinkNotRestored {
						refusals++
					}
				}
				if refusals != len(test.want)/max(len(test.want), 1) {
					t.Errorf("told %d times that it is not restored", refusals)
				}
			})
		})
	}
}

// TestAnotherWriterIsNotFought: a writer who changes the sink each time is stopped by nothing, and the token is
// restored three times a day at most, with a growing wait between them.
func TestAnotherWriterIsNotFought(t *testing.T) {
	watching(t, func(v *watchedWorld) {
		long, err := scheduler.Parse("@every 200h", nil)
		if err != nil {
			t.Fatal(err)
		}
		v.token.Timetable.Schedule = long
		began, restored := time.Now(), []time.Duration{}
		for n := range 4 * 24 { // every 15 minutes of a day
			v.a.write(v.secretOf(1000 + n))
			v.found()
			if v.restore(); v.a.last().ClientSecret.Reveal() == v.current {
				restored = append(restored, time.Since(began))
			}
			time.Sleep(15 * time.Minute)
		}
		if want := []time.Duration{0, 30 * time.Minute, 150 * time.Minute}; !slices.Equal(restored, want) {
			t.Errorf("restored after %s, want %s", restored, want)
		}
		if reason := v.record().Restoring.Refused; reason != rotation.RestoreTooOften {
			t.Error(reason)
		}
		v.found()
		if reason := v.restore(); reason != "" || v.a.last().ClientSecret.Reveal() != v.current {
			t.Error("not restored on the next day:", reason)
		}
	})
}

// TestRestoreSurvivesACrash kills the process at each call of a restore, before and after it is carried out. The
// next process finishes it, and writes no more than is needed.
func TestRestoreSurvivesACrash(t *testing.T) {
	for _, done := range []bool{false, true} {
		for at := range 40 {
			ended := false
			watching(t, func(v *watchedWorld) {
				v.a.write(v.secretOf(900))
				v.found()
				calls := len(v.calls)
				v.fault = func(n int, _ string) fault {
					f := fault{}
					if n == calls+at {
						f.crash = true
						if f.after = errors.New("killed"); !done {
							f.before = errors.New("killed")
						}
					}
					return f
				}
				died := func() (died bool) {
					defer func() {
						if p := recover(); p != nil {
							if _, ok := p.(crashed); !ok {
								panic(p)
							}
							died = true
						}
					}()
					v.restore()
					return false
				}()
				v.fault, ended = nil, !died
				v.r = v.start()
				if _, err := v.r.Enroll(v.t.Context(), v.token); err != nil {
					t.Fatal(err)
				}
				for range 2 { // it goes on at once, without the wait between two restores
					time.Sleep(time.Minute)
					v.found()
					v.restore()
				}
				if v.a.last().ClientSecret.Reveal() != v.current || len(v.a.versions) > 5 || v.rotates != 2 || len(v.record().Findings) > 0 {
					t.Errorf("killed at call %d: %d versions, %+v", at, len(v.a.versions), v.record())
				}
			})
			if ended {
				break
			}
			if at == 39 {
				t.Error("a restore makes too many calls for this test")
			}
		}
	}
}

// TestAccept: what the sinks hold counts as written from then on. It is not restored over.
func TestAccept(t *testing.T) {
	watching(t, func(v *watchedWorld) {
		v.a.write(v.secretOf(900))
		v.found()
		if _, _, err := v.r.Resolve(v.t.Context(), v.token, rotation.ResolveAccept); !errors.Is(err, rotation.ErrUnfit) {
			t.Error("the sinks hold different secrets, and were accepted:", err)
		}
		v.b.write(v.secretOf(900))
		v.current, v.updatedAt = v.secretOf(900), time.Now().UTC()
		v.wantFound("a changed", "b changed")
		record, verdict, err := v.r.Resolve(v.t.Context(), v.token, rotation.ResolveAccept)
		if err != nil || verdict.Reason != rotation.ReasonOperatorAcceptSinks || len(record.Findings) > 0 {
			t.Fatal(verdict, err)
		}
		v.wantFound()
		v.a.put(v.a.versions[2].Credential) // ours from before
		v.wantFound("a rolled_back")
		if reason := v.restore(); reason != rotation.RestoreAccepted {
			t.Error(reason)
		}
		v.advance(v.r, v.token)
		v.wantFound()
	})
}

// TestAcceptAfterARotationByOthers: the alarm ends if the sinks hold the secret of that rotation, and not while they
// hold the one from before it.
func TestAcceptAfterARotationByOthers(t *testing.T) {
	watching(t, func(v *watchedWorld) {
		v.current, v.updatedAt = v.secretOf(901), time.Now().UTC()
		if record, err := v.r.RecordListing(v.t.Context(), v.token, v.facts()); err != nil || record.Outside.IsZero() {
			t.Fatal(record, err)
		}
		if _, _, err := v.r.Resolve(v.t.Context(), v.token, rotation.ResolveAccept); !errors.Is(err, rotation.ErrUnfit) || !strings.Contains(err.Error(), "rotatord rotate ci") {
			t.Error(err)
		}
		v.a.write(v.current)
		v.b.write(v.current)
		if record, _, err := v.r.Resolve(v.t.Context(), v.token, rotation.ResolveAccept); err != nil || !record.Outside.IsZero() {
			t.Error(record.Outside, err)
		}
		v.wantFound()
	})
}

// TestLookForAnOperator: resolve looks at the sinks at once.
func TestLookForAnOperator(t *testing.T) {
	watching(t, func(v *watchedWorld) {
		v.a.last().deleted = true
		v.found()
		if _, verdict, err := v.r.Resolve(v.t.Context(), v.token, rotation.ResolveLook); err != nil || verdict.Resolved || verdict.Reason != rotation.ReasonSinksDiffer {
			t.Error(verdict, err)
		}
		v.a.last().deleted = false
		if record, verdict, err := v.r.Resolve(v.t.Context(), v.token, rotation.ResolveLook); err != nil || !verdict.Resolved || len(record.Findings) > 0 {
			t.Error(verdict, err)
		}
	})
}

// TestOvertakenSecretIsNoFinding: after an operator has dropped ours, what the sinks hold is what they should hold.
func TestOvertakenSecretIsNoFinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.gone = map[string]bool{}
		token, r := w.token(time.Hour), w.start()
		if _, err := r.Enroll(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		w.advance(r, token)
		w.overtake(r, token, time.Hour)
		if _, _, err := r.Resolve(t.Context(), token, rotation.ResolveDrop); err != nil {
			t.Fatal(err)
		}
		if record := w.look(r, token); len(record.Findings) > 0 || !record.Watched() {
			t.Errorf("%+v", record.Findings)
		}
	})
}

// TestSecretInUse: what a look at the application shows is recorded and told once, and rotates nothing.
func TestSecretInUse(t *testing.T) {
	watching(t, func(v *watchedWorld) {
		c, wrong, err := rotation.ReadInUse(v.t.Context(), v.token, v.record())
		if err != nil || wrong != "" || c.ClientSecret.Reveal() != v.current {
			t.Error(wrong, err)
		}
		refused := &rotation.RefusedInUse{Since: time.Now().UTC(), Error: "403"}
		for _, state := range []*rotation.RefusedInUse{nil, refused, refused, nil, nil} {
			if record, err := v.r.RecordProbe(v.t.Context(), v.token, v.record(), state); err != nil || (record.RefusedInUse == nil) != (state == nil) {
				t.Error(record.RefusedInUse, err)
			}
		}
		if got := v.kinds(); !slices.Equal(got, []event.Kind{event.InUseRefused, event.InUseAccepted}) || v.rotates != 2 {
			t.Errorf("told %q", got)
		}
		v.a.write(v.secretOf(900))
		if c, wrong, err = rotation.ReadInUse(v.t.Context(), v.token, v.record()); err != nil || wrong != "a" || c.ClientSecret.Reveal() != v.current {
			t.Error("a sink that holds something else:", wrong, err)
		}
		before := v.record()
		v.advance(v.r, v.token)
		if record, err := v.r.RecordProbe(v.t.Context(), v.token, before, refused); err != nil || record.RefusedInUse != nil {
			t.Error("a refusal of the secret from before a rotation counts:", err)
		}
	})
}

// TestRestoreReasonsHaveWords compares the codes with the words in package event.
func TestRestoreReasonsHaveWords(t *testing.T) {
	codes := constants(t, "restore.go", "Restore")
	if len(codes) != len(rotation.RestoreReasons) {
		t.Errorf("%d constants, %d reasons", len(codes), len(rotation.RestoreReasons))
	}
	for _, code := range rotation.RestoreReasons {
		if event.RestoreText(code) == code {
			t.Errorf("%s has no words", code)
		}
	}
}

// TestMayPutBack: an operator is not told to put our secret back while the one in the sink may be the right one.
func TestMayPutBack(t *testing.T) {
	ours := time.Date(2026, 3, 1, 4, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		record rotation.Record
		want   bool
	}{
		"nothing speaks against it": {rotation.Record{OwnUpdatedAt: ours, Facts: rotation.TokenFacts{UpdatedAt: ours}}, true},
		"it is not known":           {rotation.Record{Facts: rotation.TokenFacts{UpdatedAt: ours}}, true},
		"restored too often":        {rotation.Record{Restoring: rotation.Restoring{Refused: rotation.RestoreTooOften}}, true},
		"not proven":                {rotation.Record{Restoring: rotation.Restoring{Refused: rotation.RestoreNotProven}}, false},
		"updated_at moved":          {rotation.Record{OwnUpdatedAt: ours, Facts: rotation.TokenFacts{UpdatedAt: ours.Add(time.Hour)}}, false},
		"rotated by others":         {rotation.Record{Outside: ours}, false},
		"no copy is left":           {rotation.Record{Order: &rotation.Order{Restores: true}}, false},
	} {
		if got := test.record.MayPutBack(); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
