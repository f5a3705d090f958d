package replica

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/rotation"
)

func names(prefix string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(prefix, i))
	}
	return all
}

// firstOf returns which of some replicas comes first for a name, and checks that each has another rank.
func firstOf(t *testing.T, replicas []string, name string, failures int) (first string) {
	t.Helper()
	seen := make([]bool, len(replicas))
	for _, r := range replicas {
		at := rank(replicas, r, name, failures)
		if seen[at] {
			t.Fatalf("two replicas have the rank %d for %s", at, name)
		}
		if seen[at] = true; at == 0 {
			first = r
		}
	}
	return first
}

// TestRendezvous: each replica comes first for an equal part of the tokens. When one dies, its tokens move and no other,
// and they are spread over all that are left. When one joins, it takes an equal part of all, and nothing else moves.
func TestRendezvous(t *testing.T) {
	tokens := names("token-", 10_000)
	for _, n := range []int{2, 3, 5, 10} {
		replicas := names("rotatord-", n)
		parts, before := map[string]int{}, map[string]string{}
		for _, token := range tokens {
			before[token] = firstOf(t, replicas, token, 0)
			parts[before[token]]++
		}
		near := func(what string, got, want int) {
			t.Helper()
			if got < want*9/10 || got > want*11/10 {
				t.Errorf("%d replicas: %s: %d, want about %d", n, what, got, want)
			}
		}
		for _, r := range replicas {
			near("part of "+r, parts[r], len(tokens)/n)
		}
		dead, left := replicas[n/2], slices.Delete(slices.Clone(replicas), n/2, n/2+1)
		inherited, moved := map[string]int{}, 0
		for _, token := range tokens {
			after := firstOf(t, left, token, 0)
			if before[token] != after {
				moved++
			}
			if before[token] == dead {
				inherited[after]++
			}
		}
		if moved != parts[dead] {
			t.Errorf("%d replicas: %d tokens move, and the dead one had %d", n, moved, parts[dead])
		}
		for _, r := range left {
			if got, want := inherited[r], moved/(n-1); got < want*3/4 || got > want*5/4 {
				t.Errorf("%d replicas: %s inherits %d, want about %d", n, r, got, want)
			}
		}
	}
}

// TestFailuresPassOn: after each failure of a token the next replica comes first, until all have had their turn.
func TestFailuresPassOn(t *testing.T) {
	replicas := names("rotatord-", 3)
	for _, token := range names("token-", 100) {
		order := []string{firstOf(t, replicas, token, 0), firstOf(t, replicas, token, 1), firstOf(t, replicas, token, 2)}
		for i, replica := range order { // those who wait one claim and two before a failure
			if got := rank(replicas, replica, token, 0); got != i {
				t.Errorf("%s: after %d failures the one with rank %d comes first", token, i, got)
			}
		}
		if again := firstOf(t, replicas, token, 3); again != order[0] || len(slices.Compact(slices.Sorted(slices.Values(order)))) != 3 {
			t.Errorf("%s: %q, then %s", token, order, again)
		}
	}
	if got := rank(replicas, "unknown", "token", 7); got != 3 {
		t.Errorf("one that does not live has the rank %d", got)
	}
}

// TestOneOrder: ten replicas agree on who comes first for each of 300 tokens, and the others wait one claim more
// each. Also after deaths.
func TestOneOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Minute)
		all := w.startAll(10)
		check := func(living []*member) {
			t.Helper()
			for _, token := range names("token-", 300) {
				var waits []time.Duration
				for _, m := range living {
					if first := w.first(token, living...); m.First(token, rotation.Record{}) != first.o.Self.Name {
						t.Fatalf("%s says that %s comes first for %s", m.o.Self.Name, m.First(token, rotation.Record{}), token)
					}
					waits = append(waits, m.Wait(token, rotation.Record{}))
				}
				slices.Sort(waits)
				for i, wait := range waits {
					if wait != time.Duration(i)*w.claim {
						t.Fatalf("%s: they wait %v", token, waits)
					}
				}
			}
		}
		check(all)
		random := rand.New(rand.NewPCG(3, 4))
		for len(all) > 1 {
			i := random.IntN(len(all))
			all[i].kill()
			all = slices.Delete(all, i, i+1)
			pass(time.Minute)
			check(all)
		}
	})
}

// TestSealedAnswerComesFirst: the replica that has sent the request, or has its answer, comes first while it lives, and any other
// waits at least one claim.
func TestSealedAnswerComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Minute)
		all := w.startAll(3)
		for _, token := range names("token-", 30) {
			for _, owner := range all {
				r := rotation.Record{Step: rotation.StepSealed, Work: &rotation.Work{RotationID: "r", Replica: owner.o.Self.Name}}
				for _, m := range all {
					if got := m.First(token, r); got != owner.o.Self.Name {
						t.Fatalf("%s: %s says that %s comes first", token, m.o.Self.Name, got)
					}
				}
				if got := firsts(token, r, all...); !slices.Equal(got, []string{owner.o.Self.Name}) {
					t.Fatalf("%s: %q come first, want %s", token, got, owner.o.Self.Name)
				}
				for failures := range 3 { // every replica can deliver a copy, and each gets its turn
					copied := rotation.Record{Step: rotation.StepSealed, Failures: failures, Work: &rotation.Work{RotationID: "r", Replica: owner.o.Self.Name, Copied: true}}
					want := firsts(token, rotation.Record{Failures: failures}, all...)
					if got := firsts(token, copied, all...); !slices.Equal(got, want) || all[0].First(token, copied) != want[0] {
						t.Fatalf("%s: %q come first for a copy after %d failures, want %q", token, got, failures, want)
					}
				}
				r.Step = rotation.StepClaimed // nothing was sent
				w.first(token, all...)
				if got := firsts(token, r, all...); len(got) != 1 {
					t.Fatalf("%s: %q come first for a claim", token, got)
				}
			}
		}
		dead := all[0].o.Self.Name
		all[0].kill()
		pass(time.Minute)
		for _, token := range names("token-", 30) {
			r := rotation.Record{Step: rotation.StepSealed, Work: &rotation.Work{RotationID: "r", Replica: dead}}
			if got := firsts(token, r, all[1:]...); len(got) != 1 {
				t.Errorf("%s: after the death of %s these come first: %q", token, dead, strings.Join(got, " "))
			}
		}
	})
}
