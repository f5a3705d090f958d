package admission

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// fleetTurns are the turns of many accounts with one total.
func fleetTurns(accounts int) (*Total, []*asking) {
	total := new(Total)
	all := make([]*asking, accounts)
	for i := range all {
		all[i] = &asking{Turns: NewTurns(time.Now, total, fmt.Sprintf("account-%d", i), func(event.Detail) {})}
	}
	return total, all
}

// TestTotal: however many accounts have tokens that are due, only some hundreds of turns are active, shared
// out equally, and all turns are given in the end.
func TestTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const accounts, each = 200, 50
		total, all := fleetTurns(accounts)
		given := 0
		count := func() {
			for _, q := range all {
				given += len(q.got())
			}
		}
		for _, q := range all {
			for i := range each {
				q.ask(i, Turn{Urgency: rotation.UrgencySlot})
			}
		}
		count()
		if n := total.Active(); n < maxTotal || n > maxTotal+accounts || n != given {
			t.Fatalf("%d are active, %d were given", n, given)
		}
		for i, q := range all {
			if q.Active() == 0 {
				t.Errorf("account %d has none", i)
			}
		}
		want := fmt.Sprintf("its turn: %d rotations are in progress, 1 of them of account last, and accounts share %d", given, maxTotal)
		if got, _ := all[accounts-1].WaitsFor(Turn{Urgency: rotation.UrgencySlot}, "last"); got != want {
			t.Errorf("a token of the last account waits for %q, want %q", got, want)
		}
		for round := 0; given < accounts*each; round++ {
			for _, q := range all {
				if q.Active() > 0 {
					q.end()
				}
			}
			time.Sleep(time.Second)
			count()
			if n := total.Active(); n > maxTotal+accounts {
				t.Fatalf("%d are active", n)
			}
			if round == maxActive { // those that came first have given their places back
				for i, q := range all {
					if n := q.Active(); n < maxTotal/accounts || n > maxTotal/accounts+1 {
						t.Errorf("account %d has %d active turns", i, n)
					}
				}
			}
			if round > 10*each {
				t.Fatalf("%d of %d were given", given, accounts*each)
			}
		}
		for _, q := range all {
			for q.Active() > 0 {
				q.end()
			}
		}
		if total.active != 0 || total.accounts != 0 {
			t.Errorf("%d turns of %d accounts are counted at the end", total.active, total.accounts)
		}
	})
}

// TestTotalAndAccountsThatHang: accounts whose turns never end take all that there is, and delay no other account. What is
// urgent has room of its own.
func TestTotalAndAccountsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hanging = maxTotal / maxActive
		total, all := fleetTurns(hanging + 1)
		for _, q := range all[:hanging] {
			for i := range maxActive {
				q.ask(i, Turn{Urgency: rotation.UrgencySlot})
			}
		}
		if n := total.Active(); n != maxTotal {
			t.Fatalf("%d are active", n)
		}
		other := all[hanging]
		for i := range 5 {
			other.ask(i, Turn{Urgency: rotation.UrgencySlot})
		}
		for i := range 4 { // one after the other
			other.want(t, "beside accounts that hang", i)
			other.end()
		}
		other.want(t, "beside accounts that hang", 4)
		for i := range 10 {
			other.ask(10+i, Turn{Urgency: rotation.UrgencyManual})
			other.ask(20+i, Turn{Urgency: rotation.UrgencyEmergency})
		}
		other.want(t, "when they are urgent", 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29)

		// A place that another account gives back is found without a turn of the own that ends.
		other.ask(40, Turn{Urgency: rotation.UrgencySlot})
		other.want(t, "without room")
		for range maxActive {
			all[0].end()
		}
		other.want(t, "before it asks again")
		time.Sleep(time.Second)
		other.want(t, "after others gave theirs back", 40)
	})
}

// TestShareOfFewTurns: while little is in progress, an account is not held to an equal share, however many accounts have a turn.
// An account whose consumers may be cut off has all its turns at any time.
func TestShareOfFewTurns(t *testing.T) {
	for accounts, want := range map[int]int{100: maxActive - 1, 250: maxActive - 1, 400: 0, 900: 0} {
		synctest.Test(t, func(t *testing.T) {
			_, all := fleetTurns(accounts)
			for _, q := range all {
				q.ask(0, Turn{Urgency: rotation.UrgencySlot})
			}
			for i := range 2 * maxActive {
				all[0].ask(1+i, Turn{Urgency: rotation.UrgencySlot})
				all[1].ask(1+i, Turn{Urgency: rotation.UrgencyEmergency})
			}
			if n := len(all[0].got()) - 1; n != want {
				t.Errorf("%d accounts: %d more turns of an account, want %d", accounts, n, want)
			}
			if n := len(all[1].got()) - 1; n != maxActive+2*maxUrgentMore-1 {
				t.Errorf("%d accounts: %d emergencies begin", accounts, n)
			}
		})
	}
}

// TestEarlierOfTwoWaits: a delivery that waits for the turns of other accounts does not wait as long as a request that waits for
// its budget.
func TestEarlierOfTwoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const others = 400
		_, all := fleetTurns(others + 1)
		one := all[others]
		one.LimitBy(&limitedIssuer{until: time.Now().Add(time.Hour)})
		for i, q := range all {
			q.ask(i, Turn{Urgency: rotation.UrgencySlot, Local: true})
		}
		one.want(t, "at first", others)
		one.ask(1, Turn{Urgency: rotation.UrgencySlot, Local: true})
		one.ask(2, Turn{Urgency: rotation.UrgencySlot})
		one.want(t, "without room")
		for _, q := range all[:others/2] {
			q.end()
		}
		time.Sleep(time.Second)
		one.want(t, "with room", 1)
	})
}
