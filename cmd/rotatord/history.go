package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/admin"
	"rotatord/internal/audit"
	"rotatord/internal/printable"
	"rotatord/internal/status"
)

func newHistory() *cobra.Command {
	var at socketFlags
	var format outputFormat
	var file, since string
	var q status.HistoryQuery
	cmd := &cobra.Command{
		Use:   "history [NAME]",
		Short: "Show what happened: who did what, when, why, and with which result",
		Long: `Show lines of the record of events, the newest last: all of them, or with NAME those of one token. A running daemon
is asked at its admin socket. If none answers, the file is read, which root and the daemon's user may.`,
		Args: atMostOneName,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) == 1 {
				q.Token = args[0]
			}
			if since != "" {
				if q.Since, err = status.ParseSince(since, time.Now()); err != nil {
					return usagef("--since: %v", err)
				}
			}
			if q.Limit < 1 || q.Limit > status.MaxHistory {
				return usagef("-n is %d, and must be 1 to %d", q.Limit, status.MaxHistory)
			}
			if file != "" && at.socket != "" {
				return usagef("--file and --socket both say where the record is: give one of them")
			}
			h, err := history(cmd, &at, file, q)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), h)
			}
			return printHistory(cmd.OutOrStdout(), h, q)
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	cmd.Flags().StringVar(&file, "file", "", "read this record's `file`, and ask no daemon")
	_ = cmd.MarkFlagFilename("file", "jsonl")
	cmd.Flags().StringVar(&since, "since", "", "only what is not older: a duration (24h, 7d), a date or a `time`")
	cmd.Flags().StringVar(&q.Kind, "kind", "", "only this `kind` of event, or all that begin with it and a dot: rotation.failed, operator")
	cmd.Flags().IntVarP(&q.Limit, "limit", "n", status.HistoryLimit, "the newest `N` lines")
	return cmd
}

// history asks the daemon, or reads the file if no daemon answers.
func history(cmd *cobra.Command, at *socketFlags, file string, q status.HistoryQuery) (status.History, error) {
	if file != "" {
		return readHistory(cmd.Context(), file, q)
	}
	if at.socket != "" {
		client, err := at.client(cmd, cmd.ErrOrStderr())
		if err != nil {
			return status.History{}, err
		}
		return client.History(cmd.Context(), q)
	}
	c, err := loadConfig(at.config, cmd.ErrOrStderr())
	if err != nil {
		return status.History{}, err
	}
	why := errors.New("admin_socket is not configured")
	if c.AdminSocket != "" {
		var h status.History
		if h, why = admin.NewClient(c.AdminSocket).History(cmd.Context(), q); why == nil {
			return h, nil
		} else if _, refused := errors.AsType[*admin.Refused](why); refused {
			return h, why
		}
	}
	path := c.Audit.File
	h, err := readHistory(cmd.Context(), path, q)
	if err != nil {
		return h, fmt.Errorf("no daemon answers (%w), and the file cannot be read: %w", why, err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "rotatord: no daemon answers (%v): this is what %s has\n", why, path)
	return h, nil
}

// ofOthers says where the rest of the history is when several replicas share a ledger.
func ofOthers(names []string) string {
	if len(names) == 0 {
		return "No other replica was seen in the last day."
	}
	return "The others have records of their own: ask them too: " + printable.Line(strings.Join(names, ", "), 1000) + "."
}

func readHistory(ctx context.Context, path string, q status.HistoryQuery) (status.History, error) {
	h, err := audit.ReadHistory(ctx, path, q)
	if err != nil {
		return h, recordUnreadable(path, err)
	}
	return h, nil
}

func printHistory(w io.Writer, h status.History, q status.HistoryQuery) error {
	if h.Replica != "" {
		fmt.Fprintf(w, "This is the record of the replica %s only. %s\n", printable.Line(h.Replica, 100), ofOthers(h.Others))
	}
	switch {
	case len(h.Entries) == 0 && h.Unread != "":
		fmt.Fprintf(w, "The newest 64 MiB of the record of events have no such line. What is before them was not read, from the end of %s on: rotatord audit verify reads everything.\n", h.Unread)
		return nil
	case len(h.Entries) == 0:
		fmt.Fprintln(w, "The record of events has no such line.")
		return nil
	case h.Unread != "":
		fmt.Fprintf(w, "There may be older lines: only the newest 64 MiB were read, and %s not to its beginning.\n", h.Unread)
	case h.More:
		fmt.Fprintln(w, "Older lines are left out: -n N shows more.")
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	columns := "TIME\tTOKEN\tBY\tWHAT"
	if q.Token != "" {
		columns = "TIME\tBY\tWHAT"
	}
	fmt.Fprintln(table, columns)
	for _, e := range h.Entries {
		e = e.Scrubbed()
		fmt.Fprint(table, e.At.UTC().Format("2006-01-02 15:04:05Z"))
		if q.Token == "" {
			fmt.Fprintf(table, "\t%s", cmp.Or(e.Token, "–"))
		}
		what := e.Message
		if e.Error != "" {
			what += ": " + e.Error
		}
		fmt.Fprintf(table, "\t%s\t%s\n", e.By, what)
	}
	return table.Flush()
}
