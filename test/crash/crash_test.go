package crash

import (
	"cmp"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCrash is `make crash ROUNDS=N SEED=S`, with ROUND=K that one alone, and with EXTENDED=1 only
// those about the end of an extended grace.
func TestCrash(t *testing.T) {
	rounds := 24
	if testing.Short() {
		rounds = 6
	}
	rounds = number(t, "CRASH_ROUNDS", rounds)
	seed := uint64(number(t, "CRASH_SEED", int(time.Now().Unix()%1_000_000)))
	all := plans(rounds, seed)
	if only := number(t, "CRASH_ROUND", -1); only >= 0 {
		all = plans(max(rounds, only+1), seed)[only : only+1]
	}
	if os.Getenv("CRASH_EXTENDED") != "" {
		all = slices.DeleteFunc(plans(max(rounds, matrixSize), seed), func(p plan) bool { return p.extended == nil })
		all = all[:min(rounds, len(all))]
	}
	sealOff := os.Getenv("CRASH_SEAL") == "off" // then violations are what is wanted
	if sealOff {
		for i := range all {
			all[i].sabotage = noSeal
		}
	}
	t.Logf("seed %d, %d rounds", seed, len(all))
	sum := newTally()
	playAll(t, all, 60*time.Second, func(r result) {
		sum.add(r)
		if n := sum.rounds(); n%50 == 0 {
			t.Log(sum)
		}
		if len(r.wrong) > 0 && !sealOff {
			t.Errorf("%s\n  %s\nagain: make crash SEED=%d ROUND=%d\n%s", r.plan, strings.Join(r.wrong, "\n  "), seed, r.number, tail(r.log))
		}
	})
	t.Logf("seed %d: %s", seed, sum)
	if sealOff && sum.violations == 0 {
		t.Error("nothing was found wrong although the seal was switched off: the oracle proves nothing")
	}
	if sum.kills == 0 && len(all) > 20 && os.Getenv("CRASH_EXTENDED") == "" {
		t.Error("no failpoint ever struck: the rounds prove little")
	}
	if missed := sum.missed(); len(all) >= matrixSize && !sealOff && len(missed) > 0 {
		t.Errorf("the whole matrix was played and these points never struck: %s", strings.Join(missed, ", "))
	}
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(otherwise)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func tail(s string) string { return s[max(len(s)-60000, 0):] }
