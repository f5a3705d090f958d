package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/precheck"
	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/status"
)

// watchSink is a sink in memory.
type watchSink struct {
	w      *watchBench
	name   string
	mu     sync.Mutex
	holds  rotation.Credential
	err    error          // of each look
	hangs  bool           // each look lasts until its context ends
	answer []secret.Value // what the next looks show in place of what it holds
	looks  []time.Time
}

func (s *watchSink) Name() string { return s.name }

func (s *watchSink) Look(ctx context.Context) (rotation.Stored, error) {
	s.w.looking(1)
	defer s.w.looking(-1)
	s.mu.Lock()
	s.looks = append(s.looks, time.Now())
	hangs, err, c := s.hangs, s.err, s.holds
	if len(s.answer) > 0 {
		c.ClientSecret, s.answer = s.answer[0], s.answer[1:]
	}
	s.mu.Unlock()
	time.Sleep(s.w.takes)
	if hangs {
		<-ctx.Done()
		return rotation.Stored{}, ctx.Err()
	}
	if err != nil {
		return rotation.Stored{}, err
	}
	if c.ClientSecret.IsZero() {
		return rotation.Stored{}, nil
	}
	return rotation.Stored{Exists: true, ClientID: c.ClientID, Digest: c.ClientSecret.Digest()}, nil
}

func (s *watchSink) Preflight(ctx context.Context) (rotation.Stored, error) { return s.Look(ctx) }
func (s *watchSink) LookAhead(context.Context) error                        { return nil }

func (s *watchSink) Store(ctx context.Context, d rotation.Delivery) (rotation.Stored, error) {
	s.put(d.ClientSecret.Reveal())
	return s.Look(ctx)
}

func (s *watchSink) ReadBack(context.Context) (rotation.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holds, s.err
}

func (s *watchSink) put(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = rotation.Credential{ClientID: "client", ClientSecret: secret.New(text)}
}

func (s *watchSink) fails(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *watchSink) looked() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.looks)
}

// watchBench is the watch of a daemon whose other parts are in memory. It is also the issuer and the prober.
type watchBench struct {
	*App
	ledger *memoryLedger
	sinks  map[string]*watchSink
	takes  time.Duration // how long a look takes
	facts  rotation.TokenFacts
	vault  error // what the check of Vault says

	mu              sync.Mutex
	running, most   int // looks at the same time
	events          []event.Event
	probe           rotation.Probe
	probed, rotated int
}

func (b *watchBench) looking(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running += n
	b.most = max(b.most, b.running)
}

func (b *watchBench) Ready(context.Context) error { return nil }
func (b *watchBench) Inspect(context.Context, string) (rotation.TokenFacts, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.facts, nil
}

func (b *watchBench) Rotate(context.Context, rotation.RotateRequest) (rotation.Issued, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rotated++
	return rotation.Issued{}, &rotation.IssuerError{Class: rotation.Refused, Operation: "rotate"}
}

func (b *watchBench) SetGrace(context.Context, string, time.Duration) (rotation.TokenFacts, time.Time, error) {
	return b.facts, time.Time{}, nil
}

func (b *watchBench) Probe(context.Context, rotation.Credential) (rotation.Probe, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probed++
	if b.probe == rotation.ProbeGood {
		return b.probe, nil
	}
	return b.probe, errors.New("HTTP 403")
}

// requests returns how often the secret in use was tried.
func (b *watchBench) requests() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.probed
}

func (b *watchBench) probes(p rotation.Probe) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probe = p
}

// watchToken is an entry of the configuration with a sink in a group.
func watchToken(name, group string) config.Token {
	return config.Token{Name: name, Account: "prod", ID: livingID, Schedule: parsed("@every 2000h", "UTC"), Sinks: []config.Sink{
		&config.FileSink{Path: "/" + group + "/" + name, Format: "env"},
	}}
}

// sinkOf returns the sink of a token of watchToken.
func (b *watchBench) sinkOf(c config.Token) *watchSink { return b.sinks[config.SinkName(c.Sinks[0])] }

// tokensOf returns what the core works with.
func (b *watchBench) tokensOf(tokens []config.Token) (all []rotation.Token) {
	for _, t := range tokens {
		token := PlannedToken(t)
		token.Issuer = b
		if t.Verify != nil {
			token.Prober, token.VerifyWithin = b, t.Verify.Within
		}
		for _, s := range t.Sinks {
			name := config.SinkName(s)
			if b.sinks[name] == nil {
				b.sinks[name] = &watchSink{w: b, name: name}
				b.sinks[name].put("cfast_" + t.Name)
			}
			token.Sinks = append(token.Sinks, b.sinks[name])
		}
		all = append(all, token)
	}
	return all
}

// rotatedRecord is the record of a token that was rotated a day ago.
func rotatedRecord(t config.Token, now time.Time) rotation.Record {
	digest := secret.New("cfast_" + t.Name).Digest()
	at := now.Add(-24 * time.Hour).UTC()
	r := rotation.Record{
		Format: rotation.RecordFormat, Revision: 1, Token: t.Name, TokenID: t.ID, Account: t.Account, Anchor: at, Schedule: "@every 2000h in UTC",
		Last:       &rotation.Done{RotationID: "R", At: at, AskedAt: at, Digest: digest},
		Facts:      rotation.TokenFacts{ID: t.ID, ClientID: "client", UpdatedAt: at, Enabled: true},
		MovedCount: 2, OwnUpdatedAt: at, Written: map[string]rotation.Written{},
	}
	for _, s := range t.Sinks {
		r.Written[config.SinkName(s)] = rotation.Written{Digest: digest, ClientID: "client", At: at}
	}
	return r
}

// inWatch runs a test with the watch of a configuration.
func inWatch(t *testing.T, c *config.Config, test func(b *watchBench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		b := &watchBench{ledger: newMemoryLedger(), sinks: map[string]*watchSink{}, takes: time.Millisecond, probe: rotation.ProbeGood}
		log := slog.New(slog.DiscardHandler)
		b.App = &App{now: time.Now, log: log, metrics: httpapi.NewMetrics(httpapi.Build{}), config: c}
		b.App.events = event.NewStream(time.Now, func(_, what string) { t.Error(what) }, b.subscriber())
		b.ahead = precheck.New(time.Now, func(status.Check) {})
		b.engine = newEngine(time.Now, log, b.App.events)
		b.engine.rotator = rotation.New(rotation.Options{Ledger: b.ledger, Pending: nil, Events: b.App.events, Started: now, Owner: "test", Saved: b.engine.show})
		b.watch = newWatch(b.App)
		for _, token := range c.Tokens {
			b.ledger.records[token.Name] = rotatedRecord(token, now)
			b.facts = b.ledger.records[token.Name].Facts
		}
		must(b.engine.enroll(t.Context(), b.tokensOf(c.Tokens)))
		b.ledger.loads, b.ledger.saves = 0, 0
		b.ahead.Set([]precheck.Check{{Name: status.CheckVault, Every: time.Minute, Timeout: time.Second, Look: func(context.Context) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.vault
		}}})
		b.watchSinks()
		defer func() {
			for i := len(b.stopSteps) - 1; i >= 0; i-- {
				must(b.stopSteps[i].stop(context.Background()))
			}
			must(b.ahead.Close(context.Background()))
		}()
		test(b)
	})
}

// subscriber keeps the events of the watch.
func (b *watchBench) subscriber() *event.Subscriber {
	keep := func(e event.Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, e)
	}
	return event.NewSubscriber("test", event.On(func(e event.Event, _ event.SinkFinding) { keep(e) }), event.On(func(e event.Event, _ event.SinkRestore) { keep(e) }),
		event.On(func(e event.Event, _ event.InUseProbe) { keep(e) }))
}

func (b *watchBench) kinds() (all []event.Kind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		all = append(all, e.Kind)
	}
	return all
}

func (b *watchBench) wantKinds(t *testing.T, want ...event.Kind) {
	t.Helper()
	if got := b.kinds(); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func watchConfig(tokens ...config.Token) *config.Config {
	return &config.Config{WatchEvery: 15 * time.Minute, Tokens: tokens}
}

// TestWatchIsCheap: each of 10,000 sinks is read once in a period, evenly spread, few at a time. The ledger is not
// asked. Each sink has the same place in the period after a restart.
func TestWatchIsCheap(t *testing.T) {
	if racedetector.On {
		t.Skip("it takes too long with the race detector, and runs without")
	}
	const n, periods = 10_000, 2
	var tokens []config.Token
	for i := range n {
		tokens = append(tokens, watchToken(fmt.Sprint("t", i), "d"))
	}
	phase := map[string]time.Duration{}
	for run := range 2 {
		inWatch(t, watchConfig(tokens...), func(b *watchBench) {
			began := time.Now()
			time.Sleep(periods * 15 * time.Minute)
			if loads, saves := b.ledger.counts(); loads != 0 || saves != 0 {
				t.Errorf("the ledger was read %d times and written %d times", loads, saves)
			}
			perMinute := map[int]int{}
			for _, sink := range b.sinks {
				looks := sink.looked()
				if len(looks) != periods {
					t.Fatalf("%s: %d looks in %d periods", sink.name, len(looks), periods)
				}
				for _, at := range looks {
					perMinute[int(at.Sub(began)/time.Minute)]++
				}
				at := looks[0].Sub(began)
				if run == 0 {
					phase[sink.name] = at
				} else if d := (at - phase[sink.name]).Abs(); d > time.Second {
					t.Fatalf("%s: another place in the period, %s and %s", sink.name, phase[sink.name], at)
				}
			}
			busiest := 0
			for _, count := range perMinute {
				busiest = max(busiest, count)
			}
			if mean := n / 15; busiest > mean*13/10 || len(perMinute) != periods*15 {
				t.Errorf("up to %d looks in a minute of %d minutes, %d on average", busiest, len(perMinute), mean)
			}
			b.mu.Lock()
			most := b.most
			b.mu.Unlock()
			if most > watchPerGroup {
				t.Errorf("%d looks at the same time", most)
			}
			every, oldest := b.watch.state()
			if every != 15*time.Minute || time.Since(oldest) > 16*time.Minute {
				t.Errorf("%s, %s ago", every, time.Since(oldest))
			}
		})
	}
}

// TestWatchNeedsTwoLooks: what one look shows alone is not recorded. What two looks show is, within a period and a
// bit more than a minute, and told once. The end is seen in the same way.
func TestWatchNeedsTwoLooks(t *testing.T) {
	ci := watchToken("ci", "d")
	inWatch(t, watchConfig(ci), func(b *watchBench) {
		sink := b.sinkOf(ci)
		sink.mu.Lock()
		sink.answer = []secret.Value{secret.New("stale")} // a standby that is behind
		sink.mu.Unlock()
		time.Sleep(30 * time.Minute)
		b.wantKinds(t)
		sink.put("cfast_other")
		time.Sleep(17 * time.Minute)
		b.wantKinds(t, event.SinkChanged)
		_, saves := b.ledger.counts()
		time.Sleep(2 * time.Hour)
		if _, again := b.ledger.counts(); again != saves || saves != 1 {
			t.Errorf("the ledger was written %d times, then %d times", saves, again)
		}
		shown := b.token("ci")
		if f := shown.Findings; len(f) != 1 || f[0].Kind != "changed" || f[0].What == "" || f[0].WantDigest == "" || !slices.Equal(shown.Troubles, []string{"sink_changed"}) {
			t.Errorf("%+v, %q", f, shown.Troubles)
		}
		if !slices.ContainsFunc(shown.ToDo, func(d status.ToDo) bool { return d.Command == "rotatord resolve ci --accept" }) {
			t.Errorf("%+v", shown.ToDo)
		}
		sink.put("cfast_ci")
		time.Sleep(17 * time.Minute)
		b.wantKinds(t, event.SinkChanged, event.SinkAsWritten)
		if b.rotated > 0 || len(b.token("ci").Findings) > 0 {
			t.Error(b.token("ci"))
		}
	})
}

// TestWatchSeesARestlessWriter: a sink whose secret is another one at each look is a finding.
func TestWatchSeesARestlessWriter(t *testing.T) {
	ci := watchToken("ci", "d")
	inWatch(t, watchConfig(ci), func(b *watchBench) {
		sink := b.sinkOf(ci)
		for n := range 17 * 2 {
			sink.put(fmt.Sprint("cfast_other", n))
			time.Sleep(30 * time.Second)
		}
		b.wantKinds(t, event.SinkChanged)
		sink.put("cfast_ci")
		time.Sleep(17 * time.Minute)
		b.wantKinds(t, event.SinkChanged, event.SinkAsWritten)
	})
}

// TestWatchPauses: no look begins while Vault cannot be used, or while the token is worked on; what was in progress
// during a look is not compared.
func TestWatchPauses(t *testing.T) {
	ci := watchToken("ci", "d")
	inWatch(t, watchConfig(ci), func(b *watchBench) {
		sink := b.sinkOf(ci)
		needsVault := func(needs bool) { // no look is in progress
			synctest.Wait()
			b.watch.mu.Lock()
			defer b.watch.mu.Unlock()
			b.watch.items["ci\x00"+sink.name].needsVault = needs
		}
		needsVault(true)
		b.mu.Lock()
		b.vault = errors.New("sealed")
		b.mu.Unlock()
		sink.put("cfast_other")
		time.Sleep(time.Hour)
		if n := len(sink.looked()); n > 1 { // one before the check has failed
			t.Errorf("%d looks while Vault is sealed", n)
		}
		needsVault(false)
		b.mu.Lock()
		b.vault = nil
		b.mu.Unlock()
		before := len(sink.looked())
		if _, ok := b.engine.acquire("ci"); !ok {
			t.Fatal("no token")
		}
		time.Sleep(time.Hour)
		if n := len(sink.looked()); n != before {
			t.Errorf("%d looks while the token is worked on", n-before)
		}
		b.engine.release("ci")
		b.wantKinds(t)
		time.Sleep(17 * time.Minute)
		b.wantKinds(t, event.SinkChanged)
	})
}

// TestHangingSinkDelaysNoOther: sinks of one group that hang take no place of the others. Each counts as unreadable
// in the end, unless a look-ahead check of its group says why.
func TestHangingSinkDelaysNoOther(t *testing.T) {
	tokens := []config.Token{watchToken("good", "other")}
	for i := range 200 {
		tokens = append(tokens, watchToken(fmt.Sprint("bad", i), "hangs"))
	}
	inWatch(t, watchConfig(tokens...), func(b *watchBench) {
		for name, sink := range b.sinks {
			sink.mu.Lock()
			sink.hangs = strings.HasPrefix(name, "file:/hangs")
			sink.mu.Unlock()
		}
		time.Sleep(2 * time.Hour)
		good := b.sinkOf(tokens[0]).looked()
		if len(good) != 8 {
			t.Errorf("%d looks at the sink that does not hang", len(good))
		}
		b.mu.Lock()
		most := b.most
		b.mu.Unlock()
		if most > watchPerGroup+1 {
			t.Errorf("%d looks at the same time", most)
		}
		if n := len(b.kinds()); n < 100 || b.kinds()[0] != event.SinkUnreadable {
			t.Errorf("%d of 200 are found to be unreadable", n)
		}
	})
}

// TestUnreadableAfterSeveralTries: a sink that fails for a moment, or whose group fails a look-ahead check, leads to
// no finding. One that fails for minutes is.
func TestUnreadableAfterSeveralTries(t *testing.T) {
	ci := watchToken("ci", "d")
	inWatch(t, watchConfig(ci), func(b *watchBench) {
		sink := b.sinkOf(ci)
		denied := errors.New("permission denied")
		for range 5 { // for two minutes each time
			for len(sink.looked()) == 0 || time.Since(sink.looked()[len(sink.looked())-1]) > time.Second {
				time.Sleep(time.Second)
			}
			sink.fails(denied)
			time.Sleep(15*time.Minute + 2*time.Minute)
			sink.fails(nil)
			time.Sleep(20 * time.Minute)
		}
		b.wantKinds(t)
		checked := precheck.Check{Name: status.CheckSink, Subject: ci.Sinks[0].Group(), Every: time.Minute, Timeout: time.Second, Look: func(context.Context) error { return denied }}
		b.ahead.Set([]precheck.Check{checked})
		sink.fails(denied)
		time.Sleep(2 * time.Hour)
		b.wantKinds(t)
		b.ahead.Set(nil)
		time.Sleep(30 * time.Minute)
		b.wantKinds(t, event.SinkUnreadable)
		if f := b.token("ci").Findings; len(f) != 1 || f[0].Error != "permission denied" {
			t.Errorf("%+v", f)
		}
		sink.fails(nil)
		time.Sleep(17 * time.Minute)
		b.wantKinds(t, event.SinkUnreadable, event.SinkAsWritten)
	})
}

// TestHangingSinkIsUnreadable: a sink whose looks never end is a finding as well.
func TestHangingSinkIsUnreadable(t *testing.T) {
	ci := watchToken("ci", "d")
	inWatch(t, watchConfig(ci), func(b *watchBench) {
		sink := b.sinkOf(ci)
		sink.mu.Lock()
		sink.hangs = true
		sink.mu.Unlock()
		time.Sleep(45 * time.Minute)
		b.wantKinds(t, event.SinkUnreadable)
	})
}

// TestWatchRestores: with outside_change: restore the secret is back right after it was found, from another sink.
func TestWatchRestores(t *testing.T) {
	ci := watchToken("ci", "d")
	ci.Sinks = append(ci.Sinks, &config.FileSink{Path: "/e/ci", Format: "env"})
	ci.Restore = true
	inWatch(t, watchConfig(ci), func(b *watchBench) {
		sink := b.sinkOf(ci)
		sink.put("cfast_other")
		time.Sleep(17 * time.Minute)
		if got, _ := sink.ReadBack(t.Context()); got.ClientSecret.Reveal() != "cfast_ci" {
			t.Error("not restored")
		}
		b.wantKinds(t, event.SinkChanged, event.SinkRestored)
		if shown := b.token("ci"); len(shown.Findings) > 0 || shown.RestoredAt.IsZero() || b.rotated > 0 {
			t.Errorf("%+v", shown)
		}
		b.mu.Lock()
		b.facts.UpdatedAt = time.Now().UTC() // others have rotated it
		b.mu.Unlock()
		sink.put("cfast_theirs")
		time.Sleep(2 * time.Hour)
		if got, _ := sink.ReadBack(t.Context()); got.ClientSecret.Reveal() != "cfast_theirs" {
			t.Error("restored over the secret of others")
		}
		if shown := b.token("ci"); shown.NotRestored == "" || shown.Outside.IsZero() {
			t.Errorf("%+v", shown)
		}
	})
}

// TestWatchTakesOverAReload: new sinks are watched, removed ones are not, and another period counts at once. What
// was seen of a sink that stays is kept.
func TestWatchTakesOverAReload(t *testing.T) {
	ci, gone := watchToken("ci", "d"), watchToken("gone", "d")
	inWatch(t, watchConfig(ci, gone), func(b *watchBench) {
		time.Sleep(20 * time.Minute)
		added := watchToken("added", "d")
		b.ledger.records["added"] = rotatedRecord(added, time.Now())
		next := watchConfig(added, ci)
		must(b.engine.replaceTokens(b.tokensOf([]config.Token{added}), []string{"gone"}))
		b.engine.enrollReloaded(t.Context(), b.tokensOf([]config.Token{added}))
		b.App.config = next
		kept := b.watch.items["ci\x00"+config.SinkName(ci.Sinks[0])]
		b.watch.set(next)
		if b.watch.items[kept.key] != kept || len(b.watch.items) != 2 {
			t.Errorf("%v", b.watch.items)
		}
		before := len(b.sinkOf(gone).looked())
		time.Sleep(time.Hour)
		if got := len(b.sinkOf(gone).looked()); got != before {
			t.Errorf("%d looks at a sink that was removed", got-before)
		}
		if got := len(b.sinkOf(added).looked()); got != 4 {
			t.Errorf("%d looks in an hour at a sink that was added", got)
		}
		fast := *next
		fast.WatchEvery = time.Minute
		if err := asksForRestart(next, &fast); err != nil {
			t.Error(err)
		}
		b.watch.set(&fast)
		before = len(b.sinkOf(ci).looked())
		time.Sleep(10 * time.Minute)
		if got := len(b.sinkOf(ci).looked()) - before; got != 10 {
			t.Errorf("%d looks in ten minutes", got)
		}
		off := *next
		off.WatchEvery = 0
		b.watch.set(&off)
		before = len(b.sinkOf(ci).looked())
		time.Sleep(time.Hour)
		if got := len(b.sinkOf(ci).looked()) - before; got != 0 {
			t.Errorf("%d looks although the watch is off", got)
		}
	})
}

// TestSecretInUseIsTriedAgain: a bad minute of the edge raises no alarm; a secret that stays refused is, once. It rotates
// nothing, and ends with the first request that is accepted. A sink that holds another secret is looked at, and that
// secret is not sent.
func TestSecretInUseIsTriedAgain(t *testing.T) {
	ci := watchToken("ci", "d")
	ci.Verify = &config.Verify{URL: "https://app", Within: time.Minute, Every: time.Hour}
	inWatch(t, watchConfig(ci), func(b *watchBench) {
		time.Sleep(24 * time.Hour)
		if b.requests() != 24 {
			t.Errorf("%d requests in a day", b.requests())
		}
		untilProbe := func() {
			for before := b.requests(); b.requests() == before; {
				time.Sleep(time.Second)
			}
		}
		for range 3 {
			untilProbe()
			b.probes(rotation.ProbeBad)
			time.Sleep(time.Hour + 3*time.Minute)
			b.probes(rotation.ProbeGood)
			time.Sleep(10 * time.Minute)
		}
		b.probes(rotation.ProbeUnknown)
		time.Sleep(12 * time.Hour)
		b.wantKinds(t)
		b.probes(rotation.ProbeBad)
		time.Sleep(5 * time.Hour)
		b.wantKinds(t, event.InUseRefused)
		if shown := b.token("ci"); shown.RefusedInUse == nil || shown.RefusedInUse.Error != "HTTP 403" || !slices.Equal(shown.Troubles, []string{"refused_in_use"}) {
			t.Errorf("%+v", shown)
		}
		b.probes(rotation.ProbeGood)
		time.Sleep(10 * time.Minute)
		b.wantKinds(t, event.InUseRefused, event.InUseAccepted)
		b.sinkOf(ci).put("cfast_other")
		untilNow := b.requests()
		time.Sleep(3 * time.Hour)
		if b.requests() != untilNow || b.rotated > 0 {
			t.Errorf("%d requests with a secret that rotatord did not write, %d rotations", b.requests()-untilNow, b.rotated)
		}
		b.wantKinds(t, event.InUseRefused, event.InUseAccepted, event.SinkChanged)
	})
}
