package admission

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// allowed is how many requests Cloudflare allows from one address within any second.
const allowed = 200

// fullestSecond returns the largest number of these times within any second.
func fullestSecond(at []time.Time) int {
	at = slices.SortedFunc(slices.Values(at), time.Time.Compare)
	most, first := 0, 0
	for i := range at {
		for at[i].Sub(at[first]) >= time.Second {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// TestArrivalsWithinASecond: requests that a slow disk delays between their admission and their sending leave together
// when it answers, and each is on its way for another time. Still Cloudflare never sees more than it allows.
func TestArrivalsWithinASecond(t *testing.T) {
	for seed := range seeds() {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d) + 1)) }
			heldUntil := time.Now().Add(upTo(8 * time.Second))
			hold, way := upTo(time.Second), upTo(2*time.Second)
			budgets := NewBudgets()
			var mu sync.Mutex
			var arrived []time.Time
			var workers sync.WaitGroup
			const credentials, each = 10, 50
			for i := range credentials {
				b := budgets.Join(1000).Budget(Key{BaseURL: "https://api.cloudflare.com/client/v4", Credential: secret.New(string(rune('a' + i))).Digest()})
				for range each {
					held, there, back := upTo(hold), upTo(way), upTo(way)
					workers.Go(func() {
						if err := b.Take(rotation.WithUrgency(t.Context(), rotation.UrgencyEmergency)); err != nil {
							t.Error(err)
							return
						}
						time.Sleep(max(held, time.Until(heldUntil)))
						end, err := b.Send(t.Context())
						if err != nil {
							t.Error(err)
							return
						}
						time.Sleep(there)
						mu.Lock()
						arrived = append(arrived, time.Now())
						mu.Unlock()
						time.Sleep(back)
						end(Answer{Answered: true})
					})
				}
			}
			began := time.Now()
			workers.Wait()
			if most := fullestSecond(arrived); most >= allowed || len(arrived) != credentials*each {
				t.Errorf("seed %d: %d requests arrived, %d of them within one second", seed, len(arrived), most)
			}
			// Those that are delayed, and the rest at what the time on the way allows.
			if took, most := time.Since(began), 9*time.Second+time.Duration(credentials*each/mostAway+1)*(time.Second+2*way); took > most {
				t.Errorf("seed %d: it took %s, want at most %s", seed, took, most)
			}
		})
	}
}

// TestAddressAfterARestart: a process that was killed may have sent all that it was allowed to right before.
func TestAddressAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []time.Time
		for range perSecond {
			sent = append(sent, time.Now())
		}
		b := NewBudgets().Join(1000).Budget(Key{BaseURL: "https://api.cloudflare.com/client/v4"})
		began := time.Now()
		for range perSecond {
			if err := b.Take(rotation.WithUrgency(t.Context(), rotation.UrgencyEmergency)); err != nil {
				t.Fatal(err)
			}
			end, err := b.Send(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			sent = append(sent, time.Now())
			end(Answer{Answered: true})
		}
		if most := fullestSecond(sent); most >= allowed {
			t.Errorf("%d requests of two processes within a second", most)
		}
		if first, took := sent[perSecond].Sub(began), time.Since(began); first > 0 || took > 2*time.Second {
			t.Errorf("the first request left after %s and the last one after %s", first, took)
		}
	})
}

// TestSendGivesUp: a request whose context ends while it waits for the address is not sent, and counts nowhere.
func TestSendGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1000)
		for range mostAway {
			if _, err := b.Send(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := b.Send(ctx); err == nil {
			t.Error("one more was sent while none of the others was over")
		}
		if b.inFlight != mostAway || b.address.away != mostAway {
			t.Errorf("%d in the budget and %d at the address, want %d", b.inFlight, b.address.away, mostAway)
		}
	})
}
