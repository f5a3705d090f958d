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

	"rotatord/internal/app"
	"rotatord/internal/config"
	"rotatord/internal/forecast"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

const (
	// maxCount is the largest --count. A longer list would only fill the memory.
	maxCount = 10_000
	// maxPlanned is the largest number of entries of all tokens together, unless that is less than two
	// for each token.
	maxPlanned = 250_000
	// maxEvents is the largest number of rotations in a calendar. Most calendar programs take far fewer.
	maxEvents = 50_000
	// maxYears is how many years from now a plan can begin and end. Time zones and calendars change.
	maxYears = 100
	// calendarDays is the default length of a calendar.
	calendarDays = 90
)

func newPlan() *cobra.Command {
	var configPath, from, until, calendar string
	var in login
	var format outputFormat
	var count int
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show the next rotations",
		Long: `Show when each token is rotated next, in its time zone and in UTC, with its jitter, its freezes, the
time at which the previous secret stops working, and warnings. The plan shows what the daemon would
do if it started now and if every rotation succeeded at once. It needs no network, except for a shared
ledger (state.shared), which it reads from Vault if the login uses up nothing, or with --login.

If no daemon has the ledger open, the plan uses it. Otherwise, and on another machine, slots are counted
from now. That is exact except for @every schedules; pauses and rotations in progress are not known.
A shared ledger is read beside running replicas.

  --until T   all rotations up to T
  --count N   at most N rotations of each token; the default is 1, and no limit with --until
  --from T    only rotations from T on. If T is not in the future, the ledger is not used, and the
              plan shows what the schedules alone say

--calendar writes an iCalendar file to subscribe to, by default for the next 90 days. The file is
replaced in one step, so a web server never serves an incomplete one; - is standard output.

-o json prints an array. docs/plan.md describes its fields and the codes of the warnings.`,
		Example: `  rotatord plan --count 5
  rotatord plan --from 2027-03-01T00:00:00Z --until 2027-04-01T00:00:00+02:00
  rotatord plan --calendar /var/www/rotations.ics`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			given := cmd.Flags().Changed
			if given("calendar") && (given("output") || calendar == "") {
				return usagef("--calendar needs a file, or - for standard output; it is a format of its own, so leave out -o")
			}
			r, err := planOptions(given, from, until, count, time.Now())
			if err != nil {
				return err
			}
			c, err := loadConfig(configPath, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			p, note, err := makePlan(cmd.Context(), c, in, r)
			if err != nil {
				return err
			}
			if note != "" && format != "json" {
				fmt.Fprintln(cmd.ErrOrStderr(), "note:", note)
			}
			switch {
			case calendar == "-":
				return writeCalendar(printable.Unescaped(cmd.OutOrStdout()), c, p, r)
			case given("calendar"):
				return saveCalendar(calendar, c, p, r)
			case format == "json":
				return printPlanJSON(cmd.OutOrStdout(), p)
			}
			return printPlan(cmd.OutOrStdout(), p)
		},
	}
	configFlag(cmd, &configPath)
	outputFlag(cmd, &format)
	flags := cmd.Flags()
	flags.IntVarP(&count, "count", "n", 1, "at most this many rotations of each token (with --until or --calendar: no limit)")
	flags.StringVar(&from, "from", "", "only rotations at this `time` or later, such as 2027-03-01T00:00:00Z")
	flags.StringVar(&until, "until", "", "only rotations at this `time` or earlier")
	flags.StringVar(&calendar, "calendar", "", "write an iCalendar `file` instead; - for standard output")
	_ = cmd.MarkFlagFilename("calendar", "ics")
	in.flags(cmd)
	return cmd
}

// planOptions returns the range that the flags ask for.
func planOptions(given func(flag string) bool, from, until string, count int, now time.Time) (forecast.Range, error) {
	r := forecast.Range{Now: now, Count: count, Limit: maxPlanned}
	if count < 1 || count > maxCount {
		return r, usagef("--count must be between 1 and %d, not %d", maxCount, count)
	}
	var err error
	if given("from") {
		if r.From, err = planTime("--from", from, now); err != nil {
			return r, err
		}
	}
	if given("until") {
		if r.Until, err = planTime("--until", until, now); err != nil {
			return r, err
		}
	}
	if given("calendar") {
		r.Limit = maxEvents
	}
	switch {
	case given("calendar") && !given("until") && !given("count"):
		begin := now
		if given("from") {
			begin = r.From
		}
		r.Until, r.Count = begin.AddDate(0, 0, calendarDays).UTC().Truncate(time.Second), 0
	case given("until") && !given("count"):
		r.Count = 0
	}
	switch {
	case r.Until.IsZero():
	case r.Until.Before(r.From):
		return r, usagef("--until %s is before --from %s", until, from)
	case r.From.IsZero() && r.Until.Before(now):
		return r, usagef("--until %s is in the past: give --from as well", until)
	}
	return r, nil
}

// planTime parses a time of the command line.
func planTime(flag, s string, now time.Time) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	switch {
	case err == nil && (t.Before(now.AddDate(-maxYears, 0, 0)) || t.After(now.AddDate(maxYears, 0, 0))):
		return t, usagef("%s %s is more than %d years from now", flag, s, maxYears)
	case err == nil:
		return t, nil
	}
	for _, almost := range []struct{ layout, missing string }{
		{time.DateOnly, "only a date: add the time of day and the offset from UTC"},
		{"2006-01-02T15:04:05", "without an offset from UTC: add it"},
		{time.DateTime, "without an offset from UTC: add it"},
		{"2006-01-02T15:04", "without an offset from UTC: add it"},
	} {
		if t, err := time.Parse(almost.layout, s); err == nil {
			return t, usagef("%s %s is %s, such as %s", flag, s, almost.missing, t.Format(time.RFC3339))
		}
	}
	return t, usagef("%s %q is not a time: write one such as 2027-03-01T06:00:00Z or 2027-03-01T07:00:00+01:00", flag, s)
}

// makePlan returns the forecast for the configured tokens, and a note that says what it does not know.
func makePlan(ctx context.Context, c *config.Config, in login, r forecast.Range) (forecast.Forecast, string, error) {
	state, note := forecast.State{}, "--from is not in the future: the ledger is not used, and slots are counted from --from"
	if !r.Past() {
		state, note = readState(ctx, c, in, r)
	}
	p, err := forecast.Of(ctx, plannedTokens(c), state, r)
	if tooMany, ok := errors.AsType[forecast.TooManyError](err); ok {
		err = usagef("the plan would have more than %d entries: shorten the time between --from and --until, or give a smaller --count", tooMany.Limit)
	}
	return p, note, err
}

// plannedTokens returns what a forecast needs of the configured tokens.
func plannedTokens(c *config.Config) []rotation.Token {
	tokens := make([]rotation.Token, len(c.Tokens))
	for i := range c.Tokens {
		tokens[i] = app.PlannedToken(c.Tokens[i])
	}
	return tokens
}

// readState reads the ledger and the pauses. If it cannot, it returns a note that says why.
func readState(ctx context.Context, c *config.Config, in login, r forecast.Range) (forecast.State, string) {
	records, pauses, err := ledgerOf(ctx, c, in)
	switch {
	case err == nil:
		return forecast.State{Records: records, Pauses: pauses}, ""
	case records != nil:
		return forecast.State{Records: records}, fmt.Sprintf("%v; pauses are not known", err)
	}
	note := fmt.Sprintf("%v; slots are counted from now", err)
	if !r.From.IsZero() {
		note = fmt.Sprintf("%v; slots are counted from --from", err)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		note += ", and pauses and rotations in progress are not known"
	}
	return forecast.State{}, note
}

// ledgerOf returns the records of the ledger by token, and what is paused. If only the pauses cannot be read, it
// returns the records with the error.
func ledgerOf(ctx context.Context, c *config.Config, in login) (map[string]rotation.Record, map[string]rotation.Pause, error) {
	if c.State.Shared != nil {
		return sharedLedgerOf(ctx, c, in)
	}
	all, err := statedir.ReadLedger(ctx, c.State.Dir)
	if err != nil {
		return nil, nil, err
	}
	pauses, err := statedir.ReadPauses(ctx, c.State.Dir)
	return byToken(all), pauses, err
}

// sharedReadTime bounds how long a command that can do without the shared ledger tries to read it.
const sharedReadTime = 30 * time.Second

func sharedLedgerOf(ctx context.Context, c *config.Config, in login) (map[string]rotation.Record, map[string]rotation.Pause, error) {
	ctx, cancel := context.WithTimeout(ctx, sharedReadTime)
	defer cancel()
	s, err := openShared(ctx, c, in)
	if err != nil {
		return nil, nil, fmt.Errorf("the shared ledger was not read: %w", err)
	}
	defer s.close()
	all, err := s.ledger.All(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("the shared ledger was not read: %w", err)
	}
	pauses, err := s.ledger.LoadPauses(ctx)
	return byToken(all), pauses, err
}

func byToken(all []rotation.Record) map[string]rotation.Record {
	records := make(map[string]rotation.Record, len(all))
	for _, r := range all {
		records[r.Token] = r
	}
	return records
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
