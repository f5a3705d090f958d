package admission

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// TestWithin: with short claims a turn is given only if its request can leave within the claim. So hardly any claim is taken without use
// while the budget is spent, and the budget is still used.
func TestWithin(t *testing.T) {
	const claim = 5 * time.Second
	play := func(t *testing.T, within time.Duration, limit int, headers bool) (sent, unused int) {
		synctest.Test(t, func(t *testing.T) {
			b := NewBudget(limit)
			turns := NewTurns(time.Now, new(Total), "prod", func(event.Detail) {})
			turns.Within(within)
			turns.LimitBy(b)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
			defer cancel()
			began, window, used := time.Now(), 0, 0 // Cloudflare's
			var mu sync.Mutex
			var workers sync.WaitGroup
			for range 40 {
				workers.Go(func() {
					for ctx.Err() == nil {
						release, err := awaitTurn(ctx, turns)
						if err != nil {
							return
						}
						bounded, cancel := context.WithTimeout(ctx, claim*3/4)
						err = b.Take(bounded)
						cancel()
						mu.Lock()
						if err != nil {
							unused++
							mu.Unlock()
							release()
							time.Sleep(time.Second)
							continue
						}
						sent++
						end := b.Begin()
						if w := int(time.Since(began) / Window); w != window {
							window, used = w, 0
						}
						used++
						a := Answer{Answered: true}
						if headers {
							a.Limit = Report{Said: true, Left: 3*limit - used, Quota: 3 * limit, Length: Window, Reset: Window - time.Since(began)%Window}
						}
						mu.Unlock()
						time.Sleep(200 * time.Millisecond)
						end(a)
						release()
					}
				})
			}
			workers.Wait()
		})
		return sent, unused
	}
	for _, headers := range []bool{true, false} {
		for _, limit := range []int{30, 400} {
			sent, unused := play(t, claim/4, limit, headers)
			before, without := play(t, capacityWithin, limit, headers)
			t.Logf("limit %d, headers %t: %d sent and %d claims without use; with half a minute %d and %d", limit, headers, sent, unused, before, without)
			if unused > sent/5 {
				t.Errorf("limit %d, headers %t: %d claims without use beside %d requests", limit, headers, unused, sent)
			}
			if sent < before*95/100 {
				t.Errorf("limit %d, headers %t: %d requests, and %d if claims do not count", limit, headers, sent, before)
			}
		}
	}
}

// awaitTurn waits for a turn.
func awaitTurn(ctx context.Context, turns *Turns) (release func(), err error) {
	given := make(chan func(), 1)
	turns.Ask(Turn{}, func(_ rotation.Urgency, release func()) { given <- release })
	select {
	case release := <-given:
		return release, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
