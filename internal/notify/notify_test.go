package notify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/kvstore"
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/notify"
	"rotatord/internal/status"
)

// inbox is a receiver that notes what it gets. Its answer is what reply returns; nil for taken.
type inbox struct {
	mu    sync.Mutex
	got   []notify.Message
	tries []string // the id of each attempt
	reply func(n int) error
}

func (i *inbox) Send(_ context.Context, m *notify.Message) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tries = append(i.tries, m.ID)
	if i.reply != nil {
		if err := i.reply(len(i.tries)); err != nil {
			return err
		}
	}
	i.got = append(i.got, *m)
	return nil
}

// attempts returns the id of each attempt.
func (i *inbox) attempts() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.tries)
}

// take returns the titles of the messages since the last call.
func (i *inbox) take() (titles []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, m := range i.got {
		titles = append(titles, m.Title)
	}
	i.got = nil
	return titles
}

// world is what a daemon knows, and its notifier.
type world struct {
	t       *testing.T
	dir     string
	mu      sync.Mutex
	tokens  map[string]status.Token
	checks  []status.Check
	listed  bool
	events  []event.Detail
	options notify.Options
}

func newWorld(t *testing.T) *world {
	return &world{t: t, dir: filepath.Join(t.TempDir(), "notify"), tokens: map[string]status.Token{}, listed: true}
}

func (w *world) set(name string, change func(*status.Token)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := status.Token{Name: name, Account: "prod", State: "idle", Known: true, Enabled: true}
	if change != nil {
		change(&t)
	}
	w.tokens[name] = t
}

// change changes what the daemon knows.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func failing(t *status.Token) { t.Failures = 1 }
func doubtful(t *status.Token) {
	t.Doubt = &status.Doubt{Since: time.Now(), OldWorksUntil: time.Now().Add(time.Hour)}
}
func gone(t *status.Token) { t.Gone = true }

// start runs a notifier with one receiver until stop is called, as a process would.
func (w *world) start(in notify.Sender, c config.Receiver, change ...func(*notify.Options)) (n *notify.Notifier, stop func()) {
	started := time.Now()
	o := w.options
	o.Dir, o.Observer = w.dir, nil
	o.Look = func() notify.Snapshot {
		w.mu.Lock()
		defer w.mu.Unlock()
		listed := w.listed
		s := notify.Snapshot{At: time.Now(), Started: started, Checks: slices.Clone(w.checks), Listed: func(string) bool { return listed }}
		for _, t := range w.tokens {
			s.Tokens = append(s.Tokens, t)
		}
		slices.SortFunc(s.Tokens, func(a, b status.Token) int { return strings.Compare(a.Name, b.Name) })
		return s
	}
	o.Tell = func(d event.Detail) { w.mu.Lock(); defer w.mu.Unlock(); w.events = append(w.events, d) }
	for _, f := range change {
		f(&o)
	}
	n = notify.New(o)
	notify.SetWith(n, in, c)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); n.Run(ctx) }()
	return n, func() { cancel(); <-ended }
}

// all is a receiver with the defaults.
func all(name string) config.Receiver {
	return config.Receiver{Name: name, Kind: &config.Webhook{}, On: config.Topics, Repeat: 24 * time.Hour, Group: 30 * time.Second, Wait: 5 * time.Minute}
}

// want compares what came with what should have.
func want(t *testing.T, in *inbox, titles ...string) {
	t.Helper()
	if got := in.take(); !slices.Equal(got, titles) {
		t.Fatalf("got %q, want %q", got, titles)
	}
}

// TestLife: news is grouped, told once, told again after repeat and after a restart only then, and its end is told.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, in := newWorld(t), &inbox{}
		w.set("a", nil)
		w.set("b", nil)
		_, stop := w.start(in, all("night"))
		time.Sleep(time.Hour)
		want(t, in) // nothing is wrong
		w.set("a", doubtful)
		time.Sleep(10 * time.Second)
		w.set("b", doubtful)
		time.Sleep(10 * time.Second)
		want(t, in)
		time.Sleep(time.Minute)
		want(t, in, "a, b: in doubt")
		time.Sleep(23 * time.Hour)
		want(t, in)
		stop()

		_, stop = w.start(in, all("night"))
		time.Sleep(50 * time.Minute)
		want(t, in) // a restart tells nothing again
		time.Sleep(15 * time.Minute)
		want(t, in, "a, b: still in doubt")
		w.set("a", nil)
		time.Sleep(2 * time.Minute)
		want(t, in, "a: no longer in doubt")
		w.set("b", gone)
		time.Sleep(2 * time.Minute)
		want(t, in, "b: gone (and 1 more)")
		stop()
		w.set("b", nil)
		w.change(func() { w.listed = false }) // the next process does not know yet what Cloudflare has
		_, stop = w.start(in, all("night"))
		time.Sleep(5 * time.Minute)
		want(t, in)
		w.change(func() { w.listed = true })
		time.Sleep(time.Minute)
		want(t, in, "b: Cloudflare has the service token, or the configuration names another one")
		stop()
	})
}

// TestWait: a warning is told once it has lasted, what ends before is not told, and what flaps within group neither.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, in := newWorld(t), &inbox{}
		w.set("a", failing)
		_, stop := w.start(in, all("night"))
		defer stop()
		time.Sleep(4 * time.Minute)
		w.set("a", nil)
		time.Sleep(10 * time.Minute)
		want(t, in)
		w.set("a", failing)
		time.Sleep(5*time.Minute - time.Second)
		want(t, in)
		time.Sleep(time.Minute)
		want(t, in, "a: failing")
		w.set("a", nil)
		time.Sleep(16 * time.Second)
		w.set("a", failing)
		time.Sleep(time.Hour)
		want(t, in) // it was away for a moment
		w.set("a", func(t *status.Token) { t.State, t.Failures, t.GraceEnd = "sealed", 1, time.Now().Add(5*time.Hour) })
		time.Sleep(10 * time.Minute)
		want(t, in, "a: not delivered (and 1 more)")
		time.Sleep(4 * time.Hour)
		want(t, in, "a: grace ending") // worse, in the same topic
	})
}

// TestTopics: a receiver is told what it wants, of the tokens that it wants.
func TestTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, in := newWorld(t), &inbox{}
		c := all("night")
		c.On, c.Tokens, c.Wait = []string{config.TopicGone, config.TopicFailing}, []string{"ci-*"}, 0
		_, stop := w.start(in, c)
		defer stop()
		w.change(func() {
			w.checks = []status.Check{{Name: status.CheckVault, LookedAt: time.Now(), Since: time.Now(), Stops: true, Detail: "sealed"}}
		})
		w.set("ci-a", gone)
		w.set("ci-b", failing)
		w.set("ci-c", doubtful)
		w.set("x", gone)
		time.Sleep(2 * time.Minute)
		want(t, in, "ci-a: gone (and 1 more)")
		w.set("ci-a", nil)
		time.Sleep(2 * time.Minute)
		want(t, in) // recovered is not wanted
		w.set("ci-a", gone)
		time.Sleep(2 * time.Minute)
		want(t, in, "ci-a: gone")
	})
}

// TestChecks: checks are told with their detail, and that they are good again once they were looked at.
func TestChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, in := newWorld(t), &inbox{}
		bad := []status.Check{{Name: status.CheckSink, Subject: "vault:secret", LookedAt: time.Now(), Since: time.Now(), Stops: true, Detail: "permission denied cfast_" + strings.Repeat("Ab12", 12)},
			{Name: status.CheckNotify, Subject: "night", LookedAt: time.Now(), Since: time.Now(), Detail: "HTTP 500"}, {Name: status.CheckNotify, Subject: "other", LookedAt: time.Now(), Since: time.Now(), Detail: "HTTP 500"}}
		w.change(func() { w.checks = bad })
		_, stop := w.start(in, all("night"))
		time.Sleep(6 * time.Minute)
		in.mu.Lock()
		text, _ := json.Marshal(in.got)
		in.mu.Unlock()
		if strings.Contains(string(text), "cfast_") || !strings.Contains(string(text), "permission denied") {
			t.Errorf("%s", text)
		}
		want(t, in, "receiver of notifications other: fails (and 1 more)") // its own trouble it is not told
		stop()
		w.change(func() { w.checks = nil }) // not looked at since the start
		_, stop = w.start(in, all("night"))
		defer stop()
		time.Sleep(10 * time.Minute)
		want(t, in)
		for i := range bad {
			bad[i].OK = true
		}
		w.change(func() { w.checks = bad })
		time.Sleep(2 * time.Minute)
		want(t, in, "receiver of notifications other: good again (and 1 more)")
	})
}

// TestHappened: what has no state is told once, and what has one is told by its state.
func TestHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, in := newWorld(t), &inbox{}
		w.set("a", nil)
		w.set("b", nil)
		n, stop := w.start(in, all("night"))
		time.Sleep(time.Second)
		publish := func(token string, d event.Detail) {
			n.Subscriber().Handle(event.New(time.Now(), token, event.Daemon, d))
		}
		publish("a", event.OutsideChange{})
		publish("b", event.OutsideRotation{})
		w.set("b", func(t *status.Token) { t.Outside = time.Now() })
		time.Sleep(20 * time.Second)
		stop() // before the message is made: it is written down
		_, stop = w.start(in, all("night"))
		defer stop()
		time.Sleep(2 * time.Minute)
		want(t, in, "b: rotated outside (and 1 more)")
		time.Sleep(time.Hour)
		want(t, in)
	})
}

// TestHappenedAtTheStop: what happens right before the stop, such as a secret that is lost, is told by the next process.
func TestHappenedAtTheStop(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			w, in := newWorld(t), &inbox{}
			n, stop := w.start(in, all("night"))
			time.Sleep(time.Minute)
			n.Subscriber().Handle(event.New(time.Now(), "", event.Daemon, event.Loss{Err: errors.New("disk full")}))
			stop()
			_, stop = w.start(in, all("night"))
			defer stop()
			time.Sleep(2 * time.Minute)
			if got := in.take(); len(got) != 1 || !strings.Contains(got[0], "lost") {
				t.Fatalf("%q", got)
			}
		})
	}
}

// TestReceiverIsDown: the message is sent again with its id until it is taken, with growing pauses, and what follows is told then.
func TestReceiverIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		w, in := newWorld(t), &inbox{}
		in.reply = func(int) error {
			if !up.Load() {
				return errors.New("HTTP 503")
			}
			return nil
		}
		w.set("a", doubtful)
		n, stop := w.start(in, all("night"))
		time.Sleep(2 * time.Hour)
		if err := n.Problem("night"); err == nil || !strings.Contains(err.Error(), "HTTP 503") {
			t.Errorf("%v", err)
		}
		w.set("b", gone)
		stop()
		tries := in.attempts()
		if len(tries) < 20 || len(tries) > 40 || len(slices.Compact(tries)) != 1 {
			t.Errorf("attempts in two hours: %q", in.attempts())
		}
		_, stop = w.start(in, all("night"))
		time.Sleep(time.Minute)
		up.Store(true)
		time.Sleep(10 * time.Minute)
		want(t, in, "a: in doubt", "b: gone")
		if ids := slices.Compact(in.attempts()); len(ids) != 2 {
			t.Errorf("%q", ids)
		}
		stop()
		w.count(event.NotificationFailed, 2) // once in each process
		w.count(event.NotificationDelivered, 2)
	})
}

// count compares how often a kind of event was told.
func (w *world) count(k event.Kind, want int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, d := range w.events {
		if event.New(time.Now(), "", event.Daemon, d).Kind == k {
			n++
		}
	}
	if n != want {
		w.t.Errorf("%s was told %d times, want %d", k, n, want)
	}
}

// TestRefused: a message that is refused is given up after five attempts. Its news is not lost: it is told with the next
// news, after repeat, or when an operator's test has shown that the receiver takes messages.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := true
		w, in := newWorld(t), &inbox{}
		in.reply = func(int) error {
			if bad {
				return &notify.RefusedError{Err: errors.New("HTTP 404")}
			}
			return nil
		}
		w.set("a", doubtful)
		_, stop := w.start(in, all("night"))
		time.Sleep(12 * time.Hour)
		if len(in.attempts()) != 5 {
			t.Fatalf("%d attempts", len(in.attempts()))
		}
		w.count(event.NotificationGivenUp, 1)
		w.set("b", gone) // other news
		time.Sleep(time.Hour)
		if len(in.attempts()) != 10 {
			t.Fatalf("%d attempts", len(in.attempts()))
		}
		stop()
		bad = false
		n, stopAgain := w.start(in, all("night"))
		defer stopAgain()
		time.Sleep(time.Hour)
		want(t, in) // both are given up, and nothing else is wrong
		if _, err := n.Test(t.Context(), "other"); !errors.Is(err, notify.ErrNoReceiver) {
			t.Errorf("%v", err)
		}
		tested, err := n.Test(t.Context(), "")
		if err != nil || len(tested) != 1 || tested[0].Error != "" {
			t.Fatalf("%v, %v", tested, err)
		}
		time.Sleep(2 * time.Minute)
		want(t, in, "a test message", "b: gone (and 1 more)")
	})
}

// TestRefusedHappened: what happened is not lost with a message that is refused. It is told with the next news, and not before.
func TestRefusedHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := true
		w, in := newWorld(t), &inbox{}
		in.reply = func(int) error {
			if bad {
				return &notify.RefusedError{Err: errors.New("HTTP 404")}
			}
			return nil
		}
		w.set("a", nil)
		n, stop := w.start(in, all("night"))
		defer stop()
		time.Sleep(time.Second)
		n.Subscriber().Handle(event.New(time.Now(), "a", event.Daemon, event.OutsideChange{}))
		time.Sleep(12 * time.Hour)
		if len(in.attempts()) != 5 {
			t.Fatalf("%d attempts", len(in.attempts()))
		}
		bad = false
		w.set("b", gone)
		time.Sleep(2 * time.Minute)
		want(t, in, "b: gone (and 1 more)")
		time.Sleep(48 * time.Hour)
		want(t, in, "b: still gone", "b: still gone")
	})
}

// readOnly is a shared store that can be made to take no writes.
type readOnly struct {
	notify.Store
	on *atomic.Bool
}

func (r readOnly) Put(ctx context.Context, path string, data any, version int) (kvstore.Entry, error) {
	if r.on.Load() {
		return kvstore.Entry{}, errors.New("permission denied")
	}
	return r.Store.Put(ctx, path, data, version)
}

// TestTakenAndNotNoted: a message that was taken is not sent again while the shared store takes no writes.
func TestTakenAndNotNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, in := newWorld(t), &inbox{}
		var on atomic.Bool
		in.reply = func(int) error { on.Store(true); return nil } // right before the note
		w.set("a", doubtful)
		kv := new(kvtest.Server)
		n, stop := w.start(in, all("night"), func(o *notify.Options) {
			o.Shared, o.Replica, o.Turn = readOnly{kv.Client(nil), &on}, "r0", func(string) bool { return true }
		})
		defer stop()
		time.Sleep(10 * time.Minute)
		want(t, in, "a: in doubt")
		for range 100 { // also while it is tried again
			if err := n.Problem("night"); err == nil || !strings.Contains(err.Error(), "permission denied") {
				t.Fatalf("%v", err)
			}
			time.Sleep(time.Second)
		}
		on.Store(false)
		time.Sleep(10 * time.Minute)
		want(t, in)
		synctest.Wait()
		if err := n.Problem("night"); err != nil {
			t.Error(err)
		}
		w.count(event.NotificationDelivered, 1)
	})
}

// TestStateCannotBeKept: a disk that takes nothing is what has to be told, so it is told.
func TestStateCannotBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, in := newWorld(t), &inbox{}
		if err := os.WriteFile(w.dir, nil, 0o600); err != nil { // no directory can be there
			t.Fatal(err)
		}
		w.set("a", doubtful)
		n, stop := w.start(in, all("night"))
		defer stop()
		time.Sleep(3 * time.Hour)
		want(t, in, "a: in doubt")
		if err := n.Problem("night"); err == nil || !strings.Contains(err.Error(), "cannot be written down") {
			t.Errorf("%v", err)
		}
	})
}

// TestDamagedState: a file that cannot be read is kept aside, and the receiver is told everything again.
func TestDamagedState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for i, content := range []string{"", "{", `{"format":2}`, "\x00", `[]`, "null", `{"format":1,"outbox":{"id":"x\r\nBcc: x@example.com","title":"x"}}`} {
			w, in := newWorld(t), &inbox{}
			if err := os.MkdirAll(w.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(w.dir, "night.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			w.set("a", doubtful)
			_, stop := w.start(in, all("night"))
			time.Sleep(2 * time.Minute)
			stop()
			want(t, in, "a: in doubt")
			if kept, err := os.ReadFile(path + ".damaged"); content != "null" && (err != nil || string(kept) != content) {
				t.Errorf("%d: %q, %v", i, kept, err)
			}
		}
	})
}

// TestTenThousand: so many tokens in trouble at once are one small message, and one more when it is over.
func TestTenThousand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, in := newWorld(t), &inbox{}
		each := func(change func(*status.Token)) {
			for i := range 10_000 {
				w.set(fmt.Sprintf("token-%05d", i), change)
			}
		}
		each(doubtful)
		_, stop := w.start(in, all("night"))
		time.Sleep(2 * time.Minute)
		in.mu.Lock()
		for _, m := range in.got {
			body, err := json.Marshal(m)
			if n := m.News[0]; err != nil || n.TokenCount != 10_000 || len(n.Tokens) != 10 || len(body) > 4<<10 {
				t.Errorf("%d bytes: %s", len(body), body)
			}
		}
		in.mu.Unlock()
		want(t, in, "10000 tokens: in doubt")
		stop()
		info, err := os.Stat(filepath.Join(w.dir, "night.json"))
		if err != nil || info.Size() > 3<<20 {
			t.Errorf("%v, %v", info, err)
		}
		t.Logf("the file has %d bytes", info.Size())
		_, stop = w.start(in, all("night"))
		defer stop()
		each(nil)
		time.Sleep(2 * time.Minute)
		want(t, in, "10000 tokens: no longer in doubt")
	})
}

// TestReplicas: one of two replicas tells about tokens, and another goes on where it stopped. What one process knows alone, each tells.
func TestReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		kv := new(kvtest.Server)
		inboxes := map[string]*inbox{"r0": {}, "r1": {}}
		var turn atomic.Value // the name of the replica whose turn it is
		turn.Store("r0")
		stops := map[string]func(){}
		for _, name := range []string{"r0", "r1"} {
			_, stops[name] = w.start(inboxes[name], all("night"), func(o *notify.Options) {
				o.Shared, o.Replica, o.Turn = kv.Client(nil), name, func(string) bool { return turn.Load() == name }
				o.Dir = filepath.Join(filepath.Dir(w.dir), name)
			})
		}
		w.set("a", doubtful)
		time.Sleep(2 * time.Minute)
		want(t, inboxes["r0"], "a: in doubt")
		want(t, inboxes["r1"])
		turn.Store("r1")
		time.Sleep(10 * time.Minute)
		want(t, inboxes["r1"]) // it knows what was told
		w.set("a", nil)
		w.change(func() {
			w.checks = []status.Check{{Name: status.CheckClock, LookedAt: time.Now(), Since: time.Now(), Detail: "set"}}
		})
		time.Sleep(2 * time.Minute)
		want(t, inboxes["r1"], "a: no longer in doubt")
		want(t, inboxes["r0"])
		time.Sleep(10 * time.Minute)
		want(t, inboxes["r0"], "clock: fails")
		want(t, inboxes["r1"], "clock: fails")
		for _, stop := range stops {
			stop()
		}
	})
}

// wantEnd checks the last message that came. In a test in which two replicas have the turn, both may send one that is in the
// outbox.
func wantEnd(t *testing.T, in *inbox, title string) {
	t.Helper()
	if got := in.take(); len(got) == 0 || got[len(got)-1] != title {
		t.Errorf("got %q, want %q at the end", got, title)
	}
}

// TestShortTurn: the turn of another replica begins and ends while this one does nothing. It still tells the end of what that
// one has told.
func TestShortTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		kv := new(kvtest.Server)
		inboxes, stops := map[string]*inbox{"r0": {}, "r1": {}}, map[string]func(){}
		for _, name := range []string{"r1", "r0"} {
			receiver := all("night")
			if name == "r1" { // it collects news while r0 tells them
				receiver.Group = 10 * time.Minute
			}
			_, stops[name] = w.start(inboxes[name], receiver, func(o *notify.Options) {
				o.Shared, o.Replica, o.Turn = kv.Client(nil), name, func(string) bool { return true }
				o.Dir = filepath.Join(filepath.Dir(w.dir), name)
			})
			time.Sleep(time.Minute) // both have read what was told
		}
		defer stops["r1"]()
		w.set("a", doubtful)
		time.Sleep(2 * time.Minute)
		want(t, inboxes["r0"], "a: in doubt")
		stops["r0"]()
		w.set("a", nil)
		time.Sleep(20 * time.Minute)
		wantEnd(t, inboxes["r1"], "a: no longer in doubt")
	})
}

// TestReload: a receiver that is changed goes on with what it was told, and one that is removed gets nothing more.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, in := newWorld(t), &inbox{}
		w.set("a", doubtful)
		n, stop := w.start(in, all("night"))
		defer stop()
		time.Sleep(2 * time.Minute)
		want(t, in, "a: in doubt")
		changed := all("night")
		changed.Group = time.Second
		notify.SetWith(n, in, changed)
		time.Sleep(10 * time.Minute)
		want(t, in)
		n.Set(nil)
		w.set("b", gone)
		time.Sleep(10 * time.Minute)
		want(t, in)
		if n.Problem("night") != nil {
			t.Error("a receiver that is removed has a problem")
		}
	})
}

// senderFunc is a sender that is a function.
type senderFunc func(*notify.Message) error

func (f senderFunc) Send(_ context.Context, m *notify.Message) error { return f(m) }

// TestReloadDuringARequest: a receiver that is changed, or removed and added again, while it takes a message is not sent
// that message again.
func TestReloadDuringARequest(t *testing.T) {
	for name, removed := range map[string]bool{"changed": false, "removed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent atomic.Int32
				slow := senderFunc(func(*notify.Message) error { sent.Add(1); time.Sleep(time.Minute); return nil })
				w := newWorld(t)
				w.set("a", doubtful)
				n, stop := w.start(slow, all("night"))
				defer stop()
				for sent.Load() == 0 {
					time.Sleep(time.Second)
				}
				if removed {
					n.Set(nil)
				}
				changed := all("night")
				changed.Group = time.Second
				notify.SetWith(n, slow, changed)
				time.Sleep(10 * time.Minute)
				if sent.Load() != 1 {
					t.Errorf("the message was sent %d times", sent.Load())
				}
			})
		})
	}
}

// TestReceiverIsAdded: a receiver that is added is told what is wrong, and not what happened before.
func TestReceiverIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, in := newWorld(t), &inbox{}
		w.set("a", doubtful)
		w.set("b", nil)
		n, stop := w.start(in, all("night"))
		defer stop()
		n.Set(nil)
		n.Subscriber().Handle(event.New(time.Now(), "b", event.Daemon, event.OutsideChange{}))
		time.Sleep(time.Hour)
		notify.SetWith(n, in, all("night"))
		time.Sleep(10 * time.Minute)
		want(t, in, "a: in doubt")
	})
}

// TestShortTurnRelabel: as TestShortTurn, while something that was told has become less bad.
func TestShortTurnRelabel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		kv := new(kvtest.Server)
		inboxes, stops := map[string]*inbox{"r0": {}, "r1": {}}, map[string]func(){}
		w.set("b", func(t *status.Token) { t.Expiry = time.Now().Add(48 * time.Hour) })
		for _, name := range []string{"r1", "r0"} {
			receiver := all("night")
			if name == "r1" {
				receiver.Group = 10 * time.Minute
			}
			_, stops[name] = w.start(inboxes[name], receiver, func(o *notify.Options) {
				o.Shared, o.Replica, o.Turn = kv.Client(nil), name, func(string) bool { return true }
				o.Dir = filepath.Join(filepath.Dir(w.dir), name)
			})
			time.Sleep(30 * time.Minute) // both have read what was told
		}
		defer stops["r1"]()
		inboxes["r0"].take()
		inboxes["r1"].take()
		w.set("b", func(t *status.Token) { t.Expiry = time.Now().Add(10 * 24 * time.Hour) }) // less bad
		time.Sleep(30 * time.Minute)
		inboxes["r0"].take()
		inboxes["r1"].take()
		w.set("a", doubtful)
		time.Sleep(2 * time.Minute)
		want(t, inboxes["r0"], "a: in doubt")
		stops["r0"]()
		w.set("a", nil)
		time.Sleep(40 * time.Minute)
		wantEnd(t, inboxes["r1"], "a: no longer in doubt")
	})
}
