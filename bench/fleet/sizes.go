//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
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
	if !b.wants("rest", "start", "restart", "reload", "metrics", "api", "listing") {
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
	for _, step := range []struct {
		wanted bool
		do     func() error
	}{
		{b.wants("rest", "start"), func() error { return b.measureRest(ctx, w, d, set) }},
		{b.wants("api"), func() error { return measureAPI(ctx, d, n, set) }},
		{b.wants("metrics"), func() error { return b.measureMetrics(ctx, d, n, "", set) }},
		{b.wants("rest"), func() error { return b.measureScrapes(ctx, d, column, set) }},
		{b.wants("reload"), func() error { return b.measureReload(ctx, w, d, column, set) }},
		{b.wants("listing") && b.full, func() error { d, err = b.measureListing(ctx, w, d, column, set); return err }},
		{b.wants("metrics"), func() error { return b.measureEssential(ctx, w, d, n, set) }},
	} {
		if !step.wanted {
			continue
		}
		if err := step.do(); err != nil {
			return err
		}
	}
	if !b.wants("restart") {
		return nil
	}

	b.say("%s tokens: restart", column)
	if err := w.configure(settings{}); err != nil {
		return err
	}
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

// measureReload has the daemon read a configuration that did not change, and then one in which a token is another one each time.
func (b *bench) measureReload(ctx context.Context, w *world, d *daemon, column string, set func(row, cell string)) error {
	b.say("%s tokens: reloads", column)
	var took []time.Duration
	reload := func() error {
		t, err := d.reload(ctx)
		took = append(took, t)
		return err
	}
	for range 3 {
		if err := reload(); err != nil {
			return err
		}
	}
	set("reload", timeCell(middle(took)))
	took = nil
	for _, jitter := range []string{"11m", "12m", "10m"} {
		if err := w.configure(settings{first: jitter}); err != nil {
			return err
		}
		if err := reload(); err != nil {
			return err
		}
	}
	set("reload-changed", timeCell(middle(took)))
	peak, err := d.memory("VmHWM")
	if err != nil {
		return err
	}
	set("peak-reloaded", bytesCell(peak))
	set("memory", bytesCell(memoryFor(peak)))
	return nil
}

// measureEssential has the daemon show fewer series.
func (b *bench) measureEssential(ctx context.Context, w *world, d *daemon, n int, set func(row, cell string)) error {
	if err := w.configure(settings{perToken: "essential"}); err != nil {
		return err
	}
	if _, err := d.reload(ctx); err != nil {
		return err
	}
	return b.measureMetrics(ctx, d, n, "essential", set)
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

// measureRest lets the daemon rest.
func (b *bench) measureRest(ctx context.Context, w *world, d *daemon, set func(row, cell string)) error {
	b.say("%s tokens: at rest for %s", number(int64(w.shape.tokens())), b.rest)
	if err := sleep(ctx, b.rest); err != nil {
		return err
	}
	resident, err := d.memory("VmRSS")
	if err != nil {
		return err
	}
	set("rest", bytesCell(resident))
	set("start-disk", b.diskCell(d.writtenBytes()))
	return nil
}

// idled is what a daemon does in a time in which nothing is to be done, as of a day.
type idled struct {
	cpu                time.Duration
	disk               int64
	diskErr            error
	cloudflare, listed int64
	vault              int64
}

// watchIdle watches an idle daemon, and extrapolates a day.
func (b *bench) watchIdle(ctx context.Context, w *world, d *daemon) (day idled, err error) {
	cpu, err := d.cpu()
	if err != nil {
		return day, err
	}
	disk, diskErr := d.writtenBytes()
	if err := w.reset(ctx); err != nil {
		return day, err
	}
	if err := sleep(ctx, b.idle); err != nil {
		return day, err
	}
	after, err := d.cpu()
	if err != nil {
		return day, err
	}
	written, err := d.writtenBytes()
	s, seenErr := w.seen(ctx)
	days := float64(24*time.Hour) / float64(b.idle)
	extrapolate := func(n int64) int64 { return int64(float64(n) * days) }
	return idled{
		cpu: time.Duration(extrapolate(int64(after - cpu))), disk: extrapolate(written - disk), diskErr: errors.Join(diskErr, err),
		cloudflare: extrapolate(int64(s.Cloudflare - s.Listed)), listed: extrapolate(int64(s.Listed)), vault: extrapolate(int64(s.Vault)),
	}, seenErr
}

// measureUsed has a fleet rotate all its tokens, restarts it, and looks at what it does then: its sinks are watched, and it
// has more to show. It needs more credentials than one, so that Cloudflare's limit does not make it last for hours.
func (b *bench) measureUsed(ctx context.Context, n int) error {
	column := number(int64(n))
	accounts := (n + 499) / 500
	s := shape{accounts: accounts, per: n / accounts, limit: 1200, hosts: min(accounts, 100)}
	b.say("%s tokens of %d credential(s): all are rotated", column, accounts)
	w, err := newWorld(b.dir, s)
	if err != nil {
		return err
	}
	defer w.close()
	at := time.Now().Add(b.every + time.Duration(n/2000)*time.Second + time.Minute).Truncate(time.Minute)
	if err := w.configure(settings{at: at, grace: "1h"}); err != nil {
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
	if err := d.until(ctx, "has rotated all tokens", time.Second, func() (bool, error) {
		s, err := w.seen(ctx)
		return s.Confirmed == w.shape.tokens(), err
	}); err != nil {
		return err
	}
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	d.stop()
	if err := checkTruth(ctx, w, 0, accounts, w.shape.tokens()); err != nil {
		return err
	}

	if err := w.configure(settings{}); err != nil {
		return err
	}
	if d, err = w.start(b.binary); err != nil {
		return err
	}
	if _, err := d.ready(ctx); err != nil {
		return err
	}
	b.say("%s tokens, all rotated: at rest for %s, then watched for %s", column, b.rest, b.idle)
	if err := sleep(ctx, b.rest); err != nil {
		return err
	}
	resident, err := d.memory("VmRSS")
	if err != nil {
		return err
	}
	day, err := b.watchIdle(ctx, w, d)
	if err != nil {
		return err
	}
	size, series, _, err := scrape(ctx, d, false)
	if err != nil {
		return err
	}
	set := func(row, cell string) { b.sizes.set(row, column, cell) }
	set("used-rest", bytesCell(resident))
	set("used-size", bytesCell(size))
	set("used-series", significant(float64(series-int64(b.ownSeries[""]))/float64(n)))
	if n == 1 {
		set("used-series", fmt.Sprintf("%d in all", series))
	}
	set("used-cpu", significant(day.cpu.Seconds()))
	set("used-disk", b.diskCell(day.disk, day.diskErr))
	// One account lists a thousand tokens on a page each hour. Small ones are looked at more often (docs/configuration.md).
	listings := 24 * (int64(n+999) / 1000)
	looking := day.cloudflare
	if s.per <= 200 { // a look is a listing
		listings = max(listings, day.listed)
	} else { // with many accounts it comes more rarely than they are watched for
		looking = max(looking, int64(looks(accounts)))
	}
	set("used-cloudflare", number(looking+listings))
	set("used-vault", number(day.vault))
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

// measureListing starts the daemon again so that it lists each minute, and looks at one such listing. It returns the daemon that
// runs then; nil if none does.
func (b *bench) measureListing(ctx context.Context, w *world, d *daemon, column string, set func(row, cell string)) (*daemon, error) {
	b.say("%s tokens: a listing", column)
	if err := w.configure(settings{inventory: "1m"}); err != nil {
		return d, err
	}
	d.stop()
	d, err := w.start(b.binary)
	if err != nil {
		return nil, err
	}
	if _, err := d.ready(ctx); err != nil {
		return d, err
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
	if err := listed(pages); err != nil { // the first one may find news
		return d, err
	}
	if err := sleep(ctx, 10*time.Second); err != nil {
		return d, err
	}
	cpu, err := d.cpu()
	if err != nil {
		return d, err
	}
	disk, diskErr := d.writtenBytes()
	if err := listed(pages); err != nil {
		return d, err
	}
	if err := sleep(ctx, 3*time.Second); err != nil {
		return d, err
	}
	s, err := w.seen(ctx)
	if err != nil {
		return d, err
	}
	after, err := d.cpu()
	if err != nil {
		return d, err
	}
	written, err := d.writtenBytes()
	if err == nil {
		err = diskErr
	}
	set("listing-cpu", timeCell(after-cpu))
	set("listing-disk", b.diskCell(written-disk, err))
	set("listing-requests", number(int64(s.Cloudflare)))
	return d, nil
}

// memoryFor returns a limit for a daemon that needed so much at most: a power of two, with a quarter to spare.
func memoryFor(peak int64) int64 {
	limit := int64(64 << 20)
	for limit < peak+peak/4 {
		limit *= 2
	}
	return limit
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
