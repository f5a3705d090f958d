package app

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/rotation"
)

// TestOneTurnForEachToken: a token that asks again while its rotation is in progress, as a listing may cause,
// holds no second turn. Such a turn would only wait for the first, and other tokens for it.
func TestOneTurnForEachToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10
		l := newLimited(n)
		l.takes = 15 * time.Second
		at := time.Now().Truncate(time.Minute).Add(30 * time.Minute)
		a, stop := l.start(t, n, limitQuota, parsed(fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour()), "UTC"), 0)
		time.Sleep(time.Until(at) + 10*time.Second)
		for i := range n {
			a.engine.enqueue(t.Context(), fmt.Sprintf("token-%04d", i+1))
		}
		synctest.Wait()
		turns := a.engine.turns["prod"]
		if active := turns.Active(); active != n {
			t.Errorf("%d turns are active for %d tokens", active, n)
		}
		time.Sleep(5 * time.Minute)
		stop()
		if done := len(l.finished()); done != n {
			t.Errorf("%d rotations of %d tokens", done, n)
		}
	})
}

// TestWaitingTokensCostNoGoroutine: tokens that are due wait for their turn in a queue.
func TestWaitingTokensCostNoGoroutine(t *testing.T) {
	for _, n := range []int{100, 400} {
		e := newEngine(time.Now, slog.New(slog.DiscardHandler), nil)
		before := runtime.NumGoroutine()
		for i := range n {
			token := rotation.Token{Name: fmt.Sprint("token-", i), Account: "prod", Issuer: spentIssuer{}}
			e.tokens[token.Name] = keep(scheduled{token: token})
			e.openTurns(token)
			e.enqueue(t.Context(), token.Name)
		}
		if more := runtime.NumGoroutine() - before; more > 0 {
			t.Errorf("%d tokens wait with %d goroutines", n, more)
		}
		e.turns["prod"].Close()
	}
}

// spentIssuer has no request left.
type spentIssuer struct{ rotation.Issuer }

func (spentIssuer) Capacity(time.Duration, rotation.Urgency) (int, time.Duration) {
	return 0, time.Hour
}
