//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// This file measures what happens when many tokens are due in one moment.

// burst is what is due.
type burst struct {
	accounts, per int
	limit         int           // requests_per_5m; 0: the default
	delay         time.Duration // of each answer of Cloudflare
	// patient waits for tokens that the limit keeps for the next window; else only those of this window count.
	patient bool
	traced  bool // count disk syncs
}

func (b burst) tokens() int { return b.accounts * b.per }

// outcome is what came of a burst. Each count is of this burst alone.
type outcome struct {
	done    int           // in the first window
	took    time.Duration // from the due time until the last of those was confirmed in Vault
	all     time.Duration // until all were; 0 if not waited for
	vault   int           // requests to Vault
	cpu     time.Duration
	disk    int64
	diskErr error
	syncs   int
}

// So many tokens may take longer than the time after which an @every makes them due again. A slot of cron comes once, and
// takes up to a minute to come.
const long = 500

// quiet is how long nothing may be confirmed until it is the limit that the rest waits for.
const quiet = 5 * time.Second

// rotate has a daemon rotate tokens that are due in one moment, by their schedule, and checks that each was rotated once and
// that Vault has the secret that works. The world has as many accounts again for another program.
func (b *bench) rotate(ctx context.Context, due burst) (o outcome, w *world, err error) {
	w, err = newWorld(b.dir, shape{accounts: 2*due.accounts + 1, per: due.per, limit: 1200, hosts: due.accounts})
	if err != nil {
		return o, nil, err
	}
	defer func() {
		if err != nil {
			w.close()
			w = nil
		}
	}()
	with := settings{every: b.every, grace: "0s", limit: due.limit, accounts: due.accounts}
	if b.slot || due.tokens() >= long {
		with.at = time.Now().Add(b.every + time.Minute).Truncate(time.Minute)
	}
	if err := w.configure(with); err != nil {
		return o, w, err
	}
	trace := filepath.Join(w.dir, "trace")
	var under []string
	if due.traced {
		under = []string{"strace", "-f", "--seccomp-bpf", "-ttt", "-e", "trace=fsync,fdatasync", "-o", trace}
	}
	d, err := w.start(b.binary, under...)
	if err != nil {
		return o, w, err
	}
	defer d.stop()
	if _, err := d.ready(ctx); err != nil {
		return o, w, err
	}
	at, err := nextOf(ctx, d)
	if err != nil {
		return o, w, err
	}
	if time.Until(at) < 2*time.Second {
		return o, w, fmt.Errorf("the tokens are due %s after the daemon was ready, %w", time.Until(at), errTooEarly)
	}
	if err := w.delay(ctx, "*", due.delay, false); err != nil {
		return o, w, err
	}
	if err := sleep(ctx, time.Until(at)-time.Second); err != nil {
		return o, w, err
	}
	if err := w.reset(ctx); err != nil {
		return o, w, err
	}
	cpu, err := d.cpu()
	if err != nil {
		return o, w, err
	}
	disk, diskErr := d.writtenBytes()
	if err := b.watch(ctx, w, d, due, at, &o); err != nil {
		return o, w, err
	}
	after, err := d.cpu()
	if err != nil {
		return o, w, err
	}
	o.cpu = after - cpu
	o.disk, o.diskErr = d.writtenBytes()
	o.disk, o.diskErr = o.disk-disk, errors.Join(diskErr, o.diskErr)
	if err := o.check(ctx, w, due); err != nil {
		return o, w, fmt.Errorf("rotatord: %w", err)
	}
	if due.traced {
		d.stop()
		o.syncs, err = countSyncs(trace, at.Add(-time.Second/10), time.Now())
	}
	return o, w, err
}

// errTooEarly is why nothing is measured: this machine took too long to start the daemon.
var errTooEarly = errors.New("which is too early to measure: use a longer -every")

// check compares an outcome with what the doubles have seen.
func (o *outcome) check(ctx context.Context, w *world, due burst) error {
	s, err := w.seen(ctx)
	if err != nil {
		return err
	}
	if o.vault = s.Vault; s.Refused > 0 {
		return fmt.Errorf("%d requests were refused with 429", s.Refused)
	}
	done := due.tokens()
	if o.all == 0 {
		done = o.done
	}
	return checkTruth(ctx, w, 0, due.accounts, done)
}

// watch waits until the tokens are done, and noted in the ledger.
func (b *bench) watch(ctx context.Context, w *world, d *daemon, due burst, at time.Time, o *outcome) error {
	moved := time.Now()
	last := 0
	err := d.until(ctx, "has rotated them", 20*time.Millisecond, func() (bool, error) {
		s, err := w.seen(ctx)
		if err != nil {
			return false, err
		}
		took := time.Unix(0, s.LastConfirm).Sub(at)
		if s.Confirmed > last {
			last, moved = s.Confirmed, time.Now()
		}
		switch {
		case s.Confirmed >= due.tokens():
			if o.all = took; o.done == 0 {
				o.done, o.took = s.Confirmed, took
			}
			return true, nil
		case s.Confirmed > 0 && o.done == 0 && time.Since(moved) > quiet+due.delay:
			o.done, o.took = s.Confirmed, took
			return !due.patient, nil
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	return sleep(ctx, time.Second)
}

// nextOf returns when the first token is due.
func nextOf(ctx context.Context, d *daemon) (time.Time, error) {
	var token struct {
		Next time.Time `json:"next"`
	}
	if err := getJSON(ctx, d.url+"/api/v1/tokens/"+tokenName(0), &token); err != nil {
		return time.Time{}, err
	}
	if token.Next.IsZero() {
		return time.Time{}, errors.New("the daemon does not say when the first token is due")
	}
	return token.Next, nil
}

// checkTruth compares accounts with how many of their tokens are to be rotated.
func checkTruth(ctx context.Context, w *world, from, to, done int) error {
	var sum truth
	for account := from; account < to; account++ {
		t, err := w.truth(ctx, account)
		if err != nil {
			return err
		}
		sum.Rotations += t.Rotations
		sum.Once += t.Once
		sum.Working += t.Working
	}
	if sum.Rotations != done || sum.Once != done || sum.Working != done {
		return fmt.Errorf("of %d tokens that are said to be rotated, the simulator shows %d rotations, %d that were rotated once, and for %d the secret in Vault works",
			done, sum.Rotations, sum.Once, sum.Working)
	}
	return nil
}

// countSyncs counts the calls in a file of strace between two times.
func countSyncs(path string, from, to time.Time) (n int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		// 4711 1764432000.123456 fdatasync(5 <unfinished ...>
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || !strings.HasPrefix(fields[2], "fsync(") && !strings.HasPrefix(fields[2], "fdatasync(") {
			continue
		}
		seconds, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return 0, fmt.Errorf("strace wrote %q: %w", lines.Text(), err)
		}
		if at := time.UnixMicro(int64(seconds * 1e6)); !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n, nil
}

// cell writes how long it took, and how much of it the limit kept back.
func (o outcome) cell(due burst) string {
	switch {
	case o.done == due.tokens():
		return timeCell(o.took)
	case o.all > 0:
		return fmt.Sprintf("%s: %s in %s", timeCell(o.all), number(int64(o.done)), timeCell(o.took))
	}
	return fmt.Sprintf("%s in %s, the rest in the next window", number(int64(o.done)), timeCell(o.took))
}

// measureBurst fills a row of times, also for what could take the place of the daemon.
func (b *bench) measureBurst(ctx context.Context, row string, due burst, withScript bool) error {
	b.say("%s tokens of %d credential(s) due at once, limit %d, latency %s", number(int64(due.tokens())), due.accounts, due.limit, due.delay)
	o, w, err := b.rotate(ctx, due)
	if err != nil {
		return fmt.Errorf("%s: %w", row, err)
	}
	defer w.close()
	b.rotations.set(row, ours, o.cell(due))
	took, err := b.loop(ctx, w, due)
	if err != nil {
		return fmt.Errorf("%s: %w", row, err)
	}
	b.rotations.set(row, loop, timeCell(took))
	if row == "bound" {
		b.rotations.set(row, ours, significant(float64(o.done)/o.took.Seconds()))
		b.rotations.set(row, loop, significant(float64(due.tokens())/took.Seconds()))
		b.rotations.set("bound-cpu", ours, timeCell(o.cpu/time.Duration(o.done)))
		b.rotations.set("bound-disk", ours, b.diskCell(o.disk/int64(o.done), o.diskErr))
		b.rotations.set("vault", ours, significant(float64(o.vault)/float64(o.done)))
		b.rotations.set(row, script, "not run: one after the other")
		b.rotations.set("vault", loop, "1")
		b.rotations.set("vault", script, "1")
	}
	if !withScript {
		if row != "bound" {
			b.rotations.set(row, script, "not run: ten times the first row")
		}
		return nil
	}
	if _, err := exec.LookPath("curl"); err != nil {
		b.rotations.set(row, script, notMeasured+": curl is not installed")
		return nil
	}
	if took, err = b.script(ctx, w, due); err != nil {
		return fmt.Errorf("%s: %w", row, err)
	}
	b.rotations.set(row, script, timeCell(took))
	return nil
}

// measureSyncs counts disk syncs, with strace.
func (b *bench) measureSyncs(ctx context.Context) error {
	for _, row := range []string{"syncs-one", "syncs-many"} {
		due := burst{accounts: 1, per: b.hundred, traced: true}
		if row == "syncs-many" {
			due = burst{accounts: b.credentials, per: max(1, b.each/2), traced: true}
		}
		b.rotations.set(row, loop, "0")
		b.rotations.set(row, script, "0")
		if err := exec.CommandContext(ctx, "strace", "-f", "--seccomp-bpf", "-o", os.DevNull, "true").Run(); err != nil {
			b.rotations.set(row, ours, notMeasured+": strace is not installed, or may not trace")
			continue
		}
		b.say("%s tokens of %d credential(s): disk syncs", number(int64(due.tokens())), due.accounts)
		o, w, err := b.rotate(ctx, due)
		if err != nil {
			return fmt.Errorf("%s: %w", row, err)
		}
		w.close()
		b.rotations.set(row, ours, significant(float64(o.syncs)/float64(o.done)))
	}
	return nil
}

// measureKill kills a daemon in the middle of many rotations. The answers to them are lost with it.
func (b *bench) measureKill(ctx context.Context) error {
	per := max(1, b.each/5)
	b.say("kill -9 in the middle of %d rotations", b.credentials*per)
	w, err := newWorld(b.dir, shape{accounts: b.credentials, per: per, limit: 1200, hosts: b.credentials})
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.configure(settings{every: b.every, grace: "0s"}); err != nil {
		return err
	}
	d, err := w.start(b.binary)
	if err != nil {
		return err
	}
	defer func() { d.stop() }()
	if _, err := d.ready(ctx); err != nil {
		return err
	}
	at, err := nextOf(ctx, d)
	if err != nil {
		return err
	}
	// Nobody sees an answer before the kill.
	if err := w.delay(ctx, "rotate", time.Minute, true); err != nil {
		return err
	}
	if err := sleep(ctx, time.Until(at)); err != nil {
		return err
	}
	moved, inFlight := time.Now(), 0
	if err := d.until(ctx, "has begun them", 5*time.Millisecond, func() (bool, error) {
		s, err := w.seen(ctx)
		if s.InFlight > inFlight {
			inFlight, moved = s.InFlight, time.Now()
		}
		return inFlight == w.shape.tokens() || inFlight > 0 && time.Since(moved) > 5*time.Second, err
	}); err != nil {
		return err
	}
	d.kill()
	if err := w.delay(ctx, "", 0, false); err != nil {
		return err
	}
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	if d, err = w.start(b.binary); err != nil {
		return err
	}
	took, err := d.ready(ctx)
	if err != nil {
		return err
	}
	b.rotations.set("killed", ours, fmt.Sprintf("%s (%d in progress)", timeCell(took), inFlight))
	err = d.until(ctx, "has done all of them", 100*time.Millisecond, func() (bool, error) {
		working := 0
		for account := range b.credentials {
			t, err := w.truth(ctx, account)
			if err != nil {
				return false, err
			}
			working += t.Working
		}
		return working == w.shape.tokens(), nil
	})
	b.rotations.set("killed-done", ours, timeCell(time.Since(d.began)))
	return err
}
