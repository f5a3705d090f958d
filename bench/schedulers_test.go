package bench

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-co-op/gocron/v2"
	netresearch "github.com/netresearch/go-cron"
	robfig "github.com/robfig/cron/v3"

	"rotatord/bench/marked"
	"rotatord/internal/scheduler"
)

var (
	table = flag.Bool("table", false, "compare schedulers at up to 100,000 entries, and print a table in Markdown")
	full  = flag.Bool("full", false, "with -table: robfig/cron at 100,000 entries too, which takes another minute and a half")

	update = flag.Bool("update", false, "with -table and -full: write the table into docs/benchmarks.md")
)

// page has the table that -update writes.
const page = "../docs/benchmarks.md"

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}

// A contestant is a scheduler under test, used as its documentation says.
type contestant interface {
	// configure creates what the program has in memory with every scheduler.
	configure(expressions []string)
	// start adds an entry for each expression, to call fired with its index, and starts.
	start(t *testing.T, fired func(i int))
	// stop returns when no goroutine is left.
	stop(t *testing.T)
}

var contestants = []struct {
	name string
	new  func() contestant
	most int // entries, unless -full is set
}{
	{"rotatord", func() contestant { return new(shared) }, math.MaxInt},
	{"rotatord, nothing shared", func() contestant { return new(apart) }, math.MaxInt},
	{"netresearch/go-cron", func() contestant { return new(netresearchCron) }, math.MaxInt},
	{"go-co-op/gocron", func() contestant { return new(coopCron) }, math.MaxInt},
	{"robfig/cron", func() contestant { return new(robfigCron) }, 10_000},
}

// expressions are for n entries, each once a day at a random minute, always the same.
func expressions(n int) []string {
	random := rand.New(rand.NewPCG(4, uint64(n)))
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%d %d * * *", random.IntN(60), random.IntN(24))
	}
	return all
}

// queued is the scheduler of this repository, as internal/app/engine.go uses it: what fired
// works on a goroutine of its own, and then sets the time at which it is due next.
type queued struct {
	queue   *scheduler.Queue
	tokens  map[string]token // configuration
	workers sync.WaitGroup
	beat    atomic.Int64
	end     func()
}

type token struct {
	timetable scheduler.Timetable
	index     int
}

func (q *queued) enter(i int, schedule *scheduler.Schedule) {
	name := fmt.Sprint("token-", i)
	q.tokens[name] = token{scheduler.Timetable{Schedule: schedule, Key: name}, i}
}

func (q *queued) start(_ *testing.T, fired func(int)) {
	q.queue = scheduler.NewQueue(nil)
	now := time.Now()
	for name, token := range q.tokens {
		q.queue.Set(name, token.timetable.Next(now).Begin)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		q.queue.Run(ctx, func(name string, at time.Time) {
			q.workers.Go(func() {
				token := q.tokens[name]
				fired(token.index)
				q.queue.Set(name, token.timetable.Next(at).Begin)
			})
		}, func() { q.beat.Store(time.Now().UnixNano()) })
	})
	q.end = func() { cancel(); running.Wait() }
}

func (q *queued) stop(*testing.T) {
	q.end()
	q.workers.Wait()
}

// shared has its tokens and their schedules from the configuration, where one expression in
// one zone is one Schedule. What start adds is what scheduling costs beyond that.
type shared struct{ queued }

func (s *shared) configure(expressions []string) {
	s.tokens = make(map[string]token, len(expressions))
	schedules := make(map[string]*scheduler.Schedule)
	for i, expression := range expressions {
		if schedules[expression] == nil {
			schedules[expression] = mustParse(expression)
		}
		s.enter(i, schedules[expression])
	}
}

// apart creates everything for each entry, as the other schedulers do: its name, its
// timetable, its parsed expression.
type apart struct {
	queued
	expressions []string
}

func (a *apart) configure(expressions []string) { a.expressions = expressions }

func (a *apart) start(t *testing.T, fired func(int)) {
	a.tokens = make(map[string]token, len(a.expressions))
	for i, expression := range a.expressions {
		a.enter(i, mustParse(expression))
	}
	a.queued.start(t, fired)
}

func mustParse(expression string) *scheduler.Schedule {
	schedule, err := scheduler.Parse(expression, nil)
	if err != nil {
		panic(err)
	}
	return schedule
}

type robfigCron struct {
	expressions []string
	*robfig.Cron
}

func (r *robfigCron) configure(expressions []string) { r.expressions = expressions }

func (r *robfigCron) start(t *testing.T, fired func(int)) {
	r.Cron = robfig.New(robfig.WithLocation(time.UTC))
	for i, expression := range r.expressions {
		if _, err := r.AddFunc(expression, func() { fired(i) }); err != nil {
			t.Fatal(err)
		}
	}
	r.Start()
}

func (r *robfigCron) stop(*testing.T) { <-r.Stop().Done() }

type netresearchCron struct {
	expressions []string
	*netresearch.Cron
}

func (n *netresearchCron) configure(expressions []string) { n.expressions = expressions }

func (n *netresearchCron) start(t *testing.T, fired func(int)) {
	n.Cron = netresearch.New(netresearch.WithLocation(time.UTC))
	for i, expression := range n.expressions {
		if _, err := n.AddFunc(expression, func() { fired(i) }); err != nil {
			t.Fatal(err)
		}
	}
	n.Start()
}

func (n *netresearchCron) stop(*testing.T) { n.StopAndWait() }

type coopCron struct {
	expressions []string
	gocron.Scheduler
}

func (c *coopCron) configure(expressions []string) { c.expressions = expressions }

func (c *coopCron) start(t *testing.T, fired func(int)) {
	var err error
	if c.Scheduler, err = gocron.NewScheduler(gocron.WithLocation(time.UTC)); err != nil {
		t.Fatal(err)
	}
	for i, expression := range c.expressions {
		if _, err := c.NewJob(gocron.CronJob(expression, false), gocron.NewTask(func() { fired(i) })); err != nil {
			t.Fatal(err)
		}
	}
	c.Start()
}

func (c *coopCron) stop(t *testing.T) {
	if err := c.Shutdown(); err != nil {
		t.Error(err)
	}
}

// A cost is what a simulated day took.
type cost struct {
	adding, day time.Duration // CPU time, of all threads, garbage collection included
	bytes       float64       // of the heap, for each entry
}

func (c cost) total() time.Duration { return c.adding + c.day }

// scaled is what stays the same in n if the cost grows as n log n.
func (c cost) scaled(n int) float64 { return float64(c.total()) / (float64(n) * math.Log2(float64(n))) }

// simulate runs a contestant for one day, in which every entry must fire exactly once.
func simulate(t *testing.T, c contestant, expressions []string) (spent cost) {
	t.Helper()
	n := len(expressions)
	synctest.Test(t, func(t *testing.T) {
		fired := make([]atomic.Int32, n)
		spent.adding = cpu(func() { c.configure(expressions) })
		before := heap()
		spent.adding += cpu(func() {
			c.start(t, func(i int) { fired[i].Add(1) })
			synctest.Wait()
		})
		spent.bytes = float64(heap()-before) / float64(n)
		// It is midnight now: 0:00 comes at the end of the day.
		spent.day = cpu(func() {
			time.Sleep(24*time.Hour + 30*time.Second)
			synctest.Wait()
		})
		c.stop(t)
		wrong := 0
		for i := range fired {
			if fired[i].Load() != 1 {
				wrong++
			}
		}
		if wrong > 0 {
			t.Errorf("%d of %d entries did not fire exactly once", wrong, n)
		}
	})
	return spent
}

// cpu returns the user and system time that the process spends in f.
func cpu(f func()) time.Duration {
	before := usage()
	f()
	return usage() - before
}

func usage() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first one found to be unused is swept now
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestSchedulers checks that every contestant fires every entry once in a day; with -table it
// measures what that takes.
func TestSchedulers(t *testing.T) {
	if !*table {
		for _, c := range contestants {
			t.Run(c.name, func(t *testing.T) { simulate(t, c.new(), expressions(200)) })
		}
		return
	}
	simulate(t, contestants[0].new(), expressions(1000)) // so that the first is not the one to warm up
	sizes := []int{1000, 10_000, 100_000}
	costs := make(map[string][]cost)
	for _, n := range sizes {
		expressions := expressions(n)
		rounds := map[string][]cost{}
		// In turns, so that other load on the machine affects all of them. Load can only add
		// time: the smallest result counts.
		for round := range max(5, min(11, 50_000/n)) {
			for _, c := range contestants {
				if n > c.most && (!*full || round > 0) {
					continue
				}
				rounds[c.name] = append(rounds[c.name], simulate(t, c.new(), expressions))
			}
		}
		for name, all := range rounds {
			costs[name] = append(costs[name], slices.MinFunc(all, func(a, b cost) int { return cmp.Compare(a.total(), b.total()) }))
		}
	}
	fmt.Print(render(sizes, costs))
	held(t, sizes, costs)
	if *update && *full && !t.Failed() {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		written, err := marked.Replace(string(content), "schedulers", render(sizes, costs))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(page, []byte(written), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSchedulersPage checks that the page has each contestant in each table, with a number for each size.
func TestSchedulersPage(t *testing.T) {
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text, err := marked.Find(string(content), "schedulers")
	if err != nil {
		t.Fatal(err)
	}
	tables := strings.Split(strings.TrimSpace(text), "\n\n")
	if len(tables) != 4 {
		t.Fatalf("%d tables, want 4", len(tables))
	}
	for _, table := range tables {
		cells := marked.Cells(table)
		for _, c := range contestants {
			for _, column := range []string{"1000 entries", "10000 entries", "100000 entries"} {
				if cell := cells[c.name][column]; cell == "" || cell == "not run" {
					t.Errorf("%s has %q for %s: run make bench FULL=1 UPDATE=1\n%s", c.name, cell, column, table)
				}
			}
		}
	}
}

// held checks the promises.
func held(t *testing.T, sizes []int, costs map[string][]cost) {
	last := len(sizes) - 1
	ours, theirs := costs["rotatord"], costs["netresearch/go-cron"]
	if ours[last].total() > theirs[last].total()/5 {
		t.Errorf("%s is more than a fifth of the %s of netresearch/go-cron", ours[last].total(), theirs[last].total())
	}
	if bytes := ours[last].bytes; bytes > 256 {
		t.Errorf("%.0f bytes for each entry, more than 256", bytes)
	}
	// Half of it on top: fewer entries fit into the processor's caches.
	for i := range last {
		if few, many := ours[i].scaled(sizes[i]), ours[last].scaled(sizes[last]); many > 1.5*few {
			t.Errorf("%.0f ns of n log n for %d entries, %.0f for %d: it grows faster than n log n", few, sizes[i], many, sizes[last])
		}
	}
}

func render(sizes []int, costs map[string][]cost) string {
	var b strings.Builder
	section := func(title string, cell func(ours, c cost, n int) string) {
		if b.Len() > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "| %s |", title)
		for _, n := range sizes {
			fmt.Fprintf(&b, " %d entries |", n)
		}
		fmt.Fprintf(&b, "\n| --- |%s\n", strings.Repeat(" --- |", len(sizes)))
		for _, c := range contestants {
			fmt.Fprintf(&b, "| %s |", c.name)
			for i, n := range sizes {
				if all := costs[c.name]; i < len(all) {
					fmt.Fprintf(&b, " %s |", cell(costs["rotatord"][i], all[i], n))
				} else {
					b.WriteString(" not run |")
				}
			}
			b.WriteString("\n")
		}
	}
	section("CPU time, as a multiple of ours", func(ours, c cost, _ int) string {
		return fmt.Sprintf("%.1f", float64(c.total())/float64(ours.total()))
	})
	section("CPU seconds: all (adding + the day)", func(_, c cost, _ int) string {
		return fmt.Sprintf("%.3f (%.3f + %.3f)", c.total().Seconds(), c.adding.Seconds(), c.day.Seconds())
	})
	section("CPU nanoseconds / (n log2 n)", func(_, c cost, n int) string {
		return fmt.Sprintf("%.0f", c.scaled(n))
	})
	section("bytes for each entry", func(_, c cost, _ int) string { return fmt.Sprintf("%.0f", c.bytes) })
	return b.String()
}
