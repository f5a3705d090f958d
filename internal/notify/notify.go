// Package notify tells receivers what is wrong: chats, programs and mail addresses. It compares what package status says
// is wrong with what each receiver was told, and sends the difference.
//
// Guarantees:
//
//   - Nothing is delayed by a receiver. Each one has goroutines of its own, every request has a time-out and a bound
//     on what it reads, and the stream of events only sets a flag.
//   - News is never lost. A message is on disk before it is sent, and stays there until its receiver has taken it. What
//     is wrong is compared again after each message, so a receiver that was away for a day is told what is so now.
//   - A message that is sent again has the same id. A crash between the sending and the note of it sends it again.
//   - What was told is not told again before repeat is over, also after a restart. Its end is told once.
//   - With a shared ledger one replica tells about tokens and replicas, and what was told is in the shared store. What
//     only one process can know (its checks, its disk, its way to Vault) each replica tells itself.
//   - No message, error or log line contains a secret, an address that is one, or what a receiver has answered.
//
// What has no lasting state, such as a change of a service token by another person, is written down when its event
// arrives. A crash in that moment can lose it here; the log has it.
package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/durable"
	"rotatord/internal/event"
	"rotatord/internal/status"
)

// Options are what a Notifier needs.
type Options struct {
	// Dir is a directory of this process alone. It is created below one that exists.
	Dir string
	// Look returns what is wrong now, from memory.
	Look func() Snapshot
	// Shared is the store of several replicas; nil if the daemon is alone. Turn then says whether this replica is the
	// one that tells a receiver about tokens and replicas, and Replica is its name.
	Shared  Store
	Turn    func(receiver string) bool
	Replica string
	// ExternalURL is where people find the status page; empty if that is not known.
	ExternalURL string
	Now         func() time.Time // nil: the system's clock
	Tell        func(event.Detail)
	Observer    Observer // may be nil
	Log         *slog.Logger
}

// Observer counts.
type Observer interface {
	// Notified is told of each attempt to send a message: delivered, failed (it is tried again) or refused (it is given up).
	Notified(receiver, result string, at time.Time)
	// Receivers is told the names of all receivers, and of those that are no longer configured.
	Receivers(names, dropped []string)
}

// The results of an attempt.
const (
	Delivered = "delivered"
	Failed    = "failed"
	Refused   = "refused"
)

// Results are all of them.
var Results = []string{Delivered, Failed, Refused}

const (
	// cycle is how often the state of the world is compared with what was told, if no event says that it changed.
	cycle = 15 * time.Second
	// rest is the shortest time between two comparisons, and restShare how many times as long as the last one took.
	rest      = time.Second
	restShare = 20
)

// Notifier tells receivers. Use it once: New, Set, Run.
type Notifier struct {
	o      Options
	wake   chan struct{}
	events *eventQueue

	mu    sync.Mutex
	make  func(config.Receiver) Sender // NewSender, but for tests
	lanes map[string]*receiver         // by name
	last  map[string]*receiver         // that was started last with a name, also if it is no longer configured
	order []string
	run   context.Context // nil before Run
	done  sync.WaitGroup

	latest view // what the last look saw
}

// receiver is a configured receiver with its lanes: one for each book.
type receiver struct {
	config config.Receiver
	sender Sender
	lanes  []*lane
	stop   context.CancelFunc
	runs   sync.WaitGroup // of the lanes
}

// New returns a Notifier without receivers.
func New(o Options) *Notifier {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Tell == nil {
		o.Tell = func(event.Detail) {}
	}
	if o.Observer == nil {
		o.Observer = noObserver{}
	}
	return &Notifier{o: o, wake: make(chan struct{}, 1), events: &eventQueue{}, make: NewSender,
		lanes: make(map[string]*receiver), last: make(map[string]*receiver)}
}

type noObserver struct{}

func (noObserver) Notified(string, string, time.Time) {}
func (noObserver) Receivers(_, _ []string)            {}

// Subscriber returns the subscriber to events. Any event may change what is wrong, so it handles all kinds.
func (n *Notifier) Subscriber() *event.Subscriber {
	return event.NewSubscriber("notifications", event.All(func(e event.Event) {
		if happened, ok := happening(e); ok {
			n.events.put(happened)
		}
		n.Wake()
	}))
}

// Wake has the state of the world compared soon with what was told.
func (n *Notifier) Wake() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Set replaces the receivers. One whose configuration is the same goes on.
func (n *Notifier) Set(all []config.Receiver) {
	n.mu.Lock()
	defer n.mu.Unlock()
	wanted := make(map[string]bool, len(all))
	n.order = nil
	for _, c := range all {
		wanted[c.Name] = true
		n.order = append(n.order, c.Name)
		if old := n.lanes[c.Name]; old != nil {
			if sameReceiver(old.config, c) {
				continue
			}
			old.end()
		}
		n.lanes[c.Name] = n.newReceiver(c)
		if n.run != nil {
			n.start(n.lanes[c.Name])
		}
	}
	var dropped []string
	for name, old := range n.lanes {
		if !wanted[name] {
			old.end()
			delete(n.lanes, name)
			dropped = append(dropped, name)
		}
	}
	n.o.Observer.Receivers(n.order, dropped)
}

// sameReceiver reports whether two receivers have the same configuration.
func sameReceiver(a, b config.Receiver) bool { return reflect.DeepEqual(a, b) }

func (r *receiver) end() {
	if r.stop != nil {
		r.stop()
	}
}

// newReceiver returns a receiver with its lanes: one, or two if several replicas share a store.
func (n *Notifier) newReceiver(c config.Receiver) *receiver {
	r := &receiver{config: c, sender: n.make(c)}
	file := fileBook{filepath.Join(n.o.Dir, c.Name+".json")}
	if n.o.Shared == nil {
		r.lanes = []*lane{n.newLane(c, r.sender, ofAll, file)}
		return r
	}
	r.lanes = []*lane{
		n.newLane(c, r.sender, ofProcess, file),
		n.newLane(c, r.sender, ofFleet, storeBook{n.o.Shared, "notify/" + c.Name}),
	}
	return r
}

// start runs the lanes of a receiver, once those of the receiver that it replaces have left its books. n.mu must be held.
func (n *Notifier) start(r *receiver) {
	ctx, cancel := context.WithCancel(n.run)
	r.stop = cancel
	before := n.last[r.config.Name]
	n.last[r.config.Name] = r
	r.runs.Add(len(r.lanes))
	for _, l := range r.lanes {
		n.done.Go(func() {
			defer r.runs.Done()
			if before != nil {
				before.runs.Wait()
			}
			l.run(ctx)
		})
	}
}

// Run tells receivers until ctx ends. What happened until then is written down, and a request in progress is cut off.
func (n *Notifier) Run(ctx context.Context) {
	if err := n.prepare(); err != nil {
		n.o.Log.Error("what receivers of notifications were told cannot be kept: after a restart they are told again", "dir", n.o.Dir, "error", err)
	}
	lanes, stop := context.WithCancel(context.WithoutCancel(ctx)) // they end after the last events are given to them
	n.mu.Lock()
	n.run = lanes
	for _, r := range n.lanes {
		n.start(r)
	}
	n.mu.Unlock()
	defer func() { n.keepEvents(); stop(); n.done.Wait() }()
	for {
		began := time.Now()
		if n.any() {
			n.look()
		} else {
			n.events.take() // a receiver that is added later is not told what happened before
		}
		pause := time.NewTimer(max(rest, restShare*time.Since(began)))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		next := time.NewTimer(cycle - rest)
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-n.wake:
			next.Stop()
		case <-next.C:
		}
	}
}

// prepare makes the directory, and removes what interrupted writers left.
func (n *Notifier) prepare() error {
	return errors.Join(durable.Mkdir(n.o.Dir), durable.CleanDir(n.o.Dir))
}

func (n *Notifier) any() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.lanes) > 0
}

// look reads what is wrong, and gives it and the events to the lanes.
func (n *Notifier) look() {
	seen := newView(n.o.Look())
	happened := n.events.take()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latest = seen
	for _, name := range n.order {
		for _, l := range n.lanes[name].lanes {
			l.give(seen, happened)
		}
	}
}

// keepEvents gives the last events to the lanes, which write them down before they end.
func (n *Notifier) keepEvents() {
	happened := n.events.take()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.lanes {
		for _, l := range r.lanes {
			l.give(n.latest, happened)
		}
	}
}

// Problem returns why a receiver cannot be told now; nil if it can, as far as is known, or if there is no such receiver.
func (n *Notifier) Problem(name string) error {
	n.mu.Lock()
	r := n.lanes[name]
	n.mu.Unlock()
	if r == nil {
		return nil
	}
	var errs []error
	for _, l := range r.lanes {
		errs = append(errs, l.problem())
	}
	return errors.Join(errs...)
}

// ErrNoReceiver is in the error about a receiver that is not configured.
var ErrNoReceiver = errors.New("no receiver of notifications")

// Test sends a test message to a receiver, or to all if name is empty, and returns what came of each. A receiver that
// takes it is also sent at once what waits for it.
func (n *Notifier) Test(ctx context.Context, name string) ([]status.NotifyTest, error) {
	n.mu.Lock()
	var chosen []*receiver
	for _, each := range n.order {
		if name == "" || name == each {
			chosen = append(chosen, n.lanes[each])
		}
	}
	n.mu.Unlock()
	if len(chosen) == 0 && name != "" {
		return nil, fmt.Errorf("there is %w with the name %q: rotatord check --config FILE reads the configuration; its section notify has the names", ErrNoReceiver, name)
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("there is %w: add the section notify to the configuration, and reload it", ErrNoReceiver)
	}
	all := make([]status.NotifyTest, len(chosen))
	var wait sync.WaitGroup
	for i, r := range chosen {
		wait.Go(func() {
			all[i] = SendTest(ctx, r.config, r.sender, n.o.Replica, n.o.ExternalURL, n.o.Now())
			if all[i].Error == "" {
				for _, l := range r.lanes {
					l.tryNow()
				}
			}
		})
	}
	wait.Wait()
	return all, nil
}

// SendTest sends a test message to a receiver.
func SendTest(ctx context.Context, c config.Receiver, sender Sender, replica, externalURL string, now time.Time) status.NotifyTest {
	m := Message{Version: 1, ID: newID(), Receiver: c.Name, Replica: replica, At: now.UTC(), Severity: "info", Title: "a test message", Test: true, URL: externalURL}
	t := status.NotifyTest{Receiver: c.Name, Place: c.Kind.Place(), ID: m.ID}
	if err := sender.Send(ctx, &m); err != nil {
		t.Error = err.Error()
	}
	return t
}
