package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/config"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

const (
	// maxCount bounds --count: a list that nobody can read should not fill the memory.
	maxCount = 10_000
	// maxPlanned bounds what all tokens have together, but two for each are always had.
	maxPlanned = 250_000
	// maxEvents bounds a calendar. Programs that subscribe to one give up long before that.
	maxEvents = 50_000
	// maxYears is how far from now a plan may be asked for. Time zones and calendars change.
	maxYears = 100
	// calendarDays is how far a calendar reaches by itself.
	calendarDays = 90
)

func newPlan() *cobra.Command {
	var configPath, from, until, calendar string
	var format outputFormat
	var count int
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show the next rotations",
		Long: `Show when each token is rotated next, in its own zone and in UTC, and what is to be known
about that: the window of its jitter, freezes, when the previous secret stops working, and
warnings. What is shown is what the daemon would do if it were started now, and if every
rotation succeeded at once.

It reads the ledger if no daemon has it open. Otherwise, and on a machine without one, slots
are counted from now, which is exact for all but @every schedules, and what is paused or in
hand is not known. It needs no network.

Without --until, --count says how many rotations of each token are shown, by default 1. With
--until all that begin up to then are, or with --count as well that many of each token. With
--from only those that begin from then on. A --from that is not in the future leaves the
ledger aside and shows what the schedules alone have planned.

--calendar writes an iCalendar file to subscribe to, by default of the next 90 days. It takes
the place of FILE in one step, so a web server never serves half of it; - is standard output.

-o json prints an array; docs/plan.md describes its fields and the codes of the warnings.`,
		Example: `  rotatord plan --count 5
  rotatord plan --from 2027-03-01T00:00:00Z --until 2027-04-01T00:00:00+02:00
  rotatord plan --calendar /var/www/rotations.ics`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			given := cmd.Flags().Changed
			if given("calendar") && (given("output") || calendar == "") {
				return usagef("--calendar wants a file, or - for standard output, and is a format of its own: leave out -o")
			}
			o, err := planOptions(given, from, until, count, time.Now())
			if err != nil {
				return err
			}
			c, err := loadConfig(configPath, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			p, note, err := makePlan(cmd.Context(), c, o)
			if err != nil {
				return err
			}
			if note != "" && format != "json" {
				fmt.Fprintln(cmd.ErrOrStderr(), "note:", note)
			}
			switch {
			case calendar == "-":
				return writeCalendar(printable.Unescaped(cmd.OutOrStdout()), c, p, o)
			case given("calendar"):
				return saveCalendar(calendar, c, p, o)
			case format == "json":
				return p.printJSON(cmd.OutOrStdout())
			}
			return p.print(cmd.OutOrStdout())
		},
	}
	configFlag(cmd, &configPath)
	outputFlag(cmd, &format)
	flags := cmd.Flags()
	flags.IntVarP(&count, "count", "n", 1, "how many rotations of each token; with --until or --calendar by default all")
	flags.StringVar(&from, "from", "", "show what begins at this `time` or later, such as 2027-03-01T00:00:00Z")
	flags.StringVar(&until, "until", "", "show what begins at this `time` or earlier")
	flags.StringVar(&calendar, "calendar", "", "write an iCalendar `file` instead; - for standard output")
	_ = cmd.MarkFlagFilename("calendar", "ics")
	return cmd
}

// planRange is what a plan is asked for.
type planRange struct {
	now         time.Time
	from, until time.Time // zero: no bound
	count       int       // of each token; 0: no bound
	most        int       // of all tokens, but no less than two of each
}

// past reports whether the plan begins where the ledger does not help any more.
func (r planRange) past() bool { return !r.from.IsZero() && !r.from.After(r.now) }

func planOptions(given func(flag string) bool, from, until string, count int, now time.Time) (planRange, error) {
	r := planRange{now: now, count: count, most: maxPlanned}
	if count < 1 || count > maxCount {
		return r, usagef("--count must be between 1 and %d, not %d", maxCount, count)
	}
	var err error
	if given("from") {
		if r.from, err = planTime("--from", from, now); err != nil {
			return r, err
		}
	}
	if given("until") {
		if r.until, err = planTime("--until", until, now); err != nil {
			return r, err
		}
	}
	if given("calendar") {
		r.most = maxEvents
	}
	switch {
	case given("calendar") && !given("until") && !given("count"):
		begin := now
		if given("from") {
			begin = r.from
		}
		r.until, r.count = begin.AddDate(0, 0, calendarDays).UTC().Truncate(time.Second), 0
	case given("until") && !given("count"):
		r.count = 0
	}
	switch {
	case r.until.IsZero():
	case r.until.Before(r.from):
		return r, usagef("--until %s is before --from %s", until, from)
	case r.from.IsZero() && r.until.Before(now):
		return r, usagef("--until %s is in the past: give --from too", until)
	}
	return r, nil
}

// planTime reads a time on the command line.
func planTime(flag, s string, now time.Time) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	switch {
	case err == nil && (t.Before(now.AddDate(-maxYears, 0, 0)) || t.After(now.AddDate(maxYears, 0, 0))):
		return t, usagef("%s %s is more than %d years from now", flag, s, maxYears)
	case err == nil:
		return t, nil
	}
	for _, almost := range []struct{ layout, missing string }{
		{time.DateOnly, "a date alone: write the time of day and the offset from UTC too"},
		{"2006-01-02T15:04:05", "without an offset from UTC: write that too"},
		{time.DateTime, "without an offset from UTC: write that too"},
		{"2006-01-02T15:04", "without an offset from UTC: write that too"},
	} {
		if t, err := time.Parse(almost.layout, s); err == nil {
			return t, usagef("%s %s is %s, such as %s", flag, s, almost.missing, t.Format(time.RFC3339))
		}
	}
	return t, usagef("%s %q is no time: write one such as 2027-03-01T06:00:00Z or 2027-03-01T07:00:00+01:00", flag, s)
}

// makePlan forecasts all tokens, and says what it could not know.
func makePlan(ctx context.Context, c *config.Config, o planRange) (plan, string, error) {
	known, note := knowledge{}, "--from is not in the future: the ledger is left aside, and slots are counted from --from"
	if !o.past() {
		known, note = readKnowledge(ctx, c, o)
	}
	f, err := newForecaster(ctx, o, known)
	if err != nil {
		return nil, "", err
	}
	f.room = max(o.most, 2*len(c.Tokens))
	for i := range c.Tokens {
		if err := f.forecast(ctx, &c.Tokens[i]); err != nil {
			return nil, "", err
		}
	}
	f.plan.sort()
	return f.plan, note, nil
}

// knowledge is what the state directory says.
type knowledge struct {
	records map[string]rotation.Record
	pauses  map[string]rotation.Pause
}

// readKnowledge reads the ledger and what is paused, and says why if it cannot.
func readKnowledge(ctx context.Context, c *config.Config, o planRange) (knowledge, string) {
	records, err := ledgerOf(ctx, c)
	if err == nil {
		pauses, err := statedir.ReadPauses(ctx, c.State.Dir)
		if err != nil {
			return knowledge{records: records}, fmt.Sprintf("%v; what is paused is not known", err)
		}
		return knowledge{records, pauses}, ""
	}
	note := fmt.Sprintf("%v; slots are counted from now", err)
	if !o.from.IsZero() {
		note = fmt.Sprintf("%v; slots are counted from --from", err)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		note += ", and what is paused or in hand is not known"
	}
	return knowledge{}, note
}

// ledgerOf reads the ledger.
func ledgerOf(ctx context.Context, c *config.Config) (map[string]rotation.Record, error) {
	all, err := statedir.ReadLedger(ctx, c.State.Dir)
	if err != nil {
		return nil, err
	}
	records := make(map[string]rotation.Record, len(all))
	for _, r := range all {
		records[r.Token] = r
	}
	return records, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
