//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file writes the tables. Each row is declared once, here: a row that no measurement fills says so.

// notMeasured is the cell of what was not asked for, or could not be measured.
const notMeasured = "not measured"

// rows are the rows of a table, in their order: a key, and what people read.
type rows [][2]string

// sizeRows have a column for each number of tokens.
var sizeRows = rows{
	{"rest", "resident at rest"},
	{"rest-scraped", "resident at rest, after the scrapes"},
	{"peak-scraped", "peak resident, start and scrapes"},
	{"peak-reloaded", "peak resident, reloads too"},
	{"start", "first start to ready"},
	{"restart", "restart to ready"},
	{"check", "`check`: time"},
	{"check-peak", "`check`: peak resident"},
	{"reload", "SIGHUP without changes"},
	{"reload-changed", "SIGHUP after one token was changed"},
	{"api", "one token by API"},
	{"metrics", "`/metrics`: time"},
	{"metrics-gzip", "`/metrics` compressed, as Prometheus asks for it: time"},
	{"metrics-size", "`/metrics`: size"},
	{"series", "`/metrics`: series for each token"},
	{"essential", "`per_token: essential`: time"},
	{"essential-size", "`per_token: essential`: size"},
	{"essential-series", "`per_token: essential`: series for each token"},
	{"start-disk", "written to disk by the first start, with a listing"},
	{"restart-disk", "written to disk by a restart, with a listing"},
	{"listing-disk", "written to disk by a listing later"},
	{"listing-cpu", "processor time of a listing later"},
	{"listing-requests", "requests to Cloudflare for a listing"},
	{"used-rest", "all rotated: resident at rest"},
	{"used-size", "all rotated: `/metrics`"},
	{"used-series", "all rotated: series for each token"},
	{"used-cpu", "all rotated, idle: processor seconds a day"},
	{"used-disk", "all rotated, idle: written to disk a day"},
	{"used-cloudflare", "all rotated, idle: requests to Cloudflare a day, listings and looks at accounts"},
	{"used-vault", "all rotated, idle: requests to Vault a day"},
	{"memory", "memory to give it"},
}

// sizingRows are the rows of sizeRows that docs/sizing.md has.
var sizingRows = []string{"memory", "rest", "peak-scraped", "start", "restart", "metrics", "metrics-size", "series", "essential-size", "essential-series",
	"start-disk", "restart-disk", "used-rest", "used-size", "used-series", "used-cpu", "used-disk", "used-cloudflare", "used-vault"}

// rotationRows have a column for the daemon and for each program that could take its place.
var rotationRows = rows{
	{"hundred", "100 tokens of one credential, all due"},
	{"hundred-far", "the same, and Cloudflare answers after 200 ms"},
	{"thousand", "1,000 of one credential, `requests_per_5m: 1200`"},
	{"thousand-reserve", "1,000 of one credential, `requests_per_5m: 1000`"},
	{"bound", "rotations a second, 2,000 tokens of 20 credentials"},
	{"bound-cpu", "the same: processor time for each rotation"},
	{"bound-disk", "the same: written to disk for each rotation"},
	{"vault", "the same: requests to Vault for each rotation"},
	{"syncs-one", "disk syncs for each rotation, 100 tokens of one credential"},
	{"syncs-many", "disk syncs for each rotation, 1,000 tokens of 20 credentials"},
	{"killed", "kill -9 with so many rotations in progress, until ready"},
	{"killed-done", "the same, until all of them are done"},
	{"binary", "stripped binary"},
	{"crash", "a crash after Cloudflare's answer"},
	{"lost", "an answer that is lost"},
	{"readback", "what was written is read back"},
	{"record", "a record of who rotated what, when, and why"},
	{"share", "Cloudflare's limits, and other users of the credential"},
}

// columns of the second table.
const (
	ours   = "rotatord"
	loop   = "a loop of 16 workers"
	script = "a shell script with curl"
)

var rotationColumns = []string{ours, loop, script}

// claims are the cells that no measurement fills: what each of them is not.
var claims = map[string][3]string{
	"crash":    {"nothing is lost: sealed on disk first", "the secret is lost", "the secret is lost"},
	"lost":     {"in doubt, and resolved by looking", "unnoticed, or rotated again blindly", "unnoticed"},
	"readback": {"yes", "no", "no"},
	"record":   {"yes", "no", "no"},
	"share":    {"kept, with a reserve for them", "not looked at", "not looked at"},
}

// results are cells by row and column.
type results map[string]map[string]string

func (r results) set(row, column, cell string) {
	if r[row] == nil {
		r[row] = make(map[string]string)
	}
	r[row][column] = cell
}

// render returns a table in Markdown.
func render(title string, all rows, columns []string, cells results) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | %s |\n|%s\n", title, strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)+1))
	for _, row := range all {
		fmt.Fprintf(&b, "| %s |", row[1])
		for _, column := range columns {
			cell, ok := cells[row[0]][column]
			if !ok {
				cell = notMeasured
			}
			fmt.Fprintf(&b, " %s |", cell)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// named returns a table's rows, of these keys if there are any.
func (r rows) named(keys []string) rows {
	var chosen rows
	for _, key := range keys {
		for _, row := range r {
			if row[0] == key {
				chosen = append(chosen, row)
			}
		}
	}
	return chosen
}

// number writes a whole number with commas.
func number(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// significant rounds to two digits, or to whole numbers if that is more.
func significant(x float64) string {
	if x >= 100 {
		return number(int64(math.Round(x)))
	}
	if x == 0 {
		return "0"
	}
	places := max(0, 1-int(math.Floor(math.Log10(math.Abs(x)))))
	return strconv.FormatFloat(x, 'f', places, 64)
}

func bytesCell(n int64) string {
	switch {
	case n >= 10<<20:
		return number((n+1<<19)>>20) + " MiB"
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", (n+1<<9)>>10)
	}
	return fmt.Sprintf("%d B", n)
}

func timeCell(d time.Duration) string {
	switch {
	case d < time.Second:
		return significant(float64(d)/float64(time.Millisecond)) + " ms"
	case d < 100*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

// middle returns the middle of some times.
func middle(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
