package rotation_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// inCluster runs test with two replicas of one token that is due. The first call of that name by the first replica has the fault f.
func inCluster(t *testing.T, grace time.Duration, call string, f planned, test func(t *testing.T, c *cluster, a, b *process)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2, 10*time.Second, 1)
		token := sharedTokenOf(grace, time.Hour)
		a, b := c.hosts[0].start(token), c.hosts[1].start(token)
		if _, err := a.rotator.Enroll(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		hit := false
		c.fault = func(p *process, now string) planned {
			if hit || p != a || now != call {
				return planned{}
			}
			hit = true
			return f
		}
		time.Sleep(time.Hour)
		test(t, c, a, b)
		for _, problem := range c.problems {
			t.Error(problem)
		}
		if t.Failed() {
			t.Log(c.log)
		}
	})
}

// until advances the token on a replica until ok, for at most two hours.
func (p *process) until(t *testing.T, what string, ok func(rotation.Record) bool) {
	t.Helper()
	for range 1000 {
		r := p.view()
		if ok(r) {
			return
		}
		if wait := min(time.Until(p.rotator.Due(p.token, r).At), time.Minute); wait > 0 {
			time.Sleep(wait)
		}
		if _, err := p.rotator.Advance(t.Context(), p.token); err != nil {
			if held, is := errors.AsType[*rotation.HeldError](err); is {
				time.Sleep(held.Left)
			}
			time.Sleep(time.Second)
		}
	}
	t.Fatalf("never %s: %+v", what, p.view())
}

// goOn advances the token on a replica once, in a goroutine of its own. over gets the error when that has ended.
func (p *process) goOn(t *testing.T) (over chan error) {
	over = make(chan error, 1)
	go func() {
		_, err := p.rotator.Advance(t.Context(), p.token)
		over <- err
	}()
	return over
}

func done(r rotation.Record) bool    { return r.Step == rotation.StepIdle && r.Last != nil }
func inDoubt(r rotation.Record) bool { return r.Step == rotation.StepInDoubt }

func (c *cluster) lateAnswers() (all []event.LateAnswer) {
	for _, e := range c.events {
		if d, is := e.Detail.(event.LateAnswer); is {
			all = append(all, d)
		}
	}
	return all
}

// TestHeld: a replica leaves a token alone while another one works on it, and takes it over when that has ended.
func TestHeld(t *testing.T) {
	inCluster(t, 10*time.Minute, "ready", planned{how: "stop before", for_: time.Hour}, func(t *testing.T, c *cluster, a, b *process) {
		over := a.goOn(t)
		time.Sleep(5 * time.Second)
		_, err := b.rotator.Advance(t.Context(), b.token)
		if held, is := errors.AsType[*rotation.HeldError](err); !is || held.Replica != a.name || held.Left <= 0 || held.Left > 10*time.Second {
			t.Fatalf("%v, want an error that names the replica and the time that is left", err)
		}
		b.until(t, "done", done)
		if took := time.Since(c.hosts[0].stopped.Add(-time.Hour)); took > 20*time.Second {
			t.Errorf("the takeover took %s", took)
		}
		if err := <-over; !errors.Is(err, rotation.ErrConflict) {
			t.Errorf("the replica that was stopped: %v, want a conflict", err)
		}
		if len(c.issued) != 2 || b.view().Last.Slot.IsZero() {
			t.Errorf("%d secrets", len(c.issued)-1)
		}
	})
}

// TestNotSentWithoutAHold: a replica that was stopped between its intent and its request sends nothing, and the token is
// in doubt.
func TestNotSentWithoutAHold(t *testing.T) {
	inCluster(t, 10*time.Minute, "save intent", planned{how: "stop after", for_: time.Minute}, func(t *testing.T, c *cluster, a, b *process) {
		over := a.goOn(t)
		time.Sleep(15 * time.Second)
		b.until(t, "in doubt", inDoubt)
		if err := <-over; !errors.Is(err, rotation.ErrNotHeld) {
			t.Errorf("%v, want that it holds the token no more", err)
		}
		if len(c.issued) != 1 {
			t.Error("a request was sent")
		}
		b.until(t, "done", done)
	})
}

// TestReturnsAndWins: a replica that was stopped with its answer sealed delivers it if no other secret was issued since.
func TestReturnsAndWins(t *testing.T) {
	inCluster(t, 10*time.Minute, "save sealed", planned{how: "stop before", for_: time.Minute}, func(t *testing.T, c *cluster, a, b *process) {
		over := a.goOn(t)
		time.Sleep(15 * time.Second)
		b.until(t, "in doubt", inDoubt)
		if err := <-over; !errors.Is(err, rotation.ErrConflict) {
			t.Errorf("%v, want a conflict", err)
		}
		if c.indexOf(c.sink.ClientSecret) != 0 {
			t.Error("it was delivered after the conflict")
		}
		a.until(t, "done", done)
		if len(c.issued) != 2 || c.indexOf(c.sink.ClientSecret) != 1 {
			t.Errorf("%d secrets were issued, and the sink has %d", len(c.issued)-1, c.indexOf(c.sink.ClientSecret))
		}
	})
}

// TestNotDeliveredOverANewer: a replica that was stopped while it delivered writes nothing over a newer secret, also after
// a conflict.
func TestNotDeliveredOverANewer(t *testing.T) {
	inCluster(t, 0, "sink store", planned{how: "stop before", for_: time.Hour}, func(t *testing.T, c *cluster, a, b *process) {
		over := a.goOn(t)
		time.Sleep(15 * time.Second)
		b.until(t, "done", done)
		if err := <-over; err == nil {
			t.Error("it was stopped, and nothing has failed")
		}
		if c.indexOf(c.sink.ClientSecret) != 2 {
			t.Errorf("the sink has secret %d, want the newer one", c.indexOf(c.sink.ClientSecret))
		}
	})
}

// TestLateDelivered: a request that left long after it was checked has rotated after another replica. Its answer has the
// latest secret, so it is delivered.
func TestLateDelivered(t *testing.T) {
	inCluster(t, 4*time.Minute, "rotate", planned{how: "stop before", for_: 30 * time.Minute, answered: true}, func(t *testing.T, c *cluster, a, b *process) {
		over := a.goOn(t)
		time.Sleep(15 * time.Second)
		b.until(t, "done", done)
		<-over
		ids := a.sealedOn()
		if len(ids) != 1 {
			t.Fatalf("sealed: %q", ids)
		}
		result, _, err := a.rotator.JudgeLate(t.Context(), a.token, ids[0], a.sealedAt[ids[0]], false)
		if result != rotation.LateDelivered || err != nil {
			t.Fatalf("%s, %v", result, err)
		}
		a.until(t, "done", func(r rotation.Record) bool { return done(r) && r.Last.RotationID == ids[0] })
		if c.sink.ClientSecret.Reveal() != c.cf.current || len(a.sealedOn()) != 0 {
			t.Error("the latest secret was not delivered")
		}
		if told := c.lateAnswers(); len(told) != 1 || !told[0].Delivered {
			t.Errorf("told: %+v", told)
		}
	})
}

// TestLateSuperseded: an answer that is not the latest is never delivered. It is kept until a rotation that began later
// is done and its grace is over.
func TestLateSuperseded(t *testing.T) {
	inCluster(t, 4*time.Minute, "save sealed", planned{how: "stop before", for_: 40 * time.Minute}, func(t *testing.T, c *cluster, a, b *process) {
		over := a.goOn(t)
		time.Sleep(15 * time.Second)
		b.until(t, "done", done)
		<-over
		id := a.sealedOn()[0]
		judge := func(told bool) rotation.LateResult {
			result, _, err := a.rotator.JudgeLate(t.Context(), a.token, id, a.sealedAt[id], told)
			if err != nil {
				t.Fatal(err)
			}
			return result
		}
		a.sealedAt[id] = b.view().Last.AskedAt.Add(-30 * time.Second) // the clocks of two replicas may be that far apart
		if result := judge(false); result != rotation.LateSuperseded || len(a.sealedOn()) != 1 {
			t.Errorf("%s, want that it is kept", result)
		}
		judge(true)
		if told := c.lateAnswers(); len(told) != 1 || told[0].Delivered {
			t.Errorf("told: %+v, want it once", told)
		}
		b.until(t, "done again", func(r rotation.Record) bool {
			return done(r) && r.Last.AskedAt.After(a.sealedAt[id].Add(10*time.Minute))
		})
		time.Sleep(5 * time.Minute)
		if result := judge(true); result != rotation.LateOver || len(a.sealedOn()) != 0 {
			t.Errorf("%s, want that it is erased", result)
		}
	})
}

// TestAnswerIsKeptForAnOperator: the end of a doubt that another replica has raised does not erase the answer on this disk.
func TestAnswerIsKeptForAnOperator(t *testing.T) {
	inCluster(t, 10*time.Minute, "save sealed", planned{how: "stop before", for_: time.Minute}, func(t *testing.T, c *cluster, a, b *process) {
		over := a.goOn(t)
		time.Sleep(15 * time.Second)
		b.until(t, "in doubt", inDoubt)
		<-over
		if _, _, err := a.rotator.Resolve(t.Context(), a.token, rotation.ResolveRotateNow); err != nil {
			t.Fatal(err)
		}
		if len(a.sealedOn()) != 1 {
			t.Error("the answer was erased")
		}
	})
}

// TestOutpaced: a replica that is not the first to claim tells nothing, because nothing has failed.
func TestOutpaced(t *testing.T) {
	inCluster(t, 10*time.Minute, "save claimed", planned{how: "stop before", for_: time.Minute}, func(t *testing.T, c *cluster, a, b *process) {
		over := a.goOn(t)
		time.Sleep(time.Second)
		b.until(t, "done", done)
		if err := <-over; !errors.Is(err, rotation.ErrHeld) {
			t.Errorf("%v, want that another was faster", err)
		}
		for _, e := range c.events {
			switch e.Detail.(type) {
			case event.RotationEnded, event.RotationStuck:
				if e.by == a.name {
					t.Errorf("it told %+v", e.Detail)
				}
			}
		}
	})
}

// TestCopyOfOthers: a replica that cannot open a copy does not take the answer away from the one that has it.
func TestCopyOfOthers(t *testing.T) {
	inCluster(t, 10*time.Minute, "sink store", planned{how: "before"}, func(t *testing.T, c *cluster, a, b *process) {
		c.foreignCopies = true
		_, _ = a.rotator.Advance(t.Context(), a.token)
		if len(c.copies) != 1 || !a.view().Work.Copied {
			t.Fatalf("%d copies", len(c.copies))
		}
		time.Sleep(15 * time.Second)
		b.until(t, "in doubt", inDoubt)
		if d := a.view().Doubt; d.Sealed || d.Reason != rotation.ReasonSealedElsewhere {
			t.Errorf("the doubt: %+v", d)
		}
		a.until(t, "done", done)
		if len(c.issued) != 2 || c.indexOf(c.sink.ClientSecret) != 1 || len(c.copies) != 0 {
			t.Errorf("%d secrets, the sink has %d, %d copies", len(c.issued)-1, c.indexOf(c.sink.ClientSecret), len(c.copies))
		}
	})
}

// TestDeliveredByOthers: a replica died after it had delivered its answer, and before the ledger knew of that. The answer
// is read back from the sink, and no other rotation is needed.
func TestDeliveredByOthers(t *testing.T) {
	inCluster(t, 10*time.Minute, "save stored", planned{how: "stop before", for_: 2 * time.Hour}, func(t *testing.T, c *cluster, a, b *process) {
		over := a.goOn(t)
		time.Sleep(15 * time.Second)
		b.until(t, "done", done)
		if len(c.issued) != 2 || c.indexOf(c.sink.ClientSecret) != 1 {
			t.Errorf("%d secrets were issued, and the sink has %d", len(c.issued)-1, c.indexOf(c.sink.ClientSecret))
		}
		<-over
	})
}
