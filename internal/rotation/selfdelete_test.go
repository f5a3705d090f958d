package rotation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// lifetimeSink is a sink that deletes each version after a while. If foretold is set, its preflight says so.
type lifetimeSink struct {
	rotation.Sink
	after    time.Duration
	foretold bool
}

func (s lifetimeSink) Preflight(ctx context.Context) (rotation.Stored, error) {
	stored, err := s.Sink.Preflight(ctx)
	if s.foretold {
		stored.DeleteAfter = s.after
	}
	return stored, err
}

func (s lifetimeSink) Store(ctx context.Context, d rotation.Delivery) (rotation.Stored, error) {
	stored, err := s.Sink.Store(ctx, d)
	stored.WrittenAt = time.Now().UTC()
	stored.DeletesAt = stored.WrittenAt.Add(s.after)
	return stored, err
}

// TestVersionThatDeletesItself: a scheduled rotation does not begin if the sink would delete its version before the
// next rotation. If this is known only after the write, or if an operator ordered the rotation, there is an alarm.
func TestVersionThatDeletesItself(t *testing.T) {
	const grace = 40 * time.Minute
	for name, test := range map[string]struct {
		after             time.Duration
		foretold, manual  bool
		rotates, deletion bool
	}{
		"known, too short":           {time.Hour, true, false, false, false},
		"known, an operator's":       {time.Hour, true, true, true, true},
		"known, long enough":         {1000 * time.Hour, true, false, true, true},
		"not known before the write": {time.Hour, false, false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
				sink := token.Sinks[0]
				token.Sinks = []rotation.Sink{lifetimeSink{sink, test.after, test.foretold}}
				token.Timetable.Schedule = mustParse(t, "0 4 * * *")
				var err error
				if test.manual {
					_, err = r.RotateNow(w.t.Context(), token, rotation.Overrides{Freeze: true, Pause: true, Grace: true}, "ops")
				} else {
					if _, err := r.Enroll(w.t.Context(), token); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Until(rotation.NextDue(token, w.record(), rotation.Pause{}).At))
					_, err = r.Advance(w.t.Context(), token)
				}
				if rotated := w.rotates == 1; rotated != test.rotates || (err == nil) != test.rotates {
					t.Errorf("rotated %d times, want %t: %v", w.rotates, test.rotates, err)
				}
				if !test.rotates && !errors.Is(err, rotation.ErrDeletesItself) {
					t.Errorf("refused with %v", err)
				}
				if at := w.record().Deletes[sink.Name()]; at.IsZero() == test.deletion {
					t.Errorf("the record says that the version is deleted at %s", at)
				}
			})
		})
	}
}
