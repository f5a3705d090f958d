package durable

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestLastWriteThatHangs: a write that does not end is an error after half a minute, until it ends, also while others end.
func TestLastWriteThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w LastWrite
		disk, done := make(chan error), make(chan error, 1)
		began := time.Now()
		go func() { done <- w.Do(func() error { return <-disk }) }()
		time.Sleep(hangsAfter - time.Second)
		_ = w.Do(func() error { return nil })
		if at, err := w.Get(); err != nil || !at.Equal(began.Add(hangsAfter-time.Second)) {
			t.Errorf("before: %s, %v", at, err)
		}
		time.Sleep(time.Second)
		_ = w.Do(func() error { return nil })
		at, err := w.Get()
		if hangs, ok := errors.AsType[*HangsError](err); !ok || !at.Equal(began) || hangs.Cause() != "hangs" {
			t.Errorf("while it hangs: %s, %v", at, err)
		}
		disk <- nil
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := w.Get(); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// TestRemovalThatHangs: a removal that does not end is named as a write is. One that succeeds does not end a failure.
func TestRemovalThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w LastWrite
		full := errors.New("no space")
		_ = w.Do(func() error { return full })
		disk, done := make(chan error), make(chan error, 1)
		go func() { done <- w.Remove(func() error { return <-disk }) }()
		time.Sleep(hangsAfter)
		_, err := w.Get()
		if _, hangs := errors.AsType[*HangsError](err); !hangs {
			t.Errorf("while it hangs: %v", err)
		}
		disk <- nil
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := w.Get(); !errors.Is(err, full) {
			t.Errorf("afterwards: %v, want %v", err, full)
		}
	})
}
