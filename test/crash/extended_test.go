package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// extendedRounds is how many rounds of the matrix are about the end of an extended grace.
const extendedRounds = 60

// extended is a round in which one answer is lost. The old secret is extended again and again, and
// when a reissue is due the sink is away for short times, with hardly a gap between two of them, so
// that several preflights in a row fail. The daemon is killed meanwhile.
type extended struct {
	lose  string          // what happens to the answer
	sink  []time.Duration // in turn for how long the sink is there and away, from the first rotate request on
	kills []time.Duration // from the first rotate request on
	until time.Duration   // the end of all that
}

func (e *extended) String() string {
	return fmt.Sprintf("%s; the sink is in turn there and away for %v; kills after %v", e.lose, e.sink, e.kills)
}

// complete draws what happens. decide is when the daemon takes the decision in place of an operator:
// the reissue starts then, or half a grace before the old secret ends.
func (e *extended) complete(r *rand.Rand, grace time.Duration) {
	const ms = time.Millisecond
	e.lose = pick(r, "answer lost", "500 after", "cut in the body", "unreadable", "success: false")
	decide := 3 * grace
	// The first outages start between a grace before the decision and shortly after it.
	at := decide - time.Duration(r.Int64N(int64(grace)))
	e.sink = append(e.sink, at)
	for range 4 + r.IntN(3) {
		away, there := time.Duration(300+r.IntN(600))*ms, time.Duration(100+r.IntN(300))*ms
		e.kills = append(e.kills, at+time.Duration(r.Int64N(int64(away+there))))
		e.sink = append(e.sink, away, there)
		at += away + there
	}
	e.until = at
	r.Shuffle(len(e.kills), func(i, j int) { e.kills[i], e.kills[j] = e.kills[j], e.kills[i] })
	e.kills = e.kills[:1+r.IntN(2)]
	if len(e.kills) == 2 && e.kills[0] > e.kills[1] {
		e.kills[0], e.kills[1] = e.kills[1], e.kills[0]
	}
}

// liveExtended is what comes before the recovery in such a round.
func (w *world) liveExtended(e *extended) {
	w.spoil(e.lose, 0)
	asked := make(chan time.Time, 1)
	w.mu.Lock()
	var once sync.Once
	w.onRotate = func() { once.Do(func() { asked <- time.Now() }) }
	w.mu.Unlock()
	d := w.start(arm())
	var begin time.Time
	select {
	case begin = <-asked:
	case <-time.After(30 * time.Second):
		w.wrong = append(w.wrong, "no rotation was asked for")
		d.kill()
		return
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		at := begin
		for i, d := range e.sink {
			at = at.Add(d)
			time.Sleep(time.Until(at))
			if i%2 == 0 {
				w.proxy.set(vault500)
			} else {
				w.proxy.set(vaultNormal)
			}
		}
		w.proxy.set(vaultNormal)
	}()
	for _, kill := range e.kills {
		if d.dies(time.Until(begin.Add(kill))) {
			break
		}
		d.kill()
		d = w.start(arm())
	}
	if d.dies(time.Until(begin.Add(e.until))) {
		w.wrong = append(w.wrong, d.fate())
	}
	d.kill()
	<-over
}

// refusalRun is a time in which each look at what Vault held of a token was refused.
type refusalRun struct {
	token    string
	from, to time.Time
}

// noteRun keeps the times in which a token was refused. The caller holds w.mu.
func (w *world) noteRun(token string, accepted bool, at time.Time) {
	since, refused := w.refusedSince[token]
	switch {
	case accepted && refused:
		w.runs = append(w.runs, refusalRun{token, since, at})
		delete(w.refusedSince, token)
	case !accepted && !refused:
		w.refusedSince[token] = at
	}
}

// emergencySlack is how long the daemon may take to bring consumers a secret once it runs and reaches
// Vault again: an emergency is tried every three seconds, a sink is away for up to 1.5 s here, a slow
// request runs into its bound of a second, and the machine is busy.
const emergencySlack = 8 * time.Second

// checkRuns checks that consumers were not refused for longer than a restart and a few seconds where one
// answer was lost, and not two in a row.
func (w *world) checkRuns(s subject, inARow int, say func(string, ...any)) {
	if os.Getenv("CRASH_VERBOSE") != "" {
		for _, r := range w.runs {
			w.t.Logf("%s: refused for %s from %s on (grace %s, %s, %d answers lost in a row, no daemon for %s at most)",
				s.path, r.to.Sub(r.from), r.from.Format(clock), s.grace, s.kind, inARow, w.longestDown())
			if r.to.Sub(r.from) > time.Second {
				_, log := w.lines()
				w.t.Log(tail(log))
			}
		}
	}
	if inARow != 1 || s.grace == 0 || s.kind.apart() {
		return
	}
	down := w.longestDown()
	for _, r := range w.runs {
		if r.token != s.name {
			continue
		}
		took := r.to.Sub(r.from)
		w.longestRun = max(w.longestRun, took)
		if took > down+emergencySlack {
			say("%s: refused for %s from %s on after one lost answer (grace %s, no daemon for %s at most)",
				s.name, took.Round(time.Millisecond), r.from.Format(clock), s.grace, down.Round(time.Millisecond))
		}
	}
}
