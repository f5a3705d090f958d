package admission

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"rotatord/internal/rotation"
)

// history is a random history of a budget, with restarts of our own process.
type history struct {
	Quota, Limit int
	Slides       bool          // Cloudflare counts the last five minutes
	Takes        time.Duration // of a request, at most
	Lives        []life        // of our process, one after the other
	Told         bool          // each process knows what the one before has sent
	Others       int           // requests of others in five minutes
	Burst        int           // of them at once; 1 means evenly
	OthersFrom   time.Duration
	OthersUntil  time.Duration
	Lost         int    // percent of our requests whose answers are lost
	Missing      int    // percent of the answers without headers
	Lie          string // what every Ratelimit header says instead of the truth
	Seed         uint64
}

// life is one process: how long it runs, and for how much of that time requests wait.
type life struct {
	Lasts time.Duration
	Busy  int // percent
}

func drawHistory(t *rapid.T) history {
	seconds := func(name string, least, most int) time.Duration {
		return time.Duration(rapid.IntRange(least, most).Draw(t, name)) * time.Second
	}
	h := history{
		Quota: 1200, Limit: rapid.SampledFrom([]int{50, 300, 1000, 1200, 1500}).Draw(t, "limit"),
		Slides: rapid.Bool().Draw(t, "slides"), Told: rapid.Bool().Draw(t, "told"),
		Takes:   rapid.SampledFrom([]time.Duration{5 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second}).Draw(t, "takes"),
		Lost:    rapid.SampledFrom([]int{0, 0, 3, 30}).Draw(t, "lost"),
		Missing: rapid.SampledFrom([]int{0, 0, 0, 20, 100}).Draw(t, "missing"),
		Lie:     rapid.SampledFrom([]string{"", "", "", "", `"default";r=900;t=300`, `"default";r=900;t=0`, `"default";r=150;t=99999`}).Draw(t, "lie"),
		Others:  rapid.SampledFrom([]int{0, 0, 100, 600, 1100}).Draw(t, "others"),
		Burst:   rapid.SampledFrom([]int{1, 1, 50, 400}).Draw(t, "burst"),
		Seed:    rapid.Uint64().Draw(t, "seed"),
	}
	h.OthersFrom = seconds("others from", 0, 400)
	h.OthersUntil = h.OthersFrom + seconds("others for", 0, 600)
	h.Lives = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) life {
		return life{seconds("lasts", 1, 150), rapid.SampledFrom([]int{10, 50, 100}).Draw(t, "busy")}
	}), 1, 8).Draw(t, "lives")
	return h
}

// historyWorld is the world in which a history happens.
type historyWorld struct {
	history
	mu      sync.Mutex
	random  *rand.Rand
	counted []time.Time // the requests that Cloudflare counts, of all users
	ends    time.Time   // when Cloudflare's window ends
	penalty time.Time
	arrived []time.Time // when our requests arrived
	earlier []time.Time // when our requests were over, as a ledger knows it
	denied  int         // our requests that were refused
	idle    time.Duration
	worst   string // the longest wait without a reason
	noRoom  string // when no rotation could begin, without a reason
}

// arrive is one request at Cloudflare. It returns the answer.
func (w *historyWorld) arrive() (http.Header, bool) {
	now, h := time.Now(), make(http.Header)
	if now.Before(w.penalty) {
		return h, false
	}
	if w.Slides {
		w.counted = slices.DeleteFunc(w.counted, func(at time.Time) bool { return now.Sub(at) >= Window })
		w.ends = now.Add(Window)
	} else if !now.Before(w.ends) {
		w.counted, w.ends = nil, now.Add(Window)
	}
	w.counted = append(w.counted, now)
	if len(w.counted) > w.Quota {
		w.penalty, w.counted = now.Add(Window), nil
		return h, false
	}
	if w.random.IntN(100) >= w.Missing {
		h.Set("Ratelimit", fmt.Sprintf(`"default";r=%d;t=%d`, w.Quota-len(w.counted), int((w.ends.Sub(now)+time.Second-1)/time.Second)))
		h.Set("Ratelimit-Policy", fmt.Sprintf(`"default";q=%d;w=300`, w.Quota))
		if w.Lie != "" {
			h.Set("Ratelimit", w.Lie)
		}
	}
	return h, true
}

// ours sends requests of our process until ctx ends.
func (w *historyWorld) ours(ctx context.Context, b *Budget) {
	for ctx.Err() == nil {
		err := b.Take(rotation.WithUrgency(ctx, rotation.UrgencySlot))
		if none, ok := errors.AsType[*NoCapacityError](err); ok && none.Wait > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(none.Wait):
			}
		}
		if err != nil {
			continue
		}
		end := b.Begin()
		w.mu.Lock()
		way := time.Duration(w.random.Int64N(int64(w.Takes)))
		w.mu.Unlock()
		time.Sleep(way)
		w.mu.Lock()
		h, ok := w.arrive()
		lost := w.random.IntN(100) < w.Lost
		w.arrived = append(w.arrived, time.Now())
		if !ok {
			w.denied++
		}
		w.mu.Unlock()
		time.Sleep(w.Takes - way)
		w.mu.Lock()
		w.earlier = append(w.earlier, time.Now())
		w.mu.Unlock()
		switch {
		case lost:
			end(Answer{})
		case !ok:
			end(Answer{Answered: true, Refused: true, Throttle: Window})
		default:
			end(Answer{Answered: true, Limit: ReadReport(h)})
		}
	}
}

// watch measures how long requests wait while nothing forbids them: Cloudflare has said that a tenth of our
// limit is left and has not asked to be left alone, and requests_per_5m is not used up.
func (w *historyWorld) watch(ctx context.Context, b *Budget) {
	const look = 250 * time.Millisecond
	idle, was := time.Duration(0), time.Time{}
	for ctx.Err() == nil {
		time.Sleep(look)
		now := time.Now()
		b.mu.Lock()
		plenty := !b.pacer.reported.known(now) || b.pacer.reported.left-b.pending() > min(w.Limit, w.Quota)/10+w.Limit/100+reserveMin
		forbidden := now.Before(b.blockedUntil) || b.limitWait(now, rotation.UrgencySlot) > 0 || b.pacer.silent.on
		if b.waiting.len() == 0 || !b.lastAdmitted.Equal(was) || !plenty || forbidden {
			idle, was = 0, b.lastAdmitted
		} else if idle += look; idle > w.idle {
			w.idle = idle
			w.worst = fmt.Sprintf("%s without a request at %s, %d of %d left, others %d", idle, now.Format(time.TimeOnly),
				b.pacer.reported.left, b.pacer.reported.quota, b.pacer.others.used)
		}
		b.mu.Unlock()
		if requests, wait := b.Capacity(30*time.Second, rotation.UrgencySlot); plenty && !forbidden && requests < 1 && w.noRoom == "" {
			w.noRoom = fmt.Sprintf("at %s no rotation may begin, for %s", now.Format(time.TimeOnly), wait)
		}
	}
}

// others sends the requests of other users of the credential.
func (w *historyWorld) others(ctx context.Context) {
	if w.Others == 0 {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(w.OthersFrom):
	}
	burst := min(w.Burst, w.Others)
	every := Window * time.Duration(burst) / time.Duration(w.Others)
	for end := time.Now().Add(w.OthersUntil - w.OthersFrom); time.Now().Before(end); {
		w.mu.Lock()
		for range burst {
			w.arrive()
		}
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

func (w *historyWorld) run(t *testing.T) {
	all, endOthers := context.WithCancel(t.Context())
	var others sync.WaitGroup
	others.Go(func() { w.others(all) })
	for _, l := range w.Lives {
		b := NewBudget(w.Limit)
		b.join(nil, w.Limit)
		if w.Told {
			b.countEarlier(w.earlier)
		}
		const turn = 20 * time.Second // busy for a part of each
		for left := l.Lasts; left > 0; left -= turn {
			ctx, stop := context.WithTimeout(t.Context(), min(left, turn*time.Duration(l.Busy)/100))
			var workers sync.WaitGroup
			for range 16 {
				workers.Go(func() { w.ours(ctx, b) })
			}
			workers.Go(func() { w.watch(ctx, b) })
			<-ctx.Done()
			stop()
			workers.Wait()
			time.Sleep(min(left, turn) * time.Duration(100-l.Busy) / 100)
		}
	}
	endOthers()
	others.Wait()
}

// TestEstimatesNeverStopRequests: whatever came before, requests wait only seconds while Cloudflare says that
// plenty is left. Admitted requests keep to requests_per_5m, and in an honest world no request is refused.
func TestEstimatesNeverStopRequests(t *testing.T) {
	fewChecks(t, 10)
	const most = 12 * time.Second
	rapid.Check(t, func(rt *rapid.T) {
		w := &historyWorld{history: drawHistory(rt)}
		w.random = rand.New(rand.NewPCG(w.Seed, 0))
		synctest.Test(t, w.run)
		slices.SortFunc(w.arrived, time.Time.Compare)
		if w.idle > most {
			rt.Fatalf("%s\n%+v", w.worst, w.history)
		}
		if w.noRoom != "" {
			rt.Fatalf("%s\n%+v", w.noRoom, w.history)
		}
		if sent := fullest(w.arrived); sent > w.Limit && (w.Told || len(w.Lives) == 1) {
			rt.Fatalf("%d requests in five minutes\n%+v", sent, w.history)
		}
		honest := w.Missing == 0 && w.Lie == "" && w.Lost < 5 && (w.Others == 0 || w.Told && w.Others+w.Burst+w.Limit <= w.Quota)
		if honest && w.denied > 0 {
			rt.Fatalf("%d requests were refused\n%+v", w.denied, w.history)
		}
	})
}
