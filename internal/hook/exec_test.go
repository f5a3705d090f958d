package hook

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/config"
)

// TestHangingRunIsLetGo: a run that nothing ends is given up some seconds after its timeout, and no other one is begun
// before it has ended.
func TestHangingRunIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{config: &config.ExecHook{Command: []string{"true"}, HookTimes: config.HookTimes{Timeout: time.Second}}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		awake := make(chan struct{})
		began := time.Now()
		err := p.bounded(ctx, func() error { <-awake; return nil })
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "hangs in the kernel") || took != time.Second+hangWait {
			t.Errorf("%v after %s", err, took)
		}
		if err := p.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "still hangs") {
			t.Errorf("the next run: %v", err)
		}
		close(awake)
		synctest.Wait()
		if n := p.hanging.Load(); n != 0 {
			t.Errorf("%d runs hang", n)
		}
	})
}
