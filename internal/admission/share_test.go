package admission

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/secret"
)

func keyOf(text string) Key { return Key{"https://api.example.com", secret.New(text).Digest()} }

// TestShare: each process takes an equal part of a limit, also of a credential that is used later, and always at
// least one request.
func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := NewBudgets()
		first := all.Join(900).Budget(keyOf("a"))
		for _, c := range []struct{ sharers, want int }{{0, 900}, {1, 900}, {3, 300}, {7, 128}, {2000, 1}} {
			all.Share(c.sharers)
			if first.limit != c.want {
				t.Errorf("%d sharers: %d requests, want %d", c.sharers, first.limit, c.want)
			}
		}
		all.Share(3)
		time.Sleep(Window)
		synctest.Wait()
		if later := all.Join(300).Budget(keyOf("b")); later.limit != 100 {
			t.Errorf("a later credential: %d", later.limit)
		}
		if both := all.Join(90).Budget(keyOf("a")); both != first || first.limit != 30 {
			t.Errorf("two accounts with one credential: %d", first.limit)
		}
	})
}

// TestShareGrowsLate: the requests of a process that has ended count for five minutes. So the others take its part only
// then, and all together never send more than the limit.
func TestShareGrowsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := NewBudgets()
		b := all.Join(600).Budget(keyOf("a"))
		at := func(want int) {
			t.Helper()
			synctest.Wait()
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.limit != want {
				t.Errorf("%d requests, want %d", b.limit, want)
			}
		}
		all.Share(3)
		at(200)
		all.Share(2) // one has ended
		at(200)
		time.Sleep(time.Minute)
		all.Share(1) // and another
		at(200)
		time.Sleep(Window - time.Minute)
		at(300)
		all.Share(2) // one begins: at once
		at(300)
		time.Sleep(time.Minute)
		at(300)
		all.Share(1)
		time.Sleep(Window - time.Nanosecond)
		at(300)
		time.Sleep(time.Nanosecond)
		at(600)
	})
}

// TestBlockOfOthers: what Cloudflare has told another process holds here too, never longer than its documented penalty,
// and is not passed on as if it had been told to this one.
func TestBlockOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := NewBudgets()
		early := all.Join(100)
		early.Block(time.Minute) // before its first request
		b := early.Budget(keyOf("a"))
		blocked := func(want time.Duration) {
			t.Helper()
			var none *NoCapacityError
			err := b.Take(t.Context())
			if want == 0 {
				if err != nil {
					t.Errorf("blocked: %v", err)
				}
				return
			}
			if !errors.As(err, &none) || !none.Blocked || none.Wait != want {
				t.Errorf("%v, want a block of %s", err, want)
			}
		}
		blocked(time.Minute)
		early.Block(10 * time.Second) // never shorter
		blocked(time.Minute)
		if left := early.Refused(); left != 0 {
			t.Errorf("another process's 429 is passed on for %s", left)
		}
		time.Sleep(time.Minute)
		blocked(0)
		early.Block(24 * time.Hour)
		blocked(Window)
		time.Sleep(Window)

		b.Begin()(Answer{Answered: true, Refused: true, Throttle: 30 * time.Second})
		if left := early.Refused(); left != 30*time.Second {
			t.Errorf("our own 429 is told for %s, want 30s", left)
		}
		early.Block(2 * time.Minute)
		if left := early.Refused(); left != 30*time.Second {
			t.Errorf("our own 429 is told for %s, want 30s", left)
		}
		blocked(2 * time.Minute)
		early.Block(-time.Hour)
		early.Block(0)
		blocked(2 * time.Minute)
	})
}

// TestBlockWakesThoseThatWait: a request that waits for the pace learns at once that it cannot leave.
func TestBlockWakesThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := NewBudgets().Join(1)
		b := u.Budget(keyOf("a"))
		if err := b.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.Begin()(Answer{Answered: true})
		start, ended := time.Now(), make(chan error, 1)
		go func() { ended <- b.Take(t.Context()) }()
		time.Sleep(time.Second)
		u.Block(time.Minute)
		var none *NoCapacityError
		if err := <-ended; !errors.As(err, &none) || !none.Blocked || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}
