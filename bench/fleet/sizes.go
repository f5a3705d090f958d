//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"syscall"
	"time"
)

// This file measures what a fleet of a size costs while nothing is due.

// measureSize fills the column of n tokens of one credential.
func (b *bench) measureSize(ctx context.Context, n int) error {
	column := number(int64(n))
	set := func(row, cell string) { b.sizes.set(row, column, cell) }
	w, err := newWorld(b.dir, shape{accounts: 1, per: n, limit: 1200})
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.configure(settings{}); err != nil {
		return err
	}
	if b.wants("check") {
		if err := b.measureCheck(ctx, w, set); err != nil {
			return err
		}
	}
	if !b.wants("rest", "start", "restart", "reload", "metrics", "api", "idle", "listing") {
		return nil
	}

	b.say("%s tokens: first start", column)
	d, err := w.start(b.binary)
	if err != nil {
		return err
	}
	defer func() { d.stop() }()
	took, err := d.ready(ctx)
	if err != nil {
		return err
	}
	set("start", timeCell(took))
	if b.wants("rest", "start", "idle") {
		if err := b.measureRest(ctx, w, d, set); err != nil {
			return err
		}
	}
	if b.wants("api") {
		if err := measureAPI(ctx, d, n, set); err != nil {
			return err
		}
	}
	if b.wants("metrics") {
		if err := b.measureMetrics(ctx, d, n, "", set); err != nil {
			return err
		}
	}
	if b.wants("rest") {
		if err := b.measureScrapes(ctx, d, column, set); err != nil {
			return err
		}
	}
	if b.wants("reload") {
		b.say("%s tokens: reloads", column)
		var took []time.Duration
		for range 3 {
			t, err := d.reload(ctx)
			if err != nil {
				return err
			}
			took = append(took, t)
		}
		set("reload", timeCell(middle(took)))
		peak, err := d.memory("VmHWM")
		if err != nil {
			return err
		}
		set("peak-reloaded", bytesCell(peak))
	}
	if b.wants("listing") && b.full {
		if err := b.measureListing(ctx, w, d, column, set); err != nil {
			return err
		}
	}
	if b.wants("metrics") {
		if err := w.configure(settings{perToken: "essential"}); err != nil {
			return err
		}
		if _, err := d.reload(ctx); err != nil {
			return err
		}
		if err := b.measureMetrics(ctx, d, n, "essential", set); err != nil {
			return err
		}
		if err := w.configure(settings{}); err != nil {
			return err
		}
	}
	if !b.wants("restart") {
		return nil
	}

	b.say("%s tokens: restart", column)
	d.stop()
	if d, err = w.start(b.binary); err != nil {
		return err
	}
	if took, err = d.ready(ctx); err != nil {
		return err
	}
	set("restart", timeCell(took))
	if err := sleep(ctx, 3*time.Second); err != nil {
		return err
	}
	set("restart-disk", b.diskCell(d.writtenBytes()))
	return nil
}

// measureCheck runs `check` three times. The middle time counts, and the highest peak.
func (b *bench) measureCheck(ctx context.Context, w *world, set func(row, cell string)) error {
	b.say("%s tokens: check", number(int64(w.shape.tokens())))
	var took []time.Duration
	var peak int64
	for range 3 {
		cmd := exec.CommandContext(ctx, b.binary, "check", "--config", w.config)
		began := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("rotatord check: %w\n%s", err, out)
		}
		took = append(took, time.Since(began))
		peak = max(peak, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss<<10)
	}
	set("check", timeCell(middle(took)))
	set("check-peak", bytesCell(peak))
	return nil
}

// measureRest lets the daemon rest, and then watches what it does while nothing is to be done.
func (b *bench) measureRest(ctx context.Context, w *world, d *daemon, set func(row, cell string)) error {
	b.say("%s tokens: at rest for %s, then watched for %s", number(int64(w.shape.tokens())), b.rest, b.idle)
	if err := sleep(ctx, b.rest); err != nil {
		return err
	}
	resident, err := d.memory("VmRSS")
	if err != nil {
		return err
	}
	set("rest", bytesCell(resident))
	set("start-disk", b.diskCell(d.writtenBytes()))
	if !b.wants("idle") {
		return nil
	}
	cpu, err := d.cpu()
	if err != nil {
		return err
	}
	disk, diskErr := d.writtenBytes()
	if err := w.reset(ctx); err != nil {
		return err
	}
	if err := sleep(ctx, b.idle); err != nil {
		return err
	}
	after, err := d.cpu()
	if err != nil {
		return err
	}
	days := float64(24*time.Hour) / float64(b.idle)
	set("idle-cpu", significant((after-cpu).Seconds()*days))
	written, err := d.writtenBytes()
	if err == nil {
		err = diskErr
	}
	set("idle-disk", b.diskCell(int64(float64(written-disk)*days), err))
	s, err := w.seen(ctx)
	if err != nil {
		return err
	}
	// A listing in that time is no part of it: it is hourly.
	set("idle-requests", fmt.Sprintf("%s and %s", number(int64(float64(s.Cloudflare-s.Listed)*days)), number(int64(float64(s.Vault)*days))))
	return nil
}

// measureAPI asks for one token again and again.
func measureAPI(ctx context.Context, d *daemon, n int, set func(row, cell string)) error {
	var took []time.Duration
	for range 200 {
		began := time.Now()
		if err := getJSON(ctx, d.url+"/api/v1/tokens/"+tokenName(n/2), nil); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	set("api", timeCell(middle(took)))
	return nil
}

// scrape reads /metrics, and returns how many bytes and series it has. A compressed one is only read.
func scrape(ctx context.Context, d *daemon, compressed bool) (size, series int64, took time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/metrics", nil)
	if err != nil {
		return 0, 0, 0, err
	}
	if compressed {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	began := time.Now()
	res, err := client.Do(req)
	if err != nil {
		return 0, 0, 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return 0, 0, 0, fmt.Errorf("/metrics: %s", res.Status)
	}
	chunk := make([]byte, 1<<18)
	first := true // at the beginning of a line
	for {
		n, err := res.Body.Read(chunk)
		for rest := chunk[:n]; len(rest) > 0 && !compressed; {
			if first && rest[0] != '#' {
				series++
			}
			end := bytes.IndexByte(rest, '\n')
			if first = end >= 0; !first {
				break
			}
			rest = rest[end+1:]
		}
		size += int64(n)
		if err == io.EOF {
			return size, series, time.Since(began), nil
		}
		if err != nil {
			return 0, 0, 0, err
		}
	}
}

// measureMetrics reads /metrics three times each way. kind is "essential", or empty for all series.
func (b *bench) measureMetrics(ctx context.Context, d *daemon, n int, kind string, set func(row, cell string)) error {
	b.say("%s tokens: /metrics", number(int64(n)))
	var took, compressed []time.Duration
	var size, series int64
	for range 3 {
		var t time.Duration
		var err error
		if size, series, t, err = scrape(ctx, d, false); err != nil {
			return err
		}
		took = append(took, t)
		if _, _, t, err = scrape(ctx, d, true); err != nil {
			return err
		}
		compressed = append(compressed, t)
	}
	own := 0 // series that a daemon with no token has
	if n > 1 {
		own = b.ownSeries[kind]
	} else if b.ownSeries[kind] == 0 {
		b.ownSeries[kind] = int(series)
	}
	each := significant(float64(series-int64(own)) / float64(n))
	if n == 1 {
		each = fmt.Sprintf("%d in all", series)
	}
	if kind == "essential" {
		set("essential", timeCell(middle(took)))
		set("essential-size", bytesCell(size))
		set("essential-series", each)
		return nil
	}
	set("metrics", timeCell(middle(took)))
	set("metrics-gzip", timeCell(middle(compressed)))
	set("metrics-size", bytesCell(size))
	set("series", each)
	return nil
}

// measureScrapes scrapes as Prometheus does, a hundred times or as often as the time allows, and lets the daemon rest.
func (b *bench) measureScrapes(ctx context.Context, d *daemon, column string, set func(row, cell string)) error {
	b.say("%s tokens: %d scrapes, then at rest for %s", column, b.scrapes, b.rest)
	n := 0
	for began := time.Now(); n < b.scrapes && time.Since(began) < b.scrapeTime; n++ {
		if _, _, _, err := scrape(ctx, d, true); err != nil {
			return err
		}
	}
	peak, err := d.memory("VmHWM")
	if err != nil {
		return err
	}
	if err := sleep(ctx, b.rest); err != nil {
		return err
	}
	resident, err := d.memory("VmRSS")
	if err != nil {
		return err
	}
	note := ""
	if n < b.scrapes {
		note = fmt.Sprintf(" (%d scrapes)", n)
	}
	set("peak-scraped", bytesCell(peak)+note)
	set("rest-scraped", bytesCell(resident)+note)
	return nil
}

// measureListing has the daemon list each minute, and looks at one such listing.
func (b *bench) measureListing(ctx context.Context, w *world, d *daemon, column string, set func(row, cell string)) error {
	b.say("%s tokens: a listing", column)
	if err := w.configure(settings{inventory: "1m"}); err != nil {
		return err
	}
	if _, err := d.reload(ctx); err != nil {
		return err
	}
	pages := (w.shape.per + 999) / 1000
	listed := func(pages int) error {
		if err := w.reset(ctx); err != nil {
			return err
		}
		return d.until(ctx, "has listed", 50*time.Millisecond, func() (bool, error) {
			s, err := w.seen(ctx)
			return s.Listed >= pages, err
		})
	}
	if err := listed(pages); err != nil { // the first one may do what the reload asked for
		return err
	}
	if err := sleep(ctx, 10*time.Second); err != nil {
		return err
	}
	cpu, err := d.cpu()
	if err != nil {
		return err
	}
	disk, diskErr := d.writtenBytes()
	if err := listed(pages); err != nil {
		return err
	}
	if err := sleep(ctx, 3*time.Second); err != nil {
		return err
	}
	s, err := w.seen(ctx)
	if err != nil {
		return err
	}
	after, err := d.cpu()
	if err != nil {
		return err
	}
	written, err := d.writtenBytes()
	if err == nil {
		err = diskErr
	}
	set("listing-cpu", timeCell(after-cpu))
	set("listing-disk", b.diskCell(written-disk, err))
	set("listing-requests", number(int64(s.Cloudflare)))
	return nil
}

// diskCell is a cell of bytes written to a disk.
func (b *bench) diskCell(n int64, err error) string {
	switch {
	case err != nil:
		return notMeasured + ": /proc/PID/io is only for root"
	case b.inMemory:
		return notMeasured + ": the directory is in memory"
	}
	return bytesCell(n)
}
