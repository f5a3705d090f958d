package crash

import (
	"cmp"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestCrash is `make crash ROUNDS=N SEED=S`, and with ROUND=K that one alone.
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
	sealOff := os.Getenv("CRASH_SEAL") == "off" // then violations are what is wanted
	if sealOff {
		for i := range all {
			all[i].sabotage = noSeal
		}
	}
	t.Logf("seed %d, %d rounds", seed, len(all))
	began := time.Now()
	var mu sync.Mutex
	violations, finished, reached, refused, polls := 0, 0, 0, 0, 0
	playAll(t, all, 60*time.Second, func(r result) {
		mu.Lock()
		defer mu.Unlock()
		finished++
		refused, polls = refused+r.refused, polls+r.polls
		if r.reached {
			reached++
		}
		if finished%50 == 0 {
			t.Logf("%d rounds, %d violations, %s", finished, violations, time.Since(began).Round(time.Second))
		}
		violations += len(r.wrong)
		if len(r.wrong) > 0 && !sealOff {
			t.Errorf("%s\n  %s\nagain: make crash SEED=%d ROUND=%d\n%s", r.plan, strings.Join(r.wrong, "\n  "), seed, r.number, tail(r.log))
		}
	})
	t.Logf("%d rounds with seed %d in %s: %d violations; the failpoint struck in %d; %d of %d looks at what Vault held were refused",
		finished, seed, time.Since(began).Round(time.Second), violations, reached, refused, polls)
	if sealOff && violations == 0 {
		t.Error("nothing was found wrong although the seal was switched off: the oracle proves nothing")
	}
	if reached == 0 && len(all) > 20 {
		t.Error("no failpoint ever struck: the rounds prove little")
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

// TestPointsExist arms each point in a build of the daemon's own code: a name that is misspelt
// here would never strike.
func TestPointsExist(t *testing.T) {
	source := ""
	files, err := filepath.Glob("../../internal/rotation/*.go")
	if err != nil || len(files) < 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source += string(b)
	}
	for _, point := range points() {
		name, _, _ := strings.Cut(strings.TrimPrefix(point, "ledger."), ".")
		if name != "" && name != "idle" && !strings.Contains(source, `"`+name+`"`) && !strings.Contains(source, `"`+name+`.`) {
			t.Errorf("nothing in the core is called %q", name)
		}
	}
}
