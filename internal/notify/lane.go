package notify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/failpoint"
	"rotatord/internal/moment"
)

// lane tells one receiver what is in one book. Its goroutine alone uses page, version, seen, newsSince and streak.
type lane struct {
	n      *Notifier
	c      config.Receiver
	sender Sender
	scope  scope
	book   book

	page    *page // nil: not loaded
	version int
	opened  time.Time            // when page was loaded
	unsaved bool                 // page is newer than what the book has
	seen    map[string]time.Time // when what was not told was first seen
	// newsSince is when the first of the news was seen that is not told yet; zero if there is none. streak counts messages
	// that followed each other, and streakAt is when the last was made.
	newsSince time.Time
	streak    int
	streakAt  time.Time
	tries     int       // of the message in the outbox, by this process
	rest      int       // how often addresses were not accepted that others of the receiver are ahead of
	nextTry   time.Time // zero: at once
	taken     string    // the id of the last message that was taken
	// reached are the addresses that have the message with the id partly, also if the book does not have that.
	partly  string
	reached []string

	wake chan struct{}

	mu       sync.Mutex
	latest   view
	happened []happened // not in the page yet
	now      bool       // an operator's test has shown that the receiver takes messages
	sendErr  error      // of the last attempt; nil if it was delivered
	bookErr  error      // of the last use of the book
}

func (n *Notifier) newLane(c config.Receiver, sender Sender, s scope, b book) *lane {
	return &lane{n: n, c: c, sender: sender, scope: s, book: b, seen: make(map[string]time.Time), wake: make(chan struct{}, 1)}
}

// give hands over what was seen, and wakes the lane.
func (l *lane) give(v view, all []happened) {
	l.mu.Lock()
	l.latest = v
	if l.scope != ofFleet { // what happened, one process has seen
		for _, h := range all {
			if wantsHappened(l.c, h) {
				l.happened = bounded(append(l.happened, h))
			}
		}
	}
	l.mu.Unlock()
	l.signal()
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// tryNow has what waits sent at once.
func (l *lane) tryNow() {
	l.mu.Lock()
	l.now = true
	l.mu.Unlock()
	l.signal()
}

// problem returns what is wrong with the last attempt and the book.
func (l *lane) problem() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.sendErr, l.bookErr)
}

func (l *lane) note(to *error, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*to = err
}

// run tells the receiver until ctx ends, and then writes down what happened last.
func (l *lane) run(ctx context.Context) {
	for {
		next := l.step(ctx)
		pause := cycle // what was seen is given more often, so this is only for the case that nothing is
		if !next.IsZero() {
			pause = max(next.Sub(l.n.o.Now()), 0)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			l.keep(ctx)
			return
		case <-l.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// step does what is to be done now, and returns when it wants to be called again; zero if only when something was seen.
func (l *lane) step(ctx context.Context) (next time.Time) {
	l.mu.Lock()
	v, now := l.latest, l.now
	l.now = false
	l.mu.Unlock()
	if l.scope == ofFleet && !l.n.o.Turn(l.c.Name) { // another replica writes the book
		l.page = nil
		l.note(&l.sendErr, nil)
		l.note(&l.bookErr, nil)
		return time.Time{}
	}
	if l.isOld() { // what is less bad or no longer told is found again by make
		l.page, l.unsaved = nil, false
	}
	if l.page == nil && !l.open(ctx) {
		return l.n.o.Now().Add(cycle)
	}
	l.keep(ctx)
	if now {
		l.nextTry, l.page.QuietUntil = time.Time{}, time.Time{}
	}
	for ctx.Err() == nil {
		if l.page.Outbox != nil {
			if wait := l.nextTry; l.n.o.Now().Before(wait) {
				return wait
			}
			if !l.deliver(ctx) {
				if l.page == nil {
					return l.n.o.Now().Add(time.Second)
				}
				continue
			}
		}
		made, wake := l.make(ctx, v)
		if !made {
			return wake
		}
	}
	return time.Time{}
}

// rereadEvery is how often the book of several replicas is read again, so that this replica notices what another one has told
// in a turn that began and ended between two steps.
const rereadEvery = 30 * time.Second

// isOld reports whether another replica may have written the book since the page was loaded.
func (l *lane) isOld() bool {
	return l.scope == ofFleet && l.page != nil && l.page.Outbox == nil && l.n.o.Now().Sub(l.opened).Abs() >= rereadEvery
}

// open loads the page. It returns false if that is not possible yet.
func (l *lane) open(ctx context.Context) bool {
	bounded, cancel := context.WithTimeout(ctx, bookTime)
	defer cancel()
	p, version, err := l.book.load(bounded)
	damaged := errors.Is(err, errDamaged)
	if err != nil && !damaged {
		l.note(&l.bookErr, fmt.Errorf("what the receiver was told cannot be read, so nothing is sent: %w", err))
		return false
	}
	if damaged {
		l.n.o.Log.Error("the receiver of notifications is told everything again", "receiver", l.c.Name, "error", err)
	}
	l.page, l.version, l.tries, l.rest, l.nextTry = p, version, 0, 0, time.Time{}
	l.opened = l.n.o.Now()
	if l.unsaved { // the last write failed: nothing is sent before one succeeds
		return l.save(ctx)
	}
	l.note(&l.bookErr, nil)
	return true
}

// bookTime bounds one use of a book.
const bookTime = 30 * time.Second

// keep writes down what happened since the last call, also after the end of ctx.
func (l *lane) keep(ctx context.Context) {
	if l.page == nil || l.scope == ofFleet {
		return
	}
	l.mu.Lock()
	all := l.happened
	l.happened = nil
	l.mu.Unlock()
	if len(all) == 0 && !l.unsaved {
		return
	}
	l.page.Happened = bounded(append(l.page.Happened, all...))
	_ = l.save(ctx)
}

// save writes the page. It reports whether messages may be sent: they may although a file cannot be written, because a full
// disk is what has to be told. After an error of a shared store the page is read again.
func (l *lane) save(ctx context.Context) bool {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), bookTime)
	defer cancel()
	version, err := l.book.save(bounded, l.page, l.version)
	l.version, l.unsaved = version, err != nil
	switch {
	case err == nil:
		l.note(&l.bookErr, nil)
		return true
	case l.book.mayGoOn():
		l.note(&l.bookErr, fmt.Errorf("what the receiver was told cannot be written down, so a restart tells it again: %w", err))
		return true
	}
	l.page = nil
	if !errors.Is(err, errOvertaken) {
		l.note(&l.bookErr, fmt.Errorf("what the receiver was told cannot be written down, so nothing is sent: %w", err))
	}
	return false
}

// make compares what is wrong with what was told, and puts the news into the outbox once it was collected for long enough. It
// reports whether there is a message now, and when to look again.
func (l *lane) make(ctx context.Context, v view) (made bool, next time.Time) {
	if v.At.IsZero() {
		return false, time.Time{}
	}
	taken := v.At
	v.At = l.n.o.Now()
	d := compare(l.c, l.scope, v, l.page, l.seen)
	for _, key := range d.forget {
		delete(l.page.Told, key)
		l.unsaved = true
	}
	for _, i := range d.relabel {
		was := l.page.Told[i.key]
		was.Kind, was.Rank = i.kind, i.rank
		l.page.Told[i.key] = was
		l.unsaved = true
	}
	switch {
	case len(d.news) == 0:
		l.newsSince = time.Time{}
		return false, d.next
	case l.page.quiet(d.news, v.At):
		return false, moment.MinNonZero(d.next, l.page.QuietUntil)
	}
	if l.newsSince.IsZero() {
		l.newsSince = v.At
	}
	if due := l.newsSince.Add(l.collects(v.At)); v.At.Before(due) {
		return false, moment.MinNonZero(d.next, due)
	}
	if due := l.newsSince.Add(l.collects(v.At)); taken.Before(due) { // it may be over since
		l.n.Wake()
		return false, time.Time{}
	}
	m := compose(l.c.Name, l.n.o.Replica, l.n.o.ExternalURL, v, d.news)
	l.page.tell(m, d.news)
	l.newsSince, l.streakAt, l.tries, l.rest, l.nextTry = time.Time{}, v.At, 0, 0, time.Time{}
	l.streak++
	failpoint.Reach("notify.compose.after")
	if !l.save(ctx) {
		return false, l.n.o.Now().Add(time.Second)
	}
	failpoint.Reach("notify.save.after")
	return true, time.Time{}
}

// collects returns how long news is collected: group, and up to ten times as long while one message follows another.
func (l *lane) collects(now time.Time) time.Duration {
	if now.Sub(l.streakAt) > 2*longestStreak*l.c.Group {
		l.streak = 0
	}
	return l.c.Group * time.Duration(min(max(l.streak-1, 1), longestStreak))
}

// deliver makes one attempt. It reports whether the outbox is empty now.
func (l *lane) deliver(ctx context.Context) bool {
	m := l.page.Outbox
	if l.scope == ofFleet && !l.n.o.Turn(l.c.Name) { // a replica that has lost the turn in the meantime must not send
		l.page = nil
		return false
	}
	if m.ID == l.taken { // and only the book does not have that
		return l.noteTaken(ctx)
	}
	failpoint.Reach("notify.send.before")
	saved, err := l.send(ctx, m)
	if !saved {
		return false
	}
	if err != nil && ctx.Err() != nil {
		return false // the daemon stops; the next one sends it
	}
	failpoint.Reach("notify.send.after")
	now := l.n.o.Now()
	l.tries++
	before := l.problemOfSending()
	told := event.Notification{Receiver: l.c.Name, ID: m.ID, News: len(m.News) + m.More, Attempts: l.tries, Err: err}
	if err == nil {
		l.taken = m.ID
		l.note(&l.sendErr, nil)
		l.n.o.Observer.Notified(l.c.Name, Delivered, now)
		told.Result, told.After = event.NotificationTaken, before
		l.n.o.Tell(told)
		return l.noteTaken(ctx)
	}
	l.note(&l.sendErr, fmt.Errorf("message %s was not taken: %w", m.ID, err))
	if l.givesUpRest(err) {
		// The receiver knows the news. What the other addresses miss stays its problem until a message reaches all.
		l.taken = m.ID
		l.n.o.Observer.Notified(l.c.Name, Refused, now)
		if before == nil {
			told.Result = event.NotificationNotTaken
			l.n.o.Tell(told)
		}
		return l.noteTaken(ctx)
	}
	if isRefused(err) && l.tries >= refusedTries {
		quiet := l.c.Repeat
		if quiet == 0 {
			quiet = defaultQuiet
		}
		l.page.untell(now.Add(quiet))
		l.n.o.Observer.Notified(l.c.Name, Refused, now)
		told.Result = event.NotificationDropped
		l.n.o.Tell(told)
		return l.save(ctx)
	}
	l.n.o.Observer.Notified(l.c.Name, Failed, now)
	if before == nil { // only the first of several failures is told
		told.Result = event.NotificationNotTaken
		l.n.o.Tell(told)
	}
	l.nextTry = now.Add(pauseAfter(l.tries, err))
	return false
}

// send sends a message to the addresses that do not have it yet, and notes which have it now. It returns saved false if that
// cannot be noted; this process remembers it.
func (l *lane) send(ctx context.Context, m *Message) (saved bool, err error) {
	if m.ID == l.partly { // the book may have less, or more from another replica
		for _, address := range l.reached {
			if !slices.Contains(l.page.Reached, address) {
				l.page.Reached = append(l.page.Reached, address)
			}
		}
	}
	sent := *m
	sent.Reached = slices.Clone(l.page.Reached)
	err = l.sender.Send(ctx, &sent)
	addresses, _ := errors.AsType[*AddressError](err)
	if addresses == nil || len(addresses.Reached) == 0 {
		return true, err
	}
	l.tries = 0 // the server is there, so the others are tried again soon
	l.page.Reached = append(l.page.Reached, addresses.Reached...)
	l.partly, l.reached = m.ID, slices.Clone(l.page.Reached)
	return l.save(ctx), err
}

// givesUpRest reports whether the addresses that do not have the message in the outbox are given up, while others have it.
func (l *lane) givesUpRest(err error) bool {
	if _, refusal := errors.AsType[*AddressError](err); !refusal || len(l.page.Reached) == 0 {
		return false
	}
	l.rest++
	return isRefused(err) || l.rest >= restTries
}

// noteTaken notes that the receiver has taken the message in the outbox. It reports whether messages may be sent.
func (l *lane) noteTaken(ctx context.Context) bool {
	l.page.taken(l.n.o.Now())
	saved := l.save(ctx)
	failpoint.Reach("notify.note.after")
	return saved
}

// problemOfSending returns the error of the last attempt; nil if it was delivered.
func (l *lane) problemOfSending() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sendErr
}
