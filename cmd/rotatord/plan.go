package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/config"
	"rotatord/internal/journal"
	"rotatord/internal/rotation"
)

// maxCount bounds --count: a list that nobody can read should not fill the memory.
const maxCount = 10_000

func newPlan() *cobra.Command {
	var configPath string
	var format outputFormat
	var count int
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show the next rotations",
		Long: `Show when each token is rotated next, in its own zone and in UTC, jitter included.
It reads the ledger if no daemon has it open; otherwise, and on a machine without one,
slots are counted from now, which is exact for all but @every schedules.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 1 || count > maxCount {
				return usagef("--count must be between 1 and %d, not %d", maxCount, count)
			}
			c, err := loadConfig(configPath, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			records, note := ledgerOf(cmd.Context(), c)
			firings := plan(c, records, count, time.Now())
			if format == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(firings)
			}
			if note != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), "note:", note)
			}
			return printPlan(cmd.OutOrStdout(), firings)
		},
	}
	configFlag(cmd, &configPath)
	outputFlag(cmd, &format)
	cmd.Flags().IntVarP(&count, "count", "n", 1, "how many rotations of each token")
	return cmd
}

// firing is one planned rotation.
type firing struct {
	Token    string             `json:"token"`
	Slot     time.Time          `json:"slot"`   // in the token's zone
	Begins   time.Time          `json:"begins"` // in UTC, with jitter and whatever else delays it
	Reason   rotation.DueReason `json:"reason"`
	Schedule string             `json:"schedule"`
	TimeZone string             `json:"time_zone"`
	Counted  string             `json:"counted_from"` // ledger or now
}

// ledgerOf reads the ledger, and says why if it cannot.
func ledgerOf(ctx context.Context, c *config.Config) (map[string]rotation.Record, string) {
	all, err := journal.ReadLedger(ctx, c.State.Dir)
	if err != nil {
		return nil, fmt.Sprintf("%v; slots are counted from now", err)
	}
	records := make(map[string]rotation.Record, len(all))
	for _, r := range all {
		records[r.Token] = r
	}
	return records, ""
}

// plan lists the next count rotations of each token, soonest first.
func plan(c *config.Config, records map[string]rotation.Record, count int, now time.Time) []firing {
	firings := []firing{}
	for _, t := range c.Tokens {
		record, known := records[t.Name]
		counted := "ledger"
		token := rotation.Token{Name: t.Name, ID: t.ID, Partner: t.Partner, Grace: t.Grace, Timetable: t.Timetable()}
		if !known || !token.Owns(record.TokenID) {
			record, counted = rotation.Record{Anchor: now.UTC().Truncate(time.Second)}, "now"
		}
		due := rotation.NextDue(token, record, rotation.Pause{})
		begins := due.At
		if begins.Before(now) { // overdue: as soon as a daemon runs
			begins = now
		}
		slot := due.Slot
		if slot.IsZero() {
			slot = begins
		}
		for i := range count {
			f := firing{Token: t.Name, Slot: slot.In(t.Schedule.Location()), Begins: begins.UTC().Truncate(time.Second), Reason: due.Reason,
				Schedule: t.Schedule.String(), TimeZone: t.Schedule.Location().String(), Counted: counted}
			if i > 0 {
				f.Reason = rotation.DueSlot
			}
			firings = append(firings, f)
			if served := token.Timetable.Passed(slot, begins); served.Due > 0 { // later slots that this one serves too
				slot = served.Last.Slot
			}
			next := token.Timetable.Next(slot)
			slot, begins = next.Slot, next.Begin
		}
	}
	slices.SortStableFunc(firings, func(a, b firing) int { return cmp.Or(a.Begins.Compare(b.Begins), cmp.Compare(a.Token, b.Token)) })
	return firings
}

func printPlan(w io.Writer, firings []firing) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TOKEN\tSLOT\tZONE\tBEGINS (UTC)\tBECAUSE OF\tSCHEDULE")
	for _, f := range firings {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Token, f.Slot.Format("Mon 2006-01-02 15:04:05 -07:00"), f.TimeZone,
			f.Begins.Format("2006-01-02 15:04:05"), f.Reason, f.Schedule)
	}
	return table.Flush()
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
