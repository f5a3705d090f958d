package replica

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/racedetector"
)

// TestNoticesArrive: what one replica tells, all others know within ten seconds, whenever it is told and although each
// request takes a third of a second. Also what a replica tells in its first moment.
func TestNoticesArrive(t *testing.T) {
	for _, n := range []int{3, 10} {
		if n > 3 && racedetector.On { // three have the same races
			continue
		}
		each(t, func(t *testing.T, w *world) {
			w.slow = 300 * time.Millisecond
			all := w.startAll(n)
			random := rand.New(rand.NewPCG(1, 2))
			worst := time.Duration(0)
			arrive := func(from *member, name string) {
				told := time.Now()
				from.Notice(name)
				pass(12 * time.Second)
				for _, m := range all {
					if at := get(m, func() time.Time { return m.learned[name] }); m == from {
						continue
					} else if at.IsZero() {
						t.Errorf("%s: %s has not learned it", name, m.o.Self.Name)
					} else {
						worst = max(worst, at.Sub(told))
					}
				}
			}
			for i := range 40 {
				time.Sleep(time.Duration(random.Int64N(int64(20 * time.Second))))
				arrive(all[random.IntN(n)], fmt.Sprint("token-", i))
			}
			if !slices.Contains(all[0].took(), "token-1") || slices.Contains(all[1].took(), Everything) {
				t.Error("everything was read again")
			}
			for i := range 10 {
				time.Sleep(time.Duration(random.Int64N(int64(20 * time.Second))))
				began := time.Now()
				late := w.start(fmt.Sprint("late-", i), "p", "h")
				for late.MayBegin() != nil {
					time.Sleep(10 * time.Millisecond)
				}
				if since := time.Since(began); since > 3*time.Second {
					t.Errorf("it may begin after %s", since)
				}
				arrive(late, fmt.Sprint("first-", i))
				if err := late.Leave(t.Context()); err != nil {
					t.Error(err)
				}
				late.kill()
			}
			t.Logf("%d replicas, claim %s: the slowest notice took %s", n, w.claim, worst)
			if worst > 10*time.Second {
				t.Errorf("a notice took %s", worst)
			}
		})
	}
}

// TestLastNotice: what a replica tells while it stops arrives, also if it is gone at once.
func TestLastNotice(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(2)
		if err := all[0].Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(20 * time.Second)
		all[0].Notice("ci")
		if err := all[0].Leave(t.Context()); err != nil { // at the end of the stop
			t.Fatal(err)
		}
		all[0].kill()
		pass(10 * time.Second)
		if got := all[1].took(); !slices.Equal(got, []string{"ci"}) {
			t.Errorf("%q", got)
		}
	})
}

// TestNoticesAreKeptShort: a name that changes often is told once, the entry stays small, and a reader that has missed
// more than the entry tells reads everything again.
func TestNoticesAreKeptShort(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(2)
		a, b := all[0], all[1]
		for range 5000 {
			a.Notice("busy")
		}
		a.Notice("other")
		pass(10 * time.Second)
		if got := b.took(); !slices.Equal(got, []string{"busy", "other"}) {
			t.Errorf("%q", got)
		}
		for i := range keptNotices {
			a.Notice(fmt.Sprint("token-", i))
		}
		pass(10 * time.Second)
		if got := b.took(); len(got) != keptNotices || slices.Contains(got, Everything) {
			t.Errorf("%d names", len(got))
		}
		for i := range keptNotices + 1 {
			a.Notice(fmt.Sprint("token-", i))
		}
		pass(10 * time.Second)
		if got := b.took(); !slices.Equal(got, []string{Everything}) {
			t.Errorf("%d names", len(got))
		}
		b.cut()
		a.Notice("missed")
		pass(keptFor - 15*time.Second)
		b.heal()
		pass(12 * time.Second)
		if got := b.took(); !slices.Equal(got, []string{"missed"}) {
			t.Errorf("%q", got)
		}
		b.cut()
		a.Notice("long ago")
		pass(keptFor + 20*time.Second)
		b.heal()
		pass(12 * time.Second)
		if got := b.took(); !slices.Equal(got, []string{Everything}) {
			t.Errorf("%q", got)
		}
		if e := w.entryOf(a.o.Self.Name); len(e.Changes) != 0 || e.Since != e.Seq {
			t.Errorf("an idle replica still tells %d names", len(e.Changes))
		}
	})
}

// TestManyChangesFewWrites: a replica that changes something all the time writes its entry once in a second.
func TestManyChangesFewWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2*time.Minute)
		a := w.startAll(1)[0]
		before := w.server.Count("put")
		for range 6000 {
			a.Notice("busy")
			pass(10 * time.Millisecond)
		}
		if n := w.server.Count("put") - before; n < 50 || n > 62 {
			t.Errorf("%d writes in a minute", n)
		}
	})
}

// TestSweep: everything is read again every six hours, whatever was told.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2*time.Minute)
		a := w.startAll(1)[0]
		pass(sweepEvery - time.Minute)
		if got := a.took(); got != nil {
			t.Errorf("%q", got)
		}
		pass(24 * time.Hour)
		if got := a.took(); len(got) != 4 || strings.Join(got, "") != "****" {
			t.Errorf("%q", got)
		}
	})
}

// TestRequestsOfAnIdleReplica counts what each of some idle replicas asks of Vault in an hour, against the table in
// docs/adr/0031.
func TestRequestsOfAnIdleReplica(t *testing.T) {
	if racedetector.On {
		t.Skip("it lasts hours of simulated time, and runs without the race detector")
	}
	page, err := os.ReadFile("../../docs/adr/0031-every-replica-is-active.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$`).FindAllStringSubmatch(string(page), -1)
	if len(rows) != 3 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	for _, row := range rows {
		var said [5]int
		for i := range said {
			said[i], _ = strconv.Atoi(row[i+1])
		}
		n := said[0]
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2*time.Minute)
			all := w.startAll(n)
			asked := func() (times int) { // each is one read, which the fake does not count
				for _, m := range all {
					times += get(m, func() int { return m.asked })
				}
				return times
			}
			count := func() [4]int {
				return [4]int{w.server.Count("put"), w.server.Count("get") + asked(), w.server.Count("list"), w.server.Count("limit") + w.server.Count("remove")}
			}
			before, sum := count(), 0
			pass(time.Hour)
			for i, after := range count() {
				got := (after - before[i]) / n
				sum += got
				if i < 3 && (got < said[i+1]*95/100 || got > said[i+1]*105/100) || i == 3 && got > 0 {
					t.Errorf("%d replicas: column %d: %d, and the page says %v", n, i+2, got, said)
				}
			}
			t.Logf("%d replicas: %d requests of each in an hour", n, sum)
			if said[1]+said[2]+said[3] != said[4] {
				t.Errorf("%v does not add up", said)
			}
		})
	}
}
