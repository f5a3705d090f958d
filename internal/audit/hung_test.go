package audit_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/audit"
	"rotatord/internal/event"
	"rotatord/internal/status"
)

// hanging opens a record whose fsync returns only after answer is called.
func hanging(t *testing.T, path string) (r *audit.Recorder, answer func()) {
	t.Helper()
	r = open(t, audit.Options{File: path})
	answers := make(chan struct{})
	r.OnSync(func(f *os.File) error { <-answers; return f.Sync() })
	return r, func() { close(answers); synctest.Wait() }
}

// TestDiskThatDoesNotAnswer: a request waits for a disk that hangs for as long as it may, and not longer. Those after it do
// not wait at all, and what is in memory can be read. Once the disk answers, requests are recorded again.
func TestDiskThatDoesNotAnswer(t *testing.T) {
	path := at(t)
	synctest.Test(t, func(t *testing.T) {
		r, answer := hanging(t, path)
		began := time.Now()
		if err := r.Record(t.Context(), leaving(1)); !errors.Is(err, audit.ErrNoAnswer) || !strings.Contains(err.Error(), "is not sent later") || time.Since(began) != audit.Patience {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		began = time.Now()
		if err := r.Record(t.Context(), leaving(2)); !errors.Is(err, audit.ErrNoAnswer) {
			t.Errorf("the second request: %v", err)
		}
		if _, err := r.Reserve(t.Context(), "ci"); !errors.Is(err, audit.ErrNoAnswer) {
			t.Errorf("room: %v", err)
		}
		if err := r.Prove(t.Context()); !errors.Is(err, audit.ErrNoAnswer) {
			t.Errorf("Prove: %v", err)
		}
		if r.Head().Seq != 1 || r.Stats().Seq != 1 || len(r.Notices()) != 0 || r.Hung() == nil || time.Since(began) != 0 {
			t.Errorf("%v, %+v after %s", r.Head(), r.Stats(), time.Since(began))
		}
		answer()
		if err := r.Record(t.Context(), leaving(3)); err != nil || r.Hung() != nil {
			t.Errorf("once it answers: %v, %v", err, r.Hung())
		}
		h, err := r.History(t.Context(), status.HistoryQuery{Token: "ci"})
		if err != nil || len(h.Entries) != 2 || h.Entries[0].RotationID != "R1" || h.Entries[1].RotationID != "R3" {
			t.Errorf("%+v, %v", h, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if v := verify(t, audit.VerifyOptions{File: path}); !v.OK {
		t.Error(v.Problems)
	}
}

// TestWaitingEndsWithItsContext: a claim that ends earlier, or a stop, ends the waiting. A disk that is only slow does not
// stop the next request.
func TestWaitingEndsWithItsContext(t *testing.T) {
	path := at(t)
	synctest.Test(t, func(t *testing.T) {
		r, answer := hanging(t, path)
		bounded, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if err := r.Record(bounded, leaving(1)); !errors.Is(err, audit.ErrNoAnswer) || time.Since(began) != 3*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if err := r.Hung(); err != nil {
			t.Errorf("after three seconds: %v", err)
		}
		stopped, stop := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, stop)
		if err := r.Record(stopped, leaving(2)); !errors.Is(err, context.Canceled) || errors.Is(err, audit.ErrNoAnswer) {
			t.Errorf("a stop: %v", err)
		}
		done := make(chan error)
		go func() { done <- r.Record(t.Context(), leaving(3)) }()
		synctest.Wait()
		answer()
		if err := <-done; err != nil {
			t.Errorf("a request that was not given up: %v", err)
		}
	})
}

// TestOneTimerWhileTheDiskHangs: events that come while the disk does not answer start no goroutine each second.
func TestOneTimerWhileTheDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, answer := hanging(t, at(t))
		s := r.Subscriber()
		for range 300 {
			s.Handle(event.New(now, "other", event.Daemon, event.Missed{Count: 1}))
			time.Sleep(time.Second)
		}
		before := r.Stats().Syncs
		if before != 1 {
			t.Errorf("%d fsyncs were begun", before)
		}
		answer()
		time.Sleep(2 * time.Second)
		if r.Stats().Seq != 301 || r.Stats().Lost != 0 {
			t.Errorf("%+v", r.Stats())
		}
	})
}
