package notify_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
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
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/notify"
)

// mailbox is a receiver with addresses. answer says why an address does not take a message; nil for that it does.
type mailbox struct {
	mu        sync.Mutex
	addresses []string
	answer    func(address string) error
	got       map[string][]string // the ids of the messages of each address
	tries     int
}

func (b *mailbox) Send(_ context.Context, m *notify.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tries++
	var reached []string
	var refusal error
	for _, a := range b.addresses {
		if slices.Contains(m.Reached, a) {
			continue
		}
		if err := b.answer(a); err != nil {
			refusal = err
			continue
		}
		b.got[a] = append(b.got[a], m.ID)
		reached = append(reached, a)
	}
	if refusal != nil {
		return &notify.AddressError{Reached: reached, Err: refusal}
	}
	return nil
}

// change changes what answer looks at.
func (b *mailbox) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// look returns the ids of the messages that an address has.
func (b *mailbox) look(address string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got[address])
}

// attempts returns how often it was sent to.
func (b *mailbox) attempts() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tries
}

// TestGreylist: an address that takes a message only later gets it once, those that have it do not get it again, also after a
// restart, and news that follows waits for it at most ten minutes.
func TestGreylist(t *testing.T) {
	for name, shared := range map[string]bool{"alone": false, "replicas": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				w := newWorld(t)
				box := &mailbox{addresses: []string{"a", "b"}, got: map[string][]string{}}
				wait := 5 * time.Minute
				box.answer = func(address string) error {
					if address == "b" && time.Since(began) < wait {
						return errors.New("answer 451")
					}
					return nil
				}
				kv := new(kvtest.Server)
				share := func(o *notify.Options) {
					if shared {
						o.Shared, o.Replica, o.Turn = kv.Client(nil), "r0", func(string) bool { return true }
					}
				}
				w.set("t", doubtful)
				n, stop := w.start(box, all("mail"), share)
				time.Sleep(2 * time.Minute)
				if err := n.Problem("mail"); err == nil || !strings.Contains(err.Error(), "451") || len(box.look("a")) != 1 || len(box.look("b")) != 0 {
					t.Fatalf("%v, %v", err, box.look("b"))
				}
				stop()
				n, stop = w.start(box, all("mail"), share)
				time.Sleep(10 * time.Minute)
				if len(box.look("a")) != 1 || !slices.Equal(box.look("a"), box.look("b")) || n.Problem("mail") != nil {
					t.Fatalf("%v, %v", box.look("b"), n.Problem("mail"))
				}
				w.count(event.NotificationGivenUp, 0)
				// An address that never takes it is given up, and other news is not delayed.
				box.change(func() { wait, box.tries = 1000*time.Hour, 0 })
				w.set("u", gone)
				time.Sleep(2 * time.Minute)
				w.set("v", gone)
				time.Sleep(12 * time.Minute)
				stop()
				if len(box.look("a")) != 3 || len(box.look("b")) != 1 || box.attempts() > 20 {
					t.Errorf("%v after %d attempts", box.look("b"), box.attempts())
				}
				if err := n.Problem("mail"); err == nil || !strings.Contains(err.Error(), "451") {
					t.Errorf("what an address misses is forgotten: %v", err)
				}
			})
		})
	}
}

// TestAddressIsRefused: one address that a server does not accept keeps nothing from the others, and stays a problem of the receiver
// until a message reaches all.
func TestAddressIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bad := true
		box := &mailbox{addresses: []string{"a", "b"}, got: map[string][]string{}}
		box.answer = func(address string) error {
			if address == "b" && bad {
				return &notify.RefusedError{Err: errors.New("answer 550")}
			}
			return nil
		}
		w.set("t", doubtful)
		n, stop := w.start(box, all("mail"))
		defer stop()
		time.Sleep(time.Minute)
		w.set("u", gone)
		time.Sleep(2 * time.Minute)
		if len(box.look("a")) != 2 || box.attempts() != 2 {
			t.Errorf("%v after %d attempts", box.look("b"), box.attempts())
		}
		if err := n.Problem("mail"); err == nil || !strings.Contains(err.Error(), "550") {
			t.Errorf("%v", err)
		}
		w.count(event.NotificationFailed, 1)
		box.change(func() { bad = false })
		w.set("v", gone)
		time.Sleep(3 * time.Minute)
		if err := n.Problem("mail"); err != nil || len(box.look("b")) != 1 || len(box.look("a")) != 3 {
			t.Errorf("%v, %v", err, box.look("b"))
		}
		w.count(event.NotificationDelivered, 1)
	})
}

// TestBookMissesAddresses: if the shared store does not take the note of who has a message, it is not sent to those again.
func TestBookMissesAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var on atomic.Bool
		box := &mailbox{addresses: []string{"a", "b"}, got: map[string][]string{}}
		began := time.Now()
		box.answer = func(address string) error {
			on.Store(time.Since(began) < 5*time.Minute) // right before the note
			if address == "b" && time.Since(began) < 8*time.Minute {
				return errors.New("answer 451")
			}
			return nil
		}
		kv := new(kvtest.Server)
		w.set("t", doubtful)
		_, stop := w.start(box, all("mail"), func(o *notify.Options) {
			o.Shared, o.Replica, o.Turn = readOnly{kv.Client(nil), &on}, "r0", func(string) bool { return true }
		})
		time.Sleep(5 * time.Minute)
		on.Store(false)
		time.Sleep(20 * time.Minute)
		stop()
		if len(box.look("a")) != 1 || !slices.Equal(box.look("a"), box.look("b")) {
			t.Errorf("%v after %d attempts", box.look("b"), box.attempts())
		}
	})
}

// TestMailToTheRest: the second attempt goes to those alone who do not have the mail, and the mail is the same.
func TestMailToTheRest(t *testing.T) {
	answers := map[string]string{"RCPT TO:<b@example.com>": "451 CANARY"}
	address, said := mailServer(t, answers)
	sender := notify.NewMailer(&config.SMTP{Server: address, From: "a@example.com", To: []string{"b@example.com", "c@example.com"}, TLS: "none"})
	m := message()
	err := sender.Send(t.Context(), m)
	part, ok := errors.AsType[*notify.AddressError](err)
	if !ok || notify.IsRefused(err) || !slices.Equal(part.Reached, []string{"c@example.com"}) || !strings.Contains(err.Error(), "does not accept the address b@example.com (answer 451); the others have the mail") {
		t.Fatalf("%v", err)
	}
	m.Reached = part.Reached
	second, saidLater := mailServer(t, nil)
	sender = notify.NewMailer(&config.SMTP{Server: second, From: "a@example.com", To: []string{"b@example.com", "c@example.com"}, TLS: "none"})
	if err := sender.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	text := saidLater.String()
	_, first, _ := strings.Cut(said.String(), "DATA\r\n")
	if strings.Contains(text, "RCPT TO:<c") || !strings.Contains(text, "RCPT TO:<b") || !strings.HasSuffix(text, "DATA\r\n"+first) {
		t.Errorf("%s", text)
	}
	m.Reached = []string{"b@example.com", "c@example.com"}
	if err := sender.Send(t.Context(), m); err != nil || saidLater.String() != text {
		t.Errorf("a mail that all have is sent again: %v", err)
	}
}

// TestManyAddressesAreRefused: the error names three of them and counts the others.
func TestManyAddressesAreRefused(t *testing.T) {
	address, _ := mailServer(t, map[string]string{"RCPT": "550 CANARY"})
	to := make([]string, 50)
	for i := range to {
		to[i] = strings.Repeat("x", i+1) + "@example.com"
	}
	err := notify.NewMailer(&config.SMTP{Server: address, From: "a@example.com", To: to, TLS: "none"}).Send(t.Context(), message())
	if err == nil || !notify.IsRefused(err) || !strings.HasSuffix(err.Error(), "; and 47 more addresses") || len(err.Error()) > 500 {
		t.Errorf("%v", err)
	}
}

// TestStopDuringASlowReceiver: a receiver that holds on to a request or a mail delays the stop of the daemon by nothing.
func TestStopDuringASlowReceiver(t *testing.T) {
	hold := func(first string) (address string, reached chan struct{}) {
		reached = make(chan struct{}, 16)
		return rawServer(t, func(c net.Conn) {
			if !strings.HasPrefix(first, "220") {
				_, _ = http.ReadRequest(bufio.NewReader(c))
			}
			_, _ = io.WriteString(c, first)
			reached <- struct{}{}
			_, _ = io.Copy(io.Discard, c)
		}), reached
	}
	web, webReached := hold("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	slow, slowReached := hold("HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\n")
	smtp, smtpReached := hold("220 ready\r\n")
	for name, test := range map[string]struct {
		kind    config.ReceiverKind
		reached chan struct{}
	}{
		"another protocol": {&config.Webhook{URL: secretFile(t, "http://"+web), Format: "generic"}, webReached},
		"half an answer":   {&config.Webhook{URL: secretFile(t, "http://"+slow), Format: "generic"}, slowReached},
		"mail":             {&config.SMTP{Server: smtp, From: "a@example.com", To: []string{"b@example.com"}, TLS: "none"}, smtpReached},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.dir = filepath.Join(t.TempDir(), "notify")
			w.set("t", doubtful)
			c := all("night")
			c.Kind, c.Group = test.kind, time.Millisecond
			_, stop := w.start(notify.NewSender(c), c)
			<-test.reached
			began := time.Now()
			stop()
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("the stop took %s", took)
			}
		})
	}
}
