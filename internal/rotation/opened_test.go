package rotation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// openings is the sealed answers of a world, and counts how often one is opened.
type openings struct {
	*world
	n int
}

func (o *openings) Open(ctx context.Context, id string) (rotation.Issued, bool, error) {
	o.n++
	return o.world.Open(ctx, id)
}

// TestAnswerIsOpenedOnce: a rotation reads its answer back when it is sealed, and delivers what it has read. An attempt that
// continues a rotation opens the answer, and the next rotation has an answer of its own.
func TestAnswerIsOpenedOnce(t *testing.T) {
	inBubble(t, 10*time.Minute, func(w *world, token rotation.Token, _ *rotation.Rotator) {
		counted := &openings{world: w}
		r := rotation.New(rotation.Options{Ledger: w, Pending: counted, Pauses: w, Events: w, Record: w.newRecord(), Owner: "counted", Started: w.now(), Now: w.now})
		opened := func(what string, want int) {
			t.Helper()
			if counted.n != want {
				t.Errorf("%s: the answer was opened %d times, want %d", what, counted.n, want)
			}
			counted.n = 0
		}
		for range 2 {
			if err, _ := w.advance(r, token); err != nil || w.sink.ClientSecret.Reveal() != w.current {
				t.Fatalf("a rotation: %v", err)
			}
			opened("a rotation", 1)
		}
		down := errors.New("the sink is down")
		w.fault = func(_ int, call string) (f fault) {
			if call == "sink store" {
				f.before = down
			}
			return f
		}
		if err, _ := w.advance(r, token); !errors.Is(err, down) {
			t.Fatalf("a rotation whose sink is down: %v", err)
		}
		opened("a rotation whose sink is down", 1)
		w.fault = nil
		if err, _ := w.advance(r, token); err != nil || w.sink.ClientSecret.Reveal() != w.current {
			t.Fatalf("the rotation that continues: %v", err)
		}
		opened("the rotation that continues", 1)
	})
}
