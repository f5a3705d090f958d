//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rotatord/bench/marked"
)

// This file writes the results into the documents.

// documented are the sizes that the documents have.
var documented = []string{"1", "1,000", "10,000", "100,000"}

// part is what this program writes into a document.
type part struct {
	page, name string
	text       func(b *bench, old string) string
}

const (
	sizesTitle     = "tokens of one credential"
	rotationsTitle = "rotations"
)

var parts = []part{
	{"docs/benchmarks.md", "machine", func(b *bench, _ string) string { return b.machine() + "\n" }},
	{"docs/benchmarks.md", "sizes", func(b *bench, old string) string {
		return render(sizesTitle, sizeRows, documented, merged(sizeRows, documented, b.sizes, old))
	}},
	{"docs/benchmarks.md", "rotations", func(b *bench, old string) string {
		return render(rotationsTitle, rotationRows, rotationColumns, merged(rotationRows, rotationColumns, b.rotations, old))
	}},
	{"docs/sizing.md", "sizes", func(b *bench, old string) string {
		some := sizeRows.named(sizingRows)
		return render(sizesTitle, some, documented, merged(some, documented, b.sizes, old))
	}},
	{"docs/sizing.md", "limit", func(*bench, string) string { return limitTable() }},
}

// update writes the results of this run into the documents. Cells that it did not measure stay as they are.
func (b *bench) update(root string) error {
	for _, p := range parts {
		path := filepath.Join(root, filepath.FromSlash(p.page))
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		old, err := marked.Find(string(content), p.name)
		if err != nil {
			return fmt.Errorf("%s: %w", p.page, err)
		}
		page, err := marked.Replace(string(content), p.name, p.text(b, old))
		if err != nil {
			return fmt.Errorf("%s: %w", p.page, err)
		}
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// merged returns the cells of this run, and those of a table for what it did not measure.
func merged(all rows, columns []string, cells results, table string) results {
	out, old := results{}, marked.Cells(table)
	for _, row := range all {
		for _, column := range columns {
			if cell, ok := cells[row[0]][column]; ok {
				out.set(row[0], column, cell)
			} else if cell, ok := old[row[1]][column]; ok {
				out.set(row[0], column, cell)
			}
		}
	}
	return out
}

// What Cloudflare allows, and what the daemon keeps free of that (docs/configuration.md, docs/benchmarks.md).
const (
	allowed     = 1200 // requests of one user or account token in five minutes
	byDefault   = 1000 // of which the daemon uses so many, by default
	perSecond   = 160  // requests to one address in a second; Cloudflare allows 200
	pageSize    = 1000 // service tokens in one page of a listing
	windowsADay = 24 * 60 / 5
)

// looks returns how often a daemon looks at its accounts in a day: each every two minutes, and all together never more often than
// every six seconds.
func looks(accounts int) int {
	return accounts * int(24*time.Hour/max(2*time.Minute, time.Duration(accounts)*6*time.Second))
}

// limitTable is arithmetic: nothing in it is measured.
func limitTable() string {
	const tokens = 100_000
	listing := tokens / pageSize
	budget := byDefault * windowsADay
	hours := func(rotations, perWindow int) string {
		windows := (rotations + perWindow - 1) / perWindow
		// The first window is spent at its start.
		return fmt.Sprintf("%.1f h", float64(windows-1)*5/60)
	}
	var b strings.Builder
	b.WriteString("| 100,000 tokens | one credential | ten credentials |\n| --- | --- | --- |\n")
	row := func(what string, one, ten string) { fmt.Fprintf(&b, "| %s | %s | %s |\n", what, one, ten) }
	share := func(requests, credentials int) string {
		return fmt.Sprintf("%s requests a day, %.1f %% of what the default allows", number(int64(requests)), 100*float64(requests)/float64(budget*credentials))
	}
	for _, each := range []struct {
		what string
		days int
	}{{"each rotated every 30 days, and listed hourly", 30}, {"each rotated weekly, and listed hourly", 7}, {"each rotated daily, and listed hourly", 1}} {
		requests := (tokens+each.days-1)/each.days + 24*listing
		row(each.what, share(requests+looks(1), 1), share(requests+looks(10), 10))
	}
	row("all at once, `requests_per_5m: 1000`", hours(tokens, byDefault), hours(tokens/10, byDefault))
	row("all at once, `requests_per_5m: 1200`", hours(tokens, allowed), hours(tokens/10, allowed))
	row(fmt.Sprintf("all at once, at %d requests a second from one address", perSecond),
		"slower: see above", fmt.Sprintf("at least %.0f min", float64(tokens)/perSecond/60))
	return b.String()
}
