package app

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestRestartsDoNotStall restarts a daemon again and again right after its rotations. The ledger knows only
// the last request of each token, so most of what the earlier processes sent looks like another user of the
// credential. Every process must begin to rotate within seconds, and go on, because Cloudflare still allows
// hundreds of requests.
func TestRestartsDoNotStall(t *testing.T) {
	for _, limit := range []int{50, 300, 1000, limitQuota, 1500} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, most := min(20, limit/5), 12*time.Second
				l := newLimited(n)
				l.takes = 10 * time.Millisecond
				for range min(10, limit/(2*n+1)) { // requests_per_5m allows all of them
					stop := l.run(t, n, limit, parsed("@every 3s", "UTC"), 0)
					last, longest := time.Now(), time.Duration(0)
					before := len(l.finished())
					for seen := before; seen < before+n && longest < 10*time.Minute; time.Sleep(10 * time.Millisecond) {
						if now := len(l.finished()); now > seen {
							last, seen = time.Now(), now
						}
						longest = max(longest, time.Since(last))
					}
					if longest > most {
						t.Errorf("after a restart nothing was rotated for %s, with %d requests sent so far", longest, l.requests["rotatord"])
					}
					stop()
				}
				if l.requests["rotatord refused"] > 0 {
					t.Errorf("%d requests were refused", l.requests["rotatord refused"])
				}
			})
		})
	}
}

// TestRestartKeepsToRequestsPer5m: what the ledger shows of the process before counts against
// requests_per_5m.
func TestRestartKeepsToRequestsPer5m(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, listings = 100, 1 // of the process before: the ledger does not know them
		l := newLimited(160)
		at := time.Now().Truncate(time.Minute).Add(5 * time.Minute)
		schedule := parsed(fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour()), "UTC")
		start := func(n int) (stop func()) { return l.run(t, n, limit, schedule, 0) }
		stop := start(160)
		time.Sleep(time.Until(at.Add(30 * time.Second)))
		stop()
		before := len(l.finished())
		stop = start(160)
		time.Sleep(time.Until(at.Add(limitWindow)))
		stop()
		if n := len(l.finished()); before < 20 || n > limit {
			t.Errorf("%d rotations before the restart, %d within five minutes", before, n)
		}
		if n := l.requests["rotatord"]; n > limit+2*listings {
			t.Errorf("%d requests", n)
		}
	})
}
