package precheck_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/precheck"
	"rotatord/internal/status"
)

// bench is a watch with one check, whose outcome the test sets.
type bench struct {
	t       *testing.T
	watch   *precheck.Watch
	outcome atomic.Pointer[func(context.Context) error]
	looks   atomic.Int32
	told    []string
}

// inBubble runs a test with a check that is good at first and looked at every minute.
func inBubble(t *testing.T, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t}
		b.is(nil)
		b.watch = precheck.New(nil, func(c status.Check) { b.told = append(b.told, fmt.Sprintf("%s %t %s", c.Title(), c.OK, c.Reason)) })
		b.watch.Set([]precheck.Check{b.check()})
		synctest.Wait()
		test(b)
		if err := b.watch.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func (b *bench) check() precheck.Check {
	return precheck.Check{Name: status.CheckVault, Every: time.Minute, Timeout: 10 * time.Second, Stops: true, Look: func(ctx context.Context) error {
		b.looks.Add(1)
		return (*b.outcome.Load())(ctx)
	}}
}

func (b *bench) is(err error) { b.does(func(context.Context) error { return err }) }

func (b *bench) does(look func(context.Context) error) { b.outcome.Store(&look) }

// after lets time pass and compares the only result.
func (b *bench) after(d time.Duration, want status.Check) {
	b.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	results := b.watch.Results()
	if len(results) != 1 {
		b.t.Fatalf("%d results: %+v", len(results), results)
	}
	got := results[0]
	want.Name, want.Stops, want.LookedAt = status.CheckVault, true, got.LookedAt
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("(-want +got):\n%s", diff)
	}
}

var errFull = fmt.Errorf("writing: %w", syscall.ENOSPC)

// TestFaultIsSeenAndEnds: a fault is seen at the next look, is repeated earlier, keeps its beginning while it
// lasts, and is told once.
func TestFaultIsSeenAndEnds(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.after(0, status.Check{OK: true})
		b.is(errFull)
		b.after(59*time.Second, status.Check{OK: true})
		b.after(time.Second, status.Check{Since: time.Now().UTC().Add(time.Second), Reason: "no_space", Detail: errFull.Error()})
		since := time.Now().UTC()
		looks := b.looks.Load()
		b.after(time.Minute, status.Check{Since: since, Reason: "no_space", Detail: errFull.Error()})
		if n := b.looks.Load() - looks; n != 4 {
			t.Errorf("it was looked at %d times in the minute after it failed", n)
		}
		b.is(syscall.EROFS)
		b.after(15*time.Second, status.Check{Since: since, Reason: "read_only", Detail: syscall.EROFS.Error()})
		b.is(nil)
		b.watch.LookNow(status.Check.Fails)
		b.after(0, status.Check{OK: true})
		if diff := cmp.Diff([]string{"Vault false no_space", "Vault false read_only", "Vault true "}, b.told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		looks = b.looks.Load()
		b.watch.LookNow(status.Check.Fails) // only what fails
		b.after(0, status.Check{OK: true})
		if b.looks.Load() != looks {
			t.Error("a check that is good was looked at again")
		}
		b.watch.LookNow(func(status.Check) bool { return true })
		b.after(0, status.Check{OK: true})
		if b.looks.Load() != looks+1 {
			t.Error("LookNow does not look")
		}
	})
}

// refusal is the error of a server that refuses.
type refusal string

func (r refusal) Error() string { return string(r) }
func (refusal) Cause() string   { return "refused" }

// TestAnotherRefusal: who grants one missing permission after the other is told what is missing next. What a proxy calls each request is not news, nor is
// what was told since the check fails, and texts without end are not told without end.
func TestAnotherRefusal(t *testing.T) {
	inBubble(t, func(b *bench) {
		told := func(want int, why string, texts ...string) {
			t.Helper()
			b.told = nil
			for _, text := range texts {
				b.is(refusal(text))
				time.Sleep(2 * time.Minute)
				synctest.Wait()
			}
			if len(b.told) != want {
				t.Errorf("%s: told %q, want it %d times", why, b.told, want)
			}
		}
		told(1, "the same", "its policy lacks read (request 18.2d351ab8, 5e0c7f2a-beef-4bad-8ace-0123456789ab)", "its policy lacks read (request 19.a7, 0b1d9c44-cafe-4fab-9bed-ba9876543210)")
		told(1, "another one", "its policy lacks update (request 20.01, 0b1d9c45-cafe-4fab-9bed-ba9876543210)")
		told(0, "both are known", "its policy lacks read (request 1)", "its policy lacks update (request 2)")
		var endless []string
		for i := range 26 {
			endless = append(endless, "no "+string(rune('a'+i)))
		}
		told(6, "a text of its own each time", endless...)
		b.told = nil
		b.is(nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]string{"Vault true "}, b.told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		told(1, "after it was good", "its policy lacks read")
	})
}

// TestFirstLookFails: a fault that was there before the start is told as well.
func TestFirstLookFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t}
		b.is(errFull)
		b.watch = precheck.New(nil, func(c status.Check) { b.told = append(b.told, c.Reason) })
		b.watch.Set([]precheck.Check{b.check()})
		b.after(0, status.Check{Since: time.Now().UTC(), Reason: "no_space", Detail: errFull.Error()})
		if _, failing := b.watch.Failing(status.CheckVault, ""); !failing || len(b.told) != 1 {
			t.Errorf("failing: %t, told: %v", failing, b.told)
		}
		_ = b.watch.Close(t.Context())
	})
}

// TestHangingCheck: a check that ignores its context counts as failed, and delays neither the results nor
// another check nor the end.
func TestHangingCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t}
		release := make(chan struct{})
		b.does(func(context.Context) error { <-release; return nil })
		var told []string
		b.watch = precheck.New(nil, func(c status.Check) { told = append(told, c.Title()+" "+c.Reason) })
		began := time.Now().UTC()
		b.watch.Set([]precheck.Check{b.check(), {Name: status.CheckSink, Every: time.Minute, Timeout: time.Second, Look: func(context.Context) error { return nil }}})
		time.Sleep(14 * time.Second)
		if got := b.watch.Results(); len(got) != 1 || got[0].Name != status.CheckSink {
			t.Errorf("before it counts as hanging: %+v", got)
		}
		time.Sleep(time.Second)
		got, failing := b.watch.Failing(status.CheckVault, "")
		if !failing || got.Reason != "hangs" || !got.Since.Equal(began) || got.Detail == "" {
			t.Errorf("it hangs: %t %+v", failing, got)
		}
		if synctest.Wait(); len(told) != 1 || told[0] != "Vault hangs" {
			t.Errorf("told: %q", told)
		}
		bounded, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.watch.Close(bounded); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("closing: %v", err)
		}
		close(release)
	})
}

// TestNothingLearned: what a look did not find out changes nothing.
func TestNothingLearned(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.is(errFull)
		b.after(time.Minute, status.Check{Since: time.Now().UTC().Add(time.Minute), Reason: "no_space", Detail: errFull.Error()})
		since := time.Now().UTC()
		b.is(fmt.Errorf("%w: another check fails", precheck.ErrNothingLearned))
		b.after(15*time.Second, status.Check{Since: since, Reason: "no_space", Detail: errFull.Error()})
	})
}

// TestSetReplacesChecks: those that stay keep their results, and those that go are forgotten.
func TestSetReplacesChecks(t *testing.T) {
	inBubble(t, func(b *bench) {
		other := precheck.Check{Name: status.CheckCloudflare, Subject: "prod", Every: time.Minute, Timeout: time.Second, Look: func(context.Context) error { return errors.New("no") }}
		looks := b.looks.Load()
		b.watch.Set([]precheck.Check{other, b.check()})
		synctest.Wait()
		if got := b.watch.Results(); len(got) != 2 || got[0].Subject != "prod" || got[0].Reason != "other" || b.looks.Load() != looks {
			t.Errorf("%d looks, %+v", b.looks.Load()-looks, got)
		}
		b.watch.Set([]precheck.Check{b.check()})
		b.after(0, status.Check{OK: true})
	})
}

// TestNoSecretInDetail: an error may quote what came over the wire.
func TestNoSecretInDetail(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.is(errors.New("refused: cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef"))
		b.after(time.Minute, status.Check{Since: time.Now().UTC().Add(time.Minute), Reason: "other", Detail: "refused: [redacted]"})
	})
}
