package fleet

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/secret"
	"rotatord/test/program"
)

// The flags of TestOutages. `make outages` sets them.
var (
	outageSeed     = flag.Uint64("outages-seed", 1, "the seed of the first run of TestOutages")
	outageRuns     = flag.Int("outages-runs", 1, "how many seeds TestOutages plays, one after the other")
	outageLength   = flag.Duration("outages-length", 0, "how long a run of TestOutages lasts; 0 is 20s, or 2m with -full")
	outageStrategy = flag.String("outages-strategy", "both", "single, pair, or both, side by side")
	outageLogs     = flag.String("outages-logs", "", "a directory that gets the daemon's log of each run")
)

// outagePace is the schedule of a run and the rhythm of its faults.
type outagePace struct {
	tokens         int
	period, grace  time.Duration
	length, strike time.Duration // strike is between two kills, of the daemon and of Vault in turn
}

var (
	// Each outage stays far below half a grace.
	longOutages  = outagePace{tokens: 20, period: 10 * time.Second, grace: 7 * time.Second, length: 2 * time.Minute, strike: 2 * time.Second}
	shortOutages = outagePace{tokens: 10, period: 5 * time.Second, grace: 4 * time.Second, length: 20 * time.Second, strike: 2 * time.Second}
)

const (
	// lostOneIn is how many rotate answers come for each that is lost.
	lostOneIn = 7
	// sinkAway is how long one path of Vault answers 500 when the old secret of a token whose new
	// one is lost has little more than half of its grace left: when the reissue starts.
	sinkAway = time.Second
	// How long Cloudflare takes for a rotate before it is carried out, and after.
	outageBefore, outageAfter = 10 * time.Millisecond, 10 * time.Millisecond
	samplePause               = 100 * time.Millisecond
)

// outages is what goes wrong in a run of TestOutages, and what is seen of it.
type outages struct {
	w      *world
	pace   outagePace
	seed   uint64
	random *rand.Rand // of the goroutine that kills

	mu        sync.Mutex
	asked     map[int]int            // rotate requests that were carried out, by credential
	issued    map[int][]issuance     // by credential, in the order of time
	held      map[int]secret.Digest  // what Vault was last seen to hold
	away      map[int]time.Time      // until when the path of a credential answers 500
	struckFor map[secret.Digest]bool // sink outages, by the old secret
	lost      int                    // answers that were dropped
	sinks     int                    // sink outages
	strikes   []strike               // kills and the outages that they caused
	stall     time.Duration          // the longest time between two samples of a token: more than the pause means a slow machine
	samples   int                    // of what Vault holds
	unread    int                    // samples while Vault was away, of what was read before
	refused   map[refusalKind]int    // samples
	longest   map[refusalKind]time.Duration
	ended     []outage
}

// issuance is a rotate request that was carried out.
type issuance struct {
	at      time.Time
	digest  secret.Digest
	dropped bool // its answer, by the proxy
}

// strike is a time in which the daemon or Vault was away.
type strike struct {
	what       string
	credential int // -1 for all
	from, to   time.Time
}

// refusalKind is why a sample was refused.
type refusalKind string

const (
	// expired: the grace of the old secret ended, and no reissue was carried out. This must not be.
	expired refusalKind = "expired"
	// cutOff: a reissue after a lost answer was carried out, and ended the old secret. The new one is on
	// its way to Vault: in an answer, in the daemon's memory, or sealed.
	cutOff refusalKind = "cut off"
	// interrupted: the same, and the daemon, Vault or the path of the sink was taken away at that moment.
	interrupted refusalKind = "interrupted"
	// secondLost: the same, but the answer of that reissue did not survive a SIGKILL, so another one is needed.
	secondLost refusalKind = "second lost"
	// notRead: Vault holds a good secret already, and the client could not read it since Vault was away.
	notRead refusalKind = "not read"
)

// outage is a time in which the secret of one credential was refused.
type outage struct {
	credential int
	kind       refusalKind
	from, to   time.Time
	samples    int
	during     string // what was away at the time
}

// loses decides about the answer of a rotation that was carried out. One in seven is lost, and never
// two in a row: the secret that was issued before has to be in Vault. The caller holds o.mu.
func (o *outages) loses(credential int) bool {
	n := o.asked[credential]
	o.asked[credential]++
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %d %d", o.seed, credential, n)
	draw := rand.New(rand.NewPCG(h.Sum64(), 0)).IntN(lostOneIn)
	all := o.issued[credential]
	return draw == 0 && (len(all) == 0 || all[len(all)-1].digest == o.held[credential])
}

// rotate serves a rotate request.
func (o *outages) rotate(t *testing.T, rw http.ResponseWriter, r *http.Request, id string, credential int) {
	time.Sleep(outageBefore)
	lose := false
	answer := httptest.NewRecorder()
	o.mu.Lock() // so that whoever is refused because of this rotation finds it in o.issued
	before, _ := o.w.sim.Token(id)
	o.w.sim.ServeHTTP(answer, r)
	after, ok := o.w.sim.Token(id)
	if !ok {
		t.Errorf("the simulator does not know %s", id)
	}
	if after.Rotations > before.Rotations {
		lose = o.loses(credential)
		o.issued[credential] = append(o.issued[credential], issuance{time.Now(), after.CurrentDigest, lose})
		if lose {
			o.lost++
		}
	}
	o.mu.Unlock()
	time.Sleep(outageAfter)
	if lose {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(rw.Header(), answer.Header())
	rw.WriteHeader(answer.Code)
	_, _ = rw.Write(answer.Body.Bytes())
}

// isAway reports whether the path of a credential answers 500 now.
func (o *outages) isAway(credential int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Now().Before(o.away[credential])
}

// watchGraces starts a short sink outage where the reissue of a lost secret is about to start.
func (o *outages) watchGraces(ctx context.Context) {
	for ; ctx.Err() == nil; sleep(ctx, 50*time.Millisecond) {
		for id, credential := range o.w.byTokenID {
			token, _ := o.w.sim.Token(id)
			o.mu.Lock()
			all, held := o.issued[credential], o.held[credential]
			left := time.Until(token.PreviousExpiresAt)
			owed := len(all) > 0 && all[len(all)-1].dropped && held != "" && held == token.PreviousDigest
			if owed && left < o.pace.grace*5/8 && left > 0 && !o.struckFor[held] {
				o.struckFor[held] = true
				o.away[credential] = time.Now().Add(sinkAway)
				o.sinks++
				o.strikes = append(o.strikes, strike{"sink", credential, time.Now(), time.Now().Add(sinkAway)})
			}
			o.mu.Unlock()
		}
	}
}

// sample presents what Vault holds of a credential to the application, again and again. While Vault
// does not answer, it presents what it read last, as a client would.
func (o *outages) sample(ctx context.Context, t *testing.T, credential int) {
	name := o.w.names[credential]
	c := client{
		http: &http.Client{Timeout: 5 * time.Second}, application: o.w.application(name),
		stored: o.w.vault.Address + "/v1/" + mount + "/data/" + path(name), vaultToken: o.w.vault.RootToken,
	}
	var (
		has    credentialRead
		since  time.Time // of the first refusal in a row
		kind   refusalKind
		n      int // refused in a row
		cached int // of them while Vault was away
		last   = time.Now()
	)
	end := func(at time.Time) {
		if !since.IsZero() {
			o.end(outage{credential: credential, kind: kind, from: since, to: at, samples: n})
		}
		since, kind, n = time.Time{}, "", 0
	}
	for ; ctx.Err() == nil; sleep(ctx, samplePause) {
		began := time.Now()
		now, err := c.read()
		fresh := err == nil
		if fresh {
			if cached > 0 && cached == n && now != has.credential && kind == cutOff {
				kind = notRead // Vault was given the new secret before the client could read it
			}
			cached = 0
			has = credentialRead{now, true}
			o.saw(credential, now)
		} else if !has.ok {
			continue
		}
		status, err := c.call(has.credential)
		if err != nil {
			t.Errorf("the application answered %v", err)
			return
		}
		if fresh && status != http.StatusOK { // it may have been replaced between the two
			if again, err := c.read(); err == nil && again != has.credential {
				has.credential = again
				o.saw(credential, again)
				if status, err = c.call(again); err != nil {
					t.Errorf("the application answered %v", err)
					return
				}
			}
		}
		o.count(fresh, began.Sub(last))
		last = began
		if status == http.StatusOK {
			end(began)
			continue
		}
		why := o.why(credential, has.credential, began)
		if since.IsZero() {
			since, kind = began, why
		}
		if kind == cutOff && why == secondLost {
			kind = why
		}
		n++
		if !fresh {
			cached++
		}
	}
	end(time.Now())
}

type credentialRead struct {
	credential
	ok bool
}

func (o *outages) saw(credential int, c credential) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held[credential] = secret.New(c.Secret).Digest()
}

func (o *outages) count(fresh bool, stall time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stall = max(o.stall, stall)
	o.samples++
	if !fresh {
		o.unread++
	}
}

// why says what ended a secret that is refused: the simulator knows it.
func (o *outages) why(credential int, c credential, at time.Time) refusalKind {
	o.mu.Lock()
	defer o.mu.Unlock()
	digest := secret.New(c.Secret).Digest()
	all := o.issued[credential]
	held := slices.IndexFunc(all, func(i issuance) bool { return i.digest == digest }) // -1 for the first secret
	switch later := len(all) - 1 - held; {
	case !o.w.oneToken:
		return expired // no rotation of a pair touches what clients use
	case later < 2: // it is the current secret or the previous one
		return expired
	case later == 2:
		return cutOff
	}
	return secondLost
}

func (o *outages) end(e outage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = append(o.ended, e)
}

// classify says of each outage what was away at the time, and adds up. It is called at the end, when
// all strikes are known.
func (o *outages) classify() {
	for i := range o.ended {
		e := &o.ended[i]
		var during []string
		for _, s := range o.strikes {
			if s.from.Before(e.to) && s.to.After(e.from.Add(-samplePause)) && (s.credential < 0 || s.credential == e.credential) {
				during = append(during, s.what)
			}
		}
		e.during = strings.Join(during, ", ")
		if e.kind == cutOff && len(during) > 0 {
			e.kind = interrupted
		}
		o.refused[e.kind] += e.samples
		o.longest[e.kind] = max(o.longest[e.kind], e.to.Sub(e.from))
	}
}

// disturb kills the daemon and Vault in turn.
func (o *outages) disturb(t *testing.T) {
	end := time.Now().Add(o.pace.length)
	d := o.w.contestant.(*daemon)
	for n := 0; ; n++ {
		jitter := time.Duration(o.random.Int64N(int64(o.pace.strike / 4)))
		next := o.pace.strike - o.pace.strike/8 + jitter
		if time.Until(end) < next {
			time.Sleep(time.Until(end))
			return
		}
		time.Sleep(next)
		s := strike{what: "daemon", credential: -1, from: time.Now()}
		if n%2 == 0 {
			starts := d.startCount()
			d.kill()
			o.w.kills++
			program.Eventually(t, 10*time.Second, "a daemon that runs again", func() bool { return d.startCount() > starts })
		} else {
			s.what = "Vault"
			o.w.vault.Kill()
			time.Sleep(300 * time.Millisecond)
			o.w.vault.Resume(t)
		}
		s.to = time.Now()
		o.mu.Lock()
		o.strikes = append(o.strikes, s)
		o.mu.Unlock()
	}
}

// outageRow is one line of the table.
type outageRow struct {
	seed     uint64
	strategy string
	kills    int
	vaults   int
	slowest  time.Duration // outage of the daemon or of Vault
	rotated  int
	*outages
}

// TestOutages kills the daemon and Vault in turn, every two seconds, while one rotate answer in seven
// is lost and the sink is away when a reissue is about to start. It counts how often what Vault holds is refused.
func TestOutages(t *testing.T) {
	p := shortOutages
	if *full || *outageLength > 0 {
		p = longOutages
	}
	if *outageLength > 0 {
		p.length = *outageLength
	}
	var (
		rows []outageRow
		mu   sync.Mutex
	)
	for n := range *outageRuns {
		seed := *outageSeed + uint64(n)
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			for _, strategy := range []string{"single", "pair"} {
				if *outageStrategy != strategy && *outageStrategy != "both" {
					continue
				}
				t.Run(strategy, func(t *testing.T) {
					t.Parallel()
					r := playOutages(t, p, seed, strategy)
					mu.Lock()
					defer mu.Unlock()
					rows = append(rows, r)
				})
			}
		})
		if *outageRuns > 1 {
			fmt.Fprint(os.Stderr, outageTable(rows))
		}
	}
	fmt.Print(outageTable(rows))
}

func playOutages(t *testing.T, p outagePace, seed uint64, strategy string) outageRow {
	w := newWorld(t, pace{
		grace: p.grace, periods: slices.Repeat([]time.Duration{p.period}, p.tokens), length: p.length,
	}, scenario{name: "outages"}, strategy == "pair")
	o := &outages{
		w: w, pace: p, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), asked: map[int]int{}, issued: map[int][]issuance{},
		held: map[int]secret.Digest{}, away: map[int]time.Time{}, struckFor: map[secret.Digest]bool{},
		refused: map[refusalKind]int{}, longest: map[refusalKind]time.Duration{},
	}
	w.outages = o
	d := &daemon{w: w, pairs: strategy == "pair"}
	w.contestant = d
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d.start(t)
	var all sync.WaitGroup
	for i := range w.names {
		all.Go(func() { o.sample(ctx, t, i) })
	}
	all.Go(func() { o.watchGraces(ctx) })
	o.disturb(t)
	d.stop(t)
	cancel()
	all.Wait()
	if *outageLogs != "" {
		if err := os.WriteFile(fmt.Sprintf("%s/%s-%d.log", *outageLogs, strategy, seed), []byte(d.text()), 0o600); err != nil {
			t.Error(err)
		}
	}
	r := outageRow{seed: seed, strategy: strategy, kills: w.kills, outages: o}
	o.classify()
	for _, s := range o.strikes {
		if s.what != "sink" {
			r.slowest = max(r.slowest, s.to.Sub(s.from))
		}
		if s.what == "Vault" {
			r.vaults++
		}
	}
	for _, n := range w.sim.Stats().Rotations {
		r.rotated += n
	}
	o.check(t, r)
	return r
}

// check fails if the daemon broke its promise. It ignores refusals if the machine was too slow.
func (o *outages) check(t *testing.T, r outageRow) {
	t.Helper()
	for _, e := range o.ended {
		t.Logf("%s: %s from %s for %s, away at the time: %q", o.w.names[e.credential], e.kind, e.from.UTC().Format("15:04:05.000"),
			e.to.Sub(e.from).Round(time.Millisecond), e.during)
	}
	if bound := o.pace.grace / 4; r.slowest > bound || o.stall > bound {
		t.Logf("the daemon or Vault was away for %s, and a client did not run for %s, at a grace of %s: the machine is too slow to judge refusals",
			r.slowest, o.stall, o.pace.grace)
		return
	}
	if r.kills < 3 || r.vaults < 3 || o.lost == 0 || r.rotated < o.pace.tokens {
		t.Errorf("%d kills, %d outages of Vault, %d lost answers and %d rotations: this proves nothing", r.kills, r.vaults, o.lost, r.rotated)
	}
	for i, name := range o.w.names {
		if !o.w.admitted(t, name) {
			t.Errorf("%s (%d) is locked out at the end", name, i)
		}
	}
	if n := o.refused[expired]; n > 0 {
		t.Errorf("%d samples were refused, for up to %s, since an old secret ended before a reissue was carried out", n, o.longest[expired])
	}
	// The old secret is cut off by a reissue. The new one is in Vault when the daemon or Vault is back.
	bound := r.slowest + emergencySlack
	for _, kind := range []refusalKind{cutOff, interrupted, secondLost} {
		if o.longest[kind] > bound {
			t.Errorf("what Vault held was refused for %s (%s), longer than %s", o.longest[kind], kind, bound)
		}
	}
}

// emergencySlack is how long the daemon may take to deliver, from when it can: an emergency is tried
// every three seconds, and a sink outage may come on top.
const emergencySlack = 8 * time.Second

// outageTable is a line for each run, in Markdown.
func outageTable(rows []outageRow) string {
	slices.SortFunc(rows, func(a, b outageRow) int {
		return strings.Compare(b.strategy+fmt.Sprintf("%09d", 999999-a.seed), a.strategy+fmt.Sprintf("%09d", 999999-b.seed))
	})
	var b strings.Builder
	b.WriteString("\n| tokens | seed | kills | Vault away | slowest | sink away | rotations | answers lost | samples | expired | cut off | interrupted | second lost | not read |\n")
	b.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %s | %d | %d | %d | %d |", r.strategy, r.seed, r.kills, r.vaults, tenths(r.slowest), r.sinks, r.rotated, r.lost, r.samples)
		for _, kind := range []refusalKind{expired, cutOff, interrupted, secondLost, notRead} {
			fmt.Fprintf(&b, " %s |", r.cell(kind))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// cell is the refused samples of a kind, and the longest time of one.
func (o *outages) cell(kind refusalKind) string {
	if o.refused[kind] == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", o.refused[kind], tenths(o.longest[kind]))
}
