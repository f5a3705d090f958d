package app

import (
	"testing"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// TestOwedReissueIsShown: what the ledger knows about it is in the status of the token.
func TestOwedReissueIsShown(t *testing.T) {
	now := time.Now().UTC()
	lost := &rotation.Lost{At: now, Since: now, Until: now.Add(time.Minute)}
	s := status.Token{Failures: 1}
	showDanger(&s, rotation.Record{Lost: lost}, now)
	if !s.ReissueOwed.Equal(now) || !s.CutOffAt.Equal(lost.Until) || !s.Emergency || !s.Endangered() {
		t.Errorf("%+v", s)
	}
	s = status.Token{}
	if showDanger(&s, rotation.Record{}, now); !s.ReissueOwed.IsZero() || !s.CutOffAt.IsZero() || s.Emergency {
		t.Errorf("%+v", s)
	}
}
